"""Rotations: two slots for a value, phases, the steps of the command, and what a stack file says of them."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic.alias_generators import to_camel
from typer.testing import CliRunner

from operations import __main__ as command
from operations.engine import containers
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle.up import Agree
from operations.rotation import plan, rotate, servers
from operations.rotation.grafana import change_grafana_password
from operations.rotation.rotate import Rotated
from operations.workspace import lock, pulumi_state
from operations.workspace.generations import RotationStep
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.parts.api import contract
from stack.parts.postgres import roles as postgres_roles
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from stack.settings.rotation import Phase
from stack.spec.files import SALT, Template
from stack.spec.rotation import IN_USE, SLOTTED, slots_of
from stack.spec.secrets import GENERATED as GENERATED_SECRETS
from tests.recording import (
    DATABASE_URL,
    GENERATED,
    REDIS_URL,
    ROOT,
    Recording,
    environment_of,
    record,
    record_case,
    secret_value,
)
from tests.serving import serving

sys.path.insert(0, str(ROOT / "reference_app"))  # the application is no package of this project

from samokoder.settings import Settings as ApplicationSettings

PHASES: tuple[Phase, ...] = ("prepare", "overlap", "")


def walk(generations: int = 6) -> list[RotationStep]:
    """Every state of a secret that is rotated again and again, from the first one on."""
    states = [RotationStep(generation=1, phase="")]
    while states[-1].generation < generations:
        states += plan.steps("postgres_app", states[-1].generation, states[-1].phase)
    return states


def values_of(step: RotationStep) -> tuple[tuple[str, int], set[tuple[str, int]]]:
    """The value in use and the accepted ones, each as its slot with the generation in it."""
    slots = slots_of("it", step.generation, step.phase)
    return (slots.in_use, slots.generations[slots.in_use]), {(s, slots.generations[s]) for s in slots.accepted}


# Slots and phases.


def test_whoever_uses_the_value_of_either_side_of_a_step_is_accepted_on_both() -> None:
    states = walk()
    assert len(states) > 15
    for before, after in pairwise(states):
        for used in (values_of(before)[0], values_of(after)[0]):
            for step in (before, after):
                assert used in values_of(step)[1], (
                    f"{before} -> {after}: an `up` that stops in the middle, or is taken back, would lock somebody out"
                )


def test_no_value_that_is_in_use_is_ever_replaced_in_its_slot() -> None:
    for before, after in pairwise(walk()):
        slot, generation = values_of(before)[0]
        kept = slots_of("it", after.generation, after.phase).generations
        assert kept[slot] == generation, f"{before} -> {after} makes a new value where the one in use is"


@pytest.mark.parametrize("generation", range(1, 8))
def test_at_the_end_of_a_rotation_its_own_generation_alone_is_accepted(generation: int) -> None:
    slots = slots_of("it", generation, "")
    assert slots.accepted == {slots.in_use}, "what is retired opens nothing"
    assert slots.generations[slots.in_use] == generation
    assert slots.in_use == ("it" if generation % 2 else "it_b")


def test_the_first_generation_is_what_there_was_before_there_were_slots() -> None:
    slots = slots_of("postgres_app", 1, "")
    assert (slots.in_use, dict(slots.generations)) == ("postgres_app", {"postgres_app": 1}), (
        "an existing stack would get new passwords by an update of this program"
    )
    for password in record_case("staging").of_type(GENERATED):
        assert not password.name.endswith("-b"), "a second slot is there from the second generation on"
        assert password.inputs["keepers"] == {"generation": "1"}


@cache
def at(secret: str, generation: int, phase: Phase, *, in_environment: bool = False) -> Recording:
    """Run the program once for each of them. in_environment: of an image that reads SECRET_KEY there."""
    field = to_camel(secret)
    more: dict[str, Any] = {"api": {"secretsInEnvironment": ["SECRET_KEY"]}} if in_environment else {}
    if generation > 1 or phase:  # else it is the same run for every secret
        more |= {"rotation": {field: generation}, "rotating": {field: phase}}
    return record("staging", more)


def test_both_values_stay_in_the_state_between_rotations() -> None:
    seen: dict[str, dict[tuple[int, Phase], tuple[str, str | None]]] = {secret: {} for secret in SLOTTED}
    for step in walk(3):
        # All of them at once: none has to do with another, and each run of the program is a second.
        fields = [to_camel(secret) for secret in SLOTTED]
        generations, phases = dict.fromkeys(fields, step.generation), dict.fromkeys(fields, step.phase)
        recording = record("staging", {"rotation": generations, "rotating": phases})
        made = {p.name: p.inputs["keepers"]["generation"] for p in recording.of_type(GENERATED)}
        for secret, of_secret in seen.items():
            name = f"secret-{secret.replace('_', '-')}"
            of_secret[step.generation, step.phase] = (made[name], made.get(f"{name}-b"))
    expected = {
        (1, ""): ("1", None),
        **dict.fromkeys([(2, "prepare"), (2, "overlap"), (2, "")], ("1", "2")),
        **dict.fromkeys([(3, "prepare"), (3, "overlap"), (3, "")], ("3", "2")),
    }
    assert seen == dict.fromkeys(SLOTTED, expected), "a crash must never lose the value in use"


def test_the_state_says_which_slot_is_in_use() -> None:
    leaves = {leaf.path: leaf for leaf in at("postgres_app", 2, "prepare").component_outputs}
    assert leaves[f"secret.{IN_USE}.postgres-app"].value == "postgres-app", "nobody uses the new one yet"
    leaves = {leaf.path: leaf for leaf in at("postgres_app", 2, "overlap").component_outputs}
    assert leaves[f"secret.{IN_USE}.postgres-app"].value == "postgres-app-b"


# What the parts are given.


def uploads(recording: Recording, part: str) -> dict[str, str]:
    return {u["file"].removeprefix("/files/"): u["content"] for u in recording.carriers()[part].inputs["uploads"]}


def test_the_api_logs_in_with_the_role_of_the_slot_that_is_in_use() -> None:
    for generation, phase, role in (
        (1, "", "samokoder_app:"),
        (2, "prepare", "samokoder_app:"),
        (2, "overlap", "samokoder_app_b:"),
        (2, "", "samokoder_app_b:"),
        (3, "prepare", "samokoder_app_b:"),
        (3, "overlap", "samokoder_app:"),
    ):
        recording = at("postgres_app", generation, phase)
        slot = "secret-postgres-app" + ("-b" if role == "samokoder_app_b:" else "")
        assert f"//{role}{recording.secrets[slot]}@" in uploads(recording, "api-1")["samokoder_database_url"]


def test_a_key_that_is_not_in_use_but_accepted_is_the_previous_one_to_the_application() -> None:
    for generation, phase, signs, accepted in (
        (1, "", "secret-secret-key", None),
        (2, "prepare", "secret-secret-key", "secret-secret-key-b"),
        (2, "overlap", "secret-secret-key-b", "secret-secret-key"),
        (2, "", "secret-secret-key-b", None),
    ):
        recording = at("secret_key", generation, phase)
        for part in ("api-1", "api-2", "worker"):
            files = uploads(recording, part)
            assert files["secret_key"] == recording.secrets[signs], f"{generation} {phase}"
            assert files.get("secret_key_previous") == (recording.secrets[accepted] if accepted else None)


def test_an_image_that_reads_its_key_from_the_environment_finds_the_previous_one_there_too() -> None:
    recording = at("secret_key", 2, "overlap", in_environment=True)
    variables = dict(line.split("=", 1) for line in recording.containers()["api-1"].inputs["envs"])
    assert variables["SECRET_KEY_PREVIOUS"] == recording.secrets["secret-secret-key"]
    assert "secret_key_previous" not in uploads(recording, "api-1")
    settled = at("secret_key", 2, "", in_environment=True)
    assert not any("SECRET_KEY_PREVIOUS" in line for line in settled.containers()["api-1"].inputs["envs"])


def replaced(before: Recording, after: Recording) -> set[str]:
    """Parts whose container another one takes the place of."""
    old, new = before.containers(), after.containers()
    return {part for part in old if old[part].inputs != new[part].inputs}


APPLICATION = {"migrations", "api-1", "api-2", "worker"}


@pytest.mark.parametrize(
    ("secret", "keeper", "users"),
    [
        ("postgres_app", {"postgres-roles"}, APPLICATION),
        ("redis_app", {"redis-users"}, APPLICATION),
        ("secret_key", APPLICATION, APPLICATION),
        ("grafana_admin", set(), {"grafana"}),
    ],
)
def test_each_phase_replaces_only_those_whose_turn_it_is(secret: str, keeper: set[str], users: set[str]) -> None:
    states = [at(secret, 1, ""), *(at(secret, 2, phase) for phase in PHASES)]
    steps = [replaced(before, after) for before, after in pairwise(states)]
    assert steps == [keeper, users, keeper], "no database, no Redis and nothing else restarts for a password"


def test_an_update_of_this_program_moves_redis_users_and_leaves_the_roles_alone() -> None:
    sql = uploads(record_case("staging"), "postgres-roles")["roles.sql"]
    assert re.search(r"^ALTER ROLE samokoder_app \w.* LOGIN PASSWORD 'SCRAM-SHA-256\$", sql, re.MULTILINE)
    assert re.search(r"^ALTER ROLE samokoder_app_b \w.* NOLOGIN PASSWORD NULL;$", sql, re.MULTILINE)


def sql_of(generation: int, phase: Phase) -> str:
    environment = environment_of(
        "staging", {"rotation": {"postgresApp": generation}, "rotating": {"postgresApp": phase}}
    )
    template = postgres_roles.files(environment)["roles.sql"]
    assert isinstance(template, Template)
    return template.render(*(secret_value(need) for need in template.needs))


def test_sessions_are_ended_only_when_their_login_is_retired() -> None:
    for generation, phase, retired in (
        (1, "", "samokoder_app_b"),
        (2, "prepare", None),
        (2, "overlap", None),
        (2, "", "samokoder_app"),
        (3, "", "samokoder_app_b"),
    ):
        sql = sql_of(generation, phase)  # type: ignore[arg-type]
        ended = re.findall(r"pg_terminate_backend.*\n +WHERE usename IN \('(\w+)'\)", sql)
        assert ended == ([retired] if retired else []), f"{generation} {phase}"
        assert sql.count("NOLOGIN") == len(ended), "who may not log in has no session, and the other way round"
        assert 'ALTER DATABASE "samokoder" OWNER TO samokoder_app;' in sql, "the owner stays, whoever logs in"


def test_the_keepers_change_nothing_between_prepare_and_overlap() -> None:
    assert sql_of(2, "prepare") == sql_of(2, "overlap"), "both are accepted in both"


def test_redis_gets_all_accepted_passwords_in_one_command() -> None:
    text = redis_users.users_commands(app=["one", "two"], exporter="three", backup="four", login=True)
    application, _, exporter, backup, save = text.splitlines()
    assert application.startswith(f"ACL SETUSER {redis.APP_USER} reset on ")
    assert f"#{redis.password_hash('one')} #{redis.password_hash('two')} " in application, (
        "in two commands there is a moment in which one of them is refused"
    )
    assert exporter.startswith(f"ACL SETUSER {redis.EXPORTER_USER} reset on #{redis.password_hash('three')} ")
    assert backup.startswith(f"ACL SETUSER {redis.BACKUP_USER} reset on #{redis.password_hash('four')} ")
    assert save == "ACL SAVE"
    for password in ("one", "two", "three", "four"):
        assert f" {password}" not in text
        assert f">{password}" not in text, "a password in plain text is in the server's slow log"


# Mistakes.


def mistakes(values: dict[str, Any]) -> str:
    with pytest.raises(InvalidSettingsError) as raised:
        environment_of("staging", values)
    return str(raised.value)


def test_a_phase_without_a_generation_before_is_a_mistake() -> None:
    said = mistakes({"rotating": {"postgresApp": "prepare"}})
    assert "samokoder:rotation.postgresApp" in said
    assert "2 or more" in said


def test_an_unknown_phase_is_a_mistake_that_names_the_phases() -> None:
    said = mistakes({"rotation": {"redisApp": 2}, "rotating": {"redisApp": "over"}})
    assert "'prepare'" in said
    assert "'overlap'" in said


@pytest.mark.parametrize(
    ("field", "configured"),
    [
        ("secretKey", {"secretKey": secret_value("secret_key", 86)}),
        ("postgresApp", {"managedDatabaseUrl": DATABASE_URL}),
        ("redisApp", {"managedRedisUrl": REDIS_URL}),
    ],
)
def test_what_somebody_else_issues_has_no_phase(field: str, configured: dict[str, str]) -> None:
    said = mistakes({"rotation": {field: 2}, "rotating": {field: "prepare"}, **configured})
    assert f"samokoder:rotating.{field}" in said


def test_the_previous_key_is_never_a_plain_setting() -> None:
    said = mistakes({"api": {"environment": {"SECRET_KEY_PREVIOUS": "x" * 64}}})
    assert "samokoder:api.environment.SECRET_KEY_PREVIOUS" in said
    assert "x" * 64 not in said


def test_a_configured_key_is_used_whatever_generation_there_is() -> None:
    environment = environment_of("staging", {"secretKey": secret_value("secret_key", 86), "rotation": {"secretKey": 2}})
    settings = contract.secret_settings(environment)
    assert settings["SECRET_KEY"].needs == ("secret_key",)
    assert "SECRET_KEY_PREVIOUS" not in settings


# The state.


def deployment(in_use: dict[str, str] | None, *names: str) -> dict[str, Any]:
    secrets = {"type": "samokoder:platform:Secrets", "urn": "u::secret", "outputs": {IN_USE: in_use} if in_use else {}}
    passwords = [
        {
            "type": "random:index/randomPassword:RandomPassword",
            "urn": f"u::secret-{name}",
            "outputs": {"result": {"plaintext": json.dumps(f"value of {name}")}},
        }
        for name in names
    ]
    return {"resources": [secrets, *passwords]}


def test_a_person_is_shown_the_value_in_use_by_the_secrets_own_name() -> None:
    state = deployment({"postgres-app": "postgres-app-b"}, "postgres-app", "postgres-app-b", "redis-exporter", SALT)
    shown = pulumi_state.generated_secrets(state)
    assert shown["postgres-app"] == "value of postgres-app-b"
    assert "postgres-app-b" not in shown, "which slot it is in is nobody's business"
    assert pulumi_state.secret_names(state) == ["postgres-app", "redis-exporter"]


def test_a_state_from_before_there_were_slots_is_read_as_it_is() -> None:
    state = deployment(None, "postgres-app", "grafana-admin")
    assert pulumi_state.generated_secrets(state)["postgres-app"] == "value of postgres-app"
    assert pulumi_state.secret_names(state) == ["grafana-admin", "postgres-app"]


def test_no_message_may_show_a_value_that_is_not_in_use() -> None:
    state = deployment({"postgres-app": "postgres-app"}, "postgres-app", "postgres-app-b")
    assert set(pulumi_state.every_generated_secret(state).values()) == {
        "value of postgres-app",
        "value of postgres-app-b",
    }, "the one before and the one after open something too, or did"


# Steps.


def test_a_rotation_goes_on_from_the_phase_that_is_written() -> None:
    def phases(secret: str, generation: int, phase: Phase) -> list[tuple[int, Phase]]:
        return [(step.generation, step.phase) for step in plan.steps(secret, generation, phase)]

    assert phases("redis_app", 1, "") == [(2, "prepare"), (2, "overlap"), (2, "")]
    assert phases("redis_app", 2, "prepare") == [(2, "overlap"), (2, "")], "not a second rotation"
    assert phases("redis_app", 2, "overlap") == [(2, "")]
    assert phases("redis_app", 2, "") == [(3, "prepare"), (3, "overlap"), (3, "")]
    assert phases("grafana_admin", 4, "") == [(5, "prepare"), (5, "")]
    assert phases("grafana_admin", 5, "prepare") == [(5, "")]
    assert phases("redis_exporter", 7, "") == [(8, "")]


def test_every_generated_secret_is_rotated_or_refused_with_a_reason() -> None:
    offsite = {"endpoint": "https://s3.example.org", "bucket": "backups"}
    keys = {name: secret_value(name) for name in ("s3AccessKeyId", "s3SecretAccessKey")}
    environment = environment_of("staging", {"basicAuth": "always", "backup": {"offsite": offsite}, **keys})
    rotates = {row.secret for row in plan.rows(environment) if row.rotates}
    assert rotates == {
        *("secret-key", "postgres-app", "redis-app", "grafana-admin"),
        *("postgres-exporter", "redis-exporter", "prometheus-web", "alertmanager-web", "logs-web"),
        *("postgres-backup", "redis-backup"),
    }
    assert plan.NEVER.keys() == {n for n, s in GENERATED_SECRETS.items() if not s.rotates} | {"app_secret_key"}
    for secret, why in plan.NEVER.items():
        with pytest.raises(ProjectError, match=re.escape(why)):
            plan.known_secret(environment, secret)


@pytest.mark.parametrize(
    ("secret", "values", "why"),
    [
        ("postgres-app", {"managedDatabaseUrl": DATABASE_URL}, "managed one"),
        ("redis-app", {"managedRedisUrl": REDIS_URL}, "managed one"),
        ("secret-key", {"secretKey": secret_value("secret_key", 86)}, "samokoder:secretKey"),
        ("postgres-backup", {"managedDatabaseUrl": DATABASE_URL}, "managed one"),
        ("postgres-backup", {"backup": {"enabled": False}}, "samokoder:backup"),
        ("redis-backup", {"managedRedisUrl": REDIS_URL}, "managed one"),
        ("backup-encryption-key", {}, "samokoder:backup"),
        ("prometheus-web", {}, "samokoder:basicAuth"),
        ("no-such", {}, "These can be rotated: grafana-admin, postgres-app"),
    ],
)
def test_what_this_environment_does_not_have_is_refused(secret: str, values: dict[str, Any], why: str) -> None:
    with pytest.raises(ProjectError, match=why):
        plan.known_secret(environment_of("staging", values), secret)


def test_a_secret_may_be_named_as_its_setting_is() -> None:
    environment = environment_of("staging", {})
    assert {plan.known_secret(environment, name) for name in ("SECRET_KEY", "secret-key", "secret_key")} == {
        "secret_key"
    }


def test_the_lifetime_of_a_token_is_the_applications_own() -> None:
    assert ApplicationSettings.model_fields["token_minutes"].default == rotate.DEFAULT_TOKEN_MINUTES, (
        "the old key would be retired while its tokens are good"
    )


def test_a_preview_says_that_a_rotation_is_not_over() -> None:
    said = [message for _, message in at("secret_key", 2, "overlap").log]
    assert any("make rotate SECRET=secret-key" in message for message in said), (
        "a forgotten old key stays good for ever"
    )
    assert not any("make rotate" in message for _, message in at("secret_key", 2, "").log)


def test_the_command_lists_what_can_be_rotated() -> None:
    result = CliRunner().invoke(command.app, ["rotate"])
    assert result.exit_code == 0
    for said in ("postgres-app", "secret-key", "app-secret-key", "never: "):
        assert said in result.output
    listed = json.loads(CliRunner().invoke(command.app, ["rotate", "--json"]).output)["secrets"]
    rotates = {row["secret"]: row["rotates"] for row in listed}
    assert (rotates["redis-app"], rotates["app-secret-key"]) == (True, False)


# The stack file.


COMMITTED = """\
# Staging, as we like it.
config:
  samokoder:production: true  # really
  # Why this port.
  samokoder:api:
    memoryMib: 512
    command: [uvicorn, "samokoder.main:app"]
  samokoder:telegramBotToken:
    secure: v1:abc:def
