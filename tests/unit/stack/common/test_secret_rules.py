from __future__ import annotations

import base64
import hashlib
import math
import string
from itertools import combinations

import pytest
from cryptography.fernet import Fernet

from stack.common.mistakes import InvalidSettingsError, Mistake
from stack.common.secret_rules import (
    CONFIGURED_SECRETS,
    KNOWN_DEFAULTS,
    ConfiguredSecret,
    SecretInput,
    check_secrets,
    entropy_bits,
    is_fernet_key,
    weakness,
)
from stack.settings.app import LLM_KEYS
from stack.settings.reading import read_environment
from tests.facts import facts
from tests.recording import DATABASE_URL, REDIS_URL, TELEGRAM_TOKEN, secret_value

GOOD = {
    name: {
        "telegramBotToken": TELEGRAM_TOKEN,
        "managedDatabaseUrl": DATABASE_URL,
        "managedRedisUrl": REDIS_URL,
        "alertWebhookUrl": f"https://chat.example.org/hooks/{secret_value(name)}",
        "heartbeatUrl": f"https://ping.example.org/{secret_value(name)}",
    }.get(name, secret_value(name, 86))
    for name in CONFIGURED_SECRETS
}
# Those whose form leaves any text to choose.
FREE_FORM = sorted(name for name, secret in CONFIGURED_SECRETS.items() if not secret.pattern)


def said(name: str, value: str, *, encrypted: bool = True) -> list[Mistake]:
    """What is said of one secret; and never is its value in it."""
    mistakes = list(check_secrets({name: SecretInput(value, encrypted=encrypted)}))
    text = str(InvalidSettingsError("staging", mistakes))
    assert value not in text or len(value) < 4, "the value of a secret is printed"
    for mistake in mistakes:
        assert mistake.key == f"samokoder:{name}"
        assert mistake.allowed
        assert mistake.example == f"pulumi config set --secret samokoder:{name}", "the way to set it without an echo"
    return mistakes


@pytest.mark.parametrize("name", CONFIGURED_SECRETS)
def test_a_good_secret_is_taken(name: str) -> None:
    assert said(name, GOOD[name]) == []


@pytest.mark.parametrize("name", CONFIGURED_SECRETS)
def test_a_secret_in_plain_text_is_refused(name: str) -> None:
    (mistake,) = said(name, GOOD[name], encrypted=False)
    assert mistake.given == "a value in plain text", "whoever reads the repository reads the secret"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("changeme", "is a known default"),
        ("Change-Me!", "is a known default"),
        ("CHANGE_ME_123", "is a known default"),
        ("admin", "is a known default"),
        ("postgres2024", "is a known default"),
        ("your-secret-key", "is a known default"),
        ("<the token from BotFather>", "is a placeholder"),
        ("${OPENAI_API_KEY}", "is a placeholder"),
        ("{{ vault.openai }}", "is a placeholder"),
        ("your-key-of-openai-goes-in-this-place", "is a placeholder"),
        ("put-the-real-key-here", "is a placeholder"),
        ("xxxxxxxxxxxxxxxx", "is a placeholder"),
        ("****************", "is a placeholder"),
        ("short", "has 5 characters; at least"),
        ("a" * 100, "repeats itself"),
        (" " + "v4lue" * 20, "has white space at its ends"),
        ("v4lue" * 20 + "\n", "has white space at its ends"),
        ("first line of it\n" + "v4lue" * 20, "a line break"),
    ],
)
def test_a_weak_secret_is_refused_with_its_reason(value: str, why: str) -> None:
    with facts() as fact:
        for name in FREE_FORM:
            with fact(name):
                (mistake,) = said(name, value)
                assert mistake.given.startswith("a value (not shown) that ")
                assert why in mistake.given


