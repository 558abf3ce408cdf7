"""Judges whether an image keeps the contract: one finding for each check."""

from __future__ import annotations

import contextlib
import secrets
import string
import time
from dataclasses import dataclass, field, replace

import docker.errors
from docker.models.containers import Container

from operations.checks.image import exposition
from operations.checks.image.contract import ImageCheck
from operations.checks.image.exposure import not_exposed
from operations.checks.image.image_start import ASK_SECONDS, MOST_OF_AN_ANSWER, TELLING_LENGTH, TURN_SECONDS
from operations.checks.image.image_ways import STRICT, Way, settings_text
from operations.checks.image.life import NOT_FOUND, OK, Life
from operations.checks.image.refusals import Refusing
from operations.checks.report import Finding, Verdict
from operations.engine.bound import MIB, Bound, BoundError
from operations.engine.commands import execute
from operations.engine.redaction import without
from stack.common.secret_rules import fernet_key
from stack.monitoring.metrics import Kind
from stack.settings.keys import key_of
from stack.spec.secrets import KEY_LENGTH
from stack.spec.service import LOG_FILES, LOG_MIB

# The ingress asks /health every second, and stops sending requests after the third answer that is not 200.
_NOTICED_SECONDS = 2
_NO_ANSWER = f"gives no whole answer within {ASK_SECONDS} s and {MOST_OF_AN_ANSWER // MIB} MiB"
_KILLED, _TERMINATED = 137, 143
_REDIRECTS = range(300, 400)
_ALPHABET = string.ascii_letters + string.digits
# Long and varied, so that an image can recognise it as a default only by its words.
_DEFAULT = "your-secret-key-please-change-me-in-production-0123456789-QWERTYUIOP"


