"""The engine and its host: memory, cores, disk, ports, clock and kernel."""

from __future__ import annotations

import contextlib

from host.daemon import refuse_unless_startable
from host.errors import EngineError
from operations.checks.doctor import disk_room
from operations.checks.doctor.asked import EnvironmentAsked, HostFacts, own_containers
from operations.errors import FailedError, UnavailableError
from operations.lifecycle import in_the_way
from stack.parts.logs import spec as logs
from stack.settings.environment import Environment
from stack.settings.keys import key_of

_OLDEST_ENGINE = (20, 10)
_MIB = 2**20
_IMAGES_MIB = 4096
"""All images of a stack, the team's own among them, with room for a second version."""
_LOG_MIB = 30
"""Log of one container: three files of 10 MiB."""
_OVERCOMMIT_NEVER = "2"


def judge_engine(asked: EnvironmentAsked) -> str:
    """Judge the engine: whether it answers, is new enough, and can hold a container to its limits."""
    try:
        engine = asked.engine()
    except UnavailableError as error:
        if asked.elsewhere:
            raise FailedError(str(error)) from None
        try:
            refuse_unless_startable(asked.host, reason=str(error))
        except EngineError as refused:
            raise FailedError(str(refused)) from None
        raise UnavailableError(f"{error}; `{asked.workspace.typed('up')}` installs and starts one") from None
    version = engine.info.version
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST_ENGINE:
        raise FailedError(f"Docker Engine {version} is too old: {_OLDEST_ENGINE[0]}.{_OLDEST_ENGINE[1]} is the oldest")
    # Without these cgroup controllers the kernel enforces no limit of a container.
    lacking = [name for name, key in (("memory", "MemoryLimit"), ("CPU", "CpuCfsQuota")) if not engine.limits.get(key)]
    if lacking:
        raise FailedError(f"its kernel cannot limit {' and '.join(lacking)} of a container: enable these cgroups")
    if why := engine.info.other_users:
        raise FailedError(why)
    folder = engine.info.data_root or "a folder that it does not tell"
    return f"Docker Engine {version} at {asked.host}, data in {folder}, cgroup v{engine.info.cgroup_version}"


def judge_memory(asked: EnvironmentAsked) -> str:
    """Compare the limits of all parts with the host's memory and cores."""
    parts = asked.parts()
    info = asked.engine().info
    needed, there = sum(spec.settings.memory_mib for spec in parts), info.memory_bytes // _MIB
    if needed > there:
        raise FailedError(f"the limits of all parts are {needed} MiB, and the host has {there} MiB")
    if greedy := [spec.part for spec in parts if spec.settings.cpus > info.cpus]:
        raise FailedError(f"the host has {info.cpus} cores, and these want more: {', '.join(greedy)}")
    return f"{needed} of {there} MiB by the limits of all parts, {info.cpus} cores"


def judge_disk(asked: EnvironmentAsked) -> str:
    """Compare what may be needed with the room on the disks."""
    settings, root = asked.environment.settings, asked.engine().info.data_root
    needs = {"images": _IMAGES_MIB, "logs": _LOG_MIB * len(asked.parts())}
    needs["metrics"] = _mib(settings.prometheus.retention_size)
    if "logs" not in asked.environment.absent:
        needs["collected logs"] = _mib(settings.logs.retention_size) + settings.log_collector.buffer_mib
        # Beside PostgreSQL's log below, which has a line of its own.
        needs["left free by the collected logs"] = logs.FREE_MIB
    if asked.environment.physical_backups and not asked.environment.managed_database:
        needs["write-ahead log, when the backups fail"] = settings.backup.max_slot_wal_mib
    if own_containers(asked):
        del needs["images"]  # the engine has them already
    return disk_room.judge(asked.facts().values, root, needs)


def _mib(size: str) -> int:
    return int(size[:-2]) * {"MB": 1, "GB": 1024, "TB": 1024 * 1024}[size[-2:]]


