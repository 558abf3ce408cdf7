"""Settings of the API and the worker, read once at start; a bad one stops the process with exit code 78."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, NoReturn, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

EX_CONFIG: Final = 78
SECRETS_FOLDER: Final = "/run/secrets"
SECRET_NAMES: Final = ("SAMOKODER_DATABASE_URL", "REDIS_PASSWORD", "SECRET_KEY", "APP_SECRET_KEY")
KEY_LENGTH: Final = 64
PASSWORD_LENGTH: Final = 16
# Six letters or more each, so that a random value holds one of them less than once in ten million.
DEFAULT_LOOKING: Final = (
    "changeme", "change-me", "change_me", "default", "example", "insecure", "password", "placeholder",
    "postgres", "samokoder", "secret", "your-key", "your_key", "123456", "abcdef", "qwerty",
)  # fmt: skip

Port = Annotated[int, Field(ge=1, le=65535)]


class ConfigurationError(Exception):
    """Every mistake in the settings, one line each; never holds a value, since it is printed to the log."""


def weakness(value: str, minimum_length: int) -> str | None:
    """Say why `value` is too weak for a secret of at least `minimum_length` characters, or None."""
    if len(value) < minimum_length:
        return f"is shorter than {minimum_length} characters"
    # Of random hexadecimal digits, 64 hold under 10 different ones, and 16 under 6, once in 10,000 times.
    if len(set(value)) < (10 if minimum_length >= KEY_LENGTH else 6):
        return "has too few different characters"
    if value in (value + value)[1:-1]:
        return "repeats one short piece"
    if any(word in value.lower() for word in DEFAULT_LOOKING):
        return "looks like a default or a placeholder"
    return None


class Settings(BaseSettings):
    """What the service is told; the name of each variable is the field's in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    environment: str = Field("development", pattern=r"^[a-z][a-z0-9-]{0,31}$", description="staging, prod, ...")
    samokoder_database_url: SecretStr = Field(description="postgresql+asyncpg://user:password@host/database")
    redis_host: str = Field(min_length=1, description="host name of Redis")
    redis_port: Port = Field(6379, description="port of Redis")
    redis_username: str = Field("default", min_length=1, description="Redis ACL user")
    redis_password: SecretStr = Field(description=f"its password, {PASSWORD_LENGTH} characters or more")
    secret_key: SecretStr = Field(description=f"signs tokens, {KEY_LENGTH} characters or more")
    app_secret_key: SecretStr = Field(description=f"encrypts stored data, {KEY_LENGTH} characters or more")
    worker_port: Port = Field(9000, description="port of the worker's /health, /ready and /metrics")
    worker_shutdown_seconds: int = Field(
        20,
        ge=1,
        le=3600,
        description="seconds that running jobs get after SIGTERM before they are given back",
    )

    @field_validator("secret_key", "app_secret_key")
    @classmethod
    def _strong_key(cls, value: SecretStr) -> SecretStr:
        if reason := weakness(value.get_secret_value(), KEY_LENGTH):
            raise ValueError(reason)
        return value

    @field_validator("redis_password")
    @classmethod
    def _strong_password(cls, value: SecretStr) -> SecretStr:
        if reason := weakness(value.get_secret_value(), PASSWORD_LENGTH):
            raise ValueError(reason)
        return value

    @field_validator("samokoder_database_url")
    @classmethod
    def _usable_url(cls, value: SecretStr) -> SecretStr:
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError:
            url = None
        wanted = "must look like postgresql+asyncpg://user:password@host/database"
        if url is None or url.drivername != "postgresql+asyncpg":
            raise ValueError(wanted)
        if not (url.username and url.password and url.host and url.database):
            raise ValueError(f"{wanted}: user, password, host and database are all needed")
        if reason := weakness(url.password, PASSWORD_LENGTH):
            raise ValueError(f"holds a password that {reason}")
        return value

    @model_validator(mode="after")
    def _different_keys(self) -> Self:
        if self.secret_key == self.app_secret_key:
            raise ValueError("SECRET_KEY and APP_SECRET_KEY must differ")
        return self


def _read_secret(name: str, environ: Mapping[str, str]) -> str | None:
    """Find one secret in its file or variable; None when it is nowhere.

    Raises ConfigurationError when a file cannot be read, or when two places hold different values: one is
    stale then, and picking any would hide that. No path in the message: somebody may have put the secret there.
    """
    files: dict[str, Path] = {}
    if named := environ.get(f"{name}_FILE"):
        files[f"the file that {name}_FILE names"] = Path(named)
    in_folder = Path(environ.get("SECRETS_DIR", SECRETS_FOLDER)) / name.lower()
    if in_folder.is_file():
        files[f"the secrets folder's {name.lower()}"] = in_folder
    found: dict[str, str] = {}
    for place, path in files.items():
        try:
            found[place] = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{name}: {place} cannot be read: {type(error).__name__}") from None
    if plain := environ.get(name):
        found[f"the variable {name}"] = plain
    if len(set(found.values())) > 1:
        raise ConfigurationError(f"{name}: {' and '.join(found)} hold different values")
    return next(iter(found.values()), None)


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check all settings. Raises ConfigurationError, which names every mistake at once."""
    secrets: dict[str, str] = {}
    mistakes: dict[str, str] = {}
    for name in SECRET_NAMES:
        try:
            value = _read_secret(name, environ)
        except ConfigurationError as error:
            mistakes[name] = str(error)
        else:
            if value:
                secrets[name.lower()] = value
    try:
        settings = Settings.model_validate(secrets)
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = str(problem["loc"][0]).upper() if problem["loc"] else ""
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "missing":
                text = "is not set"
                if name in SECRET_NAMES:
                    text += f": no file {SECRETS_FOLDER}/{name.lower()}, no {name}_FILE, no {name}"
            mistakes.setdefault(name, f"{name}: {text}" if name else text)
        raise ConfigurationError("\n".join(mistakes.values())) from None
    if mistakes:
        raise ConfigurationError("\n".join(mistakes.values()))
    return settings


def settings_or_exit() -> Settings:
    """Read the settings; on a mistake print it to standard error and exit with code 78 (EX_CONFIG)."""
    try:
        return load_settings()
    except ConfigurationError as error:
        _refuse(str(error))


def _refuse(mistakes: str) -> NoReturn:
    lines = "".join(f"\n  - {line}" for line in mistakes.splitlines())
    sys.stderr.write(f"samokoder refuses to start, its settings are wrong:{lines}\n")
    sys.exit(EX_CONFIG)
