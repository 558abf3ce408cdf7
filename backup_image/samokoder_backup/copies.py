"""Dumps of the database and copies of Redis: files that count once their description lies beside them.

The description (`<id>.json`: checksum, when, what) is written last, after the file has been read back by the program
that would restore it. So whatever was cut off has none, does not count, and goes at the next run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from samokoder_backup import database
from samokoder_backup import settings as at
from samokoder_backup.process import BackupError, run, say, sha256, sync, write
from samokoder_backup.settings import Kind, Redis, Settings

_STAMP = "%Y%m%dT%H%M%SZ"
_LOAD_SECONDS = 3600.0


@dataclass(frozen=True)
class Copy:
    """One dump, or one copy of Redis."""

    id: str
    kind: Kind
    path: Path
    finished: datetime
    """The moment that it has, nearly: it was begun then."""
    bytes: int
    sha256: str
    roles: tuple[str, ...]
    """Of a dump: who may own what is in it."""
    keys: int
    """Of Redis: how many there are."""


def copies(kind: Kind) -> list[Copy]:
    """Return the copies of a kind, the oldest first."""
    folder, suffix = _place(kind)
    found = []
    for note in sorted(folder.glob(f"{kind}-*.json")) if folder.is_dir() else []:
        try:
            said = json.loads(note.read_text(encoding="utf-8"))
            found.append(
                Copy(
                    id=note.stem,
                    kind=kind,
                    path=note.with_suffix(suffix),
                    finished=datetime.fromisoformat(said["finished"]),
                    bytes=int(said["bytes"]),
                    sha256=str(said["sha256"]),
                    roles=tuple(said.get("roles", ())),
                    keys=int(said.get("keys", 0)),
                )
            )
        except (OSError, ValueError, KeyError) as error:
            say(f"{note.name} cannot be read: {error}")
    return found


def of_every_kind() -> list[Copy]:
    """Return all copies."""
    return [*copies("dump"), *copies("redis")]


def _place(kind: Kind) -> tuple[Path, str]:
    """Return the folder of a kind and how its files' names end."""
    return (at.DUMPS, ".dump") if kind == "dump" else (at.REDIS_COPIES, ".rdb")


def _make(kind: Kind, fill: Callable[[Path], dict[str, object]]) -> Copy:
    """Make a copy: `fill` writes and checks the file, and says what is to be noted of it."""
    folder, suffix = _place(kind)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(kind, folder)
    now = datetime.now(UTC)
    name = f"{kind}-{now:{_STAMP}}"
    part = folder / f".{name}.part"
    try:
        said = fill(part)
        digest, size = sha256(part), part.stat().st_size
        sync(part)
        part.replace(folder / f"{name}{suffix}")
        sync(folder)
        said |= {"finished": now.isoformat(), "bytes": size, "sha256": digest}
        write(folder / f"{name}.json", json.dumps(said, indent=1))
    except OSError as error:
        raise BackupError(f"{kind}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
        _remove_leftovers(kind, folder)
    return copies(kind)[-1]


def _remove_leftovers(kind: Kind, folder: Path) -> None:
    """Remove what runs that ended in the middle have left."""
    described = {copy.path for copy in copies(kind)} | set(folder.glob(f"{kind}-*.json"))
    for path in (*folder.glob(".*"), *folder.glob(f"{kind}-*")):
        if path not in described:
            say(f"removing {path.name}, which did not come to its end")
            path.unlink()


def dump(settings: Settings) -> Copy:
    """Dump the application's database."""
    postgres = settings.postgres
    if postgres is None:
        raise BackupError("there is no PostgreSQL to dump")

    def fill(path: Path) -> dict[str, object]:
        with database.connected(postgres, postgres.database) as connection:
            roles = database.roles(connection)
        words = ["pg_dump", "--format=custom", "--create", "--no-password", f"--file={path}"]
        run([*words, f"--dbname={at.conninfo(postgres, postgres.database)}"], what="pg_dump")
        run(["pg_restore", "--list", path], what="pg_restore --list")
        return {"roles": roles, "database": postgres.database}

    return _make("dump", fill)


def redis(settings: Settings) -> Copy:
    """Copy Redis by its replication protocol."""
    source = settings.redis
    if source is None:
        raise BackupError("there is no Redis to copy")

    def fill(path: Path) -> dict[str, object]:
        _receive(source, path)
        run(["redis-check-rdb", path], what="redis-check-rdb")
        return {"keys": loaded_keys(path)}

    return _make("redis", fill)


def _receive(source: Redis, path: Path) -> None:
    words = ["redis-cli", "-h", source.host, "-p", str(source.port), "--user", source.user, "--no-auth-warning"]
    words += [*(["--tls"] if source.tls else []), "--rdb", str(path)]
    run(words, what="redis-cli --rdb", environment={"REDISCLI_AUTH": at.secret("redis_password")})
    if not path.exists():
        raise BackupError("redis-cli --rdb: it made no file")


@contextmanager
def redis_server(folder: Path, *, rdb: str) -> Iterator[Callable[..., str]]:
    """Run a Redis without network over a folder; gives what asks it. Ended in the end, whatever happens."""
    at.RUN.mkdir(mode=0o700, exist_ok=True)
    socket = at.RUN / f"redis-{os.getpid()}.sock"
    words: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", "--", "redis-server"]
    words += ["--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--dir", folder, "--dbfilename", rdb]
    words += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]
    log = (at.RUN / f"redis-{os.getpid()}.log").open("w+", encoding="utf-8", errors="replace")
    # Tied to this process: a run that is killed leaves no server behind.
    server = subprocess.Popen(
        words,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
    )

    def ask(*question: str) -> str:
        return run(["redis-cli", "-e", "-s", socket, *question], what="Redis").strip()

    try:
        end = time.monotonic() + _LOAD_SECONDS
        while True:
            try:
                ask("ping")
                break
            except BackupError:
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    tail = " | ".join(log.read().strip().splitlines()[-3:])
                    raise BackupError(f"Redis does not load it: {tail}") from None
                time.sleep(0.1)
        yield ask
    finally:
        server.terminate()  # it writes out its append-only file, where it has one, and nothing else
        server.wait()
        log.close()
        Path(log.name).unlink()
        socket.unlink(missing_ok=True)


