"""A replica that is told to stop: it says so, serves on for a while, and costs nobody a request."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

Waiting = Callable[..., object]
CLIENTS = 8


def _ready(setup: Setup, **environment: str) -> Service:
    api = setup.api(**environment)
    api.wait_until("/ready")
    return api


def _is_stopping(api: Service) -> bool:
    answer = api.get("/health")
    return (answer.status_code, answer.json()) == (503, {"status": "stopping"})


class _Client:
    """Keeps its connection to the first replica until that one closes it, as a proxy does; then it goes to the next."""

    def __init__(self, replicas: list[Service]) -> None:
        self.replicas, self.answers, self.moved = replicas, Counter[int](), False
        self.enough = threading.Event()

    def run(self) -> None:
        with httpx.Client(timeout=300) as http:
            while not self.enough.is_set():
                url = self.replicas[self.moved].url
                for answer in (http.post(f"{url}/projects", json={"name": "x"}), http.get(f"{url}/projects?limit=1")):
                    self.answers[answer.status_code] += 1
                    # Not at the first: who has not heard of it yet is served all the same.
                    self.moved = self.moved or answer.headers.get("connection") == "close"


@pytest.mark.usefixtures("alone")
def test_a_stop_under_load_costs_no_request_and_breaks_no_stream(setup: Setup, waiting: Waiting) -> None:
    first, second = _ready(setup, DRAIN_SECONDS="6"), _ready(setup)
    project = first.post("/projects", json={"name": "x"}).json()["id"]
    job = first.post(f"/projects/{project}/jobs", json={}).json()["id"]
    clients = [_Client([first, second]) for _ in range(CLIENTS)]
    with (
        ThreadPoolExecutor(CLIENTS + 1) as pool,
        httpx.Client(timeout=300) as http,
        http.stream("GET", f"{first.url}/jobs/{job}/events") as stream,
    ):
        lines = stream.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["state"] == "queued"
        running = [pool.submit(client.run) for client in clients]
        try:
            waiting("load", lambda: all(client.answers.total() > 20 for client in clients), first.said)
            assert not any(client.moved for client in clients), "nobody is sent away before the stop"
            told = time.monotonic()
            first.running.send_signal(signal.SIGTERM)
            rest = pool.submit(list, lines)
            waiting("503 from /health", lambda: _is_stopping(first), first.said)
            ready = first.get("/ready")
            assert (ready.status_code, ready.json()) == (503, {"status": "stopping"}), "a proxy may ask either"
            waiting("clients that move", lambda: all(client.moved for client in clients), first.said)
            created = first.post("/projects", json={"name": "late"})
            assert created.status_code == 201, "a new connection is served too: a proxy may not have noticed yet"
            assert not rest.done(), "a stream goes on as long as the others"
            assert first.ended() in (0, -signal.SIGTERM)
            assert time.monotonic() - told > 6, "a proxy needs the time to notice"
            assert not any(line.startswith("data") for line in rest.result()), "and it ends cleanly: httpx would raise"
        finally:
            for client in clients:
                client.enough.set()
        for each in running:
            each.result()  # raises what a client met
    answers = sum((client.answers for client in clients), Counter[int]())
    assert set(answers) == {200, 201}, answers
    assert "Traceback" not in first.said(), first.said()
    assert "timeout graceful shutdown" not in first.said()


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT,)],
    ids=["SIGTERM twice", "SIGINT after SIGTERM", "SIGINT"],
)
def test_who_does_not_want_to_wait_ends_it_at_once(
    setup: Setup, waiting: Waiting, signals: tuple[signal.Signals, ...]
) -> None:
    api = _ready(setup, DRAIN_SECONDS="60")
    for number in signals[:-1]:
        api.running.send_signal(number)
        waiting("503 from /health", lambda: _is_stopping(api), api.said)
    began = time.monotonic()
    api.running.send_signal(signals[-1])
    assert api.ended() in (0, -signals[-1], -signals[0]), api.said()
    assert time.monotonic() - began < 40, "and not after the minute"
    assert '"stopped"' in api.said(), "connections are given back all the same"
    assert "Traceback" not in api.said(), api.said()


@pytest.mark.parametrize("value", ["-1", "61", "soon"])
def test_a_wrong_time_for_it_is_refused(setup: Setup, value: str) -> None:
    api = setup.api(DRAIN_SECONDS=value)
    assert (api.ended(), "- DRAIN_SECONDS: " in api.said()) == (78, True), api.said()
