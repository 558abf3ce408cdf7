"""AlertManager: where alerts go. Secrets are files that it reads itself; nothing is substituted by an entrypoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stack.app import api
from stack.common.names import NetworkName
from stack.monitoring import access, messages, rules
from stack.monitoring.rules.alertmanager import HEARTBEAT
from stack.monitoring.rules.model import Alert, down_alert
from stack.settings.environment import Environment
from stack.settings.monitoring import Timing
from stack.spec import health
from stack.spec.files import Files, secret_file, yaml_text
from stack.spec.secrets import ALERTMANAGER_WEB
from stack.spec.service import DataVolume, Publish, Scrape, ServiceSpec

PART = "alertmanager"
PORT = 9093

WATCHDOG = "Watchdog"
TEST_ALERT = "TestAlert"
NOTIFICATIONS_FAILING = "AlertmanagerNotificationsFailing"

ON_CALL = "on-call"
NOBODY = "nobody"
TEST_RECEIVER = "test-alert"

# Of two alerts about the same thing the one that says more, what it makes needless, and by which labels it is the same.
_SAYS_MORE: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("HostDiskAlmostFull", ("HostDiskLow", "HostDiskFillsSoon"), ("instance", "mountpoint")),
    ("HostMemoryExhausted", ("HostMemoryLow",), ("instance",)),
    ("PostgresConnectionsExhausted", ("PostgresConnectionsHigh",), ("service",)),
    ("TlsCertificateExpiresVerySoon", ("TlsCertificateExpiresSoon",), ("instance",)),
)
_GONE = "ContainerMissing"
_STORES_NOTHING = "PrometheusNotIngesting"
_UNHEALTHY = "ContainerUnhealthy"
# What else is noticed of a part that is down. None of them says that it is: the network may be, or one replica.
_NOTICED = frozenset({"ContainerUnhealthy", "ProbeFailed", "TargetDown"})
# Service of an alert about one replica, which is a part of its own.
_REPLICA = f"{api.JOB}-[0-9]+"


def spec(environment: Environment) -> ServiceSpec:
    """Describe AlertManager, without its files: these follow from all parts, see `with_files`."""
    settings = environment.settings.alertmanager
    password = access.password_of(environment, ALERTMANAGER_WEB)
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Alertmanager",
        image=environment.image("alertmanager"),
        user="65534:65534",
        settings=settings,
        entrypoint=("/bin/alertmanager",),
        command=(
            f"--config.file={access.FOLDER}/alertmanager.yml",
            "--storage.path=/alertmanager",
            # By its default of 15m, whoever silences an alert has silenced nothing if it is killed before.
            "--data.maintenance-interval=30s",
            f"--web.external-url={settings.address}/",
            "--web.route-prefix=/",
            # One instance: without a peer there is nothing to gossip with, and no address to guess.
            "--cluster.listen-address=",
            # Its metrics tell the test alert's notifications from all others: `make test-alert`.
            "--enable-feature=receiver-name-in-metrics",
            *((access.FLAG,) if password else ()),
        ),
        # Silences and the log of what was sent: lost, every firing alert would be sent again.
        data=DataVolume(name="alertmanager", path="/alertmanager", adopt=settings.adopt_volume),
        publish=Publish.of(settings, PORT, "/-/ready"),
        health_command=("amtool", f"--alertmanager.url=http://127.0.0.1:{PORT}", access.CLIENT_FLAG, "config", "show")
        if password
        else health.wget(PORT, "/-/ready"),
        networks=(NetworkName.EDGE, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        web_password=password,
    )


def with_files(described: ServiceSpec, environment: Environment, parts: Sequence[ServiceSpec]) -> ServiceSpec:
    """Return AlertManager with its files. parts: all that run, whose alerts keep others back."""
    return replace(described, files=files(environment, parts))


def files(environment: Environment, parts: Sequence[ServiceSpec]) -> Files:
    """Return the configuration, the messages, and the secrets that the configuration names. parts: all that run."""
    settings = environment.settings.alertmanager
    configured = environment.configured_secrets
    secrets: Files = {
        **({"telegram_bot_token": secret_file("telegramBotToken")} if settings.telegram else {}),
        **({"smtp_password": secret_file("smtpPassword")} if settings.email and settings.email.username else {}),
        **({"alert_webhook_url": secret_file("alertWebhookUrl")} if "alertWebhookUrl" in configured else {}),
        **({"heartbeat_url": secret_file("heartbeatUrl")} if "heartbeatUrl" in configured else {}),
    }
    guard = access.server_files(access.password_of(environment, ALERTMANAGER_WEB))
    return {
        "alertmanager.yml": alertmanager_yml(environment, parts),
        messages.FILE: messages.messages_tmpl(settings.language),
        **secrets,
        **guard,
    }


def alertmanager_yml(environment: Environment, parts: Sequence[ServiceSpec]) -> str:
    """Render alertmanager.yml: who gets which alert, when, and which alerts another one makes needless.

    parts: all that run.
    """
    document = {
        # Of an alert that comes without its end. Prometheus gives each one; who posts by hand may not.
        "global": {"resolve_timeout": "5m"},
        "templates": [f"{access.FOLDER}/{messages.FILE}"],
        "route": _route(environment),
        "receivers": list(_receivers(environment)),
        "inhibit_rules": list(inhibitions(rules.alerts(environment, parts))),
    }
    return yaml_text(document)


def integrations(environment: Environment) -> Mapping[str, Mapping[str, Any]]:
    """Return each configured way to reach a person, by the name that AlertManager's metrics give it."""
    settings = environment.settings.alertmanager
    ways: dict[str, Mapping[str, Any]] = {}
    if settings.telegram:
        ways["telegram"] = {
            "api_url": settings.telegram.api_url,
            "bot_token_file": f"{access.FOLDER}/telegram_bot_token",
            "chat_id": settings.telegram.chat_id,
            **({"message_thread_id": topic} if (topic := settings.telegram.message_thread_id) else {}),
            "parse_mode": "HTML",
            "message": messages.TELEGRAM,
            "send_resolved": True,
        }
    if settings.email:
        login = {
            "auth_username": settings.email.username,
            "auth_password_file": f"{access.FOLDER}/smtp_password",
        }
        ways["email"] = {
            "to": settings.email.recipient,
            "from": settings.email.sender,
            "smarthost": settings.email.smarthost,
            "require_tls": settings.email.require_tls,
            **(login if settings.email.username else {}),
            "headers": {"Subject": messages.SUBJECT},
            "text": messages.MAIL_TEXT,
            "html": messages.MAIL_HTML,
            "send_resolved": True,
        }
    if "alertWebhookUrl" in environment.configured_secrets:
        ways["webhook"] = _webhook("alert_webhook_url", send_resolved=True)
    return ways


