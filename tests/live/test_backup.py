"""Backups under faults, on one stack: what was acknowledged is there again, and what is bad is known before it is used.

The backups lie on a small file system of their own, so that it can be filled and a byte of it changed; only root can
mount that, and another user is told which tests were left out. Figures are printed as "measured: …".
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

from operations.data import backups, volume_names
from operations.data.backups import ListedBackup
from operations.data.compose import import_on_engine
from operations.data.repair import repair
from operations.data.restore import actions, restore
from operations.data.restore.journal import Journal
from operations.delivery.image_deploy import ImageDeploy, Version
from operations.engine import containers, one_off
from operations.engine.commands import execute
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import ProjectError
from operations.lifecycle.down import data_volumes, destroy_data, take_down
from operations.lifecycle.restart import restart
from operations.lifecycle.up import bring_up
from operations.rotation import rotate
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.parts.backup import spec as part
from stack.settings.environment import Environment
from tests.live.bucket import KEYS, MACHINE, OFFSITE, machine
from tests.live.conftest import begin, cut_off, no_limits, url, with_config, with_secrets
from tests.live.test_the_stack import until
from tests.planted import SUPERUSER_PSQL
from tests.small_disk import small_disk_of_root

DISK_MIB = 2048
PATIENCE_SECONDS = 300.0
KILL = "__import__('os').kill(__import__('os').getpid(), 9)"
RPO_SECONDS = 10.0
REFUSED_SECONDS = 60.0
"""Within them a command is refused during a restore: `up` first looks for Pulumi and its plugins."""


@pytest.fixture(scope="module")
def disk() -> Iterator[Path | None]:
    """A small file system for the backups."""
    with small_disk_of_root(DISK_MIB, owner=999) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def bucket(
    engine: docker.DockerClient, new_workspace: Callable[[], Workspace], local_images: Environment
) -> Iterator[tuple[Workspace, Container]]:
    """A workspace that copies its backups into a bucket, and the bucket's machine, on no network yet."""
    workspace = with_secrets(new_workspace(), {**KEYS, "backupEncryptionKey": secrets.token_urlsafe(48)})
    offsite = {**OFFSITE, "syncMinutes": 1}
    workspace = with_config(
        workspace, {"samokoder:backup": {"offsite": offsite}, "samokoder:api": {"environment": no_limits()}}
    )
    with machine(engine, local_images) as made:
        yield workspace, made


def edge(engine: docker.DockerClient, workspace: Workspace) -> Any:
    return engine.networks.get(f"samokoder-{workspace.name}-edge")


@pytest.fixture(scope="module")
def backed(engine: docker.DockerClient, bucket: tuple[Workspace, Container], disk: Path | None) -> Iterator[Workspace]:
    """The stack, with its first backups; gone at the end, with all that restores have set aside."""
    workspace, machine = bucket
    if disk:
        how = {"type": "none", "o": "bind", "device": str(disk)}
        engine.volumes.create(f"samokoder-{workspace.name}-backup-data", driver="local", driver_opts=how)
    bring_up(workspace, interactive=False)
    edge(engine, workspace).connect(machine, aliases=[MACHINE])
    wait_for_backups(workspace)
    yield workspace
    with contextlib.suppress(docker.errors.APIError):
        edge(engine, workspace).disconnect(machine, force=True)
    destroy_data(workspace, interactive=False)


def wait_for_backups(workspace: Workspace) -> None:
    """Wait until there is a good backup of each kind: the service makes the first ones by itself."""
    end = time.monotonic() + PATIENCE_SECONDS
    while {each.kind for each in backups.backups(workspace)[0] if each.status == "good"} != {"base", "dump", "redis"}:
        assert time.monotonic() < end, backups.backups(workspace)
        time.sleep(2)


def own_volumes(engine: docker.DockerClient, workspace: Workspace) -> set[str]:
    return {str(each.name) for each in engine.volumes.list(filters={"name": f"samokoder-{workspace.name}-"})}


def newest(workspace: Workspace, kind: str) -> ListedBackup:
    return next(each for each in backups.backups(workspace)[0] if each.kind == kind)


