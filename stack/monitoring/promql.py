"""Pieces of PromQL that several dashboards use; they aggregate over all replicas."""

from __future__ import annotations

from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.monitoring.alerts import share
from stack.settings.environment import Environment

CONTAINER_PART = f"container_label_{PART_LABEL.replace('.', '_')}"
"""cAdvisor's label with the name of a part; the name of the container is longer, it begins with the environment's."""


def ratio(percent: float) -> float:
    """Return a percentage as a ratio for panels in `percentunit`, equal to the number in the rules."""
    return float(share(percent))


def total(metric: str, selector: str = "", by: str = "", window: str = "$__rate_interval") -> str:
    """Return a counter's growth per second, over all replicas."""
    return _sum(f"rate({metric}{_in_braces(selector)}[{window}])", by)


def grown(window: str, metric: str, selector: str = "", by: str = "") -> str:
    """Return a counter's growth in `window`, over all replicas."""
    return _sum(f"increase({metric}{_in_braces(selector)}[{window}])", by)


def counted(window: str, metric: str, selector: str = "", by: str = "") -> str:
    """Return how many events were counted in `window`, rounded, because PromQL's increase() gives fractions."""
    return f"round({grown(window, metric, selector, by)})"


def quantile(part: float, histogram: str, selector: str = "", by: str = "", window: str = "$__rate_interval") -> str:
    """Return a quantile over all replicas, computed from the sum of their buckets, never from their quantiles."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, {total(f'{histogram}_bucket', selector, labels, window)})"


def or_zero(expression: str) -> str:
    """Return the expression, or zero without a series: a counter's series begins only with the first event."""
    return f"{expression} or vector(0)"


def names_of(environment: Environment, *parts: str) -> str:
    """Return cAdvisor's selector of this environment's containers: all, or those of `parts`, replicas included."""
    name = f"({'|'.join(parts)})(-[0-9]+)?" if parts else ".+"
    # The label is needed too: `staging-.+` also matches the containers of an environment called staging-2.
    label = f"container_label_{ENVIRONMENT_LABEL.replace('.', '_')}"
    return f'name=~"{environment.prefix}-{name}",{label}="{environment.name}"'


def cpu_of_limit(selector: str) -> str:
    """Return the CPU that each container uses, as a share of its limit."""
    allowed = (
        f"max by ({CONTAINER_PART}) (container_spec_cpu_quota{{{selector}}} / container_spec_cpu_period{{{selector}}})"
    )
    return f"{total('container_cpu_usage_seconds_total', selector, CONTAINER_PART)} / {allowed}"


def cpu_held_back(selector: str) -> str:
    """Return the share of scheduler periods in which the CPU limit throttled each container."""
    periods = total("container_cpu_cfs_periods_total", selector, CONTAINER_PART)
    return f"{total('container_cpu_cfs_throttled_periods_total', selector, CONTAINER_PART)} / ({periods} > 0)"


def memory(selector: str) -> str:
    """Return the memory that cannot be taken away from a container, in bytes, of each series of it.

    The working set has pages of files that were read twice, which the kernel drops before it kills: PostgreSQL and
    Prometheus, which read more files than fit into their limit, would always be near it.
    """
    of = f"{{{selector}}}"
    return f"(container_memory_working_set_bytes{of} - container_memory_total_active_file_bytes{of})"


def memory_of_limit(selector: str) -> str:
    """Return the memory that each container uses, as a share of its limit."""
    limit = f"max by ({CONTAINER_PART}) (container_spec_memory_limit_bytes{{{selector}}})"
    return f"max by ({CONTAINER_PART}) ({memory(selector)}) / ({limit} > 0)"


def _sum(expression: str, by: str) -> str:
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def _in_braces(selector: str) -> str:
    return f"{{{selector}}}" if selector else ""
