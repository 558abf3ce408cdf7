"""The test alert, against a small AlertManager in this process."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from host.progress import Reporter
from operations import __main__ as command
from operations.checks.alert import send
from operations.checks.alert.alert_report import AlertReport, Delivery, DeliveryState
from operations.checks.alert.alertmanager import AlertManager
from operations.clone import ROOT
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from tests.recording import case_environment, environment_of

WATCHED = case_environment("every-receiver")
"""With a heartbeat."""
ENVIRONMENT = WATCHED.model_copy(update={"configured_secrets": WATCHED.configured_secrets - {"heartbeatUrl"}})
WAYS = ("telegram", "email", "webhook")
# A way of the stand-in: delivers, or fails as it says.
WORKS, REFUSES, RETRIES, SILENT, LOSES_THE_END = "works", "refuses", "retries", "silent", "loses the end"


@dataclass
class FakeAlertmanager:
    """AlertManager's API and metrics, with nothing behind them."""

    ways: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(WAYS, WORKS))
    environment: str = "staging"
    watchdog_age: timedelta | None = timedelta(seconds=20)
    other_age: timedelta | None = None
    ahead: timedelta = timedelta()
    """Its clock, beside ours."""
    status: Mapping[str, Any] = field(default_factory=lambda: {"state": "active", "silencedBy": [], "inhibitedBy": []})
    build: str = 'alertmanager_build_info{version="0.34.1"} 1'
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    posted: list[dict[str, Any]] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    failed_attempts: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    heartbeat: str = WORKS

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def answer(self, request: httpx.Request) -> httpx.Response:
        headers = {"Date": format_datetime(self.now(), usegmt=True)}
        if request.url.path == "/metrics":
            return httpx.Response(200, text=self.metrics(), headers=headers)
        assert request.url.path == "/api/v2/alerts"
        if request.method == "POST":
            for alert in json.loads(request.content):
                self.take(alert)
            return httpx.Response(200, headers=headers)
        name, _, value = request.url.params["filter"].partition("=")
        found = [alert for alert in self.firing() if alert["labels"].get(name) == value.strip('"')]
        return httpx.Response(200, json=found, headers=headers)

    def take(self, alert: dict[str, Any]) -> None:
        begins, ends = (datetime.fromisoformat(alert[key]) for key in ("startsAt", "endsAt"))
        assert begins <= ends, "AlertManager refuses an alert that ends before it begins"
        self.posted.append(alert)
        over = ends <= self.now()
        self.alerts[alert["labels"]["test_id"]] = alert
        for way, how in self.ways.items():
            if how == WORKS or (how == LOSES_THE_END and not over):
                self.attempts[way] = self.attempts.get(way, 0) + 1
            elif how in {REFUSES, RETRIES} and not over:
                self.attempts[way] = self.attempts.get(way, 0) + 3
                self.failed_attempts[way] = self.failed_attempts.get(way, 0) + 3
                self.given_up[way] = self.given_up.get(way, 0) + (how == REFUSES)

    def firing(self) -> list[dict[str, Any]]:
        test = [
            {**alert, "status": self.status}
            for alert in self.alerts.values()
            if datetime.fromisoformat(alert["endsAt"]) > self.now()
        ]
        ages = {"Watchdog": self.watchdog_age, "ApiDown": self.other_age}
        return test + [
            {
                "labels": {"alertname": name, "environment": self.environment},
                "updatedAt": (self.now() - age).isoformat(),
            }
            for name, age in ages.items()
            if age is not None
        ]

    def metrics(self) -> str:
        self.looks += 1
        lines = [self.build]
        for way in self.ways:
            # What other receivers do is no concern of the test.
            for receiver, times in (("on-call", 1000 + self.looks), ("test-alert", 0)):
                labels = f'integration="{way}",receiver_name="{receiver}"'
                for name, count in (("", self.attempts), ("_failed", self.failed_attempts)):
                    value = 7 + count.get(way, 0) + times
                    lines.append(f"alertmanager_notification_requests{name}_total{{{labels}}} {value}")
                for reason, value in (("authError", 2 + self.given_up.get(way, 0)), ("other", 5)):
                    lines.append(
                        f'alertmanager_notifications_failed_total{{{labels},reason="{reason}"}} {value + times}'
                    )
        labels = 'integration="webhook",receiver_name="heartbeat"'
        beats = self.looks if self.heartbeat != SILENT else 0
        refused = beats if self.heartbeat == REFUSES else 0
        lines += [
            f"alertmanager_notification_requests_total{{{labels}}} {beats}",
            f"alertmanager_notification_requests_failed_total{{{labels}}} {refused}",
            f'alertmanager_notifications_failed_total{{{labels},reason="clientError"}} {refused}',
        ]
        return "\n".join(lines) + "\n"