def database(engine: docker.DockerClient, workspace: Workspace, statement: str) -> list[str]:
    """The rows of a statement, as the superuser over the socket."""
    container = containers.find(engine, workspace.settings(), "postgres")
    status, said = execute(container, [*SUPERUSER_PSQL, "-d", "samokoder", "-XAtc", statement])
    assert status == 0, said
    return said.decode().splitlines()


def names(engine: docker.DockerClient, workspace: Workspace) -> set[str]:
    return set(database(engine, workspace, "SELECT name FROM projects"))


def write(workspace: Workspace, name: str) -> None:
    """Write one row through the API."""
    api = url(workspace.settings(), "ingress")
    httpx.post(f"{api}/projects", json={"name": name}, timeout=30, trust_env=False).raise_for_status()


def program(engine: docker.DockerClient, workspace: Workspace, *words: str) -> tuple[int, str]:
    """Run the backup program in its container."""
    container = containers.find(engine, workspace.settings(), "backup")
    status, said = execute(container, [one_off.PROGRAM, *words])
    return status, said.decode()


def lose(engine: docker.DockerClient, workspace: Workspace) -> None:
    """Take the database's container away, and its volume with it."""
    containers.find(engine, workspace.settings(), "postgres").remove(force=True, v=True)
    engine.volumes.get(f"samokoder-{workspace.name}-postgres-data").remove()


def wait_until_received(engine: docker.DockerClient, workspace: Workspace) -> None:
    """Wait until the backup server has all that is written now, for a test that asks for something else."""
    [now] = database(engine, workspace, "SELECT pg_current_wal_flush_lsn()")
    ask = f"SELECT count(*) FROM pg_stat_replication WHERE write_lsn >= '{now}'"
    end = time.monotonic() + 60
    while database(engine, workspace, ask) == ["0"]:
        assert time.monotonic() < end, "nobody receives the log"
        time.sleep(0.2)