@pytest.mark.parametrize("name", FREE_FORM)
def test_a_secret_one_character_short_is_refused_and_of_the_length_taken(name: str) -> None:
    minimum = CONFIGURED_SECRETS[name].minimum_length
    (mistake,) = said(name, secret_value(name, minimum - 1))
    assert f"has {minimum - 1} characters; at least {minimum}" in mistake.given
    assert said(name, secret_value(name, minimum)) == []


def test_no_known_default_is_taken_however_it_is_written() -> None:
    ways = ("{}", "{}1", "{}2024", "-{}-", "{}!")
    written = [way.format(known) for known in sorted(KNOWN_DEFAULTS) for way in ways]
    taken = [
        value
        for each in written
        for value in (each, each.upper())
        if weakness(value, minimum_length=1, minimum_bits=0) != "is a known default"
    ]
    assert written
    assert not taken, "whoever guesses passwords tries these first"


@pytest.mark.parametrize("name", ["secretKey", "appSecretKey"])
def test_the_reference_applications_keys_have_64_characters_or_more(name: str) -> None:
    assert CONFIGURED_SECRETS[name].minimum_length >= 64
    assert "has 63 characters" in said(name, secret_value(name, 63))[0].given
    (mistake,) = said(name, "abcd" * 16)
    assert "repeats itself" in mistake.given, "64 characters out of four are 128 bits at best"


def keys_of_an_own_image(name: str, value: str) -> list[Mistake]:
    return list(check_secrets({name: SecretInput(value, encrypted=True)}, own_images=True))


@pytest.mark.parametrize("name", ["secretKey", "appSecretKey"])
@pytest.mark.parametrize(
    "value",
    [
        "Vq3xTz0-mLb8RkYw_2nHcFj5UsDgPa7iEoX1tN9ZlQv",  # secrets.token_urlsafe(32)
        "Vq3xTzA-mLbBRkYw_CnHcFjDUsDgPaEiEoXFtNGZlQv",  # one without a digit
        "9f2c7a1e5b08d3469f1c2b7e8a0d5f34c6e1907b2a8d4f5369c0e7b1a2d8f456",  # openssl rand -hex 32
    ],
)
def test_a_short_key_that_is_strong_is_taken_where_the_teams_own_images_run(name: str, value: str) -> None:
    assert keys_of_an_own_image(name, value) == []
    short = len(value) < CONFIGURED_SECRETS[name].minimum_length
    assert [each for each in said(name, value) if "at least 64" in each.given] or not short, (
        "the reference application refuses it at its start"
    )


@pytest.mark.parametrize("name", ["secretKey", "appSecretKey"])
@pytest.mark.parametrize(
    "value",
    [
        "9f2c7a1e5b08d3469f1c2b7e8a0d5f34",  # 128 bits
        "the quick brown fox jumps over a lazy dog now",
        "V" * 43,
        "Vq3x" * 11,
        secret_value("short", 20),
        "changeme",
    ],
)
def test_a_short_key_that_is_weak_is_refused_for_an_own_image_too(name: str, value: str) -> None:
    assert keys_of_an_own_image(name, value)


def fernet_keys() -> list[str]:
    """Base64 of 32 bytes by both alphabets, and its neighbours that are none."""
    rounds = (hashlib.sha256(str(number).encode()).digest() for number in range(200))
    keys = [encode(each).decode() for each in rounds for encode in (base64.b64encode, base64.urlsafe_b64encode)]
    ends = [f"{keys[0][:42]}{last}=" for last in string.ascii_letters + string.digits + "+/-_"]
    changed = [
        keys[0][:-1],
        keys[0] + "=",
        keys[0][:-2],
        keys[0] + "A",
        "é" * 44,
        "",
        "A" * 44,
        keys[0] + "\n",
        "=" * 44,
    ]
    return [*keys, *ends, *changed, secret_value("letters", 86), secret_value("letters", 44), "!" + keys[1]]


