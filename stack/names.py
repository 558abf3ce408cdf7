"""Names that the program gives on the engine and the `samokoder` command finds things by. No Pulumi import."""

from __future__ import annotations

from enum import StrEnum

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
