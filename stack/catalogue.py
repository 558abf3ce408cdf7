"""The list of all parts, each with its alert rules and its dashboard: a new part is one folder and its row here.

No part imports another part's rules: this module collects them and gives them to Prometheus, AlertManager and Grafana.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
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


@dataclass(frozen=True)
class PartRow:
    """What the catalogue knows of a part; its container, scrape job and place in the networks are in its spec."""

    describe: Callable[[Environment], ServiceSpec | Iterable[ServiceSpec]]
    rules: tuple[ModuleType, ...] = ()
    dashboard: ModuleType | None = None


PARTS: Mapping[str, PartRow] = {
    "postgres": PartRow(postgres.spec, (postgres_rules,), postgres_dashboard),
    "postgres_roles": PartRow(postgres_roles.spec),
    "redis": PartRow(redis.spec, (redis_rules,), redis_dashboard),
    "redis_users": PartRow(redis_users.spec),
    "workspace": PartRow(workspace.spec),
    "migrations": PartRow(migrations.spec),
    "api": PartRow(api.specs, (api_rules,), api_dashboard),
    "worker": PartRow(worker.spec, (llm_rules, worker_rules)),
    "ingress": PartRow(ingress.spec, (ingress_rules,)),
    "frontend": PartRow(frontend.spec),
    # Before the backup server, which sends it requests.
    "drill": PartRow(drill.spec),
    "backup": PartRow(backup.spec, (backup_rules,), backup_dashboard),
    "alertmanager": PartRow(alertmanager.spec, (alertmanager_rules,)),
    "grafana": PartRow(grafana.spec, (), overview),
    "postgres_exporter": PartRow(postgres_exporter.spec),
    "redis_exporter": PartRow(redis_exporter.spec),
    "node_exporter": PartRow(node_exporter.spec, (drift_rules, node_exporter_rules)),
    "cadvisor": PartRow(cadvisor.spec, (cadvisor_rules,), cadvisor_dashboard),
    "blackbox_exporter": PartRow(blackbox_exporter.spec, (blackbox_exporter_rules,)),
    "logs": PartRow(logs.spec, (logs_rules,)),
    "log_collector": PartRow(log_collector.spec, (log_collector_rules,)),
    # The last one: another order would change the list of its targets and so replace it.
    "prometheus": PartRow(prometheus.spec, (prometheus_rules,), prometheus_dashboard),
}
"""Field of the settings -> the part."""

# The order of the first groups in the rule file, and all others follow: another order would change that file and so
# replace Prometheus.
_FIRST_GROUPS = (
    *("api", "ingress", "llm", "worker", "postgres", "redis", "backups", "containers", "drift", "host"),
    *("prometheus", "alertmanager", "probes"),
)


def specs(environment: Environment) -> list[ServiceSpec]:
    """Describe every part that this environment runs."""
    fields = [field for field in PARTS if field not in environment.absent]
    parts: list[ServiceSpec] = []
    for field in fields:
        described = PARTS[field].describe(environment)
        parts += [described] if isinstance(described, ServiceSpec) else described
    # The files list replicas by number, not in the order of a deploy (`api.first`): otherwise a rollback would replace
    # Prometheus, and the next `up` would replace it again.
    by_name = {spec.part: spec for spec in parts}
    by_number = [by_name[part] for field in fields for part in environment.parts_of(field)]
    groups = rule_groups(environment, by_number)
    files = {
        prometheus.PART: prometheus.files(environment, by_number, groups),
        alertmanager.PART: alertmanager.files(environment, list(_alerts(groups))),
    }
    if grafana.PART in by_name:
        files[grafana.PART] = grafana.files(environment, dashboard_texts(environment))
    return [replace(spec, files=files[spec.part]) if spec.part in files else spec for spec in parts]


def rule_groups(environment: Environment, parts: Sequence[ServiceSpec]) -> list[Group]:
    """Return all rules, also those of a part that is absent. parts: every part that runs."""
    modules = [rules for part in PARTS.values() for rules in part.rules if rules is not cadvisor_rules]
    groups: list[Group] = [rules.group(environment, parts) for rules in modules]
    waits = {alert.name: alert.wait for alert in _alerts(groups)}
    groups.append(cadvisor_rules.group(environment, parts, waits))
    places = {name: place for place, name in enumerate(_FIRST_GROUPS)}
    groups.sort(key=lambda group: places.get(group.name, len(places)))
    return [group for group in groups if group.rules]


def rule_document(environment: Environment, parts: Sequence[ServiceSpec]) -> dict[str, Any]:
    """Return the content of Prometheus' rule file. parts: every part that runs."""
    return prometheus.rule_document(environment, rule_groups(environment, parts))


def dashboard_texts(environment: Environment) -> Mapping[str, str]:
    """Return every dashboard by its uid, as JSON text that is the same for the same settings."""
    # The import of `grafana-foundation-sdk` takes half a second that no other part needs.
    from stack.parts.grafana.grafana_json import to_text  # noqa: PLC0415

    boards = sorted((part.dashboard for part in PARTS.values() if part.dashboard), key=lambda module: str(module.UID))
    return {module.UID: to_text(module.describe(environment)) for module in boards}


def _alerts(groups: Iterable[Group]) -> Iterator[Alert]:
    return (rule for group in groups for rule in group.rules if isinstance(rule, Alert))