@dataclass
class Checking(Refusing):
    """One run of all checks."""

    findings: dict[ImageCheck, Finding] = field(default_factory=dict)
    proposal: str = ""
    without_login: bool = False
    """Whether the image needs a Redis without a login: Redis refused it, or it came up only without one."""

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
        for check in ImageCheck:
            if check not in self.findings:
                self._find(check, Verdict.NOT_AVAILABLE, "it does not run")

    def _find(self, check: ImageCheck, verdict: Verdict, why: str) -> None:
        # A quoted error has words of the image, which may be a secret or control characters for the terminal.
        shown = "".join(letter if letter.isprintable() else " " for letter in without(self.settings, why))
        self.findings[check] = Finding(check=check, verdict=verdict, why=shown)

    def _passed(self, check: ImageCheck, good: bool, why: str) -> None:
        self._find(check, Verdict.PASSED if good else Verdict.FAILED, why)

    def _judge_migrations(self, migrated: Way | str | None, way: Way) -> None:
        """Judge what `migrated` returned. way: the way in which the image itself runs."""
        less = isinstance(migrated, Way) and migrated != STRICT
        if self.kind is Kind.WORKER:
            self._find(ImageCheck.MIGRATES, Verdict.NOT_AVAILABLE, "the API's image does that")
        elif migrated is None:
            self._find(ImageCheck.MIGRATES, Verdict.NOT_AVAILABLE, "samokoder:migrations.command is not set")
        elif less and migrated == way:
            self._find(
                ImageCheck.MIGRATES, Verdict.NOT_AVAILABLE, "does so only in the way in which the image itself runs"
            )
        elif less:
            self._find(
                ImageCheck.MIGRATES, Verdict.FAILED, "does so only as root with a writable root, or from variables"
            )
        elif isinstance(migrated, str):
            self._find(ImageCheck.MIGRATES, Verdict.FAILED, migrated)
        else:
            self._find(ImageCheck.MIGRATES, Verdict.PASSED, "its command ended with 0, before the image was started")

    def _judge_strictness(self, way: Way, strict: Life) -> None:
        """Report each requirement that the image failed. way: the way in which it runs. strict: its strict start."""
        how = f"does not become ready{self.last_words(strict)}"
        if strict.exit_code is not None:
            how = f"ended with exit code {strict.exit_code}{self.last_words(strict)}"
        if way.unhardened:
            self._find(
                ImageCheck.HARDENED,
                Verdict.FAILED,
                f"runs only as root, with a writable root and capabilities; in the stack's container it {how}",
            )
        if way.writable:
            folders = ", ".join(way.writable)
            self._find(
                ImageCheck.HARDENED,
                Verdict.FAILED,
                f"writes to {folders}, which is read-only; in the stack's container it {how}",
            )
        if way.secrets_in_environment:
            self._find(
                ImageCheck.FILES,
                Verdict.FAILED,
                f"runs only with its secrets in variables; with files in {self.spec.files_at} it {how}",
            )
        if way.without_login:
            self._find(ImageCheck.LOGIN, Verdict.FAILED, f"runs only with a Redis that wants no login; else it {how}")
        if way.own_command:
            self._find(
                ImageCheck.COMMAND,
                Verdict.FAILED,
                f"{' '.join(self.spec.command)} {how}; its own is {' '.join(self.own_command)}",
            )
        if way.fernet:
            self._find(ImageCheck.FERNET, Verdict.FAILED, f"wants a Fernet key; with another one it {how}")

    def _judge_login(self, way: Way) -> None:
        """Report what Redis has refused the image so far: until now it got only good secrets."""
        if ImageCheck.LOGIN in self.findings:
            return
        if self.environment.settings.redis.login == "none":
            self._find(ImageCheck.LOGIN, Verdict.NOT_AVAILABLE, f"{key_of('redis', 'login')} is none: it need not")
            return
        refused = ", ".join(f"{count} times {name}" for name, count in self.refused().items())
        self.without_login = way.without_login or bool(refused)
        said = f"Redis refused it: {refused}" if refused else "Redis has refused it nothing so far"
        self._passed(ImageCheck.LOGIN, not refused, said)

    def _propose(self, way: Way, life: Life) -> None:
        """Write the settings with which the stack requires only what the image can do."""
        fernet = self.wants_fernet and not self.environment.settings.fernet
        way = replace(way, fernet=way.fernet or fernet, without_login=way.without_login or self.without_login)
        text = settings_text(self.kind, way, command=self.own_command, portless=life.portless)
        self.proposal = without(self.settings, text)

    def _judge_start(self, way: Way, life: Life) -> None:
        if life.exit_code is not None:
            first = ImageCheck.PORT if self.port else ImageCheck.READY
            how = f"ended with exit code {life.exit_code} in every way that was tried{self.last_words(life)}"
            self._find(first, Verdict.FAILED, how)
            return
        if ImageCheck.COMMAND not in self.findings:
            self._find(ImageCheck.COMMAND, Verdict.PASSED, f"is started by {' '.join(self.spec.command)[:120]}")
        if ImageCheck.FERNET not in self.findings:
            form = "a Fernet key" if self.environment.settings.fernet else "one of letters and digits"
            self._find(ImageCheck.FERNET, Verdict.PASSED, f"takes {form}")
        if not (way.unhardened or way.writable):
            self._find(
                ImageCheck.HARDENED,
                Verdict.PASSED,
                f"runs as {self.spec.user}, with a read-only root, no capability and no-new-privileges",
            )
        self._judge_port(life)
        self._judge_readiness(way, life)

    def _judge_port(self, life: Life) -> None:
        if self.port is None:
            why = "samokoder:worker.metricsPort is null: this image has no port"
            for check in (ImageCheck.PORT, ImageCheck.HEALTH, ImageCheck.METRICS, ImageCheck.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, why)
        elif life.portless:
            why = f"nothing listens on port {self.port}, and arq's own check says that it is well"
            self._find(ImageCheck.PORT, Verdict.FAILED, why)
            for check in (ImageCheck.HEALTH, ImageCheck.METRICS, ImageCheck.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, f"nothing listens on port {self.port}")
        elif not life.listens:
            others = f"; it listens on {', '.join(map(str, ports))}" if (ports := _ports(life.container)) else ""
            self._find(ImageCheck.PORT, Verdict.FAILED, f"nothing listens on port {self.port} of its address{others}")
            for check in (ImageCheck.HEALTH, ImageCheck.METRICS, ImageCheck.OPTIONAL):
                self._find(check, Verdict.NOT_AVAILABLE, f"nothing listens on port {self.port}")
        else:
            self._find(ImageCheck.PORT, Verdict.PASSED, f"listens on port {self.port} for other containers")
            said = f"answers {life.health}" if life.health else _NO_ANSWER
            self._passed(ImageCheck.HEALTH, life.health == OK, said)

    def _judge_readiness(self, way: Way, life: Life) -> None:
        by_health = self.port and life.health != OK
        by_migrations = self.findings[ImageCheck.MIGRATES].verdict is Verdict.FAILED and not life.is_up(
            port=bool(self.port)
        )
        where = self.spec.files_at
        if life.portless:
            self._find(ImageCheck.READY, Verdict.PASSED, "arq's own check succeeds")
        elif by_health:
            # One cause, one failed check: the check of the port or of /health reports this one.
            self._find(ImageCheck.READY, Verdict.NOT_AVAILABLE, "/health does not answer 200")
        elif by_migrations:
            self._find(ImageCheck.READY, Verdict.NOT_AVAILABLE, "its database is not migrated")
        elif not life.own_check:
            command = " ".join(self.spec.health_command)[:120]
            said = f"; {life.own_check_says[:200]}" if life.own_check_says else ""
            why = f"its health check does not succeed in {self.timeout:g} s: {command}{said}"
            self._find(ImageCheck.READY, Verdict.FAILED, why)
        elif self.port and life.ready not in (OK, NOT_FOUND):
            why = f"/ready still answers {life.ready or 'nothing'} after {self.timeout:g} s"
            self._find(ImageCheck.READY, Verdict.FAILED, why)
        else:
            also = "" if not self.port else " and /ready answers 200" if life.ready == OK else "; it has no /ready"
            self._find(ImageCheck.READY, Verdict.PASSED, f"the health check that the stack gives it succeeds{also}")
        if way.secrets_in_environment:
            return
        opted = ", ".join(sorted(self.spec.secret_environment))
        if self.findings[ImageCheck.READY].verdict is not Verdict.PASSED:
            self._find(
                ImageCheck.FILES, Verdict.NOT_AVAILABLE, "it does not become ready, so it may not have read them"
            )
        elif opted:
            self._find(ImageCheck.FILES, Verdict.PASSED, f"all but {opted}, which your settings put into variables")
        else:
            self._find(
                ImageCheck.FILES, Verdict.PASSED, f"became ready with files in {where} alone, none in a variable"
            )

    def _judge_metrics(self, life: Life) -> None:
        if ImageCheck.METRICS in self.findings:
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
            self._find(ImageCheck.METRICS, Verdict.FAILED, said)
            self._find(ImageCheck.OPTIONAL, Verdict.NOT_AVAILABLE, said)
            return
        try:
            exposed = exposition.parse(answer.body)
        except ValueError as error:
            why = f"/metrics is not in Prometheus' format: {str(error)[:120]}"
            self._find(ImageCheck.METRICS, Verdict.FAILED, why)
            self._find(ImageCheck.OPTIONAL, Verdict.NOT_AVAILABLE, "/metrics is not in Prometheus' format")
            return
        found = exposition.compare(exposed, self.kind)
        required = sum(metric.required for metric in exposition.expected(exposed, self.kind))
        if found.wrong:
            self._find(ImageCheck.METRICS, Verdict.FAILED, "; ".join(found.wrong) + redirected)
        elif found.missing:
            # The image works without them; only some alerts cannot fire.
            self._find(
                ImageCheck.METRICS, Verdict.NOT_AVAILABLE, not_exposed(self.environment, found.missing) + redirected
            )
        else:
            self._find(ImageCheck.METRICS, Verdict.PASSED, f"all {required}, with type and labels{redirected}")
        if found.optional:
            self._find(ImageCheck.OPTIONAL, Verdict.NOT_AVAILABLE, f"missing: {', '.join(found.optional)}")
        else:
            self._find(ImageCheck.OPTIONAL, Verdict.PASSED, "none is missing")

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
        self._passed(ImageCheck.STOPS, code in (0, _TERMINATED), why)
        if not asked:
            why = "nobody sends it requests" if self.kind is Kind.WORKER else "/health does not answer 200"
            self._find(ImageCheck.DRAINS, Verdict.NOT_AVAILABLE, why)
        elif drained >= _NOTICED_SECONDS:
            self._find(
                ImageCheck.DRAINS, Verdict.PASSED, f"answers on for {drained:.0f} s, /health with another than 200"
            )
        else:
            why = "does not: let /health answer 503 for 5 s first, or a deploy may cost a request that is on its way"
            self._find(ImageCheck.DRAINS, Verdict.NOT_AVAILABLE, why)

    def _judge_refusals(self, way: Way, life: Life) -> None:
        keys = ("SECRET_KEY", "APP_SECRET_KEY")
        without_login = way.without_login or self.environment.settings.redis.login == "none"
        every = (*keys, "SAMOKODER_DATABASE_URL", *(() if without_login else ("REDIS_PASSWORD",)))
        same = (
            fernet_key(random_text(KEY_LENGTH))
            if way.fernet or self.environment.settings.fernet
            else random_text(KEY_LENGTH)
        )
        cases: dict[ImageCheck, dict[str, dict[str, str | None]]] = {
            ImageCheck.MISSING: {name: {name: None} for name in every},
            ImageCheck.WEAK: {name: {name: random_text(TELLING_LENGTH)} for name in keys},
            ImageCheck.DEFAULT: {name: {name: _DEFAULT} for name in keys},
            ImageCheck.EQUAL: {" and ".join(keys): dict.fromkeys(keys, same)},
        }
        with self.reporter.task("Whether it refuses wrong secrets") as task:
            problems, late = self.accepted(way, cases, task, comes_up=bool(life.seconds))
        for check, changes in cases.items():
            found = [*problems[check], *late[check]]
            said = "; ".join(found) or f"ends with an error: {', '.join(changes)}"
            if late[check] and not problems[check] and not life.seconds:
                # No start with good secrets came up, so it is not known how long a start takes.
                self._find(check, Verdict.NOT_AVAILABLE, f"{said}, and it does not become ready with good ones either")
            else:
                self._passed(check, not found, said)

    def _judge_log(self) -> None:
        if self.leaked:
            self._find(ImageCheck.SILENT, Verdict.FAILED, f"its log has the value of {', '.join(sorted(self.leaked))}")
        elif self.cut:
            kept = f"the engine keeps {LOG_FILES * LOG_MIB} MiB of a log"
            why = f"{kept}, and it says so much that the beginning may be gone; no secret is in the rest"
            self._find(ImageCheck.SILENT, Verdict.NOT_AVAILABLE, why)
        else:
            self._find(ImageCheck.SILENT, Verdict.PASSED, "no secret's value is in the log of any of its containers")


def _ports(container: Container) -> list[int]:
    """Return the TCP ports that listen in a container, where its image has `cat`: a hint for people, no verdict."""
    with contextlib.suppress(docker.errors.APIError, BoundError):
        command = ["cat", "/proc/net/tcp", "/proc/net/tcp6"]
        _, output = execute(container, command, bound=Bound(ASK_SECONDS, MIB))
        rows = [line.split() for line in output.decode(errors="replace").splitlines()]
        # The engine's DNS resolver listens at 127.0.0.11, on a port that the engine chooses.
        listening = [row[1] for row in rows if len(row) > 3 and row[3] == "0A" and not row[1].startswith("0B00007F")]  # noqa: PLR2004
        return sorted({int(address.rpartition(":")[2], 16) for address in listening})
    return []


def random_text(length: int) -> str:
    """Return random letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
