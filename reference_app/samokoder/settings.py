"""Settings of the API and the worker, read once at start; a bad one stops the process with exit code 78."""

import itertools
import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

EX_CONFIG: Final = 78
SECRETS_FOLDER: Final = "/run/secrets"
KEY_LENGTH: Final = 64
PASSWORD_LENGTH: Final = 16
# Six letters or more each, so that a random value holds one of them less than once in ten million.
DEFAULT_LOOKING: Final = (
    "changeme", "change-me", "change_me", "default", "example", "insecure", "password", "placeholder",
    "postgres", "samokoder", "secret", "your-key", "your_key", "123456", "abcdef", "qwerty",
)  # fmt: skip

#: Requests a minute that one client may make of each endpoint; the setting has, as JSON, what differs. 0: no limit.
RATE_LIMITS: Final[Mapping[str, int]] = {
    "POST /auth/register": 5,
    "POST /auth/login": 10,
    "GET /auth/me": 50,
    "DELETE /auth/me": 10,
    "GET /projects": 50,
    "POST /projects": 30,
    "GET /projects/{project_id}": 50,
    "POST /projects/{project_id}/jobs": 30,
    "GET /jobs/{job_id}": 50,
    "GET /jobs/{job_id}/events": 50,
}

Port = Annotated[int, Field(ge=1, le=65535)]
PerMinute = Annotated[int, Field(ge=0, le=1_000_000)]
Dollars = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class LlmProvider(BaseModel):
    """One OpenAI-compatible service; it is used when its key is there (OPENAI_API_KEY for `openai`, ...)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Literal["openai", "anthropic", "openrouter"]
    base_url: str = Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$")
    model: str = Field(pattern=r"^[A-Za-z0-9._:/-]{1,100}$")
    prompt_usd: Dollars = Field(description="price of a million prompt tokens")
    completion_usd: Dollars = Field(description="price of a million completion tokens")


# In the order of their turn. Prices change: a team that accounts by them sets its own.
LLM_PROVIDERS: Final = tuple(
    LlmProvider.model_validate(dict(zip(LlmProvider.model_fields, row, strict=True)))
    for row in (
        ("openai", "https://api.openai.com/v1", "gpt-4o-mini", 0.15, 0.6),
        ("anthropic", "https://api.anthropic.com/v1", "claude-haiku-4-5", 1, 5),
        ("openrouter", "https://openrouter.ai/api/v1", "openai/gpt-4o-mini", 0.15, 0.6),
    )
)


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


def _strong(minimum_length: int, value: SecretStr) -> SecretStr:
    if reason := weakness(value.get_secret_value(), minimum_length):
        raise ValueError(reason)
    return value


def _usable_url(value: SecretStr) -> SecretStr:
    try:
        url = make_url(value.get_secret_value())
    except ArgumentError:
        url = None
    if not (url and url.drivername == "postgresql+asyncpg" and url.username and url.host and url.database):
        raise ValueError("must look like postgresql+asyncpg://user:password@host/database")
    if reason := weakness(url.password or "", PASSWORD_LENGTH):
        raise ValueError(f"holds a password that {reason}")
    return value


def _sendable(value: SecretStr) -> SecretStr:
    # The HTTP library would refuse any other character with the key in its message.
    if not re.fullmatch(r"[!-~]{16,}", value.get_secret_value()):
        raise ValueError("must be 16 or more printable ASCII characters without a space")
    return value


def _over_the_defaults(value: Mapping[str, int]) -> Mapping[str, int]:
    if value.keys() - RATE_LIMITS:
        raise ValueError(f"names an endpoint that has no limit; those that have one: {', '.join(RATE_LIMITS)}")
    return {**RATE_LIMITS, **value}


def _networks(value: str) -> str:
    try:
        return ",".join(str(ip_network(network.strip())) for network in value.split(",") if network.strip())
    except ValueError:
        raise ValueError("must be networks like 10.0.0.0/8,192.168.7.1/32") from None


def _one_of_each(value: tuple[LlmProvider, ...]) -> tuple[LlmProvider, ...]:
    if len({provider.name for provider in value}) < len(value):
        raise ValueError("names a provider twice")
    return value


Key = Annotated[SecretStr, AfterValidator(partial(_strong, KEY_LENGTH))]
Password = Annotated[SecretStr, AfterValidator(partial(_strong, PASSWORD_LENGTH))]
LlmKey = Annotated[SecretStr, AfterValidator(_sendable)]


class Settings(BaseSettings):
    """What the service is told; the name of each variable is the field's in capitals."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, validate_default=False
    )

    environment: str = Field("development", pattern=r"^[a-z][a-z0-9-]{0,31}$", description="staging, prod, ...")
    samokoder_database_url: Annotated[SecretStr, AfterValidator(_usable_url)]
    redis_host: str = Field(min_length=1, description="host name of Redis")
    redis_port: Port = Field(6379, description="port of Redis")
    redis_username: str = Field("default", min_length=1, description="Redis ACL user")
    redis_password: Password
    redis_db: int = Field(0, ge=0, le=10_000, description="number of Redis' database")
    redis_tls: bool = Field(False, description="whether the way to Redis is encrypted; its certificate is checked then")
    redis_ca_file: str = Field("", description="the authority of Redis' certificate, in PEM; empty: the system's")
    secret_key: Key = Field(description="signs tokens")
    secret_key_previous: Key | None = Field(None, description="tokens that it signed are accepted too")
    app_secret_key: Key = Field(description="encrypts stored data")
    token_minutes: int = Field(720, ge=1, le=43_200, description="how long a login lasts")
    rate_limits: Annotated[Json[Mapping[str, PerMinute]], AfterValidator(_over_the_defaults)] = RATE_LIMITS
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    drain_seconds: int = Field(5, ge=0, le=60, description="how long the API serves on after SIGTERM")
    worker_port: Port = Field(9000, description="port of the worker's /health, /ready and /metrics")
    worker_jobs: int = Field(32, ge=1, le=1000, description="jobs that one worker runs at the same time")
    job_retention_days: int = Field(365, ge=0, le=36_500, description="jobs that are over stay so long; 0: for ever")
    worker_shutdown_seconds: int = Field(20, ge=1, le=3600, description="what running jobs get after SIGTERM")
    openai_api_key: LlmKey | None = None
    anthropic_api_key: LlmKey | None = None
    openrouter_api_key: LlmKey | None = None
    llm_providers: Annotated[Json[tuple[LlmProvider, ...]], AfterValidator(_one_of_each)] = LLM_PROVIDERS
    llm_in_flight: int = Field(32, ge=1, le=1000, description="LLM calls that one worker makes at the same time")
    llm_timeout_seconds: float = Field(60, ge=0.05, le=600, description="an LLM call that takes longer has failed")

    @model_validator(mode="after")
    def _different_keys(self) -> Self:
        for one, other in itertools.combinations(("secret_key", "app_secret_key", "secret_key_previous"), 2):
            if getattr(self, one) == getattr(self, other):
                raise ValueError(f"{one.upper()} and {other.upper()} must differ")
        return self