def told(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\nmeasured: {text}", flush=True)


@dataclass
class Writers:
    """Users that write all the time; what was acknowledged, and when."""

    address: str
    acknowledged: dict[str, float] = field(default_factory=dict)
    failed: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def _write(self, number: int) -> None:
        with httpx.Client(base_url=self.address, timeout=20, trust_env=False) as client:
            count = 0
            while not self._over.is_set():
                count += 1
                name = f"{number}-{count}-{secrets.token_hex(4)}"
                try:
                    answer = client.post("/projects", json={"name": name})
                except httpx.TransportError:
                    self.failed += 1
                    time.sleep(0.2)
                    continue
                if answer.is_success:
                    self.acknowledged[name] = time.time()
                else:
                    self.failed += 1
                    time.sleep(0.2)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(6)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def pause_around(self, moment: float) -> float:
        """Seconds without an acknowledgement around a moment."""
        times = sorted(self.acknowledged.values())
        before = max(each for each in times if each <= moment)
        return min(each for each in times if each > moment) - before


def test_of_a_database_that_was_killed_and_lost_nothing_is_missing_but_the_measured_loss(
    backed: Workspace, engine: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    writers = Writers(url(backed.settings(), "ingress"))
    with writers.at_work():
        time.sleep(20)
        server = containers.find(engine, backed.settings(), "postgres")
        server.kill("SIGKILL")
        killed = time.time()
        image = containers.find(engine, backed.settings(), "backup").attrs["Image"]
        volume = f"samokoder-{backed.name}-postgres-data"
        lost_all = ["find", "/volume", "-mindepth", "1", "-delete"]
        engine.containers.run(
            image, lost_all[1:], entrypoint=lost_all[:1], volumes={volume: {"bind": "/volume"}}, remove=True
        )
        began = time.monotonic()
        restore.restore(backed, up=bring_up, backup="latest")
        took = time.monotonic() - began
        time.sleep(5)
    before = {name: when for name, when in writers.acknowledged.items() if when <= killed}
    there = names(engine, backed)
    missing = [when for name, when in before.items() if name not in there]
    loss = max((killed - when for when in missing), default=0.0)
    rate, away = len(before) / 20, writers.pause_around(killed)
    told(capsys, f"RPO {loss:.2f} s, {len(missing)} of {len(before)} writes ({rate:.0f}/s); latest took {took:.0f} s")
    told(capsys, f"without service from the kill to the end of the restore: {away:.0f} s")
    assert rate > 20, "too few to prove anything"
    assert loss <= RPO_SECONDS, f"{len(missing)} writes of up to {loss:.1f} s before are gone"
    rows = live_status(backed)
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    backed.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)


def test_a_moment_between_two_writes_has_the_first_alone_and_the_way_back_has_both(
    backed: Workspace, engine: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    write(backed, "the first")
    time.sleep(2)
    between = datetime.now(UTC)
    time.sleep(2)
    write(backed, "the second")
    wait_until_received(engine, backed)
    began = time.monotonic()
    said = restore.restore(backed, up=bring_up, to=str(between))
    told(capsys, f"a moment took {time.monotonic() - began:.0f} s")
    assert {"the first", "the second"} & names(engine, backed) == {"the first"}
    write(backed, "since then")
    restore.restore(backed, up=bring_up, source=said.set_aside[-1])
    assert {"the first", "the second", "since then"} & names(engine, backed) == {"the first", "the second"}
    write(backed, "it serves")


def test_what_cannot_be_restored_is_refused_and_touches_nothing(backed: Workspace, engine: docker.DockerClient) -> None:
    before, volumes = containers.ids(engine, backed.name), own_volumes(engine, backed)
    running = {each.id: each.attrs["State"]["StartedAt"] for each in containers.of_environment(engine, backed.name)}
    now = datetime.now(UTC)
    asked = (
        {"to": str(now + timedelta(hours=1))},
        {"to": str(now - timedelta(days=30))},
        {"backup": "20200101T000000"},
        {"backup": "dump-20200101T000000Z"},
        {"backup": "redis-20200101T000000Z"},
    )
    for wish in asked:
        with pytest.raises(ProjectError, match="Nothing was stopped or changed"):
            restore.restore(backed, up=bring_up, **wish)
    assert containers.ids(engine, backed.name) == before
    after = {each.id: each.attrs["State"]["StartedAt"] for each in containers.of_environment(engine, backed.name)}
    assert after == running, "something was restarted"
    assert own_volumes(engine, backed) == volumes, "something was left"


def test_a_volume_that_is_gone_is_restored_to_the_last_moment_of_what_was_in_it(
    backed: Workspace, engine: docker.DockerClient
) -> None:
    write(backed, "before it was gone")
    wait_until_received(engine, backed)
    containers.find(engine, backed.settings(), "postgres").kill("SIGKILL")
    time.sleep(1)
    last = max(each.until for each in backups.backups(backed)[0] if each.until)
    lose(engine, backed)
    volumes = own_volumes(engine, backed)
    with pytest.raises(ProjectError, match=r"postgres-data.*(?s:.)*make restore BACKUP=latest"):
        bring_up(backed, interactive=False)
    assert own_volumes(engine, backed) == volumes, "a refusal makes no empty database"
    rows = bring_up(backed, interactive=False, empty=("postgres",)).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    assert not names(engine, backed), "an empty database, with its tables"
    write(backed, "into the empty one")
    restore.restore(backed, up=bring_up, to=str(last))
    assert {"before it was gone", "into the empty one"} & names(engine, backed) == {"before it was gone"}
    write(backed, "it serves")


def test_a_dump_and_a_copy_of_redis_are_restored(backed: Workspace, engine: docker.DockerClient) -> None:
    write(backed, "in the dump")
    redis = containers.find(engine, backed.settings(), "redis-users")
    password = backed.open().secrets()["redis-app"]
    ask = ["redis-cli", "-h", "redis", "--user", "samokoder_app"]
    secret = {"REDISCLI_AUTH": password}
    assert execute(redis, [*ask, "set", "kept", "yes"], environment=secret) == (0, b"OK\n")
    backups.now(backed, "dump")
    backups.now(backed, "redis")
    write(backed, "after the dump")
    assert execute(redis, [*ask, "del", "kept"], environment=secret) == (0, b"1\n")
    restore.restore(backed, up=bring_up, backup=newest(backed, "dump").id)
    assert {"in the dump", "after the dump"} & names(engine, backed) == {"in the dump"}
    restore.restore(backed, up=bring_up, backup=newest(backed, "redis").id)
    redis = containers.find(engine, backed.settings(), "redis-users")
    assert execute(redis, [*ask, "get", "kept"], environment=secret) == (0, b"yes\n")
    write(backed, "it serves again")


def test_a_backup_that_is_killed_in_the_middle_counts_for_nothing(
    backed: Workspace, engine: docker.DockerClient, disk: Path | None
) -> None:
    if disk is None:
        pytest.skip("only root can look into the volume")
    # Something to write, so that it takes its time.
    database(engine, backed, "CREATE TABLE ballast AS SELECT gen_random_uuid() AS a FROM generate_series(1, 1500000)")
    before = {each.id for each in backups.backups(backed)[0]}
    folders = set(disk.glob("barman/*/base/*"))
    container = containers.find(engine, backed.settings(), "backup")
    made = engine.api.exec_create(container.id, [one_off.PROGRAM, "now", "--kind", "base"])
    engine.api.exec_start(made["Id"], detach=True)
    end = time.monotonic() + 120
    while not set(disk.glob("barman/*/base/*")) - folders:
        assert time.monotonic() < end, "it never began"
        time.sleep(0.05)
    container.kill("SIGKILL")
    container.start()
    container.reload()
    wait_until_healthy(container)
    assert {each.id for each in backups.backups(backed)[0]} == before, "half a backup was listed"
    backups.now(backed, "base")
    listed = {each.id for each in backups.backups(backed)[0] if each.kind == "base"}
    assert {path.name for path in disk.glob("barman/*/base/*")} == listed, "what it left is still there"
    assert len(listed) == len({each for each in before if each[0].isdigit()}) + 1


def wait_until_healthy(container: Container) -> None:
    end = time.monotonic() + 120
    while container.attrs["State"].get("Health", {}).get("Status") != "healthy":
        assert time.monotonic() < end, container.logs(tail=20).decode()
        time.sleep(0.5)
        container.reload()


def test_a_full_volume_harms_nothing_that_is_there_and_the_log_goes_on_afterwards(
    backed: Workspace, engine: docker.DockerClient, disk: Path | None
) -> None:
    if disk is None:
        pytest.skip("only root can mount a small disk")
    before = {each.id for each in backups.backups(backed)[0]}
    free = shutil.disk_usage(disk).free
    filler = disk / "filler"
    subprocess.run(["fallocate", "-l", str(free - 2**20), str(filler)], check=True)
    try:
        for kind in ("base", "dump"):  # a copy of a Redis with a few keys fits
            assert program(engine, backed, "now", "--kind", kind)[0] != 0, f"{kind}: there was no room"
        database(engine, backed, "INSERT INTO ballast SELECT gen_random_uuid() FROM generate_series(1, 500000)")
        write(backed, "while it was full")
        time.sleep(20)
        assert {each.id for each in backups.backups(backed)[0]} == before, "nothing is lost, nothing half is listed"
    finally:
        filler.unlink()
    wait_until_received(engine, backed)
    end = time.monotonic() + PATIENCE_SECONDS
    while program(engine, backed, "now", "--kind", "all")[0] != 0:
        assert time.monotonic() < end, program(engine, backed, "now", "--kind", "all")
        time.sleep(5)
    code, said = program(engine, backed, "verify")
    assert code == 0, said


@contextmanager
def one_byte_changed(path: Path) -> Iterator[None]:
    """Another byte in the middle of a file, its time as it was, as a bad disk does it."""
    times, middle = path.stat(), path.stat().st_size // 2

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(middle)
            byte = file.read(1)[0]
            file.seek(middle)
            file.write(bytes([byte ^ 0x20]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    flip()
    try:
        yield
    finally:
        flip()


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("base", "barman/*/base/{id}/data/base.tar.gz"),
        ("dump", "dumps/{id}.dump"),
        ("redis", "redis/{id}.rdb"),
        ("wal", "barman/*/wals/*/????????????????????????"),
    ],
)
def test_one_changed_byte_is_found_by_verification_before_it_is_needed(
    backed: Workspace, engine: docker.DockerClient, disk: Path | None, kind: str, pattern: str
) -> None:
    if disk is None:
        pytest.skip("only root can look into the volume")
    name = "" if kind == "wal" else newest(backed, kind).id
    path = max(disk.glob(pattern.format(id=name)), key=lambda each: each.stat().st_mtime)
    if kind == "wal":
        # A segment that was archived this second is checked by gzip alone, which does not see each wrong bit.
        ledger = path.parents[2] / "samokoder-wal.sha256"
        assert path.name in until(ledger.read_text, lambda noted: path.name in noted, PATIENCE_SECONDS), "never noted"
    assert program(engine, backed, "verify")[0] == 0, "all is good before"
    with one_byte_changed(path):
        code, said = program(engine, backed, "verify")
        assert code == 1, f"{path}: {said}"
        assert (name or path.name) in said, "which one it is"
        if name:
            assert next(each for each in backups.backups(backed)[0] if each.id == name).status == "bad"
            with pytest.raises(ProjectError, match=r"bad.*\nNothing was stopped or changed"):
                restore.restore(backed, up=bring_up, backup=name)
    code, said = program(engine, backed, "verify")
    assert code == 0, said


def test_a_drill_under_load_proves_the_backups_and_leaves_nothing(
    backed: Workspace, engine: docker.DockerClient, disk: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    backups.now(backed, "base")
    writers = Writers(url(backed.settings(), "ingress"))
    with writers.at_work():
        time.sleep(10)
        report = backups.drill(backed)
    told(capsys, f"drill: RPO {report['rpo']:.1f} s, RTO {report['rto']:.1f} s, {report['rows']}")
    assert report["rpo"] <= RPO_SECONDS
    assert report["rows"]["public.projects"] > 0
    assert not writers.failed, "the drill took the application's breath away"
    assert disk is None or not list(disk.glob("scratch/*"))
    page = containers.find(engine, backed.settings(), "backup").exec_run(
        [
            "python3",
            "-c",
            f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{part.PORT}/metrics').read())",
        ]
    )
    assert b"backup_restore_test_rto_seconds" in page.output


def test_a_restore_that_is_killed_at_each_of_its_steps_is_finished_by_running_it_again(
    backed: Workspace, engine: docker.DockerClient
) -> None:
    write(backed, "to be there")
    wait_until_received(engine, backed)
    time.sleep(1)
    path = backed.folder / f"restore.{backed.name}.json"
    wish: dict[str, str] = {"to": str(datetime.now(UTC))}
    time.sleep(1)
    write(backed, "not to be there")
    wait_until_received(engine, backed)
    for last in ("check", "restore", "room", "keep-postgres", "put-postgres", "start"):
        process = begin(backed, f"restore.restore(workspace, up=bring_up, **{wish!r})")
        end = time.monotonic() + PATIENCE_SECONDS
        while (journal := Journal.read(path)) is None or last not in journal.done:
            assert process.poll() is None, f"it was over before it could be killed after {last}"
            assert time.monotonic() < end, f"it never came past {last}"
            time.sleep(0.02)
        time.sleep(0.4)  # into the next step
        cut_off(process)
        wish = {}
    restore.restore(backed, up=bring_up)
    assert {"to be there", "not to be there"} & names(engine, backed) == {"to be there"}
    rows = live_status(backed)
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    mine: dict[str, str | list[str] | bool] = {"label": f"{one_off.RESTORE}={backed.name}"}
    assert not engine.containers.list(all=True, filters=mine), "a container was left"
    assert not [name for name in own_volumes(engine, backed) if "-restored-" in name]
    backed.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)


def dies_at(step: str, first: str = "None") -> str:
    """Words before a call for `begin`: the process is killed when it comes to this step of a restore.

    first: what it does before that.
    """
    return f"setattr(steps.Restore, {step!r}, lambda *_: ({first}, {KILL})) or "


def killed_while_it_restores_a_dump(workspace: Workspace, dies: str, *, has: str, lacks: str) -> None:
    """Dump the database, and let a restore of that die. dies: words before its call. has, lacks: rows of it."""
    write(workspace, has)
    backups.now(workspace, "dump")
    taken = newest(workspace, "dump").id
    write(workspace, lacks)
    process = begin(workspace, f"{dies}restore.restore(workspace, up=bring_up, backup={taken!r})")
    assert process.wait(PATIENCE_SECONDS) == -9


def test_what_is_written_after_a_restore_was_cut_off_is_in_what_its_end_sets_aside(
    backed: Workspace, engine: docker.DockerClient
) -> None:
    write(backed, "of before")
    wait_until_received(engine, backed)
    time.sleep(1)
    wish = {"to": str(datetime.now(UTC))}
    time.sleep(1)
    write(backed, "of after")
    wait_until_received(engine, backed)
    waits = backed.folder / "waits"
    waits.touch()
    gone = f"any(__import__('time').sleep(0.1) for _ in iter(Path({str(waits)!r}).exists, False))"
    process = begin(backed, f"{dies_at('_put', gone)}restore.restore(workspace, up=bring_up, **{wish!r})")
    path = backed.folder / f"restore.{backed.name}.json"
    assert until(path.exists, bool), "it never began"
    before = containers.ids(engine, backed.name)
    deploy = ImageDeploy(workspace=backed, before=Version(), wanted=Version())
    client, environment = backed.client(), backed.settings()
    refused: Mapping[str, Callable[[], object]] = {
        "up": lambda: bring_up(backed, interactive=False),
        "down": lambda: take_down(backed, interactive=False),
        "deploy": lambda: deploy.run(None, interactive=False),
        "rotate": lambda: rotate.rotate(backed, "redis-app", interactive=False),
        "restart": lambda: restart(backed, "api"),
        "backup": lambda: backups.now(backed, "dump"),
        "drill": lambda: backups.drill(backed),
        "restore": lambda: restore.restore(backed, up=bring_up, backup="latest"),
        "repair": lambda: repair.opened(backed, "redis", up=bring_up).__enter__(),
        "import": lambda: import_on_engine.EngineImport(client, environment, backed).alone().__enter__(),
    }
    for name, call in refused.items():
        assert process.poll() is None, f"it was over before `{name}` came"
        began = time.monotonic()
        with pytest.raises(ProjectError, match=rf"`restore` since 20.* \(process {process.pid} of "):
            call()
        assert time.monotonic() - began < REFUSED_SECONDS, f"`{name}` waits for a lock that it cannot get"
    assert containers.ids(engine, backed.name) == before, "a second terminal changed something during a restore"
    waits.unlink()
    assert process.wait(PATIENCE_SECONDS) == -9
    journal = Journal.read(path)
    assert journal is not None
    assert "keep-postgres" in journal.done
    assert not journal.half
    rows = bring_up(backed, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    for name in ("acknowledged", "acknowledged too"):
        write(backed, name)
    done = restore.restore(backed, up=bring_up)
    written = {"of before", "of after", "acknowledged", "acknowledged too"}
    assert written & names(engine, backed) == {"of before"}
    restore.restore(backed, up=bring_up, source=done.set_aside[-1])
    assert written <= names(engine, backed), "`What was there before is in …`: it was acknowledged, and is nowhere"


def test_a_replacement_that_was_pruned_between_two_tries_is_made_again(
    backed: Workspace, engine: docker.DockerClient
) -> None:
    for left in ("gone", "empty"):
        killed_while_it_restores_a_dump(backed, dies_at("_put"), has="to be restored", lacks="of after the dump")
        (made,) = [name for name in own_volumes(engine, backed) if "-postgres-restored-" in name]
        engine.volumes.get(made).remove()
        if left == "empty":
            engine.volumes.create(made)
        restore.restore(backed, up=bring_up)
        there = {"to be restored", "of after the dump"} & names(engine, backed)
        assert there == {"to be restored"}, "an empty database was put in place"
    empty = f"samokoder-{backed.name}-postgres-before-restore-20200101T000000Z"
    engine.volumes.create(empty)
    with pytest.raises(ProjectError, match=f"{empty} is gone, empty or incomplete"):
        restore.restore(backed, up=bring_up, source=empty)
    assert "to be restored" in names(engine, backed)
    engine.volumes.get(empty).remove()
    write(backed, "it serves")


def test_an_up_in_the_middle_of_a_replacement_never_makes_a_new_database(
    backed: Workspace, engine: docker.DockerClient
) -> None:
    """Where PG_VERSION is not there yet and the marker is, PostgreSQL ends, and what is there is left alone."""
    image = containers.find(engine, backed.settings(), "postgres").attrs["Image"]
    volume = f"samokoder-test-{secrets.token_hex(4)}"
    engine.volumes.create(volume)
    mounts = {volume: {"bind": actions.INTO}}
    try:
        touch = ["-c", f"echo cut > {actions.INTO}/.samokoder-copying"]
        engine.containers.run(image, touch, entrypoint="sh", user="999:999", volumes=mounts, remove=True)
        with pytest.raises(docker.errors.ContainerError):
            engine.containers.run(
                image, ["postgres"], user="999:999", volumes=mounts, environment={"POSTGRES_PASSWORD": "x"}, remove=True
            )
        listing = engine.containers.run(image, ["-A", actions.INTO], entrypoint="ls", volumes=mounts, remove=True)
        assert listing.split() == [b".samokoder-copying"]
    finally:
        engine.volumes.get(volume).remove()


def test_a_backup_by_another_version_of_the_image_is_restored(backed: Workspace, engine: docker.DockerClient) -> None:
    write(backed, "by the version before")
    backups.now(backed, "base")
    taken = newest(backed, "base")
    before = containers.ids(engine, backed.name)
    carrier = engine.containers.create(backed.settings().image("backup"))
    other = carrier.commit(changes="LABEL samokoder.test=another")
    carrier.remove(v=True)
    newer = with_config(backed, {"samokoder:images": {"backup": other.id}})
    try:
        bring_up(newer, interactive=False)
        assert containers.ids(engine, backed.name)["backup"] != before["backup"], "it is no other image"
        restore.restore(newer, up=bring_up, backup=taken.id)
        assert "by the version before" in names(engine, newer)
    finally:
        bring_up(backed, interactive=False)
        for image in engine.images.list(filters={"label": "samokoder.test=another"}):
            engine.images.remove(str(image.id), force=True)


def test_a_fresh_machine_gets_everything_from_the_off_site_copy_alone(
    backed: Workspace,
    engine: docker.DockerClient,
    bucket: tuple[Workspace, Container],
    disk: Path | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(backed, "elsewhere too")
    wait_until_received(engine, backed)
    backups.now(backed, "base")
    # The tests before have lost databases: with more than one in the bucket, whoever restores has to name the moment.
    last = max(each.until for each in backups.backups(backed)[0] if each.until)
    code, said = program(engine, backed, "offsite", "sync")
    assert code == 0, said
    old, machine = backed.open().secrets(), bucket[1]
    edge(engine, backed).disconnect(machine, force=True)
    aside = volume_names.set_aside(engine, backed.settings())
    assert aside, "the tests before this one have restored"
    shown = {each.name: each for each in data_volumes(backed)}
    assert all("set aside by a restore" in shown[name].origin for name in aside), "it is told what goes"
    assert max(shown[name].bytes or 0 for name in aside) > 2**20, "and how large it is: a database is among them"
    assert own_volumes(engine, backed) >= set(destroy_data(backed, interactive=False)) >= set(aside)
    assert not {name for name in own_volumes(engine, backed) if "-data" in name or "restore" in name}
    if disk:
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    bring_up(backed, interactive=False)
    edge(engine, backed).connect(machine, aliases=[MACHINE])
    assert backed.open().secrets()["postgres-superuser"] != old["postgres-superuser"], "it is no fresh machine"
    wait_for_backups(backed)  # of the empty database, which must not take the place of the others in the bucket
    code, said = program(engine, backed, "offsite", "sync")
    assert code == 2, f"it sent an empty machine's backups: {said}"
    began = time.monotonic()
    restore.restore(backed, up=bring_up, to=str(last), source="offsite")
    told(capsys, f"off-site on a fresh machine took {time.monotonic() - began:.0f} s")
    assert "elsewhere too" in names(engine, backed)
    write(backed, "and it serves")
    rows = live_status(backed)
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    end = time.monotonic() + PATIENCE_SECONDS
    while program(engine, backed, "offsite", "sync")[0] != 0:
        assert time.monotonic() < end, "the machine that took over does not go on with the copies"
        time.sleep(5)
