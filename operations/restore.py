"""Restore: the content of a data volume is replaced, and what was in it is set aside in a volume that nobody removes.

The volume itself stays: Pulumi protects it and knows its name. What comes in its place is made first, complete, in a
volume of its own; so whatever cannot be restored is refused before anything is stopped. Each step that is done is
noted in a file beside the state, and each can be done twice. What goes on after a restore that was cut off, and what
begins anew, says `journal.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from host.progress import Reporter, Task
from operations import backups, mending
from operations.backups import BEFORE, IMPORTED, RESTORED, STAMP
from operations.clone import typed
from operations.engine import containers, healthy
from operations.engine.commands import execute
from operations.engine.volumes import remove_volumes, volume_names
from operations.errors import ProjectError
from operations.journal import DATA, FETCH, LATEST, OFFSITE, Journal, Mend, Server, Wanted, wanted
from operations.workspace import lock, pulumi_state, stack_file
from operations.workspace.workspace import Workspace
from stack.app import contract, postgres, redis
from stack.backup.workspace import MARK
from stack.names import PART_LABEL, NetworkName
from stack.settings import PROJECT, Environment, Part, key_of

if TYPE_CHECKING:
    import docker

LABEL = "samokoder.restore"
INTO = DATA["postgres"]
"""Where what is restored is made. It is the image's folder and uid 999's: so is a new volume mounted over it."""
_USERS: Mapping[Server, tuple[tuple[str, ...], ...]] = {
    # Group by group they are started, each once the one before is healthy. The keeper gives the roles this machine's
    # passwords; the migrations bring the schema of an older moment to the code that runs. The backup comes last, and
    # takes what is new as a new history.
    "postgres": (("postgres_roles",), ("migrations",), ("api", "worker", "postgres_exporter"), ("backup",)),
    "redis": (("redis_users",), ("api", "worker", "redis_exporter")),
    "workspace": (("api", "worker"),),
    "backup": (),
}
"""Who uses a server, by the fields of the settings."""


def users_of(data: str) -> list[str]:
    """Return who uses the server with this data (`postgres`), by the fields of the settings; nobody for other data."""
    return [name for server, groups in _USERS.items() if server == data for group in groups for name in group]


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a restore has done; as text, what the person must know now."""

    wanted: Wanted
    set_aside: tuple[str, ...]
    """Volumes with what was there before; the last one is that of the server that was asked for."""

    undo: str
    """What to type to put it back."""

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

    def mend(self, way: Mend, into: str = "") -> dict[str, str]:
        """Copy Redis' data, into a volume or for a look at it, and mend the copy; ProjectError where that cannot be."""

    def sizes(self, volume: str) -> tuple[int, int]:
        """Return the bytes in a volume, 0 for one that is not there, and those that are free on its disk."""

    def stamp(self) -> str:
        """Return a stamp that no volume of a restore has: what was set aside is never written to again."""

    def whole(self, volume: str, server: Server) -> bool:
        """Tell whether a volume is there and has all that a whole copy of the server's data has."""

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        """Make a volume's content the same as another's.

        whole: whose data the source must be a whole copy of. Raises ProjectError where it is not, the target untouched.
        No server starts on such a target, and it is not whole, before it is released.
        """

    def release(self, volume: str) -> None:
        """Let a server start on a volume that a replacement was copied into; nothing where that was done before."""

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
_FILES = "/etc/samokoder"


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
    def _users(self) -> tuple[tuple[str, ...], ...]:
        users = _USERS[self.journal.wanted.server]
        also = "backup" in self.journal.servers and ("backup",) not in users
        return (*users, ("backup",)) if also else users

    def steps(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Key, title and deed of each step. Up to the first `keep` nothing that runs is changed."""
        asked, found = self.journal.wanted, list[tuple[str, str, Callable[[], None]]]()
        if asked.source == OFFSITE:
            found.append((FETCH, "Fetch the off-site copy", self._fetch))
        if not asked.whole:
            found.append(("check", "Can it be restored?", self._check))
            found.append(("restore", "Restore, beside what is there", self._restore))
        found.append(("server", "Is there a server to restore into?", self._server))
        found.append(("room", "Is there room to keep what is there?", self._room))
        for server in self.journal.servers:
            found.append((f"keep-{server}", f"Set aside what is in {server}", partial(self._keep, server)))
        for server in self.journal.servers:
            found.append((f"put-{server}", f"Replace what is in {server}", partial(self._put, server)))
        found.append(("start", "Start what was stopped", self._start))
        if asked.server == "postgres":
            found.append(("backup", "Back up what was restored", self.hands.new_backup))
        return found

    def run(self) -> Restored:
        """Do what is left to do."""
        if self._untouched():
            self._note(replace(self.journal, touched=False))
        self._note(replace(self.journal, done=self._still_done()))
        steps = self.steps()
        for number, (key, title, do) in enumerate(steps, 1):
            if key not in self.journal.done:
                self.say(f"[{number}/{len(steps)}] {title}")
                do()
                self._note(replace(self.journal, done=(*self.journal.done, key)))
        self.forget()
        aside = self.journal.aside
        return Restored(
            wanted=self.journal.wanted, set_aside=aside, undo=self._typed(f"restore FROM={self.journal.way_back}")
        )

    def _typed(self, words: str) -> str:
        return typed(self.environment.name, words)

    def _untouched(self) -> bool:
        """Tell whether a replacement was only noted, or refused: the data is whole and may have been served since."""
        journal = self.journal
        put = journal.copied or any(f"put-{server}" in journal.done for server in journal.servers)
        return journal.touched and not put and all(self.hands.whole(self.hands.data_of(s), s) for s in journal.servers)

    def _still_done(self) -> tuple[str, ...]:
        """Return the steps that need not be done again: those before a half replaced volume, and what they have made.

        While nothing was replaced, what was stopped may have been started and written to.
        """
        journal, asked = self.journal, self.journal.wanted
        if not journal.done or journal.replaced:
            return journal.done
        again = {key for key, _, _ in self.steps()} if not journal.touched else set[str]()
        again -= {FETCH, "check", "restore"}
        if FETCH in journal.done and not self.hands.whole(self._new("backup"), "backup"):
            again.add(FETCH)
        newest = asked.mend or (asked.backup == LATEST and asked.source != OFFSITE)
        moves = newest and not journal.touched and not journal.lost
        if moves or ("restore" in journal.done and not self.hands.whole(self._new(asked.server), asked.server)):
            again |= {"check", "restore"}
        for server in journal.servers if journal.touched else ():
            # It was noted that its replacement begins, and perhaps it did not: it may have been served since.
            put = f"put-{server}" in journal.done or server in journal.copied
            if not put and self.hands.whole(self.hands.data_of(server), server):
                again.add(f"keep-{server}")
        return tuple(key for key in journal.done if key not in again)

    def after_failure(self) -> str:
        """Say how things are, and what can be done now."""
        if not self.journal.done and not self.journal.stopped:
            return "Nothing was stopped or changed."
        again = self.journal.again(self.environment.name)
        if self.journal.half:
            back = "".join(f". Or back: {self._typed(f'restore FROM={each}')}" for each in self._way_back())
            return f"The data is half replaced. When that is put right, this goes on: {again}{back}"
        if self.journal.replaced:
            back = self._typed(f"restore FROM={self.journal.way_back}")
            return f"The data is replaced. When that is put right: {again}. Or back: {back}"
        ups = f"; `{self._typed('up')}` starts what was stopped" if self.journal.stopped else ""
        return f"No data was changed. It goes on: {self._typed('restore')}. Or ask for another{ups}."

    def _way_back(self) -> tuple[str, ...]:
        return (self.journal.way_back,) if self.journal.aside and len(self.journal.servers) == 1 else ()

    def forget(self) -> None:
        """Remove what was made on the way, and the journal. What was set aside stays."""
        for server in DATA:
            self.hands.remove(self._new(server))
        stack_file.remove(self.path)

    def _note(self, journal: Journal) -> None:
        self.journal = journal
        journal.write(self.path)

    def _new(self, server: Server) -> str:
        return f"{self.environment.prefix}-{server}{RESTORED}{self.journal.stamp}"

    def _before(self, server: Server) -> str:
        """Name the volume that a server's data is set aside in, another one where that has a copy; it is noted."""
        prefix = f"{self.environment.prefix}-{server}{BEFORE}"
        volume = next((each for each in reversed(self.journal.aside) if each.startswith(prefix)), "")
        if not volume or volume in self.journal.kept or self.hands.whole(volume, server):
            volume = prefix + self.journal.stamp
            if volume in self.journal.kept or self.hands.whole(volume, server):
                volume = prefix + self.hands.stamp()
            self._note(replace(self.journal, aside=(*self.journal.aside, volume)))
        return volume

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
        self._note(replace(self.journal, lost=self.journal.lost or not held))
        # What is there now is copied once, and what is restored will be about as large.
        _enough(free, 2 * held, self.environment.name)
        if asked.mend:
            return  # who asked has looked at it
        into = self._empty()
        self.hands.program("check-restore", *asked.words, "--into", INTO, store=self._store(), into=into)

    def _restore(self) -> None:
        asked = self.journal.wanted
        if asked.mend:
            self._stop()
            self.hands.mend(asked.mend, self._empty())
            return
        if asked.backup == LATEST and asked.source != OFFSITE:
            # What is written from here on would be lost.
            self.say("The application stops now: `latest` is to lose nothing that it has acknowledged")
            # The backup server ends last: it has all of the WAL then, and a job of its own no longer holds the backups.
            self._stop()
        self.hands.program("restore", *asked.words, "--into", INTO, store=self._store(), into=self._empty())

    def _empty(self) -> str:
        """Give the volume for what is restored, empty: nobody knows how far an earlier try came."""
        volume = self._new(self.journal.wanted.server)
        self.hands.remove(volume)
        self.hands.make(volume)
        return volume

    def _server(self) -> None:
        """Only now, so that `latest` is not the moment of the empty database that comes in the place of a lost one."""
        for server in self.journal.servers:
            self.hands.bring_up(server)

    def _room(self) -> None:
        needed = 0
        for server in self.journal.servers:
            _refuse_incomplete(self.hands, self._replacement(server), server)
            held, free = self.hands.sizes(self.hands.data_of(server))
            comes, _ = self.hands.sizes(self._replacement(server))
            needed += max(held, comes)
            _enough(free, needed, self.environment.name)

    def _keep(self, server: Server) -> None:
        self._stop()
        before = self._before(server)
        self.hands.make(before)
        self.hands.copy(self.hands.data_of(server), before, whole=None)
        self._note(replace(self.journal, kept=(*self.journal.kept, before)))

    def _put(self, server: Server) -> None:
        self._stop()  # again: somebody may have brought the stack up since an interruption
        data, copied = self.hands.data_of(server), self.journal.copied
        if server in copied:
            self.hands.release(data)
            if self.hands.whole(data, server):
                return
        others = tuple(each for each in copied if each != server)
        self._note(replace(self.journal, touched=True, copied=others))
        self.hands.copy(self._replacement(server), data, whole=server)
        # Noted before any server can start on it: else, cut off here, it would be taken for what was there before.
        self._note(replace(self.journal, copied=(*others, server)))
        self.hands.release(data)

    def _start(self) -> None:
        server = self.journal.wanted.server
        self.hands.start([server])
        if server == "postgres":
            # A restored one has that of the stack it was backed up in, and only the keeper of the roles needs it.
            self.hands.own_password()
        for group in self._users:
            self.hands.start(group)

    def _stop(self) -> None:
        """Stop who uses the server, then the server, then what takes its WAL: it gets all of it."""
        self._note(replace(self.journal, stopped=True))
        users = [part for group in self._users for part in group]
        self.hands.stop([part for part in users if part != "backup"])
        self.hands.stop([self.journal.wanted.server])
        self.hands.stop([part for part in users if part == "backup"])


def _refuse_incomplete(hands: Hands, volume: str, server: Server) -> None:
    if not hands.whole(volume, server):
        raise ProjectError(f"{volume} is gone, empty or incomplete: nothing is replaced by it.")


def _of_earlier_version(environment: Environment, path: Path) -> Journal | None:
    """Return the journal that is there, with what the versions before did not note: where what was there is."""
    journal = Journal.read(path)
    if journal is None:
        return None
    if not journal.aside:
        servers = [server for server in journal.servers if f"keep-{server}" in journal.done]
        aside = tuple(f"{environment.prefix}-{server}{BEFORE}{journal.stamp}" for server in servers)
        journal = replace(journal, aside=aside, kept=aside)
    if journal.touched and journal.aside and "copied" not in json.loads(path.read_text(encoding="utf-8")):
        journal = replace(journal, before=journal.aside[-1])
    return journal


def _enough(free: int, needed: int, environment: str) -> None:
    if free < needed:
        raise ProjectError(
            f"The engine's disk has {free / 2**20:.0f} MiB free, and this needs {needed / 2**20:.0f}: what is there "
            f"now is kept beside what is restored. `{typed(environment, 'backups')}` lists what earlier restores have "
            "set aside: remove one of those volumes that nobody needs."
        )


def restore(workspace: Workspace, *, to: str = "", backup: str = "", source: str = "") -> Restored:
    """Restore, or resume an interrupted restore.

    to, backup, source: as in `Wanted`. All empty: go on. Raises ProjectError for what cannot be done, before anything
    is stopped or changed.
    """
    return _restore(workspace, wanted(workspace.settings(), to=to, backup=backup, source=source), importing=False)


def put_imported(workspace: Workspace, source: str) -> Restored:
    """Put what an import has copied in place, or go on with that: an import alone does. Raises as `restore` does."""
    return _restore(workspace, wanted(workspace.settings(), source=source), importing=True)


def mend(workspace: Workspace, way: Mend) -> Restored:
    """Put Redis' own data back, mended: a repair alone does. Raises as `restore` does."""
    return _restore(workspace, Wanted(mend=way), importing=False)


def _restore(workspace: Workspace, asked: Wanted, *, importing: bool) -> Restored:
    environment = workspace.settings()
    path = _path(workspace)
    say = workspace.reporter.say
    with lock.held(workspace, "restore") as locked, engine(environment, locked) as hands:
        before = _of_earlier_version(environment, path)
        journal = before.after_words(asked, environment.name) if before else None
        if journal and journal.imports and not importing:
            again = journal.again(environment.name)
            raise ProjectError(f"An import has begun this ({journal.wanted}). It goes on by {again}.")
        if journal and before and journal.wanted.whole and journal.wanted != before.wanted:
            _refuse_incomplete(hands, journal.wanted.source, journal.wanted.server)
        if journal is None:
            there = [name for name in backups.made_by_restores(hands.client, environment) if RESTORED not in name]
            _refuse(environment, asked, there, importing=importing)
            if before:
                Restore(environment, hands, before, path, say).forget()
            journal = Journal(wanted=asked, stamp=hands.stamp(), stopped=bool(before and before.stopped))
        else:
            say(f"Going on with: {journal.wanted}")
            if FETCH in journal.done and not journal.touched:
                fetch = workspace.typed("restore FROM=offsite")
                say(f"The off-site copy of {journal.stamp} stays; a new one is fetched by: {fetch}")
        journal.write(path)
        restoring = Restore(environment, hands, journal, path, say)
        try:
            return restoring.run()
        except ProjectError as error:
            after = restoring.after_failure()
            if not restoring.journal.done and not restoring.journal.stopped:
                restoring.forget()
            raise ProjectError(f"{error}\n{after}") from error
        except KeyboardInterrupt:
            say(f"Cut off. It goes on: {workspace.typed('restore')}")
            raise


def planned(workspace: Workspace, asked: Wanted, hands: Engine) -> Restore:
    """Return the restore that these words would begin or go on with. Raises ProjectError as `restore` does."""
    environment, path = workspace.settings(), _path(workspace)
    before = _of_earlier_version(environment, path)
    journal = before.after_words(asked, environment.name) if before else None
    if journal and journal.imports:
        raise ProjectError(
            f"An import has begun this ({journal.wanted}). It goes on by {journal.again(environment.name)}."
        )
    if journal is None:
        there = [name for name in backups.made_by_restores(hands.client, environment) if RESTORED not in name]
        _refuse(environment, asked, there, importing=False)
        journal = Journal(wanted=asked, stamp=hands.stamp())
    return Restore(environment, hands, journal, path, workspace.reporter.say)


def refuse_half_replaced(workspace: Workspace) -> None:
    """Raise ProjectError where a restore was cut off while a data volume's content was replaced."""
    if (journal := Journal.read(_path(workspace))) and journal.half:
        raise ProjectError(journal.unfinished(workspace.settings().name))


def give_own_password(workspace: Workspace) -> None:
    """Do what a restore was cut off before: start PostgreSQL on what was restored, with this stack's own password.

    A dump has no superuser's password and a backup may have an older one; without this one the keeper of the roles does
    not come in, and all others wait for it. For who holds the environment's lock and is about to start the keeper, or
    to remove all containers. A PostgreSQL that does not start is told: what comes next may be what mends it. One that
    is not there got the password before it was removed.
    """
    import docker.errors  # noqa: PLC0415 - the SDK takes its time
    import requests  # noqa: PLC0415 - as above

    journal, environment = Journal.read(_path(workspace)), workspace.settings()
    if not journal or not journal.replaced or journal.wanted.server != "postgres" or "start" in journal.done:
        return
    with engine(environment, workspace) as hands:
        if not hands.there("postgres"):
            return
        try:
            hands.start(["postgres"])
            hands.own_password()
        except (ProjectError, docker.errors.DockerException, requests.exceptions.RequestException) as error:
            workspace.reporter.say(f"After the restore PostgreSQL has another superuser's password: {error}")


def refuse_touched(workspace: Workspace) -> None:
    """Raise ProjectError where a restore has begun to replace data, and has not come to its end."""
    if (journal := Journal.read(_path(workspace))) and journal.touched:
        raise ProjectError(
            f"A restore ({journal.wanted}) was cut off. Finish it first: {journal.again(workspace.name)}"
        )


def replacing(workspace: Workspace) -> str:
    """Return the volume whose content a restore has begun to put in place, and has not come to its end; empty: none."""
    journal = Journal.read(_path(workspace))
    return journal.wanted.source if journal and journal.touched else ""


def _path(workspace: Workspace) -> Path:
    return workspace.folder / f"restore.{workspace.name}.json"


def _refuse(environment: Environment, asked: Wanted, there: Sequence[str], *, importing: bool) -> None:
    """Raise ProjectError for what is known at once not to work. there: the volumes that can be put into place."""
    if asked == Wanted():
        moment = typed(environment.name, "restore TO='2026-11-23 10:05:00+03'")
        raise ProjectError(
            f"No restore was cut off. Which moment, or which backup? {moment}, or BACKUP=latest; "
            f"`{typed(environment.name, 'backups')}` lists what there is."
        )
    if IMPORTED in asked.source and not importing:
        raise ProjectError(
            f"{asked.source} is what an import has copied, perhaps not to its end: that alone puts it in place, by "
            f"`{typed(environment.name, 'import-compose PROJECT=…')}`."
        )
    if asked.server == "workspace" and "workspace" in environment.absent:
        raise ProjectError(
            f"There is no workspace here to restore into: set {key_of('workspace', 'path')}, then "
            f"{typed(environment.name, 'up')}."
        )
    if asked.server in environment.absent:
        raise ProjectError(
            f"{asked.server} is a managed one here: its data is restored where it is managed, or from a dump "
            '(docs/backup-and-restore.md, "A managed database").'
        )
    if asked.source == OFFSITE and environment.offsite is None:
        raise ProjectError(
            f"No off-site copy is configured. Set {key_of('backup', 'offsite')} and its secrets as they were on the "
            f"machine that made it, {PROJECT}:backupEncryptionKey too; then `{typed(environment.name, 'up')}`, "
            "then this."
        )
    if asked.whole and asked.source not in there:
        raise ProjectError(f"There is no volume {asked.source}. There are: {', '.join(there) or 'none'}.")


def _remove_left(client: docker.DockerClient, environment: Environment) -> None:
    """Remove containers of a run that was killed; what they were at is done again."""
    containers.remove_labelled(client, f"{LABEL}={environment.name}")


def forget_all(workspace: Workspace, client: docker.DockerClient) -> list[str]:
    """Remove all that restores of an environment have left, also what they have set aside; return the volumes.

    For who holds the environment's lock.
    """
    environment = workspace.settings()
    _remove_left(client, environment)
    removed = remove_volumes(client, backups.made_by_restores(client, environment))
    for path in lock.unfinished(workspace.folder, workspace.name):
        stack_file.remove(path)
    return removed


@contextmanager
def engine(environment: Environment, workspace: Workspace) -> Iterator[Engine]:
    """Give the environment's engine to who holds the lock; what a run that was killed was at is gone."""

    def up() -> None:
        from operations.lifecycle import up as lifecycle_up  # noqa: PLC0415 - it asks this module whether a restore is half done

        # Whatever else was lost is told, and can be restored next.
        lost = pulumi_state.data_volumes(workspace.open().deployment())
        lifecycle_up.bring_up(workspace, interactive=False, empty=lost)

    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        hands = Engine(client, environment, workspace.reporter, up)
        _remove_left(client, environment)
        yield hands
    finally:
        client.close()


# The marker comes first, PG_VERSION and the workspace's file last: without PG_VERSION PostgreSQL does not start, and in
# a folder that is not empty it makes no new database. So a copy that was cut off is never taken for data. The marker
# comes by a rename, since one of a copy before must be there all the time; and it is not given to the application.
# The application owns the folder of the workspace and may have a file of any name there: one of its own says nothing.
_CUT_OFF = f"""\
cut_off() {{
    for mark in .samokoder-copying .samokoder-restore; do
        [ -e "$1/$mark" ] || continue
        [ "$2" = workspace ] && [ "$(stat -c %u "$1/$mark")" = {contract.USER.partition(":")[0]} ] || return 0
    done
    return 1
}}
"""
WHOLE = f"""\
set -eu
{_CUT_OFF}
! cut_off "$1" "$2" || exit 1
case $2 in
    postgres) [ -s "$1/PG_VERSION" ] && [ -s "$1/global/pg_control" ] ;;
    redis) [ -s "$1/appendonlydir/appendonly.aof.manifest" ] || [ -e "$1/appendonly.aof" ] || [ -e "$1/dump.rdb" ] ;;
    workspace) [ -e "$1/{MARK}" ] || [ -L "$1/{MARK}" ] ;;
    backup) [ -d "$1/barman" ] || [ -d "$1/dumps" ] || [ -d "$1/redis" ] || [ -e "$1/lock" ] ;;
esac
"""
"""Whether the folder $1 has what a whole copy of the data of $2 has; a file says so where its filling was cut off."""
_RELEASE = """\
if [ -e .samokoder-version ]; then mv .samokoder-version PG_VERSION; fi
sync -f .
[ -d .samokoder-copying ] || rm -f .samokoder-copying
sync -f .
"""
RELEASE = f"""\
set -eu
cd "$1"
{_RELEASE}"""
"""Lets a server start on the folder $1, which a replacement was copied into."""
COPY = f"""\
set -eu
marker=.samokoder-copying version=.samokoder-version server=$3
[ -z "${{5:-}}" ] || server=workspace
{_CUT_OFF}
whole() (
{WHOLE}
)
if [ -n "$3" ] && ! (whole "$1" "$3"); then
    echo 'This volume is incomplete: what was to fill it was cut off, or it is empty.' >&2
    exit 2
fi
cd "$2"
rm -rf $marker.new
echo "Incomplete: a restore was cut off here. It goes on by: $4" > $marker.new
if [ -d $marker ] && [ ! -L $marker ]; then rm -rf $marker; fi
mv -fT $marker.new $marker
sync -f .
rm -rf PG_VERSION {MARK}
find . -mindepth 1 -maxdepth 1 ! -name $marker -exec rm -rf {{}} +
cd "$1"
find . -mindepth 1 -maxdepth 1 ! -name $marker ! -name PG_VERSION ! -name {MARK} \\
    -exec cp -a --reflink=auto -t "$2" {{}} +
if [ -e PG_VERSION ]; then cp -a PG_VERSION "$2/$version"; fi
chmod --reference=. "$2"
if [ -n "${{5:-}}" ]; then
    (cd "$2" && find . ! -path ./$marker -exec chown -h "$5" {{}} +)
    if ! cut_off . "$server"; then
        if [ -e {MARK} ] || [ -L {MARK} ]; then cp -a {MARK} "$2"; else touch "$2/{MARK}"; fi
        chown -h "$5" "$2/{MARK}"
    fi
fi
sync -f "$2"
if [ -z "$3" ] && ! cut_off . "$server"; then
    cd "$2"
{_RELEASE}
fi
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
        if not self.there(server):
            self.up()

    def there(self, server: Server) -> bool:
        """Tell whether the server has a container."""
        return bool(containers.of_fields(self.client, self.environment, [server]))

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

    def mend(self, way: Mend, into: str = "") -> dict[str, str]:
        """Have a container of Redis' image do it."""
        with self.reporter.task(f"Redis reads a copy of its data ({way})") as task:
            container = containers.find(self.client, self.environment, redis.PART)
            source, labels = self.data_of("redis"), {LABEL: self.environment.name}
            # Mounted, one that is not there would be made.
            if source not in volume_names(self.client):
                raise ProjectError(f"There is no volume {source}: `{typed(self.environment.name, 'up')}` says more.")
            return mending.mend(container, way, source, into=into, labels=labels, task=task)

    def sizes(self, volume: str) -> tuple[int, int]:
        """Ask du and df."""
        # Mounted, one that was lost would be made. All are on one disk.
        there = volume in volume_names(self.client)
        said = self._shell(_SIZES, {"/volume": (volume if there else self.data_of("backup"), True)}, "/volume")
        size, free = said.split()
        return int(size) if there else 0, int(free)

    def stamp(self) -> str:
        """Ask for the volumes' names."""
        there, now = backups.made_by_restores(self.client, self.environment), datetime.now(UTC)
        while any(volume.endswith(f"{now:{STAMP}}") for volume in there):
            now += timedelta(seconds=1)
        return f"{now:{STAMP}}"

    def whole(self, volume: str, server: Server) -> bool:
        """Look into it."""
        # Mounted, one that is not there would be made.
        if volume not in volume_names(self.client):
            return False
        script = f"if ({WHOLE}); then echo yes; else echo no; fi"
        return self._shell(script, {"/volume": (volume, True)}, "/volume", server).strip() == "yes"

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        """Copy within the engine."""
        if whole and source not in volume_names(self.client):
            raise ProjectError(f"There is no volume {source}, which was to come into {target}.")
        with self.reporter.task(f"Copy {source} to {target}"):
            volumes = {"/from": (source, True), INTO: (target, False)}
            owner = contract.USER if self._shared(target) else ""
            again = typed(self.environment.name, "restore")
            self._shell(COPY, volumes, "/from", INTO, whole or "", again, owner)

    def release(self, volume: str) -> None:
        """Put the last file in its place, and take the marker away."""
        # Mounted, one that is not there would be made.
        if volume in volume_names(self.client):
            self._shell(RELEASE, {"/volume": (volume, False)}, "/volume")

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
            seconds = part.health.wait_timeout_seconds
            healthy.wait(each, label, self.environment.name, seconds=seconds, reporter=self.reporter)

    def own_password(self) -> None:
        """Set it over the socket."""
        container = containers.find(self.client, self.environment, "postgres")
        status, said = execute(container, ["sh", "-c", _SET_OWN])
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
        remove_volumes(self.client, [volume])

    def _shared(self, volume: str) -> bool:
        """Tell whether a volume has files of the application's own user."""
        return volume.startswith(f"{self.environment.prefix}-workspace")

    def _shell(self, script: str, volumes: Mapping[str, tuple[str, bool]], *words: str) -> str:
        root = any(self._shared(volume) for volume, _ in volumes.values())
        return self._once(["sh", "-c", script, "sh", *words], volumes, root=root)

    def _once(
        self,
        command: Sequence[str],
        volumes: Mapping[str, tuple[str, bool]],
        *,
        online: bool = False,
        root: bool = False,
        task: Task | None = None,
    ) -> str:
        """Run a command in a container like the backup's own, with these volumes; return its standard output.

        volumes: path -> volume, and whether it is read-only. online: with a way out. root: with the rights to read and
        to give away files of another user.
        """
        from docker.types import Mount  # noqa: PLC0415 - the SDK takes its time

        like = containers.find(self.client, self.environment, backups.PART).attrs
        # A PostgreSQL runs over what is restored: the part `drill` has the settings and no key beside them.
        drill = [] if online else containers.of_fields(self.client, self.environment, ["drill"])
        files = drill[0].attrs if drill else like
        host = like["HostConfig"]
        mounts = [Mount(path, name, read_only=fixed) for path, (name, fixed) in volumes.items()]
        mounts += [  # its files
            Mount(each["Destination"], each["Name"], read_only=True)
            for each in files["Mounts"]
            if each["Destination"] == _FILES
        ]
        return backups.run_once(
            self.client,
            like["Image"],
            command,
            task=task or Task(""),
            check=partial(backups.check, command[1:]),
            user="0:0" if root else like["Config"]["User"],
            cap_add=["CHOWN", "DAC_OVERRIDE", "FOWNER"] if root else None,
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
