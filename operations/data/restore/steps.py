"""The steps of a restore, from the check whether it is possible to the start of the stopped parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from operations.clone import typed
from operations.data.restore.actions import INTO, RestoreActions
from operations.data.restore.journal import FETCH, Journal
from operations.data.restore.request import DATA, LATEST, OFFSITE, Server, Wanted
from operations.data.restore.server_users import BACKUP, USERS
from operations.data.volume_names import BEFORE, RESTORED
from operations.errors import ProjectError
from operations.workspace import stack_file
from operations.workspace.lock import PASSWORD
from stack.settings.environment import Environment

_COPIES = 3
"""Times that a server's data is copied where somebody starts the server during the copy."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a restore has done; `str()` of it is the message for the person."""

    wanted: Wanted
    set_aside: tuple[str, ...]
    """Volumes with the earlier data; the last one is that of the requested server."""

    undo: str
    """What to type to put the earlier data back; empty where that is incomplete, as damaged data may be."""

    def __str__(self) -> str:
        """Return the message for the person."""
        back = f"To put it back: {self.undo}" if self.undo else "It was incomplete, so nothing puts it back."
        return (
            f"Restored: {self.wanted}. What was there before is in {' and '.join(self.set_aside)}, until you remove "
            f"it. {back}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `samokoder restore --json`."""
        asked = {"to": self.wanted.to, "backup": self.wanted.backup, "from": self.wanted.source}
        return {"restored": asked, "set_aside": list(self.set_aside), "undo": self.undo}


@dataclass
class Restore:
    """One restore, which continues after the last step in its journal."""

    environment: Environment
    hands: RestoreActions
    journal: Journal
    path: Path
    """Path of the journal."""
    say: Callable[[str], None]
    noted: Callable[[], None] = lambda: None
    """Called when all is done, and before the journal is removed: after that nothing says that it was done."""

    @property
    def _users(self) -> tuple[tuple[str, ...], ...]:
        servers = {*self.journal.servers, *self._stopped_servers}
        users = tuple(group for server in USERS if server in servers for group in USERS[server] if group != BACKUP)
        return (*users, BACKUP) if servers & {"backup", "postgres"} else users

    @property
    def stops(self) -> tuple[str, ...]:
        """The parts that are stopped while the data is replaced, as fields of the settings."""
        return (self.journal.wanted.server, *(part for group in self._users for part in group))

    @property
    def _stopped_servers(self) -> list[Server]:
        """Return the other servers that this restore has stopped, before its request became that of a way back."""
        stopped = {Wanted(source=volume).server for volume in self.journal.kept} - {*self.journal.servers}
        return [each for each in DATA if each in stopped]

    def steps(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Return key, title and function of each step. No data in use changes before the first `put`.

        The first `keep` stops the parts that use the server; for `latest` and a repair, `restore` stops them already.
        """
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
        """Do the remaining steps."""
        if self._untouched():
            self._note(replace(self.journal, touched=False))
        self._note(replace(self.journal, done=self._still_done()))
        steps = self.steps()
        for number, (key, title, do) in enumerate(steps, 1):
            if key not in self.journal.done:
                self.say(f"[{number}/{len(steps)}] {title}")
                do()
                self._note(replace(self.journal, done=(*self.journal.done, key)))
        journal = self.journal
        restored = Restored(wanted=journal.wanted, set_aside=journal.aside, undo=self._undo(journal.way_back))
        self.noted()
        self.forget()
        return restored

    def _typed(self, words: str) -> str:
        return typed(self.environment.name, words)

    def _untouched(self) -> bool:
        """Tell whether a replacement was noted but did not begin: the data is whole and may have been used since.

        A replacement that was refused did not begin either.
        """
        journal = self.journal
        put = journal.copied or any(f"put-{server}" in journal.done for server in journal.servers)
        return journal.touched and not put and all(self.hands.whole(self.hands.data_of(s), s) for s in journal.servers)

    def _still_done(self) -> tuple[str, ...]:
        """Return the done steps that need not be repeated.

        A step is repeated where the volume that it made is missing or incomplete. While nothing is replaced, all steps
        after `restore` are repeated, because the stopped parts may have been started and have written since.
        """
        journal, asked = self.journal, self.journal.wanted
        if not journal.done or journal.replaced:
            return journal.done
        again = {key for key, _, _ in self.steps()} if not journal.touched else set[str]()
        again -= {FETCH, "check", "restore"}
        if FETCH in journal.done and not self.hands.whole(self._new("backup"), "backup"):
            again.add(FETCH)
        if self._moves or ("restore" in journal.done and not self.hands.whole(self._new(asked.server), asked.server)):
            again |= {"check", "restore"}
        for server in journal.servers if journal.touched else ():
            # The journal says that the replacement began, but the data is complete: a server may have written to it.
            put = f"put-{server}" in journal.done or server in journal.copied
            if not put and self.hands.whole(self.hands.data_of(server), server):
                again.add(f"keep-{server}")
        return tuple(key for key in journal.done if key not in again)

    @property
    def _moves(self) -> bool:
        """Whether what is restored is to have all that was written until the parts were stopped."""
        asked, journal = self.journal.wanted, self.journal
        newest = bool(asked.mend) or (asked.backup == LATEST and asked.source != OFFSITE)
        return newest and not journal.touched and not journal.lost

    def after_failure(self) -> str:
        """Return what has become of the data, and what to type now."""
        if not self.journal.done and not self.journal.stopped:
            return "Nothing was stopped or changed."
        again = self.journal.again(self.environment.name)
        if self.journal.half:
            back = "".join(f". Or back: {undo}" for undo in map(self._undo, self.journal.aside_of_half[-1:]) if undo)
            return f"The data is half replaced. When that is put right, this goes on: {again}{back}"
        if self.journal.replaced:
            back = f". Or back: {undo}" if (undo := self._undo(self.journal.way_back)) else ""
            return f"The data is replaced. When that is put right: {again}{back}"
        ups = f"; `{self._typed('up')}` starts what was stopped" if self.journal.stopped else ""
        return f"No data was changed. It goes on: {self._typed('restore')}. Or ask for another{ups}."

    def _undo(self, volume: str) -> str:
        """Return what to type to put the earlier data back; empty where that would be refused as incomplete."""
        import docker.errors  # noqa: PLC0415 - the SDK takes its time
        import requests  # noqa: PLC0415 - as above

        try:
            whole = self.hands.whole(volume, Wanted(source=volume).server)
        except (ProjectError, docker.errors.DockerException, requests.exceptions.RequestException):
            whole = True  # the engine may be what failed before, and that is what a person has to read
        return self._typed(f"restore FROM={volume}") if whole else ""

    def forget(self) -> None:
        """Remove the temporary volumes and the journal. What was set aside stays."""
        self.remove_made()
        stack_file.remove(self.path)

    def remove_made(self) -> None:
        """Remove the temporary volumes."""
        for server in DATA:
            self.hands.remove(self._new(server))

    def _note(self, journal: Journal) -> None:
        self.journal = journal
        journal.write(self.path)

    def _new(self, server: Server) -> str:
        return f"{self.environment.prefix}-{server}{RESTORED}{self.journal.stamp}"

    def _before(self, server: Server) -> str:
        """Return the volume to set a server's data aside in: a new one where the last one has a complete copy.

        The journal notes a new one.
        """
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
        """Return the volume with the backups to restore from."""
        return self._new("backup") if self.journal.wanted.source == OFFSITE else self.hands.data_of("backup")

    def _fetch(self) -> None:
        # An earlier attempt may have fetched all of it and was cut off before its note: a full volume is refused.
        self._empty("backup")
        self.hands.program("offsite", "pull", store=self._store(), online=True)

    def _check(self) -> None:
        asked = self.journal.wanted
        held, free = self.hands.sizes(self.hands.data_of(asked.server))
        self._note(replace(self.journal, lost=self.journal.lost or not held))
        # The present data is copied once, and the restored data will be about as large.
        _enough(free, 2 * held, self.environment.name)
        if asked.mend:
            return  # the repair has already tried this on a copy
        into = self._empty(asked.server)
        words = ("check-restore", *asked.words, "--into", INTO)
        self.hands.program(*words, store=self._store(), into=into, present=self._present())

    def _restore(self) -> None:
        asked = self.journal.wanted
        if asked.mend:
            self._stop()
            self.hands.mend(asked.mend, self._empty(asked.server))
            return
        if asked.backup == LATEST and asked.source != OFFSITE:
            # The application stops first, because a later write would not be in the restored data.
            self.say("The application stops now: `latest` is to lose nothing that it has acknowledged")
            # The backup server stops last, so that it gets all of the WAL; then none of its jobs locks the backups.
            self._stop()
        words, present = ("restore", *asked.words, "--into", INTO), self._present()
        self.hands.program(*words, store=self._store(), into=self._empty(asked.server), present=present)

    def _present(self) -> str:
        """Volume with what `latest` is to lose nothing of; empty where it was lost, or an older moment is asked for.

        Once the data is touched, the volume may have half of the replacement, which nothing need be compared with.
        """
        asked, journal = self.journal.wanted, self.journal
        newest = asked.backup == LATEST and asked.source != OFFSITE and not (journal.lost or journal.touched)
        return self.hands.data_of("postgres") if newest else ""

    def _empty(self, server: Server) -> str:
        """Return an empty volume for a server's restored data: an earlier attempt may have filled a part of it."""
        volume = self._new(server)
        self.hands.remove(volume)
        self.hands.make(volume)
        return volume

    def _server(self) -> None:
        """Bring up missing servers, after `restore`: otherwise `latest` would be the state of a new, empty database."""
        brought = [server for server in self.journal.servers if self.hands.bring_up(server)]
        if brought and self._moves:
            # Its data was there without a container, and whatever uses it may have written since.
            self.say(f"{' and '.join(brought)} had no container and was started, so the restored data is made again")
            self._note(replace(self.journal, done=tuple(key for key in self.journal.done if key != "restore")))
            self.hands.remove(self._new(self.journal.wanted.server))  # the check wants its room
            self._check()  # it waits until what was written just now is received
            self._restore()
            self._note(replace(self.journal, done=(*self.journal.done, "restore")))

    def _room(self) -> None:
        needed = 0
        for server in self.journal.servers:
            refuse_incomplete(self.hands, self._replacement(server), server)
            held, free = self.hands.sizes(self.hands.data_of(server))
            comes, _ = self.hands.sizes(self._replacement(server))
            needed += max(held, comes)
            _enough(free, needed, self.environment.name)

    def _keep(self, server: Server) -> None:
        self._stop()
        before = self._before(server)
        self.hands.make(before)
        for _ in range(_COPIES):
            self.hands.copy(self.hands.data_of(server), before, whole=None)
            # A part that ran during the copy may have written to files that were copied already.
            if not self._stopped_writers(server):
                break
            self.say(f"Somebody has started what writes to {server}'s data. It is stopped, and the data copied again")
        else:
            raise _started(server)
        self._note(replace(self.journal, kept=(*self.journal.kept, before)))

    def _stopped_writers(self, server: Server) -> bool:
        """Stop all parts again; tell whether one ran since the last stop that writes to a server's data volume."""
        writers = {name for group in USERS[server] for name in group} if server == "workspace" else {server}
        return bool(writers & {*self._stop()})

    def _kept(self, server: Server) -> bool:
        """Tell whether the last volume that a server's data was set aside in is there and complete."""
        prefix = f"{self.environment.prefix}-{server}{BEFORE}"
        own = [each for each in self.journal.kept if each.startswith(prefix)]
        return bool(own) and self.hands.whole(own[-1], server)

    def _put(self, server: Server) -> None:
        wrote = self._stopped_writers(server)  # somebody may have started parts by hand
        data, copied = self.hands.data_of(server), self.journal.copied
        if server in copied:
            self.hands.release(data)
            if self.hands.whole(data, server):
                return
        # Somebody's prune may have removed what was set aside: no container holds it, and a step may take hours.
        # Asked once more at last: what was looked at here took a while, and what comes now replaces the data.
        if self.hands.whole(data, server) and (wrote or not self._kept(server) or self._stopped_writers(server)):
            self._keep(server)
            if self._stopped_writers(server):
                raise _started(server)
        others = tuple(each for each in copied if each != server)
        done = tuple(key for key in self.journal.done if key != PASSWORD)  # what comes now has another one
        self._note(replace(self.journal, touched=True, copied=others, done=done))
        self.hands.copy(self._replacement(server), data, whole=server)
        # This is noted before a server can start: after an interruption here the copy would look like the earlier data.
        self._note(replace(self.journal, copied=(*others, server)))
        self.hands.release(data)

    def _start(self) -> None:
        owes = self.journal.owes_password
        servers = [self.journal.wanted.server, *self._stopped_servers, *(["postgres"] if owes else [])]
        self.hands.start(list(dict.fromkeys(each for each in servers if each != "backup" or len(servers) == 1)))
        if owes:
            # A restored database has its old stack's superuser password; only postgres-roles uses it, and needs ours.
            self.hands.own_password()
            self._note(self.journal.with_password())
        for group in self._users:
            self.hands.start(group)
        self.hands.complete()

    def _stop(self) -> tuple[str, ...]:
        """Stop the parts that use the server, then the server, then the backup server, which so gets all of the WAL.

        Return those that ran.
        """
        self._note(replace(self.journal, stopped=True))
        users = [part for group in self._users for part in group]
        ran = self.hands.stop([part for part in users if part not in BACKUP])
        ran += self.hands.stop([self.journal.wanted.server])
        ran += self.hands.stop([part for part in users if part in BACKUP])
        if self._moves and "restore" in self.journal.done and self.journal.wanted.server in ran:
            raise _started(self.journal.wanted.server)  # what was written to it is not in what is to be put in place
        return ran


def refuse_incomplete(hands: RestoreActions, volume: str, server: Server) -> None:
    """Raise ProjectError for a volume that is not a complete copy of a server's data."""
    if not hands.whole(volume, server):
        raise ProjectError(f"{volume} is gone, empty or incomplete: nothing is replaced by it.")


def _started(server: Server) -> ProjectError:
    return ProjectError(
        f"Somebody has started {server} since its data was read or copied. It is stopped again, and its data is not "
        "replaced. Start no part by hand until the restore has ended."
    )


def _enough(free: int, needed: int, environment: str) -> None:
    if free < needed:
        raise ProjectError(
            f"The engine's disk has {free / 2**20:.0f} MiB free, and this needs {needed / 2**20:.0f}: what is there "
            f"now is kept beside what is restored. `{typed(environment, 'backups')}` lists what earlier restores have "
            "set aside: remove one of those volumes that nobody needs."
        )
