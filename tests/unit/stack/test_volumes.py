from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import unwrap

import pytest

from stack.parts.grafana import grafana_json
from stack.spec.files import content_digest
from tests.recording import (
    CASES,
    DATABASE_URL,
    GENERATED,
    REDIS_URL,
    VERSION,
    VOLUME,
    Recording,
    case_config,
    merged,
    record,
    record_anew,
    record_case,
    secret_value,
    wire_config,
)

MOUNTED_AT = {
    "caddy": "/var/tmp",  # noqa: S108 - in the container, where the image lets a non-root user write
    "postgres": "/var/lib/postgresql/data",
    "redis": "/data",
    "prometheus": "/prometheus",
    "grafana": "/var/lib/grafana",
    "alertmanager": "/alertmanager",
    "backup": "/backups",
    "logs": "/var/tmp",  # noqa: S108 - the same
}
# Name of a volume -> its part, where that is another one.
PART = {"caddy": "ingress"}
# Setting of the part -> the volume that its compose file had.
COMPOSE = {part: f"compose_{part}_data" for part in MOUNTED_AT.keys() - {"caddy", "backup", "logs"}}


def data_volumes(recording: Recording) -> dict[str, str]:
    """Name of the data volume in the program -> its name on the engine."""
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
def test_only_data_and_the_secrets_that_open_what_is_kept_are_protected(case: str) -> None:
    protected = {r.name for r in record_case(case).resources if r.protect and r.parent != "data"}
    assert protected == {f"secret-{name.replace('_', '-')}" for name in OPENS_WHAT_IS_KEPT}, (
        "what is protected cannot be replaced, so a rotation of another secret would never pass"
    )


# What was encrypted with one of these can be read with that one alone.
OPENS_WHAT_IS_KEPT = {
    *("app_secret_key", "postgres_superuser", "redis_keeper", "backup_encryption_key", "grafana_secret_key")
}
S3 = {name: secret_value(name) for name in ("s3AccessKeyId", "s3SecretAccessKey")}
OFFSITE = {"backup": {"offsite": {"endpoint": "https://s3.example.org", "bucket": "backups"}}, **S3}


@pytest.mark.parametrize(
    "later",
    [
        {},
        {"backup": {"enabled": False}},
        {"managedDatabaseUrl": DATABASE_URL, "managedRedisUrl": REDIS_URL},
        {"appSecretKey": secret_value("app", 86), "postgresSuperuserPassword": secret_value("superuser")},
        {**OFFSITE, "backupEncryptionKey": secret_value("another key")},
    ],
)
def test_no_change_of_the_settings_takes_a_secret_that_opens_what_is_kept_out_of_the_state(
    later: Mapping[str, object],
) -> None:
    def kept(config: Mapping[str, object]) -> dict[str, object]:
        recording = record("staging", config)
        return {
            f"secret-{name.replace('_', '-')}": resource.inputs
            for name in OPENS_WHAT_IS_KEPT
            for resource in recording.of_type(GENERATED)
            if resource.name == f"secret-{name.replace('_', '-')}"
        }

    before = kept(OFFSITE)
    assert len(before) == len(OPENS_WHAT_IS_KEPT)
    assert kept(later) == before, "Pulumi would delete the only copy of the key of what was made until now"


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
    containers = recording.containers()
    present = {name for name in MOUNTED_AT if PART.get(name, name) in containers}
    assert volumes.keys() == present, "a data volume without its part, or a part that loses its data"
    for name in present:
        mounts = {m.get("volumeName"): m for m in containers[PART.get(name, name)].inputs["volumes"]}
        assert mounts[volumes[name]]["containerPath"] == MOUNTED_AT[name], f"{name} is written somewhere else"
        assert not mounts[volumes[name]].get("readOnly")


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


# Volumes of files: a new one for every content.

CONTENTS = {"a.conf": "one", "b.conf": "two"}


def digest(**changed: object) -> str:
    arguments = {"salt": "salt", "image": "image:1", "contents": CONTENTS} | changed
    return content_digest(**arguments)  # type: ignore[arg-type]


def test_a_files_volume_is_a_new_one_when_anything_changes_that_makes_the_files() -> None:
    digests = {
        "as it is": digest(),
        "another content": digest(contents={"a.conf": "one", "b.conf": "2"}),
        "another path": digest(contents={"a.conf": "one", "c.conf": "two"}),
        "contents exchanged": digest(contents={"a.conf": "two", "b.conf": "one"}),
        "one file less": digest(contents={"a.conf": "one"}),
        "one file more": digest(contents=CONTENTS | {"c.conf": "three"}),
        "another image": digest(image="image:2"),
        "another salt": digest(salt="pepper"),
        "a border moved": digest(contents={"a.conf": "onet", "b.conf": "wo"}),
        "path and content exchanged": digest(contents={"one": "a.conf", "b.conf": "two"}),
        "salt and image moved": digest(salt="salti", image="mage:1"),
    }
    assert len(set(digests.values())) == len(digests), f"two different contents would be one volume: {digests}"
    assert all(re.fullmatch(r"[0-9a-f]{16}", text) for text in digests.values())


