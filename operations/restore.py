"""Restore: the content of a data volume is replaced, and what was in it is set aside in a volume that nobody removes.

The volume itself stays: Pulumi protects it and knows its name. What comes in its place is made first, complete, in a
volume of its own; so whatever cannot be restored is refused before anything is stopped. Each step that is done is
noted in a file beside the state, and each can be done twice: cut off at any point, the same command goes on.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from offline.progress import Reporter, Task
from operations import backups, containers, recovery, stack_file
from operations.backups import BEFORE, IMPORTED, RESTORED, STAMP
from operations.project import Workspace
from operations.stack_file import ProjectError
from stack.app import postgres
from stack.names import PART_LABEL, NetworkName
from stack.settings import PROJECT, Environment, Part, key_of

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

LATEST, OFFSITE = "latest", "offsite"
Server = Literal["postgres", "redis", "backup"]

LABEL = "samokoder.restore"
DATA: Mapping[Server, str] = {"postgres": "/var/lib/postgresql/data", "redis": "/data", "backup": "/backups"}
"""Where each server's container mounts its data volume."""
INTO = DATA["postgres"]
"""Where what is restored is made. It is the image's folder and uid 999's: so is a new volume mounted over it."""
_USERS: Mapping[Server, tuple[tuple[str, ...], ...]] = {
    # Group by group they are started, each once the one before is healthy. The keeper gives the roles this machine's
    # passwords; the migrations bring the schema of an older moment to the code that runs. The backup comes last, and
    # takes what is new as a new history.
    "postgres": (("postgres_roles",), ("migrations",), ("api", "worker", "postgres_exporter"), ("backup",)),
    "redis": (("redis_users",), ("api", "worker", "redis_exporter")),
    "backup": (),
}
"""Who uses a server, by the fields of the settings."""


def users_of(data: str) -> list[str]:
    """Return who uses the server with this data (`postgres`), by the fields of the settings; nobody for other data."""
    return [name for server, groups in _USERS.items() if server == data for group in groups for name in group]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be restored. All empty: whatever was begun."""

    to: str = ""
    """A moment of the database, in UTC."""
    backup: str = ""
    """A backup's id, or `latest`: all that there is."""
    source: str = ""
    """`offsite`, or a volume that was set aside; empty: the backups of this machine."""

    @property
    def server(self) -> Server:
        """Whose data is replaced at the end."""
        if self.whole:
            mark = BEFORE if BEFORE in self.source else IMPORTED
            return cast("Server", self.source.partition(mark)[0].rpartition("-")[2])
        return "redis" if self.backup.startswith("redis-") else "postgres"

    @property
    def whole(self) -> bool:
        """Whether it is a volume that is put into its place as it is."""
        return BEFORE in self.source or IMPORTED in self.source

    @property
    def words(self) -> list[str]:
        """How the backup program is told."""
        if self.to:
            return ["--to", self.to]
        return ["--latest"] if self.backup == LATEST else ["--backup", self.backup]

    def __str__(self) -> str:
        """Say it as a person would type it."""
        words = {"TO": self.to, "BACKUP": self.backup, "FROM": self.source}
        return " ".join(f"{name}={value!r}" for name, value in words.items() if value)


def wanted(environment: Environment, *, to: str = "", backup: str = "", source: str = "") -> Wanted:
    """Read what somebody typed. Raises ProjectError that says what to type instead."""
    if to and backup:
        raise ProjectError("Either a moment (TO=…) or a backup (BACKUP=…), not both.")
    if source and source != OFFSITE:
        if not any(
            source.startswith(f"{environment.prefix}-{server}{mark}") for server in DATA for mark in (BEFORE, IMPORTED)
        ):
            raise ProjectError(
                f"FROM is {OFFSITE!r} or the name of a volume that a restore has set aside, not {source!r}. "
                "`make backups` lists them."
            )
        if to or backup:
            raise ProjectError("A volume that was set aside is put back as it is: no TO or BACKUP with it.")
    if source == OFFSITE and not (to or backup):
        backup = LATEST
    return Wanted(to=moment(to) if to else "", backup=backup, source=source)


