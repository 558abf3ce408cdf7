"""A container in one form, whether it is declared to Pulumi or found on the engine.

`declared` reads the inputs of a container resource: as the program registers them, or as Pulumi's state keeps them.
`found` reads the engine's answer about a container. The hardening gate judges either; drift is where the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stack.common.names import CARRIER_ENTRYPOINT, NO_NEW_PRIVILEGES, PART_LABEL

_MIB = 2**20
_NANO = 1_000_000_000
_SHM_MIB = 64
_STOP_SIGNAL = "SIGTERM"
_BRIDGE = "bridge"
_IPC = "private"
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = 12


@dataclass(frozen=True, kw_only=True)
class Mount:
    """What is mounted at a path: a volume by its name, or a path of the host."""

    source: str
    read_only: bool
    propagation: str = field(default="", compare=False)
    """Propagation that the engine was given or chose; it is not compared, as the choice depends on the host."""


@dataclass(frozen=True, kw_only=True)
class ContainerFacts:
    """One container. Memory in bytes, CPUs in cores, times in seconds; values whose order matters keep it."""

    name: str
    part: str
    """Part that the container's label names; the container's name where it has no such label."""
    image: str
    """As it was asked for: a reference or an id."""
    image_id: str
    """Empty where it cannot be known."""
    user: str
    hostname: str
    working_dir: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    networks: Mapping[str, tuple[str, ...]]
    """Network -> aliases of the container in it."""
    ports: Mapping[str, tuple[str, ...]]
    """`8080/tcp` -> addresses on the host."""
    publish_all_ports: bool
    mounts: Mapping[str, Mount]
    tmpfs: Mapping[str, str]
    devices: Mapping[str, str]
    """Path on the host -> path in the container and permissions."""
    read_only: bool
    privileged: bool
    capabilities_added: tuple[str, ...]
    capabilities_dropped: tuple[str, ...]
    security_options: tuple[str, ...]
    groups: tuple[str, ...]
    network_mode: str
    pid_mode: str
    ipc_mode: str
    uts_mode: str
    userns_mode: str
    cgroup_parent: str
    memory: int
    memory_swap: int
    memory_reservation: int
    cpus: float
    cpu_shares: int
    cpu_period: int
    cpu_quota: int
    cpuset: str
    pids_limit: int
    """0: none."""
    shm_size: int
    ulimits: Mapping[str, str]
    """Name -> `soft:hard`."""
    sysctls: Mapping[str, str]
    extra_hosts: tuple[str, ...]
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    init: bool
    restart: str
    log: Mapping[str, str]
    """`driver` and its options."""
    health: Mapping[str, Any]
    """`test` and its times; empty: there is no health check."""
    stop_signal: str
    stop_timeout: int | None

    @property
    def is_carrier(self) -> bool:
        """Whether it only holds a part's files and is never started (`stack.spec.files`)."""
        return self.entrypoint == (CARRIER_ENTRYPOINT,)


