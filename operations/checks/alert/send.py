"""`samokoder test-alert`: sends a test alert, and tells whether each integration delivered it.

The alert takes the path of a real one: AlertManager's API, its route, the receiver that has every configured
integration. AlertManager's own metrics, which are separate for this receiver
(`--enable-feature=receiver-name-in-metrics`), say whether it was delivered. Two tests at the same time count each
other's deliveries.
"""

from __future__ import annotations

import httpx

from host.progress import Reporter, Task
from operations.checks.alert.alert_report import AlertReport
from operations.checks.alert.alertmanager import AlertManager
from operations.checks.alert.message import TestAlert
from operations.engine import reach
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from stack.monitoring import access
from stack.outputs import REACH_SOMEBODY
from stack.parts.alertmanager.routing import integrations
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.settings.types import seconds
from stack.spec.rotation import label
from stack.spec.secrets import ALERTMANAGER_WEB

_SECONDS = 60.0


def send_test_alert(
    workspace: Workspace, *, severity: str = "critical", timeout: float | None = None, url: str = ""
) -> AlertReport:
    """Send a test alert, wait until it and its end are delivered, and leave nothing behind.

    timeout: seconds for each of four waits: an alert from Prometheus, the delivery of the test alert, the delivery of
    its end, the heartbeat; None: 60, and for the heartbeat what it needs. url: AlertManager's address, where this
    machine does not reach the published port.
    Raises ProjectError where no integration is configured, or AlertManager does not answer, or it belongs to another
    environment, or the timeout is too short for the heartbeat.
    """
    environment = workspace.settings()
    if not integrations(environment):
        raise ProjectError(f"alerts of {environment.name} go to nobody: {REACH_SOMEBODY}")
    password = ""
    if environment.basic_auth:
        password = workspace.open_made().secrets().get(label(ALERTMANAGER_WEB), "")
    auth = (access.USER, password) if password else None
    with (
        reach.part(environment, environment.settings.alertmanager, url) as address,
        # A proxy from this machine's variables would connect to its own loopback, not to ours.
        httpx.Client(base_url=address, auth=auth, timeout=10, trust_env=False) as client,
    ):
        return run_test_alert(environment, client, severity=severity, timeout=timeout, reporter=workspace.reporter)


def broken_before(environment: Environment, client: httpx.Client) -> str:
    """Return why Prometheus' alerts do not reach the AlertManager that `client` speaks to; empty: they do.

    Raises ProjectError where what answers is not AlertManager, or belongs to another environment.
    """
    return AlertManager(client, environment, every=0).without_watchdog(0, Task("watchdog"))


def run_test_alert(
    environment: Environment,
    client: httpx.Client,
    *,
    severity: str,
    timeout: float | None,
    reporter: Reporter,
    every: float = 0.5,
) -> AlertReport:
    """Run the test of `send_test_alert` on the AlertManager behind `client`. every: seconds between two looks."""
    ways = list(integrations(environment))
    heartbeat = _heartbeat_seconds(environment, timeout)
    timeout = _SECONDS if timeout is None else timeout
    alertmanager = AlertManager(client, environment, every)
    alertmanager.check(ways)
    with reporter.task("Prometheus reaches AlertManager") as task:
        broken = alertmanager.without_watchdog(timeout, task)
    test = TestAlert.new(environment, severity, alertmanager.now())
    deliveries = alertmanager.deliver(test, ways, timeout, reporter)
    if heartbeat:
        deliveries.append(alertmanager.beat(heartbeat, reporter))
    return AlertReport(
        environment=environment.name,
        test_id=test.id,
        severity=severity,
        broken_before=broken,
        integrations=deliveries,
    )


def _heartbeat_seconds(environment: Environment, timeout: float | None) -> float:
    """Return how long to wait for a beat; 0: there is none. Raises ProjectError where the timeout is too short."""
    if "heartbeatUrl" not in environment.configured_secrets:
        return 0
    interval = environment.settings.alertmanager.heartbeat_interval
    # The next one is up to an interval away, and AlertManager may be busy with it for as long.
    needed = 2 * seconds(interval)
    if timeout is not None and timeout < needed:
        raise ProjectError(
            f"--timeout {timeout:g} is too short: the heartbeat is sent every {interval} "
            f"({key_of('alertmanager', 'heartbeat_interval')}), and to see one of them takes up to {needed:g} s. "
            f"Write --timeout {needed:g} or more, or leave it out"
        )
    return max(_SECONDS, needed) if timeout is None else timeout
