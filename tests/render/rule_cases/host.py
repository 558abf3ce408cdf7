"""The host's alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, Series, grows, pair, stays

AT = {"job": "node-exporter", "instance": "node-exporter:9100"}
EXPORTER = ",".join(f'{name}="{value}"' for name, value in AT.items())
INSTANCE = {"instance": AT["instance"]}
CRITICAL = {"service": "host", "severity": "critical"}
WARNING = {"service": "host", "severity": "warning"}
INFO = {"service": "host", "severity": "info"}
DISK = {"device": "/dev/vda1", "fstype": "ext4", "mountpoint": "/data"}


def _is(**values: str) -> Series:
    return {f"node_{name}{{{EXPORTER}}}": value for name, value in values.items()}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from _processor()
    yield from _memory()
    yield from _space()
    yield from _disks()
    yield from _system()


def _processor() -> Iterator[Case]:
    def cores(**shares: float) -> Series:
        return {
            f'node_cpu_seconds_total{{{EXPORTER},cpu="{cpu}",mode="{mode}"}}': grows(share * 60)
            for cpu in "01"
            for mode, share in shares.items()
        }

    yield from pair(
        "HostCpuHigh",
        titles=("90 of 100", "it waits for its disk"),
        fires=cores(user=0.7, system=0.2, idle=0.05, iowait=0.05),
        silent=cores(user=0.1, system=0.1, idle=0.0, iowait=0.8),
        minute=20,
        labels=WARNING | INSTANCE,
        summary="the host's CPU is busy",
        description="90% of the cores are busy; the threshold is 80%.",
    )
    yield from pair(
        "HostSaturated",
        titles=("five for two cores", "four for two cores"),
        fires=cores(idle=0.1) | _is(load1=stays(5)),
        silent=cores(idle=0.1) | _is(load1=stays(4)),
        minute=20,
        labels=WARNING | INSTANCE,
        summary="the host has more to do than it can",
        description="2.5 processes a core want to run or wait for a disk; the threshold is 2.",
    )


def _memory() -> Iterator[Case]:
    def left(percent: float) -> Series:
        return _is(memory_MemAvailable_bytes=stays(percent), memory_MemTotal_bytes=stays(100))

    yield from pair(
        "HostMemoryLow",
        fires=left(9),
        silent=left(10),
        minute=15,
        labels=WARNING | AT,
        summary="the host is short of memory",
        description="9% of the host's memory is available; the threshold is 10%.",
    )
    yield from pair(
        "HostMemoryExhausted",
        fires=left(2),
        silent=left(3),
        minute=8,
        labels=CRITICAL | AT,
        summary="the host has no memory left",
        description="2% of the host's memory is available: the kernel is about to kill.",
    )
    yield from pair(
        "HostOomKill",
        titles=("one just now", "one long ago"),
        fires=_is(vmstat_oom_kill="4x8 5x30"),
        silent=_is(vmstat_oom_kill=stays(5)),
        minute=12,
        labels=CRITICAL | AT,
        summary="the kernel killed processes",
        description="Within ten minutes: 1, in a container or outside of all.",
    )


def _disk(values: str, *, kind: str = "ext4", readonly: str = "0+0x200", size: str = "100+0x200") -> Series:
    labels = f'{EXPORTER},mountpoint="/data",fstype="{kind}",device="/dev/vda1"'
    return {
        f"node_filesystem_avail_bytes{{{labels}}}": values,
        f"node_filesystem_files_free{{{labels}}}": values,
        f"node_filesystem_size_bytes{{{labels}}}": size,
        f"node_filesystem_files{{{labels}}}": size,
        f"node_filesystem_readonly{{{labels}}}": readonly,
    }


def _space() -> Iterator[Case]:
    for alert, few, enough, labels, summary, description in (
        ("HostDiskLow", 9, 10, WARNING, "/data fills up", "9% is left; the threshold is 10%."),
        (
            "HostDiskAlmostFull",
            4,
            5,
            CRITICAL,
            "/data is almost full",
            "4% is left, and a database that cannot write stops; the threshold is 5%.",
        ),
        (
            "HostInodesLow",
            4,
            5,
            CRITICAL,
            "/data runs out of inodes",
            "4% is left; without one no file can be made, even where there is space.",
        ),
    ):
        yield from pair(
            alert,
            fires=_disk(stays(few)),
            silent=_disk(stays(enough)),
            minute=20,
            labels=labels | AT | DISK,
            summary=summary,
            description=description,
        )
        full = stays(0)
        yield Case(alert=alert, title="what is read-only is full", series=_disk(full, readonly=stays(1)), minute=20)
        yield Case(alert=alert, title="a tmpfs is no disk", series=_disk(full, kind="tmpfs"), minute=20)
    yield Case(
        alert="HostInodesLow", title="btrfs counts none", series=_disk(full, kind="btrfs", size=stays(0)), minute=20
    )
    yield from pair(
        "HostDiskFillsSoon",
        titles=("35 of 100 left and 0.1 a minute less", "35 of 100 left and 0.001 a minute less"),
        fires=_disk("50-0.1x200"),
        silent=_disk("35-0.001x200"),
        minute=180,
        labels=WARNING | AT | DISK,
        summary="/data is full within a day",
        description="32% is left, and at the pace of the last six hours nothing tomorrow.",
    )
    yield Case(alert="HostDiskFillsSoon", title="half of it is left", series=_disk("70-0.1x200"), minute=180)


def _disks() -> Iterator[Case]:
    labels = CRITICAL | AT | DISK
    summary = "/data cannot be written to"
    description = "/dev/vda1 became read-only, as after an error of the disk, or does not answer at all."
    yield from pair(
        "HostFilesystemReadOnly",
        titles=("it became read-only", "it always was"),
        fires=_disk(stays(50), readonly="0+0x10 1+0x60"),
        silent=_disk(stays(50), readonly=stays(1)),
        minute=20,
        labels=labels,
        summary=summary,
        description=description,
    )

    def error(text: str) -> Series:
        where = f'{EXPORTER},mountpoint="/data",fstype="ext4",device="/dev/vda1",device_error="{text}"'
        return {f"node_filesystem_device_error{{{where}}}": stays(1)}

    yield from pair(
        "HostFilesystemReadOnly",
        titles=("it does not answer", "the exporter may not see it"),
        fires=error("mountpoint timeout"),
        silent=error("permission denied"),
        minute=20,
        labels=labels | {"device_error": "mountpoint timeout"},
        summary=summary,
        description=description,
    )
    busy = f'node_disk_io_time_seconds_total{{{EXPORTER},device="vda"}}'
    yield from pair(
        "HostDiskIoSaturated",
        fires={busy: grows(57)},
        silent={busy: grows(54)},
        minute=25,
        labels=WARNING | AT | {"device": "vda"},
        summary="vda is busy all the time",
        description="It works 95% of the time; the threshold is 90%.",
    )


def _system() -> Iterator[Case]:
    yield from pair(
        "HostFileDescriptorsLow",
        fires=_is(filefd_allocated=stays(90), filefd_maximum=stays(100)),
        silent=_is(filefd_allocated=stays(80), filefd_maximum=stays(100)),
        minute=15,
        labels=WARNING | AT,
        summary="the host runs out of file descriptors",
        description="90% are in use; the threshold is 80%.",
    )
    yield from pair(
        "HostClockNotSynchronised",
        titles=("nobody corrects it", "it was corrected not long ago"),
        fires=_is(timex_sync_status=stays(0), timex_maxerror_seconds=stays(16)),
        silent=_is(timex_sync_status=stays(0), timex_maxerror_seconds=stays(0.5)),
        minute=15,
        labels=WARNING | AT,
        summary="the host's clock is not synchronised",
        description="Nobody corrects it: tokens, certificates and the age of everything measured depend on the time.",
    )
    yield Case(
        alert="HostClockNotSynchronised",
        title="it is synchronised",
        series=_is(timex_sync_status=stays(1), timex_maxerror_seconds=stays(16)),
        minute=15,
    )
    booted = _is(boot_time_seconds=stays(120))
    expected = Fires(labels=INFO | AT, summary="the host was rebooted", description="It has been up for 3m 0s.")
    yield Case(alert="HostRebooted", title="three minutes ago", series=booted, minute=5, fires=(expected,))
    yield Case(alert="HostRebooted", title="half an hour ago", series=booted, minute=32)
    collector = f"node_scrape_collector_success{{{EXPORTER},collector="
    yield from pair(
        "NodeExporterErrors",
        titles=("a collector fails that a rule needs", "one fails that no rule needs"),
        fires={f'{collector}"filesystem"}}': stays(0)},
        silent={f'{collector}"filesystem"}}': stays(1), f'{collector}"zfs"}}': stays(0)},
        minute=20,
        labels=WARNING | AT | {"collector": "filesystem"},
        summary="the host is measured in part only",
        description="The collector filesystem of the exporter fails: alerts on its metrics are silent.",
    )
