"""AlertManager: where alerts go. Secrets are files that it reads itself; nothing is substituted by an entrypoint."""

from __future__ import annotations

from typing import Any

import yaml

from stack import health
from stack.config_files import Files, secret_file
from stack.names import NetworkName
from stack.service import DataVolume, Publish, Scrape, ServiceSpec
from stack.settings import Environment

PART = "alertmanager"
PORT = 9093


def spec(environment: Environment) -> ServiceSpec:
    """Describe AlertManager."""
    settings = environment.settings.alertmanager
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Alertmanager",
        image=environment.image("alertmanager"),
        user="65534:65534",
        settings=settings,
        entrypoint=("/bin/alertmanager",),
        command=(
            "--config.file=/etc/samokoder/alertmanager.yml",
            "--storage.path=/alertmanager",
            f"--web.external-url=http://localhost:{settings.port}/",
            "--web.route-prefix=/",
            # One instance: without a peer there is nothing to gossip with, and no address to guess.
            "--cluster.listen-address=",
        ),
        files=files(environment),
        # Silences and the log of what was sent: lost, every firing alert would be sent again.
        data=DataVolume(name="alertmanager", path="/alertmanager", adopt=settings.adopt_volume),
        publish=Publish.of(settings, PORT, "/-/ready"),
        health_command=health.wget(PORT, "/-/ready"),
        networks=(NetworkName.EDGE, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
    )


def files(environment: Environment) -> Files:
    """Return the configuration and the secrets that it names."""
    settings = environment.settings.alertmanager
    secrets: Files = {
        **({"telegram_bot_token": secret_file("telegramBotToken")} if settings.telegram else {}),
        **({"smtp_password": secret_file("smtpPassword")} if settings.email and settings.email.username else {}),
    }
    return {"alertmanager.yml": alertmanager_yml(environment), **secrets}


def alertmanager_yml(environment: Environment) -> str:
    """Render alertmanager.yml: by severity to on call, Watchdog to nobody."""
    settings = environment.settings.alertmanager
    on_call: dict[str, Any] = {"name": "on-call"}
    if settings.telegram:
        on_call["telegram_configs"] = [
            {
                "api_url": settings.telegram.api_url,
                "bot_token_file": "/etc/samokoder/telegram_bot_token",
                "chat_id": settings.telegram.chat_id,
                "send_resolved": True,
            }
        ]
    if settings.email:
        login = {
            "auth_username": settings.email.username,
            "auth_password_file": "/etc/samokoder/smtp_password",
        }
        on_call["email_configs"] = [
            {
                "to": settings.email.recipient,
                "from": settings.email.sender,
                "smarthost": settings.email.smarthost,
                "require_tls": settings.email.require_tls,
                "send_resolved": True,
                **(login if settings.email.username else {}),
            }
        ]
    document = {
        "route": {
            "receiver": "on-call",
            "group_by": ["alertname", "service"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "4h",
            "routes": [
                {"receiver": "nobody", "matchers": ['severity="none"']},
                {
                    "receiver": "on-call",
                    "matchers": ['severity="critical"'],
                    "group_wait": "10s",
                    "repeat_interval": "1h",
                },
                {"receiver": "on-call", "matchers": ['severity="warning"'], "repeat_interval": "12h"},
                {"receiver": "on-call", "matchers": ['severity="info"'], "repeat_interval": "24h"},
            ],
        },
        "receivers": [on_call, {"name": "nobody"}],
        "inhibit_rules": [
            {
                "source_matchers": ['severity="critical"'],
                "target_matchers": ['severity=~"warning|info"'],
                "equal": ["alertname", "service"],
            },
            {
                # A container that is gone is unreachable as well: one alert says it.
                "source_matchers": ['alertname="ContainerMissing"'],
                "target_matchers": ['alertname="TargetDown"'],
                "equal": ["service"],
            },
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)