def test_a_fernet_key_is_what_fernet_itself_takes() -> None:
    def taken(value: str) -> bool:
        try:
            Fernet(value)
        except ValueError:
            return False
        return True

    judged = {value: taken(value) for value in fernet_keys()}
    assert set(judged.values()) == {True, False}
    assert {value: is_fernet_key(value) for value in judged} == judged, "its users' keys could not be brought along"
    assert [value for value in judged if set(value) & set("+/") and judged[value]], "`openssl rand -base64 32`"


def test_two_secrets_of_one_value_are_refused_whichever_they_are() -> None:
    with facts() as fact:
        for first, second in combinations(CONFIGURED_SECRETS, 2):
            if {first, second} <= {"managedDatabaseUrl", "managedRedisUrl"}:
                password = secret_value("both")
                value = f"postgresql://user:{password}@host/database", f"rediss://user:{password}@host/0"
            elif CONFIGURED_SECRETS[first].holds_password or CONFIGURED_SECRETS[second].holds_password:
                continue  # a URL is no other secret; its password may be, as below
            elif {first, second} <= LLM_KEYS.keys():
                continue  # as below
            else:
                value = (GOOD[first], GOOD[first])
            given = {first: SecretInput(value[0], encrypted=True), second: SecretInput(value[1], encrypted=True)}
            with fact(f"{first} = {second}"):
                equal = [each for each in check_secrets(given) if "the same value as" in each.given]
                assert len(equal) == 1, "who gets to know the one has the other"
                (mistake,) = equal
                named = {mistake.key, mistake.given.removeprefix("the same value as ").removesuffix(" (not shown)")}
                assert named == {f"samokoder:{first}", f"samokoder:{second}"}
                assert not any(each in str(mistake) for each in value)


@pytest.mark.parametrize("keys", list(combinations(LLM_KEYS, 2)))
def test_the_keys_of_two_llm_providers_may_be_equal(keys: tuple[str, str]) -> None:
    one = SecretInput(secret_value("of the proxy"), encrypted=True)
    assert list(check_secrets(dict.fromkeys(keys, one))) == [], "one key of a proxy may open all providers"
    wrong = list(check_secrets(dict.fromkeys((*keys, "s3SecretAccessKey"), one)))
    assert len(wrong) == 1, "and a third secret of that value is still seen"


@pytest.mark.parametrize("end", ["", "%40"])
def test_the_password_of_a_managed_server_is_no_other_secret(end: str) -> None:
    password = GOOD["smtpPassword"] + end.replace("%40", "@")
    given = {"smtpPassword": password, "managedRedisUrl": f"rediss://user:{GOOD['smtpPassword']}{end}@host/0"}
    (mistake,) = check_secrets({name: SecretInput(value, encrypted=True) for name, value in given.items()})
    assert "the same value as samokoder:" in mistake.given
    assert password not in str(mistake)


@pytest.mark.parametrize(
    ("kept", "replaced"),
    [("appSecretKey", "secretKey"), ("appSecretKey", "backupEncryptionKey"), ("backupEncryptionKey", "openaiApiKey")],
)
def test_of_two_equal_secrets_the_one_is_to_be_replaced_that_opens_no_data(kept: str, replaced: str) -> None:
    both = SecretInput(secret_value("both", 86), encrypted=True)
    for order in ((kept, replaced), (replaced, kept)):
        (mistake,) = check_secrets(dict.fromkeys(order, both))
        assert mistake.key == f"samokoder:{replaced}", "to replace the other one makes what is stored unreadable"
        assert mistake.example == f"pulumi config set --secret samokoder:{replaced}"
        assert mistake.given == f"the same value as samokoder:{kept} (not shown)"


def test_different_secrets_are_no_mistake_of_each_other() -> None:
    assert list(check_secrets({name: SecretInput(value, encrypted=True) for name, value in GOOD.items()})) == []


