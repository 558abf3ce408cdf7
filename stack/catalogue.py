"""The list of all parts, and of their alert rules and dashboards.

No part imports another part's rules: this module collects them and gives them to Prometheus, AlertManager and Grafana.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stack.monitoring.alerts import Alert, Group
from stack.parts.alertmanager import rules as alertmanager_rules
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.api import dashboard as api_dashboard
from stack.parts.api import migrations
from stack.parts.api import rules as api_rules
from stack.parts.api import spec as api
from stack.parts.backup import dashboard as backup_dashboard
from stack.parts.backup import drill, workspace
from stack.parts.backup import rules as backup_rules
from stack.parts.backup import spec as backup
from stack.parts.blackbox_exporter import rules as blackbox_exporter_rules
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.cadvisor import dashboard as cadvisor_dashboard
from stack.parts.cadvisor import rules as cadvisor_rules
from stack.parts.cadvisor import spec as cadvisor
from stack.parts.frontend import spec as frontend
from stack.parts.grafana import overview
from stack.parts.grafana import spec as grafana
from stack.parts.ingress import rules as ingress_rules
from stack.parts.ingress import spec as ingress
from stack.parts.log_collector import rules as log_collector_rules
from stack.parts.log_collector import spec as log_collector
from stack.parts.logs import rules as logs_rules
from stack.parts.logs import spec as logs
from stack.parts.node_exporter import drift_rules
from stack.parts.node_exporter import rules as node_exporter_rules
from stack.parts.node_exporter import spec as node_exporter
from stack.parts.postgres import dashboard as postgres_dashboard
from stack.parts.postgres import exporter as postgres_exporter
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import rules as postgres_rules
from stack.parts.postgres import spec as postgres
from stack.parts.prometheus import dashboard as prometheus_dashboard
from stack.parts.prometheus import rules as prometheus_rules
from stack.parts.prometheus import spec as prometheus
from stack.parts.redis import dashboard as redis_dashboard
from stack.parts.redis import exporter as redis_exporter
from stack.parts.redis import rules as redis_rules
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.parts.worker import llm_rules
from stack.parts.worker import rules as worker_rules
from stack.parts.worker import spec as worker
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

# Field of the settings -> the part. A new part is one folder and its rows here; its scrape job, its missing-container
# rule, its row in the table and its place in the networks follow from its spec.
PARTS: Mapping[str, Callable[[Environment], ServiceSpec | Iterable[ServiceSpec]]] = {
    "postgres": postgres.spec,
    "postgres_roles": postgres_roles.spec,
    "redis": redis.spec,
    "redis_users": redis_users.spec,
    "workspace": workspace.spec,
    "migrations": migrations.spec,
    "api": api.specs,
    "worker": worker.spec,
    "ingress": ingress.spec,
    "frontend": frontend.spec,
    # Before the backup server, which sends it requests.
    "drill": drill.spec,
    "backup": backup.spec,
    "alertmanager": alertmanager.spec,
    "grafana": grafana.spec,
    "postgres_exporter": postgres_exporter.spec,
    "redis_exporter": redis_exporter.spec,
    "node_exporter": node_exporter.spec,
    "cadvisor": cadvisor.spec,
    "blackbox_exporter": blackbox_exporter.spec,
    "logs": logs.spec,
    "log_collector": log_collector.spec,
}

# The order of the groups in the rule file, where cAdvisor's group comes between these two tuples: another order would
# change that file and so replace Prometheus.
_RULES_OF_THE_APPLICATION = (
    api_rules,
    ingress_rules,
    llm_rules,
    worker_rules,
    postgres_rules,
    redis_rules,
    backup_rules,
)
_OTHER_RULES = (
    drift_rules,
    node_exporter_rules,
    prometheus_rules,
    alertmanager_rules,
    blackbox_exporter_rules,
    logs_rules,
    log_collector_rules,
)

_DASHBOARDS = (
    overview,
    api_dashboard,
    postgres_dashboard,
    redis_dashboard,
    cadvisor_dashboard,
    prometheus_dashboard,
    backup_dashboard,
)


def specs(environment: Environment) -> list[ServiceSpec]:
    """Describe every part that this environment runs; Prometheus is last, because its files need all other parts."""
    others: list[ServiceSpec] = []
    for name, describe in PARTS.items():
        if name not in environment.absent:
            described = describe(environment)
            others += [described] if isinstance(described, ServiceSpec) else described
    parts = [*others, prometheus.spec(environment)]
    # The files list replicas by number, not in the order of a deploy (`api.first`): otherwise a rollback would replace
    # Prometheus, and the next `up` would replace it again.
    by_name = {spec.part: spec for spec in parts}
    names = [part for field in PARTS if field not in environment.absent for part in environment.parts_of(field)]
    by_number = [by_name[part] for part in (*names, prometheus.PART)]
    groups = rule_groups(environment, by_number)
    files = {
        prometheus.PART: prometheus.files(environment, by_number, groups),
        alertmanager.PART: alertmanager.files(environment, list(_alerts(groups))),
    }
    if grafana.PART in by_name:
        files[grafana.PART] = grafana.files(environment, dashboard_texts(environment))
    return [replace(spec, files=files[spec.part]) if spec.part in files else spec for spec in parts]


def rule_groups(environment: Environment, parts: Sequence[ServiceSpec]) -> list[Group]:
    """Return all rules. parts: every part that runs."""
    application = [rules.group(environment, parts) for rules in _RULES_OF_THE_APPLICATION]
    waits = {alert.name: alert.wait for alert in _alerts(application)}
    others = (rules.group(environment, parts) for rules in _OTHER_RULES)
    described = (*application, cadvisor_rules.group(environment, parts, waits), *others)
    return [group for group in described if group.rules]


def every_alert(environment: Environment, parts: Sequence[ServiceSpec]) -> list[Alert]:
    """Return every alert of all groups. parts: every part that runs."""
    return list(_alerts(rule_groups(environment, parts)))


def rule_document(environment: Environment, parts: Sequence[ServiceSpec]) -> dict[str, Any]:
    """Return the content of Prometheus' rule file. parts: every part that runs."""
    return prometheus.rule_document(environment, rule_groups(environment, parts))


def dashboard_texts(environment: Environment) -> Mapping[str, str]:
    """Return every dashboard by its uid, as JSON text that is the same for the same settings."""
    # The import of `grafana-foundation-sdk` takes half a second that no other part needs.
    from stack.parts.grafana.grafana_json import to_text  # noqa: PLC0415

    return {module.UID: to_text(module.describe(environment)) for module in _DASHBOARDS}


def _alerts(groups: Iterable[Group]) -> Iterator[Alert]:
    return (rule for group in groups for rule in group.rules if isinstance(rule, Alert))
