"""Documents and schema that follow from the code: `make docs` rewrites them, a test fails when they are stale.

Pulumi.yaml's `config:` (types, descriptions, defaults), the tables of settings, alerts, dashboards, metrics,
licences, hardening rules with their exceptions, and the picture of the architecture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from operations.audit import licences
from operations.audit.exceptions import exceptions
from operations.audit.rules import RULES
from operations.clone import ROOT
from operations.documents import architecture
from operations.documents.metrics import backup_table, contract_tables
from stack.catalogue import dashboard_texts, rule_groups, specs
from stack.common.names import PROJECT
from stack.common.secret_rules import CONFIGURED_SECRETS, application_secret
from stack.monitoring.alerts import Alert
from stack.settings.reading import read_environment
from stack.settings.tree import Settings
from stack.settings.types import Model
from stack.spec.service import Scrape

FIRST = (
    *("production", "dockerHost", "ingress.domain", "ingress.email", "ingress.kind", "ingress.port"),
    *("api.image", "worker.image", "migrations.command", "api.environment", "worker.environment", "api.replicas"),
    *("api.memoryMib", "frontend.enabled", "alertmanager.telegram.chatId", "alertmanager.email.smarthost"),
    *("alertmanager.language", "backup.offsite.endpoint", "backup.offsite.bucket", "prometheus.retentionTime"),
)
"""The twenty settings that people set, in the order in which people need them."""


def generated() -> dict[Path, str]:
    """Return every file that has a generated part, with its text as it must be."""
    drawn, ports = f"```mermaid\n{architecture.picture(specs(read_environment('staging', {})))}```\n", ports_table()
    blocks = (
        ("Pulumi.yaml", "schema", pulumi_schema()),
        ("README.md", "architecture", drawn),
        ("README.md", "ports", ports),
        ("README.ru.md", "architecture", drawn),
        ("README.ru.md", "ports", ports),
        ("docs/architecture.md", "architecture", drawn),
        ("docs/settings.md", "settings", settings_table()),
        ("docs/monitoring.md", "alerts", alerts_table()),
        ("docs/monitoring.md", "dashboards", dashboards_table()),
        ("docs/metrics.md", "metrics", contract_tables()),
        ("docs/metrics.md", "backup metrics", backup_table()),
        ("docs/licences.md", "licences", licences_table()),
        ("docs/security.md", "rules", hardening_rules()),
        ("docs/security.md", "exceptions", hardening_exceptions()),
    )
    texts: dict[Path, str] = {}
    for name, block, text in blocks:
        path = ROOT / name
        comment = "<!-- {} -->" if path.suffix == ".md" else "# {}"
        texts[path] = _put(texts.get(path) or path.read_text(), block, text, comment)
    return texts


def write() -> list[Path]:
    """Rewrite the files whose generated part is stale; return those."""
    stale = [path for path, text in generated().items() if path.read_text() != text]
    for path, text in generated().items():
        if path in stale:
            path.write_text(text)
    return stale


def pulumi_schema() -> str:
    """Render Pulumi.yaml's `config:`. A secret is optional, which the schema cannot say of one with `secret: true`."""
    config: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        entry: dict[str, Any] = {"type": _pulumi_type(field), "description": field.description}
        if entry["type"] == "array":
            entry["items"] = {"type": "string"}
        entry["default"] = {} if entry["type"] == "object" else field.get_default(call_default_factory=True)
        config[f"{PROJECT}:{to_camel(name)}"] = entry
    for secret in CONFIGURED_SECRETS.values():
        config[f"{PROJECT}:{secret.name}"] = {
            "type": "string",
            "description": f"{secret.description} Set it with --secret.",
            "default": "",
        }
    return yaml.safe_dump({"config": config}, sort_keys=False, width=110, allow_unicode=True)