@pytest.mark.parametrize(
    "value",
    [
        "no-token",
        "123456789",
        "123456789:short",
        ":" + "A" * 35,
        "12345:" + secret_value("a", 35),
        TELEGRAM_TOKEN + " ",
        "bot" + TELEGRAM_TOKEN,
        TELEGRAM_TOKEN.replace(":", "-"),
    ],
)
def test_a_telegram_token_of_another_form_is_refused(value: str) -> None:
    (mistake,) = said("telegramBotToken", value)
    assert mistake.given == "a value of another form (not shown)"
    assert "BotFather" in mistake.allowed


@pytest.mark.parametrize("name", ["managedDatabaseUrl", "managedRedisUrl"])
@pytest.mark.parametrize(
    "url",
    [
        "db.example.org",
        "{scheme}://db.example.org/0",
        "{scheme}://user@db.example.org/0",
        "{scheme}://user:@db.example.org/0",
        "{scheme}://user:{password}@/0",
        "{scheme}://user:{password}@db.example.org:port/0",
        "{scheme}://user:{password}@db.example.org:99999/0",
        "{scheme}://user:{password}@db.example.org:0/0",
        "{scheme}://user:{password}@[db/0",
        "{scheme}://user:{password}@one.example.org:1,two.example.org:2/0",
        "{scheme}://user:a@b{password}@db.example.org/0",
        "{scheme}://user:a/b{password}@db.example.org/0",
        "{scheme}://user:a?b{password}@db.example.org/0",
        "{scheme}://user:a#b{password}@db.example.org/0",
        "https://user:{password}@db.example.org/0",
        " {scheme}://user:{password}@db.example.org/0",
    ],
)
def test_a_managed_servers_url_of_another_form_is_refused(name: str, url: str) -> None:
    scheme = "postgresql" if name == "managedDatabaseUrl" else "rediss"
    (mistake,) = said(name, url.format(scheme=scheme, password=secret_value("url")))
    assert mistake.given == "a value of another form (not shown)"
    assert f"{scheme}://user:password@host:port/" in mistake.allowed


def test_a_managed_database_needs_the_databases_name() -> None:
    (mistake,) = said("managedDatabaseUrl", f"postgresql://user:{secret_value('url')}@db.example.org")
    assert mistake.given == "a value of another form (not shown)"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:{password}@db.example.org/samokoder",
        "postgresql://user:{password}@db:6432/samokoder?sslmode=disable",
        "postgresql://us%40er:p%40ss{password}@10.0.0.1:5432/samokoder",
        "postgresql://user:{password}@[2001:db8::1]:5432/samokoder?sslmode=require&channel_binding=prefer",
    ],
)
def test_the_usual_urls_of_a_managed_database_are_taken(url: str) -> None:
    assert said("managedDatabaseUrl", url.format(password=secret_value("url"))) == []


@pytest.mark.parametrize("url", ["redis://:{password}@cache/0", "rediss://user:{password}@cache.example.org:6380"])
def test_the_usual_urls_of_a_managed_redis_are_taken(url: str) -> None:
    assert said("managedRedisUrl", url.format(password=secret_value("url"))) == []


@pytest.mark.parametrize(("password", "why"), [("changeme", "is a known default"), ("a1B2c3", "has 6 characters")])
def test_a_weak_password_in_a_managed_servers_url_is_refused(password: str, why: str) -> None:
    (mistake,) = said("managedDatabaseUrl", f"postgresql://user:{password}@db.example.org/samokoder")
    assert why in mistake.given


@pytest.mark.parametrize(
    "value", ["S3cr3t-Of-Somebody\n", "<p1aceholder of somebody>", "S" * 70, "your-0wn-one-of-somebody"]
)
@pytest.mark.parametrize("encrypted", [True, False])
def test_the_whole_message_never_has_a_secrets_value(value: str, encrypted: bool) -> None:
    with facts() as fact:
        for name in CONFIGURED_SECRETS:
            key = f"samokoder:{name}"
            with fact(name):
                with pytest.raises(InvalidSettingsError) as caught:
                    read_environment("staging", {key: value}, frozenset({key} if encrypted else ()))
                assert value.strip() not in str(caught.value)
                assert key in str(caught.value)
                assert value.strip() not in repr(caught.value)


