"""What a restore or a rotation would do, said and not done: nothing is stopped, made or locked for it."""

from __future__ import annotations

import contextlib
from datetime import datetime

from operations.data import backups
from operations.data.restore import on_engine, restore
from operations.data.restore.request import LATEST, OFFSITE, Wanted, wanted
from operations.engine import containers
from operations.errors import ProjectError
from operations.rotation import plan
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL
from stack.spec.rotation import label

NOTHING_RESTORED = "Nothing was stopped or changed."


def of_restore(
    workspace: Workspace, *, to: str = "", backup: str = "", source: str = "", listed: bool = True
) -> list[str]:
    """Return what a restore would do, line by line. Raises ProjectError for what it would refuse at once.

    A backup of this machine must be in the list of backups; only a real restore tells whether it can be read.
    """
    environment = workspace.settings()
    asked = wanted(environment, to=to, backup=backup, source=source)
    with contextlib.closing(workspace.client(timeout=backups.ANSWER_SECONDS)) as client:
        hands = on_engine.EngineRestore(client, environment, workspace.reporter, lambda: None)
        planned = restore.planned(workspace, asked, hands)
        stopped = {each.labels[PART_LABEL] for each in containers.of_fields(client, environment, planned.stops)}
        data = [hands.data_of(server) for server in planned.journal.servers]
    if listed and not planned.journal.done and not planned.journal.wanted.mend:
        _refuse_unlisted(workspace, planned.journal.wanted)
    steps = planned.steps()
    return [
        f"{'Goes on with' if planned.journal.done else 'Would restore'}: {planned.journal.wanted}",
        *(
            f"  [{number}/{len(steps)}] {title}{' (done before)' if key in planned.journal.done else ''}"
            for number, (key, title, _) in enumerate(steps, 1)
        ),
        f"Stopped meanwhile: {', '.join(sorted(stopped)) or 'nothing, as none of them is there'}",
        f"Set aside before it is replaced: what is in {' and '.join(data)}",
    ]


def _refuse_unlisted(workspace: Workspace, asked: Wanted) -> None:
    """Raise ProjectError for a backup or a moment that is not in the list of this machine's backups."""
    if asked.source == OFFSITE or asked.whole or asked.backup == LATEST:
        return
    rows, _ = backups.backups(workspace)
    listed = workspace.typed("backups")
    if asked.backup and asked.backup not in {row.id for row in rows}:
        raise ProjectError(f"There is no backup {asked.backup!r}. `{listed}` lists what there is.")
    if asked.to:
        at = datetime.fromisoformat(asked.to)
        if not any(start <= at and (end is None or at <= end) for row in rows for start, end in row.ranges()):
            raise ProjectError(f"No backup reaches {asked.to}. `{listed}` lists which moments one can go back to.")


def of_rotation(workspace: Workspace, name: str, *, retire_now: bool = False) -> list[str]:
    """Return what a rotation would do, line by line. Raises ProjectError for what it would refuse at once."""
    secret, written, planned = plan.planned(workspace, name)
    lines = [f"{label(secret)}: {plan.going_on(secret, written, planned)}. Each step is an `up`:"]
    for number, step in enumerate(planned, 1):
        waits = "" if retire_now or not plan.waits(secret, step) else ", once the tokens of the old key have expired"
        lines.append(f"  [{number}/{len(planned)}] {plan.says(secret, step)}{waits}")
    return [*lines, f"Nothing was changed, {workspace.committed_file.name} neither."]
