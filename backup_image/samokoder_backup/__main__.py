"""The `samokoder-backup` program. Exit codes: 0 done, 1 failed, 2 cannot be done as it was asked for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from samokoder_backup import apart, copies, entries, jobs, offsite, present, restore, shared, state
from samokoder_backup import settings as at
from samokoder_backup.catalogue import Base
from samokoder_backup.drill import drill
from samokoder_backup.process import BackupError, CannotError, exclusive, say
from samokoder_backup.restore import Plan, Target
from samokoder_backup.settings import Settings

_CATCHES_UP_SECONDS = 30.0
"""Within them the receiver has what PostgreSQL has written."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    try:
        given = _parser().parse_args(words)
        if given.command == "workspace":
            return shared.serve()
        return _do(given, at.load())
    except (BackupError, OSError) as error:
        say(str(error))
        return error.status if isinstance(error, BackupError) else BackupError.status


def _do(given: argparse.Namespace, settings: Settings) -> int:  # noqa: PLR0911 - one for each command
    match given.command:
        case "run":
            from samokoder_backup.service import Service  # noqa: PLC0415 - what one command needs

            return Service(settings).run()
        case "now":
            kinds = settings.kinds() if given.kind == "all" else (given.kind,)
            return BackupError.status if [kind for kind in kinds if not jobs.backup(settings, kind)] else 0
        case "list":
            found = [entry.public() for entry in entries.entries()]
            print(json.dumps(found, indent=1)) if given.json else _table(found)
            return 0
        case "verify":
            good = jobs.verify(given.id)
            said = "all is good" if good else "see above"
            print(json.dumps(entries.known_bad(), indent=1)) if given.json else say(said)
            return 0 if good else BackupError.status
        case "drill":
            good = jobs.drill()
            print(json.dumps(state.read()["drill"], indent=1))
            return 0 if good else BackupError.status
        case "serve-drill":
            load = copies.loaded_keys
            return apart.serve(
                {"drill": lambda _: drill(settings), "load": lambda of: {"keys": load(at.REDIS_COPIES / of)}}
            )
        case "check-restore" | "restore":
            return _restore(given, settings)
        case _:
            return _offsite(given, settings)


def _restore(given: argparse.Namespace, settings: Settings) -> int:
    target = Target(moment=given.to, backup=given.backup, latest=given.latest)
    if given.command == "check-restore":
        # What is removed meanwhile by retention is not there for a restore.
        with exclusive(at.ROOT / "lock"):
            planned = _planned(target, seconds=_CATCHES_UP_SECONDS)
            if given.into:
                restore.check(planned, given.into)
        print(json.dumps({"backup": planned.source.id, "needed_bytes": planned.needed, **planned.recovery}))
        return 0
    # Nothing that it needs is removed meanwhile.
    with exclusive(at.ROOT / "lock"):
        planned = _planned(target, seconds=0.0)
        restore.check(planned, given.into)
        restore.restore(settings, planned, given.into)
    say(f"{given.into} is ready")
    return 0


def _planned(target: Target, *, seconds: float) -> Plan:
    """Plan a restore, `latest` not as an older moment than what PostgreSQL has. seconds: to be received within."""
    planned = restore.plan(target)
    if target.latest and isinstance(planned.source, Base):
        present.refuse_older(planned.source, at.PRESENT, seconds=seconds)
    return planned


def _offsite(given: argparse.Namespace, settings: Settings) -> int:
    if settings.offsite is None:
        raise CannotError("no off-site copy is configured")
    match given.action:
        case "sync":
            offsite.sync(settings.offsite, adopt=given.adopt)
        case "check":
            offsite.check(settings.offsite, read=given.read)
        case "list":
            print(json.dumps([vars(each) for each in offsite.snapshots(settings.offsite)], indent=1))
        case _:
            offsite.pull(settings.offsite, snapshot=given.snapshot)
    return 0


def _table(found: Sequence[dict[str, Any]]) -> None:
    for entry in found:
        reach = f"  {entry['from']} .. {entry['to']}" if entry["from"] else ""
        reach += "".join(f", but {pause['from']} .. {pause['to']}" for pause in entry["without"])
        reach += f"  {entry['note']}" if entry["note"] else ""
        print(f"{entry['id']:24} {entry['kind']:5} {entry['status']:10} {entry['bytes']:>14}{reach}")


def moment(text: str) -> datetime:
    """Read a moment, which must say its offset: a restore to another hour is a disaster of its own."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text} says no offset; write it, as in 2026-11-23 10:05:00+03")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="samokoder-backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="the service")
    commands.add_parser("serve-drill", help="the part `drill`: does what it is asked for, one after the other")
    commands.add_parser("workspace", help="hand out copies of the workspace")
    now = commands.add_parser("now", help="make a backup now")
    now.add_argument("--kind", choices=("base", *copies.KINDS, "all"), default="all")
    for name, text in (
        ("list", "what there is"),
        ("verify", "check what there is"),
        ("drill", "restore and throw away"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--json", action="store_true")
        if name == "verify":
            command.add_argument("id", nargs="?")
    for name in ("check-restore", "restore"):
        command = commands.add_parser(name, help="restore into a folder" if name == "restore" else "whether one could")
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--to", type=moment, metavar="MOMENT")
        which.add_argument("--backup", metavar="ID")
        which.add_argument("--latest", action="store_true")
        command.add_argument("--into", type=Path, required=name == "restore")
    away = commands.add_parser("offsite", help="the copy in a bucket")
    actions = away.add_subparsers(dest="action", required=True)
    actions.add_parser("sync").add_argument("--adopt", action="store_true")
    actions.add_parser("check").add_argument("--read", default="", metavar="PERCENT")
    actions.add_parser("list")
    actions.add_parser("pull").add_argument("--snapshot", default="latest")
    return parser


if __name__ == "__main__":
    sys.exit(main())
