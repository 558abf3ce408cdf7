"""`samokoder check-image`: whether an image keeps the contract of README's "Your own images".

The image runs as the stack would run it, from the same description of the part, beside a throw-away PostgreSQL and
Redis of the stack's own images, in a network without a way out. Nothing is asked of the image itself but what the
contract has: requests come from the PostgreSQL container, as Prometheus' come from another container.

Where the image ends at once, it is started in less strict ways too, so that the verdict falls on what it cannot do.
"""

from __future__ import annotations

import contextlib
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import docker.errors
from docker.models.containers import Container

from offline.progress import Reporter, Task
from operations import exposition, laboratory
from operations.bound import MIB, Bound, BoundError
from operations.checks import Finding, Report, Verdict
from operations.containers import execute, has_images, without
from operations.exposure import not_exposed
from operations.image_answer import log_of, tried
from operations.image_start import (
    ASK_SECONDS,
    MOST_OF_AN_ANSWER,
    NOT_FOUND,
    OK,
    TELLING_LENGTH,
    TURN_SECONDS,
    Life,
    Starting,
    at_once,
    text,
    writable,
)
from operations.image_ways import STRICT, Way, settings_text
from operations.laboratory import Laboratory
from operations.stack_file import ProjectError
from stack.app import api, migrations, postgres, postgres_roles, redis, redis_users, worker
from stack.app.metrics_contract import Kind
from stack.app.reference import reference_image
from stack.config_files import Template
from stack.secret_rules import fernet_key
from stack.secrets import KEY_LENGTH, PASSWORD_LENGTH
from stack.service import LOG_FILES, LOG_MIB, ServiceSpec
from stack.settings import LLM_KEYS, Application, Environment, Rotating, Rotation, key_of

if TYPE_CHECKING:
    from operations.engine import EngineInfo
    from operations.project import Workspace

_READY_SECONDS = 30.0
_REFUSAL_SECONDS = 10.0
# So many times as long as one start may take, ten at once may, on a machine with one core.
_STARTS_BESIDE = 4
# The ingress asks every second, and sends nothing more after the third answer that is not 200.
_NOTICED_SECONDS = 2
_NO_ANSWER = f"gives no whole answer within {ASK_SECONDS} s and {MOST_OF_AN_ANSWER // MIB} MiB"
_KILLED, _TERMINATED = 137, 143
_REDIRECTS = range(300, 400)
_ALPHABET = string.ascii_letters + string.digits
# Long and of many characters, so that nothing but its words tells what it is.
_DEFAULT = "your-secret-key-please-change-me-in-production-0123456789-QWERTYUIOP"


class Check(StrEnum):
    """What is checked, in the order of the table."""

    MIGRATES = "migrates the database"
    HARDENED = "hardened container"
    COMMAND = "command"
    PORT = "port"
    HEALTH = "/health"
    READY = "ready"
    METRICS = "required metrics"
    OPTIONAL = "optional metrics"
    FILES = "secrets from files"
    FERNET = "takes its APP_SECRET_KEY"
    LOGIN = "logs in to Redis"
    MISSING = "refuses missing secrets"
    WEAK = "refuses weak secrets"
    DEFAULT = "refuses default secrets"
    EQUAL = "refuses equal secrets"
    STOPS = "stops on SIGTERM"
    DRAINS = "drains on SIGTERM"
    SILENT = "no secret in its log"


REFUSALS = frozenset({Check.MISSING, Check.WEAK, Check.DEFAULT, Check.EQUAL})
"""Whether it refuses wrong secrets: what it does with one that the stack never gives it."""


