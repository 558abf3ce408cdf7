"""Settings of Prometheus, AlertManager, Grafana and the exporters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stack.settings.part import Health, PartSettings, Published
from stack.settings.types import Cpus, Duration, MemoryMib, Model, Port, Size, seconds


class WebPages(Published):
    """A part with pages that messages link to."""

    external_url: str = Field(
        "",
        pattern=r"^(https?://[^\s]*[^\s/])?$",
        description="Address in links of messages and pages. Empty: http://localhost:<port>.",
        examples=["https://monitoring.example.org/prometheus"],
    )

    @property
    def address(self) -> str:
        """Address for links, without a slash at its end."""
        return self.external_url or f"http://localhost:{self.port}"


class PrometheusSettings(WebPages):
    """Prometheus."""

    port: Port = Field(9090, description="Port on the host.", examples=[9090])
    memory_mib: MemoryMib = Field(512, description="Memory limit in MiB.", examples=[1024])
    cpus: Cpus = Field(0.5, description="CPU limit in cores.", examples=[0.5])
    retention_time: Duration = Field("15d", description="How long samples are kept.", examples=["30d"])
    retention_size: Size = Field("5GB", description="How much disk samples may take.", examples=["10GB"])
    scrape_interval: Duration = Field("15s", description="Time between two scrapes of a target.", examples=["30s"])
    scrape_timeout: Duration = Field(
        "10s", description="A scrape that takes longer has failed; at least 2s.", examples=["10s"]
    )
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["prometheus_data"],
    )

    @property
    def connect_seconds(self) -> int:
        """Seconds that an exporter waits for its server's first answer: an integer, well below scrapeTimeout."""
        return max(1, int(seconds(self.scrape_timeout) * 0.4))

    @property
    def answer_seconds(self) -> int:
        """Seconds that an exporter may take for one scrape, an integer; then it reports that its server is down."""
        return max(1, int(seconds(self.scrape_timeout) * 0.5))


class Telegram(Model):
    """Alerts to Telegram. The bot's token is the secret `telegramBotToken`."""

    chat_id: int = Field(description="Chat that gets the alerts: negative for groups.", examples=[-1001234567890])
    message_thread_id: int | None = Field(
        None,
        gt=1,
        description="Topic of a forum that gets them: the number before the last in a link to one of its messages. "
        "Unset: the topic General.",
        examples=[42],
    )
    api_url: str = Field(
        "https://api.telegram.org",
        pattern=r"^https?://[^/\s]+$",
        description="Base URL of the bot API, for those who run their own server of it.",
        examples=["https://api.telegram.org"],
    )


class Email(Model):
    """Alerts by e-mail. The account's password is the secret `smtpPassword`."""

    smarthost: str = Field(
        pattern=r"^[^:\s]+:[1-9][0-9]{0,4}$",
        description="`host:port` of the mail server.",
        examples=["smtp.example.org:587"],
    )
    sender: str = Field(pattern=r"^\S+@\S+$", description="From address.", examples=["alerts@example.org"])
    recipient: str = Field(pattern=r"^\S+@\S+$", description="To address.", examples=["oncall@example.org"])
    username: str = Field(
        "", description="Account at the mail server; empty: no login.", examples=["alerts@example.org"]
    )
    require_tls: bool = Field(True, description="Refuse a server without STARTTLS.", examples=[True])
    hello: str = Field(
        "",
        pattern=r"^([A-Za-z0-9.-]+|\[[0-9A-Za-z.:]+\])?$",
        description="Name by which AlertManager and `make doctor` greet the mail server (EHLO). Empty: the domain of "
        "the ingress, else that of the sender.",
        examples=["samokoder.example.org"],
    )


class Timing(Model):
    """When AlertManager sends for the alerts of one severity."""

    group_wait: Duration = Field(description="A new group waits so long for more alerts of its kind.", examples=["10s"])
    group_interval: Duration = Field(
        description="What is new in a group, its end included, is sent at most so often.", examples=["1m"]
    )
    repeat_interval: Duration = Field(description="What still fires is sent again after so long.", examples=["1h"])


class Timings(Model):
    """Timing by severity."""

    critical: Timing = Field(
        default_factory=lambda: Timing(group_wait="10s", group_interval="1m", repeat_interval="1h"),
        description="Alerts that wake somebody.",
        examples=[{"groupWait": "10s", "groupInterval": "1m", "repeatInterval": "1h"}],
    )
    warning: Timing = Field(
        default_factory=lambda: Timing(group_wait="30s", group_interval="5m", repeat_interval="12h"),
        description="Alerts for the working day.",
        examples=[{"groupWait": "30s", "groupInterval": "5m", "repeatInterval": "12h"}],
    )
    info: Timing = Field(
        default_factory=lambda: Timing(group_wait="5m", group_interval="15m", repeat_interval="3d"),
        description="What is good to know.",
        examples=[{"groupWait": "5m", "groupInterval": "15m", "repeatInterval": "3d"}],
    )


