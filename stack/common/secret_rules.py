"""What a configured secret must look like (SEC-001): pure rules over values, no Pulumi type.

Everything here returns mistakes that name the key and never the value.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from stack.common import managed
from stack.common.mistakes import Mistake

# Values from the original's compose file, from tutorials and from lists of default passwords. `weakness` ignores case
# and separators when it compares, so "Change-Me!" matches "changeme".
_KNOWN_DEFAULTS = """
    admin administrator changeit changeme changethis default dev development dummy example foobar grafana
    insecure letmein minioadmin password passw0rd placeholder postgres prod production qwerty redis replaceme
    root samokoder secret secretkey staging supersecret superadmin test testing todo user yoursecretkey
"""
KNOWN_DEFAULTS = frozenset(_KNOWN_DEFAULTS.split())
PLACEHOLDER = re.compile(r"^(<.*>|\$\{.*\}|\{\{.*\}\}|your[-_ ].*|.*[-_ ]here|x{4,}|\*+|\.\.\.)$", re.IGNORECASE)


@dataclass(frozen=True)
class SecretInput:
    """A secret as the configuration gives it."""

    value: str
    encrypted: bool

    def __repr__(self) -> str:
        return "SecretInput(value hidden)"


@dataclass(frozen=True, kw_only=True)
class ConfiguredSecret:
    """A secret that the configuration may give, and what its value must look like."""

    name: str
    description: str
    minimum_length: int = 16
    # Shannon entropy of the characters times their number: the work of an attacker who knows which characters occur.
    minimum_bits: float = 48
    pattern: str = ""
    pattern_says: str = ""
    holds_password: bool = False
    """Whether the value is a URL, of which only the password is checked for weakness."""
    may_have_lines: bool = False
    """Whether the value may have line breaks, as a private key in PEM has."""

    @property
    def how_to_set(self) -> str:
        """Return the command that sets it; the value is asked for and not echoed."""
        return f"pulumi config set --secret samokoder:{self.name}"


_WEB = r"https?://[^\s/?#]+(/\S*)?"
_URL = "with the password in it: %s://user:password@host:port/%s"

CONFIGURED_SECRETS: dict[str, ConfiguredSecret] = {
    secret.name: secret
    for secret in (
        ConfiguredSecret(
            name="telegramBotToken",
            description="Token of the Telegram bot that sends the alerts, from BotFather.",
            minimum_length=35,
            pattern=r"[0-9]{6,}:[A-Za-z0-9_-]{30,}",
            pattern_says="digits, a colon, then 30 or more of A-Z a-z 0-9 _ -, as BotFather gives it",
        ),
        ConfiguredSecret(
            name="smtpPassword",
            description="Password of the mail account.",
            minimum_length=8,
            minimum_bits=20,
        ),
        ConfiguredSecret(
            name="alertWebhookUrl",
            description="Address that gets every alert as AlertManager's JSON; who knows it may post there.",
            pattern=_WEB,
            pattern_says="a URL: https://host/path",
            minimum_bits=0,
        ),
        ConfiguredSecret(
            name="heartbeatUrl",
            description="Address outside that the Watchdog is sent to; when it stops, that service raises the alarm.",
            pattern=_WEB,
            pattern_says="a URL: https://host/path",
            minimum_bits=0,
        ),
        ConfiguredSecret(
            name="s3AccessKeyId",
            description="Access key of the off-site backup bucket.",
            minimum_length=8,
            minimum_bits=20,
        ),
        ConfiguredSecret(name="s3SecretAccessKey", description="Secret key of the off-site backup bucket."),
        ConfiguredSecret(
            name="backupEncryptionKey",
            description="Key under which the off-site copies are encrypted, in place of a generated one: kept outside "
            "of the machine, it opens them on another one.",
            minimum_length=32,
            minimum_bits=100,
        ),
        ConfiguredSecret(
            name="openaiApiKey", description="LLM key, reaches API and worker as the file openai_api_key."
        ),
        ConfiguredSecret(
            name="anthropicApiKey",
            description="LLM key, reaches API and worker as the file anthropic_api_key.",
        ),
        ConfiguredSecret(
            name="openrouterApiKey",
            description="LLM key, reaches API and worker as the file openrouter_api_key.",
        ),
        ConfiguredSecret(
            name="secretKey",
            description="SECRET_KEY of an existing installation, in place of a generated one. 64 characters or more; "
            "for an image of your own 43 random ones are enough.",
            minimum_length=64,
            minimum_bits=160,
        ),
        ConfiguredSecret(
            name="appSecretKey",
            description="APP_SECRET_KEY of an existing installation: its data is encrypted under it. 64 characters or "
            "more, or a Fernet key; for an image of your own 43 random characters are enough.",
            minimum_length=64,
            minimum_bits=160,
        ),
        ConfiguredSecret(
            name="postgresSuperuserPassword",
            description="Superuser's password of an adopted PostgreSQL volume, in place of a generated one.",
        ),
        ConfiguredSecret(
            name="managedDatabaseUrl",
            description="A managed PostgreSQL in place of the local container.",
            pattern=managed.DATABASE,
            pattern_says=f"a URL {_URL % ('postgresql', 'database')} of one server; {managed.ENCODED}",
            minimum_length=12,
            minimum_bits=0,
            holds_password=True,
        ),
        ConfiguredSecret(
            name="managedRedisUrl",
            description="A managed Redis in place of the local container.",
            pattern=managed.REDIS,
            pattern_says=f"a URL {_URL % ('rediss', '0')}; {managed.ENCODED}",
            minimum_length=12,
            minimum_bits=0,
            holds_password=True,
        ),
    )
}


def application_secret(name: str) -> ConfiguredSecret:
    """Return the rules for a value of `samokoder:applicationSecrets`: few, because whoever issued it chose its form."""
    description = "the secret of your own image, as whoever issued it gave it"
    return ConfiguredSecret(name=name, description=description, minimum_length=1, minimum_bits=0, may_have_lines=True)


_FERNET_BYTES = 32
_SIGNING = ("secretKey", "appSecretKey")
_KINDS = (string.digits, "abcdef", "ghijklmnopqrstuvwxyz", "ABCDEF", "GHIJKLMNOPQRSTUVWXYZ")
_RANDOM_BITS = 240
"""Enough for a key of any length: 43 characters of `secrets.token_urlsafe(32)` have it, also without a digit."""
# A configured one takes the place of one that is generated: only this installation knows it.
_MADE_HERE = ("secretKey", "appSecretKey", "backupEncryptionKey", "postgresSuperuserPassword")
# One key of a proxy may open all providers.
_OF_LLM_PROVIDERS = ("openaiApiKey", "anthropicApiKey", "openrouterApiKey")
# Data is encrypted under these, so of two equal secrets the other one is to be replaced.
_REPLACED_LAST = ("appSecretKey", "backupEncryptionKey")


def random_bits(value: str) -> float:
    """Bits of a random value: its length times the bits of a character, of all those of the kinds that it has."""
    known = "".join(_KINDS)
    size = sum(len(kind) for kind in _KINDS if set(kind) & set(value)) + len(set(value) - set(known))
    return len(value) * math.log2(size) if size else 0.0


def entropy_bits(value: str) -> float:
    """Shannon entropy of `value`'s own characters times its length, in bits."""
    total = len(value)
    return -sum(n * math.log2(n / total) for n in Counter(value).values()) if total else 0.0


