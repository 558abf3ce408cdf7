"""AlertManager, which sends the alerts. It reads its secrets from files; no entrypoint substitutes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stack.common.names import NetworkName
from stack.monitoring import access
from stack.monitoring.alerts import Alert
from stack.parts.alertmanager import messages
from stack.parts.alertmanager.inhibitions import inhibitions
from stack.parts.alertmanager.routing import integrations, receivers, route
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files, secret_file, yaml_text
from stack.spec.secrets import ALERTMANAGER_WEB
from stack.spec.service import DataVolume, Publish, Scrape, ServiceSpec

PART = "alertmanager"
PORT = 9093
_START = "start-alertmanager.sh"


def spec(environment: Environment) -> ServiceSpec:
    """Describe AlertManager without its files, which depend on all alerts: see `files`."""
    settings = environment.settings.alertmanager
    password = access.password_of(environment, ALERTMANAGER_WEB)
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Alertmanager",
        image=environment.image("alertmanager"),
        user="65534:65534",
        settings=settings,
        entrypoint=(f"{access.FOLDER}/{_START}",),
        command=(
            f"--config.file={access.FOLDER}/alertmanager.yml",
            "--storage.path=/alertmanager",
            # AlertManager saves silences at this interval: with its default of 15m, a kill would lose newer silences.
            "--data.maintenance-interval=30s",
            f"--web.external-url={settings.address}/",
            "--web.route-prefix=/",
            # Clustering is off, because there is one instance; it would also have to detect an address to advertise.
            "--cluster.listen-address=",
            # `make test-alert` needs metrics that tell the test alert's notifications from all others.
            "--enable-feature=receiver-name-in-metrics",
            *((access.FLAG,) if password else ()),
        ),
        # Silences and the notification log: without that log every firing alert would be sent again.
        data=DataVolume(name="alertmanager", path="/alertmanager", adopt=settings.adopt_volume),
        publish=Publish.of(settings, PORT, "/-/ready"),
        health_command=("amtool", f"--alertmanager.url=http://127.0.0.1:{PORT}", access.CLIENT_FLAG, "config", "show")
        if password
        else health.wget(PORT, "/-/ready"),
        networks=(NetworkName.EDGE, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        may_lack={} if integrations(environment) else {r"alertmanager_notification.*": "nobody is to be told"},
        web_password=password,
    )


def files(environment: Environment, alerts: Sequence[Alert]) -> Files:
    """Return the configuration, the messages, and the secrets that the configuration names. alerts: all alerts."""
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
        "alertmanager.yml": alertmanager_yml(environment, alerts),
        messages.FILE: messages.messages_tmpl(settings.language),
        _START: Path(__file__).with_name(_START).read_text(encoding="utf-8"),
        **secrets,
        **guard,
    }


def alertmanager_yml(environment: Environment, alerts: Sequence[Alert]) -> str:
    """Render alertmanager.yml: routes, receivers and inhibition rules. alerts: all alerts."""
    document = {
        # For alerts without an end time: Prometheus always gives one, a person who posts an alert by hand may not.
        "global": {"resolve_timeout": "5m"},
        "templates": [f"{access.FOLDER}/{messages.FILE}"],
        "route": route(environment),
        "receivers": list(receivers(environment)),
        "inhibit_rules": list(inhibitions(alerts, environment.settings.ingress)),
    }
    return yaml_text(document)
