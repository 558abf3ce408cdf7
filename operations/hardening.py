"""The hardening gate: what the CIS Docker Benchmark (1.6, sections 4 and 5) asks of an image and of a container.

Numbers are the benchmark's, words and checks are ours. A rule looks at `Facts`, so it judges a container that runs, one
that the program has only registered, and one of a preview alike. What breaks a rule on purpose stands in
`hardening.yaml`, with a reason and an expiry date, and nowhere else.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from host.progress import Reporter
from operations.errors import ProjectError
from operations.facts import Facts, Mount, found
from stack.names import NO_NEW_PRIVILEGES
from stack.settings import PROJECT

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from operations.workspace.known import Known

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "hardening.yaml"

_PRIVILEGED_PORTS = 1024
_SSH_PORT = 22
_SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/run", "/sys", "/usr", "/var/lib", "/var/run")
_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd", "/run/docker")
_PINNED = re.compile(r"sha256:[0-9a-f]{64}|[^@]+@sha256:[0-9a-f]{64}")
# By its sources' digest: nobody but this clone makes it, and another content has another tag.
_BUILT_HERE = re.compile(rf"{PROJECT}-[a-z-]+:[0-9a-f]{{16}}")
_SECRET_NAME = re.compile(r"PASSW|SECRET|TOKEN(?!S)|CREDENTIAL|(API|ACCESS|PRIVATE|ENCRYPTION)_?KEY", re.IGNORECASE)
_NO_VALUE = re.compile(r"_FILE$|_PATH$|_USER(NAME)?$", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_SECRET_OPTION = re.compile(r"--?(?:[a-z-]*-)?(?:password|passwd|secret|token)=(?!/)\S+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A container, and what only a running one has."""

    facts: Facts
    apparmor: str = ""
    """Profile that the engine gave it."""
    engine: frozenset[str] = frozenset()
    """What the engine can confine with: `apparmor`, `selinux`, `seccomp`. Empty: not known, as in a preview."""
    processes: tuple[str, ...] = ()
    sessions: tuple[tuple[str, bool], ...] = ()
    """Of each `docker exec` that is going on: its user and whether it is privileged."""


Judge = Callable[[Seen], Iterator[tuple[str, str]]]


@dataclass(frozen=True)
class Rule:
    """One rule. `judge` yields what breaks it, in a word that an exception can name, and the sentence for a person."""

    number: str
    title: str
    judge: Judge


RULES: dict[str, Rule] = {}


def _rule(number: str, title: str) -> Callable[[Judge], Judge]:
    def register(judge: Judge) -> Judge:
        RULES[number] = Rule(number, title, judge)
        return judge

    return register


@_rule("4.1", "It runs as a user of its own, by number, and not as root")
def _user(seen: Seen) -> Iterator[tuple[str, str]]:
    user = seen.facts.user.partition(":")[0]
    if user in ("", "0", "root"):
        yield "root", f"runs as root ({seen.facts.user or 'no user is set'})"
    elif not user.isdigit():
        yield user, f"runs as {user}: a name means what the image's /etc/passwd says, a number cannot be changed there"


@_rule("4.2", "Its image is one content and no other: by digest, by id, or built here from its sources' digest")
def _image(seen: Seen) -> Iterator[tuple[str, str]]:
    image = seen.facts.image
    if not (_PINNED.fullmatch(image) or _BUILT_HERE.fullmatch(image)):
        yield image, f"runs {image}, behind which there may be another content tomorrow"


@_rule("4.6", "A health check is set")
def _health(seen: Seen) -> Iterator[tuple[str, str]]:
    if not seen.facts.health:
        yield "health check", "has no health check"


@_rule("4.10", "No secret's value is in a variable, a label or a command: everybody who may ask the engine reads those")
def _secrets(seen: Seen) -> Iterator[tuple[str, str]]:
    facts = seen.facts
    for kind, values in (("variable", facts.environment), ("label", facts.labels)):
        for name, value in values.items():
            named = _SECRET_NAME.search(name) and not _NO_VALUE.search(name) and value and not value.startswith("/")
            if named or _PASSWORD_IN_URL.search(value):
                yield name, f"has what looks like a secret in the {kind} {name}"
    words = (*facts.entrypoint, *facts.command, *facts.health.get("test", ()))
    if any(_PASSWORD_IN_URL.search(word) or _SECRET_OPTION.search(word) for word in words):
        yield "command", "has what looks like a secret in its command, entrypoint or health check"


