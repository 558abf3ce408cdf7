"""Dumps of the database and copies of Redis: files that count, each with its description beside it.

A copy is made as `.<id>.part`, read back by the program that would restore it, described (`<id>.json`: checksum, when,
what), and gets its name at last; a removal begins with the opposite step. So what was cut off has a part and no file of
its name, does not count, and goes at the next run. Whatever else is not as it should be was damaged: it is bad, and
stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from samokoder_backup import apart, clock, damage, database, shared
from samokoder_backup import settings as at
from samokoder_backup.damage import Broken
from samokoder_backup.process import BackupError, run, run_unread, say, sealed, sha256, sync, unsealed, write
from samokoder_backup.settings import Kind, Redis, Settings

_STAMP = "%Y%m%dT%H%M%SZ"
_LOAD_SECONDS = 3600.0
KINDS: Final[tuple[Kind, ...]] = ("dump", "redis", "workspace")
"""Of backups that are one file."""


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

    @property
    def ahead(self) -> bool:
        """Whether it is of a time to come: then it takes no other's place."""
        return clock.ahead(self.finished.timestamp())


def copies(kind: Kind) -> list[Copy]:
    """Return the copies of a kind that can be read, the oldest first."""
    found = [each for each in _look(kind) if isinstance(each, Copy)]
    return sorted(found, key=lambda copy: copy.finished)


def broken(kind: Kind) -> list[Broken]:
    """Return those that cannot be read."""
    return [each for each in _look(kind) if isinstance(each, Broken)]


def _look(kind: Kind) -> Iterator[Copy | Broken]:
    folder, suffix = _place(kind)
    try:
        names = sorted(os.listdir(folder)) if folder.exists() else []  # noqa: PTH208 - the names alone are asked for
    except OSError as error:
        yield damage.broken(folder.name, kind, _STAMP, f"it cannot be listed: {error}", ())
        return
    for identifier in sorted({Path(name).stem for name in names if name.startswith(f"{kind}-")}):
        found = _one(kind, folder / f"{identifier}.json", folder / f"{identifier}{suffix}")
        if found:
            yield found


def _one(kind: Kind, note: Path, path: Path) -> Copy | Broken | None:
    """Read one copy; None where it is being made or removed just now, or a run that did so was interrupted."""
    with contextlib.suppress(ValueError):
        return _read(kind, note, path)
    if not damage.there(path) and (damage.there(_part(path)) or not damage.there(note)):
        return None
    try:
        return _read(kind, note, path)  # it may have got its name meanwhile
    except ValueError as error:
        return damage.broken(note.stem, kind, _STAMP, str(error), filter(damage.there, (path, note)))


def _read(kind: Kind, note: Path, path: Path) -> Copy:
    """Read a description and glance at what it describes; raises ValueError that says what is wrong."""
    try:
        said = unsealed(note.read_text(encoding="utf-8"))
        copy = Copy(
            id=note.stem,
            kind=kind,
            path=path,
            finished=datetime.fromisoformat(said["finished"]).astimezone(UTC),
            bytes=int(said["bytes"]),
            sha256=str(said["sha256"]),
            roles=tuple(map(str, said.get("roles", ()))),
            keys=int(said.get("keys", 0)),
        )
    except FileNotFoundError:
        raise ValueError(f"{note.name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{note.name} cannot be read: {error}") from error
    named = damage.named(note.stem, _STAMP)
    if named and abs(copy.finished - named) > damage.SLACK:
        raise ValueError(f"{note.name} says {copy.finished.isoformat()}, which is not the moment in its name")
    if not damage.there(path):
        raise ValueError(f"{path.name} is missing")
    if (size := damage.size(path)) != copy.bytes:
        raise ValueError(f"{path.name} has {size} bytes, and had {copy.bytes} when it was made")
    return copy


def _part(path: Path) -> Path:
    """Return what a copy is called while it is being made, or removed."""
    return path.with_name(f".{path.stem}.part")


def of_every_kind() -> list[Copy]:
    """Return all copies."""
    return [copy for kind in KINDS for copy in copies(kind)]


def _place(kind: Kind) -> tuple[Path, str]:
    """Return the folder of a kind and how its files' names end."""
    places: Mapping[Kind, tuple[Path, str]] = {
        "dump": (at.DUMPS, ".dump"),
        "redis": (at.REDIS_COPIES, ".rdb"),
        "workspace": (at.WORKSPACE_COPIES, ".tar"),
    }
    return places[kind]


def _make(kind: Kind, fill: Callable[[Path], dict[str, object]]) -> Copy:
    """Make a copy: `fill` writes and checks the file, and says what is to be noted of it."""
    folder, suffix = _place(kind)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(kind, folder)
    path, now = _free(folder, kind, datetime.now(UTC), suffix)
    part, note = _part(path), path.with_suffix(".json")
    try:
        said = fill(part)
        said |= {"finished": now.isoformat(), "bytes": part.stat().st_size, "sha256": sha256(part)}
        sync(part)
        write(note, sealed(said))
        part.replace(path)
        sync(folder)
        return _read(kind, note, path)
    except (OSError, ValueError) as error:
        raise BackupError(f"{kind}: {error}") from error
    finally:
        _remove_leftovers(kind, folder)


