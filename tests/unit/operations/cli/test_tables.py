"""Every table of the product on 80 and on 120 columns: nothing breaks within a word, and nothing is cut off."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from bench import report as bench
from host.table import show_table
from operations.audit.drift.difference import Difference as Drifted
from operations.audit.rules import RULES, Broken
from operations.checks import report_table
from operations.checks.report import Finding, Report, Verdict
from operations.cli import tables
from operations.data.backups import ListedBackup
from operations.engine.part_status import NOT_AVAILABLE, PartStatus
from operations.lifecycle.down import RemovableVolume
from operations.rotation.plan import rows as rotations
from tests.described import specs
from tests.recording import ROOT, case_environment

NOON = datetime(2026, 11, 29, 12, 0, 0, 250_000, UTC)
IMAGE = "samokoder-reference-app:2026.11"


def backup(number: int, kind: str = "base", *, until: datetime | None = None) -> ListedBackup:
    at = NOON - timedelta(days=number)
    since = at if kind == "base" else None
    return ListedBackup(
        id=f"{kind}-{at:%Y%m%dT%H%M%SZ}",
        kind=kind,
        finished=at,
        bytes=12_345 * 2**20,
        status="good",
        since=since,
        until=until,
    )


def parts() -> list[PartStatus]:
    found = [
        PartStatus(
            part=spec.part,
            state="running",
            health="unhealthy",
            image=IMAGE,
            url="https://samokoder.example.org:18443" if spec.publish else "",
            uptime_seconds=5_400,
            restarts=12,
        )
        for spec in specs(case_environment("prod"))
    ]
    return [*found, PartStatus(part="grafana", state=NOT_AVAILABLE)]


def findings() -> list[Finding]:
    why = "samokoder:backup.offsite is not set: the backups stay on that machine, and are lost with it"
    names = ("packet filter", "https://samokoder.example.org", "alert WorkerQueueOldestJobTooOld of the rules")
    return [Finding(check=name, verdict=verdict, why=why) for name in names for verdict in Verdict]


VOLUME = "samokoder-staging-postgres-before-restore-20261123T100500Z"
DRIFTED = Drifted(
    name="samokoder-staging-postgres-exporter",
    field="environment DATA_SOURCE_URI_FILE",
    declared="sha256:" + "a" * 64,
    found="not there",
    repair="make up ENV=prod",
)
TABLES: dict[str, Callable[[Console], None]] = {
    "status": lambda console: tables.show_status(console, "staging", parts()),
    "destroy-data": lambda console: tables.show_data(
        console,
        "staging",
        [RemovableVolume(name=VOLUME, bytes=5 * 2**40, origin="set aside by a restore, 2026-11-23 10:05")],
    ),
    "backups": lambda console: tables.show_backups(
        console, "staging", [backup(0), backup(1, "workspace"), backup(2), backup(9, until=NOON - timedelta(days=8))]
    ),
    "drift": lambda console: tables.show_drift(console, "staging", [DRIFTED]),
    "hardening": lambda console: tables.show_broken(
        console,
        "staging",
        [
            Broken(part="blackbox-exporter", rule=rule, what="", says="runs with the capabilities NET_RAW, SYS_ADMIN")
            for rule in RULES
        ],
        {name: rule.title for name, rule in RULES.items()},
    ),
    "rotate": lambda console: tables.show_rotations(console, "staging", rotations(case_environment("prod"))),
    "doctor, smoke, check-image": lambda console: report_table.show(
        console, Report(title="Doctor of staging", about={}, findings=findings())
    ),
    "bench": lambda console: bench.show(
        console,
        bench.Results(
            file=Path(os.devnull),
            say=str,
            seconds=1,
            rows=[
                bench.Measurement(
                    what="a second `up` that changes nothing, until it ends",
                    measured=bench.Sample.of([12.345, 44.02, 47.8]),
                    beside="docker compose up --detach, the same parts",
                    beside_measured=9.87,
                    unit="requests/s",
                    at_most=1.25,
                )
            ],
        ),
    ),
}
"""Name -> what prints it, with rows as long as they come."""


def printed(table: Callable[[Console], None], width: int) -> str:
    said = io.StringIO()
    table(Console(file=said, width=width, highlight=False))
    return said.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_no_line_of_a_table_is_over_the_width(name: str, width: int) -> None:
    shown = printed(TABLES[name], width)
    commands = ("What to type", "  make ", "For the newest one", "0 of 1 goals met")
    wide = [line for line in shown.splitlines() if len(line.rstrip()) > width and not line.startswith(commands)]
    assert not wide, f"a terminal breaks it where nobody wants it: {wide}"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_no_cell_of_a_table_breaks_within_a_word_or_is_cut(name: str, width: int) -> None:
    shown = printed(TABLES[name], width).split()
    missing = {word for word in printed(TABLES[name], 1_000).split() if re.search(r"\w", word)} - set(shown)
    # A block needs no heading over its name; of `status` the addresses stand below, and images need room.
    missing -= {"image", IMAGE, "part", "volume", "backup", "where", "secret", "check", "What", "url"}
    assert not missing, f"who copies it from the screen copies half of it: {missing}"


def test_every_table_of_the_product_is_looked_at() -> None:
    sources = [path for folder in ("operations", "bench", "offline", "host") for path in (ROOT / folder).rglob("*.py")]
    makers = {path.name for path in sources if re.search(r"\bTable\(", path.read_text(encoding="utf-8"))}
    assert makers == {"table.py"}, "whoever makes a table makes it there, where its widths are known"
    functions = {
        name for name, it in vars(tables).items() if name.startswith("show_") and it.__module__ == tables.__name__
    }
    text = (ROOT / "tests/unit/operations/cli/test_tables.py").read_text(encoding="utf-8")
    assert not {name for name in functions if f"tables.{name}(" not in text}, "this test does not print it"


def test_a_table_without_room_becomes_a_block_for_each_row() -> None:
    shown = printed(lambda console: show_table(console, "Title", ["name", "said"], [["x" * 30, "y" * 30]]), 40)
    assert [line.rstrip() for line in shown.splitlines() if line.strip()] == [
        "Title",
        "x" * 30,
        "  said " + "y" * 30,
    ]


def test_moments_of_backups_are_copied_from_one_line_and_lie_within_their_range() -> None:
    shown = printed(TABLES["backups"], 80)
    assert "  from 2026-11-20 12:00:01+00 to 2026-11-21 12:00:00+00\n" in shown, (
        "later than the first moment and earlier than the last one, or the restore is refused"
    )
    assert "  from 2026-11-27 12:00:01+00 to now\n" in shown, "what two backups both can restore is one range"
    assert "\nFor the newest one: make restore BACKUP=latest\n" in shown, "who is woken copies a whole command"
    assert "make restore TO='2026" not in shown, "the range's first moment goes back as far as is possible: a week"


def test_where_no_range_lasts_until_now_the_command_to_copy_has_the_newest_moment() -> None:
    ended = [backup(9, until=NOON - timedelta(days=8)), backup(5, until=NOON - timedelta(days=2))]
    shown = printed(lambda console: tables.show_backups(console, "staging", ended), 80)
    assert "For the newest one: make restore TO='2026-11-27 12:00:00+00'" in shown, "it loses least"
    dump = printed(lambda console: tables.show_backups(console, "staging", [backup(1, "dump")]), 80)
    assert "make restore" not in dump, "no moment can be restored"


def test_what_else_a_person_has_to_know_of_a_backup_is_below_the_table() -> None:
    noted = dataclasses.replace(backup(1), note="its log goes where no good base backup needs it")
    shown = printed(lambda console: tables.show_backups(console, "staging", [backup(0), noted]), 80)
    assert f"\n{noted.id}: its log goes where no good base backup needs it" in shown


def test_ranges_that_touch_are_one_and_a_gap_stays() -> None:
    day = timedelta(days=1)
    rows = [backup(5, until=NOON - 4 * day), backup(4, until=NOON - 2 * day), backup(1, until=NOON)]
    found = list(tables.restorable(rows))
    assert len(found) == 3, "between 12:00:00 and 12:00:01 nothing can be restored for sure"
    assert list(tables.restorable([backup(5, until=NOON), backup(3)])) == [
        (NOON.replace(microsecond=0) - 5 * day + timedelta(seconds=1), None)
    ]
    assert list(tables.restorable([backup(1, "dump")])) == []
    paused = dataclasses.replace(backup(5), without=((NOON - 3 * day, NOON - 2 * day),))
    assert [(since and since.day, until and until.day) for since, until in tables.restorable([paused])] == [
        ((NOON - 5 * day).day, (NOON - 3 * day).day),
        ((NOON - 2 * day).day, None),
    ], "what is copied from there would bring back something else"


def test_images_are_in_the_table_of_a_terminal_with_120_columns() -> None:
    """The page for a replica that is down compares them."""
    local = PartStatus(
        part="blackbox-exporter",
        state=NOT_AVAILABLE,
        image="samokoder-reference-app:fd01bfbea9667b85",
        url="http://127.0.0.1:29893",
        uptime_seconds=3_540,
    )
    assert local.image in printed(lambda console: tables.show_status(console, "staging", [local]), 120)
    assert local.url in printed(lambda console: tables.show_status(console, "staging", [local]), 80).splitlines()[4], (
        "the address of a stack on this machine has room beside its part on 80 columns"
    )
