"""How far a restore has come.

The journal is a file beside the state. What follows depends on what has become of the data, and on what is typed:

- Nothing is replaced yet. `make restore` goes on, but what was stopped may have run and written since: it is set aside
  again, and for `latest` and a repair the copy is made again. Words begin anew; a fetched off-site copy stays for
  another moment of it, and is fetched again for `latest`.
- Half replaced. `make restore` finishes it, for there is nothing whole to go back to. So do the same words, and those
  that put back what was set aside; any others are refused.
- Replaced, and not all started or backed up. `make restore` does the rest. Words begin anew.

What was made on the way is looked at before it is relied on: a volume that is gone or not whole is made again. A whole
copy that was set aside is never written to again. Nothing here touches the engine.
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
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment

FETCH = "fetch"
"""The step that fetches the off-site copy."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """How far a restore has come."""

    wanted: Wanted
    stamp: str
    """In the names of its volumes: when it was begun."""
    done: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    """Volumes that what was there is copied into, in this order; of one server more than one where it went on."""
    kept: tuple[str, ...] = ()
    """Those of `aside` whose copy came to its end. Nothing writes to one again, also where the original was damaged."""
    stopped: bool = False
    """Whether something was stopped for it."""
    lost: bool = False
    """Whether the data volume was not there: what is in one that came since is not what is to be restored."""
    touched: bool = False
    """Whether a data volume's content has begun to be replaced."""
    copied: tuple[str, ...] = ()
    """Servers whose replacement is all there, and was not let go before that was noted: it is not set aside."""
    before: str = ""
    """The volume with what was there before, where that is not the last of `aside`.

    An earlier version noted no `copied`: where it was cut off, what is there may be the replacement. It is set aside
    too, so that no write is lost, and is nothing to go back to.
    """
    foreign: bool = False
    """Whether PostgreSQL may have another superuser's password, by a restore that began before this one."""

    @property
    def servers(self) -> tuple[Server, ...]:
        """Whose data volumes get another content; the one that was asked for is the last."""
        asked = self.wanted
        return ("backup", asked.server) if asked.source == OFFSITE else (asked.server,)

    @property
    def half(self) -> bool:
        """Whether a data volume may have half of its content: the restore has to be finished then."""
        return self.touched and not self.replaced

    @property
    def owes_password(self) -> bool:
        """Whether PostgreSQL may lack this stack's superuser's password: what was put in place has its own."""
        put = self.replaced and self.wanted.server == "postgres"
        return (put or self.foreign) and "start" not in self.done

    @property
    def way_back(self) -> str:
        """The volume to put back for an undo. There is one once the data is touched."""
        return self.before or self.aside[-1]

    @property
    def imports(self) -> bool:
        """Whether an import does it: that alone knows what comes next."""
        return IMPORTED in self.wanted.source

    def again(self, environment: str) -> str:
        """Say what to type to go on. environment: its name."""
        return (
            f"the same `{typed(environment, 'import-compose PROJECT=…')}` again"
            if self.imports
            else typed(environment, "restore")
        )

    def unfinished(self, environment: str) -> str:
        """Say what a person must know of one that is half done. environment: its name."""
        again = self.again(environment)
        return f"A restore ({self.wanted}) was cut off while it replaced the data. Finish it first: {again}"

    @property
    def replaced(self) -> bool:
        """Whether every data volume has its new content, whole."""
        return f"put-{self.wanted.server}" in self.done

    def after_words(self, asked: Wanted, environment: str) -> Journal | None:
        """Return what goes on after these words; None where they begin anew. environment: its name.

        Raises ProjectError where the data is half replaced, and they ask for something else.
        """
        if asked == Wanted():
            return self
        if self.half:
            if asked == self.wanted:
                return self
            if asked.source in self.aside and self.servers == (asked.server,):
                # What was to come may be gone for good. It was set aside whole, and nothing has been added since.
                return replace(self, wanted=asked, copied=())
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
        """Return the journal of a restore that has not come to its end."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        raw.pop("half", None)
        lists = {name: tuple(raw.get(name, ())) for name in ("done", "aside", "kept", "copied")}
        return cls(**raw | lists | {"wanted": Wanted(**raw["wanted"])})

    def write(self, path: Path) -> None:
        """Note it; also whether it is half done, which the lock reads."""
        stack_file.write(path, json.dumps({**asdict(self), "half": self.half}, indent=2))


def of_earlier_version(environment: Environment, path: Path) -> Journal | None:
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


def journal_path(workspace: Workspace) -> Path:
    """Return the file that the journal of an environment's restore is in."""
    return workspace.folder / f"restore.{workspace.name}.json"