def _free(folder: Path, kind: Kind, now: datetime, suffix: str) -> tuple[Path, datetime]:
    """Return the path of a new copy and its moment: the first second from now on whose name no other has.

    One of this second may be there, also a damaged one: two in a second, or a clock that was set back.
    """
    taken = {Path(name).stem for name in os.listdir(folder)}  # noqa: PTH208 - as above
    while (name := f"{kind}-{now:{_STAMP}}") in taken:
        now += timedelta(seconds=1)
    return folder / f"{name}{suffix}", now


def _remove_leftovers(kind: Kind, folder: Path) -> None:
    """Remove what runs that ended in the middle have left, and nothing else."""
    _, suffix = _place(kind)
    for part in folder.glob(f".{kind}-*.part"):
        path = folder / f"{part.stem[1:]}{suffix}"
        say(f"removing {path.stem}, which did not come to its end")
        if not path.exists():
            path.with_suffix(".json").unlink(missing_ok=True)
        part.unlink()
    for half in folder.glob(f".{kind}-*.json.*.new"):
        half.unlink()


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
        run_unread(["pg_restore", "--list", path], what="pg_restore --list")
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
        return {"keys": apart.ask("load", path.name).keys}

    return _make("redis", fill)


def _receive(source: Redis, path: Path) -> None:
    words = ["redis-cli", "-h", source.host, "-p", str(source.port), "--user", source.user, "--no-auth-warning"]
    words += [*(["--tls"] if source.tls else []), "--rdb", str(path)]
    run(words, what="redis-cli --rdb", environment={"REDISCLI_AUTH": at.secret("redis_password")})
    if not path.exists():
        raise BackupError("redis-cli --rdb: it made no file")


def workspace(settings: Settings) -> Copy:
    """Copy the workspace, from the one container that may read all of it."""
    source = settings.workspace
    if source is None:
        raise BackupError("there is no workspace to copy")

    def fill(path: Path) -> dict[str, object]:
        shared.fetch(source, path)
        run_unread(["tar", "--list", "--file", path], what="tar --list")
        return {}

    return _make("workspace", fill)


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
    """Load a copy into a temporary Redis, and count."""
    with redis_server(path.parent, rdb=path.name) as ask:
        spaces = [line.partition(":") for line in ask("info", "keyspace").splitlines() if line.startswith("db")]
        return sum(int(said.split(",")[0].removeprefix("keys=")) for _, _, said in spaces)


_READERS: Mapping[Kind, Sequence[str]] = {
    "dump": ("pg_restore", "--list"),
    "redis": ("redis-check-rdb",),
    "workspace": ("tar", "--list", "--file"),
}


def verify(copy: Copy) -> None:
    """Check a copy; raises BackupError that says what is wrong."""
    if sha256(copy.path) != copy.sha256:
        raise BackupError(f"{copy.path.name} is not what it was when it was made")
    program = _READERS[copy.kind]
    # A list of what is in it is as long as the application likes; Redis' program says on its output what is wrong.
    (run if copy.kind == "redis" else run_unread)([*program, copy.path], what=program[0])


def retire(settings: Settings, kind: Kind, bad: set[str]) -> None:
    """Remove old copies: a good one when its places are taken by other good ones; a bad one when they would be, too.

    A bad one takes no place, and stays as long as it would if it was good: somebody may mend it, or what is wrong with
    it is one byte of its description.
    """
    known: list[Copy | Broken] = [*copies(kind), *broken(kind)]
    good = [each for each in known if isinstance(each, Copy) and each.id not in bad and not each.ahead]
    keep = _kept(settings, kind, good)
    for each in known:
        if each.id in keep or not any(other.finished > each.finished for other in good):
            continue
        if each in good or each.id not in _kept(settings, kind, [*good, each]):
            _remove(kind, each)


def _kept(settings: Settings, kind: Kind, those: Sequence[Copy | Broken]) -> set[str]:
    ordered = sorted(those, key=lambda each: each.finished)
    if kind != "dump":
        count = settings.redis_copies if kind == "redis" else settings.workspace_copies
        return {each.id for each in ordered[-count:]}
    kept = settings.dumps
    return {
        *(each.id for each in ordered[-kept.latest :]),
        *newest_of_each(ordered, "%Y-%m-%d", kept.daily),
        *newest_of_each(ordered, "%G-%V", kept.weekly),
        *newest_of_each(ordered, "%Y-%m", kept.monthly),
    }


def _remove(kind: Kind, each: Copy | Broken) -> None:
    """Remove a copy; a folder that cannot be listed has none to remove."""
    folder, suffix = _place(kind)
    path = folder / f"{each.id}{suffix}"
    if path.exists():
        path.replace(_part(path))
        sync(folder)
    path.with_suffix(".json").unlink(missing_ok=True)
    _part(path).unlink(missing_ok=True)


def newest_of_each(ordered: Sequence[Copy | Broken], period: str, count: int) -> list[str]:
    """Return the newest copy of each of the last `count` periods that have one. ordered: the oldest first."""
    by_period = {copy.finished.strftime(period): copy.id for copy in ordered}
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


def restore_workspace(copy: Copy, into: Path) -> None:
    """Fill a folder with the files of a copy; the caller gives them their owner."""
    words: list[str | Path] = ["tar", "--extract", "--preserve-permissions", "--no-same-owner", "--file", copy.path]
    run_unread([*words, f"--directory={into}"], what="tar --extract")
    mark = into / shared.MARK
    if not os.path.lexists(mark):  # also a link of the application to nowhere is there
        mark.touch(mode=0o600)
