"""Off-site copies by restic to a real S3 server on loopback, and what goes wrong there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host.packages import install_packages
from host.progress import Reporter
from samokoder_backup import offsite, restic
from samokoder_backup.process import BackupError, CannotError
from samokoder_backup.settings import Offsite
from tests.backup_image.s3_server import ADDING, BUCKET, REGION, Fault, FaultyProxy, S3Server, built, faulty_proxy

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[2]
PREFIX = "staging/samokoder"
PATIENCE_SECONDS = 120.0
MIB = 2**20


@pytest.fixture(scope="session")
def server_program() -> Path:
    """Build the S3 server; install Debian's restic, which is the image's too, when it is not here."""
    if shutil.which("restic") is None:
        install_packages(["restic"], report=Reporter().say)
    assert shutil.which("restic"), "the package `restic` brought no restic"
    return built()


@dataclass(frozen=True)
class Machine:
    """A machine with backups, as the container sees it."""

    root: Path
    secrets: Path
    settings: Offsite

    def with_(self, **settings: object) -> Machine:
        return Machine(self.root, self.secrets, self.settings.model_copy(update=settings))

    def sync(self, *, adopt: bool = False) -> None:
        offsite.sync(self.settings, root=self.root, secrets=self.secrets, adopt=adopt)

    def check(self, read: str = "100%") -> None:
        offsite.check(self.settings, root=self.root, secrets=self.secrets, read=read)

    def pull(self, snapshot: str = "latest") -> None:
        offsite.pull(self.settings, root=self.root, secrets=self.secrets, snapshot=snapshot)

    def snapshots(self) -> list[restic.Snapshot]:
        return offsite.snapshots(self.settings, root=self.root, secrets=self.secrets)

    def own(self, name: str, path: Path) -> Machine:
        """Another machine with the same keys, and with nothing on it yet."""
        root = path / name
        root.mkdir()
        return Machine(root, self.secrets, self.settings)

    def state(self) -> dict[str, tuple[str, int, int]]:
        """All of its backups: what is in each file, its mode and its time."""
        return {
            str(path.relative_to(self.root)): (
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
                path.stat().st_mode,
                path.stat().st_mtime_ns if path.is_file() else 0,
            )
            for folder in offsite.FOLDERS
            for path in sorted((self.root / folder).rglob("*"))
        }

    def add(self, name: str, size: int = MIB) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(os.urandom(size))

    def apart(self, what: str = "sync") -> subprocess.Popen[str]:
        """Run it in a process group of its own, which can be killed as a container is."""
        code = (
            "import sys; from pathlib import Path; from samokoder_backup import offsite, settings\n"
            f"offsite.{what}(settings.Offsite.model_validate_json(sys.argv[1]), root=Path(sys.argv[2]),"
            " secrets=Path(sys.argv[3]))"
        )
        words = [self.settings.model_dump_json(), str(self.root), str(self.secrets)]
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "backup_image")},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def killed(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_SECONDS)


def wait_for(what: str, ask: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not ask():
        assert time.monotonic() < end, f"no sign of {what}"
        time.sleep(0.02)


def sends_data(method: str, path: str) -> bool:
    return method == "PUT" and "/data/" in path


@pytest.fixture
def server(server_program: Path, tmp_path: Path) -> Iterator[S3Server]:
    """Start a server whose user may add, and may delete locks alone."""
    server = S3Server(server_program, tmp_path / "server").start()
    server.make_bucket()
    server.allow(all=ADDING, locks=("s3:DeleteObject",))
    yield server
    server.stop()


def _machine(server: S3Server, endpoint: str, path: Path) -> Machine:
    root, secrets = path / "backups", path / "secrets"
    root.mkdir()
    secrets.mkdir()
    for name, value in (
        ("offsite_access_key_id", server.access_key),
        ("offsite_secret_access_key", server.secret_key),
        ("encryption_key", "5f0c9d1e" * 8),
    ):
        (secrets / name).write_text(f"{value}\n")
    settings = Offsite(endpoint=endpoint, bucket=BUCKET, prefix=PREFIX, region=REGION, sync_minutes=5, keep_days=0)
    machine = Machine(root, secrets, settings)
    machine.add("barman/main/base/20261126T020000/data/base.tar", 3 * MIB)
    machine.add("barman/main/streaming/000000010000000000000003.partial")
    machine.add("barman/main/wals/0000000100000000/000000010000000000000002")
    machine.add("dumps/dump-20261126T030000Z.dump", 2 * MIB)
    machine.add("redis/redis-20261126T040000Z/dump.rdb")
    (root / "barman" / "main" / "base" / "latest").symlink_to("20261126T020000")
    (root / "state.json").write_text("{}")
    return machine


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(server) as proxy:
        yield proxy


@pytest.fixture
def machine(server: S3Server, proxy: FaultyProxy, tmp_path: Path) -> Machine:
    """Make a machine that speaks to the server through the proxy, which lets all pass at first."""
    return _machine(server, proxy.endpoint, tmp_path)


def test_what_was_sent_comes_back_equal_on_a_machine_that_has_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.sync()
    machine.add("barman/main/wals/0000000100000000/000000010000000000000003")
    machine.sync()
    machine.check()
    assert len(machine.snapshots()) == 2
    fresh = machine.own("fresh", tmp_path)
    fresh.pull()
    assert fresh.state() == machine.state()
    assert str((fresh.root / "barman/main/base/latest").readlink()) == "20261126T020000"
    assert sorted(path.name for path in fresh.root.iterdir()) == ["barman", "dumps", "offsite", "redis"]
    fresh.sync()
    assert len(machine.snapshots()) == 3, "whoever has pulled goes on there"


def test_an_older_state_can_be_pulled(machine: Machine, tmp_path: Path) -> None:
    machine.sync()
    before = machine.state()
    shutil.rmtree(machine.root / "dumps")
    machine.sync()
    fresh = machine.own("fresh", tmp_path)
    with pytest.raises(CannotError, match="has no copy 00000000"):
        fresh.pull("00000000")
    fresh.pull(machine.snapshots()[0].id)
    assert fresh.state() == before


def test_nothing_in_the_bucket_is_readable_without_the_key(machine: Machine, server: S3Server) -> None:
    (machine.root / "dumps" / "known").write_bytes(b"a word that is in the backup " * 1000)
    machine.sync()
    stored = [path.read_bytes() for path in server.objects.rglob("*") if path.is_file()]
    assert stored
    assert not any(b"a word that is in the backup" in content or b"barman" in content for content in stored)


def test_pull_touches_no_backups_that_are_there(machine: Machine, tmp_path: Path) -> None:
    machine.sync()
    other = machine.own("other", tmp_path)
    other.add("redis/own")
    before = other.state()
    with pytest.raises(CannotError, match=r"has backups in it already \(redis\)"):
        other.pull()
    assert other.state() == before


def test_pull_says_at_once_that_there_is_no_room(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.sync()
    fresh = machine.own("fresh", tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=MIB))
    with pytest.raises(CannotError, match=r"needs 8,\d{3},\d{3} bytes and .* has 1,048,576 free"):
        fresh.pull()
    assert fresh.state() == {}


def test_pull_from_an_empty_bucket_and_from_an_empty_repository_is_said(machine: Machine, tmp_path: Path) -> None:
    fresh = machine.own("fresh", tmp_path)
    with pytest.raises(CannotError, match="There is no repository at s3:http"):
        fresh.pull()
    assert _restic(machine, "init").wait(PATIENCE_SECONDS) == 0
    with pytest.raises(CannotError, match="holds no copy yet"):
        fresh.pull()


def test_an_empty_new_machine_does_not_bury_the_copies_of_the_lost_one(machine: Machine, tmp_path: Path) -> None:
    machine.sync()
    fresh = machine.own("fresh", tmp_path)
    fresh.add("dumps/of-an-empty-database")
    with pytest.raises(CannotError, match="holds the copies of another machine"):
        fresh.sync()
    assert len(machine.snapshots()) == 1
    fresh.sync(adopt=True)
    fresh.sync()
    assert len(machine.snapshots()) == 3


def test_a_repository_that_is_gone_is_not_silently_begun_anew(machine: Machine, server: S3Server) -> None:
    machine.sync()
    shutil.rmtree(server.objects / PREFIX)
    with pytest.raises(CannotError, match=r"The repository that was at .* is gone"):
        machine.sync()
    assert not (server.objects / PREFIX).exists()
    machine.sync(adopt=True)
    machine.check()


def test_a_wrong_encryption_key_is_said_in_a_sentence(machine: Machine, tmp_path: Path) -> None:
    machine.sync()
    key = machine.secrets / "encryption_key"
    right = key.read_text()
    key.write_text("another key of the same length, or so it seems to be, but it is not")
    fresh = machine.own("fresh", tmp_path)
    for work in (machine.sync, machine.check, fresh.pull, fresh.sync):
        with pytest.raises(
            CannotError, match=r"^The encryption key is not the one that s3:http.* was made with\."
        ) as told:
            work()
        assert key.read_text() not in str(told.value)
    key.write_text(right)
    machine.sync()
    assert fresh.state() == {}


def test_a_repository_without_a_key_that_fits_its_configuration_is_said(machine: Machine, server: S3Server) -> None:
    machine.sync()
    config = server.objects / PREFIX / "config"
    config.write_bytes(os.urandom(config.stat().st_size))
    with pytest.raises(CannotError, match="was left half made, or is damaged"):
        machine.sync()


def test_a_missing_secret_is_named(machine: Machine) -> None:
    (machine.secrets / "offsite_secret_access_key").unlink()
    with pytest.raises(CannotError, match=r"offsite_secret_access_key.*No such file"):
        machine.sync()


def test_credentials_that_cannot_delete_are_enough(
    machine: Machine, server: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.allow(all=ADDING)
    began = time.monotonic()
    machine.sync()
    machine.add("dumps/next")
    machine.sync()
    assert time.monotonic() - began < 60, "restic alone would ask for its lock's removal for two minutes each time"
    assert len(server.named("locks")) == 2, "a lock file stays for each copy"
    said = capfd.readouterr().err
    assert said.count("leaves a lock file in the bucket") == 1, "said once, not every five minutes"
    machine.check()
    assert len(server.named("locks")) == 2, "reading leaves none"
    fresh = machine.own("fresh", tmp_path)
    fresh.pull()
    assert fresh.state() == machine.state()


def test_where_only_locks_can_be_deleted_none_stays(machine: Machine, server: S3Server) -> None:
    machine.sync()
    assert server.named("snapshots")
    assert not server.named("locks")


def test_old_copies_stay_where_the_credentials_cannot_delete_and_further_ones_are_made(
    machine: Machine, server: S3Server
) -> None:
    machine = machine.with_(keep_days=7)
    server.allow(all=ADDING)
    for number in range(1, 3):
        with pytest.raises(CannotError, match=r"^The copy was made, but .* the credentials may not delete"):
            machine.sync()
        assert len(server.named("snapshots")) == number
    machine.check()


def test_old_copies_are_removed_where_that_is_wanted_and_the_newest_always_stays(
    machine: Machine, server: S3Server, tmp_path: Path
) -> None:
    server.allow(all=(*ADDING, "s3:DeleteObject"))
    machine.sync()
    for day in ("2026-01-01", "2026-01-02"):
        machine.add("dumps/old")
        made = _restic(machine, "backup", "--host=samokoder", f"--time={day} 00:00:00", "dumps")
        assert made.wait(PATIENCE_SECONDS) == 0
    (machine.root / "dumps" / "old").unlink()
    stored = sum(path.stat().st_size for path in server.named("data"))
    machine = machine.with_(keep_days=7)
    machine.sync()
    assert len(machine.snapshots()) == 2
    assert sum(path.stat().st_size for path in server.named("data")) < stored - MIB
    machine.check()
    fresh = machine.own("fresh", tmp_path)
    fresh.pull()
    assert fresh.state() == machine.state()


def test_a_copy_of_a_time_to_come_lets_no_other_go_and_is_not_taken_for_the_newest(
    machine: Machine, server: S3Server, tmp_path: Path
) -> None:
    server.allow(all=(*ADDING, "s3:DeleteObject"))
    machine.sync()
    machine.add("dumps/old")
    made = _restic(machine, "backup", "--host=samokoder", "--time=2099-01-01 00:00:00", "dumps")
    assert made.wait(PATIENCE_SECONDS) == 0
    (machine.root / "dumps" / "old").unlink()
    with pytest.raises(CannotError, match=r"^The copy was made, but .* the clock was ahead .* of 2099-01-01"):
        machine.with_(keep_days=7).sync()
    assert len(machine.snapshots()) == 3, "restic counts back from the newest: all but that one would be gone"
    fresh = machine.own("fresh", tmp_path)
    fresh.pull()
    assert fresh.state() == machine.state(), "what was written since would be missing"


def _restic(machine: Machine, *words: str) -> subprocess.Popen[bytes]:
    """Start restic as a person would."""
    return subprocess.Popen(
        ["restic", *words],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(machine.root.parent),
            "RESTIC_REPOSITORY": f"s3:{machine.settings.endpoint}/{BUCKET}/{PREFIX}",
            "RESTIC_PASSWORD_FILE": str(machine.secrets / "encryption_key"),
            "AWS_ACCESS_KEY_ID": (machine.secrets / "offsite_access_key_id").read_text().strip(),
            "AWS_SECRET_ACCESS_KEY": (machine.secrets / "offsite_secret_access_key").read_text().strip(),
            "AWS_DEFAULT_REGION": REGION,
        },
        cwd=machine.root,
    )


def test_while_the_server_is_down_nothing_is_lost_and_the_service_tries_again_sooner(
    machine: Machine, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsite, "FIRST_PAUSE_SECONDS", 0.1)
    machine = machine.with_(endpoint=server.endpoint)
    before = machine.state()
    server.stop()
    told: list[tuple[int, str]] = []
    service, wake, stop = _service(machine, lambda code, text: told.append((code, text)))
    try:
        wait_for("two failures", lambda: len(told) >= 2)
        assert {code for code, _ in told} == {BackupError.status}
        assert "connection refused" in told[0][1]
        server.start()
        wait_for("a success", lambda: told[-1][0] == 0)
        count = len(told)
        time.sleep(1)
        assert len(told) == count, "five minutes until the next"
        wake.set()
        wait_for("another success", lambda: len(told) > count)
        assert told[-1] == (0, "")
    finally:
        stop.set()
        service.join(PATIENCE_SECONDS)
    assert not service.is_alive()
    assert machine.state() == before
    machine.check()


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 300), (1, 15), (2, 30), (3, 60), (4, 120), (5, 240), (6, 300), (1000, 300)]
)
def test_the_pause_after_failures_grows_up_to_the_usual_one(failures: int, seconds: float) -> None:
    settings = Offsite(endpoint="https://x", bucket="b", prefix="", region="", sync_minutes=5, keep_days=0)
    assert offsite.pause(settings, failures) == seconds


@pytest.mark.parametrize("secret", ["offsite_access_key_id", "offsite_secret_access_key"])
def test_wrong_credentials_are_a_refusal_that_shows_none_of_them(machine: Machine, secret: str) -> None:
    (machine.secrets / secret).write_text("WRONG0123456789")
    before, began = machine.state(), time.monotonic()
    with pytest.raises(CannotError, match="refused the request: the credentials are wrong") as told:
        machine.sync()
    assert time.monotonic() - began < 30
    for path in machine.secrets.iterdir():
        assert path.read_text().strip() not in str(told.value)
    assert machine.state() == before


def test_rights_that_are_taken_away_are_a_refusal_and_given_back_the_copy_goes_on(
    machine: Machine, server: S3Server
) -> None:
    machine.sync()
    before = machine.state()
    for rights in ({}, {"all": ("s3:GetObject",)}):
        server.allow(**rights)
        began = time.monotonic()
        with pytest.raises(CannotError, match="refused the request"):
            machine.sync()
        assert time.monotonic() - began < 30, "a refusal is not asked for ten times"
    assert machine.state() == before
    server.allow(all=ADDING, locks=("s3:DeleteObject",))
    machine.sync()
    machine.check()


def test_a_server_that_hangs_is_given_up(machine: Machine, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.sync()
    machine.add("dumps/next", 4 * MIB)
    proxy.judge = lambda method, path: Fault(hang=True) if sends_data(method, path) else None
    with monkeypatch.context() as patched:
        patched.setattr(restic, "STALLED_SECONDS", 3.0)
        with pytest.raises(BackupError, match="has not sent or taken anything for 3 seconds"):
            machine.sync()
    proxy.judge = lambda _method, _path: None
    machine.sync()
    machine.check()


def test_a_slow_server_is_waited_for(machine: Machine, proxy: FaultyProxy) -> None:
    proxy.judge = lambda method, path: Fault(bytes_per_second=1_000_000) if sends_data(method, path) else None
    machine.sync()
    machine.check()


def test_whoever_still_reads_or_writes_is_not_given_up(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "restic"
    slow.write_text("#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do printf %050000d 0 >&2; sleep 0.5; done\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(restic, "STALLED_SECONDS", 5.0)
    began = time.monotonic()
    machine.check()
    assert time.monotonic() - began > 5


def test_the_service_can_be_stopped_in_the_middle_of_a_copy(machine: Machine, proxy: FaultyProxy) -> None:
    machine.add("dumps/large", 24 * MIB)
    proxy.judge = lambda method, path: Fault(bytes_per_second=200_000) if sends_data(method, path) else None
    told: list[int] = []
    service, _, stop = _service(machine, lambda code, _: told.append(code))
    wait_for("data under way", lambda: any(sends_data(*request) for request in proxy.requests))
    stop.set()
    service.join(PATIENCE_SECONDS)
    assert not service.is_alive()
    assert told == [], "that is no failure"
    proxy.judge = lambda _method, _path: None
    machine.sync()
    machine.check()


def _service(
    machine: Machine, report: Callable[[int, str], None]
) -> tuple[threading.Thread, threading.Event, threading.Event]:
    wake, stop = threading.Event(), threading.Event()
    words = {"wake": wake, "stop": stop, "report": report, "root": machine.root, "secrets": machine.secrets}
    service = threading.Thread(target=offsite.serve, args=[machine.settings], kwargs=words)
    service.start()
    return service, wake, stop


@pytest.mark.parametrize(
    "fault",
    [Fault(cut_after=200_000), Fault(answer="500 Internal Server Error"), Fault(answer="503 Slow Down")],
    ids=["connections cut", "answer 500", "answer 503"],
)
def test_errors_in_the_middle_of_the_transfer_are_overcome(
    machine: Machine, proxy: FaultyProxy, tmp_path: Path, fault: Fault
) -> None:
    left = [5]

    def spoil(method: str, path: str) -> Fault | None:
        if not sends_data(method, path) or not left[0]:
            return None
        left[0] -= 1
        return fault

    proxy.judge = spoil
    machine.sync()
    assert left == [0]
    machine.check()
    fresh = machine.own("fresh", tmp_path)
    fresh.pull()
    assert fresh.state() == machine.state()


def test_a_full_server_fails_the_copy_and_with_room_again_the_next_one_repairs_it(
    server_program: Path, tmp_path: Path
) -> None:
    small = tmp_path / "server"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
    # Not every kernel gives a tmpfs extended attributes.
    metadata = tmp_path / "metadata"
    metadata.mkdir()
    server = S3Server(server_program, small, metadata)
    try:
        server.start()
        server.make_bucket()
        server.allow(all=ADDING, locks=("s3:DeleteObject",))
        machine = _machine(server, server.endpoint, tmp_path)
        before = machine.state()
        with pytest.raises(BackupError, match="restic ended with 1"):
            machine.sync()
        assert machine.state() == before
        assert not server.named("snapshots"), "a copy that is not whole does not count as one"
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        machine.sync()
        machine.check()
        fresh = machine.own("fresh", tmp_path)
        fresh.pull()
        assert fresh.state() == before
    finally:
        server.stop()
        subprocess.run(["umount", small], check=True)


def test_a_copy_that_is_killed_in_the_middle_is_repaired_by_the_next(
    machine: Machine, server: S3Server, proxy: FaultyProxy, tmp_path: Path
) -> None:
    machine.sync()
    machine.add("dumps/next", 24 * MIB)
    before = machine.state()
    proxy.judge = lambda method, path: Fault(bytes_per_second=200_000) if sends_data(method, path) else None
    proxy.requests.clear()
    process = machine.apart()
    wait_for("data under way", lambda: any(sends_data(*request) for request in proxy.requests))
    _no_secret_is_to_be_seen(machine, process.pid)
    killed(process)
    assert machine.state() == before
    assert len(server.named("locks")) == 1, "its lock is still there"
    proxy.judge = lambda _method, _path: None
    machine.sync()
    machine.check()
    assert len(machine.snapshots()) == 2
    fresh = machine.own("fresh", tmp_path)
    fresh.pull()
    assert fresh.state() == before


def _no_secret_is_to_be_seen(machine: Machine, pid: int) -> None:
    """Look at the running restic as others on the machine can, and at what lies on the disk."""
    restic = next(
        path
        for path in Path("/proc").glob("[0-9]*")
        if (path / "cmdline").read_bytes().startswith(b"restic\0") and os.getpgid(int(path.name)) == pid
    )
    files = [path for path in (machine.root / "offsite").rglob("*") if path.is_file()]
    for path in (restic / "cmdline", restic / "environ", *files):
        content = path.read_bytes()
        for secret in machine.secrets.iterdir():
            assert secret.read_bytes().strip() not in content, f"{secret.name} is in {path}"
    assert b"RESTIC_PASSWORD_FILE" in (restic / "environ").read_bytes(), "this was the place to look at"


def test_an_exclusive_lock_of_a_killed_clean_up_ends_with_the_next_copy(
    machine: Machine, server: S3Server, proxy: FaultyProxy
) -> None:
    machine.sync()
    proxy.judge = lambda method, path: Fault(hang=True) if method == "GET" and "/index/" in path else None
    cleaning = _restic(machine, "prune", "--no-cache")
    wait_for("its lock", lambda: server.named("locks"))
    cleaning.kill()
    cleaning.wait()
    proxy.judge = lambda _method, _path: None
    machine.sync()
    assert not server.named("locks")
    machine.check()


def test_a_pull_that_is_killed_leaves_no_backups_and_can_be_started_again(
    machine: Machine, proxy: FaultyProxy, tmp_path: Path
) -> None:
    machine.add("dumps/large", 24 * MIB)
    machine.sync()
    fresh = machine.own("fresh", tmp_path)
    proxy.judge = lambda method, path: Fault(bytes_per_second=200_000) if "/data/" in path else None
    proxy.requests.clear()
    process = fresh.apart("pull")
    wait_for("data under way", lambda: any("/data/" in path for _, path in proxy.requests))
    killed(process)
    assert [path.name for path in fresh.root.iterdir()] == ["offsite"]
    proxy.judge = lambda _method, _path: None
    fresh.pull()
    assert fresh.state() == machine.state()
    assert not (fresh.root / "offsite" / "pulled").exists()


def test_a_pull_that_is_interrupted_at_its_very_end_is_brought_to_it(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.sync()
    fresh = machine.own("fresh", tmp_path)
    rename = Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if path.name == "redis":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            fresh.pull()
    fresh.pull()
    assert fresh.state() == machine.state()


def test_a_byte_that_rots_in_the_bucket_is_found_by_the_check_and_by_the_pull(
    machine: Machine, server: S3Server, tmp_path: Path
) -> None:
    machine.sync()
    pack = max(server.named("data"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.write_bytes(content)
    with pytest.raises(BackupError, match="restic ended with 1"):
        machine.check()
    fresh = machine.own("fresh", tmp_path)
    with pytest.raises(BackupError, match="restic ended with 1"):
        fresh.pull()
    assert fresh.state() == {}
    assert not (fresh.root / "offsite" / "pulled").exists()


def test_an_object_that_is_gone_from_the_bucket_is_found_without_reading_the_data(
    machine: Machine, server: S3Server
) -> None:
    machine.sync()
    # Not one with the names of files: for those restic asks ten times.
    max(server.named("data"), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(BackupError, match="restic ended with 1"):
        machine.check(read="")


def test_files_that_go_while_they_are_copied_are_no_failure_and_unreadable_ones_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.sync()
    # Root may read everything: a folder in the place of a name that was a file is what it cannot open as one.
    run = restic.Restic.run
    gone = json.dumps({"message_type": "error", "item": "barman/main/streaming/gone"})
    there = json.dumps({"message_type": "error", "item": "dumps/dump-20261126T030000Z.dump"})

    def with_error(line: str) -> Callable[..., restic.ResticRun]:
        def changed(it: restic.Restic, words: list[str]) -> restic.ResticRun:
            told = run(it, words)
            told.out, told.code = f"{line}\n{told.out}", 3
            return told

        return changed

    monkeypatch.setattr(restic.Restic, "run", with_error(gone))
    machine.sync()
    monkeypatch.setattr(restic.Restic, "run", with_error(there))
    with pytest.raises(BackupError, match=r"without what could not be read: dumps/dump-20261126T030000Z\.dump"):
        machine.sync()


def test_a_machine_without_any_backups_sends_nothing(machine: Machine, tmp_path: Path) -> None:
    fresh = machine.own("fresh", tmp_path)
    with pytest.raises(BackupError, match="There is nothing to copy yet"):
        fresh.sync()


def test_one_run_waits_for_another(machine: Machine, proxy: FaultyProxy) -> None:
    proxy.judge = lambda method, path: Fault(bytes_per_second=1_000_000) if sends_data(method, path) else None
    first = machine.apart()
    wait_for("data under way", lambda: any(sends_data(*request) for request in proxy.requests))
    machine.sync()
    said, _ = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode == 0, said
    assert len(machine.snapshots()) == 2
