"""Orders of events in which something was lost once (issue 24). Each is followed beside those that are drawn.

Which of them finds a fault, and by what words, says `KNOWN`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.backup_image.bad_days import BadDays
from tests.backup_image.holds import BEFORE
from tests.backup_image.world import Cut, volumes_of


def a_restore_is_cut_off_and_its_journal_is_left_behind(machine: BadDays) -> None:
    """What is written since is in what is set aside (1)."""
    cut = Cut(1, after="keep-postgres")
    machine.a_restore_is_cut_off_and_goes_on_days_later("dump", 0, cut, pruned=False, bare=True)


def an_import_is_cut_off_and_the_old_stack_goes_on(machine: BadDays) -> None:
    """What the old stack has written since comes over (2)."""
    machine.an_import_is_cut_off_and_goes_on_days_later(Cut(1, after="copy-redis"))


def what_a_restore_has_made_is_pruned(machine: BadDays) -> None:
    """No empty volume is put in place (3)."""
    machine.something_is_written(received=False)
    cut = Cut(1, after="restore")
    machine.a_restore_is_cut_off_and_goes_on_days_later("dump", 0, cut, pruned=True, bare=True)


def a_base_backup_is_not_what_was_written(machine: BadDays) -> None:
    """Nothing relies on it (4)."""
    machine.something_is_written(received=True)
    machine.a_base_backup_is_made_on_a_bad_disk(1)


def a_copy_cannot_be_read(machine: BadDays) -> None:
    """All others are verified, and it is called bad (5)."""
    machine.a_copy_is_damaged("dump", 0, "unreadable", verified=True)


def a_description_cannot_be_read(machine: BadDays) -> None:
    """The next backup lets what is described be (5)."""
    machine.a_copy_is_damaged("redis", 0, "description", verified=False)


def latest_is_asked_for_after_a_restore_without_a_base_backup(machine: BadDays) -> None:
    """It is refused, and is not the end of what was before (6)."""
    machine.latest_is_asked_for_before_there_is_a_base_backup("dump", 0)


def a_second_person_brings_it_up_after_it_was_set_aside(machine: BadDays) -> None:
    """Nobody writes to what is about to be replaced (7)."""
    machine.something_is_restored("dump", 0, Cut(1, "up", after="keep-postgres"), finishes=True)


def the_server_is_started_by_hand_after_it_was_set_aside(machine: BadDays) -> None:
    """The restore notices, and copies again (7)."""
    machine.something_is_restored("dump", 0, Cut(1, "hand", after="keep-postgres"), finishes=True)


def a_copy_is_made_while_the_clock_is_ahead(machine: BadDays) -> None:
    """The next one is due all the same (8)."""
    machine.a_backup_is_made_while_the_clock_is_ahead("redis")


def a_restore_is_cut_off_before_the_superusers_password(machine: BadDays) -> None:
    """A dump has none, and the keeper of the roles comes in only by this stack's: `make up` gives it."""
    machine.something_is_restored("dump", 0, Cut(2, after="put-postgres"), finishes=False)
    assert not machine.world.serves(), "it was to be cut off before all was started"
    machine.world.up()
    assert machine.world.serves(), "`make up` does not bring it up"


def a_restore_is_undone_before_its_first_base_backup(machine: BadDays) -> None:
    """No moment of what was undone is shown as one of the history that goes on."""
    machine.world.is_so("no-base", so=True)
    machine.something_is_restored("dump", 0, Cut(), finishes=False)
    machine.something_is_written(received=True)
    machine.world.is_so("no-base", so=False)
    (aside,) = volumes_of(machine.world, BEFORE)
    machine.put_back(aside)
    machine.something_is_written(received=True)
    machine.volumes_are_pruned(also_what_was_set_aside=True)


def a_restore_fails_half_way_and_another_clone_restores(machine: BadDays) -> None:
    """Who failed holds the lock until it is finished."""
    machine.a_restore_fails_half_way_and_another_clone_restores("dump", 0, 0.1)