encryptionsalt: v1:salt
"""


def test_a_committed_file_keeps_everything_that_a_rotation_does_not_change() -> None:
    text = COMMITTED
    for step in plan.steps("postgres_app", 1, ""):
        text = rotate.write(text, "postgres_app", step)
        document = yaml.safe_load(text)
        said = document["config"].pop("samokoder:rotation"), document["config"].pop("samokoder:rotating", {})
        assert said == ({"postgresApp": 2}, {"postgresApp": step.phase} if step.phase else {})
        assert document == yaml.safe_load(COMMITTED)
        missing = [line for line in COMMITTED.splitlines() if line not in text.splitlines()]
        assert not missing, "a person's comments, quotes and order are theirs"


@pytest.mark.parametrize("empty", ["config: {}\n", "config:\n", "", "# nothing\nconfig: {}\n"])
def test_a_file_without_configuration_gets_it_line_by_line(empty: str) -> None:
    text = rotate.write(empty, "secret_key", RotationStep(generation=2, phase="prepare"))
    assert yaml.safe_load(text)["config"] == {
        "samokoder:rotation": {"secretKey": 2},
        "samokoder:rotating": {"secretKey": "prepare"},
    }
    assert "{" not in text, "a diff shows lines"


def test_rotations_of_several_secrets_are_written_beside_one_another() -> None:
    text = "config:\n  rotation:\n    redisApp: 4\n  rotating:\n    redisApp: overlap\n"
    text = rotate.write(text, "secret_key", RotationStep(generation=2, phase="prepare"))
    assert yaml.safe_load(text)["config"] == {
        "rotation": {"redisApp": 4, "secretKey": 2},
        "rotating": {"redisApp": "overlap", "secretKey": "prepare"},
    }, "a key may be written without its namespace, and must not be there twice"
    text = rotate.write(text, "redis_app", RotationStep(generation=4, phase=""))
    assert yaml.safe_load(text)["config"]["rotating"] == {"secretKey": "prepare"}


# The command, cut off at every point.


class Killed(BaseException):
    """A process that ends at once."""


class Stack:
    """Stands for the engine: what each `up` was given, and when the process is killed."""

    def __init__(self, folder: Path) -> None:
        (folder / "Pulumi.staging.yaml").write_text("# ours\nconfig: {}\n", encoding="utf-8")
        self.workspace = Workspace(environment="staging", stack_files=folder, home=folder / "home", isolated=True)
        self.ups: list[tuple[int, Phase]] = []
        self.generation = 1
        self.dies_at = 0
        """Number of the `up` in which the process is killed."""
        self.fails = False
        self.there: list[RotationStep] = []
        """At which step the state is, where somebody else has brought it there."""

    def up(self, workspace: Workspace, *, interactive: bool, agree: Agree | None, make_way: object = None) -> None:
        assert not make_way, "only Grafana is handed a value"
        if agree:
            agree()
        environment = workspace.settings()
        self.ups.append((environment.settings.rotation.redis_app, environment.settings.rotating.redis_app))
        self.generation = self.ups[-1][0]
        if self.fails:
            raise PulumiFailedError("`pulumi up` failed")
        if len(self.ups) == self.dies_at:
            raise Killed

    def said(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(self.workspace.committed_file.read_text(encoding="utf-8"))["config"]
        return config

    def rotate(self) -> Rotated:
        return rotate.rotate(self.workspace, "redis-app", interactive=False)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    made = Stack(tmp_path)

    class Run:
        def deployment(self) -> dict[str, Any]:
            return {}

        def secrets(self, *, every: bool) -> dict[str, str]:
            names = ("redis-app", "redis-app-b", "secret-key", "secret-key-b")
            return {name: f"value of {name}" for name in names}

    class Engine:
        def close(self) -> None:
            pass

    def login(server: Any, container: Any, environment: Environment, slot: str, password: str) -> str:
        return "in" if slot == slots_of("redis_app", made.generation, "").in_use.replace("_", "-") else "refused"

    monkeypatch.setattr(rotate, "bring_up", made.up)
    monkeypatch.setattr(rotate, "steps_in", lambda *_: made.there)
    monkeypatch.setattr(lock, "held", lambda workspace, _: nullcontext(workspace))
    for name in ("open", "open_made"):
        monkeypatch.setattr(Workspace, name, lambda _: Run())
    monkeypatch.setattr(Workspace, "client", lambda _: Engine())
    monkeypatch.setattr(containers, "find", lambda *_: None)
    monkeypatch.setattr(servers.AuthServer, "login", login)
    return made


def test_a_rotation_walks_its_phases_and_says_what_to_commit(stack: Stack) -> None:
    rotated = stack.rotate()
    said = str(rotated)
    assert rotated.as_json() == {"secret": "redis-app", "generation": 2, "phase": "", "goes_on_after": None}
    assert stack.ups == [(2, "prepare"), (2, "overlap"), (2, "")]
    assert stack.said() == {"samokoder:rotation": {"redisApp": 2}}
    assert "generation 2" in said
    assert "refuses the old one" in said
    assert "Commit Pulumi.staging.yaml" in said


def test_a_rotation_that_the_file_cannot_note_is_refused_before_its_first_step(stack: Stack) -> None:
    text = "all: &own {redisApp: 1}\nconfig:\n  samokoder:rotation: *own\n"
    stack.workspace.committed_file.write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError, match="&own"):
        stack.rotate()
    assert not stack.ups, "the stack would have a value that no file says"
    assert stack.workspace.committed_file.read_text(encoding="utf-8") == text


def test_a_rotation_asks_once_before_its_first_step_and_a_no_changes_nothing(stack: Stack) -> None:
    class NoError(Exception):
        """Somebody's no."""

    asked: list[int] = []

    def agree() -> None:
        asked.append(len(stack.ups))
        if len(asked) == 1:
            raise NoError

    with pytest.raises(NoError):
        rotate.rotate(stack.workspace, "redis-app", interactive=True, agree=agree)
    assert (stack.ups, stack.said()) == ([], {}), "its `up` would have deployed whatever else lies in the stack file"
    rotate.rotate(stack.workspace, "redis-app", interactive=True, agree=agree)
    assert asked == [0, 0], "the later steps bring nothing that was not shown"
    assert len(stack.ups) == 3


