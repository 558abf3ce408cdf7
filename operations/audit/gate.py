"""The hardening gate: judges the containers of an environment by `rules` and `exceptions`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from host.progress import Reporter
from operations.audit.exceptions import LIST, Allowed, exceptions
from operations.audit.facts import found
from operations.audit.rules import RULES, Broken, Seen, broken
from operations.errors import ProjectError

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from operations.workspace.known import Known


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """What the gate says of an environment."""

    parts: int
    findings: list[Broken]
    """Broken rules that no exception covers, and what is wrong with the list of exceptions."""
    listed: list[Broken]

    def as_json(self) -> dict[str, Any]:
        """Return it as `samokoder hardening --json` prints it."""
        return {
            "parts": self.parts,
            "rules": len(RULES),
            "findings": [each.as_json() for each in self.findings],
            "listed": [each.as_json() for each in self.listed],
        }


def gate(there: Known) -> GateResult:
    """Judge an environment's containers. Raises ProjectError where it has none, or the list cannot be read."""
    from operations.engine.containers import of_environment  # noqa: PLC0415 - the policy pack has the rules without an engine

    allowed = exceptions()
    client = there.client()
    try:
        running = of_environment(client, there.name)
        if not running:
            raise ProjectError(f"{there.name} is not up: {there.workspace.typed('up')}")
        return judge(inspect(client, running, there.workspace.reporter), allowed, datetime.now(UTC).date())
    finally:
        client.close()


def judge(containers: Iterable[Seen], allowed: Sequence[Allowed], today: date) -> GateResult:
    """Judge containers by the rules and the list of exceptions.

    An exception that has expired is a finding. So is one that no container needs any more, unless its part is not there
    or its `only` says that the need depends on the settings.
    """
    parts: list[str] = []
    findings: list[Broken] = []
    listed: list[Broken] = []
    used: set[Allowed] = set()
    for seen in containers:
        parts.append(seen.facts.part)
        for each in broken(seen):
            matching = [exception for exception in allowed if exception.allows(each)]
            used.update(matching)
            (listed if matching else findings).append(each)
    findings += [*_of_list(allowed, used, parts, today)]
    return GateResult(parts=len(parts), findings=findings, listed=listed)


def _of_list(
    allowed: Iterable[Allowed], used: Collection[Allowed], parts: Collection[str], today: date
) -> Iterator[Broken]:
    for exception in allowed:
        about = {"part": exception.part, "rule": exception.rule, "what": exception.what}
        if exception.expires < today:
            yield Broken(
                **about,
                says=f"its exception has expired on {exception.expires}: do without it, or give it a new date",
            )
        concerned = any(fnmatchcase(part, exception.part) for part in parts)
        if concerned and not exception.only and exception not in used:
            yield Broken(**about, says=f"its exception is not needed any more: remove it from {LIST.name}")


def inspect(client: docker.DockerClient, containers: Sequence[Container], reporter: Reporter) -> list[Seen]:
    """Ask the engine about each container: its image, its processes and its `docker exec` sessions."""
    options = client.info().get("SecurityOptions") or []
    engine = frozenset(option.partition("name=")[2].partition(",")[0] for option in options)
    seen = []
    with reporter.task("Asking the engine") as task:
        for container in containers:
            task.detail = str(container.name)
            attributes = container.attrs
            image = client.images.get(attributes["Image"]).attrs.get("Config") or {}
            seen.append(
                Seen(
                    facts=found(attributes, image),
                    apparmor=str(attributes.get("AppArmorProfile") or ""),
                    engine=engine,
                    processes=tuple(_processes(container)),
                    sessions=tuple(_sessions(client, attributes.get("ExecIDs") or ())),
                )
            )
    return seen


def _processes(container: Container) -> Iterator[str]:
    import docker.errors  # noqa: PLC0415 - as above

    with contextlib.suppress(docker.errors.APIError):  # it does not run
        yield from (str(row[-1]) for row in container.top()["Processes"] or ())


def _sessions(client: docker.DockerClient, ids: Iterable[str]) -> Iterator[tuple[str, bool]]:
    import docker.errors  # noqa: PLC0415 - as above

    for each in ids:
        with contextlib.suppress(docker.errors.APIError):  # it has just ended, as a health check does
            session = client.api.exec_inspect(each)
            if session.get("Running"):
                process = session.get("ProcessConfig") or {}
                yield str(process.get("user") or ""), bool(process.get("privileged"))