def judge_ports(asked: EnvironmentAsked) -> str:
    """Find the containers and programs that hold a port which `up` publishes."""
    wanted = [(spec, each) for spec in asked.parts() for each in in_the_way.published(spec)]
    own = {str(each["Id"]) for each in own_containers(asked)}
    held = in_the_way.held_ports(asked.engine().client)
    problems, ours = [], 0
    for spec, publish in wanted:
        holders = [each for address, port, each in held if in_the_way.clashes(publish, address, port)]
        others = [str(each["Names"][0]).lstrip("/") for each in holders if str(each["Id"]) not in own]
        where = f"{publish.address}:{publish.host_port} ({spec.part})"
        if others:
            problems.append(f"{where} is held by the container {others[0]}")
        elif holders:
            ours += 1
        elif any(in_the_way.clashes(publish, address, port) for address, port in asked.facts().listening):
            problems.append(f"{where} is held by another program of the host: ss -ltnp 'sport = :{publish.host_port}'")
        elif any(in_the_way.clashes(publish, address, port, dual=True) for address, port in asked.facts().listening):
            # The kernel's table does not say whether a socket on `::` has the port of IPv4 too.
            problems.append(
                f"{where} may be held by another program of the host, which listens on [::]: `ss -ltnpe 'sport = "
                f":{publish.host_port}'` says v6only:0 where it has IPv4's port too; v6only:1 is no obstacle to `up`"
            )
    if problems:
        raise FailedError("; ".join(problems))
    if not asked.facts().values.get("sockets"):
        raise UnavailableError("no container has them; which other programs listen cannot be seen on this host")
    return f"{len(wanted)} ports are free" + (f", {ours} of them held by this environment itself" if ours else "")


def judge_clock(asked: EnvironmentAsked) -> str:
    """Judge whether the host's clock is synchronised."""
    # The check of the engine reports an engine that does not answer; the host's clock can be checked without one.
    with contextlib.suppress(UnavailableError):
        if said := asked.engine().info.clocks_differ:
            raise FailedError(said)
    synchronised = asked.facts().values.get("synchronised")
    if synchronised == "no":
        raise FailedError(
            "it is not synchronised, and alerts, certificates and moments to restore go by it: timedatectl set-ntp true"
        )
    if synchronised != "yes":
        raise UnavailableError("no systemd there that says whether it is synchronised")
    return "synchronised"


def judge_kernel_of_host(asked: EnvironmentAsked) -> str:
    """Ask the host for its kernel's settings, and judge them."""
    return judge_kernel(asked.environment, asked.facts())


def judge_kernel(environment: Environment, facts: HostFacts) -> str:
    """Check the kernel's settings that can keep a part from running.

    Raises FailedError, and UnavailableError where the host does not say.
    """
    if not facts.values.get("vm/overcommit_memory"):
        raise UnavailableError("the host does not say")
    problems = []
    if facts.values["vm/overcommit_memory"] == _OVERCOMMIT_NEVER:
        problems.append(
            "vm.overcommit_memory is 2: Redis cannot fork to write its data, and Go programs do not start; "
            "sysctl -w vm.overcommit_memory=1"
        )
    if facts.values.get("net/ipv4/ip_forward") == "0":
        problems.append(
            "net.ipv4.ip_forward is 0: no container has a way out, nor is a published port reached from outside; "
            "sysctl -w net.ipv4.ip_forward=1"
        )
    if environment.settings.cadvisor.kernel_log and "kmsg" not in facts.values:
        problems.append(f"there is no /dev/kmsg: set {key_of('cadvisor', 'kernel_log')}: false")
    if problems:
        raise FailedError("; ".join(problems))
    overcommit = facts.values["vm/overcommit_memory"]
    return f"vm.overcommit_memory {overcommit} (Redis can fork), packets are forwarded, the kernel's log is there"
