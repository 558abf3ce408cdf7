"""What the API and the worker are given: the original's contract, secrets as files in /run/secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

# No shell: an image may have none, and the health check asks by Python all the same. Byte for byte, so that no locale
# changes a secret. -I and -S: nothing of the image is imported before its own command.
_READ_SECRETS = f"""\
import os, sys
for name in os.listdir("{SECRETS}"):
    with open("{SECRETS}/" + name, "rb") as file:
        os.environb[os.fsencode(name.upper())] = file.read()
os.execvp(sys.argv[1], sys.argv[1:])"""
_START = ("python", "-I", "-S", "-c", _READ_SECRETS)


class Given(TypedDict):
    """What a part that runs the application's image has of its `ServiceSpec` by the contract."""

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
    """Return what a part that runs the application's image is given."""
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
    """Return a command as it is started in a container of the application: with its secrets where it looks for them."""
    return (*(_START if settings.secrets_as == "environment" else ()), *command)


def writable(settings: Application) -> Mapping[str, str]:
    """Return the folders in memory: /tmp, and those that the image writes to."""
    return {"/tmp": f"{_IN_MEMORY},size={settings.tmp_mib}m"} | in_memory(  # noqa: S108 - a mount
        settings.writable_paths, user=APPLICATION_USER, mib=settings.tmp_mib
    )


def in_memory(paths: Iterable[str], *, user: str, mib: int) -> dict[str, str]:
    """Return folders in memory, each of so many MiB, as the engine is told of them. user: uid:gid, whose they are."""
    uid, _, gid = user.partition(":")
    return dict.fromkeys(paths, f"{_IN_MEMORY},size={mib}m,uid={uid},gid={gid},mode=0700")


def application_image(environment: Environment, settings: Application) -> str:
    """Return the team's own image, or the reference application's."""
    return settings.image or reference_image(environment).name


def secret_settings(environment: Environment) -> Mapping[str, Template]:
    """Return setting -> how its value is made from secrets; all that is secret in the contract."""
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
        # The next key before a rotation and the last one after it: what either has signed is good in both.
        made[SECRET_KEY_PREVIOUS] = secret_file(keys.other)
    made |= {name: secret_file(key) for key, name in LLM_KEYS.items() if key in environment.configured_secrets}
    return made


def files(environment: Environment, settings: Application) -> Files:
    """Return a file for each secret setting, by its lower-case name, but for those that the image reads elsewhere."""
    return {
        name.lower(): template
        for name, template in secret_settings(environment).items()
        if name not in _in_environment(settings)
    }


def authorities(environment: Environment) -> dict[str, str]:
    """Return the certificates of the authorities that signed those of managed servers, each in a file."""
    files = {managed.DATABASE_CA: environment.database_ca, managed.REDIS_CA: environment.redis_ca}
    return {name: text for name, text in files.items() if text}


def environment_variables(environment: Environment, settings: Application) -> Mapping[str, str]:
    """Return the plain variables: no secret, but where each secret's file is."""
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
    # The first is libpq's own name, which asyncpg and psycopg read.
    named = {managed.DATABASE_CA: "PGSSLROOTCERT", managed.REDIS_CA: "REDIS_CA_FILE"}
    variables |= {named[file]: f"{SECRETS}/{file}" for file in authorities(environment)}
    if settings.secrets_as == "files":
        variables |= {f"{name.upper()}_FILE": f"{SECRETS}/{name}" for name in files(environment, settings)}
    if settings.image:
        # Its user has no home in the image, and `/` cannot be written to.
        variables["HOME"] = "/tmp"  # noqa: S108 - a mount of its own
        # Uvicorn's and Gunicorn's name for TRUSTED_PROXIES; Uvicorn before 0.31 knows addresses or `*`, and no network.
        variables["FORWARDED_ALLOW_IPS"] = _traefik(environment) or "*"
    return variables | settings.environment


def proxy_variables(environment: Environment) -> Mapping[str, str]:
    """Return whose X-Forwarded-For the application believes: the ingress', whose address is not known beforehand.

    Nobody but the ingress and the stack's own parts can reach the application, and the ingress replaces the header.
    A Traefik of the team's own is on a network with others, who reach the application too: only its address counts.
    """
    # A name that the ingress asks for may lead it there by IPv6, in the range that the engine has chosen.
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
    """Return the opted-in variables that hold a secret, and where a managed Redis is: only its secret URL says that."""
    known = secret_settings(environment)
    opted_in = {name: known[name] for name in known if name in _in_environment(settings)}
    if not environment.managed_redis:
        return opted_in
    # What a person has set stays: there may be a proxy before it, or another of its databases.
    return opted_in | {name: made for name, made in _MANAGED_REDIS.items() if name not in settings.environment}


def _of_redis(read: Callable[[managed.Redis], object]) -> Template:
    return Template(("managedRedisUrl",), lambda url: str(read(managed.redis(url))))


# No password is in them. An image reads them where it reads those of the local Redis.
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
