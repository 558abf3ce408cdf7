"""What the checks of `doctor` ask: an environment, its engine, and the engine's host."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shlex
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import docker
import docker.errors

from host import ssh
from host.daemon import engine_at
from host.engine import EngineInfo, connect
from host.errors import EngineError
from offline import registries
from operations.checks.doctor import disk_room
from operations.checks.report import Once
from operations.errors import UnavailableError
from operations.network import ipv6, mtu
from operations.workspace.workspace import Workspace
from stack.catalogue import specs
from stack.common.names import ENVIRONMENT_LABEL, PROJECT, VARIABLE
from stack.common.secret_rules import CONFIGURED_SECRETS, SecretInput
from stack.images import IMAGES
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

_NO_PROGRAM, _SSH_FAILED = 127, 255  # exit codes of a shell and of ssh


@dataclass(frozen=True)
class EngineAnswers:
    """What the engine says of itself."""

    client: docker.DockerClient
    info: EngineInfo
    limits: Mapping[str, Any]
    """Its answer to `docker info`."""


class Route(NamedTuple):
    """A route of the host for a part of IPv4."""

    network: ipaddress.IPv4Network
    device: str


@dataclass(frozen=True)
class HostFacts:
    """What the engine's host says of itself; empty values where it does not know."""

    values: Mapping[str, str]
    listening: Sequence[tuple[str, int]]
    """Address and port of each TCP socket that a program listens on."""
    addresses: Collection[str]
    """Addresses on its interfaces."""
    routes: Sequence[Route]
    """All routes but the default one."""

    @classmethod
    def parse(cls, text: str) -> HostFacts:
        """Read what `_FACTS` prints."""
        lines = [line.split() for line in text.splitlines()]

        def listed(name: str) -> list[list[str]]:
            return [words[1:] for words in lines if words[:1] == [name]]

        return cls(
            values={words[0]: words[1] for words in lines if len(words) == 2 and words[0] not in _LISTED},  # noqa: PLR2004
            listening=[_socket(address) for (address,) in listed("listens")],
            addresses={_address(address) for (address,) in listed("has")},
            routes=[Route(_network(network), device) for network, device in listed("route")],
        )


_LISTED = {"listens", "has", "route"}
"""First words of lines of which there are many."""
# Facts that the scripts for disk room, MTU and IPv6 do not collect. The kernel's tables need no right and no program;
# only `ip` knows the routes of VPNs that have a table of their own.
_FACTS = """\
for name in vm/overcommit_memory net/ipv4/ip_forward net/ipv4/ip_nonlocal_bind net/ipv6/ip_nonlocal_bind; do
    test -r /proc/sys/$name && echo "$name $(cat /proc/sys/$name)"
done
test -e /dev/kmsg && echo "kmsg yes"
test -r /proc/net/tcp && echo "sockets yes"
echo "synchronised $(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
awk '$4 == "0A" { print "listens", $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
awk '$1 == "|--" { address = $2 } /host LOCAL/ { print "has", address }' /proc/net/fib_trie 2>/dev/null
awk '{ print "has", $1 }' /proc/net/if_inet6 2>/dev/null
PATH="$PATH:/usr/sbin:/sbin"
if command -v ip >/dev/null; then
    ip -4 route show table all 2>/dev/null | awk '$1 ~ /^[0-9]/ {
        device = "several"
        for (i = 2; i < NF; i++) if ($i == "dev") device = $(i + 1)
        print "route", $1, device
    }'
else
    awk 'NR > 1 && $8 != "00000000" { print "route", $2 "/" $8, $1 }' /proc/net/route 2>/dev/null
fi
if test -d /run/systemd/system; then
    echo "systemd yes"
    echo "docker-at-boot $(systemctl is-enabled docker.service 2>/dev/null)"
    case "$(systemctl show -p LoadState -p After docker.service 2>/dev/null)" in
        *network-online.target*) echo "docker-waits yes" ;;
        *LoadState=loaded*) echo "docker-waits no" ;;
    esac
fi
true
"""


def _socket(text: str) -> tuple[str, int]:
    """Read an address of /proc/net/tcp: `0100007F:1F90` is 127.0.0.1 and 8080."""
    digits, _, port = text.partition(":")
    # The kernel prints words of four bytes in the machine's byte order, which is little-endian on x86_64 and aarch64.
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(port, 16)


def _address(text: str) -> str:
    """Read an address as the kernel's tables have it: with dots, or all digits of IPv6."""
    return text if "." in text else str(ipaddress.IPv6Address(bytes.fromhex(text)))