def what_was_sent_off_site_comes_back(machine: BadDays) -> None:
    """And what came since is set aside, with this machine's backups."""
    machine.something_is_written(received=True)
    machine.all_is_copied_off_site()
    machine.something_is_written(received=True)
    machine.what_was_copied_off_site_is_restored(0, Cut(), moment=False, finishes=True)
    assert machine.came_last == "done", "the copy off-site cannot be restored"
    machine.all_is_copied_off_site()
    machine.what_was_copied_off_site_is_restored(0, Cut(1, after="put-backup"), moment=False, finishes=False)


def redis_is_repaired_and_the_repair_is_cut_off(machine: BadDays) -> None:
    """All that was acknowledged stands before the bytes that it cannot read."""
    machine.something_is_written(received=False)
    machine.redis_cannot_read_its_data_and_is_repaired("zeros", Cut(), finishes=True)
    machine.something_is_written(received=False)
    machine.redis_cannot_read_its_data_and_is_repaired("noise", Cut(1, after="put-redis"), finishes=False)


def indexes_are_built_anew_and_that_is_cut_off(machine: BadDays) -> None:
    """Whoever is cut off begins anew."""
    machine.something_is_written(received=False)
    machine.indexes_of_another_c_library_are_built_anew(Cut(1, "during", 0.1), finishes=False)


def the_clock_of_postgresql_was_ahead(machine: BadDays) -> None:
    """A moment is refused, and is never silently an older state."""
    if not machine.world.agent.clock:
        pytest.skip("PostgreSQL's clock cannot be set: the host has no libfaketime of Debian 12, which its root gets")
    machine.something_is_written(received=True)
    for ahead in (7200.0, 0.0, 40 * 86400.0, 0.0):
        machine.the_clock_of_postgresql_steps(ahead, received=True)
    machine.something_is_restored("moment", 0, Cut(), finishes=True)
    machine.a_backup_is_made("base")
    machine.something_is_written(received=True)


Order = Callable[[BadDays], None]
KNOWN: Mapping[Order, str] = {
    a_restore_is_cut_off_and_its_journal_is_left_behind: "What was there before is in",
    an_import_is_cut_off_and_the_old_stack_goes_on: "it says that the old keys came over",
    what_a_restore_has_made_is_pruned: "it says that it restored",
    a_base_backup_is_not_what_was_written: "their moment .* cannot be reached",
    a_copy_cannot_be_read: "are damaged, and",
    a_description_cannot_be_read: "somebody may have been able to mend it",
    latest_is_asked_for_after_a_restore_without_a_base_backup: "`latest` lost what was acknowledged",
    a_second_person_brings_it_up_after_it_was_set_aside: "acknowledged rows are in nothing that is listed",
    the_server_is_started_by_hand_after_it_was_set_aside: "acknowledged rows are in nothing that is listed",
    a_copy_is_made_while_the_clock_is_ahead: "a clock that was ahead once has stopped the copies",
    a_restore_is_cut_off_before_the_superusers_password: "",
    a_restore_is_undone_before_its_first_base_backup: "",
    a_restore_fails_half_way_and_another_clone_restores: "another clone restores while the data is half replaced",
    what_was_sent_off_site_comes_back: "",
    redis_is_repaired_and_the_repair_is_cut_off: "",
    indexes_are_built_anew_and_that_is_cut_off: "",
    the_clock_of_postgresql_was_ahead: "",
}
"""What the machine says where the fault of an order is put back; empty: no fault is put back for it."""


def follow(machine: BadDays, order: Order) -> None:
    """Let one machine go through an order; raises AssertionError where something does not hold, also at its end."""
    try:
        order(machine)
        machine.no_write_is_out_of_reach()
        machine.what_is_damaged_stays()
    finally:
        machine.teardown()