@_rule("5.2", "AppArmor confines it, where the engine has it")
def _apparmor(seen: Seen) -> Iterator[tuple[str, str]]:
    if "apparmor=unconfined" in seen.facts.security_options or (
        "apparmor" in seen.engine and seen.apparmor in ("", "unconfined")
    ):
        yield "apparmor", "is not confined by AppArmor"


@_rule("5.3", "SELinux confines it, where the engine has it")
def _selinux(seen: Seen) -> Iterator[tuple[str, str]]:
    if "label=disable" in seen.facts.security_options:
        yield "selinux", "is not confined by SELinux"


@_rule("5.4", "It has dropped every capability, and got none back")
def _capabilities(seen: Seen) -> Iterator[tuple[str, str]]:
    if seen.facts.capabilities_dropped != ("ALL",):
        yield "ALL", "has not dropped all capabilities"
    for name in seen.facts.capabilities_added:
        yield name, f"has the capability {name}"


@_rule("5.5", "It is not privileged")
def _privileged(seen: Seen) -> Iterator[tuple[str, str]]:
    if seen.facts.privileged:
        yield "privileged", "is privileged: root in it is root on the host"


@_rule("5.6", "No folder of the host's system is mounted in it")
def _folders(seen: Seen) -> Iterator[tuple[str, str]]:
    for mount in seen.facts.mounts.values():
        if not mount.source.startswith("/"):
            continue  # a volume
        source = mount.source.rstrip("/") or "/"
        if any(source == each or (each != "/" and source.startswith(f"{each}/")) for each in _SENSITIVE):
            may = "may read" if mount.read_only else "may write"
            yield _mounted(source, mount), f"{may} {source} of the host"


@_rule("5.7", "No SSH server is in it")
def _ssh(seen: Seen) -> Iterator[tuple[str, str]]:
    words = (*seen.facts.entrypoint, *seen.facts.command, *seen.processes)
    if any(re.search(r"(^|[/\s])(sshd|dropbear)(\s|:|$)", word) for word in words) or f"{_SSH_PORT}/tcp" in (
        seen.facts.ports
    ):
        yield "ssh", "has an SSH server"


@_rule("5.8", "No port below 1024 of the host is its")
def _privileged_ports(seen: Seen) -> Iterator[tuple[str, str]]:
    for address in _addresses(seen.facts):
        port = address.rpartition(":")[2]
        if port.isdigit() and int(port) < _PRIVILEGED_PORTS:
            yield port, f"is published on port {port} of the host"


@_rule("5.9", "Only the ports are published that somebody has named")
def _all_ports(seen: Seen) -> Iterator[tuple[str, str]]:
    if seen.facts.publish_all_ports:
        yield "all ports", "publishes every port that its image names"


@_rule("5.10", "It does not share the host's network")
def _network(seen: Seen) -> Iterator[tuple[str, str]]:
    yield from _shared("network", seen.facts.network_mode)


@_rule("5.11", "Its memory is limited, without swap above the limit")
def _memory(seen: Seen) -> Iterator[tuple[str, str]]:
    facts = seen.facts
    if facts.memory <= 0:
        yield "memory", "may take all the memory of the host"
    elif facts.memory_swap != facts.memory:
        yield "swap", "may swap, which makes all of the host slow before its limit ends it"


@_rule("5.12", "Its share of the CPU is limited")
def _cpu(seen: Seen) -> Iterator[tuple[str, str]]:
    if not (seen.facts.cpus > 0 or seen.facts.cpu_quota > 0):
        yield "cpu", "may take every core of the host"


