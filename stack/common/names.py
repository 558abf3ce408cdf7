"""Names that the program gives on the engine and the `samokoder` command finds things by. No Pulumi import."""

from __future__ import annotations

import re
from enum import StrEnum

PROJECT = "samokoder"
"""Pulumi's project: the namespace of the configuration, and the first word of every name on the engine."""

ENVIRONMENT_LABEL = "samokoder.environment"
PART_LABEL = "samokoder.part"
CARRIER_ENTRYPOINT = "/never-started"
"""Entrypoint of a carrier: a container that only holds files and is never started."""

NO_NEW_PRIVILEGES = "no-new-privileges=true"
"""Security option of every container. Engines also take it with a colon, which is deprecated."""

NO_SEARCH_DOMAIN = "."
"""The only search domain of every container: the engine then writes no `search` line into resolv.conf. With the host's
search domain, `redis` would be looked up in that domain while its container is down, and a wildcard record there would
answer with a stranger's address."""

MTU_OPTION = "com.docker.network.driver.mtu"
"""Driver option of a network: its MTU in bytes. Without it an engine uses `USUAL_MTU`."""
LEAST_MTU, USUAL_MTU = 576, 1500

VARIABLE = r"[A-Z][A-Z0-9_]*"
"""Pattern of the name of an environment variable that a setting may give to the application."""

API_PORT = 8000
"""Port of the API in its container."""
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds of the API's histogram of durations, in seconds."""
APPLICATION_USER = "10001:10001"
"""uid:gid of the API and the worker; this user owns the files that they share."""


def service_of(part: str) -> tuple[str, str]:
    """Return a part's service and the number of its replica, empty for none: `api-1` is `api` and `1`."""
    replica = re.fullmatch(r"(.+)-(\d+)", part)
    return (replica[1], replica[2]) if replica else (part, "")


def typed(environment: str, words: str) -> str:
    """Return a command of `make` as a person types it for an environment. words: `restore BACKUP=latest`.

    It always names the environment: an alert is read at a shell that nobody knows.
    """
    return f"make {words} ENV={environment}"


class NetworkName(StrEnum):
    """The networks of an environment; a part joins only those that it needs."""

    EDGE = "edge"
    """Ports published on the host, and the way out to the internet."""
    PUBLISHED = "published"
    """Ports published on the host, and no way out."""
    APP = "app"
    """Between API, worker and frontend; no way out."""
    DATA = "data"
    """PostgreSQL and Redis; no way out, nothing published."""
    MONITORING = "monitoring"
    """Prometheus and what it scrapes; no way out."""
