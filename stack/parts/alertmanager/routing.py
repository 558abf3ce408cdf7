"""The routes and receivers of alertmanager.yml: who gets which alert, when, and through which integrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stack.monitoring import access
from stack.parts.alertmanager import messages
from stack.parts.alertmanager.rules import HEARTBEAT
from stack.settings.environment import Environment
from stack.settings.monitoring import Timing

WATCHDOG = "Watchdog"
TEST_ALERT = "TestAlert"
NOTIFICATIONS_FAILING = "AlertmanagerNotificationsFailing"

ON_CALL = "on-call"
NOBODY = "nobody"
TEST_RECEIVER = "test-alert"


def integrations(environment: Environment) -> Mapping[str, Mapping[str, Any]]:
    """Return the configured integrations that reach a person, by their names in AlertManager's metrics."""
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
            "hello": mail_hello(environment),
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


def mail_hello(environment: Environment) -> str:
    """Return the name by which the mail server is greeted; empty where no e-mail is sent.

    AlertManager's own is `localhost`, which many servers refuse. These names are known in the DNS, which some ask for.
    """
    settings = environment.settings
    if not (email := settings.alertmanager.email):
        return ""
    domain = email.sender.rpartition("@")[2].rstrip(">")
    # A greeting is ASCII.
    return email.hello or settings.ingress.domain or (domain if domain.isascii() else domain.encode("idna").decode())


def route(environment: Environment) -> dict[str, Any]:
    """Return the tree of routes."""
    settings = environment.settings.alertmanager
    ways = integrations(environment)
    timing = settings.timing
    routes: list[dict[str, Any]] = []
    if "heartbeatUrl" in environment.configured_secrets:
        # Only the Watchdog, by its name and not by its severity: any other alert would be a heartbeat too.
        routes.append(
            {
                "receiver": HEARTBEAT,
                "matchers": [matcher("alertname", WATCHDOG)],
                "group_wait": "0s",
                "group_interval": settings.heartbeat_interval,
                # At each group_interval AlertManager checks whether repeat_interval has passed since it noted the last
                # notification, which is a moment after that interval began. With equal values it would leave out every
                # second heartbeat (measured with 0.34.1: with 2s and 2s there is one every 4 s).
                "repeat_interval": "1ms",
            }
        )
    routes.append({"receiver": NOBODY, "matchers": [matcher("severity", "none")]})
    if ways:
        # Each test alert is a group of its own, so it is sent at once, even shortly after another one.
        routes.append(
            {
                "receiver": TEST_RECEIVER,
                "matchers": [matcher("alertname", TEST_ALERT)],
                "group_by": ["alertname", "test_id"],
                "group_wait": "0s",
                # The resolved message is sent within five seconds.
                "group_interval": "5s",
                "repeat_interval": "1h",
            }
        )
    routes += [
        {
            "receiver": _without(way),
            "matchers": [matcher("alertname", NOTIFICATIONS_FAILING), matcher("integration", way)],
            **_times(timing.critical),
        }
        for way in ways
        if len(ways) > 1
    ]
    routes += [
        {"receiver": ON_CALL, "matchers": [matcher("severity", severity)], **_times(getattr(timing, severity))}
        for severity in ("critical", "warning", "info")
    ]
    return {
        "receiver": ON_CALL,
        "group_by": ["alertname", "service"],
        **_times(timing.warning),
        "routes": routes,
    }


def receivers(environment: Environment) -> Iterator[dict[str, Any]]:
    """Yield the receivers: on-call, one that leaves out each integration, the test's, the heartbeat's, nobody."""
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
    # Copies, because PyYAML writes one object in several places as anchor and aliases.
    return {"name": name, **{f"{way}_configs": [_copy(config)] for way, config in ways.items()}}


def _copy(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def _webhook(file: str, *, send_resolved: bool) -> Mapping[str, Any]:
    return {"url_file": f"{access.FOLDER}/{file}", "timeout": "10s", "send_resolved": send_resolved}


def _without(way: str) -> str:
    return f"without-{way}"


def _times(timing: Timing) -> dict[str, str]:
    return timing.model_dump()


def matcher(label: str, *values: str) -> str:
    """Return the matcher for any of `values`; AlertManager anchors regular expressions."""
    return f'{label}="{values[0]}"' if len(values) == 1 else f'{label}=~"{"|".join(sorted(set(values)))}"'
