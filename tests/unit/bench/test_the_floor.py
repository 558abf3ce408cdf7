"""The same resources, declared flat: the floor that a preview is measured against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import flat
from operations.workspace.pulumi_state import SECRET_MARK
from tests.recording import Recorded, case_config, record_anew, record_case, wire_config

CASE = "without-grafana"
STACK = "urn:pulumi:staging::samokoder::pulumi:pulumi:Stack::samokoder-staging"


def resource(kind: str, name: str, **more: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:staging::samokoder::samokoder:platform:Stack${kind}::{name}"
    return {"urn": urn, "type": kind, "custom": True, "id": "x", "inputs": {}, **more}


def deployment(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resources": [{"urn": STACK, "type": "pulumi:pulumi:Stack", "outputs": {"a": 1}}, *resources]}


def state_of(recorded: Recorded) -> dict[str, Any]:
    """Return the resource as a state has it."""
    return {
        "urn": recorded.urn,
        "type": recorded.type,
        "custom": not recorded.type.startswith(("samokoder:", "pulumi:pulumi:")),
        "id": "x",
        "inputs": {**recorded.inputs, "__defaults": []},
        "protect": recorded.protect,
        "dependencies": sorted(recorded.dependencies),
    }


def test_the_flat_program_declares_what_the_stack_declares(tmp_path: Path) -> None:
    ours = {(each.type, each.name): each for each in record_case(CASE).resources}
    custom = {key: each for key, each in ours.items() if state_of(each)["custom"]}
    count = flat.write_program({"resources": [state_of(each) for each in custom.values()]}, tmp_path)
    stack, values = case_config(CASE)
    declared = record_anew(stack, wire_config(values), program_file=tmp_path / "__main__.py")
    theirs = {(each.type, each.name): each for each in declared.resources if state_of(each)["custom"]}
    assert theirs.keys() == custom.keys(), "each resource, and no component"
    assert count == len(custom)
    for key, each in theirs.items():
        assert each.inputs == custom[key].inputs, f"{key}: another preview would be measured"


def test_its_state_has_its_names_and_no_component() -> None:
    volume = resource("docker:index/volume:Volume", "data")
    component = resource("samokoder:app:Api", "api", custom=False)
    container = resource(
        "docker:index/container:Container", "api", parent=component["urn"], dependencies=[volume["urn"]], aliases=["a"]
    )
    left = resource("docker:index/container:Container", "api", delete=True)
    own = {"secrets_providers": {"type": "passphrase"}, "manifest": {"version": "1"}, "resources": ["gone"]}
    written = flat.state(deployment(volume, component, container, left), "e1", own)["deployment"]
    assert written["secrets_providers"] == own["secrets_providers"], "else nobody could open its secrets"
    root, first, second = written["resources"]
    assert root["urn"] == "urn:pulumi:e1::flat::pulumi:pulumi:Stack::flat-e1"
    assert root["outputs"] == {}, "the flat program has none: they would be a change"
    assert second["urn"] == "urn:pulumi:e1::flat::docker:index/container:Container::api"
    assert second["dependencies"] == [first["urn"]]
    assert second["parent"] == root["urn"]
    assert "aliases" not in second


def test_a_resource_keeps_its_provider() -> None:
    provider = resource("pulumi:providers:docker", "engine", id="p1")
    default = resource("pulumi:providers:random", "default_4_21_4", id="p2")
    volume = resource("docker:index/volume:Volume", "data", provider=f"{provider['urn']}::p1")
    number = resource("random:index/randomId:RandomId", "data", provider=f"{default['urn']}::p2")
    made = flat.state(deployment(provider, default, volume, number), "e1", {})["deployment"]["resources"]
    assert made[3]["provider"] == "urn:pulumi:e1::flat::pulumi:providers:docker::engine::p1"
    assert made[4]["provider"] == "urn:pulumi:e1::flat::pulumi:providers:random::default_4_21_4::p2"
    assert "parent" not in made[2], "Pulumi's own providers have none"


def test_two_that_would_be_one_are_refused() -> None:
    first = resource("docker:index/volume:Volume", "data")
    second = {**first, "urn": f"{first['urn']}".replace("platform:Stack", "app:Api")}
    with pytest.raises(ValueError, match="same name"):
        flat.state(deployment(first, second), "e1", {})


def test_a_secret_stays_one(tmp_path: Path) -> None:
    marked = {SECRET_MARK: "1b47061264138c4ac30d75fd1eb44270", "plaintext": json.dumps("A=b")}
    container = resource("docker:index/container:Container", "api", inputs={"envs": [marked], "networkMode": "none"})
    flat.write_program(deployment(container), tmp_path)
    (written,) = json.loads((tmp_path / "resources.json").read_text())
    assert written["inputs"] == {"envs": [{"secret": "A=b"}], "network_mode": "none"}


def test_a_resource_of_another_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no class is known"):
        flat.write_program(deployment(resource("aws:s3/bucket:Bucket", "copies")), tmp_path)
