from __future__ import annotations

import logging

import pytest

from stack.spec.service import Scrape
from tests.described import specs
from tests.recording import CASES, DIGEST, IMAGE, Recording, case_config, merged, record, record_case


def warned(recording: Recording) -> list[str]:
    return [message for level, message in recording.log if level == logging.WARNING]


@pytest.mark.parametrize("case", CASES)
def test_the_outputs_have_every_part_with_its_container_and_address(case: str) -> None:
    recording = record_case(case)
    outputs = recording.outputs
    assert outputs.keys() == {"environment", "production", "dockerHost", "parts", "unavailable", "volumes"}
    assert outputs["parts"].keys() == recording.containers().keys()
    for part, container in recording.containers().items():
        told = outputs["parts"][part]
        assert told["container"] == container.inputs["name"]
        ports = container.inputs.get("ports", [])
        assert ("url" in told) == bool(ports)
        if ports:
            public = part == "ingress" and recording.environment.settings.ingress.domain
            assert told["url"] == (f"https://{public}" if public else f"http://127.0.0.1:{ports[0]['external']}")
            assert told["healthUrl"].startswith(told["url"] + "/")


@pytest.mark.parametrize("case", CASES)
def test_the_outputs_name_every_scraped_part_by_its_job(case: str) -> None:
    recording = record_case(case)
    jobs = {part for part, told in recording.outputs["parts"].items() if "job" in told}
    assert jobs == {spec.part for spec in specs(recording.environment) if isinstance(spec.scrape, Scrape)}
    assert {"prometheus", "alertmanager", "api-1", "api-2", "worker"} <= jobs
    assert recording.outputs["parts"]["api-1"]["job"] == recording.outputs["parts"]["api-2"]["job"] == "api", (
        "the replicas are one service"
    )


def test_an_ipv6_address_is_in_brackets() -> None:
    recording = record("staging", {"ingress": {"bindAddress": "::1"}})
    assert recording.outputs["parts"]["ingress"]["url"] == "http://[::1]:8000"


def test_a_part_that_is_not_available_is_said_everywhere_and_never_there() -> None:
    recording = record_case("without-grafana")
    assert recording.outputs["unavailable"] == ["grafana"]
    assert not [
        resource for resource in recording.resources if "grafana" in resource.name and "secret" not in resource.name
    ]
    assert [message for message in warned(recording) if message.startswith("grafana: not available on this host")]
    assert not any("not available" in message for message in warned(record_case("staging")))


def test_a_stack_whose_alerts_reach_nobody_is_warned_of() -> None:
    said = [message for message in warned(record_case("staging")) if "sent to nobody" in message]
    assert len(said) == 1
    for case in ("prod", "email-and-keys"):
        assert not any("sent to nobody" in message for message in warned(record_case(case)))


def test_a_whole_production_is_warned_of_nothing() -> None:
    assert warned(record_case("prod")) == []


@pytest.mark.parametrize(
    ("missing", "key"), [("heartbeatUrl", "samokoder:heartbeatUrl"), ("alerts", "samokoder:alerts.runbooksUrl")]
)
def test_production_is_warned_of_what_helps_nobody_at_night(missing: str, key: str) -> None:
    stack, values = case_config("prod")
    (said,) = warned(record(stack, {name: value for name, value in values.items() if name != missing}))
    assert key in said


def test_a_wrong_configuration_ends_the_program_with_all_mistakes() -> None:
    with pytest.raises(SystemExit) as ended:
        record("staging", {"ingress": {"port": 0}, "nonsense": True, "openaiApiKey": "changeme"})
    assert ended.value.code == 1, "`pulumi preview` must fail, without a traceback"
    (said,) = ended.value.__notes__
    assert said.startswith("3 mistakes in the configuration of 'staging'")
    for key in ("ingress.port", "nonsense", "openaiApiKey"):
        assert f"\n\nsamokoder:{key}\n  is:    " in said
    assert "changeme" not in said


def test_every_part_runs_on_the_engine_that_is_configured() -> None:
    host = "ssh://deploy@host.example.org"
    _, values = case_config("staging")
    recording = record("staging", merged(values, {"dockerHost": host}))
    (engine,) = recording.of_type("pulumi:providers:docker")
    assert engine.inputs["host"] == host
    assert recording.outputs["dockerHost"] == host
    assert all(r.provider.startswith(engine.urn) for r in recording.resources if r.type.startswith("docker:"))


def test_a_local_image_id_is_run_as_it_is_and_pulled_from_nowhere() -> None:
    recording = record("staging", {"images": {"redis": DIGEST, "python": DIGEST}})
    assert recording.containers()["redis"].inputs["image"] == DIGEST
    images = {resource.inputs["name"] for resource in recording.resources if "remoteImage" in resource.type}
    assert DIGEST not in images
    tag = recording.one("docker:index/tag:Tag", "reference-base")
    assert tag.inputs["sourceImage"] == DIGEST
    (application,) = [r for r in recording.resources if r.name == "reference-app"]
    assert application.inputs["build"]["buildArgs"] == {"BASE": tag.inputs["targetImage"]}
    assert tag.urn in application.dependencies, "FROM would look for a tag that is not there yet"


def test_api_and_worker_of_one_repository_with_two_tags_are_two_resources() -> None:
    own = {part: {"image": f"registry.example.org/samokoder/app:{part}-1@{DIGEST}"} for part in ("api", "worker")}
    pulled = [r for r in record("staging", own).of_type(IMAGE) if r.inputs["name"].startswith("registry.example.org")]
    assert [r.name.rpartition("-")[2] for r in pulled if "worker" in r.inputs["name"]] == ["worker"]
    assert len({r.name for r in pulled}) == 2, "Pulumi refuses two resources of one type and name"
    alike = record("staging", dict.fromkeys(own, own["api"]))
    (one,) = [r for r in alike.of_type(IMAGE) if r.inputs["name"].startswith("registry.example.org")]
    assert one.name == next(r.name for r in pulled if "api" in r.inputs["name"]), "a new tag is a change"
