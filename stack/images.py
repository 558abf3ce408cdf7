"""Every third-party image of the stack, in one place, each one pinned by its digest.

A reference is `name:tag@sha256:<64 hex digits>`: the tag tells a person which version it is, the digest
is what the engine pulls, so a tag that was moved cannot change what runs. Each digest is that of the
multi-architecture index. `docs/images.md` says where each digest was confirmed and how Renovate updates it.

Each reference is one literal on one line, because Renovate reads and rewrites this file with a regular
expression. No other file under `stack/` may have one; a unit test checks that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """One image of the catalogue: what a person calls it, and `name:tag@sha256:…` for the engine."""

    name: str
    licence: str
    """SPDX expression of the software it is named after; packages of the base system have theirs in the image."""
    reference: str


IMAGES: Mapping[str, Image] = MappingProxyType(
    {
        # The Debian variant, not Alpine: its uid 999 and its collation library are those of the data
        # directories that existing installations have.
        "postgres": Image(
            name="PostgreSQL",
            licence="PostgreSQL",
            reference="postgres:15.19-bookworm@sha256:539ceaaae49b3a7c8a04467cf00cc6788d8e3f1675df41860d86eebc4c40524f",
        ),
        "redis": Image(
            name="Redis",
            licence="LicenseRef-RSALv2 OR SSPL-1.0",
            reference="redis:7.4.11-bookworm@sha256:c6eabf748fc7a61dbb5a705c78bcf3d6377b1127a97d0ce965c11c44ba46896f",
        ),
        # 3.13 is the release with long-term support. Not the distroless variant: the health check is
        # BusyBox's wget.
        "prometheus": Image(
            name="Prometheus",
            licence="Apache-2.0",
            reference="prom/prometheus:v3.13.4@sha256:87861b8cf91579109319ebc300f3f1060e6da9c05d6ae8ad15a20c879e84e32e",
        ),
        "alertmanager": Image(
            name="AlertManager",
            licence="Apache-2.0",
            reference="prom/alertmanager:v0.34.1@sha256:e9733bafb1bdef9b00e25a21f8f99dc26a22224bf16641ad754d1649f4c3357a",
        ),
        "grafana": Image(
            name="Grafana",
            licence="AGPL-3.0-only",
            reference="grafana/grafana:13.2.3@sha256:b28bae15e219c998fb0e0424ed724930cc61b1f61fb404d47c862f9a23f9e572",
        ),
        "postgres_exporter": Image(
            name="PostgreSQL exporter",
            licence="Apache-2.0",
            reference="quay.io/prometheuscommunity/postgres-exporter:v0.20.1@sha256:ac5ec343104fae0e2d84a27bb8d69b38430a11910c5382cad85d478d2bab713e",
        ),
        # The plain tag is built from scratch and has no program for a health check; the Alpine variant has wget.
        "redis_exporter": Image(
            name="Redis exporter",
            licence="MIT",
            reference="oliver006/redis_exporter:v1.93.0-alpine@sha256:93831cd4d5d67687de67c9d5221b14312fea580af8d157583ed9d4459bf2dd70",
        ),
        "node_exporter": Image(
            name="node_exporter",
            licence="Apache-2.0",
            reference="prom/node-exporter:v1.12.1@sha256:1b4e4438faca4dd7e001dd445d161a4a2091b0fededa84093b3a8dfeae1f1be0",
        ),
        "blackbox_exporter": Image(
            name="Blackbox exporter",
            licence="Apache-2.0",
            reference="prom/blackbox-exporter:v0.28.0@sha256:e753ff9f3fc458d02cca5eddab5a77e1c175eee484a8925ac7d524f04366c2fc",
        ),
        # Since 0.53 it is published on ghcr.io only; older guides name gcr.io, which has no newer version.
        "cadvisor": Image(
            name="cAdvisor",
            licence="Apache-2.0",
            reference="ghcr.io/google/cadvisor:v0.60.6@sha256:b8e7d1093144fd088f425ff003d75a4aa405de075db78dae3bc563730b1bd07a",
        ),
        "caddy": Image(
            name="Caddy",
            licence="Apache-2.0",
            reference="caddy:2.11.4-alpine@sha256:5f5c8640aae01df9654968d946d8f1a56c497f1dd5c5cda4cf95ab7c14d58648",
        ),
        # 1.52 has no program for a health check: its base is distroless. This one is Alpine with BusyBox' wget.
        "logs": Image(
            name="VictoriaLogs",
            licence="Apache-2.0",
            reference="victoriametrics/victoria-logs:v1.51.0@sha256:e16dd33a95623cc21730cf5285344ed9f97419eeaff7d24b039c135beb85ee7e",
        ),
        "python": Image(
            name="Python, base of the reference application, and what collects the logs",
            licence="PSF-2.0",
            reference="python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b",
        ),
    }
)