def weakness(value: str, *, minimum_length: int, minimum_bits: float) -> str | None:
    """Return why `value` is too weak to be a secret, or None. The text never contains the value."""
    plain = re.sub(r"[^a-z0-9]", "", value.lower())
    if value != value.strip() or "\n" in value:
        return "has white space at its ends or a line break, which files and URLs do not keep"
    if plain in KNOWN_DEFAULTS or plain.rstrip("0123456789") in KNOWN_DEFAULTS:
        return "is a known default"
    if PLACEHOLDER.fullmatch(value):
        return "is a placeholder that was never replaced"
    if len(value) < minimum_length:
        return f"has {len(value)} characters; at least {minimum_length} are needed"
    if entropy_bits(value) < minimum_bits:
        return "repeats itself: too few different characters to be unguessable"
    return None


def is_fernet_key(value: str) -> bool:
    """Tell whether cryptography.fernet takes a value as its key: Base64 of 32 bytes, of either alphabet.

    It decodes by the same call as `Fernet` (cryptography 50, `fernet.py`).
    """
    try:
        return len(base64.urlsafe_b64decode(value)) == _FERNET_BYTES
    except ValueError:
        return False


def fernet_key(secret: str) -> str:
    """Return a Fernet key made from a secret; a secret that already is a Fernet key is returned unchanged.

    secret: random, of at least 256 bits. The key is its SHA-256, so no second secret has to be stored.
    """
    if is_fernet_key(secret):
        return secret
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode()