def declared(inputs: Mapping[str, Any], image: Mapping[str, Any], image_id: str = "") -> ContainerFacts:
    """Read the inputs of a `docker.Container`, all secrets in plain.

    image: the image's own configuration, as the engine gives it; empty where it is not known.
    """
    entrypoint, command = _words(inputs.get("entrypoints")), _words(inputs.get("command"))
    if not entrypoint:
        command = command or _words(image.get("Cmd"))
        entrypoint = _words(image.get("Entrypoint"))
    labels = dict(image.get("Labels") or {})
    labels |= {str(label["label"]): str(label["value"]) for label in inputs.get("labels") or ()}
    mode = str(inputs.get("networkMode") or _BRIDGE)
    networks = {
        str(network["name"]): _sorted(network.get("aliases")) for network in inputs.get("networksAdvanced") or ()
    }
    capabilities = inputs.get("capabilities") or {}
    restart = str(inputs.get("restart") or "no")
    memory = _bytes(inputs.get("memory"))
    return ContainerFacts(
        name=str(inputs.get("name") or ""),
        part=labels.get(PART_LABEL, str(inputs.get("name") or "")),
        image=str(inputs["image"]),
        image_id=image_id,
        user=str(inputs.get("user") or image.get("User") or ""),
        hostname=str(inputs.get("hostname") or ""),
        working_dir=str(inputs.get("workingDir") or image.get("WorkingDir") or ""),
        entrypoint=entrypoint,
        command=command,
        environment=_environment(image.get("Env")) | _environment(inputs.get("envs")),
        labels=labels,
        networks=networks or {mode: ()},
        ports=_declared_ports(inputs.get("ports") or ()),
        publish_all_ports=bool(inputs.get("publishAllPorts")),
        mounts=_declared_mounts(inputs),
        tmpfs=dict(inputs.get("tmpfs") or {}),
        devices={
            str(device["hostPath"]): f"{device.get('containerPath') or device['hostPath']} "
            f"{device.get('permissions') or 'rwm'}"
            for device in inputs.get("devices") or ()
        },
        read_only=bool(inputs.get("readOnly")),
        privileged=bool(inputs.get("privileged")),
        capabilities_added=_capabilities(capabilities.get("adds")),
        capabilities_dropped=_capabilities(capabilities.get("drops")),
        security_options=_security(inputs.get("securityOpts")),
        groups=_sorted(inputs.get("groupAdds")),
        network_mode=mode,
        pid_mode=str(inputs.get("pidMode") or ""),
        ipc_mode=str(inputs.get("ipcMode") or _IPC),
        uts_mode="",  # the provider has no such argument
        userns_mode=str(inputs.get("usernsMode") or ""),
        cgroup_parent=str(inputs.get("cgroupParent") or ""),
        memory=memory,
        memory_swap=_bytes(inputs.get("memorySwap")) or 2 * memory,
        memory_reservation=_bytes(inputs.get("memoryReservation")),
        cpus=float(inputs.get("cpus") or 0),
        cpu_shares=int(inputs.get("cpuShares") or 0),
        cpu_period=int(inputs.get("cpuPeriod") or 0),
        cpu_quota=int(inputs.get("cpuQuota") or 0),
        cpuset=str(inputs.get("cpuSet") or ""),
        pids_limit=0,  # the provider has no such argument
        shm_size=_bytes(inputs.get("shmSize") or _SHM_MIB),
        ulimits={
            str(limit["name"]): f"{limit['soft']:.0f}:{limit['hard']:.0f}" for limit in inputs.get("ulimits") or ()
        },
        sysctls={key: str(value) for key, value in (inputs.get("sysctls") or {}).items()},
        extra_hosts=_sorted(f"{host['host']}:{host['ip']}" for host in inputs.get("hosts") or ()),
        dns=_words(inputs.get("dns")),
        dns_search=_words(inputs.get("dnsSearches")),
        init=bool(inputs.get("init")),
        restart=f"{restart}:{int(inputs.get('maxRetryCount') or 0)}" if restart == "on-failure" else restart,
        log={"driver": str(inputs.get("logDriver") or ""), **(inputs.get("logOpts") or {})},
        health=_declared_health(inputs.get("healthcheck")) or _found_health(image.get("Healthcheck")),
        stop_signal=str(inputs.get("stopSignal") or image.get("StopSignal") or _STOP_SIGNAL),
        stop_timeout=None if inputs.get("stopTimeout") is None else int(inputs["stopTimeout"]),
    )


