"""Names that the program gives on the engine and the `samokoder` command finds things by. No Pulumi import."""

from __future__ import annotations

from enum import StrEnum

PROJECT = "samokoder"
"""Pulumi's project: the namespace of the configuration, and the first word of every name on the engine."""

ENVIRONMENT_LABEL = "samokoder.environment"
PART_LABEL = "samokoder.part"
CARRIER_ENTRYPOINT = "/never-started"
"""Of a container that only holds files and is never started."""

NO_NEW_PRIVILEGES = "no-new-privileges=true"
"""Security option of every container. Engines also take it with a colon, which is deprecated."""

NO_SEARCH_DOMAIN = "."
"""As the one search domain of a container: the engine then writes no line `search`. Else `redis`, while its container
is away, is asked for in the host's domain, and a wildcard record there answers with a stranger's address."""

MTU_OPTION = "com.docker.network.driver.mtu"
"""Of a network: its largest packet in bytes. Without it an engine takes `USUAL_MTU`."""
USUAL_MTU = 1500

API_PORT = 8000
"""Of the API in its container."""
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds of the API's histogram of durations, in seconds."""
APPLICATION_USER = "10001:10001"
"""uid:gid of the API and the worker; the files that they share are this user's."""


class NetworkName(StrEnum):
    """The segments; a part joins only what it needs."""

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