@pytest.mark.parametrize("written", [(1, ""), (2, "prepare")])
def test_grafana_is_handed_its_password_before_the_state_calls_it_in_use(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, written: tuple[int, Phase]
) -> None:
    """A person may have written the phase `prepare`, so that no rotation has handed it over."""
    did: list[tuple[str, Phase]] = []

    def phase(workspace: Workspace) -> Phase:
        return workspace.settings().settings.rotating.grafana_admin

    def up(workspace: Workspace, *, make_way: Callable[[], object] | None, **_: object) -> None:
        did.append(("checked", phase(workspace)))
        if make_way:
            make_way()
        did.append(("up", phase(workspace)))

    def handed_over(workspace: Workspace, _: str, step: RotationStep, __: str) -> None:
        assert phase(workspace) == "", "the stack file's copy is that of the `up` under way"
        did.append(("handed over", step.phase))

    monkeypatch.setattr(rotate, "bring_up", up)
    monkeypatch.setattr(rotate, "rotate_grafana", handed_over)
    monkeypatch.setattr(rotate, "_done", lambda *_: None)
    monkeypatch.setattr(rotate, "label", lambda _: "redis-app")  # a secret that this stack has
    at = RotationStep(generation=written[0], phase=written[1])
    stack.workspace.committed_file.write_text(rotate.write("config: {}\n", "grafana_admin", at), encoding="utf-8")
    rotate.rotate(stack.workspace, "grafana-admin", interactive=False)
    last: list[tuple[str, Phase]] = [("checked", ""), ("handed over", "prepare"), ("up", "")]
    assert did[-3:] == last, "an `up` that refuses, or a person's no, leaves Grafana's password as it was"
    assert did.count(last[1]) == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_rotation_that_is_killed_goes_on_and_does_not_begin_again(stack: Stack, number: int) -> None:
    stack.dies_at = number
    with pytest.raises(Killed):
        stack.rotate()
    again = len(stack.ups)
    stack.rotate()
    assert stack.ups[again] == stack.ups[again - 1], "the step that was under way is done again"
    assert stack.ups[-1] == (2, "")
    assert stack.said() == {"samokoder:rotation": {"redisApp": 2}}, "one rotation, however often it was cut off"


