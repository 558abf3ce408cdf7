"""What keeps an alert back goes on until that one is over: else it is sent when all is well again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from stack.catalogue import rule_document
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.api.rules import SECONDS
from stack.parts.ingress.caddyfile import COUNTED_HANDLER
from stack.parts.ingress.rules import DURATION
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.files import yaml_document, yaml_text
from tests.described import specs
from tests.recording import CASES, case_config, environment_of, merged
from tests.render.conftest import Laboratory, output
from tests.render.known_alerts import every_alert
from tests.render.test_one_message import BROKEN, SEEN, WORLD, Fault, broken, faults

HEALED = SEEN + 1
"""Minute at which the cause is over; what it kept back is seen to be over a minute later."""
LAST = 60
# What is measured of each alert that a person is told, by a part of the series' names.
SEEN_BY = {
    "ApiDown": 'up{job="api"',
    "IngressDown": 'up{job="ingress"',
    "WorkerDown": 'up{job="worker"',
    "PostgresDown": "pg_up",
    "RedisDown": "redis_up",
    "IngressNoReplica": "upstreams_healthy",
}
# Warnings of the stores' symptoms that look back over a window, in which the errors of an outage stay.
FROM_A_WINDOW = (
    "ApiErrorRateHigh",
    "ApiLatencyHigh",
    "DatabaseErrors",
    "IngressErrorRateHigh",
    "RateLimiterWithoutRedis",
    "SlowDatabaseQueries",
    "WorkerJobFailureRatioHigh",
)

Rule = Mapping[str, Any]


def services(rule: Rule, environment: Environment) -> set[str] | None:
    """The parts that an alert may be about; None: any."""
    static = str(rule["labels"]["service"])
    if "{{" not in static:
        return {static}
    named = re.search(rf'name=~"{environment.prefix}-\((.*?)\)"', rule["expr"])
    return set(named[1].split("|")) if named else None


def may_match(matchers: list[str], rule: Rule, about: set[str] | None) -> bool:
    """Tell whether AlertManager's matchers may match one of a rule's alerts."""
    for each in matchers:
        label, operator, value = re.fullmatch(r'(\w+)(!=|=~|!~|=)"(.*)"', each).groups()  # type: ignore[union-attr]
        if label == "service":
            found = about
        else:
            found = {rule["alert"] if label == "alertname" else str(rule["labels"].get(label, ""))}
        pattern = value if "~" in operator else re.escape(value)
        if found is not None and not any((not re.fullmatch(pattern, one)) == ("!" in operator) for one in found):
            return False
    return True


def asked(rule: Rule) -> set[str]:
    """The series that an expression asks for, without their labels."""
    return set(re.findall(r"\b(?:[a-z]\w*_\w+|up)\b(?!\()", re.sub(r"\{.*?\}", "", rule["expr"])))


def kept_back(environment: Environment) -> Iterator[tuple[Rule, Rule, bool]]:
    """Yield what inhibits, what is inhibited, and whether both are over by the same samples."""
    parts = specs(environment)
    described = rule_document(environment, parts)
    rules = [rule for group in described["groups"] for rule in group["rules"] if "alert" in rule]
    inhibitions = yaml_document(alertmanager.alertmanager_yml(environment, every_alert(environment, parts)))
    for inhibition in inhibitions["inhibit_rules"]:
        same = inhibition.get("equal", ())
        for cause in rules:
            if not may_match(inhibition["source_matchers"], cause, services(cause, environment)):
                continue
            for other in rules:
                both = (services(cause, environment), services(other, environment))
                about = both[0] & both[1] if "service" in same and both[0] and both[1] else both[1]
                if about == set() or not may_match(inhibition["target_matchers"], other, about):
                    continue
                if "alertname" in same and cause["alert"] != other["alert"]:
                    continue
                yield cause, other, "alertname" in same or asked(cause) == asked(other)


@pytest.mark.parametrize("interval", [15, 60])
@pytest.mark.parametrize("case", CASES)
def test_each_cause_goes_on_for_longer_than_what_it_keeps_back(case: str, interval: int) -> None:
    stack, values = case_config(case)
    scraped = {"prometheus": {"scrapeInterval": f"{interval}s", "scrapeTimeout": "10s"}}
    environment = environment_of(stack, merged(values, scraped))
    # A scrape and an evaluation, until the end is seen, and half a minute until what waits for the cause answers again.
    later = 2 * interval + 30
    early = {
        (cause["alert"], other["alert"])
        for cause, other, together in kept_back(environment)
        if seconds(cause["keep_firing_for"]) - seconds(other["keep_firing_for"]) < (0 if together else later)
    }
    assert not early, "all is well again, and somebody is woken"


def healed(environment: Environment, fault: Fault) -> Iterator[dict[str, str]]:
    """Yield the series as promtool takes them: of a fault that ends, and is seen to end at two moments."""
    assert fault.told
    told, service = fault.told
    first = SEEN_BY.get(told, f'container_last_seen{{name="{environment.prefix}-{service}"')
    for whole, ill in zip(broken(environment, Fault(told=None)), broken(environment, fault), strict=True):
        values = ill["values"]
        if ill != whole:
            begin, by = (int(each) for each in re.fullmatch(r"(\d+)\+(\d+)x.*", whole["values"]).groups())  # type: ignore[union-attr]
            before, _, after = values.partition(" ")
            minute = HEALED if first in ill["series"] else HEALED + 1
            samples = minute - BROKEN - 1
            during = f"stale _x{samples - 1}" if after == "stale" else re.sub(r"x60$", f"x{samples - 1}", after)
            again = f"{begin + by * minute}+{by}x{LAST - minute}"
            values = f"{before} {during or f'_x{samples}'} {again}"
        yield {"series": ill["series"], "values": values}


def recovery(environment: Environment, name: str, fault: Fault) -> dict[str, Any]:
    """Return promtool's test: when what is told is over, no other critical alert is there, and at the end none."""
    assert fault.told
    told = f'ALERTS{{alertstate="firing",alertname="{fault.told[0]}",service="{fault.told[1]}"}}'
    critical = 'group by (alertname, service) (ALERTS{alertstate="firing",severity="critical"})'
    return {
        "name": name,
        "interval": "1m",
        "input_series": [*healed(environment, fault)],
        "promql_expr_test": [
            {"expr": f"group({told})", "eval_time": f"{SEEN}m", "exp_samples": [{"labels": "{}", "value": 1}]},
            *(
                {"expr": f"{critical} unless on () {told}", "eval_time": f"{minute}m", "exp_samples": []}
                for minute in range(SEEN, LAST + 1)
            ),
            {"expr": critical, "eval_time": f"{LAST}m", "exp_samples": []},
        ],
    }


