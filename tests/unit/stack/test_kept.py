"""Data volumes of parts that leave an environment, as an `up` finds them in the state."""

from __future__ import annotations

from typing import Any

import pytest

from operations.errors import ProjectError
from operations.workspace import kept
from operations.workspace.pulumi_state import VOLUME
from stack.catalogue import specs
from stack.outputs import of_kept_volumes
from tests.recording import DATABASE_URL, REDIS_URL, environment_of, record
from tests.recording import VOLUME as RECORDED

EVERY = ("alertmanager", "backup", "caddy", "grafana", "postgres", "prometheus", "redis")


def own(name: str) -> str:
    return f"samokoder-staging-{name}-data"


def state(**others: str) -> dict[str, Any]:
    """A state with the data volumes of staging. others: names on the engine of those that have another."""
    return {
        "resources": [
            {
                "type": VOLUME,
                "urn": f"urn:pulumi:staging::samokoder::Volume::data-{name}",
                "outputs": {"name": others.get(name, own(name))},
            }
            for name in EVERY
        ]
    }


def kept_in(there: dict[str, Any], **config: object) -> dict[str, str]:
    return kept.volumes(environment_of("staging", config), there, file="Pulumi.staging.yaml")


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({}, set()),
        ({"managedDatabaseUrl": DATABASE_URL}, {"postgres"}),
        ({"managedRedisUrl": REDIS_URL}, {"redis"}),
        ({"backup": {"enabled": False}}, {"backup"}),
        ({"unavailable": ["grafana"]}, {"grafana"}),
        (
            {
                "ingress": {
                    "kind": "traefik",
                    "domain": "x.example.org",
                    "traefik": {"network": "t", "address": "10.9.0.2"},
                }
            },
            {"caddy"},
        ),
    ],
)
def test_the_volume_of_a_part_that_is_switched_off_is_found(config: dict[str, object], left: set[str]) -> None:
    assert kept_in(state(), **config) == {name: own(name) for name in left}, "Pulumi would refuse to delete it"


def test_an_adopted_volume_is_kept_under_its_own_name() -> None:
    found = kept_in(state(postgres="compose_pg"), managedDatabaseUrl=DATABASE_URL)
    assert found == {"postgres": "compose_pg"}, "the way back would find an empty database"


def test_a_new_environment_has_nothing_to_keep() -> None:
    assert kept_in({}, managedDatabaseUrl=DATABASE_URL) == {}


@pytest.mark.parametrize(
    ("there", "adopt", "line"),
    [
        (own("postgres"), "somebody-elses", "remove samokoder:postgres.adoptVolume"),
        ("compose_pg", "", "write samokoder:postgres.adoptVolume: compose_pg"),
    ],
)
def test_a_part_gets_no_other_volume_than_the_one_with_its_data(there: str, adopt: str, line: str) -> None:
    with pytest.raises(ProjectError) as refused:
        kept_in(state(postgres=there), postgres={"adoptVolume": adopt})
    assert there in str(refused.value), "Pulumi says it after half of the parts have been replaced"
    assert line in str(refused.value), "what to type"


@pytest.mark.parametrize("named", [own("postgres").replace("staging", "prod"), "samokoder-staging-postgres"])
def test_a_volume_that_the_state_does_not_know_is_not_taken_over_by_a_line_of_the_file(named: str) -> None:
    with pytest.raises(ProjectError) as refused:
        kept_in(state(), managedDatabaseUrl=DATABASE_URL, keptVolumes={"postgres": named})
    assert f"samokoder:keptVolumes.postgres: {named}" in str(refused.value), (
        "`destroy-data` would remove another environment's data as one's own"
    )
    same = {"postgres": own("postgres")}
    assert kept_in(state(), managedDatabaseUrl=DATABASE_URL, keptVolumes=same) == same, "as plain Pulumi needs it"


def test_a_kept_volume_stays_declared_and_a_part_that_is_back_has_its_own() -> None:
    config = {"managedDatabaseUrl": DATABASE_URL, "keptVolumes": {"postgres": "compose_pg", "redis": "another"}}
    recording = record("staging", config)
    volumes = {each.name: each for each in recording.of_type(RECORDED) if each.parent == "data"}
    assert volumes["data-postgres"].inputs == {"name": "compose_pg"}
    assert volumes["data-postgres"].protect, "`make down` would delete it"
    assert volumes["data-redis"].inputs == {"name": own("redis")}, "what the part itself says comes first"
    assert "compose_pg" in recording.outputs["volumes"]


def test_where_the_data_of_a_part_is_that_is_switched_off_is_told() -> None:
    environment = environment_of(
        "staging", {"managedDatabaseUrl": DATABASE_URL, "keptVolumes": {"postgres": own("postgres")}}
    )
    (told,) = of_kept_volumes(environment, specs(environment))
    assert own("postgres") in told
    assert "not copied" in told, "somebody looks for his rows in the managed one"