def test_a_files_volume_does_not_depend_on_the_order_of_the_files() -> None:
    assert digest(contents=dict(reversed(CONTENTS.items()))) == digest(), (
        "a sorted list in the code would replace a container"
    )


def test_two_secrets_of_the_same_length_are_two_volumes() -> None:
    first, second = (digest(contents={"password": secret_value(which)}) for which in ("one", "other"))
    assert first != second, "a rotated password would never reach its container"


def test_nothing_in_the_state_tells_of_a_secret_without_the_salt() -> None:
    guesses = {digest(salt="", contents={"password": guess}) for guess in ("hunter2", "letmein")}
    assert digest(contents={"password": "hunter2"}) not in guesses, "whoever sees the digest could try passwords on it"


@pytest.mark.parametrize("case", CASES)
def test_a_files_volume_has_a_random_name_that_changes_with_its_content(case: str) -> None:
    recording = record_case(case)
    versions = {version.name: version for version in recording.of_type(VERSION)}
    prefix = recording.environment.prefix
    for part, carrier in recording.carriers().items():
        version = versions.pop(f"{part}-files")
        assert set(version.inputs["keepers"]) == {"content"}, "another content is another name"
        assert re.fullmatch(rf"{prefix}-{part}-files-[0-9a-f]{{12}}", carrier.inputs["name"]), (
            "what an interrupted run left is found by its name"
        )
        for resource in (version, carrier, recording.one(VOLUME, f"{part}-files")):
            assert not resource.delete_before_replace, f"{resource.name}: the service would be down meanwhile"
            assert version.urn == resource.urn or version.urn in resource.dependencies
        assert not [leaf for leaf in version.leaves if leaf.secret], "a secret keeper would hide every diff"
    assert not versions


def named(recording: Recording) -> dict[str, object]:
    """Resource -> its inputs, dependencies aside: what an update would compare."""
    return {f"{r.type} {r.name}": (r.inputs, r.import_id, r.protect) for r in recording.resources}


def changed_parts(before: Recording, after: Recording) -> set[str]:
    old, new = named(before), named(after)
    return {
        key.rpartition(" ")[2].removesuffix("-files") for key in old.keys() | new.keys() if old.get(key) != new.get(key)
    }


@pytest.mark.parametrize("case", ["staging", "prod", "managed"])
def test_the_same_configuration_gives_the_same_stack(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafana_json, "to_text", unwrap(grafana_json.to_text))  # not what was written before
    stack, values = case_config(case)
    again = record_anew(stack, wire_config(values))
    assert named(again) == named(record_case(case)), "a second `up` would replace what nobody changed"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        # Grafana has to know how far apart two samples are.
        ({"prometheus": {"scrapeInterval": "30s"}}, {"prometheus", "grafana"}),
        ({"prometheus": {"retentionTime": "30d"}}, {"prometheus"}),
        ({"prometheus": {"memoryMib": 600}}, {"prometheus"}),
        ({"redis": {"maxmemoryMib": 128}}, {"redis"}),
        # The part that restores for a trial reads the same settings.
        ({"backup": {"redisCopies": 24}}, {"backup", "drill"}),
        # PostgreSQL keeps so much for it, and the logs leave it so much of their disk.
        ({"backup": {"maxSlotWalMib": 2048}}, {"backup", "drill", "postgres", "logs", "prometheus"}),
        # From where on a backup is too old follows from it.
        ({"backup": {"dumpSchedule": "0 */6 * * *"}}, {"backup", "drill", "grafana", "prometheus"}),
        ({"rotation": {"postgresBackup": 2}}, {"secret-postgres-backup", "postgres-roles", "backup"}),
        ({"rotation": {"redisBackup": 2}}, {"secret-redis-backup", "redis-users", "backup"}),
        ({"postgres": {"maxConnections": 200}}, {"postgres"}),
        # The links of the alerts lead to it.
        ({"grafana": {"port": 3999}}, {"grafana", "prometheus"}),
        ({"alerts": {"diskLowPercent": 15}}, {"grafana", "prometheus"}),
        ({"alertmanager": {"language": "ru"}}, {"alertmanager", "prometheus"}),
        ({"cadvisor": {"containerdSocket": "/run/docker/containerd/containerd.sock"}}, {"cadvisor"}),
        # The migrations run as the API will.
        ({"api": {"environment": {"LOG_LEVEL": "debug"}}}, {"migrations", "api-1", "api-2"}),
        ({"api": {"memoryMib": 400}}, {"api-1", "api-2"}),
        ({"ingress": {"maxBodyMib": 20}}, {"ingress"}),
        # An even generation is in the second slot, beside the first.
        ({"rotation": {"grafanaAdmin": 2}}, {"secret-grafana-admin-b", "grafana"}),
        ({"rotation": {"postgresExporter": 2}}, {"secret-postgres-exporter", "postgres-roles", "postgres-exporter"}),
    ],
)
def test_a_changed_setting_changes_its_own_part_only(values: dict[str, object], parts: set[str]) -> None:
    _, staging = case_config("staging")
    after = record("staging", merged(staging, values))
    assert changed_parts(record_case("staging"), after) == parts, "every further part is restarted for nothing"