def inhibitions(alerts: Iterable[Alert]) -> Iterator[dict[str, Any]]:
    """Yield the rules by which one firing alert keeps others back: who knows the one needs the others no more.

    alerts: every alert that there is. The Watchdog and the test alert are kept back by nothing.
    """
    known = [alert for alert in alerts if alert.name not in {WATCHDOG, TEST_ALERT}]
    down = {alert.name for alert in known if alert.name == down_alert(alert.service)}
    noticed = _NOTICED | {alert.name for alert in known if alert.name.endswith("Down")} - down
    if _STORES_NOTHING in {alert.name for alert in known}:
        # What was measured is gone, so that whatever else is told then is false, and so is its end.
        yield {
            "source_matchers": [_is("alertname", _STORES_NOTHING)],
            "target_matchers": [f'alertname!~"{"|".join(sorted((_STORES_NOTHING, TEST_ALERT, WATCHDOG)))}"'],
        }
    # `equal` takes a label that both lack for equal. Every alert has a service, and of one name all have the same
    # labels, so that is what is wanted here: the same alert, about the same thing. The kind is a backup's.
    yield {
        "source_matchers": [_is("severity", "critical")],
        "target_matchers": ['severity=~"info|warning"', f'alertname!="{TEST_ALERT}"'],
        "equal": ["alertname", "service", "instance", "kind"],
    }
    for more, less, same in _SAYS_MORE:
        yield {
            "source_matchers": [_is("alertname", more)],
            "target_matchers": [_is("alertname", *less)],
            "equal": list(same),
        }
    # One alert says it. The other way round, PostgresDown would be kept back by the missing container, which is noticed
    # later: both would be sent, and an end that comes while an alert is kept back is never sent.
    if down:
        yield {
            "source_matchers": [_is("alertname", *down)],
            "target_matchers": [_is("alertname", _GONE, *noticed)],
            "equal": ["service"],
        }
    if down_alert(api.JOB) in down:
        yield {
            "source_matchers": [_is("alertname", down_alert(api.JOB))],
            "target_matchers": [_is("alertname", _GONE, *noticed), f'service=~"{_REPLICA}"'],
        }
    yield {
        "source_matchers": [_is("alertname", _GONE)],
        "target_matchers": [_is("alertname", *noticed)],
        "equal": ["service"],
    }
    for part in sorted(frozenset[str]().union(*(alert.symptom_of for alert in known))):
        causes = {_GONE, _UNHEALTHY} | ({down_alert(part)} & down)
        # Critical: a symptom may be, and must not be kept back by what wakes nobody.
        source = [_is("alertname", *causes), _is("service", part), _is("severity", "critical")]
        symptoms = [alert for alert in known if part in alert.symptom_of and alert.name not in causes]
        if symptoms:
            names = {alert.name for alert in symptoms}
            yield {"source_matchers": source, "target_matchers": [_is("alertname", *names)]}
        others = {alert.service for alert in symptoms} - {part}
        if others and down_alert(part) in down:
            # What shows such symptoms is not ready without it either, and says so when it is asked.
            others |= {_REPLICA} if api.JOB in others else set()
            targets = [_is("alertname", _UNHEALTHY, "ProbeFailed"), _is("service", *others)]
            yield {"source_matchers": [*source], "target_matchers": targets}


