"""Users without a pause, in a process of their own: what the test waits for must not slow them down.

A test says `with Load(url) as load: …` and looks at `load.report` afterwards. Each kind of request has its rate and
keeps it whatever becomes of the requests before (an open loop): an entry that stops answering cannot hide it by being
asked less. `python -m tests.live.load URL` is the process: "ready" on its standard output, then, once its
standard input is closed, its report as JSON.

The API must have no rate limits, a database and a worker; jobs of the kind "generate_code" should take some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import httpx

from operations.clone import ROOT

ANSWERS = 1000
"""With fewer good answers, a test proves nothing. How fast they come is the machine's."""
STREAMS = 6
# One second of all requests. With thousands at once the HTTP client looks through all of its connections at each
# event and needs a whole core for that: a pause of the service would then never end, and it would be ours. With
# hundreds, one replica alone on a busy machine refuses those that wait 20 s for its database: a load, and no deploy.
IN_FLIGHT = 60
STREAM_APART_SECONDS = 1.5
# Longer than the ingress keeps a request for which there is no replica (30 s): giving up sooner would be our failure.
PATIENCE_SECONDS = 45.0
JOBS_SECONDS = 90.0
KNOWN = 50
AT_ONCE = 20
FINAL = frozenset({"done", "failed"})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One request that was neither answered well nor refused by a rate limit."""

    at: float
    """Seconds since the load began."""
    kind: str
    request: str
    what: str
    """Status with the answer's beginning, or the exception."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of the load."""

    seconds: float
    ok: int
    limited: int
    """Answers with 429."""
    failed: list[Failure]
    by_kind: Mapping[str, int]
    """Good answers of each kind of client: keep-alive, fresh connection, login, stream."""
    reopened: int
    """Streams that ended cleanly before their job did, and were opened again."""
    slowest: float
    """Seconds that the slowest good answer (of a stream: its beginning) took."""
    jobs: int
    not_done: Mapping[str, str]
    """Job -> state, of those that were accepted and not done at the end."""
    changed: list[str]
    """Jobs that were done with one result and later had another: done twice."""

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.ok / self.seconds

    def assert_nothing_lost(self) -> None:
        """Every request was answered well, every accepted job was done once, and there were enough of them."""
        print(self)
        assert not self.failed, f"lost requests: {self}"
        assert not self.limited, f"the limits are off in this stack: {self}"
        assert self.ok >= ANSWERS, f"too few to prove anything: {self}"
        assert self.by_kind["stream"] > 0, f"nobody watched: {self}"
        assert not self.not_done, f"a job was accepted and never done: {self}"
        assert not self.changed, f"a job was done twice: {self}"

    def __str__(self) -> str:
        """Say it in a few lines, for a failed assertion."""
        first = "\n".join(f"  {f.at:6.1f} s  {f.kind:10} {f.request}: {f.what}" for f in self.failed[:20])
        return (
            f"{self.ok} answers in {self.seconds:.0f} s ({self.rate:.0f}/s), the slowest {self.slowest:.1f} s; "
            f"{self.limited} limited, {len(self.failed)} failed, {self.reopened} streams reopened, {self.jobs} jobs, "
            f"not done {dict(self.not_done)}, done twice {self.changed}; {dict(self.by_kind)}\n{first}"
        )


class Load:
    """The process, as a test sees it. Entering returns once all its users are served; leaving ends it."""

    report: Report
    """There after the block, however it ended."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Self:
        """Start it. AssertionError where the API does not serve in the first place."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.live.load", self._url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        if self._process.stdout.readline() != "ready\n":
            self._process.kill()
            raise AssertionError("the load could not begin; its error is above")
        return self

    def __exit__(self, *_: object) -> None:
        """End it and take its report."""
        try:
            said, _nothing = self._process.communicate(timeout=JOBS_SECONDS + 3 * PATIENCE_SECONDS)
        finally:
            self._process.kill()  # nothing, where it has ended
        assert self._process.returncode == 0, "the load crashed; its error is above"
        raw = json.loads(said)
        self.report = Report(**{**raw, "failed": [Failure(**failure) for failure in raw["failed"]]})