@_rule("5.13", "Its root is read-only, and what it may write in memory is bounded and runs nothing")
def _root(seen: Seen) -> Iterator[tuple[str, str]]:
    if not seen.facts.read_only:
        yield "root", "can change its own programs: its root is writable"
    for path, options in seen.facts.tmpfs.items():
        if not {"noexec", "nosuid", "nodev"} <= set(options.split(",")) or "size=" not in options:
            yield path, f"has {path} in memory without noexec, nosuid, nodev and a size"


@_rule("5.14", "What it publishes, it publishes on loopback")
def _interfaces(seen: Seen) -> Iterator[tuple[str, str]]:
    for address in _addresses(seen.facts):
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        # A port that is on all of both is an exception of its own: on `::` alone each client has one address.
        both = host == "::" and f"0.0.0.0:{port}" in _addresses(seen.facts)
        if not _is_loopback(host):
            what = f"{address} beside 0.0.0.0" if both else address
            yield what, f"is published on {host or 'every address'} of the host, around its firewall"


@_rule("5.15", "It is restarted after a failure, five times at the most")
def _restart(seen: Seen) -> Iterator[tuple[str, str]]:
    name, _, times = seen.facts.restart.partition(":")
    if name != "on-failure" or not 0 < int(times or 0) <= 5:  # noqa: PLR2004 - the rule's own number
        yield name, f"is restarted {seen.facts.restart!r}"


@_rule("5.16", "It does not share the host's processes")
def _pid(seen: Seen) -> Iterator[tuple[str, str]]:
    yield from _shared("pid", seen.facts.pid_mode)


@_rule("5.17", "It does not share the host's memory segments and queues")
def _ipc(seen: Seen) -> Iterator[tuple[str, str]]:
    yield from _shared("ipc", seen.facts.ipc_mode)


@_rule("5.18", "No device of the host is in it")
def _devices(seen: Seen) -> Iterator[tuple[str, str]]:
    for path, how in seen.facts.devices.items():
        may = how.rpartition(" ")[2]
        yield f"{path} {may}", f"has the device {path} ({may})"


@_rule("5.19", "Its open files and processes are limited")
def _ulimits(seen: Seen) -> Iterator[tuple[str, str]]:
    for name in ("nofile", "nproc"):
        soft, _, hard = seen.facts.ulimits.get(name, "0:0").partition(":")
        if not 0 < int(soft) == int(hard):
            yield name, f"has no limit {name}, or a soft one that it can raise itself"


@_rule("5.20", "What it mounts does not become a mount of the host")
def _propagation(seen: Seen) -> Iterator[tuple[str, str]]:
    for path, mount in seen.facts.mounts.items():
        if mount.propagation in ("shared", "rshared"):
            yield path, f"shares its mounts below {path} with the host"


@_rule("5.21", "It does not share the host's name")
def _uts(seen: Seen) -> Iterator[tuple[str, str]]:
    yield from _shared("uts", seen.facts.uts_mode)


@_rule("5.22", "seccomp filters its system calls")
def _seccomp(seen: Seen) -> Iterator[tuple[str, str]]:
    if "seccomp=unconfined" in seen.facts.security_options:
        yield "seccomp", "may make every system call"
    elif seen.engine and "seccomp" not in seen.engine:
        yield "engine", "may make every system call: the engine has no seccomp"


@_rule("5.23", "Nobody is in it with a privileged `docker exec`")
def _privileged_sessions(seen: Seen) -> Iterator[tuple[str, str]]:
    if any(privileged for _, privileged in seen.sessions):
        yield "exec", "has a privileged `docker exec` going on"


@_rule("5.24", "Nobody is in it as root by `docker exec --user root`")
def _root_sessions(seen: Seen) -> Iterator[tuple[str, str]]:
    if any(user.partition(":")[0] in ("0", "root") for user, _ in seen.sessions):
        yield "exec", "has a `docker exec` of root going on"


@_rule("5.25", "It is in the control group that the engine made for it")
def _cgroup(seen: Seen) -> Iterator[tuple[str, str]]:
    if seen.facts.cgroup_parent:
        yield seen.facts.cgroup_parent, f"is in the control group {seen.facts.cgroup_parent}, past the engine's limits"


