"""`samokoder smoke`: whether a stack that is up does all that it is for, asked from outside within seconds.

What is asked follows from the parts: their containers, pages, targets, rules and receivers are read from the same
descriptions and the same rendered files that `up` mounts. A part whose container is not well is told once: what needs
it is then not available.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from operations import alerting, checks, smoke_account, smoke_series
from operations.checks import Check, Finding, Once, Report, Verdict
from operations.clone import typed
from operations.engine import reach
from operations.engine.part_status import MISSING, NOT_AVAILABLE, PartStatus
from operations.errors import FailedError, NotConfiguredError, ProjectError, UnavailableError
from operations.exposure import not_exposed
from operations.smoke_account import LateError, Said, good, somebody
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.app import ingress, postgres, redis, worker
from stack.app.metrics_contract import Job, Kind, of_jobs
from stack.backup import backup
from stack.monitoring import (
    access,
    alertmanager,
    blackbox_exporter,
    grafana,
    postgres_exporter,
    prometheus,
    redis_exporter,
    rules,
)
from stack.monitoring.rules import backups
from stack.platform import specs
from stack.rotation import label
from stack.service import Scrape, ServiceSpec
from stack.settings import Environment, Ingress, Published, key_of
from stack.settings import seconds as seconds_of

_PAUSE_SECONDS = 2.0
_DAY_SECONDS = 86400
_HTTPS = 443
_LEAST_DATABASE_BYTES = 2**20
_GRAFANA_USER = "admin"
_JOB_SHARE = 0.6
"""Of the time that a check may take: what was made for the job is removed in the rest of it."""


def smoke(workspace: Workspace, *, seconds: float = 10, wait: float = 0) -> Report:
    """Check a stack that is up. seconds: that each check may take; wait: that a failed one is asked again.

    Leaves nothing: what it writes through the public entry it removes, unless it is cut off in between.
    Raises ProjectError where nothing of the stack runs, or its ports cannot be reached.
    """
    environment = workspace.settings()
    parts, end, account = specs(environment), time.monotonic() + wait, somebody()
    findings: list[Finding] = []
    with reach.opened(environment) as url, workspace.reporter.task(f"Smoke test of {environment.name}") as task:
        client = httpx.Client(timeout=seconds, trust_env=False, verify=_certificates(environment.settings.ingress))
        with client:
            while True:
                rows = {row.part: row for row in live_status(workspace)}
                if not any(row.ok for row in rows.values()):
                    raise ProjectError(f"{environment.name} is not up: {workspace.typed('up')}")
                asked = Asked(environment, parts, rows, client, url, Once(_passwords(workspace)), seconds, account)
                findings = standing(findings, checks.run(list(every(asked)), seconds=seconds, task=task))
                if time.monotonic() >= end or not any(each.verdict is Verdict.FAILED for each in findings):
                    return report(environment, findings)
                time.sleep(_PAUSE_SECONDS)


def standing(before: Sequence[Finding], now: Sequence[Finding]) -> list[Finding]:
    """Return the findings of a turn; a check that failed and now meets the limit of requests has failed still."""
    failed = {each.check: each for each in before if each.verdict is Verdict.FAILED}
    return [failed.get(each.check, each) if each.why.startswith(smoke_account.LIMITED) else each for each in now]


def report(environment: Environment, findings: Sequence[Finding]) -> Report:
    """Return what came of it."""
    about = {"environment": environment.name}
    return Report(title=f"Smoke test of {environment.name}", about=about, findings=findings)


def _passwords(workspace: Workspace) -> Callable[[], Mapping[str, str]]:
    return lambda: workspace.open().secrets()


def _certificates(settings: Ingress) -> ssl.SSLContext:
    """Trust what everybody trusts, and the private certificate authority of the configuration."""
    context = ssl.create_default_context()
    if settings.acme_root:
        context.load_verify_locations(cadata=settings.acme_root)
    return context


class Target(NamedTuple):
    """What Prometheus asks: a part's page of metrics, or by the blackbox exporter an address."""

    job: str
    instance: str
    family: str = ""
    """Of an address that is asked by IPv4 and by IPv6 apart: by which of them."""