@dataclass
class _Users:
    """All of them, and what they got."""

    url: str
    ok: int = 0
    limited: int = 0
    reopened: int = 0
    slowest: float = 0.0
    failed: list[Failure] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    projects: list[str] = field(default_factory=list)
    jobs: dict[str, str | None] = field(default_factory=dict)
    """Each accepted job and, once it was seen done, its result."""
    changed: set[str] = field(default_factory=set)
    tokens: list[str] = field(default_factory=list)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))

    def __post_init__(self) -> None:
        # No proxy of the environment is for a port of this machine.
        common: dict[str, Any] = {"base_url": self.url, "timeout": PATIENCE_SECONDS, "trust_env": False}
        # Few idle connections: the client asks the kernel about each of them at every request, and after one pause of
        # the service 200 of them took a third of the machine until the end.
        kept = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=60)
        self.kept = httpx.AsyncClient(limits=kept, **common)
        self.fresh = httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=0), **common)
        # Whoever watches a stream does not wait for the others: behind their queue, no stream would be there to be cut.
        self.watching = httpx.AsyncClient(limits=kept, **common)
        self.begun = time.monotonic()
        self.user = {"email": f"{secrets.token_hex(8)}@example.org", "password": secrets.token_urlsafe(24)}

    def _failed(self, kind: str, request: str, what: str) -> None:
        self.failed.append(Failure(at=time.monotonic() - self.begun, kind=kind, request=request, what=what))

    @contextlib.contextmanager
    def _counted(self, kind: str, request: str) -> Iterator[None]:
        """Note an exception of the HTTP client: no answer, or one that was broken off."""
        try:
            yield
        except httpx.HTTPError as error:
            self._failed(kind, request, f"{type(error).__name__}: {error}")

    def _good(self, kind: str, request: str, answer: httpx.Response, text: str, since: float) -> bool:
        """Count an answer and tell whether it is a good one."""
        if answer.is_success:
            self.ok += 1
            self.by_kind[kind] += 1
            self.slowest = max(self.slowest, time.monotonic() - since)
        elif answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self.limited += 1
        else:
            self._failed(kind, request, f"{answer.status_code} {text[:200]}")
        return answer.is_success

    async def ask(self, kind: str, method: str, path: str, **more: Any) -> Any:
        """Send one request; return the JSON of a good answer, else None."""
        client, since = {"fresh": self.fresh, "stream": self.watching}.get(kind, self.kept), time.monotonic()
        with self._counted(kind, f"{method} {path}"):
            async with contextlib.nullcontext() if kind == "stream" else self.slots:
                answer = await client.request(method, path, **more)
            if self._good(kind, f"{method} {path}", answer, answer.text, since):
                return answer.json()
        return None

    async def read(self, kind: str) -> None:
        """Read something: the lists, one project, one job."""
        paths = ["/", "/projects?limit=5", f"/projects/{random.choice(self.projects)}"]  # noqa: S311 - no secret
        if self.jobs and random.random() < 0.5:  # noqa: S311
            await self.look(kind, random.choice(list(self.jobs)[-KNOWN:]))  # noqa: S311
        else:
            await self.ask(kind, "GET", random.choice(paths))  # noqa: S311

    async def look(self, kind: str, job: str) -> str:
        """Ask for one job; return its state, empty without an answer."""
        seen = await self.ask(kind, "GET", f"/jobs/{job}")
        if seen is None:
            return ""
        if seen["state"] == "done":
            before = self.jobs[job]
            if before is None:
                self.jobs[job] = seen["result"]
            elif before != seen["result"]:
                self.changed.add(job)
        return str(seen["state"])

    async def create(self, kind: str) -> None:
        """Create a project."""
        if made := await self.ask(kind, "POST", "/projects", json={"name": "load", "notes": "to be encrypted"}):
            self.projects[:] = [*self.projects[-KNOWN:], made["id"]]

    async def submit(self, kind: str, name: str = "write_skeleton") -> str:
        """Submit a job; return its id, empty when it was not accepted."""
        path = f"/projects/{random.choice(self.projects)}/jobs"  # noqa: S311
        if not (made := await self.ask(kind, "POST", path, json={"name": name})):
            return ""
        self.jobs[made["id"]] = None
        return str(made["id"])

    async def log_in(self, kind: str) -> None:
        """Log in anew; the first token stays in use beside the newest."""
        if made := await self.ask(kind, "POST", "/auth/login", json=self.user):
            self.tokens[:] = [*self.tokens[:1], made["access_token"]]

    async def who(self, kind: str) -> None:
        """Ask who we are, with the token of the beginning or the newest one."""
        token = random.choice(self.tokens)  # noqa: S311
        await self.ask(kind, "GET", "/auth/me", headers={"authorization": f"Bearer {token}"})

    async def watch(self, seconds: float) -> None:
        """Submit a slow job and watch its stream until it is done, then the next. The first one after so many seconds.

        They all take as long, so those who begin together would end together, and be gone when their replica goes.
        """
        await asyncio.sleep(seconds)
        while not self.ending.is_set():
            job, state = await self.submit("stream", "generate_code"), ""
            while job and state not in FINAL and not self.ending.is_set():
                if state:
                    self.reopened += 1
                    await asyncio.sleep(0.2)  # a browser waits longer (3 s)
                state = await self._stream(job)
            if not job:
                await asyncio.sleep(1)

    async def _stream(self, job: str) -> str:
        """Read one stream to its end; return the last state in it, a failed one as "failed"."""
        path, since, state = f"/jobs/{job}/events", time.monotonic(), "failed"
        with self._counted("stream", f"GET {path}"):
            async with self.watching.stream("GET", path) as answer:
                text = "" if answer.is_success else (await answer.aread()).decode(errors="replace")
                began = time.monotonic()
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        state = json.loads(line[5:])["state"]
            # Good is only one that has come to its end.
            self._good("stream", f"GET {path}", answer, text, since + time.monotonic() - began)
        return state

    async def steady(self, per_second: float, once: Callable[[str], Coroutine[Any, Any, object]], kind: str) -> None:
        """Do it so many times a second until the end, and wait for the last."""
        due = time.monotonic() + random.random() / per_second  # noqa: S311 - not all at the same moment
        async with asyncio.TaskGroup() as group:
            for number in itertools.count(1):
                await asyncio.sleep(max(0.0, due + number / per_second - time.monotonic()))
                if self.ending.is_set():
                    return
                group.create_task(once(kind))

    async def run(self) -> Report:
        """Serve until the standard input is closed."""
        assert await self.ask("keep-alive", "POST", "/auth/register", json=self.user), self.failed
        await self.create("keep-alive")
        await self.log_in("login")
        assert self.projects, self.failed
        assert self.tokens, self.failed
        # From here on it is a steady load; how long the first user took to register is no part of its rate.
        before, began = self.ok, time.monotonic()
        async with asyncio.TaskGroup() as group:
            for per_second, once, kind in (
                (25, self.read, "keep-alive"),
                (5, self.create, "keep-alive"),
                (1, self.submit, "keep-alive"),
                (17, self.read, "fresh"),
                (4, self.create, "fresh"),
                (1, self.submit, "fresh"),
                (4, self.who, "login"),
                (0.2, self.log_in, "login"),
            ):
                group.create_task(self.steady(per_second, once, kind))
            streams = [group.create_task(self.watch(STREAM_APART_SECONDS * number)) for number in range(STREAMS)]
            await asyncio.sleep(1)
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            self.ending.set()
            seconds = time.monotonic() - began
            for stream in streams:
                stream.cancel()
        ok = self.ok - before
        states = await self._finished()
        await self.kept.aclose()
        await self.fresh.aclose()
        await self.watching.aclose()
        return Report(
            seconds=seconds,
            ok=ok,
            limited=self.limited,
            failed=self.failed,
            by_kind=dict(self.by_kind),  # asdict() would count a Counter's pairs
            reopened=self.reopened,
            slowest=self.slowest,
            jobs=len(self.jobs),
            not_done={job: state for job, state in states.items() if state != "done"},
            changed=sorted(self.changed),
        )

    async def _finished(self) -> dict[str, str]:
        """Wait until every job has come to an end; return the states."""
        states = dict.fromkeys(self.jobs, "")
        end = time.monotonic() + JOBS_SECONDS
        while (open_ := [job for job, state in states.items() if state not in FINAL]) and time.monotonic() < end:
            for some in (open_[start : start + AT_ONCE] for start in range(0, len(open_), AT_ONCE)):
                states |= zip(some, await asyncio.gather(*(self.look("keep-alive", job) for job in some)), strict=True)
            await asyncio.sleep(1)
        return states


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_Users(sys.argv[1]).run()))))
