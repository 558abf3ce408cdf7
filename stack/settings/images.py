"""Settings that replace the pinned images."""

from __future__ import annotations

from pydantic import Field

from stack.settings.types import Image, Model


class Images(Model):
    """Images that replace those of `stack/images.py`, part by part: from a mirror, or a local image id `sha256:…`."""

    postgres: Image | None = Field(
        None, description="PostgreSQL 15.", examples=["mirror.example.org/postgres:15@sha256:" + "0" * 64]
    )
    redis: Image | None = Field(
        None, description="Redis 7.", examples=["mirror.example.org/redis:7@sha256:" + "0" * 64]
    )
    prometheus: Image | None = Field(None, description="Prometheus.", examples=["sha256:" + "0" * 64])
    alertmanager: Image | None = Field(None, description="AlertManager.", examples=["sha256:" + "0" * 64])
    grafana: Image | None = Field(None, description="Grafana.", examples=["sha256:" + "0" * 64])
    postgres_exporter: Image | None = Field(None, description="PostgreSQL exporter.", examples=["sha256:" + "0" * 64])
    redis_exporter: Image | None = Field(None, description="Redis exporter.", examples=["sha256:" + "0" * 64])
    node_exporter: Image | None = Field(None, description="node_exporter.", examples=["sha256:" + "0" * 64])
    cadvisor: Image | None = Field(None, description="cAdvisor.", examples=["sha256:" + "0" * 64])
    blackbox_exporter: Image | None = Field(None, description="Blackbox exporter.", examples=["sha256:" + "0" * 64])
    caddy: Image | None = Field(None, description="Caddy, the ingress.", examples=["sha256:" + "0" * 64])
    logs: Image | None = Field(None, description="VictoriaLogs.", examples=["sha256:" + "0" * 64])
    python: Image | None = Field(
        None,
        description="Base of the reference application, and Python of what collects the logs.",
        examples=["sha256:" + "0" * 64],
    )
    backup: Image | None = Field(
        None,
        description="Base of the backup server's own image, with the programs of PostgreSQL and Redis. Empty: made of "
        "the images of both.",
        examples=["sha256:" + "0" * 64],
    )
