"""Try from a container on `edge` what it reaches: the closed addresses, and what other checks want to know."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from host.progress import Task
from operations.engine import containers
from operations.engine.one_off import check, run_once
from stack.common.names import NetworkName
from stack.parts.backup import spec as backup
from stack.settings.environment import Environment

if TYPE_CHECKING:
    import docker

TRY_LABEL = "samokoder.try"
"""Label of the container that tries, which is removed at once."""


def reached(environment: Environment, client: docker.DockerClient) -> list[str]:
    """Try, from a container on `edge`, the closed addresses; return those at which a web server answers."""
    four, six = environment.settings.packet_filter.closed_by_family()
    hosts = [str(next(_hosts(each))) for each in (*four, *six)]
    said = run(environment, client, _TRY, hosts)
    return said.split()


def run(environment: Environment, client: docker.DockerClient, program: str, words: Sequence[str]) -> str:
    """Run a program of Python in a container on `edge`, as the backup server's user; return what it prints."""
    like = containers.find(client, environment, backup.PART).attrs
    return run_once(
        client,
        like["Image"],
        ["python", "-c", program, *words],
        task=Task(""),
        check=partial(check, ["python"]),
        user=like["Config"]["User"],
        environment=like["Config"]["Env"],
        network_mode=f"{environment.prefix}-{NetworkName.EDGE}",
        mem_limit=64 * 2**20,
        labels={TRY_LABEL: environment.name},
    )


_TRY = """
import concurrent.futures, socket, sys
def answers(host):
    try:
        socket.create_connection((host, 80), 3).close()
    except OSError:
        return False
    return True
hosts = sys.argv[1:]
with concurrent.futures.ThreadPoolExecutor() as pool:
    print(*(host for host, found in zip(hosts, pool.map(answers, hosts)) if found))
"""


def _hosts(network: str) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Yield addresses to try in a network: first the address at which clouds give credentials, if it is in there."""
    there = ipaddress.ip_network(network)
    for metadata in map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254")):
        if metadata in there:
            yield metadata
    yield from there.hosts()
