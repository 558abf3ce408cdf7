from __future__ import annotations

import re

import pytest

from stack.config_files import content_name
from tests.recording import CASES, GENERATED, VOLUME, Recording, case_config, merged, record, record_case, secret_value

MOUNTED_AT = {
    "postgres": "/var/lib/postgresql/data",
    "redis": "/data",
    "prometheus": "/prometheus",
    "grafana": "/var/lib/grafana",
    "alertmanager": "/alertmanager",
}
# Setting of the part -> the volume that its compose file had.
COMPOSE = {part: f"compose_{part}_data" for part in MOUNTED_AT}


def data_volumes(recording: Recording) -> dict[str, str]:
    """Name of the part -> name of its data volume on the engine."""
    return {v.name.removeprefix("data-"): v.inputs["name"] for v in recording.of_type(VOLUME) if v.parent == "data"}


@pytest.mark.parametrize("case", CASES)
def test_data_is_protected_everywhere_and_in_production_kept_even_without_the_program(case: str) -> None:
    recording = record_case(case)
    volumes = [volume for volume in recording.of_type(VOLUME) if volume.parent == "data"]
    assert volumes, "nothing keeps any data"
    for volume in volumes:
        assert volume.protect, f"{volume.name}: one wrong name in a commit would delete the data"
        assert volume.retain_on_delete is recording.environment.settings.production, volume.name
        assert volume.ignore_changes == {"labels", "driver", "driverOpts"}, (
            "compose labels its volumes; to take a label away, the provider replaces the volume by an empty one"
        )


@pytest.mark.parametrize("case", CASES)
def test_nothing_but_data_is_protected(case: str) -> None:
    protected = {r.name for r in record_case(case).resources if r.protect and r.parent != "data"}
    assert not protected, f"what is protected cannot be replaced, so no update would ever pass: {protected}"


@pytest.mark.parametrize("case", CASES)
def test_a_data_volume_has_a_name_of_its_own_and_nothing_that_may_change(case: str) -> None:
    recording = record_case(case)
    for volume in recording.of_type(VOLUME):
        assert set(volume.inputs) == {"name"}, "any change of a volume replaces it: no label, no driver option"
    prefix = recording.environment.prefix
    assert data_volumes(recording) == {part: f"{prefix}-{part}-data" for part in data_volumes(recording)}


@pytest.mark.parametrize("case", CASES)
def test_each_part_with_data_mounts_its_volume_where_its_image_keeps_data(case: str) -> None:
    recording = record_case(case)
    volumes = data_volumes(recording)
    present = MOUNTED_AT.keys() & recording.containers().keys()
    assert volumes.keys() == present, "a data volume without its part, or a part that loses its data"
    for part in present:
        mounts = {m.get("volumeName"): m for m in recording.containers()[part].inputs["volumes"]}
        assert mounts[volumes[part]]["containerPath"] == MOUNTED_AT[part], f"{part} writes somewhere else"
        assert not mounts[volumes[part]].get("readOnly")


@pytest.mark.parametrize("case", CASES)
def test_data_depends_on_the_secrets_that_open_it(case: str) -> None:
    recording = record_case(case)
    secrets = {secret.urn for secret in recording.of_type(GENERATED)}
    for volume in recording.of_type(VOLUME):
        if volume.parent == "data":
            assert secrets <= volume.dependencies, (
                "`pulumi destroy --exclude-protected` keeps what protected data depends on; a database without its "
                "password is lost all the same"
            )


def test_existing_volumes_are_taken_over_under_their_own_names_and_no_others() -> None:
    adopted = {part: volume for part, volume in COMPOSE.items() if part != "redis"}
    recording = record("staging", {part: {"adoptVolume": volume} for part, volume in adopted.items()})
    for part, name in adopted.items():
        volume = recording.one(VOLUME, f"data-{part}")
        assert volume.import_id == name, "without an import, Pulumi would say it made what was there"
        assert volume.inputs["name"] == name
        assert volume.protect
        mounts = {m.get("volumeName") for m in recording.containers()[part].inputs["volumes"]}
        assert name in mounts, f"{part} would start with nothing"
        assert name in recording.outputs["volumes"]
    fresh = recording.one(VOLUME, "data-redis")
    assert not fresh.import_id
    assert fresh.inputs["name"] == "samokoder-staging-redis-data"


@pytest.mark.parametrize("case", CASES)
def test_the_outputs_name_every_data_volume(case: str) -> None:
    recording = record_case(case)
    assert recording.outputs["volumes"] == sorted(data_volumes(recording).values()), "destroy-data asks by this list"