def _route(environment: Environment) -> dict[str, Any]:
    settings = environment.settings.alertmanager
    ways = integrations(environment)
    timing = settings.timing
    routes: list[dict[str, Any]] = []
    if "heartbeatUrl" in environment.configured_secrets:
        # The Watchdog alone, and whatever severity it has: any other alert would keep the heart beating.
        routes.append(
            {
                "receiver": HEARTBEAT,
                "matchers": [_is("alertname", WATCHDOG)],
                "group_wait": "0s",
                "group_interval": settings.heartbeat_interval,
                # At each group_interval it is asked whether more than repeat_interval has passed since the last time
                # was noted, which is a moment after the interval began: were they equal, every other beat would be
                # left out (measured with 0.34.1: 2s and 2s beat every 4 s).
                "repeat_interval": "1ms",
            }
        )
    routes.append({"receiver": NOBODY, "matchers": [_is("severity", "none")]})
    if ways:
        # A group for each test, so that each is sent at once, however soon after the one before.
        routes.append(
            {
                "receiver": TEST_RECEIVER,
                "matchers": [_is("alertname", TEST_ALERT)],
                "group_by": ["alertname", "test_id"],
                "group_wait": "0s",
                # So soon its end is sent.
                "group_interval": "5s",
                "repeat_interval": "1h",
            }
        )
    routes += [
        {
            "receiver": _without(way),
            "matchers": [_is("alertname", NOTIFICATIONS_FAILING), _is("integration", way)],
            **_times(timing.critical),
        }
        for way in ways
        if len(ways) > 1
    ]
    routes += [
        {"receiver": ON_CALL, "matchers": [_is("severity", severity)], **_times(getattr(timing, severity))}
        for severity in ("critical", "warning", "info")
    ]
    return {
        "receiver": ON_CALL,
        "group_by": ["alertname", "service"],
        **_times(timing.warning),
        "routes": routes,
    }


def _receivers(environment: Environment) -> Iterator[dict[str, Any]]:
    ways = integrations(environment)
    yield _receiver(ON_CALL, ways)
    if len(ways) > 1:
        for broken in ways:
            yield _receiver(_without(broken), {way: ways[way] for way in ways if way != broken})
    if ways:
        yield _receiver(TEST_RECEIVER, ways)
    if "heartbeatUrl" in environment.configured_secrets:
        yield _receiver(HEARTBEAT, {"webhook": _webhook("heartbeat_url", send_resolved=False)})
    yield _receiver(NOBODY, {})


def _receiver(name: str, ways: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    # Copies: one object in several places would be written as anchors and aliases.
    return {"name": name, **{f"{way}_configs": [_copy(config)] for way, config in ways.items()}}


def _copy(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def _webhook(file: str, *, send_resolved: bool) -> Mapping[str, Any]:
    return {"url_file": f"{access.FOLDER}/{file}", "timeout": "10s", "send_resolved": send_resolved}


def _without(way: str) -> str:
    return f"without-{way}"


def _times(timing: Timing) -> dict[str, str]:
    return timing.model_dump()


def _is(label: str, *values: str) -> str:
    """Return the matcher for one of `values`; AlertManager anchors a regular expression itself."""
    return f'{label}="{values[0]}"' if len(values) == 1 else f'{label}=~"{"|".join(sorted(set(values)))}"'
