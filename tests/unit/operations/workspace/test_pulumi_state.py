"""What Pulumi's own files tell of a run that was cut off."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from operations.workspace import pulumi_state

PROC_NAME = "comm"


def _lock(backend: Path, process: int, host: str | None = None) -> None:
    folder = backend / ".pulumi/locks/organization/samokoder/staging"
    folder.mkdir(parents=True, exist_ok=True)
    note = {
        "pid": process,
        "username": "x",
        "hostname": host or socket.gethostname(),
        "timestamp": "2026-01-01T00:00:00Z",
    }
    (folder / f"{process}.json").write_text(json.dumps(note), encoding="utf-8")
    # Pulumi lays a file of attributes beside each; it is no lock.
    (folder / f"{process}.json.attrs").write_text("{}", encoding="utf-8")


def _proc(folder: Path, process: int, name: str) -> Path:
    (folder / str(process)).mkdir(parents=True)
    (folder / str(process) / PROC_NAME).write_text(f"{name}\n", encoding="utf-8")
    return folder


def test_a_lock_whose_process_is_gone_is_stale(tmp_path: Path) -> None:
    _lock(tmp_path, 4711)
    (tmp_path / "proc").mkdir()

    [lock] = pulumi_state.locks(tmp_path, "staging")

    assert lock.is_stale(tmp_path / "proc"), "nobody will ever release it"


def test_a_lock_of_a_running_pulumi_is_not_stale(tmp_path: Path) -> None:
    _lock(tmp_path, 4711)

    [lock] = pulumi_state.locks(tmp_path, "staging")

    assert not lock.is_stale(_proc(tmp_path / "proc", 4711, "pulumi")), "releasing it would let two updates run at once"


def test_a_lock_whose_process_number_has_another_program_is_stale(tmp_path: Path) -> None:
    _lock(tmp_path, os.getpid())

    [lock] = pulumi_state.locks(tmp_path, "staging")

    assert lock.is_stale(), "this process is no Pulumi: the number was given away again"


def test_a_lock_from_another_host_is_never_stale_here(tmp_path: Path) -> None:
    _lock(tmp_path, 4711, host="elsewhere.example.org")
    (tmp_path / "proc").mkdir()

    [lock] = pulumi_state.locks(tmp_path, "staging")

    assert not lock.is_here, "it names its host"
    assert not lock.is_stale(tmp_path / "proc"), "whether that process lives cannot be seen from here"


def test_a_half_written_lock_is_stale(tmp_path: Path) -> None:
    _lock(tmp_path, 4711)
    folder = tmp_path / ".pulumi/locks/organization/samokoder/staging"
    (folder / "4711.json").write_text('{"pid": 47', encoding="utf-8")

    [lock] = pulumi_state.locks(tmp_path, "staging")

    assert lock.is_stale(), "Pulumi was cut off while it wrote it"


def test_there_are_no_locks_where_no_update_ever_ran(tmp_path: Path) -> None:
    assert pulumi_state.locks(tmp_path, "staging") == [], "a new backend has no such folder yet"


def _state(tmp_path: Path, latest: dict[str, Any] | None) -> None:
    folder = tmp_path / ".pulumi/stacks/samokoder"
    folder.mkdir(parents=True)
    checkpoint = {"version": 3, "checkpoint": {"stack": "staging", **({"latest": latest} if latest else {})}}
    (folder / "staging.json").write_text(json.dumps(checkpoint), encoding="utf-8")


def test_a_stack_that_was_never_made_is_told_from_an_empty_one(tmp_path: Path) -> None:
    assert pulumi_state.checkpoint(tmp_path, "staging") is None, "it must be made first"

    _state(tmp_path, None)

    assert pulumi_state.checkpoint(tmp_path, "staging") == {}, "it is there and has nothing in it yet"


def test_pending_operations_are_an_interruption(tmp_path: Path) -> None:
    _state(tmp_path, {"resources": [], "pending_operations": [{"type": "creating"}]})

    assert pulumi_state.was_interrupted(pulumi_state.checkpoint(tmp_path, "staging") or {}), (
        "the engine may have a container that Pulumi knows nothing of"
    )


def test_a_finished_run_is_no_interruption(tmp_path: Path) -> None:
    _state(tmp_path, {"resources": []})

    assert not pulumi_state.was_interrupted(pulumi_state.checkpoint(tmp_path, "staging") or {}), (
        "every run would otherwise ask the engine about everything"
    )


RESOURCES: dict[str, Any] = {
    "secrets_providers": {"type": "passphrase", "state": {"salt": "v1:salt"}},
    "resources": [
        {"type": "docker:index/container:Container", "urn": "u::api", "id": "c1", "outputs": {"name": "api"}},
        {"type": "docker:index/network:Network", "urn": "u::network-app", "id": "n1", "outputs": {}},
        {
            "type": "docker:index/volume:Volume",
            "urn": "u::data-redis",
            "id": "samokoder-staging-redis-data",
            "protect": True,
            "outputs": {"name": "samokoder-staging-redis-data"},
        },
        {"type": "docker:index/volume:Volume", "urn": "u::redis-files", "id": "f", "outputs": {"name": "f"}},
        {
            "type": "random:index/randomPassword:RandomPassword",
            "urn": "u::secret-grafana-admin",
            "id": "none",
            "outputs": {"result": {"plaintext": '"pass\\"word"'}},
        },
        {"type": "random:index/randomPassword:RandomPassword", "urn": "u::other", "id": "none", "outputs": {}},
    ],
}


def test_the_ids_of_containers_and_networks_are_what_pulumi_knows() -> None:
    assert pulumi_state.known_ids(RESOURCES) == {"c1", "n1"}, "what is not among them was left by an interrupted run"


def test_the_volumes_with_data_are_known_by_their_resources_names() -> None:
    assert pulumi_state.data_volumes(RESOURCES) == {"redis": "samokoder-staging-redis-data"}, (
        "files volumes are made anew at each change and are nobody's data"
    )
    assert pulumi_state.data_urns(RESOURCES) == ["u::data-redis"], "by these Pulumi is told to leave them alone"


def test_a_volume_whose_protection_was_taken_away_still_holds_data() -> None:
    unprotected = {"resources": [{**each, "protect": False} for each in RESOURCES["resources"]]}

    assert pulumi_state.data_volumes(unprotected) == pulumi_state.data_volumes(RESOURCES), (
        "a `destroy-data` that was cut off would not remove the rest of the data when it is typed again"
    )


def test_generated_secrets_are_found_by_their_names() -> None:
    assert pulumi_state.generated_secrets(RESOURCES) == {"grafana-admin": 'pass"word'}, (
        "the exported value is JSON text inside JSON"
    )


def test_attributes_that_a_killed_pulumi_left_empty_are_removed_and_no_others(tmp_path: Path) -> None:
    stacks = tmp_path / ".pulumi/stacks/samokoder"
    stacks.mkdir(parents=True)
    history = tmp_path / ".pulumi/history/samokoder/staging"
    history.mkdir(parents=True)
    broken = [stacks / "staging.json.attrs", stacks / "staging.json.bak.attrs", history / "1.history.json.attrs"]
    others = [stacks / "staging.json", stacks / "prod.json.attrs", stacks / "staging-2.json.attrs"]
    whole = history / "2.history.json.attrs"
    for file in (*broken, *others):
        file.touch()
    whole.write_text('{"user.content_type": "text/plain"}', encoding="utf-8")
    assert sorted(pulumi_state.mend(tmp_path, "staging")) == sorted(broken)
    assert not any(file.exists() for file in broken), "Pulumi would end with EOF at each command"
    assert all(file.exists() for file in (*others, whole)), "another stack may be at work"


def test_attributes_of_a_long_history_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / ".pulumi" / kind / "samokoder/staging" for kind in ("history", "backups")]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{number}.json.attrs").write_text("{}", encoding="utf-8")
    (folders[1] / "3.json.attrs").touch()
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("after years there are thousands of them"))
    assert pulumi_state.mend(tmp_path, "staging") == [folders[1] / "3.json.attrs"]


def test_the_salt_can_be_had_from_the_state_itself() -> None:
    assert pulumi_state.salt(RESOURCES) == "v1:salt", "a lost copy of the stack file must not cost the secrets"
