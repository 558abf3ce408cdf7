"""Prometheus: scrapes every part that says where, and evaluates the rules."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from stack import health
from stack.config_files import Files
from stack.monitoring import rules
from stack.names import NetworkName
from stack.service import DataVolume, Publish, Scrape, ServiceSpec
from stack.settings import Environment

PART = "prometheus"
PORT = 9090


def spec(environment: Environment, others: Sequence[ServiceSpec]) -> ServiceSpec:
    """Describe Prometheus. others: every other part, of which it scrapes those that can be scraped."""
    settings = environment.settings.prometheus
    own = Scrape(port=PORT)
    targets = {other.part: other.scrape for other in others if isinstance(other.scrape, Scrape)} | {PART: own}
    parts = [other.part for other in others] + [PART]
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Prometheus",
        image=environment.image("prometheus"),
        user="65534:65534",
        settings=settings,
        entrypoint=("/bin/prometheus",),
        command=(
            "--config.file=/etc/samokoder/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={settings.retention_time}",
            f"--storage.tsdb.retention.size={settings.retention_size}",
            f"--web.external-url=http://localhost:{settings.port}/",
            "--web.route-prefix=/",
        ),
        files=files(environment, targets, parts),
        data=DataVolume(name="prometheus", path="/prometheus", adopt=settings.adopt_volume),
        publish=Publish.of(settings, PORT, "/-/healthy"),
        health_command=health.wget(PORT, "/-/healthy"),
        networks=(NetworkName.EDGE, NetworkName.MONITORING),
        scrape=own,
        open_files=16384,
        # It writes its head block down before it ends.
        stop_grace_seconds=60,
    )


def files(environment: Environment, targets: dict[str, Scrape], parts: Sequence[str]) -> Files:
    """Return the configuration and the rules."""
    return {
        "prometheus.yml": prometheus_yml(environment, targets),
        "rules/samokoder.yml": rules.rules_yml(environment, parts, list(targets)),
    }


def prometheus_yml(environment: Environment, targets: dict[str, Scrape]) -> str:
    """Render prometheus.yml with one job for each target. targets: part -> where it is scraped."""
    settings = environment.settings.prometheus
    document = {
        "global": {
            "scrape_interval": settings.scrape_interval,
            "scrape_timeout": settings.scrape_timeout,
            "evaluation_interval": settings.scrape_interval,
            "external_labels": {"environment": environment.name},
        },
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]},
        "rule_files": ["/etc/samokoder/rules/*.yml"],
        "scrape_configs": [
            {
                "job_name": part,
                "metrics_path": scrape.path,
                "static_configs": [{"targets": [f"{part}:{scrape.port}"]}],
            }
            for part, scrape in sorted(targets.items())
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)
