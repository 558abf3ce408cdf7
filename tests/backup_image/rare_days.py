"""More events for the machine of `orders.py`: copies off-site, repairs, and a PostgreSQL whose clock steps."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import rule

from stack.parts.postgres import spec as postgres
from tests.backup_image.holds import BEFORE
from tests.backup_image.orders import Orders, cuts
from tests.backup_image.world import Cut, volumes_of

SORTED = f"""\
SET ROLE {postgres.APP_ROLE};
CREATE TABLE IF NOT EXISTS public.sorted (name text COLLATE "en-x-icu" PRIMARY KEY);
INSERT INTO public.sorted SELECT name FROM public.writes ON CONFLICT DO NOTHING;
RESET ROLE;
UPDATE pg_catalog.pg_collation SET collversion = 'another' WHERE collname = 'en-x-icu';
"""
"""An index on text in the order of another C library."""
CHECKED = """\
BEGIN;
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT bt_index_check('public.sorted_pkey'::regclass, true);
ROLLBACK;
"""
STALE = "SELECT count(*) FROM pg_catalog.pg_collation WHERE collversion = 'another'"


class RareDays(Orders):
    """One order of events on a machine on which rare things happen, too."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: set[str] | None = None
        """The rows that a copy off-site has; None: there is none."""

    # Off-site

    @rule()
    def all_is_copied_off_site(self) -> None:
        """But for a wrong clock, and for a copy that cannot be read: such a run is told as failed."""
        if self.damaged or self.world.ahead or not self.world.serves():
            return
        rows = self.world.rows()
        self.world.moment()  # all of its log is with the backups
        done = self.world.copy_off_site()
        assert done["status"] == 0, f"nothing is copied off-site: {done['err']}"
        self.sent = rows
        self._log(f"sent {len(rows)} rows off-site", "sent off-site")

    @rule(which=st.integers(0, 50), moment=st.booleans(), cut=cuts, finishes=st.booleans())
    def what_was_copied_off_site_is_restored(self, which: int, cut: Cut, *, moment: bool, finishes: bool) -> None:
        """The backups of this machine are replaced by it, too, and set aside."""
        if self.sent is None or self.world.ahead or not self.world.serves():
            return
        sent, words = set(self.sent), {"source": "offsite"}
        if moment and (found := self._chosen("moment", which)):
            words |= found
        self._restore(words, cut, finishes=finishes)
        whole = self.came_last == "done" and not moment
        assert not whole or sent <= self.world.rows(), f"the copy off-site had {sent - self.world.rows()}"

    # Repairs

    @rule(tail=st.sampled_from(["zeros", "noise"]), cut=cuts, finishes=st.booleans())
    def redis_cannot_read_its_data_and_is_repaired(self, tail: str, cut: Cut, *, finishes: bool) -> None:
        """The bytes stand behind all that was acknowledged: a repair loses nothing."""
        if not self.world.serves() or self._journal():
            return
        before, aside = self.world.keys(), set(volumes_of(self.world, BEFORE))
        self.world.damage_redis(tail)
        came, said = self.world.repair_redis(replace(cut))
        if came == "killed":
            self.world.agent.ask("wait" if finishes else "kill")
        for _ in range(3):
            if came == "done":
                break
            came, said = self.world.restore() if self._journal() else self.world.repair_redis()
        self.torn |= set(volumes_of(self.world, BEFORE)) - aside
        self.rows |= self.world.written_elsewhere()
        assert came == "done", f"Redis is not repaired: {said}"
        assert before <= self.world.keys(), f"a repair has lost {before - self.world.keys()}"
        self._log(f"repaired Redis {tail} {cut}", "repaired redis")

    @rule(cut=cuts, finishes=st.booleans())
    def indexes_of_another_c_library_are_built_anew(self, cut: Cut, *, finishes: bool) -> None:
        if not self.world.serves() or self._journal():
            return
        self.world.sql(SORTED)
        came, said = self.world.repair_collations(replace(cut))
        if came == "killed":
            self.world.agent.ask("wait" if finishes else "kill")
        if came != "done":
            came, said = self.world.repair_collations()
        self.rows |= self.world.written_elsewhere()
        assert came == "done", f"the indexes are not built anew: {said}"
        assert self.world.sql(STALE) == "0", "it says that it has noted the versions of now"
        self.world.sql(CHECKED)  # each row is found by it
        self._log(f"indexes built anew {cut}", "repaired collations")

    # Clocks

    @rule(ahead=st.sampled_from([-3600.0, 0.0, 7200.0, 40 * 86400.0]), received=st.booleans())
    def the_clock_of_postgresql_steps(self, ahead: float, *, received: bool) -> None:
        """Its changes are stamped by it, and files of its log by another one. Only with libfaketime on this host."""
        if not self.world.agent.clock or not self.world.serves():
            return
        self.world.set_postgres_clock(ahead)
        self.postgres_stepped = self.postgres_stepped or ahead != 0
        self._log(f"PostgreSQL's clock {ahead}", "PostgreSQL's clock stepped")
        self.something_is_written(received=received)

    def _is_put_right(self) -> None:
        if self.world.agent.clock:
            self.world.set_postgres_clock(0.0)
        super()._is_put_right()
