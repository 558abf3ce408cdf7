"""The machine that draws orders of events on a small machine; what must hold after each of them is in `holds.py`."""

from __future__ import annotations

import re
import signal
import sys
import time
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import rule

from operations.data.restore.request import wanted
from operations.errors import ProjectError
from tests.backup_image.holds import BACKUPS_ASIDE, BEFORE, Holds, within
from tests.backup_image.world import Cut, volumes_of

PATIENCE_SECONDS = 300.0

deaths = st.builds(
    Cut,
    at=st.integers(1, 27),
    how=st.sampled_from(["before", "during", "after", "up", "fails"]),
    seconds=st.floats(0, 0.4),
)
cuts = st.one_of(st.just(Cut()), deaths)
kinds = st.sampled_from(["latest", "moment", "dump", "dump", "redis", "back", "again"])


class Orders(Holds):
    """One order of events on one machine."""

    # Writes

    @rule(received=st.booleans())
    def something_is_written(self, *, received: bool) -> None:
        """A row, a key, and two keys in one transaction. received: the backup server has the log of it."""
        if not self.world.serves():
            return
        name = self._name()
        self.world.sql(f"INSERT INTO public.writes VALUES ('{name}')")
        self.rows.add(name)
        said = self.world.redis(stdin=f"SET w{name} 1\nMULTI\nSET w{name}:a 1\nSET w{name}:b 1\nEXEC\n")
        assert said.split()[-2:] == ["OK", "OK"], said
        self.keys |= {f"w{name}", f"w{name}:a", f"w{name}:b"}
        if received:
            self.moments[name] = self.world.moment()
        self._log(f"wrote {name} {received}", "written")

    @rule()
    def the_old_stack_writes(self) -> None:
        name, old = self._name(), self.world.path("old_redis_data")
        self.machines.in_old_redis(old, "set", f"wold-{name}", "1")
        self.old_keys.add(f"wold-{name}")
        self._log(f"old key {name}", "written in the old stack")

    # Backups

    @rule(kind=st.sampled_from(["base", "dump", "redis"]))
    def a_backup_is_made(self, kind: str) -> None:
        if not self.world.serves():
            return
        done = self.world.program("now", "--kind", kind, check=False)
        if kind != "base" and (made := re.search(rf"{kind}: ({kind}-\w+), \d+ bytes", done["err"])):
            self.content[made[1]] = self.world.rows() if kind == "dump" else self.world.keys()
        self._log(f"backup {kind}: {done['status']} {done['err'][-160:]}", f"backup {kind}: {done['status']}")

    @rule()
    def all_is_verified(self) -> None:
        if self.verified or not self.world.serves():
            return  # nothing has happened since
        done = self.world.program("verify", check=False)
        found = self.world.listed()
        bad = {each["id"] for each in found if each["status"] == "bad" and each["kind"] != "base"}
        damaged = self.damaged & {each["id"] for each in found if each["kind"] != "base"}
        assert bad == damaged, f"{damaged} are damaged, and {bad} are called bad: {done['err']}"
        if not self.damaged:
            assert done["status"] == 0, f"a good backup is called bad: {done['err']}"
        self._log(f"verified, {len(bad)} are bad", "verified")

    # What else happens

    @rule(ahead=st.sampled_from([-7200.0, 0.0, 7200.0]))
    def the_clock_steps(self, ahead: float) -> None:
        self.world.ahead = ahead
        self.world.restart_backup()
        self._log(f"clock {ahead}", "clock stepped")

    @rule(goes_on=st.sampled_from(["not at all", "empty", "latest", "moment"]), cut=cuts)
    def the_database_is_lost(self, goes_on: str, cut: Cut) -> None:
        """Its volume is gone, once the backup server has all of its log, and a backup that this leads on from."""
        if not self.world.serves() or self.world.ahead:
            return
        at, shown = self.world.moment(), self._shown()
        if not within(at, shown):
            return
        rows = self.world.rows()
        self.moments |= {row: at for row in rows if row not in self.moments or not within(self.moments[row], shown)}
        self.seen_rows, self.lost = set(), rows
        self.world.agent.ask("stop", name="postgres", signal=int(signal.SIGKILL))
        self.world.workspace.client().volumes.get(self.world.environment.data_volume("postgres")).remove()
        self._log("the database is lost", "lost")
        if goes_on == "empty" and self._journal() is None:
            self.world.up(empty=True)
        elif goes_on != "not at all":
            self.something_is_restored(goes_on, 50, cut, finishes=True)

    @rule(also_what_was_set_aside=st.booleans())
    def volumes_are_pruned(self, *, also_what_was_set_aside: bool) -> None:
        going = volumes_of(self.world, "-restored-") + volumes_of(self.world, "-from-compose-")
        if also_what_was_set_aside and self.world.serves():
            self._look()
            going += (aside := [each for each in volumes_of(self.world, BEFORE) if BACKUPS_ASIDE not in each])
            there = self.world.rows() | self.world.keys()
            self.by_hand |= {each for volume in aside for each in self.held[volume]} - there
        for volume in going:
            self.world.workspace.client().volumes.get(volume).remove()
        self._log(f"pruned {going}", "pruned" if going else "")

    @rule()
    def it_is_brought_up_and_written_to(self) -> None:
        if self.world.serves():
            return
        try:
            self.world.up()
            self._log("up", "up")
        except ProjectError as error:
            self._log(f"up refused: {error}", "up refused")
        self.something_is_written(received=False)

    # Restores

    @rule(kind=kinds, which=st.integers(0, 50), cut=cuts, finishes=st.booleans())
    def something_is_restored(self, kind: str, which: int, cut: Cut, *, finishes: bool) -> None:
        words = self._chosen(kind, which)
        if words is not None:
            self._restore(words, cut, finishes=finishes)

    @rule(cut=cuts, finishes=st.booleans())
    def what_was_cut_off_goes_on(self, cut: Cut, *, finishes: bool) -> None:
        if self._journal():
            self._restore({}, cut, finishes=finishes)

    @rule(kind=kinds, which=st.integers(0, 50), cut=deaths, pruned=st.booleans(), bare=st.booleans())
    def a_restore_is_cut_off_and_goes_on_days_later(
        self, kind: str, which: int, cut: Cut, *, pruned: bool, bare: bool
    ) -> None:
        words = self._chosen(kind, which)
        if words is None or not self.world.serves():
            return
        self._restore(words, cut, finishes=False)
        if pruned:
            self.volumes_are_pruned(also_what_was_set_aside=False)
        self.it_is_brought_up_and_written_to()
        self.no_write_is_out_of_reach()
        self._restore({} if bare and self._journal() else words, Cut(), finishes=False)

    def put_back(self, volume: str) -> None:
        """Undo a restore."""
        self._restore({"source": volume}, Cut(), finishes=False)

    def _restore(self, words: dict[str, str], cut: Cut, *, finishes: bool) -> None:
        served, before = self.world.serves(), self._journal()
        if served:
            self.seen_rows, self.seen_keys = self.world.rows(), self.world.keys()
        self.replaced = True
        self._log(f"restore {words} {cut}")
        came, said = self.world.restore(replace(cut), **words)
        self.came_last = came
        what = next((name for name in ("to", "source") if name in words), words.get("backup", "bare"))
        self._log(f"restore {came} {said[-300:]!r}", f"restore {what.partition('-')[0]} {came}")
        self.words = words or self.words
        self.rows |= self.world.written_elsewhere()
        if came == "killed":
            # Its containers go on, until the next command removes them.
            self.world.agent.ask("wait" if finishes else "kill")
        elif came == "done":
            self._is_set_aside(re.findall(r"FROM=(\S+)", said)[-1])
            asked = wanted(self.world.environment, **words) if words or not before else before.wanted
            self._is_what_was_asked(asked, replaced_before=bool(before and not words and before.replaced))
            if words.get("backup") == "latest" and served and not (before and before.half):
                assert self.seen_rows <= self.world.rows(), "`latest` lost what was acknowledged"
            if words.get("backup") == "latest":
                assert self.lost <= self.world.rows(), "`latest` lost what the backup server had of a lost volume"

    def _chosen(self, kind: str, which: int) -> dict[str, str] | None:
        def one(of: list[str]) -> str | None:
            return sorted(of)[which % len(of)] if of else None

        if kind == "again":
            return self.words or None
        if kind == "latest":
            return {"backup": "latest"}
        if kind == "moment":
            found = one([str(at) for at in self.moments.values()])
            return {"to": found} if found else None
        if kind == "back":
            found = one([each for each in volumes_of(self.world, BEFORE) if self._may_be_put_back(each)])
            return {"source": found} if found else None
        found = one([each["id"] for each in self.world.listed() if each["kind"] == kind])
        return {"backup": found} if found else None

    def _may_be_put_back(self, volume: str) -> bool:
        return volume not in self.torn and BACKUPS_ASIDE not in volume

    def _is_set_aside(self, volume: str) -> None:
        """What was there when it served last is in the copy that is named, or still there."""
        self._look()
        redis = "-redis-" in volume
        now, seen = (self.world.keys(), self.seen_keys) if redis else (self.world.rows(), self.seen_rows)
        missing = seen - now - self.held[volume] - self.by_hand
        assert not missing, f"`What was there before is in {volume}`: {missing} is not"

    @rule(cut=deaths)
    def an_import_is_cut_off_and_goes_on_days_later(self, cut: Cut) -> None:
        self.the_old_stack_is_imported(cut, finishes=False)
        self.the_old_stack_writes()
        self.it_is_brought_up_and_written_to()
        self.no_write_is_out_of_reach()
        self.the_old_stack_is_imported(Cut(), finishes=False)

    @rule(cut=cuts, finishes=st.booleans())
    def the_old_stack_is_imported(self, cut: Cut, *, finishes: bool) -> None:
        if self.world.serves():
            self.seen_rows, self.seen_keys = self.world.rows(), self.world.keys()
        self.replaced = True
        self._log(f"import {cut}")
        came, said = self.world.import_old(replace(cut))
        self._log(f"import {came} {said[-300:]!r}", f"import {came}")
        self.rows |= self.world.written_elsewhere()
        if came == "killed":
            self.world.agent.ask("wait" if finishes else "kill")
        elif came == "done":
            self.rows |= self.old_rows
            self.keys |= self.old_keys
            assert self.old_rows <= self.world.rows(), "it says that the old data came over"
            assert self.old_keys <= self.world.keys(), "it says that the old keys came over"

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._is_put_right()
        finally:
            self._remember(sys.exc_info()[1])
            self.machines.end(self.world)

    def _remember(self, failure: BaseException | None) -> None:
        """What Hypothesis itself raises to end an order is no Exception."""
        if isinstance(failure, Exception) and not isinstance(failure, HypothesisException):
            self._log(f"FAILED {failure}", "failed")
            type(self).failure = failure

    def _is_put_right(self) -> None:
        """What the messages say to type brings it back, whatever has happened."""
        said = [""]
        for _ in range(4):
            if self.world.serves() and self._journal() is None:
                break
            back = re.findall(r"back: make restore FROM=(\S+?)[.]?(?:\s|$)", said[-1])
            journal = self._journal()
            restore_first = journal is not None and journal.half and not journal.imports
            if (self.world.workspace.folder / "import.staging.json").exists() and not restore_first:
                said.append(self.world.import_old()[1])
            elif self.world.lost("postgres") and self._journal() is None:
                said.append(self.world.restore(backup="latest")[1])
                if self.world.lost("postgres") and (moments := re.findall(r"\d{4}-\S+ \d\d:\S+\+00:00", said[-1])):
                    said.append(self.world.restore(to=moments[-1])[1])
            elif self._journal():
                said.append(self.world.restore(**({"source": back[0]} if back else {}))[1])
            self._log(f"put right: {said[-1][-300:]!r}")
            try:
                self.world.up()
            except ProjectError as error:
                said.append(str(error))
        assert self.world.serves(), f"nothing that is said brings it back: {said}"
        if self.world.ahead:
            self.the_clock_steps(0.0)
        self.no_write_is_out_of_reach()
        if self.replaced:
            self._is_backed_up()

    def _is_backed_up(self) -> None:
        """The service has made, or makes by itself, what leads to all that is there now."""
        if any(not each.startswith(("dump-", "redis-")) for each in self.damaged):
            # After several that were bad it makes one a day; an alert tells a person.
            # The service may have just begun: until it receives WAL, Barman makes none.
            end = time.monotonic() + PATIENCE_SECONDS
            while (made := self.world.program("now", "--kind", "base", check=False))["status"]:
                assert time.monotonic() < end, f"a person cannot make one either: {made}"
                time.sleep(1)
        rows, end = self.world.rows(), time.monotonic() + PATIENCE_SECONDS
        while not within(at := self.world.moment(), self._shown()):
            assert time.monotonic() < end, "no base backup leads to what is there now, and none is made"
            time.sleep(1)
        self._is_reached(at, rows)
