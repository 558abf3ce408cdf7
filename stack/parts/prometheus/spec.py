"""Prometheus: it scrapes every part with a `Scrape`, has every page probed, and evaluates the rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stack.common.names import NetworkName
from stack.monitoring import access
from stack.monitoring.alerts import Group
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files, yaml_text
from stack.spec.secrets import ALERTMANAGER_WEB, PROMETHEUS_WEB
from stack.spec.service import DataVolume, Publish, Scrape, ServiceSpec

PART = "prometheus"
PORT = 9090
_START = "start-prometheus.sh"


def spec(environment: Environment) -> ServiceSpec:
    """Describe Prometheus without its files, which depend on all parts: see `files`."""
    settings = environment.settings.prometheus
    password = access.password_of(environment, PROMETHEUS_WEB)
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Prometheus",
        image=environment.image("prometheus"),
        user="65534:65534",
        settings=settings,
        entrypoint=(f"{access.FOLDER}/{_START}",),
        command=(
            "--config.file=/etc/samokoder/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={settings.retention_time}",
            f"--storage.tsdb.retention.size={settings.retention_size}",
            f"--web.external-url={settings.address}/",
            "--web.route-prefix=/",
            # With the default of 10m, an alert with a shorter `for` would start again after a restart, and be sent as
            # resolved.
            "--rules.alert.for-grace-period=1m",
            *((access.FLAG,) if password else ()),
        ),
        data=DataVolume(name="prometheus", path="/prometheus", adopt=settings.adopt_volume),
        publish=Publish.of(settings, PORT, "/-/healthy"),
        health_command=("promtool", "check", "healthy", f"--url=http://127.0.0.1:{PORT}", access.CLIENT_FLAG)
        if password
        else health.wget(PORT, "/-/healthy"),
        networks=(NetworkName.EDGE, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        web_password=password,
        open_files=16384,
        # Prometheus writes its head block to disk before it ends.
        stop_grace_seconds=60,
    )


def files(environment: Environment, parts: Sequence[ServiceSpec], groups: Sequence[Group]) -> Files:
    """Return the configuration, the rules, and the passwords of the pages that Prometheus scrapes. parts: all parts."""
    password = access.password_of(environment, PROMETHEUS_WEB)
    return {
        "prometheus.yml": prometheus_yml(environment, parts),
        _START: Path(__file__).with_name(_START).read_text(encoding="utf-8"),
        "rules/samokoder.yml": yaml_text(rule_document(environment, groups)),
        **access.server_files(password),
        **access.password_files(*access.guarded(parts)),
    }


def rule_document(environment: Environment, groups: Sequence[Group]) -> dict[str, Any]:
    """Return the content of the rule file."""
    return {
        "groups": [{"name": group.name, "rules": [rule.rule(environment) for rule in group.rules]} for group in groups]
    }


def prometheus_yml(environment: Environment, parts: Sequence[ServiceSpec]) -> str:
    """Render prometheus.yml: a job for each service, one for the probes, and AlertManager. parts: all that run."""
    settings = environment.settings.prometheus
    alertmanager = access.basic_auth(access.password_of(environment, ALERTMANAGER_WEB))
    document = {
        "global": {
            "scrape_interval": settings.scrape_interval,
            "scrape_timeout": settings.scrape_timeout,
            "evaluation_interval": settings.scrape_interval,
            "external_labels": {"environment": environment.name},
        },
        "alerting": {"alertmanagers": [{**alertmanager, "static_configs": [{"targets": ["alertmanager:9093"]}]}]},
        "rule_files": ["/etc/samokoder/rules/*.yml"],
        "scrape_configs": [*_jobs(parts), *blackbox_exporter.probe_jobs(environment, parts)],
    }
    return yaml_text(document)


def _jobs(parts: Sequence[ServiceSpec]) -> Iterator[dict[str, Any]]:
    """Yield the scrape jobs; replicas of a service share one."""
    jobs: dict[str, list[tuple[ServiceSpec, Scrape]]] = {}
    for part in parts:
        if isinstance(part.scrape, Scrape):
            jobs.setdefault(part.job, []).append((part, part.scrape))
    for job, replicas in sorted(jobs.items()):
        part, scrape = replicas[0]
        yield {
            "job_name": job,
            "metrics_path": scrape.path,
            "sample_limit": scrape.sample_limit,
            **access.basic_auth(part.web_password),
            "static_configs": [{"targets": [f"{part.part}:{scrape.port}" for part, scrape in replicas]}],
        }
