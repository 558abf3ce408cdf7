"""What the ingress costs: the same requests through Caddy and at the API itself, by wrk.

One replica, and the addresses of the containers in both cases: what differs is Caddy alone, and not how many processes
answer or how the engine publishes a port.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace

import docker

from host.packages import install_packages
from host.progress import Reporter
from operations.engine import containers
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.common.names import API_PORT
from stack.parts.ingress import spec as ingress
from stack.parts.ingress.ports import HTTP_PORT

CONNECTIONS = 32
SECONDS = 10
RUNS = 5
# What a page of the service asks most: it goes to the database.
PATH = "/projects"


@dataclass(frozen=True)
class IngressSpeed:
    """Requests a second, and the time within which 99 of 100 are answered, in seconds."""

    per_second: float
    p99: float


def measure(
    client: docker.DockerClient, workspace: Workspace, reporter: Reporter
) -> tuple[list[IngressSpeed], list[IngressSpeed]]:
    """Return what was measured through the ingress, and at the API directly, of some runs in turn."""
    if not shutil.which("wrk"):
        install_packages(["wrk"], report=reporter.say)
    no_limit = {"environment": {"RATE_LIMITS": json.dumps({f"GET {PATH}": 0})}}
    alone = replace(workspace, extra_config={**workspace.extra_config, "samokoder:api": {"replicas": 1, **no_limit}})
    bring_up(alone, interactive=False)
    urls = [
        f"http://{_address(client, alone, ingress.PART)}:{HTTP_PORT}{PATH}",
        f"http://{_address(client, alone, 'api-1')}:{API_PORT}{PATH}",
    ]
    # In turn: whatever else the machine does meets both.
    runs = [[_wrk(url) for url in urls] for _ in range(RUNS)]
    through, direct = (list(of_one) for of_one in zip(*runs, strict=True))
    return through, direct


def _address(client: docker.DockerClient, workspace: Workspace, part: str) -> str:
    container = containers.find(client, workspace.settings(), part)
    networks = container.attrs["NetworkSettings"]["Networks"]
    return str(networks[f"{workspace.settings().prefix}-edge"]["IPAddress"])


def _wrk(url: str) -> IngressSpeed:
    said = subprocess.run(
        ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={SECONDS}s", "--latency", url],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return read(said)


def read(said: str) -> IngressSpeed:
    """Read what wrk printed. Raises ValueError where an answer was not 2xx or 3xx: that measures nothing."""
    if re.search(r"Non-2xx|Socket errors", said):
        raise ValueError(f"not every request was answered well:\n{said}")
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said)
    if not rate or not p99:
        raise ValueError(f"wrk said nothing that can be read:\n{said}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[p99[2]]
    return IngressSpeed(per_second=float(rate[1]), p99=float(p99[1]) * unit)