def found(container: Mapping[str, Any], image: Mapping[str, Any]) -> ContainerFacts:
    """Read what the engine's inspection says of a container. image: its image's own configuration."""
    config, host = container["Config"], container["HostConfig"]
    name, labels = str(container["Name"]).lstrip("/"), dict(config.get("Labels") or {})
    restart = host.get("RestartPolicy") or {}
    policy = str(restart.get("Name") or "no")
    short = str(container["Id"])[:_SHORT_ID]
    hostname = str(config.get("Hostname") or "")
    networks = container["NetworkSettings"].get("Networks") or {}
    log = host.get("LogConfig") or {}
    return ContainerFacts(
        name=name,
        part=labels.get(PART_LABEL, name),
        image=str(config["Image"]),
        image_id=str(container["Image"]),
        user=str(config.get("User") or ""),
        # The engine takes the short id as host name where none was given.
        hostname="" if hostname == short else hostname,
        working_dir=str(config.get("WorkingDir") or ""),
        entrypoint=_words(config.get("Entrypoint")),
        command=_words(config.get("Cmd")),
        environment=_environment(config.get("Env")),
        labels=labels,
        networks={
            str(network): _sorted(alias for alias in (endpoint or {}).get("Aliases") or () if alias != short)
            for network, endpoint in networks.items()
        },
        ports={
            str(port): _sorted(f"{binding.get('HostIp', '')}:{binding.get('HostPort', '')}" for binding in bindings)
            for port, bindings in (host.get("PortBindings") or {}).items()
            if bindings
        },
        publish_all_ports=bool(host.get("PublishAllPorts")),
        mounts=_found_mounts(container.get("Mounts") or (), image.get("Volumes") or {}),
        tmpfs=dict(host.get("Tmpfs") or {}),
        devices={
            str(device["PathOnHost"]): f"{device['PathInContainer']} {device['CgroupPermissions']}"
            for device in host.get("Devices") or ()
        },
        read_only=bool(host.get("ReadonlyRootfs")),
        privileged=bool(host.get("Privileged")),
        capabilities_added=_capabilities(host.get("CapAdd")),
        capabilities_dropped=_capabilities(host.get("CapDrop")),
        security_options=_security(host.get("SecurityOpt")),
        groups=_sorted(host.get("GroupAdd")),
        network_mode=_BRIDGE if (mode := str(host.get("NetworkMode") or "")) in ("", "default") else mode,
        pid_mode=str(host.get("PidMode") or ""),
        ipc_mode=str(host.get("IpcMode") or _IPC),
        uts_mode=str(host.get("UTSMode") or ""),
        userns_mode=str(host.get("UsernsMode") or ""),
        cgroup_parent=str(host.get("CgroupParent") or ""),
        memory=int(host.get("Memory") or 0),
        memory_swap=int(host.get("MemorySwap") or 0),
        memory_reservation=int(host.get("MemoryReservation") or 0),
        cpus=int(host.get("NanoCpus") or 0) / _NANO,
        cpu_shares=int(host.get("CpuShares") or 0),
        cpu_period=int(host.get("CpuPeriod") or 0),
        cpu_quota=int(host.get("CpuQuota") or 0),
        cpuset=str(host.get("CpusetCpus") or ""),
        pids_limit=max(0, int(host.get("PidsLimit") or 0)),
        shm_size=int(host.get("ShmSize") or 0),
        ulimits={str(limit["Name"]): f"{limit['Soft']}:{limit['Hard']}" for limit in host.get("Ulimits") or ()},
        sysctls={key: str(value) for key, value in (host.get("Sysctls") or {}).items()},
        extra_hosts=_sorted(host.get("ExtraHosts")),
        dns=_words(host.get("Dns")),
        dns_search=_words(host.get("DnsSearch")),
        init=bool(host.get("Init")),
        restart=f"{policy}:{restart.get('MaximumRetryCount') or 0}" if policy == "on-failure" else policy,
        log={"driver": str(log.get("Type") or ""), **(log.get("Config") or {})},
        health=_found_health(config.get("Healthcheck")),
        stop_signal=str(config.get("StopSignal") or _STOP_SIGNAL),
        stop_timeout=config.get("StopTimeout"),
    )


def _words(words: Sequence[Any] | None) -> tuple[str, ...]:
    return tuple(str(word) for word in words or ())


def _sorted(words: Iterable[Any] | None) -> tuple[str, ...]:
    return tuple(sorted(str(word) for word in words or ()))


