"""Settings of the generated secrets: the generation of each, and the phase of its rotation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stack.settings.types import Model


class Rotation(Model):
    """Generation of each generated secret: a number one higher makes a new value at the next `pulumi up`.

    Without a phase in `rotating`, the old value is invalid at once, and clients that still use it fail.
    """

    secret_key: int = Field(1, ge=1, description="SECRET_KEY.", examples=[2])
    app_secret_key: int = Field(
        1,
        ge=1,
        description="APP_SECRET_KEY. A new one is refused: what was stored under it could not be read any more.",
        examples=[2],
    )
    postgres_app: int = Field(1, ge=1, description="Password of the application's database role.", examples=[2])
    postgres_exporter: int = Field(1, ge=1, description="Password of the exporter's database role.", examples=[2])
    postgres_backup: int = Field(1, ge=1, description="Password of the backup server's database role.", examples=[2])
    redis_app: int = Field(1, ge=1, description="Password of the application's Redis user.", examples=[2])
    redis_exporter: int = Field(1, ge=1, description="Password of the exporter's Redis user.", examples=[2])
    redis_backup: int = Field(1, ge=1, description="Password of the backup server's Redis user.", examples=[2])
    grafana_admin: int = Field(
        1,
        ge=1,
        description="Grafana's admin password; Grafana itself takes it only into an empty volume.",
        examples=[2],
    )
    prometheus_web: int = Field(1, ge=1, description="Password of Prometheus' web pages and API.", examples=[2])
    alertmanager_web: int = Field(1, ge=1, description="Password of AlertManager's web pages and API.", examples=[2])
    logs_web: int = Field(1, ge=1, description="Password of VictoriaLogs' web pages and API.", examples=[2])


Phase = Literal["", "prepare", "overlap"]


class Rotating(Model):
    """Phase of each rotation without a lost request; `make rotate` writes it, phase by phase.

    `prepare`: all clients use the previous generation, and the generation in `rotation` is accepted too. `overlap`: all
    clients use the generation in `rotation`, and the previous one is still accepted. Empty: only the generation in
    `rotation` is accepted.
    """

    secret_key: Phase = Field("", description="SECRET_KEY.", examples=["overlap"])
    postgres_app: Phase = Field("", description="Login of the application to the database.", examples=["prepare"])
    redis_app: Phase = Field("", description="Password of the application's Redis user.", examples=["prepare"])
    grafana_admin: Phase = Field("", description="Grafana's admin password.", examples=["prepare"])