def loaded_keys(path: Path) -> int:
    """Load a copy into a Redis that is thrown away, and count."""
    with redis_server(path.parent, rdb=path.name) as ask:
        spaces = [line.partition(":") for line in ask("info", "keyspace").splitlines() if line.startswith("db")]
        return sum(int(said.split(",")[0].removeprefix("keys=")) for _, _, said in spaces)


def verify(copy: Copy) -> None:
    """Check a copy; raises BackupError that says what is wrong."""
    if not copy.path.exists():
        raise BackupError(f"{copy.path.name} is missing")
    if sha256(copy.path) != copy.sha256:
        raise BackupError(f"{copy.path.name} is not what it was when it was made")
    program = ["pg_restore", "--list"] if copy.kind == "dump" else ["redis-check-rdb"]
    run([*program, copy.path], what=program[0])


def retire(settings: Settings, kind: Kind, bad: set[str]) -> None:
    """Remove old copies: only good ones count, and a bad one stays until enough newer good ones are there."""
    known = copies(kind)
    good = [copy for copy in known if copy.id not in bad]
    if kind == "redis":
        keep = {copy.id for copy in good[-settings.redis_copies :]}
    else:
        kept = settings.dumps
        keep = {
            *newest_of_each(good, "%Y-%m-%d", kept.daily),
            *newest_of_each(good, "%G-%V", kept.weekly),
            *newest_of_each(good, "%Y-%m", kept.monthly),
        }
    for copy in known:
        # What is kept for a week or a month is older than what is not: so age alone says nothing, but a bad one goes
        # when there is a newer good one, and a good one when its places are taken by others.
        if copy.id not in keep and any(other.finished > copy.finished for other in good):
            copy.path.with_suffix(".json").unlink()
            copy.path.unlink(missing_ok=True)


def newest_of_each(good: list[Copy], period: str, count: int) -> list[str]:
    """Return the newest copy of each of the last `count` periods that have one."""
    by_period = {copy.finished.strftime(period): copy.id for copy in good}
    return list(by_period.values())[-count:] if count else []


def restore_redis(copy: Copy, into: Path) -> None:
    """Make a folder that Redis starts from, with an append-only file."""
    shutil.copyfile(copy.path, into / "dump.rdb")
    with redis_server(into, rdb="dump.rdb") as ask:
        ask("config", "set", "appendonly", "yes")
        while "aof_rewrite_in_progress:1" in (said := ask("info", "persistence")) or "aof_rewrite_scheduled:1" in said:
            time.sleep(0.1)
        if "aof_last_bgrewrite_status:ok" not in said:
            raise BackupError("Redis could not write its append-only file")
    (into / "dump.rdb").unlink()
    if not list((into / "appendonlydir").glob("*.manifest")):
        raise BackupError("Redis left no append-only file")
