"""Metrics of the application, PostgreSQL and Redis: whether they are there and plausible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from prometheus_client.parser import text_string_to_metric_families

from operations.checks.image.exposure import not_exposed
from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked
from operations.clone import typed
from operations.errors import FailedError, UnavailableError
from stack.monitoring.metrics import Job, Kind
from stack.parts.api.metrics import of_jobs
from stack.parts.postgres import exporter as postgres_exporter
from stack.parts.postgres import spec as postgres
from stack.parts.redis import exporter as redis_exporter
from stack.parts.redis import spec as redis
from stack.spec.service import Scrape, ServiceSpec

_LEAST_DATABASE_BYTES = 2**20


def metrics_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield the checks of the metrics."""
    for spec in asked.parts:
        if isinstance(spec.scrape, Scrape) and spec.job in set(Kind):

            def application(spec: ServiceSpec = spec) -> str:
                return _application(asked, spec, Kind(spec.job))

            yield Check(name=f"metrics {spec.part}", ask=application)
    running = {spec.part for spec in asked.parts}
    if postgres_exporter.PART in running:
        yield Check(name="metrics postgres", ask=lambda: _postgres(asked))
    if redis_exporter.PART in running:
        yield Check(name="metrics redis", ask=lambda: _redis(asked))


def _application(asked: StackAsked, spec: ServiceSpec, kind: Kind) -> str:
    """Judge the contract's required metrics by what Prometheus has, as the ports of these parts are not published."""
    instance = asked.need_target(spec)
    required = [metric for metric in of_jobs([Job(kind.value)]) if metric.required]
    series = {f"{each.name}_count" if each.type == "histogram" else each.name: each.name for each in required}
    found = asked.samples(f'{{job="{spec.job}",instance="{instance}",__name__=~"{"|".join(sorted(series))}"}}')
    there = {labels["__name__"] for labels, _ in found}
    missing = [name for each, name in series.items() if each not in there]
    if missing and getattr(asked.environment.settings, kind.value).image is None:
        raise FailedError(f"missing: {', '.join(missing)}")
    if wrong := sorted({labels["__name__"] for labels, value in found if not (math.isfinite(value) and value >= 0)}):
        raise FailedError(f"not a number of at least 0: {', '.join(wrong)}")
    if missing:
        # A metric without a series yet, such as a count of refusals, is only in the metadata. In OpenMetrics, which
        # Prometheus asks for, the metadata of a counter has its name without `_total`.
        target = f'{{job="{spec.job}",instance="{instance}"}}'
        typed_ones = {each["metric"] for each in asked.prometheus("targets/metadata", match_target=target)}
        missing = [name for name in missing if not {name, name.removesuffix("_total")} & typed_ones]
    if missing:
        # A team's own image may lack some: as a failure, that would undo each deploy of the image.
        raise UnavailableError(not_exposed(asked.environment, missing))
    return f"all {len(required)} that alerts need, {len(found)} series, none below 0"


Values = Callable[..., list[float]]


def _page_of_metrics(asked: StackAsked, part: str) -> Values:
    """Return a function that gives the values of a metric, by its name and labels, on a part's own page."""
    scrape = asked.spec(part).scrape
    assert isinstance(scrape, Scrape), part  # noqa: S101 - each exporter is scraped
    families = list(text_string_to_metric_families(asked.get(part, scrape.path).text))

    def values(name: str, **labels: str) -> list[float]:
        samples = (sample for family in families for sample in family.samples)
        return [each.value for each in samples if each.name == name and labels.items() <= each.labels.items()]

    return values


def _expect(values: Values, name: str, what: str, good: Callable[[float], bool], **labels: str) -> float:
    """Return the first value of a metric. Raises FailedError where it has no value, or one that is not `good`.

    what: the good values, in words.
    """
    found = values(name, **labels)
    if not found:
        raise FailedError(f"{name} is missing")
    if wrong := [value for value in found if not good(value)]:
        raise FailedError(f"{name} is {wrong[0]:g}, not {what}")
    return found[0]


def _postgres(asked: StackAsked) -> str:
    environment = asked.environment
    local = not environment.managed_database
    asked.need(*((postgres.PART,) if local else ()))
    values = _page_of_metrics(asked, postgres_exporter.PART)
    collected = ["pg_database_size_bytes", *(["pg_stat_database_numbackends"] if local else [])]
    if not all(values(name) for name in collected):
        # On a busy host one collection may exceed its time limit, and the next one may not.
        values = _page_of_metrics(asked, postgres_exporter.PART)
    _expect(values, "pg_up", "1: the exporter cannot log in", lambda value: value == 1)
    if missing := [name for name in collected if not values(name)]:
        limit = environment.settings.prometheus.answer_seconds
        raise FailedError(
            f"missing: {', '.join(missing)}. Its collector failed, or took longer than {limit} s, twice; "
            f"{typed(environment.name, f'logs PART={postgres_exporter.PART}')} says why"
        )
    if not local:
        size = max(values("pg_database_size_bytes"))
        if size < _LEAST_DATABASE_BYTES:
            raise FailedError(f"pg_database_size_bytes is {size:g}, not the size of any database")
        return f"reached, the largest database has {size / 2**20:.0f} MiB"
    settings = environment.settings.postgres
    most = settings.max_connections
    _expect(values, "pg_settings_max_connections", f"{most} as declared", lambda value: value == most)
    database = {"datname": settings.database}
    least = f"at least {_LEAST_DATABASE_BYTES}"
    size = _expect(values, "pg_database_size_bytes", least, lambda value: value >= _LEAST_DATABASE_BYTES, **database)
    used = _expect(
        values, "pg_stat_database_numbackends", f"between 1 and {most}", lambda value: 1 <= value <= most, **database
    )
    return f"{size / 2**20:.0f} MiB, {used:.0f} of {most} connections"


def _redis(asked: StackAsked) -> str:
    local = not asked.environment.managed_redis
    asked.need(*((redis.PART,) if local else ()))
    values = _page_of_metrics(asked, redis_exporter.PART)
    _expect(values, "redis_up", "1: the exporter cannot log in", lambda value: value == 1)
    clients = _expect(values, "redis_connected_clients", "at least 1", lambda value: value >= 1)
    if not local:
        return f"reached, {clients:.0f} clients, {_counted(values)}"
    refused = "0: Redis refused commands of its own append-only file when it started"
    # The exporter names this counter without `_total`, which the parser adds.
    _expect(values, "redis_unexpected_error_replies_total", refused, lambda value: value == 0)
    most = asked.environment.settings.redis.maxmemory_mib * 2**20
    _expect(values, "redis_memory_max_bytes", f"{most} as declared", lambda value: value == most)
    used = _expect(values, "redis_memory_used_bytes", f"between 1 and {most}", lambda value: 1 <= value <= most)
    return f"{used / 2**20:.1f} of {most / 2**20:.0f} MiB, {clients:.0f} clients"


def _counted(values: Values) -> str:
    """Say how many commands of its own file a managed Redis refused; its counter includes commands of its replicas."""
    refused = values("redis_unexpected_error_replies_total")
    if not refused:
        return "and it does not count what it refused of its own file"
    if not refused[0]:
        return "and it has refused nothing of its own file since it started"
    return (
        f"and {refused[0]:.0f} commands of its own file, or of its replicas, were refused since it started: jobs may "
        "be missing. Ask its provider (docs/runbooks/RedisFileReadWithErrors.md)"
    )