def check_secrets(
    secrets: Mapping[str, SecretInput],
    *,
    fernet: bool = False,
    own_images: bool = False,
    database_ca: bool = False,
    redis_ca: bool = False,
) -> Iterator[Mistake]:
    """Yield every mistake in the configured secrets.

    fernet: whether APP_SECRET_KEY must be a Fernet key. own_images: whether the reference application, which refuses
    keys of fewer than 64 characters, does not run. database_ca: whether there is a `managedDatabaseCa`;
    redis_ca: a `managedRedisCa`.
    """
    for name, given in secrets.items():
        known = _known(name)
        key = f"samokoder:{name}"
        if not given.encrypted:
            yield Mistake(key, "a value in plain text", "a value that Pulumi encrypts", known.how_to_set)
        if known.pattern and not (re.fullmatch(known.pattern, given.value) and managed.port_exists(given.value)):
            yield Mistake(key, "a value of another form (not shown)", known.pattern_says, known.how_to_set)
            continue
        if name == "appSecretKey" and fernet and not is_fernet_key(given.value):
            yield Mistake(
                key,
                "a value (not shown) that is no Fernet key",
                "44 characters of Base64, since samokoder:appSecretKeyForm is fernet",
                known.how_to_set,
            )
            continue
        if name == "managedDatabaseUrl":
            unusable = managed.unusable_database(given.value, ca=database_ca)
        elif name == "managedRedisUrl":
            unusable = managed.unusable_redis(given.value, ca=redis_ca)
        else:
            unusable = iter(())
        yield from (Mistake(key, found.given, found.needs, known.how_to_set) for found in unusable)
        guessable = _guessable(known, given.value)
        # A key that is short and strong passes by its bits; its entropy is checked all the same.
        strong = name in _SIGNING and own_images and random_bits(guessable) >= _RANDOM_BITS
        strong = strong or (name == "appSecretKey" and is_fernet_key(guessable))
        reason = weakness(
            guessable, minimum_length=0 if strong else known.minimum_length, minimum_bits=known.minimum_bits
        )
        if reason:
            yield Mistake(key, f"a value (not shown) that {reason}", known.description, known.how_to_set)
    yield from _equal(secrets)


def _known(name: str) -> ConfiguredSecret:
    return CONFIGURED_SECRETS.get(name) or application_secret(name)


def _guessable(known: ConfiguredSecret, value: str) -> str:
    """Return what an attacker would have to guess of a secret: of some URLs the password alone."""
    if known.holds_password:
        return urlsplit(value).password or ""
    return " ".join(value.split()) if known.may_have_lines else value


def _equal(secrets: Mapping[str, SecretInput]) -> Iterator[Mistake]:
    """Yield a mistake for each secret that equals another one; the message names the one that is to be replaced."""
    of_value: dict[str, list[str]] = {}
    last = [name for name in _REPLACED_LAST if name in secrets]
    rest = sorted((name for name in secrets if name not in last), key=lambda name: name not in CONFIGURED_SECRETS)
    for name in [*last, *rest]:
        known = _known(name)
        value = secrets[name].value
        if known.holds_password and not re.fullmatch(known.pattern, value):
            continue  # no URL, as another mistake says
        secret = _guessable(known, value)
        others = of_value.setdefault(unquote(secret) if known.holds_password else secret, [])
        other = next((each for each in others if not _may_be_equal(each, name)), None)
        others.append(name)
        if other:
            yield Mistake(
                f"samokoder:{name}",
                f"the same value as samokoder:{other} (not shown)",
                "a value of its own: whoever gets to know one secret must not have another one with it",
                known.how_to_set,
            )


def _may_be_equal(one: str, other: str) -> bool:
    """Tell whether two secrets may have one value: somebody else issued it, and the application has it anyway."""
    both = {one, other}
    if both <= CONFIGURED_SECRETS.keys():
        return both <= set(_OF_LLM_PROVIDERS)
    return both.isdisjoint(_MADE_HERE)
