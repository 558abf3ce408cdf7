"""Which metrics of the contract a team's own image shows, read from its own page."""

from __future__ import annotations

from typing import Any, cast

import docker
import docker.errors
import pytest

from operations.checks import report
from operations.checks.image import exposure
from operations.checks.report import Verdict
from operations.checks.smoke import metrics
from operations.engine import containers
from operations.engine.bound import BoundError
from stack.monitoring.metrics import Kind
from tests.recording import DIGEST, environment_of
from tests.unit.operations.checks.smoke.test_smoke import PATIENCE_SECONDS, World, environment, served

OWN = {"image": f"registry.example.org/samokoder/api:1.4.2@{DIGEST}"}
ENVIRONMENT = environment_of("staging", {"api": OWN})
HITS, REQUESTS = "samokoder_rate_limit_hits_total", "samokoder_http_requests_total"
PAGE = f"""\
# TYPE {HITS} counter
# TYPE {REQUESTS} counter
{REQUESTS}{{method="GET",endpoint="any",status="200"}} 3
# TYPE python_info gauge
python_info 1
"""


def shown(monkeypatch: pytest.MonkeyPatch, *answers: object) -> exposure.Shown:
    """Ask one container for each answer: the text of its page, its exit status, or what is raised."""
    left = list(answers)

    def asked(_: object, command: list[str], **__: object) -> tuple[int, bytes, bytes]:
        assert "http://127.0.0.1:8000/metrics" in command[-1]
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return (0, answer.encode(), b"") if isinstance(answer, str) else (cast("int", answer), b"", b"")

    monkeypatch.setattr(containers, "of_fields", lambda *_: answers)
    monkeypatch.setattr(exposure, "execute_apart", asked)
    return exposure.shown(cast("docker.DockerClient", None), ENVIRONMENT)


def test_a_metric_without_a_series_is_shown_and_one_outside_of_the_contract_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = frozenset({HITS, REQUESTS})
    assert shown(monkeypatch, PAGE, PAGE).metrics == {Kind.API: both}, "nobody has met the limit since the start"


def test_what_one_replica_lacks_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    older = PAGE.replace(f"# TYPE {HITS} counter\n", "")
    assert shown(monkeypatch, PAGE, older).metrics == {Kind.API: frozenset({REQUESTS})}


@pytest.mark.parametrize(
    "answer",
    [
        1,
        docker.errors.APIError("no such program"),
        BoundError("late"),
        ConnectionResetError("the engine closed it"),
        "# TYPE x y z",
        PAGE.replace("python_info", "of_another_library"),
    ],
)
def test_a_page_that_cannot_be_had_says_nothing_of_the_metrics(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shown(monkeypatch, PAGE, answer)
    assert found.metrics == {}, "an image is not judged by a question that failed"
    assert found.unknown[Kind.API], "CI says why it was not judged"


def test_what_does_not_run_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch) == ({}, {Kind.API: "none of its containers runs"})


LLM = {"samokoder_llm_requests_total", "samokoder_llm_cost_usd_total"}


def test_a_module_that_was_not_imported_yet_has_lost_nothing() -> None:
    before = frozenset({"worker_jobs_total", *LLM})
    found = exposure.gone(before, frozenset({"worker_jobs_total"}))
    assert found.lost == frozenset(), "a worker that imports it in its first job would go back for being new"
    assert found.unseen == LLM, "it is told"


def test_what_a_module_that_is_there_no_longer_shows_is_lost() -> None:
    now = frozenset({"samokoder_llm_requests_total"})
    assert exposure.gone(frozenset(LLM), now).lost == {"samokoder_llm_cost_usd_total"}


@pytest.mark.parametrize("typed", [HITS, HITS.removesuffix("_total")], ids=["text", "OpenMetrics"])
def test_the_smoke_test_calls_no_counter_missing_that_has_counted_nothing_yet(
    typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.whole(environment(api=OWN))
    series = world.series['instance="api-1:']
    world.series['instance="api-1:'] = [each for each in series if each[0]["__name__"] not in {HITS, REQUESTS}]
    others = world.prometheus

    def prometheus(path: str, query: dict[str, str]) -> Any:
        if path != "/api/v1/targets/metadata":
            return others(path, query)
        assert query["match_target"] == '{job="api",instance="api-1:8000"}'
        return 200, {"data": [{"metric": typed, "type": "counter", "help": "", "unit": ""}]}

    monkeypatch.setattr(world, "prometheus", prometheus)
    with served(world) as asked:
        judged = [check for check in metrics.metrics_checks(asked) if check.name == "metrics api-1"]
        (found,) = report.ask_all(judged, seconds=PATIENCE_SECONDS)
    assert found.verdict is Verdict.NOT_AVAILABLE
    assert found.why.startswith(f"not exposed: {REQUESTS}; "), found.why
