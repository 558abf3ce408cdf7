"""What the API and the worker get: the variables of the original's contract, and secrets as files in /run/secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict
from urllib.parse import quote

from stack.common import managed
from stack.common.names import APPLICATION_USER
from stack.common.secret_rules import fernet_key
from stack.parts.api.reference import reference_image
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis
from stack.settings import ipv6
from stack.settings.app import LLM_KEYS, SECRET_KEY_PREVIOUS, Application
from stack.settings.environment import Environment
from stack.spec.files import Files, Template, secret_file
from stack.spec.rotation import slots
from stack.spec.service import DataVolume

SECRETS = "/run/secrets"
_IN_MEMORY = "rw,noexec,nosuid,nodev"

# Python and not a shell, because an image may have no shell, while the health check needs Python anyway. Bytes, so that
# no locale changes a secret. With -I and -S nothing from the image is imported before its own command starts.
_READ_SECRETS = f"""\
import os, sys
for name in os.listdir("{SECRETS}"):
    with open("{SECRETS}/" + name, "rb") as file:
        os.environb[os.fsencode(name.upper())] = file.read()
os.execvp(sys.argv[1], sys.argv[1:])"""
_START = ("python", "-I", "-S", "-c", _READ_SECRETS)


class Given(TypedDict):
    """The fields of `ServiceSpec` that the contract sets for every part with the application's image."""

    image: str
    user: str
    environment: Mapping[str, str]
    secret_environment: Mapping[str, Template]
    files: Files
    files_at: str
    entrypoint: tuple[str, ...]
    tmpfs: Mapping[str, str]
    data: DataVolume | None


def given(environment: Environment, settings: Application) -> Given:
    """Return the fields that the contract sets for a part with the application's image."""
    shared = environment.settings.workspace.path
    return Given(
        image=application_image(environment, settings),
        user=APPLICATION_USER,
        environment=environment_variables(environment, settings),
        secret_environment=secret_variables(environment, settings),
        files={**files(environment, settings), **authorities(environment)},
        files_at=SECRETS,
        entrypoint=started(settings),
        tmpfs=writable(settings),
        data=DataVolume(name="workspace", path=shared) if shared else None,
    )


def started(settings: Application, *command: str) -> tuple[str, ...]:
    """Return a command of the application with the prefix that puts its secrets where the image reads them."""
    return (*(_START if settings.secrets_as == "environment" else ()), *command)


def start_of(entrypoint: Sequence[str]) -> tuple[str, ...]:
    """Return the part of a container's entrypoint that reads its secrets, for another command in it; empty: none."""
    start = tuple(entrypoint[: len(_START)])
    return start if start[:-1] == _START[:-1] and SECRETS in start[-1] else ()


def writable(settings: Application) -> Mapping[str, str]:
    """Return the folders in memory: /tmp, and those that the image writes to."""
    return {"/tmp": f"{_IN_MEMORY},size={settings.tmp_mib}m"} | in_memory(  # noqa: S108 - a mount
        settings.writable_paths, user=APPLICATION_USER, mib=settings.tmp_mib
    )


def in_memory(paths: Iterable[str], *, user: str, mib: int) -> dict[str, str]:
    """Return the tmpfs mounts of some folders: path -> options. user: uid:gid of the owner. mib: size of each one."""
    uid, _, gid = user.partition(":")
    return dict.fromkeys(paths, f"{_IN_MEMORY},size={mib}m,uid={uid},gid={gid},mode=0700")


def application_image(environment: Environment, settings: Application) -> str:
    """Return the team's own image, or the reference application's."""
    return settings.image or reference_image(environment).name


def secret_settings(environment: Environment) -> Mapping[str, Template]:
    """Return all secret settings of the contract: setting -> template that makes its value from secrets."""
    keys = slots(environment, "secret_key")
    made: dict[str, Template] = {
        "SECRET_KEY": secret_file(keys.in_use),
        "APP_SECRET_KEY": Template(("app_secret_key",), fernet_key)
        if environment.settings.fernet
        else secret_file("app_secret_key"),
        "SAMOKODER_DATABASE_URL": _database_url(environment),
        "REDIS_PASSWORD": Template(("managedRedisUrl",), lambda url: managed.redis(url).password)
        if environment.managed_redis
        else secret_file(slots(environment, "redis_app").in_use),
    }
    if keys.other:
        # In phase `prepare` the next key, in `overlap` the previous one: so what either key signed is valid throughout.
        made[SECRET_KEY_PREVIOUS] = secret_file(keys.other)
    made |= {name: secret_file(key) for key, name in LLM_KEYS.items() if key in environment.configured_secrets}
    return made | {name: secret_file(name) for name in environment.settings.application_secrets}


