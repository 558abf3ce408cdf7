"""The store of the logs. That it is down or out of reach is said by the alerts that every part has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Text
from stack.parts.logs.spec import PART, free_mib
from stack.settings.environment import Environment
from stack.settings.types import bytes_of
from stack.spec.service import ServiceSpec

OURS = f'job="{PART}"'
FULL_RATIO = 0.9
DATA = f"sum by (job) (vl_data_size_bytes{{{OURS}}})"
LEFT_OUT = f'vl_rows_dropped_total{{{OURS},reason!="too_small_timestamp"}}'
"""Lines that it has answered with 200 and not stored, but for those that are older than the retention."""
READ_ONLY = f"max by (job) (vl_storage_is_read_only{{{OURS}}})"

alert = partial(Alert, service=PART, dashboard="samokoder-monitoring")


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules: none where the logs are not collected."""
    return Group(name="logs", rules=[] if PART in environment.absent else [_full(environment), _short(environment)])


def kept(environment: Environment) -> str:
    """Return what the logs take of what they may take."""
    return f"{DATA} / {bytes_of(environment.settings.logs.retention_size)}"


def _full(environment: Environment) -> Alert:
    free = free_mib(environment)
    return alert(
        name="LogStoreFull",
        expression=f"{READ_ONLY} == 1",
        wait="1m",
        severity="warning",
        summary=Text(en="VictoriaLogs takes no lines any more", ru="VictoriaLogs больше не принимает строки"),
        description=Text(
            en=f"Less than {free} MiB of its disk are free. "
            "New lines wait in the collector's buffer, then they are dropped.",
            ru=f"На диске осталось меньше {free} МиБ. Новые строки ждут в буфере сборщика, потом теряются.",
        ),
    )


def _short(environment: Environment) -> Alert:
    return alert(
        name="LogsKeptTooShort",
        expression=f"{kept(environment)} > {FULL_RATIO}",
        wait="1h",
        severity="info",
        summary=Text(en="the oldest logs go before their time", ru="старые логи удаляются раньше срока"),
        description=Text(
            en="They take {{ $value | humanizePercentage }} of samokoder:logs.retentionSize; beyond it the oldest day "
            "goes, whatever retentionTime says.",
            ru="Занято {{ $value | humanizePercentage }} от samokoder:logs.retentionSize; сверх этого удаляется самый "
            "старый день, что бы ни было в retentionTime.",
        ),
    )
