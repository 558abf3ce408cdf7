"""Containers of this environment, and the host that carries them."""

from __future__ import annotations

from stack.monitoring.boards import Board, Row, board, choice, replicas
from stack.monitoring.panels import Limit, Panel, Query, figure, series, states
from stack.monitoring.promql import (
    CONTAINER_PART,
    counted,
    cpu_held_back,
    cpu_of_limit,
    memory,
    memory_of_limit,
    names_of,
    ratio,
    total,
)
from stack.parts.node_exporter import rules as host
from stack.parts.node_exporter.spec import DRIFT_CHECKED, DRIFT_FINDINGS
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

UID = "samokoder-containers"
NAME = f"{{{{{CONTAINER_PART}}}}}"
DISK_LEFT = f"min by (mountpoint) ({host.LEFT})"
CPU_BUSY = '1 - avg by (instance) (sum by (instance, cpu) (rate(node_cpu_seconds_total{mode=~"idle|iowait"}[5m])))'
LOAD = 'max by (instance) (node_load1) / count by (instance) (node_cpu_seconds_total{mode="idle"})'


def describe(environment: Environment) -> Board:
    """Describe the dashboard."""
    alerts = environment.settings.alerts
    everything = names_of(environment)
    chosen = f'{everything},{CONTAINER_PART}=~"$container"'
    return board(
        environment,
        uid=UID,
        title="Containers and host",
        description="What every container of this environment uses of its limits, and how the host is.",
        choices=[
            choice(
                "container",
                "Container",
                "Containers of this environment.",
                f"label_values(container_last_seen{{{everything}}}, {CONTAINER_PART})",
            ),
        ],
        since="now-3h",
        figures=_now(environment, alerts),
        beside=_health(environment, chosen),
        rows=[
            Row("CPU of the containers", _cpu(chosen, alerts)),
            Row("Memory of the containers", _memory(chosen, alerts)),
            Row("State of the containers", _state(chosen)),
            Row("Network and disk of the containers", _traffic(chosen)),
            Row("CPU and memory of the host", _host(alerts)),
            Row("Disks of the host", _space(alerts), _disks()),
            Row("Kernel of the host", _kernel()),
        ],
    )


def _now(environment: Environment, alerts: Alerts) -> list[Panel]:
    everything = names_of(environment)
    return [
        figure(
            "Containers",
            f"Containers of this environment that run. It has {replicas(environment)}.",
            "short",
            f"count(count by (name) (container_last_seen{{{everything}}}))",
            limits=[Limit(alert="ContainerMissing", value=replicas(environment), severity="critical", below=True)],
        ),
        figure(
            "Not healthy",
            "Containers whose health check fails, or has not succeeded yet.",
            "short",
            f"sum(max by (name) (container_health_state{{{everything}}}) == bool 0)",
            limits=[Limit(alert="ContainerUnhealthy", value=1, severity="critical")],
        ),
        figure(
            "CPU of the host",
            "Share of the time of all cores in which they worked in the last five minutes.",
            "percentunit",
            f"max({CPU_BUSY})",
            limits=[_cpu_limit(alerts)],
        ),
        figure(
            "Memory left",
            "Share of the host's memory that can be given out without swapping.",
            "percentunit",
            f"min({host.MEMORY_LEFT})",
            limits=_memory_limits(alerts),
        ),
        figure(
            "Disk left",
            "Share of the fullest disk that is free.",
            "percentunit",
            f"min({DISK_LEFT})",
            limits=_disk_limits(alerts),
        ),
        figure(
            "Host is up for",
            "Time since the host started.",
            "s",
            "min(time() - node_boot_time_seconds)",
            watched_by=["HostRebooted"],
        ),
        figure(
            "Differences",
            "Differences between what runs and what is declared that the last comparison found.",
            "short",
            f"max({DRIFT_FINDINGS})",
            limits=[Limit(alert="StackDrifted", value=1, severity="warning")],
            absent="never compared",
        ),
        figure(
            "Compared",
            "Time since the last comparison of what runs with what is declared.",
            "s",
            f"time() - max({DRIFT_CHECKED})",
            limits=[Limit(alert="DriftNotCompared", value=86400, severity="info")],
            absent="never compared",
        ),
    ]


