"""The journal of a restore: which steps are done.

The journal is a file beside the state. After an interruption, what the next `make restore` does depends on the data and
on the request (TO, BACKUP, FROM):

- Nothing is replaced yet. Without a request the restore resumes. The stopped parts may have run and written since, so
  their data is set aside again, and for `latest` and a repair the replacement is made again. A request begins a new
  restore; a fetched off-site copy is used for another moment in it, and is fetched again for `latest`.
- Half replaced. Without a request, or with the same request, the restore is finished, because no complete data is in
  place. A request that puts back what was set aside is done; any other request is refused.
- Replaced, but not everything is started or backed up. Without a request the rest is done. A request begins a new
  restore.

Volumes that earlier steps made are checked before they are used: one that is missing or incomplete is made again. A
complete copy that was set aside is never written to again. This module does not touch the engine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from operations.clone import typed
from operations.data.restore.request import LATEST, OFFSITE, Server, Wanted
from operations.data.volume_names import BEFORE, IMPORTED
from operations.errors import ProjectError
from operations.workspace import stack_file
from operations.workspace.lock import PASSWORD, half_by_steps, owes_by_steps
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment

FETCH = "fetch"
"""The step that fetches the off-site copy."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """The request of a restore, the steps that are done, and the volumes that they made."""

    wanted: Wanted
    stamp: str
    """When the restore began; part of the names of its volumes."""
    done: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    """Volumes that the earlier data is copied into, in this order; a resumed restore may have several of a server."""
    kept: tuple[str, ...] = ()
    """Those of `aside` whose copy is finished. Nothing writes to them again, even where the original was damaged."""
    stopped: bool = False
    """Whether the restore has stopped a part."""
    lost: bool = False
    """Whether the data volume was missing; a volume that was made since has no data that `latest` must include."""
    touched: bool = False
    """Whether the replacement of a data volume's content has begun."""
    copied: tuple[str, ...] = ()
    """Servers whose complete replacement is in their data volume.

    This is noted before `release`, so that the replacement is never taken for the earlier data and set aside.
    """
    before: str = ""
    """The volume with the data from before the restore, where that is not the last of `aside`.

    An earlier version did not note `copied`: after its interruption the data volume may have the replacement. That is
    set aside too, so that no write is lost, but an undo does not put it back.
    """
    foreign: bool = False
    """Whether PostgreSQL may have another superuser's password, by a restore that began before this one."""

    @property
    def servers(self) -> tuple[Server, ...]:
        """Servers whose data volumes get another content; the server of the request is the last."""
        asked = self.wanted
        return ("backup", asked.server) if asked.source == OFFSITE else (asked.server,)

    @property
    def half(self) -> bool:
        """Whether a data volume may be half replaced, so that the restore must be finished."""
        return self.touched and not self.replaced

    @property
    def owes_password(self) -> bool:
        """Whether PostgreSQL may lack this stack's superuser's password: what was put in place has its own."""
        return owes_by_steps(foreign=self.foreign, done=self.done)

    def with_password(self) -> Journal:
        """Return the journal once PostgreSQL has this stack's superuser's password."""
        return replace(self, done=(*self.done, PASSWORD))

    @property
    def way_back(self) -> str:
        """The volume that an undo puts back. It exists once the data is touched."""
        return self.before or self.aside[-1]

    @property
    def aside_of_half(self) -> tuple[str, ...]:
        """Volumes with the earlier data of the server that alone may be half replaced; the last is the way back.

        One server is replaced after the other: those before it have all of the new data, those after it the earlier.
        """
        server = next((each for each in self.servers if f"put-{each}" not in self.done), None)
        own = [each for each in self.aside if Wanted(source=each).server == server]
        own.sort(key=lambda volume: volume == self.before)
        return tuple(own)

    @property
    def imports(self) -> bool:
        """Whether an import began this restore; only the import knows what follows it."""
        return IMPORTED in self.wanted.source

    def again(self, environment: str) -> str:
        """Return what to type to resume. environment: its name."""
        return (
            f"the same `{typed(environment, 'import-compose PROJECT=…')}` again"
            if self.imports
            else typed(environment, "restore")
        )

    def unfinished(self, environment: str) -> str:
        """Return the message about a restore whose replacement was interrupted. environment: its name."""
        again = self.again(environment)
        return f"A restore ({self.wanted}) was cut off while it replaced the data. Finish it first: {again}"

    @property
    def replaced(self) -> bool:
        """Whether every data volume has its new content, whole."""
        return f"put-{self.wanted.server}" in self.done

    def after_words(self, asked: Wanted, environment: str) -> Journal | None:
        """Return the journal to resume for a request; None where the request begins a new restore.

        environment: its name. Raises ProjectError where the data is half replaced and the request is for other data.
        """
        if asked == Wanted():
            return self
        if self.half:
            if asked == self.wanted:
                return self
            if asked.source in self.aside_of_half:
                # The replacement may be lost; the earlier data was set aside complete, and no write came since.
                half = self.aside_of_half
                kept = tuple(each for each in self.aside if each not in half)  # of servers that are replaced already
                return replace(self, wanted=asked, copied=(), aside=(*kept, *half))
            raise ProjectError(f"{self.unfinished(environment)}. Then this one.")
        if (
            FETCH in self.done
            and not self.replaced
            and asked.source == self.wanted.source == OFFSITE
            and asked.server == self.wanted.server
            and asked.backup != LATEST
        ):
            return replace(self, wanted=asked, done=(FETCH,), aside=())
        return None

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """Return the journal of an unfinished restore; None: none. Raises ProjectError for one that cannot be read."""
        try:
            text = stack_file.written(path)
            if text is None:
                return None
            raw = json.loads(text)
            raw.pop("half", None)
            lists = {name: tuple(raw.get(name, ())) for name in ("done", "aside", "kept", "copied")}
            return cls(**raw | lists | {"wanted": Wanted(**raw["wanted"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(path, "restore", error) from None

    def write(self, path: Path) -> None:
        """Write the journal to a file, also whether the data is half replaced, which the lock reads."""
        # An earlier version reads each name as one that it knows, so a new one is written only where it says something.
        noted = {name: value for name, value in asdict(self).items() if name != "foreign" or value}
        if self.half != half_by_steps(touched=self.touched, done=self.done):
            noted["half"] = self.half
        stack_file.write(path, json.dumps(noted, indent=2))


def unreadable(path: Path, what: str, error: Exception) -> ProjectError:
    """Return the error for a file of an unfinished restore or import that cannot be read. what: which of the two."""
    return ProjectError(
        f"{path} cannot be read ({error}). It says what an unfinished {what} has done: the data may be half replaced. "
        "Where it is another user's, become that user. Else docs/backup-and-restore.md says how to go on without it; "
        "remove no volume before"
    )


def of_earlier_version(environment: Environment, path: Path) -> Journal | None:
    """Return the journal, with the volumes of the earlier data, which earlier versions did not note; None: none."""
    journal = Journal.read(path)
    if journal is None:
        return None
    if not journal.aside:
        servers = [server for server in journal.servers if f"keep-{server}" in journal.done]
        aside = tuple(f"{environment.prefix}-{server}{BEFORE}{journal.stamp}" for server in servers)
        journal = replace(journal, aside=aside, kept=aside)
    if journal.touched and journal.aside and "copied" not in json.loads(stack_file.written(path) or "{}"):
        journal = replace(journal, before=journal.aside[-1])
    return journal


def journal_path(workspace: Workspace) -> Path:
    """Return the path of the journal of an environment's restore."""
    return workspace.folder / f"restore.{workspace.name}.json"