def _security(options: Iterable[Any] | None) -> tuple[str, ...]:
    """Return security options as `name=value`: the engine also takes `name:value`, and a bare `no-new-privileges`."""
    bare = NO_NEW_PRIVILEGES.partition("=")[0]
    named = (NO_NEW_PRIVILEGES if option == bare else str(option) for option in options or ())
    return _sorted(word if "=" in word else word.replace(":", "=", 1) for word in named)


def _bytes(mebibytes: Any) -> int:
    return int(float(mebibytes or 0) * _MIB) if float(mebibytes or 0) > 0 else int(mebibytes or 0)


def _environment(lines: Iterable[str] | None) -> dict[str, str]:
    return {name: value for name, _, value in (str(line).partition("=") for line in lines or ())}


def _capabilities(names: Iterable[str] | None) -> tuple[str, ...]:
    """Return capabilities as the engine writes them: with `CAP_`, except `ALL`."""
    upper = (str(name).upper() for name in names or ())
    return tuple(sorted(name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper))


def _declared_ports(ports: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for port in ports:
        key = f"{port['internal']:.0f}/{port.get('protocol') or 'tcp'}"
        outside = f"{port['external']:.0f}" if port.get("external") else ""
        found.setdefault(key, []).append(f"{port.get('ip') or ''}:{outside}")
    return {key: _sorted(addresses) for key, addresses in found.items()}


def _declared_mounts(inputs: Mapping[str, Any]) -> dict[str, Mount]:
    mounts = {
        str(volume["containerPath"]): Mount(
            source=str(volume.get("volumeName") or volume.get("hostPath") or ""), read_only=bool(volume.get("readOnly"))
        )
        for volume in inputs.get("volumes") or ()
    }
    return mounts | {
        str(mount["target"]): Mount(source=str(mount.get("source") or ""), read_only=bool(mount.get("readOnly")))
        for mount in inputs.get("mounts") or ()
        if mount.get("type") != "tmpfs"
    }


def _found_mounts(mounts: Iterable[Mapping[str, Any]], of_image: Mapping[str, Any]) -> dict[str, Mount]:
    found = {}
    for mount in mounts:
        path, name = str(mount["Destination"]), str(mount.get("Name") or "")
        if mount["Type"] == "tmpfs" or (path in of_image and _ANONYMOUS.fullmatch(name)):
            continue  # the engine makes a nameless volume where the image declares one and none is mounted
        found[path] = Mount(
            source=name or str(mount.get("Source") or ""),
            read_only=not mount["RW"],
            propagation=str(mount.get("Propagation") or ""),
        )
    return found


def _declared_health(check: Mapping[str, Any] | None) -> dict[str, Any]:
    if not check:
        return {}
    return {
        "test": _words(check.get("tests")),
        "interval": _seconds(check.get("interval")),
        "timeout": _seconds(check.get("timeout")),
        "start period": _seconds(check.get("startPeriod")),
        **_start_interval(_seconds(check.get("startInterval"))),
        "retries": int(check.get("retries") or 0),
    }


def _found_health(check: Mapping[str, Any] | None) -> dict[str, Any]:
    if not check or not check.get("Test") or check["Test"] == ["NONE"]:
        return {}
    return {
        "test": _words(check["Test"]),
        "interval": (check.get("Interval") or 0) / _NANO,
        "timeout": (check.get("Timeout") or 0) / _NANO,
        "start period": (check.get("StartPeriod") or 0) / _NANO,
        **_start_interval((check.get("StartInterval") or 0) / _NANO),
        "retries": check.get("Retries") or 0,
    }


def _start_interval(seconds: float) -> dict[str, float]:
    """Return it where there is one: engines before API 1.44 know none, and Pulumi's state has 0s for it."""
    return {"start interval": seconds} if seconds else {}


def _seconds(duration: str | None) -> float:
    """Return the seconds of a duration as Go writes it: `1m30s`."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"([0-9.]+)(h|ms|m|s)", duration or "")
    return sum(float(number) * units[unit] for number, unit in parts)
