"""Pieces of PromQL that several dashboards ask with. Over all replicas, whoever is asked."""

from __future__ import annotations

from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.monitoring.alerts import share
from stack.settings.environment import Environment

CONTAINER_PART = f"container_label_{PART_LABEL.replace('.', '_')}"
"""cAdvisor's label with the name of a part: the container's own name begins with that of the environment."""


def ratio(percent: float) -> float:
    """Return a percentage as panels in `percentunit` have it: the number that the rules write."""
    return float(share(percent))


def total(metric: str, selector: str = "", by: str = "", window: str = "$__rate_interval") -> str:
    """Return a counter's growth per second, over all replicas."""
    return _sum(f"rate({metric}{_in_braces(selector)}[{window}])", by)


def grown(window: str, metric: str, selector: str = "", by: str = "") -> str:
    """Return a counter's growth in `window`, over all replicas."""
    return _sum(f"increase({metric}{_in_braces(selector)}[{window}])", by)


def counted(window: str, metric: str, selector: str = "", by: str = "") -> str:
    """Return how often something was counted in `window`: whole numbers, which an increase is not by itself."""
    return f"round({grown(window, metric, selector, by)})"


def quantile(part: float, histogram: str, selector: str = "", by: str = "", window: str = "$__rate_interval") -> str:
    """Return a quantile over all replicas: of the sum of their buckets, never of their quantiles."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, {total(f'{histogram}_bucket', selector, labels, window)})"


def or_zero(expression: str) -> str:
    """Return zero where there is no series: for a counter whose series begins with the first event."""
    return f"{expression} or vector(0)"


def names_of(environment: Environment, *parts: str) -> str:
    """Return cAdvisor's selector of this environment's containers: all, or those of `parts`, replicas included."""
    name = f"({'|'.join(parts)})(-[0-9]+)?" if parts else ".+"
    # The label as well: `staging-.+` would match the containers of an environment called staging-2.
    label = f"container_label_{ENVIRONMENT_LABEL.replace('.', '_')}"
    return f'name=~"{environment.prefix}-{name}",{label}="{environment.name}"'


def cpu_of_limit(selector: str) -> str:
    """Return the CPU that each container uses, of what its limit allows."""
    allowed = (
        f"max by ({CONTAINER_PART}) (container_spec_cpu_quota{{{selector}}} / container_spec_cpu_period{{{selector}}})"
    )
    return f"{total('container_cpu_usage_seconds_total', selector, CONTAINER_PART)} / {allowed}"


def cpu_held_back(selector: str) -> str:
    """Return the share of each container's periods in which its limit of CPU held it back."""
    periods = total("container_cpu_cfs_periods_total", selector, CONTAINER_PART)
    return f"{total('container_cpu_cfs_throttled_periods_total', selector, CONTAINER_PART)} / ({periods} > 0)"


def memory_of_limit(selector: str) -> str:
    """Return the memory that each container uses, of its limit."""
    limit = f"max by ({CONTAINER_PART}) (container_spec_memory_limit_bytes{{{selector}}})"
    return f"max by ({CONTAINER_PART}) (container_memory_working_set_bytes{{{selector}}}) / ({limit} > 0)"


def _sum(expression: str, by: str) -> str:
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def _in_braces(selector: str) -> str:
    return f"{{{selector}}}" if selector else ""
