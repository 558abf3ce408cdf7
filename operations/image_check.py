"""`samokoder check-image`: whether an image keeps the contract of README's "Your own images".

The image runs as the stack would run it, from the same description of the part, beside a throw-away PostgreSQL and
Redis of the stack's own images, in a network without a way out. Nothing is asked of the image itself but what the
contract has: requests come from the PostgreSQL container, as Prometheus' come from another container.

Where the image ends at once, it is started in less strict ways too, so that the verdict falls on what it cannot do.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any, cast

import docker.errors
from docker.models.containers import Container

from offline.progress import Reporter, Task
from operations import exposition, laboratory
from operations.checks import Finding, Report, Verdict
from operations.containers import execute, has_images, without
from operations.laboratory import Laboratory
from operations.stack_file import ProjectError
from stack.app import api, migrations, postgres, postgres_roles, redis, redis_users, worker
from stack.app.metrics_contract import Kind
from stack.app.reference import reference_image
from stack.config_files import Template
from stack.secrets import KEY_LENGTH, PASSWORD_LENGTH
from stack.service import Scrape, ServiceSpec
from stack.settings import LLM_KEYS, Application, Environment, Rotating, Rotation

if TYPE_CHECKING:
    from operations.engine import EngineInfo
    from operations.project import Workspace

_TURN_SECONDS = 0.3
_ASK_SECONDS = 5
# The ingress asks every second, and sends nothing more after the third answer that is not 200.
_NOTICED_SECONDS = 2
_KILLED, _TERMINATED = 137, 143
_OK, _NOT_FOUND = 200, 404
_ALPHABET = string.ascii_letters + string.digits
# A value shorter than this would be found in any log by chance.
_TELLING_LENGTH = 12
# Long and of many characters, so that nothing but its words tells what it is.
_DEFAULT = "your-secret-key-please-change-me-in-production-0123456789-QWERTYUIOP"
# Says on standard error that there is a connection, since an image may listen and never answer. /dev/tcp is Bash's own;
# PostgreSQL's images have Bash, for their entry point is written in it.
_ASK = (
    '{ exec 3<>"/dev/tcp/$0/$1"; } 2>/dev/null || exit 7; echo connected >&2; '
    'printf "GET %s HTTP/1.1\\r\\nHost: %s:%s\\r\\nAccept: */*\\r\\nConnection: close\\r\\n\\r\\n" "$2" "$0" "$1" >&3; '
    "exec cat <&3"
)


class Check(StrEnum):
    """What is checked, in the order of the table."""

    MIGRATES = "migrates the database"
    HARDENED = "hardened container"
    PORT = "port"
    HEALTH = "/health"
    READY = "ready"
    METRICS = "required metrics"
    OPTIONAL = "optional metrics"
    FILES = "secrets from files"
    MISSING = "refuses missing secrets"
    WEAK = "refuses weak secrets"
    DEFAULT = "refuses default secrets"
    EQUAL = "refuses equal secrets"
    STOPS = "stops on SIGTERM"
    DRAINS = "drains on SIGTERM"
    SILENT = "no secret in its log"


def check_image(workspace: Workspace, image: str, kind: Kind, *, timeout: float = 0) -> Report:
    """Check an image on the environment's engine, with the environment's settings of the part.

    timeout: seconds that the image has to become ready, and to refuse a secret; 0: as long as `make up` waits for it.
    Raises ProjectError where the image, PostgreSQL or Redis cannot be had.
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
    changes = {"rotation": Rotation(), "rotating": Rotating(), kind.value: part.model_copy(update={"image": image})}
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
    values = _throw_away_secrets(environment, spec)
    with reporter.task("PostgreSQL and Redis") as task:
        asker = _bring_up_servers(made, environment, values, task)
    migrating = None if "migrations" in environment.absent else migrations.spec(environment)
    timeout = timeout or spec.health.wait_timeout_seconds
    checking = _Checking(made, spec, migrating, kind, values, asker, timeout, reporter)
    checking.run()
    return Report(
        title=f"{spec.image} as {kind.value}",
        about={"image": spec.image, "kind": kind.value},
        findings=[checking.findings[check] for check in Check],
    )


