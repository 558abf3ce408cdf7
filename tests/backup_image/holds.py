"""What must hold after each event on a small machine: `orders.py` has the events."""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from datetime import datetime
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from operations.data.restore.journal import Journal
from operations.data.restore.request import Wanted
from tests.backup_image.machines import Machines
from tests.backup_image.world import World, volumes_of

BEFORE = "-before-restore-"
BACKUPS_ASIDE = f"-backup{BEFORE}"


class Holds(RuleBasedStateMachine):
    """One machine, what was acknowledged on it, and where it must be."""

    machines: ClassVar[Machines]
    came: ClassVar[Counter[str]] = Counter()
    """How often each event came to its end, and to which."""
    failure: ClassVar[BaseException | None] = None
    """The first one. Hypothesis tries an order that failed again, which may come to something else, and takes long."""

    def __init__(self) -> None:
        super().__init__()
        if self.failure:
            raise self.failure
        self.world: World = self.machines.new()
        self.rows, self.keys = {"first"}, {"wfirst"}
        """What was acknowledged, also by the old stack once its data came over."""
        self.old_rows, self.old_keys = {"old-first"}, {"wold-first"}
        self.seen_rows, self.seen_keys = {"first"}, {"wfirst"}
        """What the servers had when they served last."""
        self.moments: dict[str, datetime] = {}
        """Of rows that the backup server has: a moment after each."""
        self.by_hand: set[str] = set()
        """What was only in a copy that a person has removed."""
        self.held: dict[str, set[str]] = {}
        """What is in a volume that was set aside: nothing writes to it again."""
        self.reached: set[tuple[object, ...]] = set()
        """Rows with the backups from which their moments were restored: not again while those are the same."""
        self.lost: set[str] = set()
        """What was in a volume that is gone, until something serves in its place."""
        self.damaged: set[str] = set()
        """The backups in which something was changed, or cannot be read."""
        self.replaced = False
        """Whether something else was put in the place of a database."""
        self.verified = False
        """Whether that was the last event."""
        self.content = {each: {"first"} if kind == "dump" else {"wfirst"} for each, kind in self.machines.first.items()}
        """What is in a dump or in a copy of Redis."""
        self.number = 0
        self.words: dict[str, str] = {}
        self.came_last = ""
        """What the last restore came to."""
        self.torn: set[str] = set()
        """Volumes that were set aside with data that Redis does not read: nobody puts them back."""
        self.postgres_stepped = False
        """Whether PostgreSQL's clock was another one: a moment may be refused, in words, and is never another state."""
        self._log("a new machine", "sequences")

    def _log(self, text: str, came: str = "") -> None:
        if came:
            self.came[came] += 1
            self.verified = came == "verified"
        print(f"{datetime.now():%H:%M:%S} {self.world.root} {text}"[:400], file=sys.stderr, flush=True)  # noqa: DTZ005

    def _journal(self) -> Journal | None:
        return Journal.read(self.world.workspace.folder / "restore.staging.json")

    def _name(self) -> str:
        self.number += 1
        return f"{self.number}-{secrets.token_hex(2)}"

    def _look(self) -> None:
        for volume in volumes_of(self.world, BEFORE):
            if not self.held.get(volume):  # a copy that was cut off goes on in the same one
                look = self.world.keys_in if "-redis-" in volume else self.world.rows_in
                look = self._rows_of_backups if BACKUPS_ASIDE in volume else look
                self.held[volume] = look(self.world.path(volume))

    def _rows_of_backups(self, folder: str) -> set[str]:
        """The rows that the backups in a folder lead to: who puts them back reaches those. The last one is tried."""
        if self.world.agent.run("test", "-e", f"{folder}/.samokoder-copying", check=False)["status"] == 0:
            return set()
        ahead, self.world.ahead = self.world.ahead, 0.0
        try:
            shown = self._shown(folder)
            found = {row for row, at in self.moments.items() if within(at, shown)}
            if found:
                at = max(self.moments[row] for row in found)
                self._is_reached(at, {row for row in found if self.moments[row] == at}, folder)
            return found
        finally:
            self.world.ahead = ahead

    def _is_what_was_asked(self, asked: Wanted, *, replaced_before: bool) -> None:
        """What says "Restored: …" has brought back just that; what was written since it was replaced is there too."""
        there = self.world.keys() if asked.server == "redis" else self.world.rows()
        if asked.to:
            at = datetime.fromisoformat(asked.to)
            missing = {row for row, moment in self.moments.items() if moment == at} - there
            assert not missing, f"it says that it restored {asked}, and {missing} of that moment are not there"
        known = self.content.get(asked.backup, self.held.get(asked.source))
        known_is_there = known is None or (known <= there if replaced_before else known == there)
        assert known_is_there, f"it says that it restored {asked}, which has {known}; there are {there}"

    @invariant()
    def no_write_is_out_of_reach(self) -> None:
        if not self.world.serves():
            return  # it is looked at once it serves again
        rows, keys = self.world.rows(), self.world.keys()
        self.seen_rows, self.seen_keys, self.lost = rows, keys, set()
        torn = {key for key in keys if key.endswith(":a")} ^ {f"{key[:-1]}a" for key in keys if key.endswith(":b")}
        assert not torn, "half of a transaction"
        if self.rows <= rows and self.keys <= keys:
            return
        self._look()
        held = {each for volume in volumes_of(self.world, BEFORE) for each in self.held[volume]}
        missing = self.keys - keys - held - self.by_hand
        assert not missing, f"acknowledged keys are in Redis no more, and in nothing that was set aside: {missing}"
        missing = self.rows - rows - held
        self._is_promised(missing)
        ahead, self.world.ahead = self.world.ahead, 0.0
        try:  # while the clock is wrong, not each moment is shown
            missing -= self.by_hand | (self._is_promised(missing) if missing - self.by_hand else set())
        finally:
            self.world.ahead = ahead
        assert not missing, f"acknowledged rows are in nothing that is listed: {missing}"

    def _shown(self, store: str = "") -> list[dict[str, Any]]:
        """The backups with moments that can be restored; of a history without a base backup the list shows none.

        store: the folder of other backups than those of now.
        """
        return [each for each in self.world.listed(store) if each["from"] and each["status"] != "bad"]

    def _is_promised(self, missing: set[str]) -> set[str]:
        """Which of these rows the backup server has at a moment that is shown; the last of these moments is reached."""
        shown = self._shown() if missing & self.moments.keys() else []
        promised = {row for row in missing & self.moments.keys() if within(self.moments[row], shown)}
        if promised:
            at = max(self.moments[row] for row in promised)
            known = (at, *((each["id"], each["status"]) for each in shown))
            if known not in self.reached:
                self._is_reached(at, {row for row in promised if self.moments[row] == at})
                self.reached.add(known)
        return promised

    def _is_reached(self, at: datetime, rows: set[str], store: str = "") -> None:
        """Restore a moment beside everything. store: as of `_shown`.

        After PostgreSQL's clock was wrong it may be refused, by words that name what has the rows all the same.
        """
        done = self._restored("--to", at.isoformat(), store=store)
        refused = self.postgres_stepped and "a clock was" in done["err"]
        if refused:
            self._log(f"refused {at}", "moment refused for a clock")
            ends = [each["to"] for each in self._shown(store) if within(at, [each])]
            found = [
                self._restored("--latest", store=store),
                *(self._restored("--to", end, store=store) for end in ends),
            ]
            assert any(rows <= each["rows"] for each in found), f"{rows} can be asked for by nothing: {found}"
            return
        assert done["status"] == 0, f"{rows} were received, and their moment {at} cannot be reached: {done['err']}"
        missing = rows - done["rows"]
        assert not missing, f"{missing} were received, and are not there at {at}"
        self._log(f"reached {rows}", "moment reached")

    def _restored(self, *words: str, store: str) -> dict[str, Any]:
        """What the program says to a restore beside everything, and the `rows` that it has brought."""
        into = "/world/reached"
        self.world.agent.sh("rm -rf $1", into)
        done = self.world.program("restore", *words, "--into", into, store=store, check=False)
        return {**done, "rows": set[str]() if done["status"] else self.world.rows_in(into)}


def within(at: datetime, shown: list[dict[str, Any]]) -> bool:
    """Whether a moment is one of those that are shown."""
    return any(
        _between(each, at, whole=True) and not any(_between(pause, at, whole=False) for pause in each["without"])
        for each in shown
    )


def _between(ends: dict[str, Any], at: datetime, *, whole: bool) -> bool:
    start, end = (datetime.fromisoformat(ends[name]) for name in ("from", "to"))
    return start < at < end or (whole and at in (start, end))