def check_image(workspace: Workspace, image: str, kind: Kind, *, timeout: float = 0) -> Report:
    """Check an image on the environment's engine, with the environment's settings of the part.

    timeout: seconds that the image has to become ready; 0: 30. How long it has to refuse a secret follows from how long
    it took with good ones.
    Raises ProjectError where the image, or that of PostgreSQL or Redis, cannot be pulled.
    """
    from operations.engine import connect  # noqa: PLC0415 - tests check without it, on an engine that they have

    environment, engine = workspace.settings(), workspace.engine()
    client = connect(engine.docker_host, timeout=120)
    try:
        environment = _with_images(workspace, client, environment, engine)
        _ensure(client, image, workspace.reporter, f"There is no image {image} on the engine, and it cannot be pulled")
        environment = environment_for(environment, image, kind)
        with laboratory.opened(client, workspace.reporter) as made:
            return check(made, environment, kind, reporter=workspace.reporter, timeout=timeout)
    finally:
        client.close()


def environment_for(environment: Environment, image: str, kind: Kind) -> Environment:
    """Return the environment with this image, local servers and every LLM key: an image shows all that it can."""
    part: Application = getattr(environment.settings, kind.value)
    # Its secrets are made for it: none of them has a generation before.
    # Nothing is replaced after it, so it need not be steady first.
    own = {"image": image} | ({"stable_seconds": 0, "replicas": 1} if kind is Kind.API else {})
    changes = {"rotation": Rotation(), "rotating": Rotating(), kind.value: part.model_copy(update=own)}
    if image == reference_image(environment).name:  # told by its name, it is nobody's own image
        command = environment.settings.migrations.command or list(migrations.REFERENCE)
        changes["migrations"] = environment.settings.migrations.model_copy(update={"command": command})
    settings = environment.settings.model_copy(update=changes)
    return environment.model_copy(update={"settings": settings, "configured_secrets": frozenset(LLM_KEYS)})


def check(
    made: Laboratory,
    environment: Environment,
    kind: Kind,
    *,
    reporter: Reporter,
    timeout: float = 0,
    changed: Callable[[ServiceSpec], ServiceSpec] = lambda spec: spec,
) -> Report:
    """Do what `check_image` says with an environment of `environment_for`. changed: another spec than the stack's."""
    spec = changed(next(api.specs(environment)) if kind is Kind.API else worker.spec(environment))
    if spec.data:  # the volume is its user's in the stack
        spec = replace(spec, data=None, tmpfs={**spec.tmpfs, **writable([spec.data.path])})
    values = _throw_away_secrets(environment, spec)
    with reporter.task("PostgreSQL and Redis") as task:
        asker, queue = _bring_up_servers(made, environment, values, task)
    migrating = None if "migrations" in environment.absent else migrations.spec(environment)
    checking = _Checking(
        made, environment, spec, migrating, kind, values, asker, queue, timeout or _READY_SECONDS, reporter
    )
    checking.run()
    return Report(
        title=f"{spec.image} as {kind.value}",
        about={"image": spec.image, "kind": kind.value},
        findings=[checking.findings[check] for check in Check],
        proposal=checking.proposal,
    )


def _with_images(
    workspace: Workspace, client: docker.DockerClient, environment: Environment, engine: EngineInfo
) -> Environment:
    """Return the environment with PostgreSQL and Redis on the engine: there, pulled, or built without a registry."""
    from offline import registries  # noqa: PLC0415 - as below
    from offline.images.ensure import ensure_images  # noqa: PLC0415 - seldom needed, and takes its time

    references = {"postgres": environment.image("postgres"), "redis": environment.image("redis")}
    if has_images(client, references.values()):
        return environment
    reporter = workspace.reporter
    if workspace.variables.get("OFFLINE") != "1" and not registries.unreachable(references, engine):
        for name, reference in references.items():
            _ensure(client, reference, reporter, f"Cannot pull the image of {name}")
        return environment
    made = ensure_images(references, cache=workspace.cache, docker_host=engine.docker_host, progress=reporter)
    images = environment.settings.images.model_copy(update=made.ids)
    return environment.model_copy(update={"settings": environment.settings.model_copy(update={"images": images})})