def run(
    server: FakeAlertmanager | Callable[[httpx.Request], httpx.Response],
    environment: Environment = ENVIRONMENT,
    *,
    severity: str = "critical",
    timeout: float | None = 60.0,
) -> AlertReport:
    answer = server.answer if isinstance(server, FakeAlertmanager) else server
    with httpx.Client(base_url="http://alertmanager.test", transport=httpx.MockTransport(answer)) as client:
        reporter = Reporter(Console(file=io.StringIO()))
        return send.run_test_alert(
            environment, client, severity=severity, timeout=timeout, reporter=reporter, every=0.01
        )


def states(report: AlertReport) -> dict[str, str]:
    return {each.integration: each.state for each in report.integrations}


def test_an_alert_that_every_way_delivers_is_a_success_and_nothing_stays() -> None:
    server = FakeAlertmanager()
    report = run(server, severity="warning")

    assert report.ok
    assert states(report) == dict.fromkeys(WAYS, "delivered")
    first, last = server.posted
    assert first["labels"] == last["labels"], "another label is another alert, and this one would go on"
    assert first["labels"] == {
        "alertname": "TestAlert",
        "severity": "warning",
        "environment": "staging",
        "service": "test",
        "test_id": report.test_id,
    }
    assert datetime.fromisoformat(first["endsAt"]) > server.now(), "it fires"
    assert datetime.fromisoformat(last["endsAt"]) <= server.now(), "it is over"
    assert report.test_id in first["annotations"]["description"], "a person tells two tests apart"


def test_two_tests_are_two_alerts() -> None:
    server = FakeAlertmanager()
    assert run(server).test_id != run(server).test_id, "the second would be taken for the first, and not sent"


def test_the_test_speaks_the_language_of_the_messages() -> None:
    server = FakeAlertmanager(ways={"webhook": WORKS})
    run(server, environment_of("staging", {"alertWebhookUrl": "https://hooks.example.org/0123456789abcdef"}))
    assert "this is a test" in server.posted[0]["annotations"]["summary"]
    server = FakeAlertmanager()
    run(server)
    assert "это проверка" in server.posted[0]["annotations"]["summary"]


def test_one_way_that_fails_is_told_with_its_reason_and_fails_the_test() -> None:
    report = run(FakeAlertmanager(ways={"telegram": REFUSES, "email": WORKS, "webhook": WORKS}))

    assert not report.ok
    assert states(report) == {"telegram": "failed", "email": "delivered", "webhook": "delivered"}
    assert report.integrations[0].reason == "given up after 3 failed attempts (reason: authError)"
    assert "Not delivered by telegram." in report.failure


def test_an_attempt_is_delivered_only_when_its_failure_is_not_counted_a_moment_later() -> None:
    server = FakeAlertmanager(ways={"telegram": WORKS, "email": SILENT, "webhook": WORKS})
    metrics = server.metrics

    def a_moment_apart() -> str:
        # AlertManager counts the attempt, then its failure; this look is between the two, the next one after them.
        if server.posted and server.attempts.get("email", 0) == 0:
            server.attempts["email"] = 1
            said = metrics()
            server.failed_attempts["email"] = 1
            return said
        return metrics()

    server.metrics = a_moment_apart  # type: ignore[method-assign]
    assert states(run(server, timeout=0.2))["email"] == "no answer"


def test_a_way_that_is_still_at_it_has_no_answer_but_a_count() -> None:
    report = run(FakeAlertmanager(ways={"telegram": RETRIES, "email": WORKS, "webhook": WORKS}), timeout=1)
    assert report.integrations[0].text == "no answer: 3 failed attempts within 1 s"


