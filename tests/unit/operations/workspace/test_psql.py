"""How a person asks the database."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from operations.clone import ROOT
from operations.errors import ProjectError
from operations.workspace.psql import psql_command, psql_command_of_state
from stack.settings.environment import Environment
from stack.settings.rotation import Rotating, Rotation
from tests.recording import DATABASE_URL, REDIS_URL, case_environment, environment_of, wire_config

READ_ONLY = "PGOPTIONS=-c default_transaction_read_only=on"


def role(words: list[str]) -> str:
    return next(word for word in words if word.startswith("--username=")).removeprefix("--username=")


def test_a_person_asks_as_the_application_and_changes_nothing_unless_that_is_said() -> None:
    environment = case_environment("staging")
    asked = psql_command(environment, "SELECT 1")
    assert role(asked) == "samokoder_app"
    assert asked[:2] == ["env", READ_ONLY]
    assert asked[-1] == "--command=SELECT 1"
    assert READ_ONLY not in psql_command(environment, "SELECT 1", write=True)
    watching = psql_command(environment, "SELECT 1", monitoring=True)
    assert (role(watching), READ_ONLY in watching) == ("samokoder_monitoring", True)
    assert not [word for word in psql_command(environment) if word.startswith("--command")], "a session is open"


def test_after_a_rotation_it_is_the_role_that_may_log_in() -> None:
    environment: Environment = case_environment("staging")
    changed = {"rotation": Rotation(postgres_app=2), "rotating": Rotating()}
    rotated = environment.model_copy(update={"settings": environment.settings.model_copy(update=changed)})
    assert role(psql_command(rotated, "SELECT 1")) == "samokoder_app_b"


def test_a_managed_database_is_asked_where_it_is() -> None:
    managed = environment_of("staging", wire_config({"managedDatabaseUrl": DATABASE_URL, "managedRedisUrl": REDIS_URL}))
    with pytest.raises(ProjectError, match="is managed"):
        psql_command(managed, "SELECT 1")


def test_no_page_tells_to_ask_as_the_superuser() -> None:
    for page in ROOT.glob("docs/**/*.md"):
        told = re.findall(r"(?:psql|pg_restore) (?:-U|--username=?) ?postgres\b", page.read_text(encoding="utf-8"))
        assert not told, f"{page.name}: what the application planted would run with the superuser's rights"


def test_with_a_broken_stack_file_the_state_says_who_may_log_in_and_the_container_where() -> None:
    container: Any = SimpleNamespace(attrs={"Config": {"Env": ["POSTGRES_USER=postgres", "POSTGRES_DB=shop"]}})

    def state(**slots: str) -> dict[str, Any]:
        return {"resources": [{"type": "samokoder:platform:Secrets", "urn": "urn", "outputs": {"inUse": slots}}]}

    asked = psql_command_of_state(state(**{"postgres-app": "postgres-app-b"}), container, "SELECT 1")
    assert role(asked) == "samokoder_app_b", "the first role cannot log in any more"
    assert "--dbname=shop" in asked
    assert asked[:2] == ["env", READ_ONLY], "read-only then too"
    assert role(psql_command_of_state({}, container, "SELECT 1")) == "samokoder_app", "a state from before the slots"
    assert role(psql_command_of_state({}, container, "SELECT 1", monitoring=True)) == "samokoder_monitoring"