SECRET_NAMES: Final = tuple(
    name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
)


def _read_secret(name: str) -> str:
    """Find one secret in its file or variable; an empty one is none.

    Raises ValueError when a file cannot be read, or when two places hold different values: one is stale then,
    and picking any would hide that. No path in the message: somebody may have put the secret there.
    """
    in_folder = Path(os.environ.get("SECRETS_DIR", SECRETS_FOLDER)) / name.lower()
    files = {f"the secrets folder's {name.lower()}": in_folder} if in_folder.is_file() else {}
    if named := os.environ.get(f"{name}_FILE"):
        files[f"the file that {name}_FILE names"] = Path(named)
    found = {}
    for place, path in files.items():
        try:
            found[place] = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{place} cannot be read: {type(error).__name__}") from None
    if plain := os.environ.get(name):
        found[f"the variable {name}"] = plain
    if len(set(found.values())) > 1:
        raise ValueError(f"{' and '.join(found)} hold different values")
    return next(iter(found.values()), "")


def settings_or_exit() -> Settings:
    """Read the settings; name every mistake at once, but no value, and exit with code 78 (EX_CONFIG)."""
    secrets: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for name in SECRET_NAMES:
        try:
            if value := _read_secret(name):
                secrets[name.lower()] = value
        except ValueError as error:
            mistakes[name] = str(error)
    try:
        settings = Settings(**secrets)
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name, *inside = [str(step) for step in problem["loc"]] or ["keys"]
            text = "is not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
            mistakes.setdefault(".".join([name.upper(), *inside]), text)
    if not mistakes:
        return settings
    lines = "".join(f"\n  - {place}: {text}" for place, text in mistakes.items())
    sys.stderr.write(
        f"samokoder refuses to start, its settings are wrong:{lines}\n"
        f"A secret is read from {SECRETS_FOLDER}/<lower-case name>, the file that <NAME>_FILE names, or <NAME>.\n"
    )
    sys.exit(EX_CONFIG)
