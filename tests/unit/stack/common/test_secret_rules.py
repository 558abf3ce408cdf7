from __future__ import annotations

import math

import pytest

from stack.common.mistakes import InvalidSettingsError, Mistake
from stack.common.secret_rules import (
    CONFIGURED_SECRETS,
    KNOWN_DEFAULTS,
    ConfiguredSecret,
    SecretInput,
    check_secrets,
    entropy_bits,
    weakness,
)
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
def test_the_applications_keys_have_64_characters_or_more(name: str) -> None:
    assert CONFIGURED_SECRETS[name].minimum_length >= 64
    assert "has 63 characters" in said(name, secret_value(name, 63))[0].given
    (mistake,) = said(name, "abcd" * 16)
    assert "repeats itself" in mistake.given, "64 characters out of four are 128 bits at best"


def test_the_same_value_for_both_keys_is_refused() -> None:
    both = SecretInput(secret_value("both", 86), encrypted=True)
    (mistake,) = check_secrets({"secretKey": both, "appSecretKey": both})
    assert mistake.key == "samokoder:secretKey", "to replace the other one makes what is stored unreadable"
    assert mistake.example == "pulumi config set --secret samokoder:secretKey"
    assert mistake.given == "the same value as samokoder:appSecretKey (not shown)"
    assert both.value not in str(mistake)


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
