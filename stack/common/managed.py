"""Parse the URL of a managed PostgreSQL or Redis, and translate it for each driver that reads it.

Pure functions over one secret value; an error text contains only names of parameters, no other part of the URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

POSTGRES_PORT = 5432
REDIS_PORT = 6379
DATABASE_CA, REDIS_CA = "managed_database_ca.pem", "managed_redis_ca.pem"
"""Names of the files with the certificates of the certificate authorities, in every part that connects."""

_HOST = r"(\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\],\s]+)(:[0-9]{1,5})?"
_WORD = r"[^:@/?#\[\]\s]"
DATABASE = rf"postgres(ql)?://{_WORD}+:{_WORD}+@{_HOST}/[^/?#\s]+(\?[^#\s]*)?"
REDIS = rf"rediss?://{_WORD}*:{_WORD}+@{_HOST}(/[0-9]*)?"
ENCODED = "in user and password @ : / ? # [ ] % are written %40 %3A %2F %3F %23 %5B %5D %25"

#: Modes that every driver supports: asyncpg (application), lib/pq (exporter) and libpq (backups). `allow` and `prefer`
#: are refused, because a man in the middle can make them fall back to plain text silently.
_VERIFIED = ("verify-ca", "verify-full")
_SSLMODES = ("require", *_VERIFIED, "disable")

# Parameter that providers or frameworks put into a URL -> what to do instead.
_INSTEAD = {
    "channel_binding": "leave it out: asyncpg has no channel binding; sslmode=verify-full is what knows the server",
    "sslrootcert": "leave it out and give the certificate itself: samokoder:managedDatabaseCa",
    "options": "leave it out: `ALTER ROLE … SET` in the database gives a role its options",
    "target_session_attrs": "leave it out and give the one address that follows the primary",
    "connect_timeout": "leave it out: each part has its own",
    "pool_timeout": "leave it out: each part has its own",
    "connection_limit": "leave it out: each part has its own pool",
    "pgbouncer": "leave it out: PgBouncer needs version 1.21, max_prepared_statements above 0 and "
    "ignore_startup_parameters = extra_float_digits, and no word here",
    "application_name": "leave it out: each part gives its own name",
}


@dataclass(frozen=True)
class Unusable:
    """One reason why the parts cannot use a URL: what it has, and what it needs. Neither text contains a value."""

    given: str
    needs: str


@dataclass(frozen=True, kw_only=True)
class ManagedDatabase:
    """A managed PostgreSQL, from its decoded URL. sslmode: one of libpq's names."""

    user: str
    password: str
    host: str
    port: int
    name: str
    sslmode: str

    @property
    def verified(self) -> bool:
        """Whether the server's certificate is checked against `managedDatabaseCa`."""
        return self.sslmode in _VERIFIED


@dataclass(frozen=True, kw_only=True)
class ManagedRedis:
    """A managed Redis, from its decoded URL."""

    user: str
    password: str
    host: str
    port: int
    number: int
    tls: bool


def database(url: str, *, ca: bool) -> ManagedDatabase:
    """Parse a URL in which `unusable_database` finds no mistake.

    Without an sslmode in the URL the connection is encrypted, and with a CA the server's certificate is verified too.
    ca: whether there is a `managedDatabaseCa`.
    """
    parts = urlsplit(url)
    return ManagedDatabase(
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        host=parts.hostname or "",
        port=parts.port or POSTGRES_PORT,
        name=unquote(parts.path.removeprefix("/")),
        sslmode=dict(parse_qsl(parts.query)).get("sslmode", "verify-full" if ca else "require"),
    )


def redis(url: str) -> ManagedRedis:
    """Parse the URL of a Redis, which matches the pattern `REDIS`."""
    parts = urlsplit(url)
    number = re.fullmatch(r"/([0-9]+)", parts.path)
    return ManagedRedis(
        user=unquote(parts.username or "") or "default",
        password=unquote(parts.password or ""),
        host=parts.hostname or "",
        port=parts.port or REDIS_PORT,
        number=int(number[1]) if number else 0,
        tls=parts.scheme == "rediss",
    )


def in_url(host: str) -> str:
    """Return a host as it is written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def asyncpg_url(url: str, *, ca: bool) -> str:
    """Return the URL that SQLAlchemy needs for asyncpg, whose name for libpq's `sslmode` is `ssl`."""
    parts, found = urlsplit(url), database(url, ca=ca)
    login, _, _ = parts.netloc.rpartition("@")
    # User and password stay percent-encoded, because SQLAlchemy decodes them.
    return f"postgresql+asyncpg://{login}@{in_url(found.host)}:{found.port}{parts.path}?ssl={found.sslmode}"


def unusable_database(url: str, *, ca: bool) -> Iterator[Unusable]:
    """Yield each mistake in a URL that matches the pattern `DATABASE`. ca: whether there is a `managedDatabaseCa`."""
    given = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    for name, value in given:
        if name == "sslmode":
            if value not in _SSLMODES:
                yield Unusable("an sslmode (not shown) that not every part honours", f"one of {', '.join(_SSLMODES)}")
        elif not (name == "channel_binding" and value in ("prefer", "disable")):
            known = re.fullmatch(r"[a-z_]{1,40}", name)
            yield Unusable(
                f"the parameter {name}" if known else "a parameter (not shown)",
                _INSTEAD.get(name, "leave it out: the parts' drivers do not know it; sslmode is the only one"),
            )
    yield from _unprintable(url)
    mode = dict(given).get("sslmode", "")
    if mode in _VERIFIED and not ca:
        yield Unusable(f"sslmode={mode}", "the authority's certificate, too: samokoder:managedDatabaseCa")
    if mode and mode not in _VERIFIED and ca:
        yield Unusable(
            "an sslmode (not shown) with which no certificate is checked",
            "sslmode=verify-full, or none, since there is a managedDatabaseCa",
        )


def unusable_redis(url: str, *, ca: bool) -> Iterator[Unusable]:
    """Yield each mistake in a URL that matches the pattern `REDIS`. ca: whether there is a `managedRedisCa`."""
    yield from _unprintable(url)
    if ca and not redis(url).tls:
        yield Unusable("redis://, a way in plain text", "rediss://, since there is a managedRedisCa")


def _unprintable(url: str) -> Iterator[Unusable]:
    """Yield a mistake for a control character, which would break a password file, and for bytes that are not UTF-8."""
    parts = urlsplit(url)
    decoded = unquote(f"{parts.username}{parts.password}{parts.path}")
    if not decoded.isprintable() or "\ufffd" in decoded:
        yield Unusable("a control character, or bytes that are no UTF-8", "printable characters; a new password, then")


def port_exists(url: str) -> bool:
    """Whether `url` has no port or a valid one; urlsplit checks that only when `.port` is read."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
