"""A world in which all is well and an image measures nothing of its own: nothing may fire in it but the Watchdog."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
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


AWAY = ((ENDS + 1, 4), (ENDS + 20, 12))
"""Twice nothing is stored: the first such minute, and how many. Too short and long enough for targets to be gone."""
BEAT = {"series": 'worker_heartbeat_timestamp_seconds{job="worker",instance="worker:1"}', "values": "0+60x60"}
OTHERS = 'ALERTS{alertstate="firing",alertname!~"Watchdog|PrometheusNotIngesting"}'
TOLD = 'ALERTS{alertstate="firing",alertname="PrometheusNotIngesting"}'


def back(environment: Environment) -> dict[str, Any]:
    """Return promtool's test: nothing that the silence makes false fires, nor by a scrape that is missed later."""
    healthy = document(environment)
    missed = {begin + minutes + after for begin, minutes in AWAY for after in (2, 5)}
    return {
        **healthy,
        "name": "samples are stored again, then scrapes are missed, and nothing but the silence itself is told",
        "input_series": [{**each, "values": _values(each, missed=missed)} for each in [*healthy["input_series"], BEAT]],
        "promql_expr_test": [
            *({"expr": OTHERS, "eval_time": f"{minute}m", "exp_samples": []} for minute in range(ENDS, 61)),
            *(_fires("PrometheusNotIngesting", begin + TOLD_AFTER) for begin, _ in AWAY),
        ],
    }


def down(environment: Environment) -> dict[str, Any]:
    """Return promtool's test: what ends while nothing is stored fires within its wait after that, and is told later.

    PrometheusNotIngesting keeps it back until the ends of all others are over: for nine minutes after the silence.
    """
    healthy = document(environment)
    begin, minutes = AWAY[-1]
    seen = begin + minutes
    series = {
        each["series"]: _values(each, down=seen if re.search('job="(api|worker)"', each["series"]) else 61)
        for each in healthy["input_series"]
    }
    return {
        **healthy,
        "name": "API and worker ended while nothing was stored",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": OTHERS, "eval_time": f"{seen + 1}m", "exp_samples": []},
            *(_fires(alert, seen + 2) for alert in ("ApiDown", "WorkerDown")),
            _fires("PrometheusNotIngesting", seen + 8),
            {"expr": TOLD, "eval_time": f"{seen + 9}m", "exp_samples": []},
            *(_fires(alert, seen + 9) for alert in ("ApiDown", "WorkerDown")),
        ],
    }


def _fires(alert: str, minute: int) -> dict[str, Any]:
    return {
        "expr": f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}],
    }


def _values(series: Mapping[str, str], *, missed: Collection[int] = (), down: int = 61) -> str:
    """Return the values `first+byx60` of a series without the samples of AWAY.

    missed: minutes of scrapes that fail. down: the first minute from which on its target is not there.
    """
    first, by = (int(number) for number in series["values"].removesuffix("x60").split("+"))
    gone = {minute for begin, minutes in AWAY for minute in range(begin, begin + minutes)}
    # cAdvisor's samples have times of their own, so Prometheus does not mark them as ended.
    ended = "0" if series["series"].startswith("up{") else "_" if "container_" in series["series"] else "stale"
    return " ".join(
        "_" if minute in gone else ended if minute in missed or minute >= down else str(first + by * minute)
        for minute in range(61)
    )


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
