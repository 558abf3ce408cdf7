"""Alerts on the LLM providers, from metrics of the part that calls them: in the reference application the worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Text, number, share
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service="llm", dashboard="samokoder-overview")


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    return Group(name="llm", rules=[*_alerts(environment.settings.alerts)])


def _alerts(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="LlmErrorRateHigh",
        expression="sum by (provider) (rate(samokoder_llm_request_errors_total[10m])) "
        "/ (sum by (provider) (rate(samokoder_llm_requests_total[10m])) > 0) "
        f"> {share(alerts.llm_error_percent)}",
        wait="10m",
        severity="warning",
        summary=Text(en="calls of {{ $labels.provider }} fail", ru="вызовы {{ $labels.provider }} завершаются ошибкой"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the calls of the last ten minutes failed; "
            f"the threshold is {number(alerts.llm_error_percent)}%.",
            ru="{{ $value | humanizePercentage }} вызовов за последние десять минут завершились ошибкой; "
            f"порог — {number(alerts.llm_error_percent)}%.",
        ),
    )
    yield alert(
        name="LlmLatencyHigh",
        expression="histogram_quantile(0.95, sum by (provider, le) "
        f"(rate(samokoder_llm_request_duration_seconds_bucket[10m]))) > {number(alerts.llm_p95_seconds)}",
        wait="15m",
        severity="warning",
        summary=Text(en="{{ $labels.provider }} is slow", ru="{{ $labels.provider }} отвечает медленно"),
        description=Text(
            en='Five of 100 calls take longer than {{ printf "%.1f" $value }} s; '
            f"the threshold is {number(alerts.llm_p95_seconds)} s.",
            ru='Пять вызовов из 100 длятся дольше {{ printf "%.1f" $value }} с; '
            f"порог — {number(alerts.llm_p95_seconds)} с.",
        ),
    )
    yield alert(
        name="LlmCostSpike",
        expression=f"sum(increase(samokoder_llm_cost_usd_total[1h])) > {number(alerts.llm_cost_usd_per_hour)}",
        wait="10m",
        severity="warning",
        summary=Text(en="language models cost much", ru="растут расходы на языковые модели"),
        description=Text(
            en='${{ printf "%.2f" $value }} in the last hour; '
            f"the threshold is ${number(alerts.llm_cost_usd_per_hour)}.",
            ru='За последний час потрачено ${{ printf "%.2f" $value }}; '
            f"порог — ${number(alerts.llm_cost_usd_per_hour)}.",
        ),
    )
    yield alert(
        name="LlmCircuitOpen",
        expression="max by (provider) (samokoder_llm_circuit_open) == 1",
        wait="2m",
        severity="critical",
        summary=Text(
            en="{{ $labels.provider }} is not called any more", ru="вызовы {{ $labels.provider }} приостановлены"
        ),
        description=Text(
            en="It failed so often that the circuit breaker refuses every call: who needs it gets an error at once.",
            ru="Ошибок было столько, что предохранитель отклоняет каждый вызов: кому нужна модель, сразу получает "
            "ошибку.",
        ),
    )
