"""What an own image shows of the contract's metrics is held against what the last good deploy noted of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from host.errors import EngineError
from operations.checks.image import exposure
from operations.delivery import commit_deploy, good_metrics
from operations.errors import ProjectError
from stack.monitoring.metrics import Job, Kind
from stack.parts.api.metrics import METRICS
from tests.unit.operations.delivery import test_delivery
from tests.unit.operations.delivery.test_delivery import DIGEST, Clone, Pulumi, deploy

clone, held = test_delivery.clone, test_delivery.held

OWN = f"""config:
  samokoder:api: {{image: "registry.example.org/api:1@{DIGEST}"}}
  samokoder:migrations: {{command: [migrate]}}
"""


ATTEMPTS, ERRORS = "samokoder_auth_attempts_total", "samokoder_db_errors_total"
LLM = "samokoder_llm_requests_total"
SHOWED = good_metrics.TAGS[Kind.API]


def after(good: str, last: str, showed: set[str]) -> Pulumi:
    """Return a state that has a good commit, the last one that was begun, and what the good one showed."""
    return Pulumi(good, last, **{SHOWED: good_metrics.written(showed)})


def showing(monkeypatch: pytest.MonkeyPatch, *turns: set[str]) -> None:
    """Have the API show these metrics, turn by turn."""
    left = list(turns)
    monkeypatch.setattr(good_metrics, "connect", lambda _: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(exposure, "shown", lambda *_: exposure.Shown({Kind.API: frozenset(left.pop(0))}, {}))


def test_an_image_that_has_lost_a_metric_goes_back_and_the_alert_that_would_be_mute_is_named(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = clone.commit("one", config=OWN)
    clone.commit("two", config=OWN)
    showing(monkeypatch, {ATTEMPTS, ERRORS}, {ERRORS})
    pulumi, said = after(good, good, {ATTEMPTS, ERRORS}), list[str]()
    with pytest.raises(ProjectError, match=r"samokoder_auth_attempts_total; mute .* Authentication") as told:
        deploy(clone, pulumi, said)
    assert ERRORS not in str(told.value)
    assert clone.calls()[-2:] == ["one staging up", "one staging smoke"]
    assert pulumi.good == good
    assert any(f"make pulumi ARGS='stack tag rm {SHOWED}'" in line for line in said), "how to drop one on purpose"


def test_a_mute_version_that_runs_is_not_found_good_by_its_own_measure_when_the_job_is_run_again(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = clone.commit("one", config=OWN)
    mute = clone.commit("two", config=OWN)
    showing(monkeypatch, {ERRORS})
    pulumi = after(good, mute, {ATTEMPTS, ERRORS})  # its first job was killed when it was up
    with pytest.raises(ProjectError, match=ATTEMPTS):
        deploy(clone, pulumi)
    assert pulumi.good == good, "each later version would be compared with one whose alerts are mute"


def test_a_mute_version_without_a_way_back_stays_and_is_never_noted_as_good(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = clone.commit("one", config=OWN)
    clone.commit("two", config=OWN, postgres="16.4")
    pulumi = after(good, good, {ATTEMPTS, ERRORS})
    for _ in range(2):
        first = pulumi.noted[commit_deploy.LAST_COMMIT] == good
        showing(monkeypatch, *([{ATTEMPTS, ERRORS}] if first else []), {ERRORS})
        with pytest.raises(ProjectError, match=rf"{ATTEMPTS}.*It stays"):
            deploy(clone, pulumi)
        assert pulumi.good == good, "the job is run again, and finds a version like itself"


def test_what_a_good_version_shows_is_noted_for_the_next_one(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.commit("one", config=OWN)
    pulumi = Pulumi()
    showing(monkeypatch, {ATTEMPTS, ERRORS})
    deploy(clone, pulumi)
    assert good_metrics.read(pulumi.noted[SHOWED]) == {ATTEMPTS, ERRORS}


def test_what_the_good_version_has_imported_since_its_deploy_is_asked_of_the_next_one(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = "samokoder_llm_cost_usd_total"
    good = clone.commit("one", config=OWN)
    clone.commit("two", config=OWN)
    showing(monkeypatch, {ERRORS, LLM, cost}, {ERRORS, LLM})
    with pytest.raises(ProjectError, match=cost):
        deploy(clone, after(good, good, {ERRORS}))


def test_a_metric_of_which_a_person_has_the_state_forget_may_go(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    good = clone.commit("one", config=OWN)
    newer, pulumi, said = clone.commit("two", config=OWN), Pulumi(good), list[str]()
    showing(monkeypatch, {ERRORS})
    deploy(clone, pulumi, said)
    assert pulumi.good == newer, "else nobody could ever drop a metric on purpose"
    assert any("api: not judged by its metrics: of the version before" in line for line in said)
    assert good_metrics.read(pulumi.noted[SHOWED]) == {ERRORS}, "the next one is judged again"


def test_a_module_that_shows_no_metric_yet_is_told_and_the_deploy_is_good(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = clone.commit("one", config=OWN)
    newer, pulumi, said = clone.commit("two", config=OWN), after(good, good, {ERRORS, LLM}), list[str]()
    showing(monkeypatch, {ERRORS, LLM}, {ERRORS})
    deploy(clone, pulumi, said)
    assert pulumi.good == newer, "it may be imported with the first job"
    assert [line for line in said if f"not exposed: {LLM}; mute without them: " in line]
    assert good_metrics.read(pulumi.noted[SHOWED]) == {ERRORS, LLM}, "it is told again until it is there"


def test_an_image_that_never_had_a_metric_is_deployed_without_it(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    good = clone.commit("one", config=OWN)
    newer, pulumi = clone.commit("two", config=OWN), after(good, good, {ERRORS})
    showing(monkeypatch, {ERRORS}, {ERRORS})
    deploy(clone, pulumi)
    assert pulumi.good == newer, "else no change of it could ever be deployed"


def test_what_the_reference_application_has_shown_is_asked_of_no_other_image(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = clone.commit("the reference application")
    newer, pulumi, said = clone.commit("two", config=OWN), after(good, good, {ATTEMPTS}), list[str]()
    showing(monkeypatch, {ERRORS})
    deploy(clone, pulumi, said)
    assert pulumi.good == newer, "it has other metrics"
    assert "api: not judged by its metrics: of the version before no metrics are noted to compare with" in said


def test_what_cannot_be_asked_holds_no_deploy_up(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str) -> None:
        raise EngineError("it does not answer")

    good = clone.commit("one", config=OWN)
    newer, pulumi, said = clone.commit("two", config=OWN), after(good, good, {ERRORS}), list[str]()
    monkeypatch.setattr(good_metrics, "connect", away)
    deploy(clone, pulumi, said)
    assert pulumi.good == newer
    assert "api: not judged by its metrics: it does not answer" in said, "nobody would know that it was not"
    assert good_metrics.read(pulumi.noted[SHOWED]) == {ERRORS}, "what is known stays"


@pytest.mark.parametrize("kind", Kind)
def test_all_metrics_of_a_kind_are_read_from_a_tag_as_they_were_written_and_pulumi_takes_it(kind: Kind) -> None:
    names = {each.name for each in METRICS if each.required and {kind.value, Job.LLM.value} & set(each.jobs)}
    assert len(names) > 10
    assert good_metrics.read(good_metrics.written(names)) == names
    assert good_metrics.read(good_metrics.written(set())) == set()
    assert good_metrics.written(set()), "Pulumi knows no tag without a value"
    assert len(good_metrics.written(names)) <= 256, "Pulumi Cloud refuses a longer value"
    assert len(good_metrics.TAGS[kind]) <= 40, "as of a name"