def test_an_end_that_is_lost_is_a_failure() -> None:
    report = run(FakeAlertmanager(ways={"telegram": WORKS, "email": LOSES_THE_END, "webhook": WORKS}), timeout=1)

    assert not report.ok
    assert states(report)["email"] == "failed"
    assert "its end was not" in report.integrations[1].reason, "people would go on looking for what is over"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"state": "suppressed", "silencedBy": ["0d5e"], "inhibitedBy": []}, "it is silenced: 0d5e"),
        ({"state": "suppressed", "silencedBy": [], "inhibitedBy": ["abc"]}, "it is suppressed"),
        ({"state": "active", "silencedBy": [], "inhibitedBy": []}, ""),
    ],
)
def test_what_keeps_the_alert_back_is_told(status: dict[str, Any], said: str) -> None:
    server = FakeAlertmanager(ways=dict.fromkeys(WAYS, SILENT), status=status)
    report = run(server, timeout=0.2)
    assert [each.reason for each in report.integrations] == [said] * len(WAYS)
    assert datetime.fromisoformat(server.posted[-1]["endsAt"]) <= server.now(), "it is over all the same"


@pytest.mark.parametrize(
    ("age", "said"),
    [(None, "nor another alert has arrived"), (timedelta(minutes=10), r"arrived from Prometheus [56][0-9]{2} s ago")],
)
def test_a_chain_that_is_broken_before_alertmanager_fails_the_test_and_the_rest_is_still_told(
    age: timedelta | None, said: str
) -> None:
    report = run(FakeAlertmanager(watchdog_age=age), timeout=1)

    assert not report.ok, "no real alert would come so far"
    assert re.search(said, report.broken_before)
    assert report.broken_before in report.failure
    assert states(report) == dict.fromkeys(WAYS, "delivered"), "where the chain is broken is worth to know"


def test_another_alert_shows_that_the_chain_works_where_the_only_way_is_dead_and_the_watchdog_stops() -> None:
    report = run(FakeAlertmanager(watchdog_age=None, other_age=timedelta(seconds=30)), timeout=1)
    assert not report.broken_before, "a deploy that mends the way to people would be taken back"
    assert run(FakeAlertmanager(watchdog_age=None, other_age=timedelta(minutes=10)), timeout=1).broken_before


@pytest.mark.parametrize("ahead", [timedelta(hours=-3), timedelta(hours=3)])
def test_alertmanagers_own_clock_decides_what_is_over(ahead: timedelta) -> None:
    server = FakeAlertmanager(ahead=ahead)
    report = run(server)
    assert report.ok, "a host whose clock is wrong would never deliver a test, or never end it"
    assert not [alert for alert in server.firing() if alert["labels"]["alertname"] == "TestAlert"]


def test_another_environments_alertmanager_is_an_error() -> None:
    with pytest.raises(ProjectError, match=r"is that of 'prod', not of 'staging'"):
        run(FakeAlertmanager(environment="prod"))


def test_an_alertmanager_of_another_configuration_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(
        ProjectError, match=r"by email, but staging is configured for telegram, email, webhook: .*make up"
    ):
        run(FakeAlertmanager(ways={"email": WORKS}))
    with pytest.raises(ProjectError, match="knows no test alert"):
        run(FakeAlertmanager(ways={}))


def refused(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("Connection refused")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refused, r"does not answer at http://alertmanager.test \(Connection refused\): is it up\?"),
        (lambda _: httpx.Response(401, text="Unauthorized"), "refuses the password of staging"),
        (lambda _: httpx.Response(200, text="<html>Grafana</html>"), "is not AlertManager"),
        (lambda _: httpx.Response(500, text="broken"), "500 broken"),
    ],
)
def test_whatever_answers_otherwise_is_one_clear_line(
    answer: Callable[[httpx.Request], httpx.Response], said: str
) -> None:
    with pytest.raises(ProjectError, match=said) as error:
        run(answer)
    assert "\n" not in str(error.value)


def test_an_alert_does_not_stay_where_the_command_is_interrupted() -> None:
    server = FakeAlertmanager(ways=dict.fromkeys(WAYS, SILENT))

    def interrupted(request: httpx.Request) -> httpx.Response:
        if server.posted and request.url.path == "/metrics":
            raise KeyboardInterrupt
        return server.answer(request)

    with pytest.raises(KeyboardInterrupt):
        run(interrupted)
    first, last = server.posted
    assert datetime.fromisoformat(last["endsAt"]) <= server.now()
    assert datetime.fromisoformat(first["endsAt"]) < server.now() + timedelta(minutes=2), "even a killed one ends"


