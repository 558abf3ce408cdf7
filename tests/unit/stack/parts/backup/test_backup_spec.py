"""What the backup server is told, what it may, and what a person is told of it before it happens."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from operations.checks.doctor.after import first_day
from stack.common import cron
from stack.common.mistakes import InvalidSettingsError
from stack.parts.backup import spec as backup
from stack.parts.postgres import roles as postgres_roles
from stack.settings.environment import Environment
from stack.spec.built_image import ROOT, base_of, built_image
from stack.spec.files import Template
from tests.recording import (
    DATABASE_PASSWORD,
    DATABASE_URL,
    DIGEST,
    IMAGE,
    REDIS_URL,
    Recording,
    case_config,
    case_environment,
    environment_of,
    merged,
    record,
    record_case,
    secret_value,
)

OFFSITE = {"endpoint": "https://s3.example.org", "bucket": "backups"}
KEYS = {name: secret_value(name) for name in ("s3AccessKeyId", "s3SecretAccessKey")}


def files_of(recording: Recording) -> dict[str, str]:
    return {u["file"].removeprefix("/files/"): u["content"] for u in recording.carriers()["backup"].inputs["uploads"]}


def told(recording: Recording) -> dict[str, Any]:
    document = json.loads(files_of(recording)["backup.json"])
    assert isinstance(document, dict)
    return document


def warned(recording: Recording) -> list[str]:
    return [message for level, message in recording.log if level == logging.WARNING]


def roles_of(environment: Environment) -> str:
    template = postgres_roles.files(environment)["roles.sql"]
    assert isinstance(template, Template)
    return template.render(*(secret_value(need) for need in template.needs))


# What it is told.


def test_the_local_servers_are_asked_as_the_roles_that_may_copy_and_nothing_else() -> None:
    document = told(record_case("staging"))
    assert document["postgres"] == {
        "host": "postgres",
        "port": 5432,
        "database": "samokoder",
        "user": "samokoder_backup",
        "sslmode": "disable",
    }
    assert document["redis"] == {"host": "redis", "port": 6379, "user": "samokoder_backup", "tls": False}
    assert (document["physical"], document["slot"], document["superuser"]) == (True, "samokoder_backup", "postgres")
    assert document["offsite"] is None
    assert document["managed"] is False, "a minute in which its clock was ahead would be missing, and nobody told"
    files = files_of(record_case("staging"))
    assert files.keys() == {"backup.json", "postgres_password", "redis_password"}
    assert files["postgres_password"] == record_case("staging").secrets["secret-postgres-backup"]


def test_a_managed_database_is_dumped_as_its_one_user_and_encrypted_on_the_way() -> None:
    document, files = told(record_case("managed")), files_of(record_case("managed"))
    assert document["postgres"] == {
        "host": "db.example.org",
        "port": 6432,
        "database": "samokoder",
        "user": "app@team",
        "sslmode": "require",
    }
    assert files["postgres_password"] == DATABASE_PASSWORD
    assert (document["physical"], document["redis"]) == (False, None)
    assert told(record_case("physical"))["physical"] is True, "where its provider allows replication"


def test_a_bucket_is_told_with_its_keys_in_files_and_a_folder_for_the_environment() -> None:
    recording = record_case("prod")
    assert told(recording)["offsite"] == {
        "endpoint": "https://s3.example.org",
        "bucket": "samokoder-backups",
        "prefix": "samokoder-prod",
        "region": "us-east-1",
        "sync_minutes": 5,
        "keep_days": 0,
    }
    files = files_of(recording)
    for file, key in (
        ("offsite_access_key_id", "s3AccessKeyId"),
        ("offsite_secret_access_key", "s3SecretAccessKey"),
        ("encryption_key", "backupEncryptionKey"),
    ):
        assert files[file] == recording.secrets[key]
    generated = record_case("physical")
    assert files_of(generated)["encryption_key"] == generated.secrets["secret-backup-encryption-key"]


def test_days_of_the_week_are_told_by_name_because_programs_count_them_from_another_day() -> None:
    assert told(record_case("staging"))["schedules"]["drill"] == "30 4 * * sun"
    assert told(record("staging", {"backup": {"drillSchedule": "30 4 * * 0,3"}}))["schedules"]["drill"] == (
        "30 4 * * sun,wed"
    )


def test_it_runs_from_its_own_image_beside_no_data_but_its_own() -> None:
    for case in ("staging", "prod", "managed"):
        container = record_case(case).containers()["backup"]
        volumes = [volume for volume in container.inputs["volumes"] if volume["containerPath"] != "/etc/samokoder"]
        prefix = record_case(case).environment.prefix
        assert volumes == [
            {"volumeName": f"{prefix}-backup-data", "containerPath": "/backups"},
            {"volumeName": f"{prefix}-drill-scratch", "containerPath": "/drill", "readOnly": True},
        ], "a backup that lies where the data lies is lost with it"
        assert container.inputs["image"].startswith("samokoder-backup-server:")


@pytest.mark.parametrize("case", ["staging", "prod", "managed"])
def test_a_drill_runs_where_no_backup_can_be_written_no_key_read_and_nobody_reached(case: str) -> None:
    recording = record_case(case)
    inputs, prefix = recording.containers()["drill"].inputs, recording.environment.prefix
    assert (inputs["networkMode"], inputs.get("networksAdvanced"), inputs.get("envs")) == ("none", None, None)
    uploads = {each["file"]: each["content"] for each in recording.carriers()["drill"].inputs["uploads"]}
    assert list(uploads) == ["/files/backup.json"], "a key or a password lies beside a PostgreSQL of an intruder's"
    document = json.loads(uploads["/files/backup.json"])
    assert not {name for name in document | document["postgres"] if "password" in name or "key" in name}
    assert [volume for volume in inputs["volumes"] if volume["containerPath"] != "/etc/samokoder"] == [
        {"volumeName": f"{prefix}-drill-scratch", "containerPath": "/drill"},
        {"volumeName": f"{prefix}-backup-data", "containerPath": "/backups", "readOnly": True},
    ]


def test_its_image_stands_on_the_servers_that_run_and_on_a_whole_base_where_one_is_configured() -> None:
    staging = case_environment("staging")
    assert backup.image(staging).arguments == {"BASE": staging.image("postgres"), "REDIS": staging.image("redis")}
    mirrored = environment_of("staging", {"images": {"postgres": f"mirror.example.org/postgres:15@{DIGEST}"}})
    assert backup.image(mirrored).arguments["BASE"] == f"mirror.example.org/postgres:15@{DIGEST}"
    whole = backup.image(environment_of("staging", {"images": {"backup": DIGEST}}))
    assert whole.arguments == {"BASE": "localhost:1/samokoder-backup-base:0123456789ab"}, (
        "FROM cannot name an id, and a name of Docker Hub is asked for there, for a minute where packets are dropped"
    )


def test_each_local_base_is_tagged_before_the_image_is_built() -> None:
    recording = record("staging", {"images": {"postgres": DIGEST, "redis": DIGEST, "python": DIGEST}})
    built = recording.one(IMAGE, "backup-server")
    arguments = built.inputs["build"]["buildArgs"]
    tags = {tag.name: tag for tag in recording.of_type("docker:index/tag:Tag")}
    assert tags.keys() == {"backup-base", "backup-redis", "reference-base"}
    for title, argument in (("backup-base", "BASE"), ("backup-redis", "REDIS")):
        assert tags[title].inputs["targetImage"] == arguments[argument]
        assert tags[title].inputs["sourceImage"] == DIGEST
        assert tags[title].urn in built.dependencies


def test_an_image_is_another_one_when_a_base_or_a_file_of_it_changes() -> None:
    first, other = (base_of(f"example:{tag}", title="base") for tag in ("1", "2"))
    names = {
        built_image("x", folder=folder, bases=bases).name
        for folder, bases in (
            ("backup_image", [first]),
            ("backup_image", [other]),
            ("backup_image", [first, other]),
            ("reference_app", [first]),
        )
    }
    assert len(names) == 4
    assert (ROOT / "backup_image" / "Dockerfile").is_file(), "the hash of nothing never changes"


# What it may.


def test_its_role_reads_all_and_owns_nothing_but_its_own_database() -> None:
    sql = roles_of(case_environment("staging"))
    (role,) = [line for line in sql.splitlines() if line.startswith("ALTER ROLE samokoder_backup NOSUPERUSER")]
    assert " NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS REPLICATION LOGIN " in role
    assert "GRANT pg_read_all_data, pg_read_all_settings, pg_read_all_stats, pg_checkpoint TO samokoder_backup;" in sql
    assert "SET lo_compat_privileges = on;\nREVOKE EXECUTE ON FUNCTION pg_catalog.lo_unlink(oid)" in sql, (
        "it reads them, no more"
    )
    assert "CREATE DATABASE samokoder_backup OWNER samokoder_backup" in sql
    granted = sql.count("GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(")
    assert granted == 2, "such a right is in each database by itself"
    assert "pg_drop_replication_slot" not in sql, "the log since the last base backup would have a gap"


@pytest.mark.parametrize(
    ("values", "login"),
    [
        ({"backup": {"enabled": False}}, "NOREPLICATION NOLOGIN PASSWORD NULL;"),
        ({"backup": {"physical": False}}, "NOREPLICATION LOGIN "),
    ],
    ids=["off", "dumps alone"],
)
def test_without_base_backups_nobody_replicates_and_no_slot_keeps_the_log(values: dict[str, Any], login: str) -> None:
    sql = roles_of(environment_of("staging", values))
    (role,) = [line for line in sql.splitlines() if line.startswith("ALTER ROLE samokoder_backup NOSUPERUSER")]
    assert login in role
    assert sql.index("NOREPLICATION NOBYPASSRLS") < sql.index("pg_drop_replication_slot"), "it would make it anew"
    assert sql.index("pg_terminate_backend(active_pid") < sql.index("pg_drop_replication_slot")


def test_without_backups_there_is_nothing_of_them() -> None:
    recording = record("staging", {"backup": {"enabled": False}})
    assert "backup" not in recording.containers()
    names = {name for name in recording.secrets if "backup" in name}
    assert names == {"secret-backup-encryption-key"}, "a password that nothing checks, or no key of the copies off-site"
    text = "\n".join(u["content"] for u in recording.carriers()["redis-users"].inputs["uploads"])
    assert "ACL SETUSER samokoder_backup reset off\n" in text, "whoever has the old password"
    assert backup.kinds(recording.environment) == {}


@pytest.mark.parametrize(
    ("values", "schedule"),
    [
        ({}, "15 3 * * *"),
        ({"managedDatabaseUrl": DATABASE_URL}, "15 */6 * * *"),
        ({"backup": {"physical": False}}, "15 */6 * * *"),
        ({"managedDatabaseUrl": DATABASE_URL, "backup": {"physical": True}}, "15 3 * * *"),
        ({"managedDatabaseUrl": DATABASE_URL, "backup": {"dumpSchedule": "30 1 * * *"}}, "30 1 * * *"),
        ({"backup": {"dumpSchedule": "0 * * * *"}}, "0 * * * *"),
    ],
    ids=["local", "managed", "local, no base backups", "managed with base backups", "managed and set", "local and set"],
)
def test_where_nothing_else_is_restored_from_a_dump_is_made_each_six_hours(
    values: dict[str, Any], schedule: str
) -> None:
    environment = environment_of("staging", values)
    assert backup.kinds(environment)["dump"] == schedule, "an alert goes by this one"
    told = backup.files(environment)["backup.json"]
    text = told if isinstance(told, str) else told.render(DATABASE_URL)
    assert json.loads(text)["schedules"]["dump"] == schedule, "a day of a managed database could be lost"
    assert schedule in "\n".join(first_day(environment))


# What a person is told.


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "on this machine alone"),
        ({"backup": {"enabled": False}}, "no backups are made"),
        ({"backup": {"physical": False}}, "of PostgreSQL there are dumps alone (15 */6 * * *, UTC)"),
        ({"managedDatabaseUrl": DATABASE_URL}, "of the managed database there are dumps alone (15 */6 * * *, UTC)"),
        ({"managedRedisUrl": REDIS_URL}, "of the managed Redis no copies"),
        ({"backup": {"offsite": OFFSITE}, **KEYS}, "`make password NAME=backup-encryption-key ENV=staging`"),
    ],
)
def test_the_preview_says_what_the_backups_do_not_save(values: dict[str, Any], said: str) -> None:
    assert [message for message in warned(record("staging", values)) if said in message]


def test_production_is_told_to_keep_its_own_key_and_not_the_one_of_staging() -> None:
    stack, values = case_config("prod")
    kept = {key: value for key, value in values.items() if not key.endswith("backupEncryptionKey")}
    (message,) = [message for message in warned(record(stack, kept)) if "off-site copies" in message]
    assert "`make password NAME=backup-encryption-key ENV=prod`" in message, "staging's key would open nothing"


def test_a_production_whose_key_is_kept_elsewhere_is_warned_of_nothing() -> None:
    assert not warned(record_case("prod"))
    (message,) = [message for message in warned(record_case("physical")) if "key" in message]
    assert "samokoder:backupEncryptionKey" in message


def test_production_without_a_bucket_is_refused_with_what_to_write() -> None:
    stack, values = case_config("prod")
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of(stack, merged(values, {"backup": {"offsite": None}}))
    (wrong,) = caught.value.mistakes
    assert (wrong.key, wrong.given) == ("samokoder:backup.offsite", "nothing")
    assert "samokoder:backup.offsite.endpoint https://" in wrong.example
    assert "samokoder:s3SecretAccessKey" in wrong.example
    environment_of(stack, merged(values, {"backup": {"enabled": False}}))


@pytest.mark.parametrize("key", KEYS)
def test_a_bucket_without_a_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of("staging", {"backup": {"offsite": OFFSITE}, **{k: v for k, v in KEYS.items() if k != key}})
    (wrong,) = caught.value.mistakes
    assert (wrong.key, wrong.given) == (f"samokoder:{key}", "nothing")
    assert "samokoder:backup.offsite" in wrong.allowed


def test_a_drill_that_comes_too_seldom_for_its_alert_is_refused() -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of("staging", {"backup": {"drillSchedule": "0 4 1 * *"}})
    (wrong,) = caught.value.mistakes
    assert wrong.key == "samokoder:alerts.restoreDrillDays"
    assert wrong.example == "samokoder:alerts.restoreDrillDays: 32.0", "it would fire each month"
    environment_of("staging", {"backup": {"drillSchedule": "0 4 1 * *"}, "alerts": {"restoreDrillDays": 32}})


# Schedules.


@pytest.mark.parametrize(
    ("text", "hours", "named"),
    [
        ("15 2 * * *", 24, "15 2 * * *"),
        ("0 * * * *", 1, "0 * * * *"),
        ("*/20 * * * *", 1 / 3, "*/20 * * * *"),
        ("0 8,20 * * *", 12, "0 8,20 * * *"),
        ("0 6-18/6 * * *", 12, "0 6-18/6 * * *"),
        ("30 4 * * 0", 168, "30 4 * * sun"),
        ("30 4 * * 7", 168, "30 4 * * sun"),
        ("30 4 * * SUN", 168, "30 4 * * sun"),
        ("0 0 * * 1-5", 72, "0 0 * * mon,tue,wed,thu,fri"),
        ("0 0 1 * *", 31 * 24, "0 0 1 * *"),
        ("0 0 29 2 *", 4 * 365.25 * 24, "0 0 29 2 *"),
    ],
)
def test_the_longest_pause_of_a_schedule_is_known(text: str, hours: float, named: str) -> None:
    schedule = cron.parse(text)
    assert schedule.longest_pause_hours == pytest.approx(hours, rel=0.001)
    assert schedule.text == named
    assert cron.parse(named) == schedule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "five fields"),
        ("15 2 * *", "here are 4"),
        ("@daily", "five fields"),
        ("60 2 * * *", "from 0 to 59 for the minute"),
        ("0 24 * * *", "the hour"),
        ("0 0 0 * *", "from 1 to 31"),
        ("0 0 * 13 *", "the month"),
        ("0 0 * * 8", "the day of the week"),
        ("0 5-3 * * *", "the hour"),
        ("5/10 * * * *", "a range before the step"),
        ("*/0 * * * *", "the minute"),
        ("x * * * *", "numbers"),
        ("0 0 1 * 1", "either a day of the month or a day of the week"),
        ("0 0 30 2 *", "a day that comes"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_one_is(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        cron.parse(text)
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of("staging", {"backup": {"baseSchedule": text}})
    (wrong,) = caught.value.mistakes
    assert wrong.key == "samokoder:backup.baseSchedule"
    assert said in wrong.allowed
    assert wrong.example == 'samokoder:backup.baseSchedule: "15 2 * * *"'
