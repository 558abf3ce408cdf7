"""A real Traefik, as a team has one: it reads the labels of containers at the engine's socket."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import httpx
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool, Mount

from host.cache import cache_directory
from host.progress import Reporter
from offline.toolchain import build

WEB, SECURE, OWN = 8000, 8443, 8080
"""Ports of its entry points `web` and `websecure`, and of its own API."""
SOCKET = "/var/run/docker.sock"
# Networks of a test only, asked for one after the other until one is free.
_SUBNETS = tuple(f"10.213.{number}" for number in range(256))


@dataclass
class Traefik:
    """One that runs on a network of its own, at a fixed address."""

    container: Container
    network: Network
    address: str

    def own(self, path: str) -> Any:
        """Return what its own API tells, such as `http/routers`."""
        answer = httpx.get(f"http://{self.address}:{OWN}/api/{path}", params={"per_page": 1000}, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def servers(self, service: str) -> dict[str, str]:
        """Return a service's servers, `http://address:port` -> UP or DOWN; none where it does not know the service."""
        found = {each["name"]: each for each in self.own("http/services")}
        return dict(found.get(f"{service}@docker", {}).get("serverStatus", {}))

    def answer(self, path: str, host: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Ask for exactly this path at the entry point `web`: httpx would clean it. Gives the status and the body."""
        sent = {"Host": host, **(headers or {})}
        lines = [f"GET {path} HTTP/1.0", *(f"{name}: {text}" for name, text in sent.items())]
        with socket.create_connection((self.address, WEB), timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            with connection.makefile("rb") as reader:
                head, _, body = reader.read().partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def served(self) -> list[dict[str, Any]]:
        """Return its access log."""
        lines = self.container.logs(stderr=False).decode().splitlines()
        return [json.loads(line) for line in lines if '"ServiceAddr"' in line]


def address_on(container: Container, network: Network) -> str:
    """Return a container's address on a network."""
    container.reload()
    return str(container.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"])


@contextlib.contextmanager
def traefiks_network(
    client: docker.DockerClient, name: str, labels: Mapping[str, str]
) -> Iterator[tuple[Network, str]]:
    """Make the network that Traefik has in common with what it serves; with the fixed address of Traefik there."""
    for subnet in _SUBNETS:
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=f"{subnet}.0/24", gateway=f"{subnet}.1")])
        try:
            network = client.networks.create(name, driver="bridge", internal=True, ipam=ipam, labels=dict(labels))
            break
        except docker.errors.APIError as error:
            if "overlap" not in str(error).lower():
                raise
    else:
        raise AssertionError("no subnet is free for Traefik's network")
    try:
        yield network, f"{subnet}.2"
    finally:
        for container in client.containers.list(all=True, filters={"network": str(network.id)}):
            network.disconnect(container, force=True)
        network.remove()


@contextlib.contextmanager
def traefik(
    client: docker.DockerClient,
    image: str,
    network: Network,
    address: str,
    *,
    seen: Mapping[str, str],
    labels: Mapping[str, str],
) -> Iterator[Traefik]:
    """Run Traefik at its address on the network; gone afterwards.

    image: one whose programs are not needed, the program is static. seen: labels that a container must have to be seen,
    so that those of other tests are not. labels: its own.
    """
    folder: Path = build(["traefik"], cache=cache_directory(), progress=Reporter())["traefik"]
    constraints = " && ".join(f"Label(`{name}`,`{value}`)" for name, value in seen.items())
    container: Container = client.containers.create(
        image,
        entrypoint=["/program/traefik"],
        command=[
            f"--providers.docker.constraints={constraints}",
            "--providers.docker.exposedbydefault=false",
            f"--entrypoints.web.address=:{WEB}",
            f"--entrypoints.websecure.address=:{SECURE}",
            f"--entrypoints.traefik.address=:{OWN}",
            "--api.insecure=true",
            "--accesslog=true",
            "--accesslog.format=json",
            # There is no such authority here: a certificate is asked for, and its own is shown meanwhile.
            "--certificatesresolvers.letsencrypt.acme.tlschallenge=true",
            "--certificatesresolvers.letsencrypt.acme.caserver=https://127.0.0.1:1/directory",
            "--certificatesresolvers.letsencrypt.acme.storage=/tmp/acme.json",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
        ],
        user="0:0",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges=true"],
        read_only=True,
        tmpfs={"/tmp": "rw,size=16m"},  # noqa: S108 - of the container
        mounts=[
            Mount("/program", str(folder), type="bind", read_only=True),
            Mount(SOCKET, SOCKET, type="bind", read_only=True),
        ],
        network=network.name,
        networking_config={
            str(network.name): client.api.create_endpoint_config(ipv4_address=address, aliases=["traefik"])
        },
        labels=dict(labels),
        init=True,
    )
    try:
        container.start()
        yield Traefik(container, network, address)
    finally:
        container.remove(force=True, v=True)