def _ensure(client: docker.DockerClient, reference: str, reporter: Reporter, otherwise: str) -> None:
    """Pull an image that the engine does not have. Raises ProjectError, which begins with `otherwise`."""
    if has_images(client, [reference]):
        return
    try:
        with reporter.task(f"Pulling {reference}"):
            client.images.pull(reference)
    except docker.errors.APIError as error:
        raise ProjectError(f"{otherwise}: {error.explanation or error}") from error


def _throw_away_secrets(environment: Environment, spec: ServiceSpec) -> dict[str, str]:
    """Make a value for everything that the parts' files need, by its name."""
    templates = [t for s in (spec, *_servers(environment)) for t in (*s.files.values(), *s.secret_environment.values())]
    names = {need for template in templates if isinstance(template, Template) for need in template.needs}
    lengths = {name: KEY_LENGTH if name in {"secret_key", "app_secret_key"} else PASSWORD_LENGTH for name in names}
    return {name: _random(length) for name, length in sorted(lengths.items())}


def _servers(environment: Environment) -> list[ServiceSpec]:
    """Describe PostgreSQL, Redis and the keepers of their users."""
    return [part.spec(environment) for part in (postgres, redis, postgres_roles, redis_users)]


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _bring_up_servers(
    made: Laboratory, environment: Environment, values: Mapping[str, str], task: Task
) -> tuple[Container, Container]:
    """Start the servers and the keepers of their users; return PostgreSQL's and Redis' when all are healthy."""
    specs = _servers(environment)
    started = at_once(
        lambda spec: made.run(spec, {name: text(content, values) for name, content in spec.files.items()}), specs
    )
    end = time.monotonic() + max(spec.health.wait_timeout_seconds for spec in specs)
    for spec, container in zip(specs, started, strict=True):
        task.detail = spec.part
        while not tried(container, spec.health_command, seconds=spec.health.timeout_seconds)[0]:
            container.reload()
            if container.status != "running" or time.monotonic() > end:
                said = without(values, log_of(container))[-1000:]
                raise ProjectError(f"{spec.part} does not come up, so nothing can be checked. Its log ends:\n{said}")
            time.sleep(TURN_SECONDS)
    return started[0], started[1]


