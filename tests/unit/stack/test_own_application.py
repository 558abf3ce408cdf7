"""What a team's own image gets by settings that was not made for this platform."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml

from operations.checks.image.exposure import not_exposed
from stack.common.mistakes import InvalidSettingsError
from stack.common.names import APPLICATION_USER
from stack.common.secret_rules import fernet_key, is_fernet_key
from stack.outputs import warnings
from stack.parts.api import contract
from stack.parts.ingress.caddyfile import caddyfile
from stack.parts.ingress.traefik import traefik_labels
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec
from tests.described import specs
from tests.recording import DIGEST, ROOT, environment_of, record, secret_value

IMAGE = f"registry.example.org/samokoder/api:1.4.2@{DIGEST}"
FERNET = fernet_key(secret_value("fernet"))


def own(**values: Any) -> Environment:
    """An environment whose API and worker are the team's own image."""
    application = {"image": IMAGE, **values.pop("application", {})}
    return environment_of("staging", {"api": application, "worker": application, **values})


def described(environment: Environment, part: str) -> ServiceSpec:
    return next(spec for spec in specs(environment) if spec.part == part)


def mistaken(**values: Any) -> str:
    with pytest.raises(InvalidSettingsError) as caught:
        own(**values)
    return str(caught.value)


# Secrets as environment of the process.


@pytest.mark.parametrize("part", ["api-1", "api-2", "worker", "migrations"])
def test_an_image_that_reads_its_environment_gets_its_secrets_there_and_the_engine_does_not(part: str) -> None:
    values = {"application": {"secretsAs": "environment"}, "migrations": {"command": ["alembic", "upgrade", "head"]}}
    environment = own(**values)
    spec = described(environment, part)
    assert spec.entrypoint[:2] == ("python", "-I"), "what reads the files comes before the image's own command"
    assert not spec.secret_environment, "docker inspect shows what is in there"
    assert not [name for name in spec.environment if name.endswith("_FILE")], "it reads no file"
    application = {"image": IMAGE, "secretsAs": "environment"}
    recording = record("staging", {"api": application, "worker": application, "migrations": values["migrations"]})
    shown = json.dumps(recording.containers()[part].inputs)
    assert not [name for name, value in recording.secrets.items() if value in shown]


def test_the_start_hands_each_file_on_byte_for_byte_and_becomes_the_command(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_bytes(b"a'\"$`\\ \n\xff")
    application = own(application={"secretsAs": "environment"}).settings.api
    child = "import os, sys; print(os.getpid()); sys.stdout.flush(); os.write(1, os.environb[b'SECRET_KEY'])"
    program, *flags, script = contract.started(application)
    words = [sys.executable, *flags, script.replace(contract.SECRETS, str(tmp_path)), sys.executable, "-c", child]
    assert program == "python"
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}) as process:
        out, _ = process.communicate()
    assert out == f"{process.pid}\n".encode() + b"a'\"$`\\ \n\xff", "SIGTERM must reach the command itself"


def test_the_workers_own_health_check_has_the_secrets_too() -> None:
    environment = environment_of(
        "staging",
        {"worker": {"image": IMAGE, "secretsAs": "environment", "command": ["arq", "app.W"], "metricsPort": None}},
    )
    command = described(environment, "worker").health_command
    assert command[-3:] == ("arq", "--check", "app.W"), "its own command says which worker it is"
    assert command[0] == "python", "it imports the settings of the image, which would end without its secrets"


def test_both_ways_into_the_environment_at_once_are_refused() -> None:
    said = mistaken(application={"secretsAs": "environment", "secretsInEnvironment": ["SECRET_KEY"]})
    assert "samokoder:api.secretsInEnvironment" in said


# Folders that are written to.


def test_home_and_the_named_folders_can_be_written_to_by_its_user_alone() -> None:
    spec = described(own(application={"writablePaths": ["/app/config"], "tmpMib": 64}), "api-1")
    assert spec.environment["HOME"] == "/tmp"  # noqa: S108 - in the container
    assert spec.tmpfs["/app/config"] == "rw,noexec,nosuid,nodev,size=64m,uid=10001,gid=10001,mode=0700"
    assert spec.tmpfs["/tmp"].endswith("size=64m")  # noqa: S108 - as above


