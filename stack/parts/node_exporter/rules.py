"""The host: CPU, memory, disks and clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Text, number, share
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service="host", dashboard="samokoder-containers")

# Without tmpfs, image layers, and read-only images of file systems, which are always full.
DISKS = 'fstype!~"tmpfs|overlay|squashfs|fuse.*"'
COLLECTORS = ("cpu", "diskstats", "filefd", "filesystem", "loadavg", "meminfo", "stat", "textfile", "timex", "vmstat")
"""Collectors of node-exporter whose series a rule reads."""
COLLECTED = f'node_scrape_collector_success{{collector=~"{"|".join(COLLECTORS)}"}}'
WRITABLE = f"node_filesystem_readonly{{{DISKS}}} == 0"
LEFT = f"node_filesystem_avail_bytes{{{DISKS}}} / node_filesystem_size_bytes{{{DISKS}}}"
MEMORY_LEFT = "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    alerts = environment.settings.alerts
    return Group(
        name="host",
        rules=[*_processor(alerts), *_memory(alerts), *_space(alerts), *_disks(), *_system()],
    )


def _processor(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="HostCpuHigh",
        # A core that waits for a disk is not busy: HostDiskIoSaturated is the alert for that.
        expression="1 - avg by (instance) (sum by (instance, cpu) "
        f'(rate(node_cpu_seconds_total{{mode=~"idle|iowait"}}[5m]))) > {share(alerts.host_cpu_percent)}',
        wait="10m",
        severity="warning",
        summary=Text(en="the host's CPU is busy", ru="процессор хоста загружен"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the cores are busy; "
            f"the threshold is {number(alerts.host_cpu_percent)}%.",
            ru=f"Загрузка ядер — {{{{ $value | humanizePercentage }}}}; порог — {number(alerts.host_cpu_percent)}%.",
        ),
    )
    yield alert(
        name="HostSaturated",
        expression='max by (instance) (node_load1) / count by (instance) (node_cpu_seconds_total{mode="idle"}) > 2',
        wait="15m",
        severity="warning",
        summary=Text(en="the host has more to do than it can", ru="хост не справляется с нагрузкой"),
        description=Text(
            en='{{ printf "%.1f" $value }} processes a core want to run or wait for a disk; the threshold is 2.',
            ru='На ядро приходится {{ printf "%.1f" $value }} процессов, готовых к работе или ждущих диска; порог — 2.',
        ),
    )


def _memory(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="HostMemoryLow",
        expression=f"{MEMORY_LEFT} < {share(alerts.host_memory_available_percent)}",
        wait="10m",
        severity="warning",
        summary=Text(en="the host is short of memory", ru="на хосте мало памяти"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the host's memory is available; "
            f"the threshold is {number(alerts.host_memory_available_percent)}%.",
            ru="Доступно {{ $value | humanizePercentage }} памяти хоста; "
            f"порог — {number(alerts.host_memory_available_percent)}%.",
        ),
    )
    yield alert(
        name="HostMemoryExhausted",
        expression=f"{MEMORY_LEFT} < 0.03",
        wait="5m",
        severity="critical",
        summary=Text(en="the host has no memory left", ru="на хосте закончилась память"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the host's memory is available: the kernel is about to kill.",
            ru="Доступно {{ $value | humanizePercentage }} памяти хоста: ядро вот-вот начнёт завершать процессы.",
        ),
    )
    yield alert(
        name="HostOomKill",
        expression="increase(node_vmstat_oom_kill[10m]) > 0",
        wait="",
        severity="critical",
        summary=Text(en="the kernel killed processes", ru="ядро завершало процессы из-за нехватки памяти"),
        description=Text(
            en='Within ten minutes: {{ printf "%.0f" $value }}, in a container or outside of all.',
            ru='За десять минут: {{ printf "%.0f" $value }}, в контейнере или вне контейнеров.',
        ),
    )


def _space(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="HostDiskFillsSoon",
        expression=f"{LEFT} < 0.4 and predict_linear(node_filesystem_avail_bytes{{{DISKS}}}[6h], 86400) < 0 "
        f"and {WRITABLE}",
        wait="1h",
        severity="warning",
        summary=Text(
            en="{{ $labels.mountpoint }} is full within a day", ru="{{ $labels.mountpoint }} заполнится за сутки"
        ),
        description=Text(
            en="{{ $value | humanizePercentage }} is left, and at the pace of the last six hours nothing tomorrow.",
            ru="Свободно {{ $value | humanizePercentage }}, и при скорости последних шести часов завтра не останется "
            "ничего.",
        ),
    )
    yield alert(
        name="HostDiskLow",
        expression=f"{LEFT} < {share(alerts.disk_low_percent)} and {WRITABLE}",
        wait="5m",
        severity="warning",
        summary=Text(en="{{ $labels.mountpoint }} fills up", ru="на {{ $labels.mountpoint }} мало места"),
        description=Text(
            en=f"{{{{ $value | humanizePercentage }}}} is left; the threshold is {number(alerts.disk_low_percent)}%.",
            ru=f"Свободно {{{{ $value | humanizePercentage }}}}; порог — {number(alerts.disk_low_percent)}%.",
        ),
    )
    yield alert(
        name="HostDiskAlmostFull",
        expression=f"{LEFT} < {share(alerts.disk_almost_full_percent)} and {WRITABLE}",
        wait="15m",
        severity="critical",
        summary=Text(en="{{ $labels.mountpoint }} is almost full", ru="{{ $labels.mountpoint }} почти заполнен"),
        description=Text(
            en="{{ $value | humanizePercentage }} is left, and a database that cannot write stops; "
            f"the threshold is {number(alerts.disk_almost_full_percent)}%.",
            ru="Свободно {{ $value | humanizePercentage }}, а база данных без места остановится; "
            f"порог — {number(alerts.disk_almost_full_percent)}%.",
        ),
    )
    yield alert(
        name="HostInodesLow",
        # A file system that makes inodes on demand, such as btrfs, reports a total of 0.
        expression=f"node_filesystem_files_free{{{DISKS}}} / (node_filesystem_files{{{DISKS}}} > 0) < 0.05 "
        f"and {WRITABLE}",
        wait="15m",
        severity="critical",
        summary=Text(
            en="{{ $labels.mountpoint }} runs out of inodes", ru="на {{ $labels.mountpoint }} кончаются inode"
        ),
        description=Text(
            en="{{ $value | humanizePercentage }} is left; without one no file can be made, even where there is space.",
            ru="Свободно {{ $value | humanizePercentage }}; без них нельзя создать файл, даже если место есть.",
        ),
    )


def _disks() -> Iterator[Alert]:
    yield alert(
        name="HostFilesystemReadOnly",
        # A file system that was never writable, such as a CD image, is fine, and so is one that the exporter's user may
        # not read.
        expression=f"node_filesystem_readonly{{{DISKS}}} == 1 "
        f"and min_over_time(node_filesystem_readonly{{{DISKS}}}[1d]) == 0 "
        f'or node_filesystem_device_error{{{DISKS},device_error!~"|permission denied"}} == 1',
        wait="5m",
        severity="critical",
        summary=Text(
            en="{{ $labels.mountpoint }} cannot be written to", ru="на {{ $labels.mountpoint }} нельзя писать"
        ),
        description=Text(
            en="{{ $labels.device }} became read-only, as after an error of the disk, or does not answer at all.",
            ru="{{ $labels.device }} перешёл в режим «только чтение», как после ошибки диска, или совсем не отвечает.",
        ),
    )
    yield alert(
        name="HostDiskIoSaturated",
        expression="rate(node_disk_io_time_seconds_total[5m]) > 0.9",
        wait="15m",
        severity="warning",
        summary=Text(en="{{ $labels.device }} is busy all the time", ru="диск {{ $labels.device }} постоянно занят"),
        description=Text(
            en="It works {{ $value | humanizePercentage }} of the time; the threshold is 90%.",
            ru="Занят {{ $value | humanizePercentage }} времени; порог — 90%.",
        ),
    )


def _system() -> Iterator[Alert]:
    yield alert(
        name="HostFileDescriptorsLow",
        expression="node_filefd_allocated / node_filefd_maximum > 0.8",
        wait="10m",
        severity="warning",
        summary=Text(en="the host runs out of file descriptors", ru="на хосте кончаются файловые дескрипторы"),
        description=Text(
            en="{{ $value | humanizePercentage }} are in use; the threshold is 80%.",
            ru="Занято {{ $value | humanizePercentage }}; порог — 80%.",
        ),
    )
    yield alert(
        name="HostClockNotSynchronised",
        expression="min_over_time(node_timex_sync_status[5m]) == 0 and node_timex_maxerror_seconds >= 16",
        wait="10m",
        severity="warning",
        summary=Text(en="the host's clock is not synchronised", ru="часы хоста не синхронизированы"),
        description=Text(
            en="Nobody corrects it: tokens, certificates and the age of everything measured depend on the time.",
            ru="Их никто не корректирует, а от времени зависят токены, сертификаты и все измерения.",
        ),
    )
    yield alert(
        name="HostRebooted",
        expression="time() - node_boot_time_seconds < 600",
        wait="",
        severity="info",
        summary=Text(en="the host was rebooted", ru="хост был перезагружен"),
        description=Text(
            en="It has been up for {{ $value | humanizeDuration }}.", ru="Работает {{ $value | humanizeDuration }}."
        ),
    )
    yield alert(
        name="NodeExporterErrors",
        expression=f"{COLLECTED} == 0",
        wait="15m",
        severity="warning",
        summary=Text(en="the host is measured in part only", ru="метрики хоста собираются не полностью"),
        description=Text(
            en="The collector {{ $labels.collector }} of the exporter fails: alerts on its metrics are silent.",
            ru="Сборщик {{ $labels.collector }} экспортера завершается ошибкой: оповещения по его метрикам молчат.",
        ),
    )