def files(environment: Environment, settings: Application) -> Files:
    """Return a file for each secret setting, named in lower case, except those that the image reads from variables."""
    return {
        name.lower(): template
        for name, template in secret_settings(environment).items()
        if name not in _in_environment(settings)
    }


def authorities(environment: Environment) -> dict[str, str]:
    """Return a file for each CA certificate with which a managed server's certificate is verified."""
    files = {managed.DATABASE_CA: environment.database_ca, managed.REDIS_CA: environment.redis_ca}
    return {name: text for name, text in files.items() if text}


def environment_variables(environment: Environment, settings: Application) -> Mapping[str, str]:
    """Return the plain variables: no secrets, but the path of each secret's file."""
    variables = {
        "ENVIRONMENT": "production" if environment.settings.production else environment.name,
    }
    if not environment.managed_redis:
        variables |= {
            "REDIS_HOST": redis.PART,
            "REDIS_PORT": str(redis.PORT),
            "REDIS_USERNAME": redis.APP_USER,
        }
    variables |= proxy_variables(environment)
    # PGSSLROOTCERT is libpq's name, which asyncpg and psycopg read too.
    named = {managed.DATABASE_CA: "PGSSLROOTCERT", managed.REDIS_CA: "REDIS_CA_FILE"}
    variables |= {named[file]: f"{SECRETS}/{file}" for file in authorities(environment)}
    if settings.secrets_as == "files":
        variables |= {f"{name.upper()}_FILE": f"{SECRETS}/{name}" for name in files(environment, settings)}
    if settings.image:
        # The image may have no home for this user, and `/` is read-only.
        variables["HOME"] = "/tmp"  # noqa: S108 - a mount of its own
        # Uvicorn and Gunicorn read this in place of TRUSTED_PROXIES; Uvicorn before 0.31 accepts no networks, only
        # addresses or `*`.
        variables["FORWARDED_ALLOW_IPS"] = _traefik(environment) or "*"
    return variables | settings.environment


def proxy_variables(environment: Environment) -> Mapping[str, str]:
    """Return the proxies whose X-Forwarded-For the application trusts: all private networks, or the team's Traefik.

    The ingress' address is not known in advance. Only the ingress and the stack's own parts can reach the application,
    and the ingress replaces the header. The team's Traefik shares its network with other containers, which can reach
    the application too, so only Traefik's address is trusted.
    """
    # The ingress may connect over IPv6, from the private range that the engine chose.
    private = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        *(["fd00::/8"] if ipv6.networks(environment.settings.network) else []),
    ]
    return {"TRUSTED_PROXIES": _traefik(environment) or ",".join(private)}


def _traefik(environment: Environment) -> str:
    """Return the address of the team's own Traefik; empty where the ingress is ours."""
    ingress = environment.settings.ingress
    return ingress.traefik.address if ingress.kind == "traefik" and ingress.traefik else ""


def secret_variables(environment: Environment, settings: Application) -> Mapping[str, Template]:
    """Return the variables whose values come from secrets: those that are opted in, and the address of a managed Redis.

    The address of a managed Redis is known only from its URL, which is a secret.
    """
    known = secret_settings(environment)
    opted_in = {name: known[name] for name in known if name in _in_environment(settings)}
    if not environment.managed_redis:
        return opted_in
    # Variables in `environment` win: a person may have set a proxy's address or another database number.
    return opted_in | {name: made for name, made in _MANAGED_REDIS.items() if name not in settings.environment}


def _of_redis(read: Callable[[managed.ManagedRedis], object]) -> Template:
    return Template(("managedRedisUrl",), lambda url: str(read(managed.redis(url))))


# These contain no password. They have the names that the local Redis' variables have.
_MANAGED_REDIS: dict[str, Template] = {
    "REDIS_HOST": _of_redis(lambda redis: redis.host),
    "REDIS_PORT": _of_redis(lambda redis: redis.port),
    "REDIS_USERNAME": _of_redis(lambda redis: redis.user),
    "REDIS_DB": _of_redis(lambda redis: redis.number),
    "REDIS_TLS": _of_redis(lambda redis: str(redis.tls).lower()),
}


def _in_environment(settings: Application) -> set[str]:
    """Return the secret settings that this image reads from its environment."""
    names = set(settings.secrets_in_environment)
    return names | {SECRET_KEY_PREVIOUS} if "SECRET_KEY" in names else names


def _database_url(environment: Environment) -> Template:
    if environment.managed_database:
        ca = bool(environment.database_ca)
        return Template(("managedDatabaseUrl",), lambda url: managed.asyncpg_url(url, ca=ca))
    database, slot = environment.settings.postgres.database, slots(environment, "postgres_app").in_use

    def local(password: str) -> str:
        user = f"{postgres_roles.role_of(slot)}:{quote(password, safe='')}"
        return f"postgresql+asyncpg://{user}@{postgres.PART}:{postgres.PORT}/{database}"

    return Template((slot,), local)
