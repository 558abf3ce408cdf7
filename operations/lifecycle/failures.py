"""Why a container is not healthy, in a few lines: since when, its check's output, and the distinct lines of its log."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import docker.errors

from operations.engine import containers
from operations.engine.log_lines import Line, cut
from operations.engine.part_status import PartStatus, status_of_container
from operations.engine.redaction import without
from operations.workspace.every_secret import every_secret
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL

if TYPE_CHECKING:
    from docker.models.containers import Container

_READ_LINES, _TOLD_LINES, _CHECK_LINES = 500, 6, 2
_WIDTH = 240
# Two lines that say the same may differ in these: times, process ids in brackets, ids and durations.
_PASSING = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*|\b\d\d:\d\d:\d\d\S*|\[\d+\]|\b[0-9a-f]{12,}\b|\b[0-9a-f-]{36}\b|\d+\.\d+"
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A part that is not healthy. `text`: why, for a person; empty where the part is still starting."""

    part: str
    text: str


def failures(
    client: docker.DockerClient, environment: str, secrets: Mapping[str, str], *, more: Callable[[str], str]
) -> Iterator[Failure]:
    """Yield each container of an environment that is not healthy, those that have failed first.

    secrets: name -> value that must not be shown; `<name>` is shown in its place. more: returns the command that shows
    the whole log of a part.
    """
    waiting = []
    for container in containers.of_environment(client, environment):
        row = status_of_container(container.labels.get(PART_LABEL, "?"), container)
        if row.ok:
            continue
        if row.health == "starting" and not row.restarts and not _failing_checks(container.attrs["State"]):
            waiting.append(Failure(part=row.part, text=""))
            continue
        lines = [_how(row, container.attrs["State"])]
        lines += [f"  {line}" for line in _said(container, secrets)]
        lines.append(f"  more: {more(row.part)}")
        yield Failure(part=row.part, text=without(secrets, "\n".join(lines)))
    yield from waiting


def _how(row: PartStatus, state: Mapping[str, Any]) -> str:
    """Say in one line how a container is, and since when."""
    restarts = f", restarted {row.restarts} times" if row.restarts else ""
    if not state["Running"] or state.get("Restarting"):
        killed = ": it needed more memory than its limit" if state.get("OOMKilled") else ""
        engine = f"; {state['Error']}" if state.get("Error") else ""
        at = _moment(state.get("FinishedAt", ""))
        return f"{row.part} is not healthy: ended{at} with {state.get('ExitCode')}{killed}{engine}{restarts}"
    failed = _failing_checks(state)
    if not failed:
        return f"{row.part} is not healthy: {row.health}, running{_moment(state['StartedAt'])}{restarts}"
    log = (state.get("Health") or {}).get("Log") or []
    first = log[-failed]["Start"] if failed <= len(log) else state["StartedAt"]
    return f"{row.part} is not healthy{_moment(first)}: {failed} checks in a row have failed{restarts}"


def _failing_checks(state: Mapping[str, Any]) -> int:
    return int((state.get("Health") or {}).get("FailingStreak") or 0)


def _moment(text: str) -> str:
    """Return ` since` with a time that the engine has written, and its age; empty where the engine has none."""
    with contextlib.suppress(ValueError):
        at = datetime.fromisoformat(text).astimezone(UTC)
        if at.year > 1:  # the engine writes the year 1 for an event that has not happened
            return f" since {at:%H:%M:%S} UTC ({max(0, round((datetime.now(tz=UTC) - at).total_seconds()))} s)"
    return ""


def _said(container: Container, secrets: Mapping[str, str]) -> Iterator[str]:
    """Yield the output of the last health check, then the last distinct lines of the log."""
    for check in ((container.attrs["State"].get("Health") or {}).get("Log") or [])[-1:]:
        # The error is at the end of the output, perhaps after a whole traceback.
        said = without(secrets, str(check.get("Output", ""))).strip().splitlines()[-_CHECK_LINES:]
        said = [Line(part="", at="", text=line).readable() for line in said]
        yield from (f"check: {cut(line, _WIDTH)}" for line in said or [f"ended with {check.get('ExitCode')}"])
    with contextlib.suppress(docker.errors.APIError):
        text = without(secrets, container.logs(tail=_READ_LINES).decode(errors="replace"))
        yield from (f"log: {line}" for line in folded(text) or ["it is empty"])


def folded(text: str) -> list[str]:
    """Return the last distinct lines of a log, the newest last; a line that came more than once has its count."""
    times: dict[str, int] = {}
    newest: dict[str, str] = {}
    for raw in filter(str.strip, text.splitlines()):
        line = Line(part="", at="", text=raw.rstrip()).readable()
        key = _PASSING.sub("#", line)
        times[key] = times.get(key, 0) + 1
        newest.pop(key, None)  # it comes last now
        newest[key] = line
    last = list(newest.items())[-_TOLD_LINES:]
    return [cut(line, _WIDTH) + (f" ({times[key]} times)" if times[key] > 1 else "") for key, line in last]


def tell_failures(workspace: Workspace, run: PulumiRun) -> list[str]:
    """Report, without secrets, why each unhealthy container is unhealthy.

    Return the parts that have failed; where none has, those that are still starting.
    """
    secrets = every_secret(run)
    client = workspace.client()
    try:
        found = list(failures(client, workspace.name, secrets, more=lambda part: workspace.typed(f"logs PART={part}")))
    finally:
        client.close()
    for each in found:
        if each.text:
            workspace.reporter.say(f"\n{each.text}")
    if waiting := [each.part for each in found if not each.text]:
        workspace.reporter.say(f"\nNot yet healthy, without a failed check: {', '.join(waiting)}")
    return [each.part for each in found if each.text] or waiting
