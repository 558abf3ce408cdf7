"""What fires goes on until Prometheus says that it stores nothing: nobody is told "resolved" of what cannot be seen."""

from __future__ import annotations

import pytest
import yaml

from stack.settings.environment import Environment
from stack.settings.types import seconds
from tests.recording import case_environment
from tests.render.conftest import Laboratory, output
from tests.render.rule_cases import Case, cases, rules_tests
from tests.render.rule_cases.healthy import TOLD_AFTER
from tests.render.test_prometheus import ALWAYS, WORLDS, rules_text

pytestmark = [pytest.mark.live, pytest.mark.long]
LOOKS_BACK = 5
"""Minutes after which Prometheus takes a series without a sample for gone."""


def cut(values: str, samples: int) -> str:
    """Return the first samples of a series in promtool's notation."""
    kept, left = [], samples
    for token in values.split():
        base, _, times = token.partition("x")
        blank = base == "_"
        number = int(times) + (not blank) if times else 1
        take = min(left, number)
        left -= take
        if take == number:
            kept.append(token)
        elif take:
            kept.append(f"_x{take}" if blank else f"{base}x{take - 1}")
    return " ".join(kept)


def gone(case: Case) -> dict[str, object]:
    """Return promtool's test: the case, and after its minute nothing is stored any more."""
    samples = round(case.minute * 60 / seconds(case.interval)) + 1
    firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) >= bool {len(case.fires)}'
    return {
        "name": f"{case.alert}: {case.title}, and its series end",
        "interval": case.interval,
        "input_series": [{"series": series, "values": cut(values, samples)} for series, values in case.stored.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{case.minute + TOLD_AFTER}m", "exp_samples": [{"labels": "{}", "value": 1}]}
        ],
    }


@pytest.mark.parametrize("world", WORLDS)
def test_what_fires_goes_on_until_prometheus_says_that_it_stores_nothing(
    laboratory: Laboratory, environment: Environment, world: str
) -> None:
    described = case_environment(world)
    # With more time between two samples than Prometheus looks back, all that a rule asks for is hours old.
    tried = [
        case
        for case in cases(described)
        if case.fires and case.alert not in ALWAYS and seconds(case.interval) < LOOKS_BACK * 60
    ]
    assert len({case.alert for case in tried}) > 60, "the cases are not found"
    files = {name: text for name, text in rules_tests(described, rules_text(world)).items() if "test-" not in name}
    tests: dict[tuple[str, str], list[object]] = {}
    for case in tried:
        tests.setdefault((case.alert, case.interval), []).append(gone(case))
    named = {}
    for (alert, interval), documents in tests.items():
        document = {"rule_files": [f"{alert}.yml"], "evaluation_interval": interval, "tests": documents}
        named[f"/test/gone-{alert}-{interval}.yml"] = yaml.safe_dump(document, sort_keys=False)
    placed = {f"/test/{name}": text for name, text in files.items()}
    shell = laboratory.shell(environment.image("prometheus"), placed | named)
    code, said = output(shell, "promtool", "test", "rules", *named)
    assert code == 0, said
    assert said.count("SUCCESS") == len(named), said
