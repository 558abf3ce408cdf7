"""The further secrets of the team's own images, from the stack file to the process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stack.settings.environment import Environment
from tests.described import specs
from tests.recording import DIGEST, Recording, environment_of, record, secret_value

IMAGE = f"registry.example.org/samokoder/api:1.4.2@{DIGEST}"
PEM = "-----BEGIN KEY-----\n" + secret_value("key") + "\n-----END KEY-----"


def settings(**application: Any) -> dict[str, Any]:
    own = {"image": IMAGE, **application}
    return {
        "api": own,
        "worker": own,
        "applicationSecrets": ["SMTP_PASSWORD", "GITHUB_APP_KEY"],
        "SMTP_PASSWORD": secret_value("smtp"),
        "GITHUB_APP_KEY": PEM,
    }


def files(recording: Recording, part: str) -> dict[str, str]:
    return {
        upload["file"].removeprefix("/files/"): upload["content"]
        for upload in recording.carriers()[part].inputs["uploads"]
    }


def variables(environment: Environment, part: str) -> dict[str, str]:
    return dict(next(spec for spec in specs(environment) if spec.part == part).environment)


@pytest.mark.parametrize("way", ["files", "environment"])
@pytest.mark.parametrize("part", ["api-1", "api-2", "worker", "migrations"])
def test_each_value_is_a_file_of_the_application_and_nowhere_that_the_engine_shows(part: str, way: str) -> None:
    values = settings(secretsAs=way) | {"migrations": {"command": ["alembic", "upgrade", "head"]}}
    recording = record("staging", values)
    given = files(recording, part)
    assert given["smtp_password"] == values["SMTP_PASSWORD"]
    assert given["github_app_key"] == PEM, "a key of several lines is handed on byte for byte"
    shown = json.dumps(recording.containers()[part].inputs)
    assert not [value for value in (values["SMTP_PASSWORD"], json.dumps(PEM)[1:-1]) if value in shown]


def test_who_reads_files_is_told_where_each_one_is_as_of_the_other_secrets() -> None:
    found = variables(environment_of("staging", settings()), "worker")
    assert found["SMTP_PASSWORD_FILE"] == "/run/secrets/smtp_password"  # noqa: S105 - a path
    assert found["SECRET_KEY_FILE"] == "/run/secrets/secret_key"  # noqa: S105 - a path
    assert "SMTP_PASSWORD" not in found


def test_no_other_part_gets_one() -> None:
    recording = record("staging", settings())
    parts = {part for part in recording.carriers() if "smtp_password" in files(recording, part)}
    assert parts == {"api-1", "api-2", "worker"}


def test_a_single_one_can_be_put_into_the_containers_environment_as_the_others_can_and_the_preview_warns() -> None:
    values = settings()
    values["worker"] = {**values["worker"], "secretsInEnvironment": ["SMTP_PASSWORD"]}
    recording = record("staging", values)
    assert "smtp_password" not in files(recording, "worker")
    assert f"SMTP_PASSWORD={values['SMTP_PASSWORD']}" in recording.containers()["worker"].inputs["envs"]
    said = "\n".join(message for _, message in recording.log)
    assert "samokoder:worker.secretsInEnvironment: SMTP_PASSWORD is in the environment of the container" in said


def test_another_value_replaces_the_replicas_and_the_worker_and_nothing_else() -> None:
    values = settings(secretsAs="environment")
    before, after = record("staging", values), record("staging", values | {"SMTP_PASSWORD": secret_value("new")})

    def changed(kind: str) -> set[str]:
        one, other = (getattr(each, kind)() for each in (before, after))
        assert one.keys() == other.keys()
        return {part for part in one if one[part].inputs != other[part].inputs}

    assert changed("containers") == {"api-1", "api-2", "worker"}, "a deploy replaces one after the other"
    assert changed("carriers") == {"api-1", "api-2", "worker"}


def test_an_environment_without_such_secrets_has_the_files_that_it_had() -> None:
    given = files(record("staging", {"api": {"image": IMAGE}, "worker": {"image": IMAGE}}), "api-1")
    assert given.keys() == {"secret_key", "app_secret_key", "samokoder_database_url", "redis_password"}