@dataclass(frozen=True)
class Asked:
    """A stack, and how it is asked."""

    environment: Environment
    parts: Sequence[ServiceSpec]
    rows: Mapping[str, PartStatus]
    """What the engine says of each part's container."""
    client: httpx.Client
    url: reach.Url
    passwords: Callable[[], Mapping[str, str]]
    """The generated secrets by name."""
    seconds: float = 10
    """What each check may take."""
    somebody: Mapping[str, str] = field(default_factory=somebody)
    """The account that is made and removed. One for all turns: a turn that could not remove it leaves no second one."""

    def need(self, *parts: str) -> None:
        """Raise UnavailableError where a container is not well: that is one failure, and this one would be a second."""
        for part in parts:
            row = self.rows.get(part)
            if row and row.state == NOT_AVAILABLE:
                raise UnavailableError(f"this host cannot get an image of {part} ({key_of('unavailable')})")
            if row is None or not row.ok:
                raise UnavailableError(f"the container of {part} is {_state(row)}")

    def spec(self, part: str) -> ServiceSpec:
        """Return the description of a part that runs."""
        return next(spec for spec in self.parts if spec.part == part)

    def need_target(self, spec: ServiceSpec) -> str:
        """Return the instance of a scraped part. Raises UnavailableError where Prometheus does not get its metrics."""
        assert isinstance(spec.scrape, Scrape), spec.part  # noqa: S101 - asked of scraped parts alone
        self.need(prometheus.PART, spec.part)
        instance = f"{spec.part}:{spec.scrape.port}"
        target = self.targets().get(Target(spec.job, instance))
        if target is None or target["health"] != "up":
            raise UnavailableError("Prometheus does not get its metrics: its target is not up")
        return instance

    def get(self, part: str, path: str, **query: str) -> httpx.Response:
        """Ask a part's page, with its password where it has one. Raises FailedError unless it answers 200."""
        self.need(part)
        spec = self.spec(part)
        settings = spec.settings
        assert isinstance(settings, Published), part  # noqa: S101 - only published parts are asked
        base = settings.url if isinstance(settings, Ingress) and settings.domain else self.url(settings)
        return good(self.client.get(base + path, params=query, auth=self.login(part)), f"{base}{path}")

    def login(self, part: str) -> tuple[str, str] | None:
        """Return with what a part's pages are asked; None where they are open."""
        secret = self.spec(part).web_password
        return (access.USER, self.passwords()[label(secret)]) if secret else None

    def prometheus(self, path: str, **query: str) -> Any:
        """Return the data of an answer of Prometheus' API."""
        return self.get(prometheus.PART, f"/api/v1/{path}", **query).json()["data"]

    @cached_property
    def targets(self) -> Once[Mapping[Target, Mapping[str, Any]]]:
        """Prometheus' targets."""

        def ask() -> Mapping[Target, Mapping[str, Any]]:
            found = self.prometheus("targets", state="active")["activeTargets"]
            family = blackbox_exporter.FAMILY
            return {
                Target(labels["job"], labels["instance"], labels.get(family, "")): each
                for each in found
                for labels in [each["labels"]]
            }

        return Once(ask)

    def samples(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Return labels and value of each series of an expression, as Prometheus has it now."""
        found = self.prometheus("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]


def every(asked: Asked) -> Iterator[Check]:
    """Yield all that there is to ask, in the order of the report."""
    first, second = (_containers, _pages, _certificate, _entry), (_metrics, _targets, _rules, _alertmanager)
    for kind in (*first, *second, smoke_series.every, _grafana, _backups):
        yield from kind(asked)


# Containers and pages


def _containers(asked: Asked) -> Iterator[Check]:
    for part in (*(spec.part for spec in asked.parts), *asked.environment.settings.unavailable):

        def ask(part: str = part) -> str:
            row = asked.rows.get(part)
            if row and row.state == NOT_AVAILABLE:
                asked.need(part)
            if row is None or not row.ok:
                raise FailedError(f"it is {_state(row)}")
            return f"running and healthy for {row.uptime_seconds} s, {row.restarts} restarts"

        yield Check(name=f"container {part}", ask=ask)


def _state(row: PartStatus | None) -> str:
    if row is None:
        return MISSING
    return f"running and {row.health}" if row.state == "running" else row.state


def _pages(asked: Asked) -> Iterator[Check]:
    """Every published part, at the page by which a person or a probe knows that it is well."""
    for spec in asked.parts:
        if spec.publish:

            def ask(part: str = spec.part, path: str = spec.publish.path) -> str:
                answer = asked.get(part, path)
                return f"{answer.url} answers 200 in {answer.elapsed.total_seconds() * 1000:.0f} ms"

            yield Check(name=f"page {spec.part}", ask=ask)


def _certificate(asked: Asked) -> Iterator[Check]:
    def ask() -> str:
        settings = asked.environment.settings.ingress
        if not settings.domain:
            raise NotConfiguredError(f"{key_of('ingress', 'domain')} is not set: it is reached by HTTP alone")
        ours = settings.kind == "caddy"
        asked.need(*((ingress.PART,) if ours else ()))
        port = settings.https_port if ours else _HTTPS
        timeout = asked.client.timeout.connect or 0
        days = certificate_days(settings.domain, port, settings.domain, _certificates(settings), timeout)
        least = asked.environment.settings.alerts.tls_expires_days
        if days < least:
            key = key_of("alerts", "tls_expires_days")
            raise FailedError(f"it expires in {days:.1f} days; less than {key}, {least}")
        return f"the certificate of {settings.domain} is good for {days:.0f} days"

    yield Check(name="certificate", ask=ask)


def certificate_days(host: str, port: int, name: str, context: ssl.SSLContext, timeout: float) -> float:
    """Return for how many days the certificate that a server shows for `name` is still good. Raises FailedError."""
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=name) as encrypted,
        ):
            expires = ssl.cert_time_to_seconds(str((encrypted.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        raise FailedError(f"{name}:{port} shows a certificate that nobody trusts: {error.verify_message}") from None
    except OSError as error:
        raise FailedError(f"{name}:{port} does not answer by TLS: {error}") from None
    return (expires - time.time()) / _DAY_SECONDS


# The public entry


def _entry(asked: Asked) -> Iterator[Check]:
    said = Once(lambda: _as_user(asked))
    yield Check(name="public entry: write, read", ask=lambda: said().account)
    yield Check(name="job: queue, worker, database", ask=lambda: _job(asked, said))


def _as_user(asked: Asked) -> Said:
    settings = asked.environment.settings
    asked.need(*(part for part in (ingress.PART, postgres.PART, redis.PART) if part in asked.rows))
    if not any(row.ok for part, row in asked.rows.items() if part in asked.environment.parts_of("api")):
        raise UnavailableError("no replica of the API is well")
    public = settings.ingress.url if settings.ingress.domain else asked.url(settings.ingress)
    if settings.api.image:
        public += settings.ingress.strip_prefix
        smoke_account.need_mark(asked.client, public)
    row = asked.rows.get(worker.PART)
    work = bool(row and row.ok) and not _foreign_worker(asked)
    return smoke_account.write_and_read(
        asked.client, public, asked.somebody, seconds=_JOB_SHARE * asked.seconds, work=work
    )


def _foreign_worker(asked: Asked) -> bool:
    """Whether the worker is a team's own and the API is not: nobody knows which jobs it does."""
    settings = asked.environment.settings
    return bool(settings.worker.image and not settings.api.image)


def _job(asked: Asked, said: Callable[[], Said]) -> str:
    asked.need(worker.PART)
    if _foreign_worker(asked):
        raise UnavailableError("not asked: the worker's image is the team's own, and the API's is not")
    try:
        job = said().job
    except UnavailableError as why:
        if str(why).startswith(smoke_account.LIMITED) and (busy := _busy(asked)):
            raise UnavailableError(busy) from None
        raise
    except Exception:  # whatever it was, it is told once, where it happened
        raise UnavailableError("nobody could ask for one: see the public entry") from None
    try:
        return job()
    except LateError as late:
        if busy := _busy(asked):
            raise UnavailableError(f"{late}; {busy}") from None
        raise FailedError(f"{late} ({_worker_log(asked)})") from None
    except FailedError as error:
        raise FailedError(f"{error} ({_worker_log(asked)})") from None


def _worker_log(asked: Asked) -> str:
    return typed(asked.environment.name, f"logs PART={worker.PART}")


def _busy(asked: Asked) -> str:
    """Say that a worker which does its jobs has too many of them; nothing where it has done none since its start."""
    numbers = [0.0, 0.0]
    with contextlib.suppress(FailedError, UnavailableError, httpx.HTTPError):
        for number, metric in enumerate(("worker_queue_depth", 'worker_jobs_total{status="complete"}')):
            numbers[number] = max((value for _, value in asked.samples(metric)), default=0)
    waiting, done = numbers
    if waiting > 1 and done > 0:
        return f"{waiting:.0f} jobs are in the queue, and the worker has done {done:.0f} since its start"
    return ""


# Metrics


def _metrics(asked: Asked) -> Iterator[Check]:
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


def _application(asked: Asked, spec: ServiceSpec, kind: Kind) -> str:
    """Judge the contract's required metrics as Prometheus has them: the ports of these parts are published nowhere."""
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
        # A metric that has no series yet, as one of refusals, is known by its type alone. In OpenMetrics, which
        # Prometheus asks for, a counter's type stands without `_total`.
        target = f'{{job="{spec.job}",instance="{instance}"}}'
        typed_ones = {each["metric"] for each in asked.prometheus("targets/metadata", match_target=target)}
        missing = [name for name in missing if not {name, name.removesuffix("_total")} & typed_ones]
    if missing:
        # A team's own image need not have all: it would never pass, and each deploy of it would go back.
        raise UnavailableError(not_exposed(asked.environment, missing))
    return f"all {len(required)} that alerts need, {len(found)} series, none below 0"


Values = Callable[..., list[float]]


def _page_of_metrics(asked: Asked, part: str) -> Values:
    """Return a function that gives the values of a metric, by its name and labels, on a part's own page."""
    scrape = asked.spec(part).scrape
    assert isinstance(scrape, Scrape), part  # noqa: S101 - an exporter is nothing but that
    families = list(text_string_to_metric_families(asked.get(part, scrape.path).text))

    def values(name: str, **labels: str) -> list[float]:
        samples = (sample for family in families for sample in family.samples)
        return [each.value for each in samples if each.name == name and labels.items() <= each.labels.items()]

    return values


def _expect(values: Values, name: str, what: str, good: Callable[[float], bool], **labels: str) -> float:
    """Return the value of a metric that has one and is plausible. Raises FailedError."""
    found = values(name, **labels)
    if not found:
        raise FailedError(f"{name} is missing")
    if wrong := [value for value in found if not good(value)]:
        raise FailedError(f"{name} is {wrong[0]:g}, not {what}")
    return found[0]


def _postgres(asked: Asked) -> str:
    environment = asked.environment
    local = not environment.managed_database
    asked.need(*((postgres.PART,) if local else ()))
    values = _page_of_metrics(asked, postgres_exporter.PART)
    _expect(values, "pg_up", "1: the exporter cannot log in", lambda value: value == 1)
    if not local:
        size = max(values("pg_database_size_bytes"), default=0)
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


def _redis(asked: Asked) -> str:
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
    """Say what a managed Redis tells of commands that it refused of its own file; its replicas' are in that number."""
    refused = values("redis_unexpected_error_replies_total")
    if not refused:
        return "and it does not count what it refused of its own file"
    if not refused[0]:
        return "and it has refused nothing of its own file since it started"
    return (
        f"and {refused[0]:.0f} commands of its own file, or of its replicas, were refused since it started: jobs may "
        "be missing. Ask its provider (docs/runbooks/RedisFileReadWithErrors.md)"
    )


# Prometheus


def _targets(asked: Asked) -> Iterator[Check]:
    """Every target that Prometheus' own configuration declares, by its name."""
    configured = yaml.safe_load(prometheus.prometheus_yml(asked.environment, asked.parts))["scrape_configs"]
    for job in configured:
        for group in job["static_configs"]:
            for instance in group["targets"]:
                labels = group.get("labels", {})
                target = Target(job["job_name"], instance, labels.get(blackbox_exporter.FAMILY, ""))
                probed = labels.get("service", "")

                def ask(target: Target = target, probed: str = probed) -> str:
                    part = blackbox_exporter.PART if probed else target.instance.partition(":")[0]
                    asked.need(prometheus.PART, part)
                    text = _judged(asked.targets().get(target), typed(asked.environment.name, "up"))
                    if probed == blackbox_exporter.PUBLIC:
                        _expect_probe(asked, target)
                    return text

                by = f" by {target.family}" if target.family else ""
                yield Check(name=f"{'probe' if probed else 'target'} {instance}{by}", ask=ask)


def _judged(target: Mapping[str, Any] | None, up: str) -> str:
    if target is None:
        raise FailedError(f"Prometheus does not have it: it runs with an older configuration ({up})")
    if target["health"] == "unknown":
        raise FailedError("not asked yet")
    if target["health"] != "up":
        raise FailedError(f"{target['health']}: {target['lastError']}")
    return f"up, answered in {float(target['lastScrapeDuration']) * 1000:.0f} ms"


def _expect_probe(asked: Asked, target: Target) -> None:
    # A label that a series has not is empty.
    labels = f'instance="{target.instance}",{blackbox_exporter.FAMILY}="{target.family}"'
    succeeded = [value for _, value in asked.samples(f"probe_success{{{labels}}}")]
    if succeeded != [1.0]:
        # The exporter says 0 where it has found no address to ask.
        if target.family == blackbox_exporter.SIX and asked.samples(f"probe_ip_protocol{{{labels}}} == 0"):
            raise UnavailableError("the name has no AAAA record: nobody comes by IPv6 until there is one")
        raise FailedError("from inside of the stack it does not answer 200")


def _rules(asked: Asked) -> Iterator[Check]:
    found = Once(lambda: asked.prometheus("rules")["groups"])

    def loaded() -> str:
        asked.need(prometheus.PART)
        declared = _declared(rules.document(asked.environment, asked.parts))
        there = _loaded(found())
        problems = [
            f"{what}: {', '.join(sorted({name for _, name, *_ in each}))}"
            for what, each in (("missing, or declared otherwise", declared - there), ("not declared", there - declared))
            if each
        ]
        if problems:
            raise FailedError(f"{'; '.join(problems)} ({typed(asked.environment.name, 'up')})")
        return f"{len(there)} rules in {len(found())} groups, as declared"

    def evaluated() -> str:
        asked.need(prometheus.PART)
        each = [rule for group in found() for rule in group["rules"]]
        if failing := [f"{rule['name']}: {rule.get('lastError', '')}" for rule in each if rule["health"] == "err"]:
            raise FailedError("; ".join(failing)[:500])
        if waiting := [rule["name"] for rule in each if rule["health"] != "ok"]:
            raise FailedError(f"not evaluated yet: {', '.join(sorted(set(waiting)))[:300]}")
        if not each:
            raise FailedError("there is no rule")
        return f"{len(each)} rules, each without an error"

    yield Check(name="rules loaded", ask=loaded)
    yield Check(name="rules evaluated", ask=evaluated)


Rule = tuple[str, str, str, float]
"""Group, name, labels, and seconds that it waits."""


def _rule(group: str, rule: Mapping[str, Any], name: str, waits: float) -> Rule:
    return group, name, str(sorted((rule.get("labels") or {}).items())), waits


def _declared(document: Mapping[str, Any]) -> set[Rule]:
    return {
        _rule(group["name"], rule, rule.get("alert") or rule["record"], seconds_of(rule["for"]) if "for" in rule else 0)
        for group in document["groups"]
        for rule in group["rules"]
    }


def _loaded(groups: Sequence[Mapping[str, Any]]) -> set[Rule]:
    return {
        _rule(group["name"], rule, rule["name"], float(rule.get("duration") or 0))
        for group in groups
        for rule in group["rules"]
    }


# AlertManager and Grafana


def _alertmanager(asked: Asked) -> Iterator[Check]:
    def receivers() -> str:
        asked.need(alertmanager.PART)
        declared = _receivers(alertmanager.alertmanager_yml(asked.environment, []))
        there = _receivers(asked.get(alertmanager.PART, "/api/v2/status").json()["config"]["original"])
        if wrong := sorted(name for name in declared.keys() | there.keys() if declared.get(name) != there.get(name)):
            raise FailedError(f"not as declared: {', '.join(wrong)} ({typed(asked.environment.name, 'up')})")
        return f"as declared: {', '.join(sorted(there))}"

    def alerts() -> str:
        asked.need(alertmanager.PART, prometheus.PART)
        url, login = asked.url(asked.environment.settings.alertmanager), asked.login(alertmanager.PART)
        with httpx.Client(base_url=url, auth=login, timeout=asked.client.timeout, trust_env=False) as client:
            if broken := alerting.broken_before(asked.environment, client):
                raise FailedError(broken)
        return "alerts arrive from Prometheus"

    yield Check(name="alertmanager receivers", ask=receivers)
    yield Check(name="alertmanager gets alerts", ask=alerts)


def _receivers(config: str) -> dict[str, list[str]]:
    """Return the ways of each receiver in a configuration of AlertManager."""
    return {
        each["name"]: sorted(key for key in each if key.endswith("_configs"))
        for each in yaml.safe_load(config)["receivers"]
    }


def _grafana(asked: Asked) -> Iterator[Check]:
    def ask(path: str, **query: str) -> Any:
        asked.need(grafana.PART)
        base = asked.url(asked.environment.settings.grafana)
        auth = (_GRAFANA_USER, asked.passwords()["grafana-admin"])
        return good(asked.client.get(base + path, params=query, auth=auth), path).json()

    def login() -> str:
        return f"{ask('/api/user')['login']} is let in with the generated password"

    def datasource() -> str:
        health = ask(f"/api/datasources/uid/{grafana.DATASOURCE}/health")
        if health.get("status") != "OK":
            raise FailedError(f"Grafana says of Prometheus: {health.get('message', health)}")
        return str(health.get("message", "it answers"))

    def dashboards() -> str:
        found = {each["uid"] for each in ask("/api/search", type="dash-db", limit="5000")}
        wanted = {
            name.removeprefix("dashboards/").removesuffix(".json")
            for name in asked.spec(grafana.PART).files
            if name.startswith("dashboards/")
        }
        if missing := sorted(wanted - found):
            raise FailedError(f"missing: {', '.join(missing)}")
        return f"all {len(wanted)} are there"

    yield Check(name="grafana login", ask=login)
    yield Check(name="grafana datasource", ask=datasource)
    yield Check(name="grafana dashboards", ask=dashboards)


# Backups


def _backups(asked: Asked) -> Iterator[Check]:
    def off() -> str:
        raise NotConfiguredError(f"no backups are made: {key_of('backup', 'enabled')} is false")

    schedules = backup.kinds(asked.environment)
    if not schedules:
        yield Check(name="backup", ask=off)
    for kind, schedule in schedules.items():

        def ask(kind: str = kind, schedule: str = schedule) -> str:
            asked.need_target(asked.spec(backup.PART))
            if [value for _, value in asked.samples(f'backup_last_exit_code{{kind="{kind}"}}') if value]:
                logs = typed(asked.environment.name, "logs PART=backup")
                raise FailedError(f"the last run failed ({logs}); what was made before is kept")
            oldest, _ = backups.late_hours(asked.environment.settings.alerts, schedule)
            ages = [value for _, value in asked.samples(backups.age(kind))]
            if not ages:
                up = asked.rows[backup.PART].uptime_seconds or 0
                if up < seconds_of(backups.FIRST):
                    raise UnavailableError(f"none yet, {up} s after its start; the schedule is {schedule}")
                raise FailedError(f"there is none, after {up / 3600:.1f} h")
            hours = ages[0] / 3600
            if hours > oldest:
                raise FailedError(f"the newest good one is {hours:.1f} h old; by {schedule} {oldest} h are too many")
            return f"{hours:.1f} h old, the schedule is {schedule}"

        yield Check(name=f"backup {kind}", ask=ask)