def moment(text: str) -> str:
    """Return a moment in UTC. Raises ProjectError for one that could mean two, or none."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ProjectError(f"{text!r} is no moment. Write it like this: TO='2026-11-23 10:05:00+03'") from None
    if at.tzinfo is None:
        raise ProjectError(f"{text!r} has no time zone. Write TO='{at}+00' if it is UTC, TO='{at}+03' in Moscow.")
    return at.astimezone(UTC).isoformat()


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a restore has done; as text, what the person must know now."""

    wanted: Wanted
    set_aside: tuple[str, ...]
    """Volumes with what was there before; the last one is that of the server that was asked for."""

    @property
    def undo(self) -> str:
        """What to type to put it back."""
        return f"make restore FROM={self.set_aside[-1]}"

    def __str__(self) -> str:
        """Say it."""
        return (
            f"Restored: {self.wanted}. What was there before is in {' and '.join(self.set_aside)}, until you remove "
            f"it. To put it back: {self.undo}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `samokoder restore --json`."""
        asked = {"to": self.wanted.to, "backup": self.wanted.backup, "from": self.wanted.source}
        return {"restored": asked, "set_aside": list(self.set_aside), "undo": self.undo}


@dataclass(frozen=True, kw_only=True)
class Journal:
    """How far a restore has come."""

    wanted: Wanted
    stamp: str
    """In the names of its volumes: when it was begun."""
    done: tuple[str, ...] = ()
    touched: bool = False
    """Whether a data volume's content has begun to be replaced."""

    @property
    def half(self) -> bool:
        """Whether a data volume may have half of its content: there is only forward then."""
        return self.touched and not self.replaced

    @property
    def unfinished(self) -> str:
        """What a person must know of one that is half done."""
        return f"A restore ({self.wanted}) was cut off while it replaced the data. Finish it first: make restore"

    @property
    def replaced(self) -> bool:
        """Whether every data volume has its new content, whole."""
        return f"put-{self.wanted.server}" in self.done

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """Return the journal of a restore that has not come to its end."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(
            wanted=Wanted(**raw["wanted"]), stamp=raw["stamp"], done=tuple(raw["done"]), touched=bool(raw["touched"])
        )

    def write(self, path: Path) -> None:
        """Note it."""
        stack_file.write(path, json.dumps(asdict(self), indent=2))


class Hands(Protocol):
    """What a restore does on the engine. Every call can be cut off and made again."""

    def data_of(self, server: Server) -> str:
        """Return the name of a server's data volume."""

    def bring_up(self, server: Server) -> None:
        """Make the server, its data volume empty, where it is not there: its volume was lost."""

    def make(self, volume: str) -> None:
        """Make a volume where it is not there."""

    def program(self, *words: str, store: str, into: str = "", online: bool = False) -> None:
        """Run the backup program once, beside everything. Raises ProjectError when it refuses or fails.

        store: the volume with the backups. into: the volume that it finds at `INTO`. online: whether it has a way out.
        """

    def sizes(self, volume: str) -> tuple[int, int]:
        """Return the bytes in a volume, 0 for one that is not there, and those that are free on its disk."""

    def copy(self, source: str, target: str, *, whole: bool) -> None:
        """Make a volume's content the same as another's. whole: raise ProjectError for a source that is not."""

    def stop(self, fields: Sequence[str]) -> None:
        """Stop all containers of these parts, and wait until they have ended."""

    def start(self, fields: Sequence[str]) -> None:
        """Start all containers of these parts, and wait until they are healthy."""

    def own_password(self) -> None:
        """Give PostgreSQL's superuser the password that this stack has for it."""

    def new_backup(self) -> None:
        """Make a backup of what was restored: those before it belong to another history."""

    def remove(self, volume: str) -> None:
        """Remove a volume, where it is there."""


_RECEIVES_SECONDS = 60
_FETCH = "fetch"


@dataclass
class Restore:
    """One restore, from its journal's last step to its end."""

    environment: Environment
    hands: Hands
    journal: Journal
    path: Path
    """Of the journal."""
    say: Callable[[str], None]

    @property
    def servers(self) -> tuple[Server, ...]:
        """Whose data volumes get another content; the one that was asked for is the last."""
        asked = self.journal.wanted
        return ("backup", asked.server) if asked.source == OFFSITE else (asked.server,)

    @property
    def _users(self) -> tuple[tuple[str, ...], ...]:
        users = _USERS[self.servers[-1]]
        return (*users, ("backup",)) if self.servers == ("backup", "redis") else users

    def steps(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Key, title and deed of each step. Up to the first `keep` nothing that runs is changed."""
        asked, found = self.journal.wanted, list[tuple[str, str, Callable[[], None]]]()
        if asked.source == OFFSITE:
            found.append((_FETCH, "Fetch the off-site copy", self._fetch))
        if not asked.whole:
            found.append(("check", "Can it be restored?", self._check))
            found.append(("restore", "Restore, beside what is there", self._restore))
        found.append(("server", "Is there a server to restore into?", self._server))
        found.append(("room", "Is there room to keep what is there?", self._room))
        for server in self.servers:
            found.append((f"keep-{server}", f"Set aside what is in {server}", partial(self._keep, server)))
        for server in self.servers:
            found.append((f"put-{server}", f"Replace what is in {server}", partial(self._put, server)))
        found.append(("start", "Start what was stopped", self._start))
        if asked.server == "postgres":
            found.append(("backup", "Back up what was restored", self.hands.new_backup))
        return found

    def run(self) -> Restored:
        """Do what is left to do."""
        steps = self.steps()
        for number, (key, title, do) in enumerate(steps, 1):
            if key not in self.journal.done:
                self.say(f"[{number}/{len(steps)}] {title}")
                do()
                self._note(replace(self.journal, done=(*self.journal.done, key)))
        self.forget()
        return Restored(wanted=self.journal.wanted, set_aside=tuple(map(self._before, self.servers)))

    def after_failure(self) -> str:
        """Say how things are, and what can be done now."""
        if not self.journal.done:
            return "Nothing was stopped or changed."
        if self.journal.half:
            return "The data is half replaced. When that is put right, this goes on: make restore"
        if self.journal.replaced:
            back = self._before(self.servers[-1])
            return f"The data is replaced. When that is put right: make restore. Or back: make restore FROM={back}"
        return "No data was changed. It goes on: make restore. Or ask for another; `make up` starts what was stopped."

    def forget(self) -> None:
        """Remove what was made on the way, and the journal. What was set aside stays."""
        for server in DATA:
            self.hands.remove(self._new(server))
        self.path.unlink(missing_ok=True)

    def _note(self, journal: Journal) -> None:
        self.journal = journal
        journal.write(self.path)

    def _new(self, server: Server) -> str:
        return f"{self.environment.prefix}-{server}{RESTORED}{self.journal.stamp}"

    def _before(self, server: Server) -> str:
        return f"{self.environment.prefix}-{server}{BEFORE}{self.journal.stamp}"

    def _replacement(self, server: Server) -> str:
        asked = self.journal.wanted
        return asked.source if asked.whole else self._new(server)

    def _store(self) -> str:
        """Volume with the backups that are restored from."""
        return self._new("backup") if self.journal.wanted.source == OFFSITE else self.hands.data_of("backup")

    def _fetch(self) -> None:
        self.hands.make(self._store())
        self.hands.program("offsite", "pull", store=self._store(), online=True)

    def _check(self) -> None:
        asked = self.journal.wanted
        held, free = self.hands.sizes(self.hands.data_of(asked.server))
        # What is there now is copied once, and what is restored will be about as large.
        _enough(free, 2 * held)
        into = self._empty()
        self.hands.program("check-restore", *asked.words, "--into", INTO, store=self._store(), into=into)

    def _restore(self) -> None:
        asked = self.journal.wanted
        if asked.backup == LATEST and asked.source != OFFSITE:
            # What is written from here on would be lost. A clean stop hands the last of the WAL to the backup.
            self.say("The application stops now: `latest` is to lose nothing that it has acknowledged")
            self._stop(also_backup=False)
        self.hands.program("restore", *asked.words, "--into", INTO, store=self._store(), into=self._empty())

    def _empty(self) -> str:
        """Give the volume for what is restored, empty: nobody knows how far an earlier try came."""
        volume = self._new(self.journal.wanted.server)
        self.hands.remove(volume)
        self.hands.make(volume)
        return volume

    def _server(self) -> None:
        """Only now, so that `latest` is not the moment of the empty database that comes in the place of a lost one."""
        for server in self.servers:
            self.hands.bring_up(server)

    def _room(self) -> None:
        needed = 0
        for server in self.servers:
            held, free = self.hands.sizes(self.hands.data_of(server))
            comes, _ = self.hands.sizes(self._replacement(server))
            needed += max(held, comes)
            _enough(free, needed)

    def _keep(self, server: Server) -> None:
        self._stop()
        self.hands.make(self._before(server))
        self.hands.copy(self.hands.data_of(server), self._before(server), whole=False)

    def _put(self, server: Server) -> None:
        self._stop()  # again: somebody may have brought the stack up since an interruption
        self._note(replace(self.journal, touched=True))
        self.hands.copy(self._replacement(server), self.hands.data_of(server), whole=True)

    def _start(self) -> None:
        server = self.journal.wanted.server
        self.hands.start([server])
        if server == "postgres":
            # A restored one has that of the stack it was backed up in, and only the keeper of the roles needs it.
            self.hands.own_password()
        for group in self._users:
            self.hands.start(group)

    def _stop(self, *, also_backup: bool = True) -> None:
        """Stop who uses the server, then the server, then what takes its WAL: it gets all of it."""
        users = [part for group in self._users for part in group]
        self.hands.stop([part for part in users if part != "backup"])
        self.hands.stop([self.journal.wanted.server])
        if also_backup:
            self.hands.stop([part for part in users if part == "backup"])


def _enough(free: int, needed: int) -> None:
    if free < needed:
        raise ProjectError(
            f"The engine's disk has {free / 2**20:.0f} MiB free, and this needs {needed / 2**20:.0f}: what is there "
            f"now is kept beside what is restored. `make backups` lists what earlier restores have set aside: remove "
            "one of those volumes that nobody needs."
        )


def restore(workspace: Workspace, *, to: str = "", backup: str = "", source: str = "") -> Restored:
    """Restore, or go on with a restore that was cut off.

    to, backup, source: as in `Wanted`. All empty: go on. Raises ProjectError for what cannot be done, before anything
    is stopped or changed.
    """
    environment = workspace.settings()
    asked = wanted(environment, to=to, backup=backup, source=source)
    path = _path(workspace)
    say = workspace.reporter.say
    with _alone(path), _engine(environment, workspace) as hands:
        journal = _begun(Journal.read(path), asked, lambda old: Restore(environment, hands, old, path, say).forget())
        if journal is None:
            there = [name for name in backups.made_by_restores(hands.client, environment) if RESTORED not in name]
            _refuse(environment, asked, there)
            journal = Journal(wanted=asked, stamp=_stamp(there))
        else:
            say(f"Going on with: {journal.wanted}")
        journal.write(path)
        restoring = Restore(environment, hands, journal, path, say)
        try:
            return restoring.run()
        except ProjectError as error:
            if not restoring.journal.done:
                restoring.forget()
            raise ProjectError(f"{error}\n{restoring.after_failure()}") from error
        except KeyboardInterrupt:
            say("Cut off. It goes on: make restore")
            raise


def half_replaced(workspace: Workspace) -> str:
    """Say what to do where a restore was cut off while a data volume's content was replaced; empty: there is none."""
    journal = Journal.read(_path(workspace))
    return journal.unfinished if journal and journal.half else ""


def _path(workspace: Workspace) -> Path:
    return workspace.folder / f"restore.{workspace.name}.json"


def _begun(journal: Journal | None, asked: Wanted, forget: Callable[[Journal], None]) -> Journal | None:
    """Return the restore to go on with, None for a new one. Raises ProjectError where one must be finished first."""
    if journal is None or asked in (Wanted(), journal.wanted):
        return journal
    if journal.half:
        raise ProjectError(f"{journal.unfinished}. Then this one.")
    if (
        not journal.replaced
        and asked.source == journal.wanted.source == OFFSITE
        and asked.server == journal.wanted.server
    ):
        # Another moment of the same copy: it need not be fetched again.
        return replace(journal, wanted=asked, done=tuple(key for key in journal.done if key == _FETCH))
    forget(journal)
    return None


def _stamp(there: Sequence[str]) -> str:
    """Return a stamp that no volume has: what was set aside is never written to again."""
    now = datetime.now(UTC)
    while any(volume.endswith(f"{now:{STAMP}}") for volume in there):
        now += timedelta(seconds=1)
    return f"{now:{STAMP}}"


def _refuse(environment: Environment, asked: Wanted, there: Sequence[str]) -> None:
    """Raise ProjectError for what is known at once not to work. there: the volumes that can be put into place."""
    if asked == Wanted():
        raise ProjectError(
            "No restore was cut off. Which moment, or which backup? make restore TO='2026-11-23 10:05:00+03', or "
            "BACKUP=latest; `make backups` lists what there is."
        )
    if asked.server in environment.absent:
        raise ProjectError(
            f"{asked.server} is a managed one here: its data is restored where it is managed, or from a dump "
            '(docs/backup-and-restore.md, "A managed database").'
        )
    if asked.source == OFFSITE and environment.offsite is None:
        raise ProjectError(
            f"No off-site copy is configured. Set {key_of('backup', 'offsite')} and its secrets as they were on the "
            f"machine that made it, {PROJECT}:backupEncryptionKey too; then `make up`, then this."
        )
    if asked.whole and asked.source not in there:
        raise ProjectError(f"There is no volume {asked.source}. There are: {', '.join(there) or 'none'}.")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let no second restore of this environment run beside ours; a killed one holds nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectError("Another restore of this environment runs here just now.") from None
        yield


def _remove_left(client: docker.DockerClient, environment: Environment) -> None:
    """Remove containers of a run that was killed; what they were at is done again."""
    containers.remove_labelled(client, f"{LABEL}={environment.name}")


def forget_all(workspace: Workspace, client: docker.DockerClient) -> list[str]:
    """Remove all that restores of an environment have left, also what they have set aside; return the volumes."""
    environment, path = workspace.settings(), _path(workspace)
    with _alone(path):
        _remove_left(client, environment)
        removed = containers.remove_volumes(client, backups.made_by_restores(client, environment))
        path.unlink(missing_ok=True)
    return removed


@contextmanager
def _engine(environment: Environment, workspace: Workspace) -> Iterator[Engine]:
    def up() -> None:
        from operations import lifecycle  # noqa: PLC0415 - it asks this module whether a restore is half done

        # Whatever else was lost is told, and can be restored next.
        lost = recovery.data_volumes(workspace.open().deployment())
        lifecycle.up(workspace, interactive=False, empty=lost)

    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        engine = Engine(client, environment, workspace.reporter, up)
        _remove_left(client, environment)
        yield engine
    finally:
        client.close()


# The marker comes first and PG_VERSION last: without that file PostgreSQL does not start, and in a folder that is not
# empty it makes no new database. So a copy that was cut off is never taken for data.
COPY = """\
set -eu
marker=.samokoder-copying
if [ "$3" = whole ] && { [ -e "$1/$marker" ] || [ -e "$1/.samokoder-restore" ]; }; then
    echo 'This volume is incomplete: what was to fill it was cut off.' >&2
    exit 2
fi
cd "$2"
echo 'Incomplete: a restore was cut off here. It goes on by: make restore' > $marker
sync -f .
rm -f PG_VERSION
find . -mindepth 1 -maxdepth 1 ! -name $marker -exec rm -rf {} +
cd "$1"
find . -mindepth 1 -maxdepth 1 ! -name $marker ! -name PG_VERSION -exec cp -a --reflink=auto -t "$2" {} +
sync -f "$2"
if [ -e PG_VERSION ]; then cp -a PG_VERSION "$2"; fi
chmod --reference=. "$2"
sync -f "$2"
if [ ! -e $marker ]; then rm "$2/$marker"; fi
sync -f "$2"
"""
# Files of a server that runs may go while they are counted.
_SIZES = 'du -s -B1 "$1" 2> /dev/null | cut -f1 || :; df -B1 --output=avail "$1" | tail -n 1'
# Over the socket the container's own user is the superuser. The password is in no command and in no log.
_SET_OWN = rf"""
export PGOPTIONS='{postgres.PINNED_OPTIONS}'
exec psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'END' 2>&1
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
SET log_statement = 'none';
\set password `cat "$POSTGRES_PASSWORD_FILE"`
ALTER ROLE CURRENT_USER PASSWORD :'password';
END
"""


@dataclass
class Engine:
    """`Hands` on a Docker engine."""

    client: docker.DockerClient
    environment: Environment
    reporter: Reporter
    up: Callable[[], None]
    """Bring the environment up, its data volumes empty where they were lost."""

    def data_of(self, server: Server) -> str:
        """Return the name of the volume that the server's container mounts, or the next one will."""
        for container in containers.of_fields(self.client, self.environment, [server]):
            for mount in container.attrs["Mounts"]:
                if mount["Destination"] == DATA[server]:
                    return str(mount["Name"])
        adopted = getattr(getattr(self.environment.settings, server), "adopt_volume", "")
        return self.environment.data_volume(server, adopted)

    def bring_up(self, server: Server) -> None:
        """Have `up` do it."""
        if not containers.of_fields(self.client, self.environment, [server]):
            self.up()

    def make(self, volume: str) -> None:
        """Make a volume; the engine gives back one that is there."""
        self.client.volumes.create(volume)

    def program(self, *words: str, store: str, into: str = "", online: bool = False) -> None:
        """Run the backup program in a container like its own."""
        # Whoever restores can do this machine's backups no harm.
        fixed = store == self.data_of("backup")
        volumes = {DATA["backup"]: (store, fixed)} | ({INTO: (into, False)} if into else {})
        with self.reporter.task(f"{backups.PROGRAM} {' '.join(words[:2])}") as task:
            self._once([backups.PROGRAM, *words], volumes, online=online, task=task)

    def sizes(self, volume: str) -> tuple[int, int]:
        """Ask du and df."""
        # Mounted, one that was lost would be made. All are on one disk.
        there = volume in containers.volume_names(self.client)
        said = self._shell(_SIZES, {"/volume": (volume if there else self.data_of("backup"), True)}, "/volume")
        size, free = said.split()
        return int(size) if there else 0, int(free)

    def copy(self, source: str, target: str, *, whole: bool) -> None:
        """Copy within the engine."""
        with self.reporter.task(f"Copy {source} to {target}"):
            volumes = {"/from": (source, True), INTO: (target, False)}
            self._shell(COPY, volumes, "/from", INTO, "whole" if whole else "")

    def stop(self, fields: Sequence[str]) -> None:
        """Stop them at once; each has its own time for it."""
        containers.stop(self.client, self.environment, fields, self.reporter)

    def start(self, fields: Sequence[str]) -> None:
        """Start them at once; ProjectError for one that is not healthy in its time."""
        found = [
            (name, each) for name in fields for each in containers.of_fields(self.client, self.environment, [name])
        ]
        for _, each in found:
            each.start()
        for name, each in found:
            part: Part = getattr(self.environment.settings, name)
            label = each.labels[PART_LABEL]
            with self.reporter.task(f"Start {label}"):
                end = time.monotonic() + part.health.wait_timeout_seconds
                while (health := _health(each)) != "healthy":
                    if time.monotonic() > end:
                        raise ProjectError(f"{label} is not healthy but {health}. See: make logs PART={label}")
                    time.sleep(0.5)

    def own_password(self) -> None:
        """Set it over the socket."""
        container = containers.find(self.client, self.environment, "postgres")
        status, said = containers.execute(container, ["sh", "-c", _SET_OWN])
        if status != 0:
            raise ProjectError(f"PostgreSQL does not take its superuser's password: {said.decode(errors='replace')}")

    def new_backup(self) -> None:
        """Have the service do it."""
        kind = "base" if self.environment.physical_backups else "dump"
        container = containers.find(self.client, self.environment, backups.PART)
        end = time.monotonic() + _RECEIVES_SECONDS
        with self.reporter.task(f"{backups.PROGRAM} now") as task:
            while True:
                try:
                    backups.run(container, ["now", "--kind", kind], task)
                    break
                except ProjectError:
                    # It answers before it has found the new history and receives its log.
                    if time.monotonic() > end:
                        raise
                    time.sleep(2)

    def remove(self, volume: str) -> None:
        """Remove it by its name."""
        containers.remove_volumes(self.client, [volume])

    def _shell(self, script: str, volumes: Mapping[str, tuple[str, bool]], *words: str) -> str:
        return self._once(["sh", "-c", script, "sh", *words], volumes)

    def _once(
        self,
        command: Sequence[str],
        volumes: Mapping[str, tuple[str, bool]],
        *,
        online: bool = False,
        task: Task | None = None,
    ) -> str:
        """Run a command in a container like the backup's own, with these volumes; return its standard output.

        volumes: path -> volume, and whether it is read-only. online: with a way out.
        """
        from docker.types import Mount  # noqa: PLC0415 - the SDK takes its time

        like = containers.find(self.client, self.environment, backups.PART).attrs
        host = like["HostConfig"]
        mounts = [Mount(path, name, read_only=fixed) for path, (name, fixed) in volumes.items()]
        mounts += [  # its files
            Mount(each["Destination"], each["Name"], read_only=True)
            for each in like["Mounts"]
            if each["Type"] == "volume" and each["Destination"] not in {*volumes, DATA["backup"]}
        ]
        return backups.run_once(
            self.client,
            like["Image"],
            command,
            task=task or Task(""),
            check=partial(backups.check, command[1:]),
            user=like["Config"]["User"],
            environment=like["Config"]["Env"],
            mounts=mounts,
            tmpfs={path: how for path, how in (host["Tmpfs"] or {}).items() if path not in volumes},
            network_mode=f"{self.environment.prefix}-{NetworkName.EDGE}" if online else "none",
            mem_limit=host["Memory"],
            memswap_limit=host["Memory"],
            nano_cpus=host["NanoCpus"],
            shm_size=host["ShmSize"],
            labels={LABEL: self.environment.name},
        )


def _health(container: Container) -> str:
    container.reload()
    state = container.attrs["State"]
    return str((state.get("Health") or {}).get("Status") or "without a health check") if state["Running"] else "stopped"
