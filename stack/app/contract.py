"""What the API and the worker are given: the original's contract, secrets as files in /run/secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote, unquote, urlsplit

from stack.app import postgres, redis
from stack.app.reference import reference_image
from stack.config_files import Files, Template, secret_file
from stack.settings import LLM_KEYS, Application, Environment

SECRETS = "/run/secrets"
USER = "10001:10001"


def application_image(environment: Environment, settings: Application) -> str:
    """Return the team's own image, or the reference application's."""
    return settings.image or reference_image(environment).name


def secret_settings(environment: Environment) -> Mapping[str, Template]:
    """Return setting -> how its value is made from secrets; all that is secret in the contract."""
    made: dict[str, Template] = {
        "SECRET_KEY": secret_file("secret_key"),
        "APP_SECRET_KEY": secret_file("app_secret_key"),
        "SAMOKODER_DATABASE_URL": _database_url(environment),
        "REDIS_PASSWORD": Template(("managedRedisUrl",), _redis("password"))
        if environment.managed_redis
        else secret_file("redis_app"),
    }
    made |= {name: secret_file(key) for key, name in LLM_KEYS.items() if key in environment.configured_secrets}
    if environment.managed_redis:
        # Host and user are in the managed URL, which is a secret as a whole.
        made |= {
            f"REDIS_{part.upper()}": Template(("managedRedisUrl",), _redis(part))
            for part in ("hostname", "username", "port")
        }
        made["REDIS_HOST"] = made.pop("REDIS_HOSTNAME")
    return made


def files(environment: Environment, settings: Application) -> Files:
    """Return a file for each secret setting, by its lower-case name, but for those that the image reads elsewhere."""
    return {
        name.lower(): template
        for name, template in secret_settings(environment).items()
        if name not in settings.secrets_in_environment
    }


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
    variables |= {f"{name.upper()}_FILE": f"{SECRETS}/{name}" for name in files(environment, settings)}
    return variables | settings.environment


def secret_variables(environment: Environment, settings: Application) -> Mapping[str, Template]:
    """Return the opted-in variables that hold a secret themselves."""
    known = secret_settings(environment)
    return {name: known[name] for name in settings.secrets_in_environment}


def _database_url(environment: Environment) -> Template:
    if environment.managed_database:
        return Template(("managedDatabaseUrl",), asyncpg_url)
    database = environment.settings.postgres.database

    def local(password: str) -> str:
        user = f"{postgres.APP_ROLE}:{quote(password, safe='')}"
        return f"postgresql+asyncpg://{user}@{postgres.PART}:{postgres.PORT}/{database}"

    return Template(("postgres_app",), local)


def asyncpg_url(url: str) -> str:
    """Return a `postgres://…` URL with SQLAlchemy's scheme for asyncpg, which calls libpq's `sslmode` `ssl`."""
    return "postgresql+asyncpg://" + re.sub(r"(?<=[?&])sslmode=", "ssl=", url.partition("://")[2])


def _redis(part: str) -> Callable[[str], str]:
    defaults = {"port": str(redis.PORT), "username": "default"}

    def take(url: str) -> str:
        return unquote(str(getattr(urlsplit(url), part) or defaults.get(part, "")))

    return take