def _cpu(chosen: str, alerts: Alerts) -> list[Panel]:
    return [
        series(
            "CPU",
            "CPU that each container uses; 100 % is one core.",
            "percentunit",
            Query(total("container_cpu_usage_seconds_total", chosen, CONTAINER_PART), NAME),
            top=0.1,
            stacked=True,
        ),
        series(
            "CPU, of the limit",
            "CPU that each container uses, of what its limit allows.",
            "percentunit",
            Query(cpu_of_limit(chosen), NAME),
            top=1,
        ),
        series(
            "CPU held back",
            "Share of the periods in which the limit held the container back: it waits although there may be cores.",
            "percentunit",
            Query(cpu_held_back(chosen), NAME),
            limits=[Limit(alert="ContainerCpuThrottled", value=ratio(alerts.container_throttled_percent))],
            top=1,
        ),
    ]


def _memory(chosen: str, alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Memory",
            "What cannot be taken away from each container. Pages of files do not count: the kernel drops them.",
            "bytes",
            Query(f"max by ({CONTAINER_PART}) ({memory(chosen)})", NAME),
            stacked=True,
        ),
        series(
            "Memory, of the limit",
            "The same, of the limit. At it the kernel ends a process of the container; there is no swap.",
            "percentunit",
            Query(memory_of_limit(chosen), NAME),
            limits=[Limit(alert="ContainerMemoryNearLimit", value=ratio(alerts.container_memory_percent))],
            top=1,
        ),
        series(
            "Ended by the kernel",
            "Processes that the kernel ended in ten minutes because the container was at its limit of memory.",
            "short",
            Query(counted("10m", "container_oom_events_total", chosen, CONTAINER_PART), NAME),
            watched_by=["ContainerOomKilled"],
        ),
    ]


def _health(environment: Environment, chosen: str) -> Panel:
    return states(
        "Health",
        "Health check of each container.",
        [Query(f"min by ({CONTAINER_PART}) (container_health_state{{{chosen}}})", NAME)],
        {1: ("healthy", "green"), 0: ("not healthy, or starting", "red"), -1: ("no check", "blue")},
        watched_by=["ContainerUnhealthy", "ContainerMissing"],
        bands=replicas(environment),
    )


def _state(chosen: str) -> list[Panel]:
    return [
        series(
            "Restarts",
            "Starts of each container in 15 minutes.",
            "short",
            Query(f"sum by ({CONTAINER_PART}) (changes(container_start_time_seconds{{{chosen}}}[15m]))", NAME),
            limits=[Limit(alert="ContainerRestartLoop", value=2, severity="critical")],
        ),
        series(
            "Age",
            "Time since each container started.",
            "s",
            Query(f"time() - max by ({CONTAINER_PART}) (container_start_time_seconds{{{chosen}}})", NAME),
        ),
    ]


def _traffic(chosen: str) -> list[Panel]:
    return [
        series(
            "Received",
            "Bytes a second that each container gets from its networks.",
            "binBps",
            Query(total("container_network_receive_bytes_total", chosen, CONTAINER_PART), NAME),
        ),
        series(
            "Sent",
            "Bytes a second that each container sends into its networks.",
            "binBps",
            Query(total("container_network_transmit_bytes_total", chosen, CONTAINER_PART), NAME),
        ),
        series(
            "Disk",
            "Bytes a second that each container reads and writes, where the kernel counts them.",
            "binBps",
            Query(total("container_fs_reads_bytes_total", chosen, CONTAINER_PART), f"{NAME} read"),
            Query(total("container_fs_writes_bytes_total", chosen, CONTAINER_PART), f"{NAME} written"),
        ),
    ]


def _host(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "CPU of the host by use",
            "Share of the time of all cores by what it was spent on; the line is for the sum.",
            "percentunit",
            Query(
                'sum by (mode) (rate(node_cpu_seconds_total{mode!~"idle|iowait"}[$__rate_interval])) '
                '/ scalar(count(node_cpu_seconds_total{mode="idle"}))',
                "{{mode}}",
            ),
            limits=[_cpu_limit(alerts)],
            top=1,
            stacked=True,
        ),
        series(
            "Load",
            "Processes that run or want to, for each core; mean of a minute.",
            "none",
            Query(LOAD, "{{instance}}"),
            limits=[Limit(alert="HostSaturated", value=2)],
        ),
        series(
            "Pressure",
            "Share of the time in which something waited for CPU, memory or a disk.",
            "percentunit",
            *(
                Query(total(f"node_pressure_{what}_waiting_seconds_total"), name)
                for what, name in (("cpu", "CPU"), ("memory", "memory"), ("io", "disk"))
            ),
            watched_by=["HostSaturated"],
        ),
        series(
            "Memory of the host, left",
            "Share of the memory that can be given out without swapping.",
            "percentunit",
            Query(host.MEMORY_LEFT, "{{instance}}"),
            limits=_memory_limits(alerts),
            watched_by=["HostOomKill"],
            top=1,
        ),
    ]


