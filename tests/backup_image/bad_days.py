"""More events for the machine of `orders.py`: disks that change what was written, clocks, second persons."""

from __future__ import annotations

import time

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from tests.backup_image.holds import BACKUPS_ASIDE, within
from tests.backup_image.orders import PATIENCE_SECONDS
from tests.backup_image.rare_days import RareDays
from tests.backup_image.world import Cut, volumes_of

DAMAGE = """\
import os, sys
if sys.argv[2] == "unreadable":
    os.chmod(sys.argv[1], 0)
else:
    with open(sys.argv[1], "r+b") as file:
        file.seek(os.path.getsize(sys.argv[1]) // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x80]))
"""
FOLDERS = {"dump": ("dumps", "dump"), "redis": ("redis", "rdb")}


class BadDays(RareDays):
    """One order of events on a machine that has bad days, too."""

    def __init__(self) -> None:
        super().__init__()
        self.was_ahead = False
        """Whether a copy of Redis was made while the clock was ahead."""

    @rule(
        kind=st.sampled_from(["dump", "redis"]),
        which=st.integers(0, 50),
        how=st.sampled_from(["description", "content", "unreadable"]),
        verified=st.booleans(),
    )
    def a_copy_is_damaged(self, kind: str, which: int, how: str, *, verified: bool) -> None:
        """Another one is made, and all is verified, or that comes later."""
        if not self.world.serves():
            return
        whole = sorted(
            each["id"]
            for each in self.world.listed()
            if (each["kind"], each["status"]) == (kind, "good") and each["id"] not in self.damaged
        )
        if not whole:
            return
        damaged, (folder, suffix) = whole[which % len(whole)], FOLDERS[kind]
        file = f"{damaged}.{'json' if how == 'description' else suffix}"
        path = f"{self.world.data('backup')}/{folder}/{file}"
        self.world.agent.run("python3", "-c", DAMAGE, path, how)
        self.damaged.add(damaged)
        self._log(f"damaged {file} {how}", f"damaged: {how}")
        self.a_backup_is_made(kind)
        if verified:
            self.all_is_verified()

    @invariant()
    def what_is_damaged_stays(self) -> None:
        """Of dumps, and of base backups that were never good, the newest alone stay."""
        if damaged := {each for each in self.damaged if each.startswith("redis-")}:
            aside = [self.world.path(each) for each in volumes_of(self.world, BACKUPS_ASIDE)]
            folders = [f"{each}/redis" for each in (self.world.data("backup"), *aside)]
            there = self.world.agent.sh('ls "$@" 2> /dev/null || :', *folders).split()
            assert damaged <= {name.removesuffix(".rdb") for name in there}, "somebody may have been able to mend it"

    @rule(row=st.integers(1, 3))
    def a_base_backup_is_made_on_a_bad_disk(self, row: int) -> None:
        """It is not what was written; what the list shows is reached all the same, by another one."""
        if not self.world.serves() or self.world.ahead:
            return
        self.world.is_so("bad-disk", so=True)
        for _ in range(row):
            self.a_backup_is_made("base")
        self.world.is_so("bad-disk", so=False)
        self.world.program("check-restore", "--latest", check=False)  # so one that the service makes is at its end
        self.damaged |= {
            each["id"] for each in self.world.listed() if (each["kind"], each["status"]) == ("base", "bad")
        }
        rows, at = self.world.rows(), self.world.moment()
        if within(at, self._shown()):
            self._is_reached(at, rows)
        self.replaced = True

    @rule(kind=st.sampled_from(["moment", "dump", "back"]), which=st.integers(0, 50))
    def latest_is_asked_for_before_there_is_a_base_backup(self, kind: str, which: int) -> None:
        words = self._chosen(kind, which)
        if words is None or not self.world.serves():
            return
        self.world.is_so("no-base", so=True)
        self._restore(words, Cut(), finishes=False)
        self.something_is_written(received=True)
        self.world.is_so("no-base", so=False)
        self.no_write_is_out_of_reach()
        self._restore({"backup": "latest"}, Cut(), finishes=False)

    @rule(kind=st.sampled_from(["latest", "moment", "dump"]), which=st.integers(0, 50), seconds=st.floats(0, 0.4))
    def a_restore_fails_half_way_and_another_clone_restores(self, kind: str, which: int, seconds: float) -> None:
        """What the other one brings would be served, until the end of the first one replaces it."""
        words = self._chosen(kind, which)
        if words is None or not self.world.serves():
            return
        # The third call from there on copies the replacement; the two before stop servers.
        self._restore(words, Cut(3, "fails", seconds, after="keep-postgres"), finishes=False)
        if (journal := self._journal()) and journal.half:
            came, said = self.world.restore_elsewhere(**words)
            self._log(f"elsewhere {came} {said[-300:]!r}", f"restore elsewhere {came}")
            assert came == "refused", f"another clone restores while the data is half replaced: {said}"

    @rule(kind=st.sampled_from(["latest", "moment", "dump", "back"]), which=st.integers(0, 50), at=st.integers(1, 26))
    def somebody_brings_it_up_during_a_restore(self, kind: str, which: int, at: int) -> None:
        if self.world.serves():
            self.something_is_restored(kind, which, Cut(at, "up"), finishes=True)

    @rule(kind=st.sampled_from(["latest", "moment", "dump", "back"]), which=st.integers(0, 50), finishes=st.booleans())
    def somebody_starts_the_server_by_hand_before_it_is_replaced(
        self, kind: str, which: int, *, finishes: bool
    ) -> None:
        """What is written to it then is in no copy yet: it is set aside too, or the restore is refused."""
        if self.world.serves():
            self.something_is_restored(kind, which, Cut(1, "hand", after="keep-postgres"), finishes=finishes)

    @rule(kind=st.sampled_from(["base", "dump", "redis"]))
    def a_backup_is_made_while_the_clock_is_ahead(self, kind: str) -> None:
        if not self.world.serves() or self.world.ahead:
            return
        self.the_clock_steps(7200.0)
        self.a_backup_is_made(kind)
        self.the_clock_steps(0.0)
        self.was_ahead = self.was_ahead or kind == "redis"

    def _is_put_right(self) -> None:
        super()._is_put_right()
        if self.damaged:
            self.verified = False
            self.all_is_verified()
        if self.was_ahead:
            self._copies_go_on()

    def _copies_go_on(self) -> None:
        """A copy each minute: one comes, whatever the stamps of those before are."""
        before, end = {each["id"] for each in self.world.listed()}, time.monotonic() + PATIENCE_SECONDS
        self.world.settings = "/world/conf/each-minute"
        self.world.restart_backup()
        while not any(each["kind"] == "redis" and each["id"] not in before for each in self.world.listed()):
            assert time.monotonic() < end, "a clock that was ahead once has stopped the copies of Redis"
            time.sleep(1)
        self._log("copies go on", "copies go on")
