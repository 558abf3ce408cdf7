"""The rules of the hardening gate: the CIS Docker Benchmark (1.6, sections 4 and 5) on an image and a container.

Numbers are the benchmark's, words and checks are ours. A rule reads `ContainerFacts`, so it judges a container that
runs, one that the program has only registered, and one of a preview alike.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from operations.audit.facts import ContainerFacts, Mount
from stack.common.names import NO_NEW_PRIVILEGES, PROJECT

_PRIVILEGED_PORTS = 1024
_SSH_PORT = 22
_SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/run", "/sys", "/usr", "/var/lib", "/var/run")
_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd", "/run/docker")
_PINNED = re.compile(r"sha256:[0-9a-f]{64}|[^@]+@sha256:[0-9a-f]{64}")
# The tag is the digest of the sources: only this clone makes such an image, and other content gets another tag.
_BUILT_HERE = re.compile(rf"{PROJECT}-[a-z-]+:[0-9a-f]{{16}}")
_SECRET_NAME = re.compile(r"PASSW|SECRET|TOKEN(?!S)|CREDENTIAL|(API|ACCESS|PRIVATE|ENCRYPTION)_?KEY", re.IGNORECASE)
_NO_VALUE = re.compile(r"_FILE$|_PATH$|_USER(NAME)?$", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_SECRET_OPTION = re.compile(r"--?(?:[a-z-]*-)?(?:password|passwd|secret|token)=(?!/)\S+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A container, and what only a running one has."""

    facts: ContainerFacts
    apparmor: str = ""
    """Profile that the engine gave it."""
    engine: frozenset[str] = frozenset()
    """What the engine can confine with: `apparmor`, `selinux`, `seccomp`. Empty: not known, as in a preview."""
    processes: tuple[str, ...] = ()
    sessions: tuple[tuple[str, bool], ...] = ()
    """For each `docker exec` that runs: its user, and whether it is privileged."""


Judge = Callable[[Seen], Iterator[tuple[str, str]]]


@dataclass(frozen=True)
class Rule:
    """One rule. `judge` yields each fault as a word that an exception can name, and a sentence for a person."""

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
        # A port on both has another word for exceptions than one on `::` alone, where every client seems to have the
        # network's own address.
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
    """Name a mount so that an exception for a read-only mount does not cover a writable one."""
    return source if mount.read_only else f"{source} writable"


def _shared(namespace: str, mode: str) -> Iterator[tuple[str, str]]:
    if mode == "host":
        yield namespace, f"shares the {namespace} namespace of the host"
    elif mode.startswith("container:"):
        yield namespace, f"shares the {namespace} namespace of another container"


def _addresses(facts: ContainerFacts) -> list[str]:
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


def broken(seen: Seen) -> list[Broken]:
    """Return every rule that a container breaks, whether that is listed or not."""
    return [each for rule in RULES.values() for each in of_rule(rule, seen)]


def of_rule(rule: Rule, seen: Seen) -> list[Broken]:
    """Return how a container breaks one rule; empty: it does not."""
    return [Broken(part=seen.facts.part, rule=rule.number, what=what, says=says) for what, says in rule.judge(seen)]