def settings_table() -> str:
    """Render what people set first, every setting and every configured secret as Markdown tables."""
    head = ["", "| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    rows = list(_rows(Settings, Settings(), PROJECT + ":"))
    of_key = {row.split("`")[1].removeprefix(PROJECT + ":"): row for row in rows}
    lines = ["## What people set", *head, *(of_key[key] for key in FIRST)]
    lines += ["", "## All settings", *head, *rows]
    lines += [
        "",
        "## Secrets",
        "",
        "All optional but where a setting needs one:",
        "",
        "| Key | Meaning | Form |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{PROJECT}:{secret.name}` | {secret.description} "
        f"| {secret.pattern_says or f'at least {secret.minimum_length} characters'} |"
        for secret in CONFIGURED_SECRETS.values()
    ]
    any_name = f"each name in `{PROJECT}:applicationSecrets`, such as `{PROJECT}:SMTP_PASSWORD`"
    lines += [f"| {any_name} | {application_secret('').description} | any, but no known default and no placeholder |"]
    return "\n".join(lines) + "\n"


def _rows(model: type[Model], defaults: Model | None, prefix: str) -> Iterator[str]:
    """Yield a row for each field. defaults: the model as it is in this place, None where it is not set."""
    for name, field in model.model_fields.items():
        key = prefix + to_camel(name)
        value = getattr(defaults, name) if defaults else field.get_default(call_default_factory=True)
        inner = _model_in(field)
        if inner is None or value is None:
            default = "required" if value is PydanticUndefined else f"`{json.dumps(value)}`"
            yield f"| `{key}` | {_type_name(field)} | {default} | {_cell(field.description)} |"
        if inner is not None:
            yield from _rows(inner, value, key + ".")


def ports_table() -> str:
    """Render what runs in staging: part, address on the host, networks, target of Prometheus."""
    lines = ["| Part | Address | Networks | Scraped by Prometheus |", "|---|---|---|---|"]
    for spec in specs(read_environment("staging", {})):
        address = f"{spec.publish.address}:{spec.publish.host_port}" if spec.publish else "not published"
        scraped = f"`:{spec.scrape.port}{spec.scrape.path}`" if isinstance(spec.scrape, Scrape) else spec.scrape.reason
        lines.append(f"| {spec.part} | {address} | {', '.join(spec.networks) or 'none'} | {scraped} |")
    return "\n".join(lines) + "\n"


def alerts_table() -> str:
    """Render every alert of staging: one line for a name, whose rules may differ in severity and waiting time."""
    environment = read_environment("staging", {})
    lines = ["| Alert | Severity | After | Says |", "|---|---|---|---|"]
    for group in rule_groups(environment, specs(environment)):
        named: dict[str, list[Alert]] = {}
        for rule in group.rules:
            if isinstance(rule, Alert):
                named.setdefault(rule.name, []).append(rule)
        lines += [f"| **{group.name}** | | | |"] if named else []
        for name, alerts in named.items():
            severities = ", ".join(dict.fromkeys(alert.severity for alert in alerts))
            waits = ", ".join(dict.fromkeys(alert.wait or "at once" for alert in alerts))
            lines.append(f"| [{name}](runbooks/{name}.md) | {severities} | {waits} | {_cell(_says(alerts))} |")
    return "\n".join(lines) + "\n"


def _says(alerts: Sequence[Alert]) -> str:
    """Return what the rules of one name say, with the name of a label in place of its value."""
    texts = {
        re.sub(rf"\b{re.escape(alert.service)}\b", "*part*", alert.summary.en)
        if len({each.service for each in alerts}) > 1
        else alert.summary.en
        for alert in alerts
    }
    common = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", min(texts))
    return common if len(texts) == 1 else re.sub(r" \([^)]*\)$", "", common)


def dashboards_table() -> str:
    """Render every dashboard: its title, its uid, what it shows."""
    lines = ["| Dashboard | uid | Shows |", "|---|---|---|"]
    for uid, text in dashboard_texts(read_environment("staging", {})).items():
        dashboard = json.loads(text)
        lines.append(f"| {dashboard['title']} | `{uid}` | {_cell(dashboard['description'])} |")
    return "\n".join(lines) + "\n"


def licences_table() -> str:
    """Render what this product is made of: each thing's licence, and why it is here where that is an exception."""
    lines = ["| What | Licence | Used by |", "|---|---|---|"]
    for each in [*licences.images(), *licences.python_packages()]:
        why = f". Exception: {licences.EXCEPTIONS[each.name][1]}" if each.name in licences.EXCEPTIONS else ""
        lines.append(f"| {each.name} | {each.licence} | {', '.join(each.used_by)}{why} |")
    return "\n".join(lines) + "\n"


def hardening_rules() -> str:
    """Render every rule of the hardening gate."""
    lines = ["| CIS | Rule |", "|---|---|"]
    lines += [f"| {rule.number} | {_cell(rule.title)} |" for rule in RULES.values()]
    return "\n".join(lines) + "\n"


def hardening_exceptions() -> str:
    """Render every exception from the hardening rules."""
    lines = ["| Part | CIS | What | Why | Until |", "|---|---|---|---|---|"]
    for each in exceptions():
        part = "every part" if each.part == "*" else each.part
        why = _cell(each.reason) + (f" Only with {each.only}." if each.only else "")
        lines.append(f"| {part} | {each.rule} | `{each.what}` | {why} | {each.expires} |")
    return "\n".join(lines) + "\n"


def _put(document: str, block: str, text: str, comment: str) -> str:
    """Put `text` between the two marker lines of `block`. Raises ValueError where they are missing."""
    begin, end = (comment.format(f"{block}, generated by `make docs`: {word}") for word in ("begin", "end"))
    pattern = re.compile(re.escape(begin) + r"\n.*?" + re.escape(end), re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"there are no lines {begin!r} and {end!r} to put the generated part between")
    return pattern.sub(lambda _: f"{begin}\n{text}{end}", document)


def _model_in(field: FieldInfo) -> type[Model] | None:
    candidates = [field.annotation, *get_args(field.annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Model)), None)


def _pulumi_type(field: FieldInfo) -> str:
    if _model_in(field) or get_origin(field.annotation) is dict:
        return "object"
    if get_origin(field.annotation) is list:
        return "array"
    return {bool: "boolean", int: "integer"}.get(field.annotation, "string")  # type: ignore[arg-type]


def _type_name(field: FieldInfo) -> str:
    """Name the type as somebody who writes YAML calls it, from the model's own JSON schema."""
    schema = TypeAdapter[Any](field.annotation or str).json_schema()
    kinds = schema.get("anyOf", [schema])
    names = [
        f"list of {kind['items'].get('type')}s" if kind.get("type") == "array" else kind.get("type", "object")
        for kind in kinds
    ]
    return _cell(" or ".join(names))


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    for changed in write():
        print(f"rewritten: {changed.relative_to(ROOT)}")