def outage(minutes: int) -> dict[str, Any]:
    """Return promtool's test: both stores were away, and when their own alerts are over no other tells the errors."""
    before, after = 120, 60
    asked = 4 * minutes
    whole = 4 * (before + minutes + after)
    good = f"0+30x{4 * before} {30 * 4 * before}x{asked} {30 * 4 * before}+30x{4 * after}"
    bad = f"0x{4 * before} 0+30x{asked} {30 * asked}x{4 * after}"
    every = f"0+30x{whole}"
    requests = 'samokoder_http_requests_total{job="api",instance="api-1:8000",method="GET",endpoint="/projects",status='
    answers = f'{DURATION}_count{{job="ingress",server="https",handler="{COUNTED_HANDLER}",code='
    series = {
        f'{requests}"200"}}': good,
        f'{requests}"503"}}': bad,
        f'{answers}"200"}}': good,
        f'{answers}"503"}}': bad,
        'worker_jobs_total{job="worker",status="succeeded"}': good,
        'worker_jobs_total{job="worker",status="failed"}': bad,
        'samokoder_db_errors_total{job="api"}': bad,
        'samokoder_rate_limit_unavailable_total{job="api"}': bad,
        f'{SECONDS}_count{{job="api"}}': every,
    }
    for histogram in (SECONDS, "samokoder_db_query_duration_seconds"):
        slow = {"0.5": good, "10.0": every, "+Inf": every}
        series |= {f'{histogram}_bucket{{job="api",le="{le}"}}': values for le, values in slow.items()}
    for store, exporter in (("pg_up", "postgres-exporter"), ("redis_up", "redis-exporter")):
        series[f'{store}{{job="{exporter}"}}'] = f"1x{4 * before} 0x{asked} 1x{4 * after}"
    series |= {f'up{{job="{job}"}}': f"1x{whole}" for job in ("api", "worker", "postgres-exporter", "redis-exporter")}
    down = 'ALERTS{alertstate="firing",alertname=~"PostgresDown|RedisDown"}'
    warnings = "|".join(FROM_A_WINDOW)
    errors = 'group by (alertname) (ALERTS{alertstate="firing",alertname=~".*BudgetBurn",severity="critical"}'
    errors += f' or ALERTS{{alertstate="firing",alertname=~"{warnings}"}})'
    return {
        "name": f"PostgreSQL and Redis are away for {minutes} minutes",
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"count({down})",
                "eval_time": f"{before + minutes}m",
                "exp_samples": [{"labels": "{}", "value": 2}],
            },
            *(
                {"expr": f"{errors} unless on () {down}", "eval_time": f"{moment}s", "exp_samples": []}
                for moment in range(60 * before, 60 * (before + minutes + after), 15)
            ),
        ],
    }


def recoveries(environment: Environment) -> dict[str, str]:
    """Return promtool's files."""
    files = {"/test/rules.yml": yaml_text(rule_document(environment, specs(environment)))}
    for number, (name, fault) in enumerate(faults(environment).items()):
        if fault.told:
            tests = [recovery(environment, name, fault)]
            document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
            files[f"/test/test-{number}.yml"] = yaml.safe_dump(document, sort_keys=False)
    tests = [outage(minutes) for minutes in (3, 12)]
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}
    files["/test/test-outage.yml"] = yaml.safe_dump(document, sort_keys=False)
    return files


@pytest.mark.live
def test_promtool_sees_nothing_fire_that_nothing_keeps_back_after_a_fault_is_over(
    laboratory: Laboratory, environment: Environment
) -> None:
    files = recoveries(environment_of("staging", WORLD))
    shell = laboratory.shell(environment.image("prometheus"), files)
    code, said = output(shell, "promtool", "test", "rules", *(name for name in files if "/test-" in name))
    assert code == 0, said