# Volumes of files: named by what is in them.

CONTENTS = {"a.conf": "one", "b.conf": "two"}


def name(**changed: object) -> str:
    arguments = {"prefix": "samokoder-staging-part", "salt": "salt", "image": "image:1", "contents": CONTENTS} | changed
    return content_name(**arguments)  # type: ignore[arg-type]


def test_the_name_of_a_files_volume_changes_with_all_that_makes_the_files() -> None:
    names = {
        "as it is": name(),
        "another content": name(contents={"a.conf": "one", "b.conf": "2"}),
        "another path": name(contents={"a.conf": "one", "c.conf": "two"}),
        "contents exchanged": name(contents={"a.conf": "two", "b.conf": "one"}),
        "one file less": name(contents={"a.conf": "one"}),
        "one file more": name(contents=CONTENTS | {"c.conf": "three"}),
        "another image": name(image="image:2"),
        "another salt": name(salt="pepper"),
        "a border moved": name(contents={"a.conf": "onet", "b.conf": "wo"}),
        "path and content exchanged": name(contents={"one": "a.conf", "b.conf": "two"}),
        "salt and image moved": name(salt="salti", image="mage:1"),
    }
    assert len(set(names.values())) == len(names), f"two different volumes would have one name: {names}"
    assert all(re.fullmatch(r"samokoder-staging-part-files-[0-9a-f]{12}", text) for text in names.values())


def test_the_name_of_a_files_volume_does_not_depend_on_the_order_of_the_files() -> None:
    assert name(contents=dict(reversed(CONTENTS.items()))) == name(), (
        "a sorted list in the code would replace a container"
    )


def test_two_secrets_of_the_same_length_are_two_names() -> None:
    first, second = (name(contents={"password": secret_value(which)}) for which in ("one", "other"))
    assert first != second, "a rotated password would never reach its container"


def test_the_name_tells_nothing_of_a_secret_without_the_salt() -> None:
    guesses = {name(salt="", contents={"password": guess}) for guess in ("hunter2", "letmein")}
    assert name(contents={"password": "hunter2"}) not in guesses, "whoever sees the name could try passwords on it"


def named(recording: Recording) -> dict[str, object]:
    """Resource -> its inputs, dependencies aside: what an update would compare."""
    return {f"{r.type} {r.name}": (r.inputs, r.import_id, r.protect) for r in recording.resources}


def changed_parts(before: Recording, after: Recording) -> set[str]:
    old, new = named(before), named(after)
    return {
        key.rpartition(" ")[2].removesuffix("-files") for key in old.keys() | new.keys() if old.get(key) != new.get(key)
    }


@pytest.mark.parametrize("case", ["staging", "prod", "managed"])
def test_the_same_configuration_gives_the_same_stack(case: str) -> None:
    again = record(*case_config(case))
    assert named(again) == named(record_case(case)), "a second `up` would replace what nobody changed"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        # Grafana has to know how far apart two samples are.
        ({"prometheus": {"scrapeInterval": "30s"}}, {"prometheus", "grafana"}),
        ({"prometheus": {"retentionTime": "30d"}}, {"prometheus"}),
        ({"prometheus": {"memoryMib": 600}}, {"prometheus"}),
        ({"redis": {"maxmemoryMib": 128}}, {"redis"}),
        ({"postgres": {"maxConnections": 200}}, {"postgres"}),
        # The links of the alerts lead to it.
        ({"grafana": {"port": 3999}}, {"grafana", "prometheus"}),
        ({"alerts": {"diskLowPercent": 15}}, {"grafana", "prometheus"}),
        ({"alertmanager": {"language": "ru"}}, {"alertmanager", "prometheus"}),
        ({"cadvisor": {"containerdSocket": "/run/docker/containerd/containerd.sock"}}, {"cadvisor"}),
        ({"api": {"environment": {"LOG_LEVEL": "debug"}}}, {"api"}),
        ({"rotation": {"redisApp": 2}}, {"secret-redis-app", "redis", "api", "worker"}),
        ({"rotation": {"grafanaAdmin": 2}}, {"secret-grafana-admin", "grafana"}),
        ({"rotation": {"postgresExporter": 2}}, {"secret-postgres-exporter", "postgres-roles", "postgres-exporter"}),
    ],
)
def test_a_changed_setting_changes_its_own_part_only(values: dict[str, object], parts: set[str]) -> None:
    _, staging = case_config("staging")
    after = record("staging", merged(staging, values))
    assert changed_parts(record_case("staging"), after) == parts, "every further part is restarted for nothing"
