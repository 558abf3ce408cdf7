"""What the checks of `doctor` ask: an environment, its engine, and the engine's host."""

from __future__ import annotations

import contextlib
import ipaddress
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from stack.common.names import ENVIRONMENT_LABEL, PROJECT
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


@dataclass(frozen=True)
class HostFacts:
    """What the engine's host says of itself; empty values where it does not know."""

    values: Mapping[str, str]
    listening: Sequence[tuple[str, int]]
    """Address and port of each TCP socket that a program listens on."""

    @classmethod
    def parse(cls, text: str) -> HostFacts:
        """Read what `_FACTS` prints."""
        lines = [line.split() for line in text.splitlines()]
        values = {words[0]: words[1] for words in lines if len(words) == 2 and words[0] != "listens"}  # noqa: PLR2004
        return cls(values, [_socket(words[1]) for words in lines if words[:1] == ["listens"]])


# Facts that the scripts for disk room, MTU and IPv6 do not collect. Every user may read /proc/net/tcp, and no program
# such as `ss` has to be installed.
_FACTS = """\
for name in vm/overcommit_memory net/ipv4/ip_forward; do
    test -r /proc/sys/$name && echo "$name $(cat /proc/sys/$name)"
done
test -e /dev/kmsg && echo "kmsg yes"
test -r /proc/net/tcp && echo "sockets yes"
echo "synchronised $(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
awk '$4 == "0A" { print "listens", $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
true
"""


def _socket(text: str) -> tuple[str, int]:
    """Read an address of /proc/net/tcp: `0100007F:1F90` is 127.0.0.1 and 8080."""
    digits, _, port = text.partition(":")
    # The kernel prints words of four bytes in the machine's byte order, which is little-endian on x86_64 and aarch64.
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(port, 16)


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
        if name in CONFIGURED_SECRETS and given.get("value")
    }


def own_containers(asked: EnvironmentAsked) -> list[Mapping[str, Any]]:
    """Return the environment's own containers, also those that do not run."""
    name = asked.environment.name
    found = asked.engine().client.api.containers(filters={"label": f"{ENVIRONMENT_LABEL}={name}"})
    return list(found)
