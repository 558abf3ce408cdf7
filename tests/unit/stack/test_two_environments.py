"""Staging and production on one engine: nothing that the one has on it is the other's.

Of the committed stack files, with only what production cannot be without; a frontend in both, because its port is one
more that two could want.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from stack.common.names import PROJECT
from stack.parts.backup import spec as backup
from tests.recording import (
    CONTAINER,
    DIGEST,
    IMAGE,
    NETWORK,
    VOLUME,
    Recorded,
    Recording,
    case_config,
    committed_config,
    environment_of,
    merged,
    record,
    secret_value,
)

ENVIRONMENTS = ("staging", "prod")
FRONTEND = {"frontend": {"image": f"registry.example.org/samokoder/frontend:2.0.0@{DIGEST}"}}
TAG = "docker:index/tag:Tag"
LOOPBACK = "127.0.0.1"


def config(environment: str, **values: Any) -> dict[str, Any]:
    """The committed configuration with a frontend, and in production with what must be set."""
    _, needed = case_config(environment)
    # The ports of the committed file: a domain has 80 and 443, which one environment of a host can have.
    needed["ingress"] = committed_config(environment).get("ingress", {})
    return merged(merged(needed, FRONTEND), values)


@cache
def recorded(environment: str) -> Recording:
    return record(environment, config(environment))


def both() -> tuple[Recording, Recording]:
    staging, prod = (recorded(environment) for environment in ENVIRONMENTS)
    assert prod.environment.settings.production, "the second one is not production"
    return staging, prod


def on_engine(recording: Recording) -> list[Recorded]:
    """All that it makes on the engine. Images and their tags are no environment's: both may run the same one."""
    return [r for r in recording.resources if r.type.startswith("docker:") and r.type not in {IMAGE, TAG}]


def names(recording: Recording, type_: str) -> set[str]:
    return {str(resource.inputs["name"]) for resource in recording.of_type(type_)}


@pytest.mark.parametrize("type_", [CONTAINER, VOLUME, NETWORK])
def test_they_share_no_name(type_: str) -> None:
    staging, prod = (names(recording, type_) for recording in both())
    assert staging
    assert prod
    assert not staging & prod, f"the second `up` would end in a name that is in use, or take the other's data: {type_}"


def test_nothing_else_is_made_on_the_engine_that_could_clash() -> None:
    kinds = {resource.type for recording in both() for resource in on_engine(recording)}
    assert kinds == {CONTAINER, VOLUME, NETWORK}, "a further kind of resource is compared by no test here"


def published(recording: Recording) -> dict[int, str]:
    ports = {}
    for part, container in recording.containers().items():
        for port in container.inputs.get("ports", []):
            assert port["ip"] == LOOPBACK, f"{part} is published beyond loopback without being asked"
            ports[int(port["external"])] = part
    return ports


def test_they_publish_no_port_twice() -> None:
    staging, prod = (published(recording) for recording in both())
    shared = {port: (staging[port], prod[port]) for port in staging.keys() & prod.keys()}
    assert not shared, f"the second `up` would end in a port that is in use (Pulumi.prod.yaml): {shared}"
    assert set(staging.values()) == set(prod.values()), "a part that is published in one of them was not compared"


def test_no_network_asks_for_addresses_so_the_engine_gives_each_its_own() -> None:
    for recording in both():
        for network in recording.of_type(NETWORK):
            asked = {"ipamConfigs", "ipamOptions", "ipamDriver"} & network.inputs.keys()
            asked |= network.inputs.get("options", {}).keys() - {"com.docker.network.bridge.enable_ip_masquerade"}
            assert not asked, f"{network.inputs['name']} fixes {asked}: two networks of one subnet cannot be made"


def test_what_they_mount_is_their_own_or_cannot_be_written_to() -> None:
    mounted: list[set[str]] = []
    for recording in both():
        own = names(recording, VOLUME)
        for part, container in {**recording.containers(), **recording.carriers()}.items():
            for volume in container.inputs.get("volumes", []):
                name = volume.get("volumeName")
                assert name in own if name else volume["readOnly"], f"{part} writes to what another may write to"
        mounted.append(own)
    assert not mounted[0] & mounted[1]


def test_a_part_joins_networks_of_its_own_environment_alone() -> None:
    for recording in both():
        own = names(recording, NETWORK)
        for part, container in recording.containers().items():
            joined = {str(network["name"]) for network in container.inputs.get("networksAdvanced", ())}
            assert joined <= own, f"{part} would find the other environment's parts under their short names"


def test_behind_one_traefik_their_routers_and_services_have_names_of_their_own() -> None:
    traefik = {"kind": "traefik", "traefik": {"network": "proxy", "address": "172.30.0.2"}}
    keys: list[set[str]] = []
    for environment in ENVIRONMENTS:
        ingress = {**traefik, "domain": f"{environment}.example.org"}
        recording = record(environment, config(environment) | {"ingress": ingress})
        labels = {label["label"] for part in recording.containers().values() for label in part.inputs["labels"]}
        keys.append({label for label in labels if label.startswith("traefik.http.")})
    assert keys[0]
    assert not keys[0] & keys[1], f"Traefik would take both for one service: {keys[0] & keys[1]}"


def test_in_one_bucket_their_copies_lie_in_folders_of_their_own() -> None:
    offsite = case_config("prod")[1]["backup"]["offsite"]
    folders = set()
    for environment in ENVIRONMENTS:
        keys = {key: secret_value(key) for key in ("s3AccessKeyId", "s3SecretAccessKey")}
        described = environment_of(environment, config(environment, backup={"offsite": offsite}, **keys))
        folders.add(json.loads(str(backup.spec(described).files["backup.json"]))["offsite"]["prefix"])
    assert folders == {f"{PROJECT}-{environment}" for environment in ENVIRONMENTS}, "each would restore the other's"
