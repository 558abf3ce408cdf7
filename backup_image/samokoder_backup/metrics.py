"""The figures that monitoring reads, made from what lies on the disk and what the service knows, at each scrape."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from samokoder_backup import entries, restic, state
from samokoder_backup import settings as at
from samokoder_backup.settings import Kind, Settings


class Live(Protocol):
    """What the running service knows."""

    @property
    def receiving(self) -> bool:
        """Whether WAL is being received."""

    @property
    def retained(self) -> int:
        """Bytes that PostgreSQL keeps for the slot."""

    @property
    def lag(self) -> float:
        """Seconds since WAL last came."""


class Metrics(Collector):
    """Prometheus asks it; a figure that is not known yet is left out."""

    def __init__(self, settings: Settings, live: Live) -> None:
        self._settings = settings
        self._live = live

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give every figure."""
        runs, found, kinds = state.read(), entries.entries(), self._settings.kinds()
        good = {kind: [entry for entry in found if entry.kind == kind and entry.counts] for kind in kinds}

        def of_kinds(name: str, text: str, value: Callable[[Kind], float | None]) -> GaugeMetricFamily:
            family = GaugeMetricFamily(name, text, labels=["kind"])
            for kind in kinds:
                if (number := value(kind)) is not None:
                    family.add_metric([kind], number)
            return family

        def last(kind: Kind, field: str) -> float | None:
            return _number(runs.get(kind, {}), field)

        yield of_kinds(
            "backup_last_success_timestamp_seconds",
            "When the newest good backup was finished; 0 for never",
            lambda kind: good[kind][-1].finished.timestamp() if good[kind] else 0.0,
        )
        yield of_kinds("backup_last_exit_code", "Of the last run; 0 is good", lambda kind: last(kind, "exit"))
        yield of_kinds("backup_last_duration_seconds", "Of the last run", lambda kind: last(kind, "seconds"))
        yield of_kinds(
            "backup_size_bytes", "Of the newest good backup", lambda kind: good[kind][-1].bytes if good[kind] else None
        )
        yield of_kinds("backup_retained", "How many good backups there are", lambda kind: float(len(good[kind])))
        yield from self._single(runs, float(len([entry for entry in found if entry.status == "ahead"])))

    def _single(self, runs: Mapping[str, Mapping[str, Any]], ahead: float) -> Iterator[GaugeMetricFamily]:
        settings, usage = self._settings, shutil.disk_usage(at.ROOT)
        verify, drill, offsite = (runs.get(name, {}) for name in ("verify", "drill", "offsite"))
        figures: dict[str, tuple[str, float | None]] = {
            "backup_verify_last_success_timestamp_seconds": ("When all was found good", _number(verify, "success")),
            "backup_verify_failed": ("Things that are bad", float(len(entries.known_bad()))),
            "backup_restore_test_last_success_timestamp_seconds": ("Of the last drill", _number(drill, "success")),
            "backup_restore_test_last_exit_code": ("Of the last drill; 0 is good", _number(drill, "exit")),
            "backup_restore_test_rpo_seconds": ("What a restore lost, measured", _number(drill, "rpo")),
            "backup_restore_test_rto_seconds": ("How long a restore took, measured", _number(drill, "rto")),
            "backup_stamps_ahead": ("Backups and runs of a time to come", ahead + len(state.ahead())),
            "backup_volume_free_bytes": ("Of the volume of the backups", float(usage.free)),
            "backup_volume_size_bytes": ("Of the volume of the backups", float(usage.total)),
            "backup_offsite_enabled": ("1 where copies go off-site", float(settings.offsite is not None)),
        }
        if settings.offsite:
            figures |= {
                "backup_offsite_last_success_timestamp_seconds": (
                    "When the last copy off-site was whole; 0 for never",
                    _number(offsite, "success") or 0.0,
                ),
                "backup_offsite_last_exit_code": ("Of the last copy off-site", _number(offsite, "exit")),
                "backup_offsite_snapshots": (
                    "Copies that the bucket holds, counted once a day",
                    _number(_known(), "snapshots"),
                ),
            }
        if settings.streamed:
            figures |= {
                "wal_archive_lag_seconds": ("Seconds since WAL last came", self._live.lag),
                "backup_wal_receiver_up": ("1 while WAL is received", float(self._live.receiving)),
                "backup_slot_retained_bytes": ("WAL that is kept for the slot", float(self._live.retained)),
                "backup_slot_limit_bytes": ("How much may be kept", float(settings.max_slot_wal_mib * 2**20)),
            }
        for name, (text, value) in figures.items():
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)


def _known() -> dict[str, Any]:
    """Return what is known of the copies off-site; nothing where it cannot be read: the other figures are told."""
    try:
        return restic.known(at.ROOT)
    except OSError:
        return {}


def _number(values: Mapping[str, Any], field: str) -> float | None:
    value = values.get(field)
    return float(value) if value is not None else None


def since(stamp: float) -> float:
    """Return the seconds since a time stamp."""
    return max(0.0, time.time() - stamp)