def test_the_frontends_image_may_write_where_nginx_does_and_listen_where_it_does() -> None:
    values = {"image": IMAGE, "containerPort": 80, "user": "101:101", "writablePaths": ["/var/cache/nginx", "/var/run"]}
    spec = described(own(frontend=values), "frontend")
    folder = "rw,noexec,nosuid,nodev,size=16m,uid=101,gid=101,mode=0700"
    assert spec.tmpfs == {"/tmp": "rw,noexec,nosuid,nodev,size=16m", "/var/cache/nginx": folder, "/var/run": folder}  # noqa: S108
    assert "http://127.0.0.1:80/" in spec.health_command


@pytest.mark.parametrize("path", ["app", "/", "/run/secrets", "/etc/x", "/a/../etc", "/a//b", "/a/./b", "/a b"])
def test_a_folder_of_the_system_or_none_is_refused(path: str) -> None:
    assert "samokoder:api.writablePaths" in mistaken(application={"writablePaths": [path]})
    assert "samokoder:workspace.path" in mistaken(workspace={"path": path})


@pytest.mark.parametrize("path", ["/app", "/app/workspace", "/app/workspace/cache"])
def test_a_folder_in_memory_hides_no_file_of_the_workspace(path: str) -> None:
    assert "samokoder:api.writablePaths" in mistaken(
        application={"writablePaths": [path]}, workspace={"path": "/app/workspace"}
    )


def test_the_workspace_is_one_volume_of_api_and_worker_and_one_part_reads_it() -> None:
    environment = own(workspace={"path": "/app/workspace"}, migrations={"command": ["alembic", "upgrade", "head"]})
    found = {spec.part: spec.data for spec in specs(environment) if spec.data and spec.data.name == "workspace"}
    assert found.keys() == {"workspace", "migrations", "api-1", "api-2", "worker"}
    assert described(environment, "workspace").user == APPLICATION_USER, "nobody else may read what it writes"
    for part in ("api-1", "worker", "migrations"):
        assert "workspace" in described(environment, part).after, "an empty volume becomes their image's user's"
    assert not [spec for spec in specs(own()) if spec.part == "workspace"], "a part that nobody asked for"


# Redis without a login.


def test_who_has_no_login_gets_the_applications_rights_only_where_that_is_asked_for() -> None:
    def line(login: bool) -> str:
        said = redis_users.users_commands(app=["a"], exporter="e", backup="", login=login)
        (found,) = [each for each in said.splitlines() if each.startswith("ACL SETUSER default")]
        return found

    assert line(login=True) == "ACL SETUSER default off resetpass", (
        "with its rights of the start given again, a connection that was let in before would have all of them"
    )
    assert line(login=False) == ("ACL SETUSER default reset on nopass ~* &* +@all -@admin -@dangerous +info +keys"), (
        "one command: nobody is let in with all rights"
    )
    said = [each for each in warnings(own(redis={"login": "none"})) if "samokoder:redis.login" in each]
    assert len(said) == 1
    assert not [each for each in warnings(own()) if "samokoder:redis.login" in each]


# Fernet.


def test_a_fernet_key_is_made_of_the_generated_secret_and_one_that_is_configured_stays() -> None:
    key = fernet_key(secret_value("app_secret_key", 86))
    assert len(urlsafe_b64decode(key)) == 32
    assert is_fernet_key(key)
    assert fernet_key(key) == key
    recording = record("staging", {"appSecretKeyForm": "fernet"})
    (text,) = [
        each["content"]
        for each in recording.carriers()["api-1"].inputs["uploads"]
        if each["file"].endswith("/app_secret_key")
    ]
    assert text == fernet_key(recording.secrets["secret-app-secret-key"])