@_rule("5.26", "Nothing in it can gain privileges")
def _privileges(seen: Seen) -> Iterator[tuple[str, str]]:
    if NO_NEW_PRIVILEGES not in seen.facts.security_options:
        yield "no-new-privileges", "can make root out of its user by a setuid program"


_rule("5.27", "Its health is checked while it runs")(_health)


@_rule("5.29", "The number of its processes is limited")
def _pids(seen: Seen) -> Iterator[tuple[str, str]]:
    if seen.facts.pids_limit <= 0:
        yield "pids", "has no limit of processes of its own"


@_rule("5.30", "It is not on the engine's default network, where every other container is")
def _default_network(seen: Seen) -> Iterator[tuple[str, str]]:
    if "bridge" in seen.facts.networks:
        yield "bridge", "is on the engine's default network"


@_rule("5.31", "It does not leave the engine's user namespace")
def _userns(seen: Seen) -> Iterator[tuple[str, str]]:
    yield from _shared("user", seen.facts.userns_mode)


@_rule("5.32", "The engine's socket is not in it")
def _socket(seen: Seen) -> Iterator[tuple[str, str]]:
    for mount in seen.facts.mounts.values():
        below = mount.source.rstrip("/") + "/"
        if mount.source.startswith("/") and any(
            f"{socket}/".startswith(below) or below.startswith(f"{socket}/") for socket in _SOCKETS
        ):
            yield _mounted(mount.source, mount), f"reaches the engine's socket by {mount.source}"


def _mounted(source: str, mount: Mount) -> str:
    """Name a mount so that an exception for reading is none for writing."""
    return source if mount.read_only else f"{source} writable"


def _shared(namespace: str, mode: str) -> Iterator[tuple[str, str]]:
    if mode == "host":
        yield namespace, f"shares the {namespace} namespace of the host"
    elif mode.startswith("container:"):
        yield namespace, f"shares the {namespace} namespace of another container"


