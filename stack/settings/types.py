"""Types of the settings' values, and the base of all models: frozen, strict, without unknown keys."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from stack.common import cron
from stack.common.names import VARIABLE
from stack.common.references import ImageReferenceError, parse_reference


def _image(value: str) -> str:
    try:
        parse_reference(value)
    except ImageReferenceError as error:
        raise ValueError(str(error)) from None
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("not an IP address") from None


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("not a network like 10.0.0.0/8") from None


def _container_path(value: str) -> str:
    """Accept an absolute path of a folder, outside the system's folders and the folders that the stack mounts."""
    parts = value.split("/")[1:]
    systems = {"tmp", "run", "proc", "sys", "dev", "etc", "usr", "bin", "sbin", "lib", "lib64"}
    plain = all(re.fullmatch(r"[\w.-]+", part) and part.strip(".") for part in parts)
    if not (value.startswith("/") and plain) or parts[0] in systems:
        raise ValueError(f"not the whole path of a folder of its own, which is not in /{', /'.join(sorted(systems))}")
    return value


def _schedule(value: str) -> str:
    return cron.parse(value).text


Image = Annotated[str, AfterValidator(_image)]
Address = Annotated[str, AfterValidator(_address)]
LAST_PORT = 65535
Port = Annotated[int, Field(ge=1, le=LAST_PORT)]
MemoryMib = Annotated[int, Field(ge=16)]
# Linux gives a container at least a thousandth of a second of each tenth.
Cpus = Annotated[float, Field(ge=0.01, le=128)]
# minute hour day month weekday, in UTC; numbers of weekdays are replaced by names.
CronSchedule = Annotated[str, AfterValidator(_schedule)]
# Prometheus' syntax for a duration, without compound forms such as 1h30m.
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]*(ms|s|m|h|d|w|y)$")]
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*(MB|GB|TB)$")]
SecretName = Annotated[str, Field(pattern=f"^{VARIABLE}$")]
ContainerPath = Annotated[str, AfterValidator(_container_path)]
Network = Annotated[str, AfterValidator(_network)]

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
Certificate = Annotated[
    str,
    Field(
        pattern=r"^(\s*-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)*$",
        max_length=512_000,
    ),
]


_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def seconds(duration: str) -> float:
    """Return a `Duration` in seconds: `"15s"` is 15.0, `"2h"` is 7200.0."""
    number, unit = re.fullmatch(r"([0-9]+)([a-z]+)", duration).groups()  # type: ignore[union-attr]
    return int(number) * _SECONDS[unit]


def bytes_of(size: str) -> int:
    """Return a `Size` in bytes: `"2GB"` is 2,000,000,000."""
    return int(size[:-2]) * {"MB": 10**6, "GB": 10**9, "TB": 10**12}[size[-2:]]


def http_url(address: str, port: int) -> str:
    """Return the URL of a port on an IP address; an IPv6 address is put in brackets."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}"


class Model(BaseModel):
    """The base of all settings: frozen, strict, and without unknown keys, so that a typing error is never ignored."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # An error must not print a value, which may be a secret.
        hide_input_in_errors=True,
    )
