"""The lock of an environment: who holds it, who is refused, and what becomes of one whose holder is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.errors import APIError
from typer.testing import CliRunner

from host.process_ids import start_time
from operations import __main__ as command
from operations.data import backups
from operations.data.compose import import_on_engine
from operations.data.repair import repair
from operations.data.restore import restore, unfinished
from operations.data.restore.actions import never
from operations.data.restore.journal import Journal, journal_path
from operations.data.restore.request import Wanted
from operations.errors import ProjectError
from operations.lifecycle import down as lifecycle_down
from operations.lifecycle import up as lifecycle_up
from operations.lifecycle.restart import restart
from operations.rotation import rotate
from operations.workspace import lock
from operations.workspace.lock import Holder, held, holders
from operations.workspace.workspace import Workspace
from stack.common.names import ENVIRONMENT_LABEL
from tests.recording import ROOT
from tests.restoring import Given, on_a_fake_engine


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    return on_a_fake_engine(tmp_path, monkeypatch, processes=True)


def there(given: Given) -> dict[str, Holder]:
    return holders(given.client(), "staging")


def hold(given: Given, holder: Holder) -> str:
    """Leave a lock on the engine."""
    labels = {lock.LABEL: "staging", "samokoder.lock.holder": json.dumps(asdict(holder))}
    given.client().volumes.create("samokoder-staging-lock-0badcafe", labels=labels)
    return "samokoder-staging-lock-0badcafe"


def workspace(given: Given) -> Workspace:
    return cast("Workspace", given)


def ended() -> int:
    """The number of a process that was and is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_is_a_volume_that_says_who_holds_it_and_is_gone_afterwards(given: Given) -> None:
    with held(workspace(given), "deploy") as locked:
        (volume, holder), *more = there(given).items()
        assert not more
        assert lock.is_one(volume, "samokoder-staging")
        assert (holder.doing, holder.process, holder.folder) == ("deploy", os.getpid(), str(given.folder))
        assert not holder.gone
        assert locked.variables[lock.VARIABLE] == volume
    assert not there(given), "the next command would be refused"
    with pytest.raises(KeyboardInterrupt), held(workspace(given), "up"):
        raise KeyboardInterrupt
    assert not there(given), "Ctrl-C left it"


def test_who_comes_second_is_refused_and_told_who_it_is_since_when_and_how_to_remove_it(given: Given) -> None:
    with held(workspace(given), "restore"):
        (volume,) = there(given)
        with pytest.raises(ProjectError) as refused, held(workspace(given), "up"):
            pytest.fail("two at once")
        assert list(there(given)) == [volume], "the refused one takes away its own and no other"
    for words in ("`restore` since 20", f"process {os.getpid()} of", str(given.folder), f"docker volume rm {volume}"):
        assert words in str(refused.value)


def test_what_a_holder_runs_is_not_refused_and_does_not_give_the_lock_back(given: Given) -> None:
    with held(workspace(given), "rotate") as locked:
        with held(locked, "up") as again:
            assert again.variables == locked.variables
        assert len(there(given)) == 1, "the rotation goes on without its lock"
    stale = replace(given, variables={lock.VARIABLE: "samokoder-staging-lock-00000000"})
    with held(workspace(stale), "up"):
        assert len(there(given)) == 1, "a variable of long ago is no lock"


def test_what_a_holder_has_started_is_locked_by_itself_when_the_holder_is_killed(given: Given) -> None:
    started = subprocess.Popen(["sleep", "60"])
    outer = hold(given, Holder(doing="deploy", folder="/f", process=started.pid, started=start_time(started.pid) or ""))
    try:
        with held(workspace(replace(given, variables={lock.VARIABLE: outer})), "up") as locked:
            started.kill()
            started.wait()
            with pytest.raises(ProjectError, match="`up` since"), held(workspace(given), "restore"):
                pytest.fail("the `up` of the killed deploy still works, and would start what a restore has stopped")
            with held(locked, "up"):
                pass
    finally:
        started.kill()
    with held(workspace(given), "restore"):
        assert len(there(given)) == 1, "a lock was left"


def test_what_another_user_has_left_is_not_taken_over_where_nobody_can_look(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, **_options: object) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", refuse)
    assert Holder(doing="restore", folder="/home/another/.samokoder").left("staging"), "a traceback helps nobody"


def test_a_process_that_proc_hides_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_process: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(lock, "start_time", lambda _process: None)
    monkeypatch.setattr(os, "kill", refuse)
    assert not Holder(doing="restore", folder="/f", started="1").gone, "the lock of a restore that runs was taken over"


