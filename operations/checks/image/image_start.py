"""Starts an image for `samokoder check-image`: as the stack does, and where that fails, with fewer requirements.

An image that comes up as the stack starts it is started once. Otherwise it is started with all requirements relaxed at
once, and then once with each requirement restored: so all that an image fails is known after the time of four starts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import docker.errors
from docker.models.containers import Container

from host.progress import Reporter, Task
from operations.checks.image.image_answer import ASK, Answer, log_of, may_be_cut, parsed, tried
from operations.checks.image.image_ways import STRICT, Way, written_folders
from operations.checks.image.life import _AT_ONCE, OK, Life, at_once, text, writable
from operations.engine.bound import MIB, Bound, BoundError
from operations.engine.commands import execute, execute_apart
from operations.engine.images import has_images
from operations.engine.laboratory import Laboratory
from operations.engine.redaction import without
from stack.common.secret_rules import fernet_key
from stack.monitoring.metrics import Kind
from stack.parts.api import contract
from stack.parts.api.reference import reference_image
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.parts.worker import spec as worker
from stack.settings.app import Application
from stack.settings.environment import Environment
from stack.spec.service import Scrape, ServiceSpec

TURN_SECONDS = 0.3
ASK_SECONDS = 5
MOST_OF_AN_ANSWER = 8 * MIB
_SLOWER = 2
"""A start counts as failed after this many times the seconds that another start of the image took (and some more)."""
_LEAST_SECONDS = 5.0
_RESTS = 2
"""After a look, its container is left alone for this many times as long as the look took: each look starts programs,
which take processor time from the image that is starting."""
_MOST_REST_SECONDS = 2.0
_ALONE_SECONDS = 6.0
"""Seconds for which the image runs only as the stack starts it, unless it ends before; relaxed starts come after."""
_CANNOT_START = 127
# A value shorter than this would be found in any log by chance.
TELLING_LENGTH = 12
_FERNET_SAYS = "Fernet key must be 32"

# For the migrations, tried in this order: the first way that succeeds shows which requirement they failed. More images
# read their secrets from variables than need root.
_LENIENT = (
    Way(secrets_in_environment=True),
    Way(secrets_in_environment=True, fernet=True),
    Way(unhardened=True),
    Way(unhardened=True, secrets_in_environment=True, fernet=True),
)


@dataclass
class Starting:
    """The image that is started, with the containers and secrets that it needs."""

    made: Laboratory
    environment: Environment
    spec: ServiceSpec
    migrations: ServiceSpec | None
    """The job that migrates the database in the stack, with the API's image; None: there is none."""
    kind: Kind
    values: Mapping[str, str]
    """The temporary secrets: name -> value."""
    asker: Container
    queue: Container
    """Redis."""
    timeout: float
    reporter: Reporter
    leaked: set[str] = field(default_factory=set)
    cut: bool = False
    """Whether a log was so long that the engine may have kept only its end."""
    refused_before: dict[str, int] = field(default_factory=dict)
    """Redis' error -> how often Redis refused the stack's own parts with it while they came up, before the image."""
    wants_fernet: bool = False
    """Whether a log of the image says that APP_SECRET_KEY has to be a Fernet key."""

    @property
    def part(self) -> Application:
        """The settings of the part, API or worker, that the image is for."""
        part: Application = getattr(self.environment.settings, self.kind.value)
        return part

    @property
    def port(self) -> int | None:
        """The port of the contract; None for a worker that has none."""
        return self.spec.scrape.port if isinstance(self.spec.scrape, Scrape) else None

    @cached_property
    def own_command(self) -> tuple[str, ...]:
        """The image's ENTRYPOINT and CMD, where they differ from the command of the stack; else empty."""
        if self.part.command or self.spec.image == reference_image(self.environment).name:
            return ()
        config = self.made.client.images.get(self.spec.image).attrs["Config"]
        command = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
        return command if command != self.spec.command else ()

    @cached_property
    def settings(self) -> dict[str, str]:
        """The secret settings of the contract with their temporary values."""
        contents = {name.upper(): content for name, content in self.spec.files.items()}
        contents |= self.spec.secret_environment
        return {name: text(content, self.values) for name, content in contents.items()}

    def start(
        self, way: Way, changes: Mapping[str, str | None] | None = None, *, spec: ServiceSpec | None = None
    ) -> Life:
        """Start the image. changes: secret settings with another value than the good one; None: left out."""
        own_command = way.own_command and spec is None
        spec = spec or self.spec
        changed = {**self.settings, **(changes or {})}
        if way.fernet and not (changes and "APP_SECRET_KEY" in changes):
            changed["APP_SECRET_KEY"] = fernet_key(self.settings["APP_SECRET_KEY"])
        given = {name: value for name, value in changed.items() if value is not None}
        as_variables = set(given) if way.secrets_in_environment else set(spec.secret_environment)
        files = {name: value for name, value in given.items() if name not in as_variables}
        pointers = {f"{name}_FILE" for name in self.settings if name not in files}
        variables = {name: value for name, value in spec.environment.items() if name not in pointers}
        options: dict[str, Any] = {"environment": variables | {name: given[name] for name in as_variables & set(given)}}
        if way.unhardened:
            options |= {"user": "0:0", "read_only": False, "cap_drop": [], "security_opt": []}
        if way.writable:
            options["tmpfs"] = {**spec.tmpfs, **writable(way.writable)}
        if own_command:
            options |= {"entrypoint": [*spec.entrypoint, *self.own_command], "command": []}
        mounted = {name.lower(): value for name, value in files.items()}
        life = Life(self.made.prepare(spec, mounted, alias=False, **options))
        try:
            life.container.start()
        except docker.errors.APIError as error:  # the image has no such program
            life.exit_code, life.problem = _CANNOT_START, str(error.explanation or error)
        return life

    def migrated(self) -> Way | str | None:
        """Migrate the database as the stack does; where that fails, in less strict ways.

        Returns the way that succeeded, or a sentence on how the strict way failed; None where there is nothing to run.
        """
        spec = self.migrations
        # Only the API's image migrates: where the engine lacks it, a worker's image is checked on an empty database.
        if spec is None or not has_images(self.made.client, [spec.image]):
            return None
        problem = ""
        for way in (STRICT, *_LENIENT):
            life = self.start(way, spec=spec)
            end = time.monotonic() + min(self.timeout, spec.health.wait_timeout_seconds)
            while self.is_running(life) and time.monotonic() < end:
                if tried(life.container, spec.health_command, seconds=spec.health.timeout_seconds)[0]:
                    self.end(life)
                    return way
                time.sleep(TURN_SECONDS)
            ended = f"runs for more than {min(self.timeout, spec.health.wait_timeout_seconds):g} s"
            if life.exit_code is not None:
                ended = f"ended with exit code {life.exit_code}"
            problem = problem or f"{' '.join(spec.command)[:120]} {ended}{self.last_words(life)}"
            self.end(life)
        return problem

    def first_life(self, task: Task) -> tuple[Way, Life, Life | None]:
        """Start the image with good secrets as the stack does; else find the strictest way in which it comes up.

        Returns the way, the container started in it, and the strictly started container where that is another one.
        """
        port = self.port is not None
        strict = self.start(STRICT)
        self.watch([strict], task, seconds=_ALONE_SECONDS, patient=False)
        if strict.is_up(port=port):
            return STRICT, strict, None
        ways = self._easy()
        # Redis may have refused the strict start already, but the image may log in where its secrets are variables.
        refused, alone = bool(self.refused()), time.monotonic() - strict.began
        lives = dict(zip(ways, at_once(self.start, ways), strict=True))
        seconds = _AT_ONCE * alone + _LEAST_SECONDS if refused else 0
        self.watch([strict, *lives.values()], task, seconds=seconds, patient=refused, enough=strict)
        up = any(life.is_up(port=port) for life in (strict, *lives.values()))
        if not up and self.environment.settings.redis.login != "none":
            task.detail = "once more, with a Redis that wants no login"
            lives = self._without_login(lives, task)
        way = next((way for way, life in lives.items() if life.is_up(port=port)), None)
        if strict.is_up(port=port) or (way is None and strict.exit_code is None):
            at_once(self.end, lives.values())
            return STRICT, strict, None
        # A container that runs without being ready tells more than one that ends at once.
        way = way or next((way for way, life in lives.items() if life.exit_code is None), None)
        if way is None:
            at_once(self.end, lives.values())
            return STRICT, strict, None
        lenient = lives.pop(way)
        at_once(self.end, lives.values())
        return (*(self._strictest(way, lenient, task) if lenient.is_up(port=port) else (way, lenient)), strict)

    def _without_login(self, before: Mapping[Way, Life], task: Task) -> dict[Way, Life]:
        """Start the image again, with a Redis that accepts everybody; return its ways and containers.

        before: those with a login, of which none came up. What did not end by itself then is more promising, so the
        others are started only where that does not come up either.
        """
        ran = [way for way, life in before.items() if self.is_running(life)]
        at_once(self.end, before.values())
        self.let_in(True)
        lives: dict[Way, Life] = {}
        for some in (ran, [way for way in before if way not in ran]):
            ways = [replace(way, without_login=True) for way in some]
            started = at_once(self.start, ways)
            self.watch(started, task)
            lives |= zip(ways, started, strict=True)
            if any(life.is_up(port=self.port is not None) for life in started):
                break
        return lives

    def _easy(self) -> list[Way]:
        """Return the most lenient ways: one for each combination of where secrets are and which form the key has."""
        files = self.part.secrets_as == "files" and not self.spec.secret_environment
        return [
            Way(
                unhardened=True,
                secrets_in_environment=variables,
                own_command=bool(self.own_command),
                fernet=fernet,
            )
            for fernet in ((False,) if self.environment.settings.fernet else (False, True))
            for variables in ((False, True) if files else (False,))
        ]

    def _strictest(self, way: Way, lenient: Life, task: Task) -> tuple[Way, Life]:
        """Return the strictest way in which the image comes up, and its container. way, lenient: one that came up."""
        task.detail = "which of its faults are which"
        port = self.port is not None
        # An image that came up only once Redis accepted clients without a login needs that, so it is not tried again.
        known = {"without_login"} & set(way.easier)
        ways = {name: way.stricter(name) for name in way.easier if name not in known}
        folders = written_folders(lenient.container.diff())
        if folders:
            ways["writable"] = replace(way, unhardened=False, writable=folders)
        lives = dict(zip(ways, at_once(self.start, ways.values()), strict=True))
        self.watch([*lives.values()], task, seconds=_SLOWER * lenient.seconds + _LEAST_SECONDS)
        needed = known | {name for name, life in lives.items() if name != "writable" and not life.is_up(port=port)}
        found = way.only(needed)
        if found.unhardened and folders and lives["writable"].is_up(port=port):
            found = replace(found, unhardened=False, writable=folders)
        there = next((name for name, tried in ways.items() if tried == found and lives[name].is_up(port=port)), None)
        if (
            there and port and self.is_running(lives[there])
        ):  # a worker without a port may have ended since it was ready
            life = lives.pop(there)
            at_once(self.end, [*lives.values(), lenient])
            return found, life
        at_once(self.end, lives.values())
        if found == way:
            return way, lenient
        life = self.start(found)
        self.watch([life], task, seconds=_SLOWER * lenient.seconds + _LEAST_SECONDS)
        if life.is_up(port=port):
            self.end(lenient)
            return found, life
        self.end(life)
        return way, lenient

    def watch(
        self,
        lives: Sequence[Life],
        task: Task,
        *,
        seconds: float = 0,
        patient: bool = True,
        enough: Life | None = None,
    ) -> None:
        """Look until each container is up or has ended, or the time is over; it is shortened once one of them is up.

        patient: False shortens the time also once Redis has refused the image, which then does not come up: to some
        seconds, since another container may log in, and to none where Redis goes on to refuse the last one of several.
        enough: once this container is up, no other is waited for.
        """
        began, port = time.monotonic(), self.port is not None
        of_last: int | None = None
        end = began + (min(seconds, self.timeout) if seconds else self.timeout)
        waiting, over = list(lives), False
        while waiting and not over:
            over = time.monotonic() >= end
            if over:  # the last look includes those that rest
                for life in waiting:
                    life.rests_until = 0
            at_once(self.look, waiting)
            for life in list(waiting):
                if life.is_up(port=port):
                    life.seconds = time.monotonic() - life.began
                    end = min(end, life.began + _SLOWER * life.seconds + _LEAST_SECONDS)
                if life.exit_code is not None or life.is_up(port=port):
                    waiting.remove(life)
                elif self.port:
                    answers = f"/health answers {life.health}" if life.listens else f"no answer on port {self.port} yet"
                    task.detail = answers
            over = over or (enough is not None and enough.is_up(port=port))
            if not patient and (count := sum(self.refused().values())):
                goes_on = of_last is not None and count > of_last
                end = min(end, time.monotonic() + (0 if goes_on else _LEAST_SECONDS))
                if of_last is None and len(waiting) == 1 < len(lives):
                    of_last = count
            time.sleep(TURN_SECONDS)

    def look(self, life: Life) -> None:
        """Note whether the container runs and, unless it was asked a moment ago, what its checks answer."""
        began = time.monotonic()
        if not self.is_running(life) or began < life.rests_until:
            return
        seconds = self.spec.health.timeout_seconds
        if self.port:
            answer = self.ask(life, "/health")
            life.listens = life.listens or answer is not None
            life.health = answer.status if answer else 0
            if life.health == OK:
                ready = self.ask(life, "/ready")
                life.ready = ready.status if ready else 0
        if life.health == OK or not self.port:  # else it is not up, whatever this check says
            life.own_check, life.own_check_says = tried(life.container, self.spec.health_command, seconds=seconds)
        elif self.kind is Kind.WORKER and not life.listens:
            command = worker.arq_check(self.part.command or worker.COMMAND)
            started = contract.started(self.part, *command)
            life.portless = bool(command) and tried(life.container, started, seconds=seconds)[0]
        self.is_running(life)
        now = time.monotonic()
        life.rests_until = now + min(_RESTS * (now - began), _MOST_REST_SECONDS)

    def is_running(self, life: Life) -> bool:
        """Tell whether the container runs; note its exit code where it has ended."""
        if life.problem:
            return False
        life.container.reload()
        state = life.container.attrs["State"]
        if not state["Running"]:
            life.exit_code = int(state["ExitCode"])
        return life.exit_code is None

    def ask(self, life: Life, path: str) -> Answer | None:
        """GET a path of the container; None where nothing listens on the port."""
        # By its IP address, because several containers of one image may run at a time.
        networks = life.container.attrs["NetworkSettings"]["Networks"]
        address = networks[str(self.made.network.name)]["IPAddress"]
        if not address:
            return None
        command = ["timeout", str(ASK_SECONDS), "bash", "-c", ASK, address, str(self.port), path]
        try:
            # `timeout` ends the command; the bound limits how much it prints until then.
            _, out, err = execute_apart(self.asker, command, bound=Bound(60, MOST_OF_AN_ANSWER))
        except BoundError:
            return Answer(status=0)
        return parsed(out) if b"connected" in err else None

    def end(self, life: Life) -> None:
        """Search the container's log for secrets, and remove the container."""
        log = log_of(life.container)
        if may_be_cut(log):
            self.cut = True
        # The settings hold the database's password only inside a URL, but a program may print the password alone.
        known = self.settings | {"the database's password": self.values.get("postgres_app", "")}
        self.leaked |= {name for name, value in known.items() if len(value) >= TELLING_LENGTH and value in log}
        if _FERNET_SAYS in log:
            self.wants_fernet = True
        with contextlib.suppress(docker.errors.NotFound):
            life.container.remove(force=True, v=True)

    def last_words(self, life: Life) -> str:
        """Return how the container's log ends, or why the engine did not start it, for people."""
        if life.problem:
            return f"; the engine says: {without(self.settings, life.problem)[:200]}"
        lines = [line.strip() for line in without(self.settings, log_of(life.container)).splitlines() if line.strip()]
        return f"; its log ends: {lines[-1][:200]}" if lines else "; its log is empty"

    def let_in(self, everybody: bool) -> None:
        """Make Redis accept or refuse clients without a login, with the command that redis-users sends for that."""
        said = redis_users.users_commands(app=[], exporter="", backup="", login=not everybody)
        (line,) = [each for each in said.splitlines() if each.startswith("ACL SETUSER default")]
        self._redis(redis.KEEPER_USER, "redis_keeper", *line.split())

    def refused(self) -> dict[str, int]:
        """Return how often Redis has refused the image: error (NOAUTH, NOPERM) -> count."""
        said = self._redis(redis.EXPORTER_USER, "redis_exporter", "info", "errorstats")
        counts = (line.strip().removeprefix("errorstat_").partition(":count=") for line in said.splitlines())
        known = {name: int(count) for name, _, count in counts if name in ("NOAUTH", "NOPERM") and count.isdigit()}
        of_it = {name: count - self.refused_before.get(name, 0) for name, count in known.items()}
        return {name: count for name, count in of_it.items() if count > 0}

    def _redis(self, user: str, secret: str, *words: str) -> str:
        # The password may be on the command line: it is good only for this temporary Redis.
        script = 'user=$1; export REDISCLI_AUTH="$2"; shift 2; exec redis-cli -e --user "$user" "$@"'
        return execute(self.queue, ["sh", "-c", script, "sh", user, self.values[secret], *words])[1].decode()