def _network(text: str) -> ipaddress.IPv4Network:
    """Read a route as `ip` writes it, or as /proc/net/route does: `0000A8C0/0000FFFF` is 192.168.0.0/16."""
    if "." not in text:
        text = "/".join(str(ipaddress.IPv4Address(bytes.fromhex(each)[::-1])) for each in text.split("/"))
    return ipaddress.IPv4Network(text, strict=False)


@dataclass(frozen=True)
class EnvironmentAsked:
    """An environment, with answers that several checks need: each question is asked once, when first needed."""

    workspace: Workspace
    environment: Environment
    host: str
    """The engine's address."""
    seconds: float
    open: contextlib.ExitStack
    parts: Once[Sequence[ServiceSpec]] = field(init=False)
    engine: Once[EngineAnswers] = field(init=False)
    facts: Once[HostFacts] = field(init=False)
    secrets: Once[Mapping[str, SecretInput]] = field(init=False)
    unreachable: Once[Mapping[str, Sequence[str]]] = field(init=False)
    """Registry that does not answer -> names of the images that come from it."""

    def __post_init__(self) -> None:
        """Prepare the questions that several checks ask."""
        for name, ask in {
            "parts": lambda: specs(self.environment),
            "engine": self._engine,
            "facts": self._facts,
            "secrets": lambda: configured_secrets(self.workspace),
            "unreachable": lambda: registries.unreachable(
                {name: each.reference for name, each in IMAGES.items()}, self.engine().info
            ),
        }.items():
            object.__setattr__(self, name, Once(ask))

    @property
    def elsewhere(self) -> bool:
        """Whether the engine is not on this machine."""
        return not self.host.startswith("unix://")

    def _engine(self) -> EngineAnswers:
        try:
            info = engine_at(self.host, cache=self.workspace.cache)
            client = connect(self.host, timeout=self.seconds)
        except EngineError as error:
            raise UnavailableError(f"no engine answers at {self.host}: {error}") from None
        self.open.callback(client.close)
        return EngineAnswers(client, info, client.info())

    def _facts(self) -> HostFacts:
        root, said = "/var/lib", dict[str, Any]()
        with contextlib.suppress(UnavailableError):
            root, said = self.engine().info.data_root or root, dict(self.engine().limits)
        return HostFacts.parse(self.shell(disk_room.script(said, root) + mtu.SCRIPT + ipv6.SCRIPT + _FACTS))

    def shell(self, script: str) -> str:
        """Run a script on the engine's host, and return what it prints."""
        done = self.run("sh", given=script)
        if done.returncode:
            raise UnavailableError(f"the host does not answer: {last_of(done.stderr)}")
        return done.stdout

    def run(self, *words: str, given: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the engine's host. given: its standard input. Raises UnavailableError if it cannot run."""
        if self.host.startswith("tcp://"):
            raise UnavailableError(f"{self.host} leads to its engine alone, not to its host")
        command = [*ssh.command(self.host), shlex.join(words)] if self.elsewhere else list(words)
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=self.seconds, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{words[0]} does not run on that host: {error}") from None
        if done.returncode in (_NO_PROGRAM, *((_SSH_FAILED,) if self.elsewhere else ())):
            raise UnavailableError(f"{words[0]} does not run on that host: {last_of(done.stderr)}")
        return done

    def secret(self, name: str) -> str:
        """Return the value of a configured secret."""
        return self.secrets()[name].value

    def fact(self, name: str) -> str:
        """Return one fact of the host, by its name. Raises UnavailableError where the host does not know it."""
        value = self.facts().values.get(name, "")
        if not value:
            raise UnavailableError("the host does not say")
        return value


def last_of(said: str) -> str:
    """Return the end of what a program said, in one line."""
    return " ".join(said.split())[-300:]


def configured_secrets(workspace: Workspace) -> Mapping[str, SecretInput]:
    """Return the configured secrets in plain text, as Pulumi decrypts them."""
    return secrets_of(workspace.open().configuration())


def secrets_of(config: Mapping[str, Mapping[str, Any]]) -> Mapping[str, SecretInput]:
    """Return the configured secrets by name. config: the answer of `PulumiRun.configuration`."""
    own = {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items()}
    return {
        name: SecretInput(str(given.get("value", "")), encrypted=bool(given.get("secret")))
        for name, given in own.items()
        if (name in CONFIGURED_SECRETS or re.fullmatch(VARIABLE, name)) and given.get("value")
    }


def own_containers(asked: EnvironmentAsked) -> list[Mapping[str, Any]]:
    """Return the environment's own containers, also those that do not run."""
    name = asked.environment.name
    found = asked.engine().client.api.containers(filters={"label": f"{ENVIRONMENT_LABEL}={name}"})
    return list(found)