def _with_images(
    workspace: Workspace, client: docker.DockerClient, environment: Environment, engine: EngineInfo
) -> Environment:
    """Return the environment with PostgreSQL and Redis on the engine: there, pulled, or built without a registry."""
    from offline import registries  # noqa: PLC0415 - as below
    from offline.images import ensure_images  # noqa: PLC0415 - seldom needed, and takes its time

    references = {"postgres": environment.image("postgres"), "redis": environment.image("redis")}
    if has_images(client, references.values()):
        return environment
    reporter = workspace.reporter
    if workspace.variables.get("OFFLINE") != "1" and not registries.unreachable(references, engine):
        for name, reference in references.items():
            _ensure(client, reference, reporter, f"The image of {name} cannot be had")
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


def _text(content: str | Template, values: Mapping[str, str]) -> str:
    return content if isinstance(content, str) else content.render(*(values[need] for need in content.needs))


def _bring_up_servers(made: Laboratory, environment: Environment, values: Mapping[str, str], task: Task) -> Container:
    """Start the servers and the keepers of their users; return PostgreSQL's container when all are healthy."""
    specs = _servers(environment)
    started = [made.run(spec, {name: _text(content, values) for name, content in spec.files.items()}) for spec in specs]
    end = time.monotonic() + max(spec.health.wait_timeout_seconds for spec in specs)
    for spec, container in zip(specs, started, strict=True):
        task.detail = spec.part
        while not _tried(container, spec.health_command)[0]:
            container.reload()
            if container.status != "running" or time.monotonic() > end:
                said = without(values, _log(container))[-1000:]
                raise ProjectError(f"{spec.part} does not come up, so nothing can be checked. Its log ends:\n{said}")
            time.sleep(_TURN_SECONDS)
    return started[0]


def _tried(container: Container, command: Sequence[str]) -> tuple[bool, str]:
    """Run a health command in a container; return whether it succeeds, and the last line that it says."""
    try:
        status, said = execute(container, command)
    except docker.errors.APIError as error:  # there is no such program, or the container has ended
        return False, str(error.explanation or error)
    lines = said.decode(errors="replace").split("\n")
    return status == 0, next((line.strip() for line in reversed(lines) if line.strip()), "")