def _addresses(facts: Facts) -> list[str]:
    return [address for addresses in facts.ports.values() for address in addresses]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A rule that a part breaks."""

    part: str
    rule: str
    what: str
    says: str

    def as_json(self) -> dict[str, str]:
        """Return it with the keys of `samokoder hardening --json`."""
        return asdict(self)


class Allowed(BaseModel):
    """An exception: what may break a rule, why, and until when somebody has to think about it anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: str = Field(min_length=1)
    """Name of a part, or a pattern of names: `api-*`."""
    rule: str
    what: str = Field(min_length=1)
    """The word that the rule says, or a pattern of it."""
    reason: str = Field(min_length=20)
    expires: date
    only: str = ""
    """With which settings there is something to except, where that is not always so."""

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"there is no rule {rule!r}; there are {', '.join(RULES)}")
        return rule

    def allows(self, broken: Broken) -> bool:
        """Whether it is about this."""
        return self.rule == broken.rule and fnmatchcase(broken.part, self.part) and fnmatchcase(broken.what, self.what)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of an environment."""

    parts: int
    findings: list[Broken]
    """What is in no list, and what is wrong with the list."""
    listed: list[Broken]

    def as_json(self) -> dict[str, Any]:
        """Return it as `samokoder hardening --json` prints it."""
        return {
            "parts": self.parts,
            "rules": len(RULES),
            "findings": [each.as_json() for each in self.findings],
            "listed": [each.as_json() for each in self.listed],
        }


def exceptions(file: Path = LIST) -> list[Allowed]:
    """Read the list. Raises ProjectError with every mistake in it."""
    try:
        return TypeAdapter(list[Allowed]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")) or [])
    except (OSError, yaml.YAMLError) as error:
        raise ProjectError(f"{file.name} cannot be read: {error}") from None
    except ValidationError as error:
        mistakes = (
            f"entry {place[0] + 1}{''.join(f', {key}' for key in place[1:])}: {mistake['msg']}"
            if isinstance(place[0], int)
            else mistake["msg"]
            for mistake in error.errors()
            for place in [mistake["loc"] or ("list",)]
        )
        raise ProjectError(f"{file.name}: {'; '.join(mistakes)}") from None


def broken(seen: Seen) -> list[Broken]:
    """Return every rule that a container breaks, whether that is listed or not."""
    return [each for rule in RULES.values() for each in of_rule(rule, seen)]


def of_rule(rule: Rule, seen: Seen) -> list[Broken]:
    """Return in which ways a container breaks one rule."""
    return [Broken(part=seen.facts.part, rule=rule.number, what=what, says=says) for what, says in rule.judge(seen)]


def gate(there: Known) -> Verdict:
    """Judge what runs of an environment. Raises ProjectError where nothing does, or for a list that cannot be read."""
    from operations.engine.containers import of_environment  # noqa: PLC0415 - the policy pack has the rules without an engine

    allowed = exceptions()
    client = there.client()
    try:
        running = of_environment(client, there.name)
        if not running:
            raise ProjectError(f"{there.name} is not up: {there.workspace.typed('up')}")
        return judge(look(client, running, there.workspace.reporter), allowed, datetime.now(UTC).date())
    finally:
        client.close()


def judge(containers: Iterable[Seen], allowed: Sequence[Allowed], today: date) -> Verdict:
    """Hold containers against the rules and the list.

    An exception that has expired is a finding. So is one that nothing needs any more, unless its part is not there or
    its `only` says that it depends on the settings.
    """
    parts: list[str] = []
    findings: list[Broken] = []
    listed: list[Broken] = []
    used: set[Allowed] = set()
    for seen in containers:
        parts.append(seen.facts.part)
        for each in broken(seen):
            matching = [exception for exception in allowed if exception.allows(each)]
            used.update(matching)
            (listed if matching else findings).append(each)
    findings += [*_of_list(allowed, used, parts, today)]
    return Verdict(parts=len(parts), findings=findings, listed=listed)


def _of_list(
    allowed: Iterable[Allowed], used: Collection[Allowed], parts: Collection[str], today: date
) -> Iterator[Broken]:
    for exception in allowed:
        about = {"part": exception.part, "rule": exception.rule, "what": exception.what}
        if exception.expires < today:
            yield Broken(
                **about,
                says=f"its exception has expired on {exception.expires}: do without it, or give it a new date",
            )
        concerned = any(fnmatchcase(part, exception.part) for part in parts)
        if concerned and not exception.only and exception not in used:
            yield Broken(**about, says=f"its exception is not needed any more: remove it from {LIST.name}")


def look(client: docker.DockerClient, containers: Sequence[Container], reporter: Reporter) -> list[Seen]:
    """Ask the engine about containers: each one, its image, its processes and who is in it."""
    options = client.info().get("SecurityOptions") or []
    engine = frozenset(option.partition("name=")[2].partition(",")[0] for option in options)
    seen = []
    with reporter.task("Asking the engine") as task:
        for container in containers:
            task.detail = str(container.name)
            attributes = container.attrs
            image = client.images.get(attributes["Image"]).attrs.get("Config") or {}
            seen.append(
                Seen(
                    facts=found(attributes, image),
                    apparmor=str(attributes.get("AppArmorProfile") or ""),
                    engine=engine,
                    processes=tuple(_processes(container)),
                    sessions=tuple(_sessions(client, attributes.get("ExecIDs") or ())),
                )
            )
    return seen


def _processes(container: Container) -> Iterator[str]:
    import docker.errors  # noqa: PLC0415 - as above

    with contextlib.suppress(docker.errors.APIError):  # it does not run
        yield from (str(row[-1]) for row in container.top()["Processes"] or ())


def _sessions(client: docker.DockerClient, ids: Iterable[str]) -> Iterator[tuple[str, bool]]:
    import docker.errors  # noqa: PLC0415 - as above

    for each in ids:
        with contextlib.suppress(docker.errors.APIError):  # it has just ended, as a health check does
            session = client.api.exec_inspect(each)
            if session.get("Running"):
                process = session.get("ProcessConfig") or {}
                yield str(process.get("user") or ""), bool(process.get("privileged"))