class AlertmanagerSettings(WebPages):
    """AlertManager and where it sends its notifications.

    The addresses of a generic webhook and of the heartbeat for the Watchdog are the secrets `alertWebhookUrl` and
    `heartbeatUrl`, because anyone who knows such an address can use it.
    """

    port: Port = Field(9093, description="Port on the host.", examples=[9093])
    language: Literal["en", "ru"] = Field("en", description="Language of the messages.", examples=["ru"])
    timing: Timings = Field(
        default_factory=Timings,
        description="When notifications are sent, by severity.",
        examples=[{"critical": {"groupWait": "10s", "groupInterval": "1m", "repeatInterval": "1h"}}],
    )
    heartbeat_interval: Duration = Field(
        "1m",
        description="The Watchdog is sent to the secret heartbeatUrl so often; what listens there raises the alarm "
        "when it stops.",
        examples=["1m"],
    )
    telegram: Telegram | None = Field(
        None, description="Alerts to Telegram; required in production.", examples=[{"chatId": -1001234567890}]
    )
    email: Email | None = Field(
        None,
        description="Alerts by e-mail; optional.",
        examples=[{"smarthost": "smtp.example.org:587", "sender": "a@example.org", "recipient": "b@example.org"}],
    )
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["alertmanager_data"],
    )


class GrafanaSettings(WebPages):
    """Grafana."""

    port: Port = Field(3000, description="Port on the host.", examples=[3000])
    # Users of 13.2 report 220 to 390 MiB at rest and 600 MiB under load; the datasource plugin is a second process.
    memory_mib: MemoryMib = Field(768, description="Memory limit in MiB; it takes up to 600.", examples=[1024])
    cpus: Cpus = Field(0.5, description="CPU limit in cores.", examples=[0.5])
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["grafana_data"],
    )
    health: Health = Field(
        # Its first start migrates its database: half a minute on two cores.
        default_factory=lambda: Health(start_period_seconds=60, wait_timeout_seconds=240),
        description="Health check timing.",
        examples=[{"waitTimeoutSeconds": 300}],
    )


class LogsSettings(WebPages):
    """VictoriaLogs, in which the logs of all containers are searched."""

    enabled: bool = Field(
        True,
        description="Whether the logs of all containers are collected in one place. Without it the engine keeps 30 MB "
        "of each container, as ever.",
        examples=[False],
    )
    port: Port = Field(9428, description="Port on the host.", examples=[9428])
    memory_mib: MemoryMib = Field(192, description="Memory limit in MiB; a third of it is for caches.", examples=[512])
    cpus: Cpus = Field(0.5, description="CPU limit in cores.", examples=[0.5])
    retention_time: str = Field(
        "14d", pattern=r"^[1-9][0-9]*(d|w|y)$", description="How long lines are kept: whole days.", examples=["30d"]
    )
    retention_size: Size = Field(
        "2GB",
        description="How much disk they may take; the oldest days go first, and the last two stay whatever they take. "
        "A million lines take some 40 MB.",
        examples=["10GB"],
    )


class LogCollectorSettings(PartSettings):
    """What reads the containers' logs and sends them to VictoriaLogs."""

    memory_mib: MemoryMib = Field(64, description="Memory limit in MiB; it takes 25.", examples=[128])
    cpus: Cpus = Field(0.25, description="CPU limit in cores: 8,000 lines a second.", examples=[0.5])
    buffer_mib: int = Field(
        256,
        ge=10,
        le=1_000_000,
        description="How much of log files that the engine has removed may wait on its disk for VictoriaLogs, in MiB. "
        "Beyond it the oldest lines are dropped, and LogLinesDropped says so.",
        examples=[1024],
    )
    health: Health = Field(
        # Each check starts Python.
        default_factory=lambda: Health(interval_seconds=15, retries=3),
        description="Health check timing.",
        examples=[{"retries": 10}],
    )


class Exporter(Published):
    """An exporter; its port on the host is for people, Prometheus scrapes it in the network `monitoring`."""


class CadvisorSettings(Exporter):
    """cAdvisor."""

    port: Port = Field(8080, description="Port on the host.", examples=[8080])
    memory_mib: MemoryMib = Field(256, description="Memory limit in MiB.", examples=[256])
    containerd_socket: str = Field(
        "/run/containerd/containerd.sock",
        pattern=r"^/run/",
        description="Socket of the containerd that the engine uses, on the host; "
        "`/run/docker/containerd/containerd.sock` where dockerd runs its own.",
        examples=["/run/docker/containerd/containerd.sock"],
    )
    data_root: str = Field(
        "/var/lib/docker",
        pattern=r"^/[^/]",
        description="Folder of the engine, on the host; another with `data-root` in daemon.json, and with the snap. "
        "`make up` asks the engine for it.",
        examples=["/srv/docker"],
    )
    kernel_log: bool = Field(
        True,
        description="Whether it reads the kernel's log, from which it knows that memory ran out in a container; "
        "`false` on a host without /dev/kmsg (LXC), where ContainerOomKilled is then mute.",
        examples=[False],
    )


class PostgresExporterSettings(Exporter):
    """PostgreSQL exporter."""

    port: Port = Field(9187, description="Port on the host.", examples=[9187])


class RedisExporterSettings(Exporter):
    """Redis exporter."""

    port: Port = Field(9121, description="Port on the host.", examples=[9121])


class NodeExporterSettings(Exporter):
    """Host metrics."""

    port: Port = Field(9100, description="Port on the host.", examples=[9100])


class BlackboxExporterSettings(Exporter):
    """Probes of every HTTP page of the stack, and of the public addresses that users open."""

    port: Port = Field(9115, description="Port on the host.", examples=[9115])
    urls: list[Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")]] = Field(
        default_factory=list,
        description="Public addresses that are probed from the stack as a user would come, TLS expiry included. "
        "Each must answer 200.",
        examples=[["https://samokoder.example.org/health"]],
    )