ALL: list[tuple[int, Phase]] = [(2, "prepare"), (2, "overlap"), (2, "")]


@pytest.mark.parametrize(
    ("written", "there", "ups"),
    [
        ((2, "prepare"), [(1, "")], ALL),
        ((2, "overlap"), [(1, "")], ALL),
        ((2, "overlap"), [(2, "prepare")], ALL[1:]),
        ((2, "prepare"), [(2, "prepare")], ALL[1:]),
        ((2, "prepare"), [(2, "overlap")], ALL[1:]),
        ((2, "overlap"), [(2, ""), (2, "overlap")], ALL[2:]),
        ((1, ""), [(2, "prepare")], ALL),
        ((2, "prepare"), [], ALL[1:]),
    ],
)
def test_a_rotation_goes_on_from_what_is_there_where_somebodys_up_has_gone_back(
    stack: Stack, written: tuple[int, Phase], there: list[tuple[int, Phase]], ups: list[tuple[int, Phase]]
) -> None:
    at = RotationStep(generation=written[0], phase=written[1])
    stack.workspace.committed_file.write_text(rotate.write("config: {}\n", "redis_app", at), encoding="utf-8")
    stack.there = [RotationStep(generation=generation, phase=phase) for generation, phase in there]
    stack.rotate()
    assert stack.ups == ups, "the step after the file's would be refused for ever, or skip the overlap"
    assert stack.said() == {"samokoder:rotation": {"redisApp": 2}}


