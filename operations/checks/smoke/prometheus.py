"""Prometheus' targets and rules: whether they are as declared, and well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from operations.checks.report import Check, Once
from operations.checks.smoke.asked import StackAsked, Target
from operations.clone import typed
from operations.errors import FailedError, UnavailableError
from stack.catalogue import rule_document
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.prometheus import spec as prometheus
from stack.settings.types import seconds as seconds_of
from stack.spec.files import yaml_document


def target_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield a check for each target in the configuration that Prometheus should have."""
    configured = yaml_document(prometheus.prometheus_yml(asked.environment, asked.parts))["scrape_configs"]
    for job in configured:
        for group in job["static_configs"]:
            for instance in group["targets"]:
                labels = group.get("labels", {})
                target = Target(job["job_name"], instance, labels.get(blackbox_exporter.FAMILY, ""))
                probed = labels.get("service", "")

                def ask(target: Target = target, probed: str = probed) -> str:
                    part = blackbox_exporter.PART if probed else target.instance.partition(":")[0]
                    asked.need(prometheus.PART, part)
                    text = _judged_target(asked.targets().get(target), typed(asked.environment.name, "up"))
                    if probed in {blackbox_exporter.PUBLIC, blackbox_exporter.EXTERNAL}:
                        _expect_probe(asked, target)
                    return text

                by = f" by {target.family}" if target.family else ""
                yield Check(name=f"{'probe' if probed else 'target'} {instance}{by}", ask=ask)


def _judged_target(target: Mapping[str, Any] | None, up: str) -> str:
    if target is None:
        raise FailedError(f"Prometheus does not have it: it runs with an older configuration ({up})")
    if target["health"] == "unknown":
        raise FailedError("not asked yet")
    if target["health"] != "up":
        raise FailedError(f"{target['health']}: {target['lastError']}")
    return f"up, answered in {float(target['lastScrapeDuration']) * 1000:.0f} ms"


def _expect_probe(asked: StackAsked, target: Target) -> None:
    # In PromQL an empty value also matches a series without the label.
    labels = f'instance="{target.instance}",{blackbox_exporter.FAMILY}="{target.family}"'
    succeeded = [value for _, value in asked.samples(f"probe_success{{{labels}}}")]
    if succeeded != [1.0]:
        # probe_ip_protocol is 0 where the exporter found no address of that IP version.
        if target.family == blackbox_exporter.SIX and asked.samples(f"probe_ip_protocol{{{labels}}} == 0"):
            raise UnavailableError("the name has no AAAA record: nobody comes by IPv6 until there is one")
        raise FailedError("from inside of the stack it does not answer 200")


def rule_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield the checks of the rules."""
    found = Once(lambda: asked.prometheus("rules")["groups"])

    def loaded() -> str:
        asked.need(prometheus.PART)
        declared = _declared(rule_document(asked.environment, asked.parts))
        there = _loaded(found())
        problems = [
            f"{what}: {', '.join(sorted({name for _, name, *_ in each}))}"
            for what, each in (("missing, or declared otherwise", declared - there), ("not declared", there - declared))
            if each
        ]
        if problems:
            raise FailedError(f"{'; '.join(problems)} ({typed(asked.environment.name, 'up')})")
        return f"{len(there)} rules in {len(found())} groups, as declared"

    def evaluated() -> str:
        asked.need(prometheus.PART)
        each = [rule for group in found() for rule in group["rules"]]
        if failing := [f"{rule['name']}: {rule.get('lastError', '')}" for rule in each if rule["health"] == "err"]:
            raise FailedError("; ".join(failing)[:500])
        if waiting := [rule["name"] for rule in each if rule["health"] != "ok"]:
            raise FailedError(f"not evaluated yet: {', '.join(sorted(set(waiting)))[:300]}")
        if not each:
            raise FailedError("there is no rule")
        return f"{len(each)} rules, each without an error"

    yield Check(name="rules loaded", ask=loaded)
    yield Check(name="rules evaluated", ask=evaluated)


Rule = tuple[str, str, str, float]
"""Group, name, labels, and seconds that the alert waits (`for`)."""


def _rule(group: str, rule: Mapping[str, Any], name: str, waits: float) -> Rule:
    return group, name, str(sorted((rule.get("labels") or {}).items())), waits


def _declared(document: Mapping[str, Any]) -> set[Rule]:
    return {
        _rule(group["name"], rule, rule.get("alert") or rule["record"], seconds_of(rule["for"]) if "for" in rule else 0)
        for group in document["groups"]
        for rule in group["rules"]
    }


def _loaded(groups: Sequence[Mapping[str, Any]]) -> set[Rule]:
    return {
        _rule(group["name"], rule, rule["name"], float(rule.get("duration") or 0))
        for group in groups
        for rule in group["rules"]
    }
