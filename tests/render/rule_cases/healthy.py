"""A world in which all is well and an image measures nothing of its own: nothing may fire in it but the Watchdog."""

from __future__ import annotations

from typing import Any

from stack.parts.backup import spec as backup
from stack.settings.environment import Environment
from tests.described import specs

ENDS = 10
"""Minute of the last samples of `gone`."""
TOLD_AFTER = 3
"""Minutes without a sample until Prometheus says that it stores nothing."""


def gone(environment: Environment) -> dict[str, Any]:
    """Return promtool's test: from minute 10 on nothing is stored any more, as where the disk is full."""
    healthy = document(environment)
    firing = 'count by (alertname) (ALERTS{alertstate="firing",alertname!="Watchdog"})'
    told = {"labels": '{alertname="PrometheusNotIngesting"}', "value": 1}

    def at(minute: int, *samples: dict[str, Any], of: str = firing) -> dict[str, Any]:
        return {"expr": of, "eval_time": f"{minute}m", "exp_samples": list(samples)}

    return {
        **healthy,
        "name": "nothing is stored any more",
        "input_series": [
            {**each, "values": each["values"].replace("x60", f"x{ENDS}")} for each in healthy["input_series"]
        ],
        "promql_expr_test": [
            at(ENDS),
            # Before anything else is: what is told later than this is kept back by it.
            at(ENDS + TOLD_AFTER, told),
            at(ENDS + 45, told, of='count by (alertname) (ALERTS{alertstate="firing",alertname=~"PrometheusNot.*"})'),
        ],
    }


def back(environment: Environment) -> dict[str, Any]:
    """Return promtool's test: twice nothing is stored for a while, too short and long enough for targets to be gone."""
    healthy = document(environment)
    away = ((ENDS + 1, 4), (ENDS + 20, 12))
    others = 'ALERTS{alertstate="firing",alertname!~"Watchdog|PrometheusNotIngesting"}'
    told = 'ALERTS{alertstate="firing",alertname="PrometheusNotIngesting"}'
    beat = {"series": 'worker_heartbeat_timestamp_seconds{job="worker",instance="worker:1"}', "values": "0+60x60"}
    return {
        **healthy,
        "name": "samples are stored again, and nothing that the silence made false is told",
        "input_series": [
            {**each, "values": _without(each["values"], away)} for each in [*healthy["input_series"], beat]
        ],
        "promql_expr_test": [
            # Were it not there, nothing would have to be kept back.
            {
                "expr": 'sum by (alertname) (ALERTS{alertname="ApiDown",alertstate="firing"})',
                "eval_time": f"{sum(away[-1]) + 3}m",
                "exp_samples": [{"labels": '{alertname="ApiDown"}', "value": 1}],
            },
            *(
                {"expr": f"{others} unless on () {told}", "eval_time": f"{minute}m", "exp_samples": []}
                for minute in range(ENDS, 61)
            ),
            {"expr": told, "eval_time": "60m", "exp_samples": []},
        ],
    }


def _without(values: str, away: tuple[tuple[int, int], ...]) -> str:
    """Return `first+byx60` without the samples of some minutes. away: the first such minute, and how many."""
    first, by = (int(number) for number in values.removesuffix("x60").split("+"))
    gone = {minute for begin, minutes in away for minute in range(begin, begin + minutes)}
    return " ".join("_" if minute in gone else str(first + by * minute) for minute in range(61))


def document(environment: Environment) -> dict[str, Any]:
    """Return promtool's test: every target is up, every container is there, no other series exists."""
    parts = specs(environment)
    series = {f'up{{job="{part.job}",instance="{part.part}:1"}}': "1+0x60" for part in parts if part.job}
    # Its value is the time of the sample, in seconds.
    series |= {f'container_last_seen{{name="{environment.prefix}-{part.part}"}}': "0+60x60" for part in parts}
    series |= {
        f'{metric}{{job="{job}-exporter"}}': "1+0x60" for metric, job in (("pg_up", "postgres"), ("redis_up", "redis"))
    }
    # The same: made at this very moment. Or never, and silence must not look like health.
    done = {f'backup_last_success_timestamp_seconds{{kind="{kind}"}}' for kind in backup.kinds(environment)}
    done |= {"stack_drift_checked_timestamp_seconds"}
    done |= {f"backup_{what}_last_success_timestamp_seconds" for what in ("verify", "restore_test")}
    series |= dict.fromkeys(done, "0+60x60")
    return {
        "name": "nothing but what is healthy",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                # Pending ones too: an alert that waits for an hour would fire in such a world all the same.
                "expr": "count by (alertname) (ALERTS)",
                "eval_time": "60m",
                "exp_samples": [{"labels": '{alertname="Watchdog"}', "value": 1}],
            }
        ],
    }