def test_an_up_that_fails_leaves_the_file_at_what_is_complete(stack: Stack) -> None:
    stack.workspace.committed_file.write_text(
        rotate.write("config: {}\n", "redis_app", RotationStep(generation=2, phase="prepare")), encoding="utf-8"
    )
    stack.fails = True
    with pytest.raises(PulumiFailedError):
        stack.rotate()
    assert stack.said()["samokoder:rotating"] == {"redisApp": "prepare"}, "both passwords are accepted in it"


@pytest.mark.parametrize(
    ("minutes_left", "retire_now", "retires"), [(5, False, False), (5, True, True), (-1, False, True)]
)
def test_the_old_key_is_retired_when_its_tokens_have_expired(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, minutes_left: int, retire_now: bool, retires: bool
) -> None:
    until = datetime.now(UTC) + timedelta(minutes=minutes_left)
    monkeypatch.setattr(rotate, "tokens_last_until", lambda _: until)
    said = rotate.rotate(stack.workspace, "secret-key", interactive=False, retire_now=retire_now)
    phase = stack.said().get("samokoder:rotating", {}).get("secretKey", "")
    assert said.as_json()["phase"] == phase, "a program is told where it stands"
    assert said.as_json()["goes_on_after"] == (None if retires else until.isoformat())
    assert phase == ("" if retires else "overlap"), "logged-in users stay logged in"
    assert ("run this again" in str(said)) is not retires
    if not retires:
        count = len(stack.ups)
        rotate.rotate(stack.workspace, "secret-key", interactive=False)
        assert len(stack.ups) == count, "before its time there is nothing to do"
        monkeypatch.setattr(rotate, "tokens_last_until", lambda _: datetime.now(UTC))
        rotate.rotate(stack.workspace, "secret-key", interactive=False)
    assert stack.said() == {"samokoder:rotation": {"secretKey": 2}}


