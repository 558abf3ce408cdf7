"""After `up`: the smoke test, a test alert, and what to look at in the first day."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from operations.checks.alert import alert_report, send
from operations.checks.report import Check, Finding, Report, Verdict, ask_all
from operations.checks.smoke import smoke
from operations.clone import typed
from operations.data.repair import collations, redis_log
from operations.errors import FailedError, NotConfiguredError, ProjectError, UnavailableError
from operations.network import from_edge, mtu, packet_filter
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.outputs import REACH_SOMEBODY
from stack.parts.alertmanager.routing import integrations
from stack.settings.environment import Environment
from stack.settings.keys import key_of


def after(workspace: Workspace, *, seconds: float = 10, wait: float = 60) -> Report:
    """Check a stack after `up`: smoke test, test alert, restarts, Redis' file, collations, network.

    wait: seconds for which a failed smoke test is repeated. Raises ProjectError as `smoke.smoke` does.
    """
    smoked = smoke.smoke(workspace, seconds=seconds, wait=wait)
    counted = next((each.why for each in smoked.findings if each.check == "metrics redis"), "nothing is known")
    rest = [
        Check(name="restarts", ask=lambda: _restarts(workspace)),
        Check(name="redis' file", ask=lambda: redis_log.read(workspace, counted=counted)),
        Check(name="collations", ask=lambda: collations.read(workspace)),
        Check(name="closed addresses", ask=lambda: _closed(workspace)),
        Check(name="large packets", ask=lambda: mtu.try_large(workspace)),
    ]
    found = [*smoked.findings, *_delivered(workspace), *ask_all(rest, seconds=seconds)]
    return Report(title=f"After `{workspace.typed('up')}` of {workspace.name}", about=smoked.about, findings=found)


def _delivered(workspace: Workspace) -> Iterator[Finding]:
    ways = integrations(workspace.settings())
    if not ways:
        yield Finding(check="test alert", verdict=Verdict.NOT_CONFIGURED, why=f"goes to nobody: {REACH_SOMEBODY}")
        return
    try:
        report = send.send_test_alert(workspace)
    except ProjectError as error:
        yield Finding(check="test alert", verdict=Verdict.FAILED, why=str(error))
        return
    for each in report.integrations:
        good = each.state is alert_report.DeliveryState.DELIVERED
        verdict = Verdict.PASSED if good else Verdict.FAILED
        yield Finding(check=f"test alert by {each.integration}", verdict=verdict, why=each.text)


def _restarts(workspace: Workspace) -> str:
    restarted = [f"{row.part} {row.restarts} times" for row in live_status(workspace) if row.restarts]
    if restarted:
        raise FailedError(f"containers ended and were started again: {', '.join(restarted)}")
    return "no container has ended since it was made"


def _closed(workspace: Workspace) -> str:
    environment = workspace.settings()
    if not environment.settings.packet_filter.closed:
        raise NotConfiguredError(f"{key_of('packet_filter', 'closed')} is empty: everything is open, as it says")
    if "backup" in environment.absent:
        raise UnavailableError("it is tried in the backup server's image, which is not here")
    with contextlib.closing(workspace.client()) as client:
        if found := from_edge.reached(environment, client):
            _, why = packet_filter.look(environment, client)
            raise FailedError(f"a container on `edge` reaches {', '.join(found)}. {why}")
    return "a container on `edge` finds nobody there"


def first_day(environment: Environment) -> list[str]:
    """Return what a person looks at in the first 24 hours after an `up`."""
    settings = environment.settings
    backup = settings.backup
    name = environment.name
    smoke_test = f"{typed(name, 'smoke')}, and {settings.prometheus.address}/alerts, where Watchdog alone fires"
    restarts = (
        f"{typed(name, 'status')}: no restart; {settings.grafana.address}/d/samokoder-containers: no memory that grows"
    )
    signals = f"{settings.grafana.address}/d/samokoder-golden-signals: errors and latency as before"
    watch = [f"after 10 minutes: {smoke_test}", f"after an hour: {restarts}", f"after a few hours: {signals}"]
    if backup.enabled:
        base = f"the base backup of {backup.base_schedule} and " if environment.physical_backups else ""
        schedules = f"{base}the dump of {environment.dump_schedule} (UTC)"
        watch.append(f"next morning: {typed(name, 'backups')}: {schedules}, there and good")
    return [*watch, "next morning: the disk has not lost more than you expected (HostDiskFillsSoon would say so)"]