def test_where_alerts_go_to_nobody_the_test_says_what_to_set(tmp_path: Path) -> None:
    workspace = Workspace(root=ROOT, home=tmp_path)
    with pytest.raises(
        ProjectError, match=r"go to nobody: set samokoder:alertmanager.telegram .* samokoder:alertWebhookUrl"
    ):
        send.send_test_alert(workspace)
    assert not list(tmp_path.iterdir()), "Pulumi was asked for a password that nobody needs"


def report_of(**how: DeliveryState) -> AlertReport:
    return AlertReport(
        environment="staging",
        test_id="0123abcd",
        severity="critical",
        broken_before="",
        integrations=[Delivery(integration=way, state=state, reason="") for way, state in how.items()],
    )


def test_the_command_ends_with_0_only_when_all_is_delivered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def sent(workspace: Workspace, **options: Any) -> AlertReport:
        asked.update(options, environment=workspace.name)
        return report_of(telegram=DeliveryState.DELIVERED)

    monkeypatch.setattr(send, "send_test_alert", sent)
    command.app(["test-alert", "-e", "prod", "--severity", "info", "--timeout", "5"], standalone_mode=False)
    assert asked == {"environment": "prod", "severity": "info", "timeout": 5, "url": ""}
    assert capsys.readouterr().out.splitlines()[-1] == "  telegram    delivered"

    monkeypatch.setattr(
        send,
        "send_test_alert",
        lambda *_, **__: report_of(telegram=DeliveryState.FAILED, email=DeliveryState.DELIVERED),
    )
    with pytest.raises(SystemExit) as ended:
        command.main(["test-alert", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1, "a checklist goes on only after success"
    assert json.loads(said.out)["integrations"][0] == {"integration": "telegram", "state": "failed", "reason": ""}
    assert "Not delivered by telegram. See: make logs PART=alertmanager" in said.err


def test_a_severity_that_there_is_not_is_wrong_usage() -> None:
    assert CliRunner().invoke(command.app, ["test-alert", "--severity", "none"]).exit_code == 2


@pytest.mark.parametrize(
    ("how", "state"),
    [(WORKS, DeliveryState.DELIVERED), (REFUSES, DeliveryState.FAILED), (SILENT, DeliveryState.NO_ANSWER)],
)
def test_a_heartbeat_that_nobody_takes_is_no_success(
    how: str, state: DeliveryState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "seconds", lambda _: 0.1)
    report = run(FakeAlertmanager(heartbeat=how), WATCHED, timeout=0.3)
    assert states(report)["heartbeat"] == state, "a wrong address is found on the day that the machine dies"
    assert report.ok is (state is DeliveryState.DELIVERED)


def every(interval: str) -> Environment:
    """An environment whose heart beats so often."""
    secrets = {"heartbeatUrl": "https://beats.example.org/0123456789abcdef"}
    hooks = {"alertWebhookUrl": "https://hooks.example.org/0123456789abcdef"}
    return environment_of("staging", {**secrets, **hooks, "alertmanager": {"heartbeatInterval": interval}})


def test_a_timeout_that_is_too_short_for_the_heartbeat_is_refused_before_anything_is_sent() -> None:
    server = FakeAlertmanager(ways={"webhook": WORKS})
    with pytest.raises(ProjectError, match=r"--timeout 119 is too short: .* every 1m .* Write --timeout 120 or more"):
        run(server, every("1m"), timeout=119)
    assert not server.posted, "who has to type it again gets two alerts"
    assert states(run(server, every("1m"), timeout=120)) == {"webhook": "delivered", "heartbeat": "delivered"}


@pytest.mark.parametrize(
    ("interval", "timeout", "waits"), [("1m", 200.0, 200.0), ("1m", None, 120.0), ("10s", None, 60.0)]
)
def test_the_heartbeat_is_waited_for_as_long_as_the_timeout_says_or_as_it_needs(
    interval: str, timeout: float | None, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def beat(_: AlertManager, timeout: float, reporter: Reporter) -> Delivery:
        waited.append(timeout)
        return Delivery(integration="heartbeat", state=DeliveryState.DELIVERED)

    monkeypatch.setattr(AlertManager, "beat", beat)
    run(FakeAlertmanager(ways={"webhook": WORKS}), every(interval), timeout=timeout)
    assert waited == [waits]
