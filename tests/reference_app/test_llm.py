"""The way to the LLM, against a local server that fails as it is told to."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from arq.connections import ArqRedis

from bench.llm_server import COMPLETION_TOKENS, PROMPT_TOKENS, LlmServer
from samokoder import llm
from samokoder.metrics import WORKER
from samokoder.settings import LlmProvider, Settings

if TYPE_CHECKING:
    from tests.reference_app.conftest import Setup

Waiting = Callable[..., object]
Value = TypeVar("Value")
KEYS = {name: f"sk-{secrets.token_urlsafe(24)}" for name in ("openai_api_key", "openrouter_api_key")}
# Dollars for a million tokens: 1,000 and 500 of them cost 0.003 and 0.004.
PRICES = {"prompt_usd": 3, "completion_usd": 8}


@pytest.fixture
def first() -> Iterator[LlmServer]:
    with LlmServer().running() as server:
        yield server


@pytest.fixture
def second() -> Iterator[LlmServer]:
    with LlmServer(text="print('the second')").running() as server:
        yield server


def _settings(*servers: LlmServer, **more: Any) -> Settings:
    providers = _providers(*servers)
    return Settings.model_construct(
        llm_providers=tuple(LlmProvider.model_validate(provider) for provider in providers),
        **{"llm_in_flight": 32, "llm_timeout_seconds": 30.0, "anthropic_api_key": None}
        | {name: _Secret(key) for name, key in KEYS.items()}
        | more,
    )


class _Secret:
    def __init__(self, value: str) -> None:
        self.get_secret_value = lambda: value


def _providers(*servers: LlmServer) -> list[dict[str, Any]]:
    return [
        {"name": name, "base_url": server.url, "model": f"{name}-test", **PRICES}
        for name, server in zip(("openai", "openrouter"), servers, strict=False)
    ]


def _with(settings: Settings, work: Callable[[llm.Gateway], Awaitable[Value]]) -> Value:
    async def go() -> Value:
        gateway = llm.Gateway(settings)
        try:
            return await work(gateway)
        finally:
            await gateway.close()

    return asyncio.run(go())


def _ask(settings: Settings, times: int = 1) -> list[llm.Answer | llm.LlmError]:
    """Ask one after the other; an error is a result here."""

    async def work(gateway: llm.Gateway) -> list[llm.Answer | llm.LlmError]:
        found: list[llm.Answer | llm.LlmError] = []
        for _ in range(times):
            try:
                found.append(await gateway.ask("be brief", "a recipe book", time.monotonic()))
            except llm.LlmError as error:
                found.append(error)
        return found

    return _with(settings, work)


class _Counted:
    """How much each series of a metric has grown since the test began."""

    def __init__(self) -> None:
        self._before = self._now()

    def _now(self) -> dict[tuple[str, tuple[str, ...]], float]:
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for metric in WORKER.collect()
            for sample in metric.samples
            if sample.name.startswith("samokoder_llm_")
        }

    def __call__(self, name: str, *labels: str) -> float:
        key = (f"samokoder_llm_{name}", labels)
        return round(self._now().get(key, 0) - self._before.get(key, 0), 9)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> _Counted:
    monkeypatch.setattr(llm, "BACKOFF_SECONDS", 0.02)
    return _Counted()


def test_an_answer_is_paid_for_to_the_token(first: LlmServer, counted: _Counted) -> None:
    (answer,) = _ask(_settings(first))
    assert answer == llm.Answer("print('written')", "openai", "openai-test", 1500, 0.007)
    (call,) = first.calls
    assert call["authorization"] == f"Bearer {KEYS['openai_api_key']}"
    assert [message["role"] for message in call["messages"]] == ["system", "user"]
    model = ("openai", "openai-test")
    assert counted("requests_total", *model) == 1
    assert counted("tokens_consumed_total", *model, "prompt") == PROMPT_TOKENS
    assert counted("tokens_consumed_total", *model, "completion") == COMPLETION_TOKENS
    assert counted("cost_usd_total", *model) == 0.007
    assert counted("request_duration_seconds_count", *model) == 1


@pytest.mark.parametrize("failure", ["429", "500", "503", "hang"])
def test_what_may_pass_is_tried_again_and_is_no_error_when_it_does(
    first: LlmServer, counted: _Counted, failure: str
) -> None:
    first.plan.extend([failure, failure])
    (answer,) = _ask(_settings(first, llm_timeout_seconds=0.3))
    assert isinstance(answer, llm.Answer)
    assert len(first.calls) == 3
    assert counted("requests_total", "openai", "openai-test") == 1, "one request, however many calls it took"
    assert counted("request_duration_seconds_count", "openai", "openai-test") == 3
    for kind in ("rate_limited", "server_error", "timeout"):
        assert counted("request_errors_total", "openai", kind) == 0, "it was answered in the end"


@pytest.mark.parametrize(
    ("failure", "kind", "calls"),
    [
        ("429", "rate_limited", 3),
        ("429 3600", "rate_limited", 1),
        ("500", "server_error", 3),
        ("hang", "timeout", 3),
        ("400", "client_error", 1),
        ("401", "client_error", 1),
        ("302", "client_error", 1),
        ("garbage", "bad_answer", 1),
        ("empty", "bad_answer", 1),
    ],
)
def test_what_does_not_pass_is_the_next_providers_turn(
    first: LlmServer, second: LlmServer, counted: _Counted, failure: str, kind: str, calls: int
) -> None:
    first.always = failure
    (answer,) = _ask(_settings(first, second, llm_timeout_seconds=0.3))
    assert isinstance(answer, llm.Answer)
    assert (answer.provider, answer.text) == ("openrouter", "print('the second')")
    assert len(first.calls) == calls, "only what may pass is worth another try"
    assert second.calls[0]["authorization"] == f"Bearer {KEYS['openrouter_api_key']}", "each gets its own key"
    assert counted("request_errors_total", "openai", kind) == 1
    assert counted("requests_total", "openai", "openai-test") == 1, "failed for good: errors over requests is a ratio"
    assert counted("requests_total", "openrouter", "openrouter-test") == 1
    assert counted("request_errors_total", "openrouter", kind) == 0
    paid = 0.007 if failure == "empty" else 0
    assert counted("cost_usd_total", "openai", "openai-test") == paid, "an answer of no use is paid for all the same"


def test_a_server_that_is_not_there_is_a_connection_error(counted: _Counted) -> None:
    (error,) = _ask(_settings(LlmServer(port=1)))
    assert isinstance(error, llm.LlmError)
    assert str(error) == "no LLM answered (openai: connection)"
    assert counted("request_errors_total", "openai", "connection") == 1


def test_retry_after_is_waited_for(first: LlmServer, counted: _Counted) -> None:
    assert counted("requests_total", "openai", "openai-test") == 0
    first.plan.append("429 1")
    begun = time.monotonic()
    (answer,) = _ask(_settings(first))
    assert isinstance(answer, llm.Answer)
    assert time.monotonic() - begun >= 1, "who is asked to wait a second waits a second"


def test_the_breaker_opens_spares_the_provider_and_closes_by_one_trial(first: LlmServer, counted: _Counted) -> None:
    first.always = "500"

    async def work(gateway: llm.Gateway) -> None:
        (provider,) = gateway.providers
        provider.breaker.open_seconds = 0.5

        async def fails(kind: str) -> float | None:
            with pytest.raises(llm.LlmError, match=kind) as failed:
                await gateway.ask("s", "u", time.monotonic())
            return failed.value.again_seconds

        def gauge() -> float | None:
            return WORKER.get_sample_value("samokoder_llm_circuit_open", {"provider": "openai"})

        assert gauge() == 0
        assert await fails("server_error") is None, "it was tried as often as it helps"
        assert await fails("server_error"), "put back, as those that come after it"
        assert len(first.calls) == llm.OPEN_AFTER_FAILURES, "not one call more after it has opened"
        assert gauge() == 1
        await fails("circuit_open")
        assert len(first.calls) == llm.OPEN_AFTER_FAILURES, "a provider that is down is spared, and so is our time"
        await asyncio.sleep(0.6)
        await asyncio.gather(*(fails("server_error|circuit_open") for _ in range(8)))
        assert len(first.calls) == llm.OPEN_AFTER_FAILURES + 1, "one trial, not eight"
        assert gauge() == 1, "it was no good: the alert must not flap with every trial"
        first.always = "good"
        await fails("circuit_open")
        await asyncio.sleep(0.6)
        assert (await gateway.ask("s", "u", time.monotonic())).text
        assert gauge() == 0
        assert (await gateway.ask("s", "u", time.monotonic())).text

    _with(_settings(first), work)
    assert counted("request_errors_total", "openai", "circuit_open") == 1 + 7 + 1
    assert counted("requests_total", "openai", "openai-test") == 2 + 1 + 8 + 1 + 2


def test_a_short_429_fails_no_call_of_many_and_opens_no_breaker(first: LlmServer, counted: _Counted) -> None:
    first.latency_seconds = 0.05
    first.plan.extend(["429 1"] * 32)

    async def work(gateway: llm.Gateway) -> list[llm.Answer]:
        answers = await asyncio.gather(*(gateway.ask("s", "u", time.monotonic()) for _ in range(32)))
        assert not gateway.providers[0].breaker.is_open, "a provider that answers 429 is there and works"
        return answers

    assert len(_with(_settings(first), work)) == 32, "all that it asked for was one second"
    assert len(first.calls) == 64
    assert counted("request_errors_total", "openai", "circuit_open") == 0


def test_a_burst_of_calls_that_fail_together_counts_as_one_failure(first: LlmServer, counted: _Counted) -> None:
    first.latency_seconds = 0.2
    first.plan.extend(["500"] * 32)

    async def work(gateway: llm.Gateway) -> None:
        answers = await asyncio.gather(*(gateway.ask("s", "u", time.monotonic()) for _ in range(32)))
        assert len(answers) == 32, "32 in flight met one fault of a moment: it was not five in a row"

    _with(_settings(first), work)
    assert counted("request_errors_total", "openai", "circuit_open") == 0


@pytest.mark.parametrize(
    ("failure", "least", "most"), [("429 3600", 3600, 7200), ("429", 0, 2), ("401", None, None), ("500", None, None)]
)
def test_an_error_says_whether_and_when_it_is_worth_asking_again(
    first: LlmServer, counted: _Counted, failure: str, least: float | None, most: float | None
) -> None:
    first.always = failure
    (error,) = _ask(_settings(first))
    assert isinstance(error, llm.LlmError)
    if least is None or most is None:
        assert error.again_seconds is None, "it was tried as often as it helps"
    else:
        assert error.again_seconds is not None
        assert least <= error.again_seconds <= most
    assert counted("requests_total", "openai", "openai-test") == 1


def test_a_call_that_meets_an_open_breaker_is_told_when_the_next_trial_is(first: LlmServer, counted: _Counted) -> None:
    first.always = "500"
    *_, error = _ask(_settings(first), times=3)
    assert isinstance(error, llm.LlmError)
    assert "circuit_open" in str(error)
    assert error.again_seconds is not None
    assert 0 < error.again_seconds <= 2 * llm.OPEN_SECONDS, "put back, and not failed for what others met"
    assert counted("request_errors_total", "openai", "circuit_open") == 1


@pytest.mark.parametrize(
    ("failure", "kind", "limit"),
    [("500", "server_error", llm.ALL_SECONDS), ("hang", "timeout", llm.ALL_SECONDS), ("hang", "timeout", 0.3)],
    ids=["an error", "the limit of a call", "the limit of all providers"],
)
def test_calls_in_flight_when_the_breaker_opens_are_put_back(
    first: LlmServer, counted: _Counted, monkeypatch: pytest.MonkeyPatch, failure: str, kind: str, limit: float
) -> None:
    monkeypatch.setattr(llm, "ALL_SECONDS", limit)
    first.always = failure

    async def work(gateway: llm.Gateway) -> list[llm.Answer | BaseException]:
        gateway.providers[0].breaker.failures = llm.OPEN_AFTER_FAILURES - 1
        return await asyncio.gather(
            *(gateway.ask("s", "u", time.monotonic()) for _ in range(32)), return_exceptions=True
        )

    timeout = 30.0 if limit < 1 or failure == "500" else 0.3
    for error in _with(_settings(first, llm_timeout_seconds=timeout), work):
        assert isinstance(error, llm.LlmError)
        assert error.again_seconds is not None, "32 jobs fail for good, each after one call, for one fault of a second"
        assert 0 < error.again_seconds <= 2 * llm.OPEN_SECONDS
    assert counted("request_errors_total", "openai", kind) == 32, "whoever is woken sees what went wrong"


def test_the_call_whose_last_try_opens_the_breaker_is_put_back(first: LlmServer, counted: _Counted) -> None:
    first.always = "500"

    async def work(gateway: llm.Gateway) -> float | None:
        gateway.providers[0].breaker.failures = llm.OPEN_AFTER_FAILURES - llm.TRIES
        with pytest.raises(llm.LlmError, match="server_error") as failed:
            await gateway.ask("s", "u", time.monotonic())
        return failed.value.again_seconds

    assert _with(_settings(first), work), "one that comes a moment later would be put back"
    assert counted("request_errors_total", "openai", "server_error") == 1


def test_what_dies_of_the_outer_limit_is_counted_and_marks_the_provider(
    first: LlmServer, counted: _Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "ALL_SECONDS", 0.3)
    first.always = "hang"

    async def work(gateway: llm.Gateway) -> None:
        with pytest.raises(llm.LlmError, match="openai: timeout"):
            await gateway.ask("s", "u", time.monotonic())
        assert gateway.providers[0].breaker.failures == 1

    _with(_settings(first), work)
    assert counted("request_errors_total", "openai", "timeout") == 1, "the alerts on the LLM would stay mute"
    assert counted("requests_total", "openai", "openai-test") == 1


def test_a_job_whose_start_was_slow_asks_for_so_much_less(first: LlmServer, counted: _Counted) -> None:
    first.always = "hang"

    async def work(gateway: llm.Gateway) -> None:
        with pytest.raises(llm.LlmError, match="openai: timeout"):
            await gateway.ask("s", "u", time.monotonic() - llm.ALL_SECONDS + 0.3)
        assert gateway.providers[0].breaker.failures == 1

    _with(_settings(first), work)
    assert counted("request_errors_total", "openai", "timeout") == 1, "the job would end before, and nothing counts it"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("1e9", 3600.0),
        ("inf", 3600.0),
        ("-3", 0.0),
        ("nan", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Fri, 31 Dec 0000 23:59:59 GMT", 0.0),
    ],
)
def test_how_long_to_wait_is_read_in_each_form(told: str, seconds: float) -> None:
    assert llm._told_to_wait(told) == seconds


def test_a_date_until_which_to_wait_is_so_far_away() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < llm._told_to_wait(date) <= 90, "a job that comes back at once is refused again, and its tries end"


def test_a_refused_prompt_does_not_open_the_breaker(first: LlmServer, counted: _Counted) -> None:
    first.always = "400"
    _ask(_settings(first), times=10)
    assert counted("request_errors_total", "openai", "client_error") == 10
    assert counted("request_errors_total", "openai", "circuit_open") == 0, "one user's words are nobody else's outage"


def test_no_more_calls_are_in_flight_than_allowed_and_the_gauge_says_how_many(
    first: LlmServer, counted: _Counted
) -> None:
    first.latency_seconds = 0.3

    async def work(gateway: llm.Gateway) -> float | None:
        asked = [asyncio.ensure_future(gateway.ask("s", "u", time.monotonic())) for _ in range(12)]
        await asyncio.sleep(0.15)
        seen = WORKER.get_sample_value("samokoder_llm_requests_in_flight", {"provider": "openai"})
        await asyncio.gather(*asked)
        return seen

    assert _with(_settings(first, llm_in_flight=4), work) == 4
    assert first.most_at_once == 4
    assert WORKER.get_sample_value("samokoder_llm_requests_in_flight", {"provider": "openai"}) == 0
    assert counted("requests_total", "openai", "openai-test") == 12


def test_no_key_is_in_an_error(first: LlmServer, caplog: pytest.LogCaptureFixture) -> None:
    first.always = "401"
    (error,) = _ask(_settings(first))
    said = repr(error) + repr(error.__cause__ if isinstance(error, Exception) else None) + caplog.text
    assert not any(key in said for key in KEYS.values())


def _job(setup: Setup, waiting: Waiting, **environment: str) -> tuple[Any, Any, Any]:
    """Run one generate_code from submit to its end; give the worker, the job and the project."""
    api, worker = setup.api(), setup.worker(**environment)
    api.wait_until("/ready")
    worker.wait_until("/ready")
    project = api.post("/projects", json={"name": "Recipe book"}).json()
    answer = api.post(f"/projects/{project['id']}/jobs", json={"name": "generate_code"})
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    waiting(
        "the job's end", lambda: worker.alive() and api.get(path).json()["state"] in {"done", "failed"}, worker.said
    )
    return worker, api.get(path).json(), api.get(f"/projects/{project['id']}").json()


@pytest.mark.usefixtures("alone")
def test_the_worker_has_the_llm_write_the_code(setup: Setup, waiting: Waiting, first: LlmServer) -> None:
    first.text = "```python\nprint('a recipe book')\n```"
    setup.secrets["openai_api_key"] = KEYS["openai_api_key"]
    worker, job, project = _job(setup, waiting, LLM_PROVIDERS=json.dumps(_providers(first)))
    assert job["state"] == "done", job
    assert project["skeleton"] == "print('a recipe book')\n", "the code, not the fence around it"
    assert "by openai-test of openai with 1500 tokens" in job["result"]
    assert first.calls[0]["messages"][1]["content"] == "Recipe book"
    model = 'model="openai-test",provider="openai"'
    assert worker.metric(f"samokoder_llm_requests_total{{{model}}}") == 1
    assert worker.metric(f"samokoder_llm_cost_usd_total{{{model}}}") == 0.007
    assert worker.metric('samokoder_llm_requests_total{model="none",provider="none"}') is None
    assert worker.metric('samokoder_job_duration_seconds_count{name="generate_code"}') == 1
    assert KEYS["openai_api_key"] not in worker.said()


@pytest.mark.usefixtures("alone")
def test_without_a_key_the_worker_writes_a_skeleton_and_says_so(setup: Setup, waiting: Waiting) -> None:
    worker, job, project = _job(setup, waiting)
    assert job["state"] == "done", job
    assert "no LLM key is configured" in job["result"], "who reads the result must not take it for an LLM's work"
    assert "def start_recipe_book" in project["skeleton"]
    assert worker.metric('samokoder_llm_requests_total{model="none",provider="none"}') == 0


@pytest.mark.usefixtures("alone")
def test_a_job_that_no_llm_answers_fails_and_says_why(setup: Setup, waiting: Waiting, first: LlmServer) -> None:
    first.always = "401"
    setup.secrets["openai_api_key"] = KEYS["openai_api_key"]
    worker, job, project = _job(setup, waiting, LLM_PROVIDERS=json.dumps(_providers(first)))
    assert (job["state"], project["skeleton"]) == ("failed", None)
    assert job["result"] == "failed: no LLM answered (openai: client_error)"
    assert worker.metric('worker_jobs_total{status="failed"}') == 1
    assert worker.metric('samokoder_llm_request_errors_total{error_type="client_error",provider="openai"}') == 1
    assert KEYS["openai_api_key"] not in worker.said()


#: A job's start takes 3 s, the LLM has 4 s from its begin on, and a job ends after 6 s.
SLOW_START = """\
import asyncio
import arq
import samokoder.llm as llm
import samokoder.worker.main as main
llm.ALL_SECONDS, main.JOB_SECONDS_MAX, text = 4.0, 6, main._text
async def slow(*words):
    await asyncio.sleep(3)
    return await text(*words)