@dataclass
class _Checking(Starting):
    """One run of all checks."""

    findings: dict[Check, Finding] = field(default_factory=dict)
    proposal: str = ""
    without_login: bool = False
    """Whether Redis has refused what came without a login."""

    def run(self) -> None:
        """Judge everything."""
        self.refused_before = self.refused()
        with self.reporter.task("Migrating the database"):
            migrated = self.migrated()
        with self.reporter.task(f"The image as {self.kind.value}") as task:
            way, life, strict = self.first_life(task)
        if strict:
            self._judge_strictness(way, strict)
            self.end(strict)
        self._judge_migrations(migrated, way)
        self._judge_start(way, life)
        if life.exit_code is None:
            self._judge_metrics(life)
            self._judge_login(way)
            with self.reporter.task("Stopping it"):
                self._judge_stop(life)
            self._judge_refusals(way, life)
        self.end(life)
        self._judge_log()
        self._propose(way, life)
        for check in Check:
            if check not in self.findings:
                self._find(check, Verdict.NOT_AVAILABLE, "it does not run")

    def _find(self, check: Check, verdict: Verdict, why: str) -> None:
        # An image may say anything in an error that is quoted here: a secret, or what a terminal obeys.
        shown = "".join(letter if letter.isprintable() else " " for letter in without(self.settings, why))
        self.findings[check] = Finding(check=check, verdict=verdict, why=shown)

    def _passed(self, check: Check, good: bool, why: str) -> None:
        self._find(check, Verdict.PASSED if good else Verdict.FAILED, why)

    # Judging it

    def _judge_migrations(self, migrated: Way | str | None, way: Way) -> None:
        """Judge what `_migrated` returned. way: the one in which the image itself runs."""
        less = isinstance(migrated, Way) and migrated != STRICT
        if self.kind is Kind.WORKER:
            self._find(Check.MIGRATES, Verdict.NOT_AVAILABLE, "the API's image does that")
        elif migrated is None:
            self._find(Check.MIGRATES, Verdict.NOT_AVAILABLE, "samokoder:migrations.command is not set")
        elif less and migrated == way:
            self._find(Check.MIGRATES, Verdict.NOT_AVAILABLE, "does so only in the way in which the image itself runs")
        elif less:
            self._find(Check.MIGRATES, Verdict.FAILED, "does so only as root with a writable root, or from variables")
        elif isinstance(migrated, str):
            self._find(Check.MIGRATES, Verdict.FAILED, migrated)
        else:
            self._find(Check.MIGRATES, Verdict.PASSED, "its command ended with 0, before the image was started")

    def _judge_strictness(self, way: Way, strict: Life) -> None:
        """Say what the image could not do: it has ended when all was asked of it, and runs in this lenient way."""
        how = f"does not become ready{self.last_words(strict)}"
        if strict.exit_code is not None:
            how = f"ended with exit code {strict.exit_code}{self.last_words(strict)}"
        if way.unhardened:
            self._find(
                Check.HARDENED,
                Verdict.FAILED,
                f"runs only as root, with a writable root and capabilities; in the stack's container it {how}",
            )
        if way.writable:
            folders = ", ".join(way.writable)
            self._find(
                Check.HARDENED,
                Verdict.FAILED,
                f"writes to {folders}, which is read-only; in the stack's container it {how}",
            )
        if way.secrets_in_environment:
            self._find(
                Check.FILES,
                Verdict.FAILED,
                f"runs only with its secrets in variables; with files in {self.spec.files_at} it {how}",
            )
        if way.without_login:
            self._find(Check.LOGIN, Verdict.FAILED, f"runs only with a Redis that wants no login; else it {how}")
        if way.own_command:
            self._find(
                Check.COMMAND,
                Verdict.FAILED,
                f"{' '.join(self.spec.command)} {how}; its own is {' '.join(self.own_command)}",
            )
        if way.fernet:
            self._find(Check.FERNET, Verdict.FAILED, f"wants a Fernet key; with another one it {how}")

    def _judge_login(self, way: Way) -> None:
        """Say what Redis has refused while nobody gave it a wrong secret."""
        if Check.LOGIN in self.findings:
            return
        if self.environment.settings.redis.login == "none":
            self._find(Check.LOGIN, Verdict.NOT_AVAILABLE, f"{key_of('redis', 'login')} is none: it need not")
            return
        refused = ", ".join(f"{count} times {name}" for name, count in self.refused().items())
        self.without_login = way.without_login or bool(refused)
        said = f"Redis refused it: {refused}" if refused else "Redis has refused it nothing so far"
        self._passed(Check.LOGIN, not refused, said)

    def _propose(self, way: Way, life: Life) -> None:
        """Write the settings by which the stack asks what the image can do."""
        fernet = self.wants_fernet and not self.environment.settings.fernet
        way = replace(way, fernet=way.fernet or fernet, without_login=way.without_login or self.without_login)
        text = settings_text(self.kind, way, command=self.own_command, portless=life.portless)
        self.proposal = without(self.settings, text)

    def _judge_start(self, way: Way, life: Life) -> None:
        if life.exit_code is not None:
            first = Check.PORT if self.port else Check.READY
            how = f"ended with exit code {life.exit_code} in every way that was tried{self.last_words(life)}"
            self._find(first, Verdict.FAILED, how)
            return
        if Check.COMMAND not in self.findings:
            self._find(Check.COMMAND, Verdict.PASSED, f"is started by {' '.join(self.spec.command)[:120]}")
        if Check.FERNET not in self.findings:
            form = "a Fernet key" if self.environment.settings.fernet else "one of letters and digits"
            self._find(Check.FERNET, Verdict.PASSED, f"takes {form}")
        if not (way.unhardened or way.writable):
            self._find(
                Check.HARDENED,
                Verdict.PASSED,
                f"runs as {self.spec.user}, with a read-only root, no capability and no-new-privileges",
            )
        self._judge_port(life)
        self._judge_readiness(way, life)

    def _judge_port(self, life: Life) -> None:
        if self.port is None:
            why = "samokoder:worker.metricsPort is null: this image has no port"
            for check in (Check.PORT, Check.HEALTH, Check.METRICS, Check.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, why)
        elif life.portless:
            why = f"nothing listens on port {self.port}, and arq's own check says that it is well"
            self._find(Check.PORT, Verdict.FAILED, why)
            for check in (Check.HEALTH, Check.METRICS, Check.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, f"nothing listens on port {self.port}")
        elif not life.listens:
            others = f"; it listens on {', '.join(map(str, ports))}" if (ports := _ports(life.container)) else ""
            self._find(Check.PORT, Verdict.FAILED, f"nothing listens on port {self.port} of its address{others}")
            for check in (Check.HEALTH, Check.METRICS, Check.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, f"nothing listens on port {self.port}")
        else:
            self._find(Check.PORT, Verdict.PASSED, f"listens on port {self.port} for other containers")
            said = f"answers {life.health}" if life.health else _NO_ANSWER
            self._passed(Check.HEALTH, life.health == OK, said)

    def _judge_readiness(self, way: Way, life: Life) -> None:
        by_health = self.port and life.health != OK
        by_migrations = self.findings[Check.MIGRATES].verdict is Verdict.FAILED and not life.is_up(port=bool(self.port))
        where = self.spec.files_at
        if life.portless:
            self._find(Check.READY, Verdict.PASSED, "arq's own check succeeds")
        elif by_health:
            # One cause, one failed check: what /health or the port says is said there.
            self._find(Check.READY, Verdict.NOT_AVAILABLE, "/health does not answer 200")
        elif by_migrations:
            self._find(Check.READY, Verdict.NOT_AVAILABLE, "its database is not migrated")
        elif not life.own_check:
            command = " ".join(self.spec.health_command)[:120]
            said = f"; {life.own_check_says[:200]}" if life.own_check_says else ""
            why = f"its health check does not succeed in {self.timeout:g} s: {command}{said}"
            self._find(Check.READY, Verdict.FAILED, why)
        elif self.port and life.ready not in (OK, NOT_FOUND):
            why = f"/ready still answers {life.ready or 'nothing'} after {self.timeout:g} s"
            self._find(Check.READY, Verdict.FAILED, why)
        else:
            also = "" if not self.port else " and /ready answers 200" if life.ready == OK else "; it has no /ready"
            self._find(Check.READY, Verdict.PASSED, f"the health check that the stack gives it succeeds{also}")
        if way.secrets_in_environment:
            return
        opted = ", ".join(sorted(self.spec.secret_environment))
        if self.findings[Check.READY].verdict is not Verdict.PASSED:
            self._find(Check.FILES, Verdict.NOT_AVAILABLE, "it does not become ready, so it may not have read them")
        elif opted:
            self._find(Check.FILES, Verdict.PASSED, f"all but {opted}, which your settings put into variables")
        else:
            self._find(Check.FILES, Verdict.PASSED, f"became ready with files in {where} alone, none in a variable")

    def _judge_metrics(self, life: Life) -> None:
        if Check.METRICS in self.findings:
            return
        if self.kind is Kind.API:
            for path in ("/", "/no-such-page"):  # some libraries show a metric only once it has a series
                self.ask(life, path)
        answer, redirected = self.ask(life, "/metrics"), ""
        if answer and answer.status in _REDIRECTS and answer.location:
            redirected = f"; /metrics redirects to {answer.location}, which costs a second request at each scrape"
            answer = self.ask(life, answer.location)
        if answer is None or answer.status != OK:
            said = f"/metrics answers {answer.status}" if answer and answer.status else f"/metrics {_NO_ANSWER}"
            self._find(Check.METRICS, Verdict.FAILED, said)
            self._find(Check.OPTIONAL, Verdict.NOT_AVAILABLE, said)
            return
        try:
            exposed = exposition.parse(answer.body)
        except ValueError as error:
            why = f"/metrics is not in Prometheus' format: {str(error)[:120]}"
            self._find(Check.METRICS, Verdict.FAILED, why)
            self._find(Check.OPTIONAL, Verdict.NOT_AVAILABLE, "/metrics is not in Prometheus' format")
            return
        found = exposition.compare(exposed, self.kind)
        required = sum(metric.required for metric in exposition.expected(exposed, self.kind))
        if found.wrong:
            self._find(Check.METRICS, Verdict.FAILED, "; ".join(found.wrong) + redirected)
        elif found.missing:
            # It runs without them, and some alerts say nothing.
            self._find(Check.METRICS, Verdict.NOT_AVAILABLE, not_exposed(self.environment, found.missing) + redirected)
        else:
            self._find(Check.METRICS, Verdict.PASSED, f"all {required}, with type and labels{redirected}")
        if found.optional:
            self._find(Check.OPTIONAL, Verdict.NOT_AVAILABLE, f"missing: {', '.join(found.optional)}")
        else:
            self._find(Check.OPTIONAL, Verdict.PASSED, "none is missing")

    def _judge_stop(self, life: Life) -> None:
        grace = self.spec.stop_grace_seconds
        asked = self.kind is Kind.API and life.health == OK
        drained, began = 0.0, time.monotonic()
        with contextlib.suppress(docker.errors.APIError):  # it has just ended by itself
            life.container.kill(self.spec.stop_signal)
        while self.is_running(life) and time.monotonic() - began < grace:
            answer = self.ask(life, "/health") if asked else None
            if answer and answer.status not in (0, OK):
                drained = time.monotonic() - began
            time.sleep(TURN_SECONDS)
        seconds = time.monotonic() - began
        if life.exit_code is None:
            life.container.kill()
        code = _KILLED if life.exit_code is None else life.exit_code
        if code == _KILLED:
            why = f"was still there after its {grace} s and had to be killed"
        elif code == _TERMINATED:
            why = f"ended in {seconds:.1f} s with exit code 143: the signal itself ended it"
        else:
            why = f"ended in {seconds:.1f} s with exit code {code}"
        self._passed(Check.STOPS, code in (0, _TERMINATED), why)
        if not asked:
            why = "nobody sends it requests" if self.kind is Kind.WORKER else "/health does not answer 200"
            self._find(Check.DRAINS, Verdict.NOT_AVAILABLE, why)
        elif drained >= _NOTICED_SECONDS:
            self._find(Check.DRAINS, Verdict.PASSED, f"answers on for {drained:.0f} s, /health with another than 200")
        else:
            why = "does not: let /health answer 503 for 5 s first, or a deploy may cost a request that is on its way"
            self._find(Check.DRAINS, Verdict.NOT_AVAILABLE, why)

    def _judge_refusals(self, way: Way, life: Life) -> None:
        keys = ("SECRET_KEY", "APP_SECRET_KEY")
        without_login = way.without_login or self.environment.settings.redis.login == "none"
        every = (*keys, "SAMOKODER_DATABASE_URL", *(() if without_login else ("REDIS_PASSWORD",)))
        same = (
            fernet_key(_random(KEY_LENGTH)) if way.fernet or self.environment.settings.fernet else _random(KEY_LENGTH)
        )
        cases: dict[Check, dict[str, dict[str, str | None]]] = {
            Check.MISSING: {name: {name: None} for name in every},
            Check.WEAK: {name: {name: _random(TELLING_LENGTH)} for name in keys},
            Check.DEFAULT: {name: {name: _DEFAULT} for name in keys},
            Check.EQUAL: {" and ".join(keys): dict.fromkeys(keys, same)},
        }
        with self.reporter.task("Whether it refuses wrong secrets") as task:
            problems, late = self._accepted(way, cases, task, comes_up=bool(life.seconds))
        for check, changes in cases.items():
            found = [*problems[check], *late[check]]
            said = "; ".join(found) or f"ends with an error: {', '.join(changes)}"
            if late[check] and not problems[check] and not life.seconds:
                # Nothing says how long a start takes.
                self._find(check, Verdict.NOT_AVAILABLE, f"{said}, and it does not become ready with good ones either")
            else:
                self._passed(check, not found, said)

    def _accepted(
        self, way: Way, cases: Mapping[Check, Mapping[str, Mapping[str, str | None]]], task: Task, *, comes_up: bool
    ) -> tuple[Mapping[Check, Sequence[str]], Mapping[Check, Sequence[str]]]:
        """Start one container for each case, all at once; return what is wrong with how each ends, and which still run.

        One with good secrets is started beside them, and measures how long a start takes meanwhile: what runs for more
        than twice as long has not refused what it was given. comes_up: whether the image does, with good ones.
        """
        changed = {(check, name): changes for check, each in cases.items() for name, changes in each.items()}
        *started, good = at_once(lambda changes: self.start(way, changes), [*changed.values(), {}])
        lives = dict(zip(changed, started, strict=True))
        began, port = time.monotonic(), self.port is not None
        end = began + self.timeout * (_STARTS_BESIDE if comes_up else 1)
        waiting = dict(lives)
        while waiting and time.monotonic() < end:
            task.detail = f"{len(waiting)} of {len(lives)} are still there"
            if good.seconds:
                at_once(self.look, waiting.values())
            else:
                at_once(self.look, [*waiting.values(), good])
                if good.is_up(port=port):
                    good.seconds = time.monotonic() - began
                    end = min(end, began + 2 * good.seconds + _REFUSAL_SECONDS)
            for case, life in list(waiting.items()):
                if life.exit_code is not None or life.listens or life.is_up(port=port):
                    del waiting[case]
            time.sleep(TURN_SECONDS)
        problems: dict[Check, list[str]] = {check: [] for check in cases}
        late: dict[Check, list[str]] = {check: [] for check in cases}
        for (check, name), life in lives.items():
            self.is_running(life)
            log = log_of(life.container)
            given = changed[check, name]
            # A leak, however it refuses: a mistyped secret is nearly the right one, and Loki keeps it.
            self.leaked |= {f"{key} (a wrong one)" for key, value in given.items() if value and value in log}
            if life.exit_code is None and (check, name) in waiting:
                late[check].append(f"{name}: runs all the same after {time.monotonic() - began:.0f} s")
            elif life.exit_code is None:
                problems[check].append(f"{name}: runs all the same")
            elif life.exit_code == 0:
                problems[check].append(f"{name}: ends, but with exit code 0")
        at_once(self.end, [*lives.values(), good])
        return problems, late

    def _judge_log(self) -> None:
        if self.leaked:
            self._find(Check.SILENT, Verdict.FAILED, f"its log has the value of {', '.join(sorted(self.leaked))}")
        elif self.cut:
            kept = f"the engine keeps {LOG_FILES * LOG_MIB} MiB of a log"
            why = f"{kept}, and it says so much that the beginning may be gone; no secret is in the rest"
            self._find(Check.SILENT, Verdict.NOT_AVAILABLE, why)
        else:
            self._find(Check.SILENT, Verdict.PASSED, "no secret's value is in the log of any of its containers")


def _ports(container: Container) -> list[int]:
    """Return the TCP ports that listen in a container, where its image has `cat`; to help, not to judge."""
    with contextlib.suppress(docker.errors.APIError, BoundError):
        command = ["cat", "/proc/net/tcp", "/proc/net/tcp6"]
        _, output = execute(container, command, bound=Bound(ASK_SECONDS, MIB))
        rows = [line.split() for line in output.decode(errors="replace").splitlines()]
        # Engine's own resolver listens on loopback, on a port of its choice: 127.0.0.11.
        listening = [row[1] for row in rows if len(row) > 3 and row[3] == "0A" and not row[1].startswith("0B00007F")]  # noqa: PLR2004
        return sorted({int(address.rpartition(":")[2], 16) for address in listening})
    return []
