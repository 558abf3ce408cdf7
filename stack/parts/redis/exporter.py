"""Redis exporter: it logs in as a user that may only read statistics."""

from __future__ import annotations

import json
from urllib.parse import quote

from stack.common import managed
from stack.common.names import NetworkName
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files, Template
from stack.spec.service import Publish, Scrape, ServiceSpec

PART = "redis-exporter"
PORT = 9121
LOCAL = f"redis://{redis.PART}:{redis.PORT}"


def spec(environment: Environment) -> ServiceSpec:
    """Describe the exporter."""
    settings = environment.settings.redis_exporter
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:RedisExporter",
        image=environment.image("redis_exporter"),
        user="59000:59000",
        settings=settings,
        entrypoint=("/redis_exporter",),
        # With the timeout, a server that accepts the connection but never answers is `redis_up` 0, not a failed scrape.
        command=(
            f"--web.listen-address=:{PORT}",
            f"--connection-timeout={environment.settings.prometheus.connect_seconds}s",
            *((f"--tls-ca-cert-file=/etc/samokoder/{managed.REDIS_CA}",) if environment.redis_ca else ()),
        ),
        environment={"REDIS_PASSWORD_FILE": "/etc/samokoder/passwords.json"}
        | ({} if environment.managed_redis else {"REDIS_ADDR": LOCAL, "REDIS_USER": redis.EXPORTER_USER}),
        # The exporter reads its address only from variables or flags, not from a file; these contain no password.
        secret_environment={
            "REDIS_ADDR": Template(("managedRedisUrl",), managed_address),
            "REDIS_USER": Template(("managedRedisUrl",), managed_user),
        }
        if environment.managed_redis
        else {},
        files=files(environment),
        publish=Publish.of(settings, PORT, "/health"),
        health_command=health.wget(PORT, "/health"),
        networks=(
            # `edge`, because a managed Redis is outside.
            NetworkName.EDGE if environment.managed_redis else NetworkName.PUBLISHED,
            NetworkName.DATA,
            NetworkName.MONITORING,
        ),
        scrape=Scrape(port=PORT),
        after=(redis_users.PART,),
    )


def files(environment: Environment) -> Files:
    """Return the password file: a JSON object, server's address with the user in it -> password."""
    if environment.managed_redis:
        authority = environment.redis_ca
        return {"passwords.json": Template(("managedRedisUrl",), managed_passwords)} | (
            {managed.REDIS_CA: authority} if authority else {}
        )
    return {
        "passwords.json": Template(
            ("redis_exporter",), lambda password: passwords(LOCAL, redis.EXPORTER_USER, password)
        )
    }


def passwords(address: str, user: str, password: str) -> str:
    """Render the password file. The exporter adds REDIS_USER to the address before it looks that up (redis.go)."""
    scheme, _, host = address.partition("://")
    # Go's url.User does not encode these characters, but encodes a slash.
    return json.dumps({f"{scheme}://{quote(user, safe='$&+,;=')}@{host}": password})


def managed_address(url: str) -> str:
    """Return scheme, host and port of a managed Redis, without user and password."""
    found = managed.redis(url)
    return f"{'rediss' if found.tls else 'redis'}://{managed.in_url(found.host)}:{found.port}"


def managed_user(url: str) -> str:
    """Return the user of a managed Redis."""
    return managed.redis(url).user


def managed_passwords(url: str) -> str:
    """Return the password file for a managed Redis."""
    return passwords(managed_address(url), managed_user(url), managed.redis(url).password)