def _space(alerts: Alerts) -> list[Panel]:
    inodes = f"node_filesystem_files_free{{{host.DISKS}}} / (node_filesystem_files{{{host.DISKS}}} > 0)"
    return [
        series(
            "Space left",
            "Share of each disk that is free.",
            "percentunit",
            Query(DISK_LEFT, "{{mountpoint}}"),
            limits=_disk_limits(alerts),
            watched_by=["HostDiskFillsSoon", "HostFilesystemReadOnly"],
            top=1,
        ),
        series(
            "Files that can be made",
            "Share of the inodes of each disk that are free; without one, no file can be made, however much space is.",
            "percentunit",
            Query(f"min by (mountpoint) ({inodes})", "{{mountpoint}}"),
            limits=[Limit(alert="HostInodesLow", value=0.05, severity="critical", below=True)],
            top=1,
        ),
        series(
            "Space used",
            "Bytes used on each disk.",
            "bytes",
            Query(
                "max by (mountpoint) "
                f"(node_filesystem_size_bytes{{{host.DISKS}}} - node_filesystem_free_bytes{{{host.DISKS}}})",
                "{{mountpoint}}",
            ),
            watched_by=["HostDiskFillsSoon"],
        ),
    ]


def _disks() -> list[Panel]:
    return [
        series(
            "Disks at work",
            "Share of the time in which each disk had something to do.",
            "percentunit",
            Query(total("node_disk_io_time_seconds_total", by="device"), "{{device}}"),
            limits=[Limit(alert="HostDiskIoSaturated", value=0.9)],
            top=1,
        ),
        series(
            "Throughput of the disks",
            "Bytes a second.",
            "binBps",
            Query(total("node_disk_read_bytes_total", by="device"), "{{device}} read"),
            Query(total("node_disk_written_bytes_total", by="device"), "{{device}} written"),
        ),
        series(
            "Duration of a disk's answer",
            "Mean time of a read and of a write.",
            "s",
            *(
                Query(
                    f"{total(f'node_disk_{done}_time_seconds_total', by='device')} "
                    f"/ ({total(f'node_disk_{count}_completed_total', by='device')} > 0)",
                    f"{{{{device}}}} {done}",
                )
                for done, count in (("read", "reads"), ("write", "writes"))
            ),
        ),
    ]


def _kernel() -> list[Panel]:
    return [
        series(
            "Open files",
            "Share of the files that the kernel can have open.",
            "percentunit",
            Query("max(node_filefd_allocated / node_filefd_maximum)", "open"),
            limits=[Limit(alert="HostFileDescriptorsLow", value=0.8)],
        ),
        series(
            "Ended for want of memory",
            "Processes that the kernel ended in ten minutes, in and outside of containers.",
            "short",
            Query(counted("10m", "node_vmstat_oom_kill"), "processes"),
            watched_by=["HostOomKill"],
        ),
        states(
            "Clock",
            "Whether the kernel says that its clock is synchronised. With a wrong clock, samples are refused and "
            "certificates are invalid.",
            [Query("min by (instance) (node_timex_sync_status)", "{{instance}}")],
            {1: ("synchronised", "green"), 0: ("not synchronised", "orange")},
            watched_by=["HostClockNotSynchronised"],
        ),
        states(
            "Metrics of the host",
            "Whether every collector of the exporter that an alert reads succeeds.",
            [Query(f"min by (instance) ({host.COLLECTED})", "{{instance}}")],
            {1: ("complete", "green"), 0: ("a collector fails", "orange")},
            watched_by=["NodeExporterErrors"],
        ),
    ]


def _cpu_limit(alerts: Alerts) -> Limit:
    return Limit(alert="HostCpuHigh", value=ratio(alerts.host_cpu_percent))


def _memory_limits(alerts: Alerts) -> list[Limit]:
    return [
        Limit(alert="HostMemoryLow", value=ratio(alerts.host_memory_available_percent), below=True),
        Limit(alert="HostMemoryExhausted", value=0.03, severity="critical", below=True),
    ]


def _disk_limits(alerts: Alerts) -> list[Limit]:
    return [
        Limit(alert="HostDiskLow", value=ratio(alerts.disk_low_percent), below=True),
        Limit(
            alert="HostDiskAlmostFull", value=ratio(alerts.disk_almost_full_percent), severity="critical", below=True
        ),
    ]
