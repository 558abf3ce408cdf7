"""The alerts on language models."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Series, grows, pair, stays

LABELS = {"service": "llm", "severity": "warning"}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""

    def calls(failed: float) -> Series:
        return {
            'samokoder_llm_requests_total{job="worker",instance="a",provider="openai",model="x"}': grows(60),
            'samokoder_llm_requests_total{job="worker",instance="b",provider="openai",model="y"}': grows(40),
            'samokoder_llm_requests_total{job="worker",instance="a",provider="anthropic",model="z"}': grows(500),
            'samokoder_llm_request_errors_total{job="worker",provider="openai",error_type="timeout"}': grows(failed),
        }

    yield from pair(
        "LlmErrorRateHigh",
        titles=("of one provider", "of one provider"),
        fires=calls(25),
        silent=calls(10),
        minute=25,
        labels=LABELS | {"provider": "openai"},
        summary="calls of openai fail",
        description="25% of the calls of the last ten minutes failed; the threshold is 10%.",
    )
    yield Case(alert="LlmErrorRateHigh", title="no calls", series=dict.fromkeys(calls(0), stays(5)), minute=25)

    def seconds(slow: float) -> Series:
        buckets = {"20.0": 100 - slow, "30.0": 100 - slow, "60.0": 100.0, "+Inf": 100.0}
        name = "samokoder_llm_request_duration_seconds_bucket"
        return {f'{name}{{job="worker",provider="openai",model="x",le="{le}"}}': grows(n) for le, n in buckets.items()}

    yield from pair(
        "LlmLatencyHigh",
        fires=seconds(50),
        silent=seconds(4),
        minute=30,
        labels=LABELS | {"provider": "openai"},
        summary="openai is slow",
        description="Five of 100 calls take longer than 57.0 s; the threshold is 30 s.",
    )

    def cost(by: float) -> Series:
        names = (("openai", "x"), ("anthropic", "z"))
        return {
            f'samokoder_llm_cost_usd_total{{job="worker",provider="{provider}",model="{model}"}}': grows(by, 120)
            for provider, model in names
        }

    yield from pair(
        "LlmCostSpike",
        titles=("of all providers", "of all providers"),
        fires=cost(0.2),
        silent=cost(0.05),
        minute=100,
        labels=LABELS,
        summary="language models cost much",
        description="$24.00 in the last hour; the threshold is $10.",
    )
    circuit = 'samokoder_llm_circuit_open{{job="worker",instance="{}",provider="openai"}}'
    yield from pair(
        "LlmCircuitOpen",
        titles=("in one of two workers", "closed"),
        fires={circuit.format("a"): stays(0), circuit.format("b"): stays(1)},
        silent={circuit.format("a"): stays(0), circuit.format("b"): stays(0)},
        minute=4,
        labels=LABELS | {"severity": "critical", "provider": "openai"},
        summary="openai is not called any more",
        description="It failed so often that the circuit breaker refuses every call: "
        "who needs it gets an error at once.",
    )