def _log(container: Container) -> str:
    return container.logs().decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How the image is started: as in the stack, or with less asked of it."""

    unhardened: bool = False
    secrets_in_environment: bool = False


_STRICT = _Way()
# In this order: what comes up first shows what it could not do.
_LENIENT = (
    _Way(unhardened=True),
    _Way(secrets_in_environment=True),
    _Way(unhardened=True, secrets_in_environment=True),
)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """An answer to a GET; `status` 0: there was a connection, but no answer over it."""

    status: int
    body: str = ""


@dataclass
class _Life:
    """One container of the image, and what has been seen of it so far."""

    container: Container
    exit_code: int | None = None
    """None: it runs."""
    listens: bool = False
    health: int = 0
    own_check: bool = False
    """Whether the health check that the stack gives it succeeds."""
    own_check_says: str = ""
    ready: int = 0
    """Status of /ready; 404 where the image has none."""

    def is_up(self, *, port: bool) -> bool:
        """Whether `make up` would be content, and /ready, where there is one, says so too."""
        return self.own_check and (not port or (self.health == _OK and self.ready in (_OK, _NOT_FOUND)))


@dataclass
class _Checking:
    """One run of all checks."""

    made: Laboratory
    spec: ServiceSpec
    migrations: ServiceSpec | None
    """What migrates the database in the stack: the API's image."""
    kind: Kind
    values: Mapping[str, str]
    """The throw-away secrets."""
    asker: Container
    timeout: float
    reporter: Reporter
    findings: dict[Check, Finding] = field(default_factory=dict)
    leaked: set[str] = field(default_factory=set)

    @property
    def port(self) -> int | None:
        """The port of the contract; None for a worker that has none."""
        return self.spec.scrape.port if isinstance(self.spec.scrape, Scrape) else None

    def run(self) -> None:
        """Judge everything."""
        with self.reporter.task("Migrating the database"):
            migrated = self._migrated()
        with self.reporter.task(f"The image as {self.kind.value}") as task:
            way, life = self._first_life(task)
        self._judge_migrations(migrated, way)
        self._judge_start(way, life)
        if life.exit_code is None:
            self._judge_metrics(life)
            with self.reporter.task("Stopping it"):
                self._judge_stop(life)
            self._judge_refusals(way)
        self._end(life)
        self._judge_log()
        for check in Check:
            if check not in self.findings:
                self._find(check, Verdict.NOT_AVAILABLE, "it does not run")

    def _find(self, check: Check, verdict: Verdict, why: str) -> None:
        # An image may say anything in an error that is quoted here, a secret too.
        self.findings[check] = Finding(check=check, verdict=verdict, why=without(self.settings, why))

    def _passed(self, check: Check, good: bool, why: str) -> None:
        self._find(check, Verdict.PASSED if good else Verdict.FAILED, why)

    # Starting it

    @cached_property
    def settings(self) -> dict[str, str]:
        """The secret settings of the contract with the throw-away values."""
        contents = {name.upper(): content for name, content in self.spec.files.items()}
        contents |= self.spec.secret_environment
        return {name: _text(content, self.values) for name, content in contents.items()}

    def _start(
        self, way: _Way, changes: Mapping[str, str | None] | None = None, *, spec: ServiceSpec | None = None
    ) -> _Life:
        """Start the image. changes: secret settings with another value than the good one; None: left out."""
        spec = spec or self.spec
        changed = {**self.settings, **(changes or {})}
        given = {name: value for name, value in changed.items() if value is not None}
        as_variables = set(given) if way.secrets_in_environment else set(spec.secret_environment)
        files = {name: value for name, value in given.items() if name not in as_variables}
        pointers = {f"{name}_FILE" for name in self.settings if name not in files}
        variables = {name: value for name, value in spec.environment.items() if name not in pointers}
        options: dict[str, Any] = {"environment": variables | {name: given[name] for name in as_variables & set(given)}}
        if way.unhardened:
            options |= {"user": "0:0", "read_only": False, "cap_drop": [], "security_opt": []}
        mounted = {name.lower(): value for name, value in files.items()}
        return _Life(self.made.run(spec, mounted, alias=False, **options))

    def _migrated(self) -> _Way | str | None:
        """Migrate the database as the stack does; where that fails, in less strict ways.

        Returns the way that succeeded, or how it went in the strict one; None where there is nothing to run.
        """
        spec = self.migrations
        # The worker's own image need not be able to; without the API's, it is checked on an empty database.
        if spec is None or not has_images(self.made.client, [spec.image]):
            return None
        problem = ""
        for way in (_STRICT, *_LENIENT):
            life = self._start(way, spec=spec)
            end = time.monotonic() + spec.health.wait_timeout_seconds
            while self._is_running(life) and time.monotonic() < end:
                if _tried(life.container, spec.health_command)[0]:
                    self._end(life)
                    return way
                time.sleep(_TURN_SECONDS)
            ended = f"runs for more than {spec.health.wait_timeout_seconds} s"
            if life.exit_code is not None:
                ended = f"ended with exit code {life.exit_code}"
            problem = problem or f"{' '.join(spec.command)[:120]} {ended}{self._last_words(life)}"
            self._end(life)
        return problem

    def _first_life(self, task: Task) -> tuple[_Way, _Life]:
        """Start the image with good secrets, strictly; where it ends at once, in the first lenient way that works."""
        strict = self._start(_STRICT)
        self._watch(strict, task)
        if strict.exit_code is None:
            return _STRICT, strict
        for way in _LENIENT:
            task.detail = "it ended; once more with less asked of it"
            life = self._start(way)
            self._watch(life, task)
            if life.exit_code is None:
                self._judge_strictness(way, strict)
                self._end(strict)
                return way, life
            self._end(life)
        return _STRICT, strict

    def _watch(self, life: _Life, task: Task) -> None:
        """Look until it is up, has ended, or the time is over."""
        end = time.monotonic() + self.timeout
        while time.monotonic() < end:
            self._look(life)
            if life.exit_code is not None or life.is_up(port=self.port is not None):
                return
            if self.port:
                task.detail = f"/health answers {life.health}" if life.listens else f"no answer on port {self.port} yet"
            time.sleep(_TURN_SECONDS)

    def _look(self, life: _Life) -> None:
        if not self._is_running(life):
            return
        if self.port:
            answer = self._ask(life, "/health")
            life.listens = life.listens or answer is not None
            life.health = answer.status if answer else 0
            if life.health == _OK:
                ready = self._ask(life, "/ready")
                life.ready = ready.status if ready else 0
        life.own_check, life.own_check_says = _tried(life.container, self.spec.health_command)
        self._is_running(life)

    def _is_running(self, life: _Life) -> bool:
        life.container.reload()
        state = life.container.attrs["State"]
        if not state["Running"]:
            life.exit_code = int(state["ExitCode"])
        return life.exit_code is None

    def _ask(self, life: _Life, path: str) -> _Answer | None:
        """GET a path of the container; None where nothing listens on the port."""
        # By its address: several containers of one image may run at a time.
        networks = life.container.attrs["NetworkSettings"]["Networks"]
        address = networks[str(self.made.network.name)]["IPAddress"]
        if not address:
            return None
        command = ["timeout", str(_ASK_SECONDS), "bash", "-c", _ASK, address, str(self.port), path]
        out, err = cast("tuple[bytes | None, bytes | None]", self.asker.exec_run(command, demux=True).output)
        return _parsed(out or b"") if b"connected" in (err or b"") else None

    def _end(self, life: _Life) -> None:
        """Look through its log and remove it."""
        log = _log(life.container)
        # The database's password is in the log of one who shows it alone, not in its URL.
        known = self.settings | {"the database's password": self.values.get("postgres_app", "")}
        self.leaked |= {name for name, value in known.items() if len(value) >= _TELLING_LENGTH and value in log}
        life.container.remove(force=True, v=True)

    def _last_words(self, life: _Life) -> str:
        lines = [line.strip() for line in without(self.settings, _log(life.container)).splitlines() if line.strip()]
        return f"; its log ends: {lines[-1][:200]}" if lines else "; its log is empty"

    # Judging it

    def _judge_migrations(self, migrated: _Way | str | None, way: _Way) -> None:
        """Judge what `_migrated` returned. way: the one in which the image itself runs."""
        less = isinstance(migrated, _Way) and migrated != _STRICT
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

    def _judge_strictness(self, way: _Way, strict: _Life) -> None:
        """Say what the image could not do: it has ended when all was asked of it, and runs in this lenient way."""
        how = f"ended with exit code {strict.exit_code}{self._last_words(strict)}"
        if way.unhardened:
            self._find(
                Check.HARDENED,
                Verdict.FAILED,
                f"runs only as root, with a writable root and capabilities; in the stack's container it {how}",
            )
        if way.secrets_in_environment:
            self._find(
                Check.FILES,
                Verdict.FAILED,
                f"runs only with its secrets in variables; with files in {self.spec.files_at} it {how}",
            )

    def _judge_start(self, way: _Way, life: _Life) -> None:
        if life.exit_code is not None:
            first = Check.PORT if self.port else Check.READY
            how = f"ended with exit code {life.exit_code} in every way that was tried{self._last_words(life)}"
            self._find(first, Verdict.FAILED, how)
            return
        if not way.unhardened:
            self._find(
                Check.HARDENED,
                Verdict.PASSED,
                f"runs as {self.spec.user}, with a read-only root, no capability and no-new-privileges",
            )
        self._judge_port(life)
        self._judge_readiness(way, life)

    def _judge_port(self, life: _Life) -> None:
        if self.port is None:
            why = "samokoder:worker.metricsPort is null: this image has no port"
            for check in (Check.PORT, Check.HEALTH, Check.METRICS, Check.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, why)
        elif not life.listens:
            others = f"; it listens on {', '.join(map(str, ports))}" if (ports := _ports(life.container)) else ""
            self._find(Check.PORT, Verdict.FAILED, f"nothing listens on port {self.port} of its address{others}")
            for check in (Check.HEALTH, Check.METRICS, Check.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, f"nothing listens on port {self.port}")
        else:
            self._find(Check.PORT, Verdict.PASSED, f"listens on port {self.port} for other containers")
            said = f"answers {life.health}" if life.health else f"does not answer within {_ASK_SECONDS} s"
            self._passed(Check.HEALTH, life.health == _OK, said)

    def _judge_readiness(self, way: _Way, life: _Life) -> None:
        by_health = self.port and life.health != _OK
        by_migrations = self.findings[Check.MIGRATES].verdict is Verdict.FAILED and not life.is_up(port=bool(self.port))
        where = self.spec.files_at
        if by_health:
            # One cause, one failed check: what /health or the port says is said there.
            self._find(Check.READY, Verdict.NOT_AVAILABLE, "/health does not answer 200")
        elif by_migrations:
            self._find(Check.READY, Verdict.NOT_AVAILABLE, "its database is not migrated")
        elif not life.own_check:
            command = " ".join(self.spec.health_command)[:120]
            said = f"; it says: {life.own_check_says[:200]}" if life.own_check_says else ""
            why = f"its health check does not succeed in {self.timeout:g} s: {command}{said}"
            self._find(Check.READY, Verdict.FAILED, why)
        elif self.port and life.ready not in (_OK, _NOT_FOUND):
            why = f"/ready still answers {life.ready or 'nothing'} after {self.timeout:g} s"
            self._find(Check.READY, Verdict.FAILED, why)
        else:
            also = "" if not self.port else " and /ready answers 200" if life.ready == _OK else "; it has no /ready"
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

    def _judge_metrics(self, life: _Life) -> None:
        if Check.METRICS in self.findings:
            return
        if self.kind is Kind.API:
            for path in ("/", "/no-such-page"):  # some libraries show a metric only once it has a series
                self._ask(life, path)
        answer = self._ask(life, "/metrics")
        if answer is None or answer.status != _OK:
            said = answer.status if answer and answer.status else "nothing"
            self._find(Check.METRICS, Verdict.FAILED, f"/metrics answers {said}")
            self._find(Check.OPTIONAL, Verdict.NOT_AVAILABLE, f"/metrics answers {said}")
            return
        try:
            exposed = exposition.parse(answer.body)
        except ValueError as error:
            why = f"/metrics is not in Prometheus' format: {str(error)[:120]}"
            self._find(Check.METRICS, Verdict.FAILED, why)
            self._find(Check.OPTIONAL, Verdict.NOT_AVAILABLE, "/metrics is not in Prometheus' format")
            return
        found = exposition.compare(exposed, self.kind)
        problems = [*([f"missing: {', '.join(found.missing)}"] if found.missing else []), *found.wrong]
        required = sum(metric.required for metric in exposition.expected(exposed, self.kind))
        self._passed(Check.METRICS, not problems, "; ".join(problems) or f"all {required}, with type and labels")
        if found.optional:
            self._find(Check.OPTIONAL, Verdict.NOT_AVAILABLE, f"missing: {', '.join(found.optional)}")
        else:
            self._find(Check.OPTIONAL, Verdict.PASSED, "none is missing")

    def _judge_stop(self, life: _Life) -> None:
        grace = self.spec.stop_grace_seconds
        asked = self.kind is Kind.API and life.health == _OK
        drained, began = 0.0, time.monotonic()
        with contextlib.suppress(docker.errors.APIError):  # it has just ended by itself
            life.container.kill(self.spec.stop_signal)
        while self._is_running(life) and time.monotonic() - began < grace:
            answer = self._ask(life, "/health") if asked else None
            if answer and answer.status not in (0, _OK):
                drained = time.monotonic() - began
            time.sleep(_TURN_SECONDS)
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

    def _judge_refusals(self, way: _Way) -> None:
        keys = ("SECRET_KEY", "APP_SECRET_KEY")
        every = (*keys, "SAMOKODER_DATABASE_URL", "REDIS_PASSWORD")
        same = _random(KEY_LENGTH)
        cases: dict[Check, dict[str, dict[str, str | None]]] = {
            Check.MISSING: {name: {name: None} for name in every},
            Check.WEAK: {name: {name: _random(_TELLING_LENGTH)} for name in keys},
            Check.DEFAULT: {name: {name: _DEFAULT} for name in keys},
            Check.EQUAL: {" and ".join(keys): dict.fromkeys(keys, same)},
        }
        for check, changes in cases.items():
            with self.reporter.task(f"Whether it {check.value}") as task:
                problems = [*self._accepted(way, changes, task)]
            names = ", ".join(changes)
            self._passed(check, not problems, "; ".join(problems) or f"ends with an error, value not shown: {names}")

    def _accepted(self, way: _Way, cases: Mapping[str, Mapping[str, str | None]], task: Task) -> Iterator[str]:
        """Start one container for each case, all at once; yield what is wrong with how each of them ends."""
        lives = {name: self._start(way, changes) for name, changes in cases.items()}
        end = time.monotonic() + self.timeout
        waiting = dict(lives)
        while waiting and time.monotonic() < end:
            task.detail = ", ".join(waiting)
            for name, life in list(waiting.items()):
                if not self._is_running(life) or (self.port and self._ask(life, "/health")):
                    del waiting[name]
            time.sleep(_TURN_SECONDS)
        for name, life in lives.items():
            log = _log(life.container)
            if life.exit_code is None:
                yield f"{name}: runs all the same" + ("" if name not in waiting else f" after {self.timeout:g} s")
            elif life.exit_code == 0:
                yield f"{name}: ends, but with exit code 0"
            elif any(value and value in log for value in cases[name].values()):
                yield f"{name}: shows the value in its log"
            self._end(life)

    def _judge_log(self) -> None:
        if self.leaked:
            self._find(Check.SILENT, Verdict.FAILED, f"its log has the value of {', '.join(sorted(self.leaked))}")
        else:
            self._find(Check.SILENT, Verdict.PASSED, "no secret's value is in the log of any of its containers")


def _parsed(raw: bytes) -> _Answer:
    """Parse an HTTP answer. One that is none has status 0."""

    class _Socket:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(raw)

    answer = HTTPResponse(_Socket())  # type: ignore[arg-type] # all that it asks of a socket
    try:
        answer.begin()
        return _Answer(status=answer.status, body=answer.read().decode(errors="replace"))
    except (HTTPException, OSError, ValueError):
        return _Answer(status=0)


def _ports(container: Container) -> list[int]:
    """Return the TCP ports that listen in a container, where its image has `cat`; to help, not to judge."""
    with contextlib.suppress(docker.errors.APIError):
        output = cast("bytes", container.exec_run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).output)
        rows = [line.split() for line in output.decode(errors="replace").splitlines()]
        # Engine's own resolver listens on loopback, on a port of its choice: 127.0.0.11.
        listening = [row[1] for row in rows if len(row) > 3 and row[3] == "0A" and not row[1].startswith("0B00007F")]  # noqa: PLR2004
        return sorted({int(address.rpartition(":")[2], 16) for address in listening})
    return []