def test_a_fernet_key_of_an_existing_installation_is_accepted_and_a_guessable_one_is_not() -> None:
    assert own(appSecretKey=FERNET, appSecretKeyForm="fernet")
    assert own(appSecretKey=FERNET)
    assert own(appSecretKey=FERNET[:-2] + "B="), "Fernet takes it, so what is stored may be encrypted under it"
    for value in ("A" * 43 + "=", secret_value("short", 20)):
        assert "samokoder:appSecretKey" in mistaken(appSecretKey=value)
    for value in (secret_value("long", 86), FERNET[:-1], secret_value("short", 44)):
        assert "no Fernet key" in mistaken(appSecretKey=value, appSecretKeyForm="fernet")


# The ingress.


def test_behind_a_prefix_the_apis_paths_lose_it_and_its_metrics_stay_hidden() -> None:
    environment = own(ingress={"stripPrefix": "/api"}, frontend={"image": IMAGE})
    text = caddyfile(environment)
    assert text.count("uri strip_prefix /api") == 2, "from outside, and for the frontend's own requests"
    assert text.count("error 404") == 3, "once without the prefix"
    labels = traefik_labels(
        environment_of(
            "staging",
            {
                "ingress": {
                    "stripPrefix": "/api",
                    "kind": "traefik",
                    "domain": "a.example.org",
                    "traefik": {"network": "web", "address": "172.30.0.2"},
                }
            },
        ),
        "api",
        8000,
    )
    rule = labels["traefik.http.routers.samokoder-staging-api.rule"]
    (hidden,) = re.findall(r"!PathRegexp\(`([^`]+)`\)", rule)
    assert re.search(hidden, "/api/metrics"), "the world sees them behind the prefix"
    assert labels["traefik.http.middlewares.samokoder-staging-api-strip.stripprefix.prefixes"] == "/api"
    assert "strip" in labels["traefik.http.routers.samokoder-staging-api-prefixed.middlewares"]


# What is said of it.


def test_an_own_image_without_a_command_is_told_what_starts_it_and_who_knows_its_own() -> None:
    said = "\n".join(warnings(own()))
    assert "samokoder:api.command is not set" in said
    assert "check-image" in said
    assert "samokoder:api.command" not in "\n".join(warnings(own(application={"command": ["x"]})))


def test_a_worker_of_another_program_without_metrics_is_told_to_name_its_health_command() -> None:
    worker = {"image": IMAGE, "command": ["celery", "worker"], "metricsPort": None}
    said = "\n".join(warnings(environment_of("staging", {"worker": worker})))
    assert "samokoder:worker.healthCommand is not set" in said
    known = {**worker, "command": ["/app/.venv/bin/arq", "app.W"]}
    environment = environment_of("staging", {"worker": known})
    assert "healthCommand" not in "\n".join(warnings(environment))
    assert described(environment, "worker").health_command == ("/app/.venv/bin/arq", "--check", "app.W")


def test_uvicorn_believes_the_ingress_by_the_name_that_it_knows() -> None:
    variables = described(own(), "api-1").environment
    assert variables["FORWARDED_ALLOW_IPS"] == "*", "else five logins a minute are for all users together"
    assert "TRUSTED_PROXIES" in variables


def test_what_is_not_exposed_is_said_with_the_alerts_that_are_mute() -> None:
    said = not_exposed(own(), ["samokoder_auth_attempts_total"])
    assert said == "not exposed: samokoder_auth_attempts_total; mute without them: AuthenticationFailureSpike"


def test_the_settings_that_the_page_gives_for_the_original_are_read_and_say_what_they_weaken() -> None:
    page = (ROOT / "docs" / "migrating-from-compose.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(config:.*?)```", page, re.DOTALL)
    config = yaml.safe_load(block.replace("sha256:…", DIGEST))["config"]
    values = {f"samokoder:{name}": secret_value(name) for name in config["samokoder:applicationSecrets"]}
    said = "\n".join(warnings(environment_of("staging", config | values)))
    assert "samokoder:redis.login" in said
    assert "samokoder:api.command" not in said
    assert "healthCommand" not in said, "arq's own check is found by the worker's command"