def test_a_secret_is_not_in_its_own_repr() -> None:
    value = secret_value("repr")
    assert value not in repr(SecretInput(value, encrypted=True)), "a traceback prints the repr of locals"


def test_entropy_counts_what_a_guesser_faces() -> None:
    assert entropy_bits("") == 0
    assert entropy_bits("aaaaaaaa") == 0
    assert math.isclose(entropy_bits("ab" * 8), 16)
    assert math.isclose(entropy_bits("abcdefgh"), 24)


@pytest.mark.parametrize("secret", CONFIGURED_SECRETS.values(), ids=CONFIGURED_SECRETS)
def test_every_configured_secret_says_what_it_is_and_how_to_set_it(secret: ConfiguredSecret) -> None:
    assert secret.description.endswith(".")
    assert bool(secret.pattern) == bool(secret.pattern_says), "a form that is not said cannot be met"


@pytest.mark.parametrize(
    ("query", "given", "needs"),
    [
        ("sslmode=prefer", "sslmode (not shown)", "one of require, verify-ca, verify-full, disable"),
        ("sslmode=require&channel_binding=require", "channel_binding", "sslmode=verify-full"),
        ("sslmode=verify-full&sslrootcert=system", "sslrootcert", "samokoder:managedDatabaseCa"),
        ("sslmode=verify-full", "sslmode=verify-full", "samokoder:managedDatabaseCa"),
        ("options=endpoint%3Dep-cool-1", "options", "ALTER ROLE"),
        ("target_session_attrs=read-write", "target_session_attrs", "follows the primary"),
        ("pgbouncer=true", "pgbouncer", "1.21"),
        ("schema=public", "schema", "leave it out"),
        ("hunter2%20x=1", "a parameter (not shown)", "leave it out"),
    ],
)
def test_a_parameter_that_a_part_cannot_honour_is_refused_by_its_name(query: str, given: str, needs: str) -> None:
    found = said("managedDatabaseUrl", f"postgresql://user:{secret_value('url')}@db.example.org/samokoder?{query}")
    assert any(given in each.given and needs in each.allowed for each in found), found
    assert not any("hunter2" in f"{each}" or "cool" in f"{each}" for each in found), "a value is shown to nobody"


def test_an_authority_that_no_connection_would_ask_for_is_refused() -> None:
    url = f"postgresql://user:{secret_value('url')}@db.example.org/samokoder"
    given = {"managedDatabaseUrl": SecretInput(f"{url}?sslmode=require", encrypted=True)}
    (mistake,) = check_secrets(given, database_ca=True)
    assert "sslmode=verify-full" in mistake.allowed, "its owner believes that the certificate is checked"
    for good in ("", "?sslmode=verify-full"):
        given = {"managedDatabaseUrl": SecretInput(f"{url}{good}", encrypted=True)}
        assert list(check_secrets(given, database_ca=True)) == []


def test_a_redis_with_an_authority_is_asked_by_nobody_in_plain_text() -> None:
    given = {"managedRedisUrl": SecretInput(f"redis://:{secret_value('url')}@cache.example.org/0", encrypted=True)}
    (mistake,) = check_secrets(given, redis_ca=True)
    assert "rediss://" in mistake.allowed, "its owner believes that the way is encrypted"


@pytest.mark.parametrize("name", ["managedDatabaseUrl", "managedRedisUrl"])
@pytest.mark.parametrize("ending", ["%0A", "%00", "%C3"])
def test_a_password_that_not_every_part_can_write_down_is_refused(name: str, ending: str) -> None:
    scheme = "postgresql" if name == "managedDatabaseUrl" else "rediss"
    (mistake,) = said(name, f"{scheme}://user:{secret_value('url')}{ending}@db.example.org/0")
    assert "control character" in mistake.given