def test_the_lock_of_a_process_that_is_gone_is_taken_over_and_it_is_told(given: Given) -> None:
    hold(given, Holder(doing="up", folder="/elsewhere", process=ended()))
    with held(workspace(given), "up"):
        assert [each.process for each in there(given).values()] == [os.getpid()]
    assert "Taking over" in given.said[-1]
    assert "`up` since" in given.said[-1]


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        ({}, False),
        ({"started": "1"}, True),
        ({"system": "another-boot pid:[1]"}, True),
        ({"system": "another-boot pid:[1]", "machine": "another"}, False),
        ({"system": "another-boot pid:[1]", "machine": ""}, False),
        ({"system": "", "process": 2**22}, False),
    ],
    ids=["it runs", "another has its number", "before a restart", "another machine", "who knows", "no Linux"],
)
def test_a_process_is_gone_only_where_that_is_known(
    changed: dict[str, Any], gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_machine", lambda: "this one")
    assert Holder(**{"doing": "up", "folder": "/f", "machine": "this one", **changed}).gone is gone


def test_a_process_that_has_ended_and_is_not_waited_for_is_gone() -> None:
    """So is a killed `make up` in a container, whose first process waits for nobody."""
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = Holder(doing="up", folder="/f", process=process.pid, started=start_time(process.pid) or "")
        assert not holder.gone, "it runs"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert holder.gone, "it would keep the lock until its parent ends"


def test_a_process_in_another_namespace_is_not_taken_for_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container on the same kernel the number is another one's, and the boot is the same."""
    boot = lock._system().partition(" ")[0]
    assert not Holder(doing="up", folder="/f", process=2**22, system=f"{boot} pid:[1]").gone


@pytest.mark.parametrize("file", ["restore.staging.json", "import.staging.json"])
def test_what_was_left_half_done_in_another_clone_is_finished_there(given: Given, tmp_path: Path, file: str) -> None:
    other = tmp_path / "another clone" / ".samokoder"
    other.mkdir(parents=True)
    (other / file).write_text("{}")
    volume = hold(given, Holder(doing="restore", folder=str(other), process=ended()))
    with pytest.raises(ProjectError) as refused, held(workspace(given), "up"):
        pytest.fail("the other clone's journal would be of another time")
    assert str(other) in str(refused.value)
    assert f"docker volume rm {volume}" in str(refused.value)
    (other / file).unlink()
    with held(workspace(given), "up"):
        assert volume not in there(given)


HALF = Journal(wanted=Wanted(backup="latest"), stamp="20261124T100500Z", touched=True)


def fail_half_way(given: Given) -> str:
    """Let a restore fail while it replaces the data; return its lock."""
    with held(workspace(given), "restore"):
        HALF.write(journal_path(workspace(given)))
    ((volume, left),) = there(given).items()
    assert left.half
    assert left.doing == "restore", "it says which command has to be finished, whichever came last"
    return volume


def test_what_failed_half_way_on_another_machine_is_finished_there(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder cannot be looked at, and may have the same path."""
    volume = fail_half_way(given)
    other = replace(given, folder=tmp_path / "other")
    with monkeypatch.context() as patched:
        patched.setattr(lock, "_machine", lambda: "another")
        for same_path in (False, True):
            if same_path:
                journal_path(workspace(given)).unlink()
            with pytest.raises(ProjectError) as refused, held(workspace(given if same_path else other), "up"):
                pytest.fail("what is served from now on would be replaced")
            assert "Finish it there" in str(refused.value)
            assert f"docker volume rm {volume}" in str(refused.value)
        HALF.write(journal_path(workspace(given)))
        with held(workspace(given), "restore"):
            journal_path(workspace(given)).unlink()  # the machine has another name now, and it is finished
    assert not there(given)


def test_a_prune_of_volumes_does_not_take_the_lock_of_half_replaced_data(given: Given) -> None:
    client, made = given.client(), dict[str, SimpleNamespace]()

    def create(image: str, _: list[str], **options: Any) -> None:
        assert image == "sha256:1"
        assert ENVIRONMENT_LABEL not in options["labels"], "it would be taken for a part"
        name = options["name"]
        made[name] = SimpleNamespace(**options, remove=lambda **_: made.pop(name))

    def listed(*, filters: dict[str, str], **_: object) -> list[SimpleNamespace]:
        label, _sign, value = filters["label"].partition("=")
        parts = [SimpleNamespace(attrs={"Image": "sha256:1"})] if label == ENVIRONMENT_LABEL else []
        return parts or [each for each in made.values() if each.labels.get(label) == value]

    get = client.volumes.get

    def in_use(volume: str) -> SimpleNamespace:
        if volume in made:
            raise APIError("volume is in use")
        return cast("SimpleNamespace", get(volume))

    client.containers, client.volumes.get = SimpleNamespace(list=listed, create=create), in_use
    volume = fail_half_way(given)
    assert list(made[volume].volumes) == [volume], "`docker volume prune -a` removes what no container mounts"
    with held(workspace(given), "restore"):
        journal_path(workspace(given)).unlink()
    assert not made
    assert not there(given), "nobody could change anything any more"


def test_a_restore_keeps_its_lock_from_a_prune_before_it_can_be_killed(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    monkeypatch.setattr(lock, "_keep_from_prune", lambda _client, _workspace, volume: kept.append(volume))
    at_work: list[str] = []

    def check(*_: object, **__: object) -> None:
        at_work.extend(there(given))
        raise ProjectError("refused")

    monkeypatch.setattr(type(given.engine), "program", check)
    with pytest.raises(ProjectError, match="refused"):
        given.restore(backup="latest")
    assert kept == at_work, "a killed restore marks no lock: another clone would be let in to half of the data"


def test_who_is_refused_while_data_is_half_replaced_does_not_mark_a_lock(given: Given) -> None:
    with held(workspace(given), "restore"):
        HALF.write(journal_path(workspace(given)))
        with pytest.raises(ProjectError, match="`restore` since"), held(workspace(given), "backup"):
            pytest.fail("two at once")
        assert len(there(given)) == 1, "it would lock other clones out when the restore is done"
        journal_path(workspace(given)).unlink()
    assert not there(given)


def test_a_full_disk_does_not_make_anybody_remove_the_lock_of_half_replaced_data(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise APIError("no space left on device")

    with held(workspace(given), "restore"):
        HALF.write(journal_path(workspace(given)))
        monkeypatch.setattr(given.client().volumes, "create", full)
    assert "stays on purpose" in given.said[-1]
    assert "volume rm" not in given.said[-1], "another clone's `up` would serve half of the data"


def test_a_journal_of_an_earlier_version_says_that_the_data_is_half_replaced(given: Given) -> None:
    with held(workspace(given), "restore"):
        HALF.write(path := journal_path(workspace(given)))
        noted = json.loads(path.read_text())
        assert "half" not in noted, "an earlier version would not read it"
    assert [each.half for each in there(given).values()] == [True]
    with held(workspace(given), "restore"):
        path.write_text(json.dumps({**noted, "done": ["check", "put-postgres", lock.PASSWORD]}))
    assert not there(given), "all data is in its place, and only the start failed: nobody need be locked out"


def test_a_lock_of_half_replaced_data_can_be_read_by_an_earlier_version(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[dict[str, str]] = []
    volumes = given.client().volumes
    monkeypatch.setattr(volumes, "create", lambda _, labels: noted.append(labels))
    lock._make(given.client(), workspace(given), "volume", Holder(doing="restore", folder="/f", half=True))
    known = {each.name for each in fields(Holder)} - {"half"}
    assert set(json.loads(noted[0]["samokoder.lock.holder"])) <= known, "its commands would end with a traceback"


@pytest.mark.parametrize("server", ["postgres", "redis", "backup"])
def test_a_journal_says_half_in_a_way_that_an_earlier_version_reads(tmp_path: Path, server: str) -> None:
    source = f"samokoder-staging-{server}-before-restore-20261124T100500Z"
    for done, half in (((), True), ((f"put-{server}",), False)):
        journal = Journal(wanted=Wanted(source=source), stamp="20261124T100500Z", touched=True, done=done)
        path = tmp_path / "restore.staging.json"
        journal.write(path)
        assert journal.half is half
        owes = not half and server == "postgres"
        assert lock._half_done(tmp_path, "staging") is (half or owes)
        unknown = {"half", "foreign"} & set(json.loads(path.read_text()))
        assert not unknown or server == "backup", "it would end with a traceback while the parts are stopped"


def test_a_lock_is_not_taken_over_by_who_gives_way_to_another(given: Given) -> None:
    """Once it was removed, a third one would find none."""
    labels = {lock.LABEL: "staging"}
    mine = Holder(doing="restore", folder=str(given.folder.absolute()), process=ended())
    other = Holder(doing="up", folder="/elsewhere")
    for number, holder in enumerate((mine, other)):
        given.client().volumes.create(
            f"samokoder-staging-lock-0badcaf{number}",
            labels={**labels, "samokoder.lock.holder": json.dumps(asdict(holder))},
        )
    with pytest.raises(ProjectError, match="`up` since"), held(workspace(given), "restore"):
        pytest.fail("two at once")
    assert len(there(given)) == 2


def test_what_a_killed_holder_has_left_running_is_removed_before_anything_is_done_and_told(given: Given) -> None:
    running = {"samokoder.restore=staging": ["copies"], "samokoder.import=staging": [], "samokoder.restore=prod": ["x"]}

    def found(*, filters: dict[str, str], **_: object) -> list[Any]:
        names = running.get(filters["label"], [])
        return [SimpleNamespace(name=name, remove=lambda **_: names.clear()) for name in names]

    given.client().containers.list = found
    with held(workspace(given), "up") as locked:
        assert not running["samokoder.restore=staging"], "PostgreSQL would start under the copy"
        assert running["samokoder.restore=prod"], "it is another environment's"
        assert given.said == ["Removed what a run that is gone was still doing: copies"]
        running["samokoder.restore=staging"].append("of this run")
        with held(locked, "up"):
            assert running["samokoder.restore=staging"], "what it runs itself"


def test_one_that_comes_while_another_has_just_made_its_own_gives_way(given: Given) -> None:
    """Each makes its own before it looks: so one at least sees the other."""
    volumes, real = given.client().volumes, given.client().volumes.create

    def create(name: str, labels: dict[str, str]) -> None:
        real(name, labels=labels)
        if len(volumes.labelled) == 1:
            hold(given, Holder(doing="deploy", folder="/elsewhere"))

    volumes.create = create
    with pytest.raises(ProjectError, match="`deploy` since"), held(workspace(given), "up"):
        pytest.fail("two at once")


class RefusedError(Exception):
    """In place of the lock."""


CHANGES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "up": ("up", lambda it: lifecycle_up.bring_up(it, interactive=False)),
    "down": ("down", lambda it: lifecycle_down.take_down(it, interactive=False)),
    "destroy-data": ("destroy-data", lambda it: lifecycle_down.destroy_data(it, interactive=False)),
    "rotate": ("rotate", lambda it: rotate.rotate(it, "redis-app", interactive=False)),
    "restore": ("restore", lambda it: restore.restore(it, up=never, backup="latest")),
    "repair": ("repair", lambda it: repair.opened(it, "redis", up=never).__enter__()),
    "restart": ("restart", lambda it: restart(it, "api")),
    "backup": ("backup", lambda it: backups.now(it, "all")),
    "drill": ("drill", backups.drill),
    "import": (
        "import-compose",
        lambda it: import_on_engine.EngineImport(it.client(), it.settings(), it).alone().__enter__(),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_an_environment_takes_the_lock_before_it_does_anything(
    name: str, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, doing: str) -> None:
        raise RefusedError(doing)

    monkeypatch.setattr(lock, "held", refuse)
    run: Any = type("Run", (), {"workspace": given, "backend": type("Backend", (), {"url": "", "origin": ""})})
    monkeypatch.setattr(lifecycle_down, "_with_engine", lambda _: run)
    monkeypatch.setattr(lifecycle_down, "_to_end", lambda *_, **__: run)
    monkeypatch.setattr(lifecycle_up, "prepared", lambda *_, **__: SimpleNamespace(run=run))
    doing, call = CHANGES[name]
    with pytest.raises(RefusedError, match=f"^{doing}$"):
        call(given)


@pytest.mark.parametrize(
    ("words", "locked"),
    [
        (["up"], True),
        (["destroy"], True),
        (["down"], True),
        (["--non-interactive", "dn"], True),
        (["stack", "ls"], False),
        (["config", "set", "samokoder:motd", "up"], False),
    ],
)
def test_pulumi_itself_takes_it_where_it_changes_something(
    words: list[str], locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    ran: list[tuple[str, ...]] = []

    class Run:
        workspace = Workspace()

        def in_clone(self) -> Run:
            return self

        def deployment(self) -> dict[str, Any]:
            return {}

        def pulumi(self, *words: str, check: bool) -> subprocess.CompletedProcess[str]:
            ran.append(words)
            return subprocess.CompletedProcess(words, 0)

    class Lock:
        def __init__(self, _: object, doing: str) -> None:
            taken.append(doing)

        def __enter__(self) -> None:
            assert not ran

        def __exit__(self, *_: object) -> None:
            assert ran

    monkeypatch.setattr(Workspace, "open", lambda _: Run())
    monkeypatch.setattr(lifecycle_up, "prepare", lambda _: Run())
    monkeypatch.setattr(lifecycle_up, "begin_empty", lambda *_: None)
    monkeypatch.setattr(lock, "held", Lock)
    assert CliRunner().invoke(command.app, ["pulumi", "--", *words]).exit_code == 0
    assert taken == ([f"pulumi {words[-1]}"] if locked else [])


@contextmanager
def pulumi_at_work(tmp_path: Path, folder: Path, *words: str, stack: str = "staging") -> Iterator[int]:
    """A program of this name that runs in a folder until this ends; its process."""
    program = tmp_path / "pulumi"
    program.write_text("#!/bin/sh\necho begun\nread line\n")
    program.chmod(0o755)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PULUMI_STACK": stack}
    with subprocess.Popen(
        [program, *words], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("clone", ["this clone", "another clone"])
@pytest.mark.parametrize("words", [["up", "--yes"], ["--non-interactive", "dn"]])
def test_a_lock_is_not_taken_over_while_a_pulumi_goes_on_that_its_holder_had_started(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clone: str, words: list[str]
) -> None:
    """A Pulumi that outlives the SIGKILL of `samokoder up` changes containers: a restore beside it loses data.

    Where its state is does not matter: in a bucket there is no file of Pulumi's own lock.
    """
    folder = given.folder if clone == "this clone" else tmp_path / clone / ".samokoder"
    monkeypatch.setattr(lock, "_PULUMI_SECONDS", 0.0)
    left = hold(given, Holder(doing="up", folder=str(folder.absolute()), process=ended()))
    # What a person types to Pulumi runs in the clone.
    with pulumi_at_work(tmp_path, folder if words[0] == "up" else folder.parent, *words) as pulumi:
        with pytest.raises(ProjectError, match=rf"Pulumi, which it had started, goes on \(process {pulumi}\)"):
            held(workspace(given), "restore").__enter__()
        assert list(there(given)) == [left], "the one that was refused took another's away, or left its own"
    with held(workspace(given), "restore"):
        assert left not in there(given)


@pytest.mark.parametrize(
    ("place", "words", "stack"),
    [("of it", ["up"], "prod"), ("of it", ["preview"], "staging"), ("another", ["up"], "staging")],
    ids=["another environment's", "it only looks", "another clone's"],
)
def test_a_pulumi_of_something_else_keeps_no_lock_from_being_taken_over(
    given: Given, tmp_path: Path, place: str, words: list[str], stack: str
) -> None:
    left = hold(given, Holder(doing="up", folder=str(tmp_path / "of it"), process=ended()))
    with pulumi_at_work(tmp_path, tmp_path / place, *words, stack=stack), held(workspace(given), "restore"):
        assert left not in there(given), "nobody could restore while a colleague's preview runs"


def test_another_users_pulumi_that_cannot_be_looked_at_may_be_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise PermissionError

    monkeypatch.setattr(lock, "_is_of_clone", refuse)
    process = tmp_path / "proc" / "4711"
    process.mkdir(parents=True)
    (process / "comm").write_text("pulumi\n")
    (process / "cmdline").write_text("pulumi\0up\0--yes\0")
    holder = Holder(doing="up", folder="/home/another/.samokoder", user=process.owner())
    assert lock.pulumi_of(holder, "staging", tmp_path / "proc") == [4711], "it is of the user whose run is gone"
    assert lock.pulumi_of(replace(holder, user="nobody else"), "staging", tmp_path / "proc") == []


def test_what_pulumi_is_run_by_dies_and_pulumi_is_asked_to_end_as_by_ctrl_c(tmp_path: Path) -> None:
    program = tmp_path / "pulumi"
    lines = ["#!/bin/sh", f"trap 'echo INT > {tmp_path}/ended; exit' INT", f": > {tmp_path}/begun"]
    program.write_text("\n".join([*lines, "while :; do sleep 0.05; done", ""]))
    program.chmod(0o755)
    script = f"""
import os
from pathlib import Path
from operations.workspace.backend import Backend
from operations.workspace.workspace import Workspace
workspace = Workspace(home=Path({str(tmp_path)!r}))
backend = Backend(url=workspace.folder.as_uri(), origin="")
run = workspace.pulumi_by({str(program)!r}, dict(os.environ), backend)
run.pulumi("up", capture=True)
"""
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end, "it was never started"
        time.sleep(0.05)
    starter.kill()
    starter.wait()
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < end, "it changes the environment on, and nobody holds the lock"
        time.sleep(0.05)
    assert (tmp_path / "ended").read_text() == "INT\n"


def test_when_all_data_is_gone_no_restore_or_import_is_half_done_any_more(given: Given) -> None:
    for file in lock.unfinished(given.folder, given.name):
        file.write_text("{}")
    unfinished.forget_all(workspace(given), given.client())
    assert not list(given.folder.glob("*.json")), "the next import would go on with one of an environment that is gone"