main._text = slow
arq.run_worker(main.WorkerSettings)
"""


@pytest.mark.usefixtures("alone")
def test_an_llm_that_hangs_is_counted_also_where_the_job_started_slowly(
    setup: Setup, waiting: Waiting, first: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first.always = "hang"
    setup.secrets["openai_api_key"] = KEYS["openai_api_key"]
    begun = setup.worker

    def slow(**environment: str) -> Any:
        worker = begun(**environment)
        worker.stop(signal.SIGKILL)
        worker.command = [sys.executable, "-c", SLOW_START]
        worker.start()
        return worker

    monkeypatch.setattr(setup, "worker", slow)
    worker, job, _ = _job(setup, waiting, LLM_PROVIDERS=json.dumps(_providers(first)))
    assert job["result"] == "failed: no LLM answered (openai: timeout)"
    assert worker.metric('samokoder_llm_request_errors_total{error_type="timeout",provider="openai"}') == 1
    assert worker.metric('worker_jobs_total{status="failed"}') == 1


@pytest.mark.usefixtures("alone")
def test_a_job_that_is_asked_to_wait_is_put_back_and_done_later(
    setup: Setup, waiting: Waiting, first: LlmServer
) -> None:
    first.plan.extend(["429", "429", "429"])  # every try of the first turn
    setup.secrets["openai_api_key"] = KEYS["openai_api_key"]
    worker, job, _ = _job(setup, waiting, LLM_PROVIDERS=json.dumps(_providers(first)))
    assert job["state"] == "done", job
    assert worker.metric('worker_jobs_total{status="retried"}') == 1
    assert worker.metric('worker_jobs_total{status="failed"}') == 0


@pytest.mark.usefixtures("alone")
def test_one_worker_has_many_jobs_at_the_llm_at_the_same_time(setup: Setup, waiting: Waiting, first: LlmServer) -> None:
    first.latency_seconds = 3
    setup.secrets["openai_api_key"] = KEYS["openai_api_key"]
    api, worker = setup.api(), setup.worker(LLM_PROVIDERS=json.dumps(_providers(first)))
    api.wait_until("/ready")
    worker.wait_until("/ready")
    project = api.post("/projects", json={"name": "x"}).json()["id"]
    for _ in range(24):
        assert api.post(f"/projects/{project}/jobs", json={"name": "generate_code"}).status_code == 202

    def done() -> bool:
        return worker.alive() and worker.metric('worker_jobs_total{status="complete"}') == 24

    waiting("all jobs done", done, worker.said)
    assert first.most_at_once > 10, "calls that wait must not wait for one another, nor for a database connection"


@pytest.mark.usefixtures("alone")
def test_what_was_paid_for_is_written_once_the_database_is_back_and_not_paid_for_again(
    setup: Setup, waiting: Waiting, first: LlmServer
) -> None:
    first.latency_seconds = 4
    setup.secrets["openai_api_key"] = KEYS["openai_api_key"]
    api, worker = setup.api(), setup.worker(LLM_PROVIDERS=json.dumps(_providers(first)))
    api.wait_until("/ready")
    worker.wait_until("/ready")
    project = api.post("/projects", json={"name": "x"}).json()["id"]
    job = api.post(f"/projects/{project}/jobs", json={"name": "generate_code"}).json()["id"]
    waiting("the call", lambda: first.now, worker.said)
    setup.postgres.stop(signal.SIGINT)
    try:
        waiting(
            "an answer that cannot be written", lambda: "job waits to write its result" in worker.said(), worker.said
        )
    finally:
        setup.postgres.start()
    waiting("the job's end", lambda: api.get(f"/jobs/{job}").json()["state"] == "done", worker.said)
    assert len(first.calls) == 1, "the LLM's answer is there already, and asking again costs again"
    assert worker.metric('worker_jobs_total{status="retried"}') == 0

    async def queue_again() -> None:
        redis = ArqRedis(port=setup.redis.port, username="app", password=setup.redis.application_password)
        async with redis:
            assert await redis.enqueue_job("generate_code", _job_id=job)

    asyncio.run(queue_again())  # as it is where Redis was away when the worker wanted to tell the queue
    waiting("the second try's end", lambda: '"job was done already"' in worker.said(), worker.said)
    assert len(first.calls) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"OPENAI_API_KEY": "short"}, "OPENAI_API_KEY: must be 16 or more"),
        ({"OPENAI_API_KEY": "sk-with a space in it"}, "OPENAI_API_KEY: must be 16 or more"),
        ({"LLM_PROVIDERS": "[{}]"}, "LLM_PROVIDERS.0.base_url: is not set"),
        ({"LLM_PROVIDERS": '[{"name": "other"}]'}, "LLM_PROVIDERS.0.name: "),
        ({"LLM_TIMEOUT_SECONDS": "0", "LLM_IN_FLIGHT": "none"}, "LLM_IN_FLIGHT: "),
    ],
)
def test_wrong_settings_of_the_llm_are_refused_and_never_shown(
    setup: Setup, settings: dict[str, str], reason: str
) -> None:
    worker = setup.worker(**settings)
    assert worker.ended() == 78, worker.said()
    assert f"- {reason}" in worker.said(), worker.said()
    assert settings.get("OPENAI_API_KEY", "no such") not in worker.said()