def test_a_stack_that_was_never_up_has_nothing_to_rotate(stack: Stack) -> None:
    with pytest.raises(ProjectError, match="has no secrets yet"):
        rotate.rotate(stack.workspace, "postgres-app", interactive=False)
    assert stack.ups == []


def test_the_rest_of_a_workspaces_own_configuration_stays(stack: Stack) -> None:
    own = replace(
        stack.workspace, extra_config={"samokoder:rotation": {"secretKey": 3}, "samokoder:api": {"cpus": 2.0}}
    )
    stepped = plan.at(own, "redis_app", RotationStep(generation=2, phase="overlap"))
    settings = stepped.settings().settings
    assert (settings.rotation.secret_key, settings.rotation.redis_app, settings.api.cpus) == (3, 2, 2.0)


# Grafana: a stand-in of two paths of its API. There is no Grafana where this project is built.


class Grafana(BaseHTTPRequestHandler):
    """`GET /api/user` and `PUT /api/user/password`, as Grafana's HTTP API documents them."""

    password = ""
    refused = 0

    def _answer(self, status: int, body: dict[str, str]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def _logged_in(self) -> bool:
        given = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        if given == f"admin:{type(self).password}":
            return True
        type(self).refused += 1
        self._answer(401, {"message": "Invalid username or password"})
        return False

    def do_GET(self) -> None:
        if self._logged_in():
            self._answer(200 if self.path == "/api/user" else 404, {"login": "admin"})

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._logged_in():
            right = self.path == "/api/user/password" and body["oldPassword"] == type(self).password
            if right:
                type(self).password = body["newPassword"]
            self._answer(200 if right else 400, {"message": "User password changed"})

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def grafana() -> Iterator[tuple[httpx.Client, type[Grafana]]]:
    handler = type("Handler", (Grafana,), {"password": "old", "refused": 0})
    with (
        serving(HTTPServer(("127.0.0.1", 0), handler)) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client,
    ):
        yield client, handler


def test_grafana_is_handed_its_new_password(grafana: tuple[httpx.Client, type[Grafana]]) -> None:
    client, server = grafana
    change_grafana_password(client, old="old", new="new", shown="make password")
    assert server.password == "new"  # noqa: S105 - a stand-in's
    change_grafana_password(client, old="old", new="new", shown="make password")
    assert server.password == "new", "a second run finds it done"  # noqa: S105
    assert server.refused <= 2, "Grafana locks a user out after five logins that fail"


def test_a_grafana_that_knows_neither_password_is_told_how_to_get_one(
    grafana: tuple[httpx.Client, type[Grafana]],
) -> None:
    client, server = grafana
    server.password = "by hand"  # noqa: S105
    with pytest.raises(ProjectError, match="grafana cli admin reset-admin-password") as raised:
        change_grafana_password(client, old="old-one", new="new-one", shown="make password")
    assert "old-one" not in str(raised.value)
    assert "new-one" not in str(raised.value)
    assert server.password == "by hand", "nothing was changed"  # noqa: S105


def test_a_grafana_that_is_not_reached_is_named_with_the_way_round(
    grafana: tuple[httpx.Client, type[Grafana]],
) -> None:
    with (
        httpx.Client(base_url="http://127.0.0.1:9", trust_env=False) as nobody,
        pytest.raises(ProjectError, match="--grafana-url"),
    ):
        change_grafana_password(nobody, old="old", new="new", shown="make password")


def test_a_new_value_that_is_refused_and_an_old_one_that_is_taken_are_errors() -> None:
    rotate.expect("redis_app", new="in", old="refused")
    with pytest.raises(ProjectError, match="refuses the new"):
        rotate.expect("redis_app", new="refused", old="refused")
    with pytest.raises(ProjectError, match="still takes the old"):
        rotate.expect("redis_app", new="in", old="in")
