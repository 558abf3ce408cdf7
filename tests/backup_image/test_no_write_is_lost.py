"""Orders of events that nobody thought of: writes, backups, restores that are killed anywhere, prunes, imports.

After each of them no write that was acknowledged is out of reach: it is in the database, in a copy that was set aside
and is listed, or at a moment that `make backups` shows. Real PostgreSQL, Redis and Barman, the real restore and its
scripts (`world.py`); the events are in `orders.py` and `bad_days.py`. `SAMOKODER_SEQUENCES` says how many orders are
tried, `SAMOKODER_SEED` which ones: those of the day, where nobody has typed one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from host.errors import EngineError
from operations.data.compose import import_compose
from operations.data.restore import on_engine, scripts
from operations.data.restore.on_engine import EngineRestore
from operations.data.restore.request import Server
from operations.data.restore.steps import Restore
from operations.data.volume_names import RESTORED
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from tests.backup_image import bad_days, known_orders, program_faults
from tests.backup_image.bad_days import BadDays
from tests.backup_image.known_orders import KNOWN, Order, follow
from tests.backup_image.machines import Machines, patch
from tests.backup_image.world import FAKED, Agent
from tests.faketime import libfaketime

pytestmark = [pytest.mark.live, pytest.mark.orders, pytest.mark.timeout(0)]

SEQUENCES = int(os.environ.get("SAMOKODER_SEQUENCES", "10"))
SEED = int(os.environ.get("SAMOKODER_SEED") or f"{datetime.now(UTC):%Y%m%d}")
PARTS = 2
"""Two at once take little more than half the time."""
STEPS = 10


@pytest.fixture(scope="module")
def machines(backup_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch)
        faked = []
        with contextlib.suppress(EngineError):  # without it one order is skipped, which says so
            faked.append(f"--volume={libfaketime().parent}:{FAKED}:ro")
        agent = Agent(backup_image, f"samokoder-test-{secrets.token_hex(4)}", *faked)
        made = Machines(agent, Path(tmp_path_factory.mktemp("machines")))
        try:
            made.prepare()
            yield made
        finally:
            agent.close()


def tried(machines: Machines, sequences: int, number: int) -> None:
    """Try so many orders by the seed of that number; the first that loses a write is an AssertionError."""
    how: dict[str, Any] = {"max_examples": sequences, "stateful_step_count": STEPS, "deadline": None, "database": None}
    # A failure is told as it was found: to look for a shorter one would take hours.
    how |= {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck), "verbosity": Verbosity.normal}
    BadDays.machines, BadDays.failure = machines, None
    BadDays.came.clear()
    began = time.monotonic()
    try:
        run_state_machine_as_test(seed(number)(BadDays), settings=settings(**how))
    except BaseException as error:
        # Hypothesis tries an order that failed again, and calls it flaky.
        raise BadDays.failure or error from None
    finally:
        spent = f"SAMOKODER_SEED={number // PARTS}, part {number % PARTS}, {time.monotonic() - began:.0f} s"
        print(f"{spent}: {dict(sorted(BadDays.came.items()))}", file=sys.stderr, flush=True)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_acknowledged_write_is_ever_out_of_reach(machines: Machines, part: int) -> None:
    tried(machines, SEQUENCES // PARTS, SEED * PARTS + part)


def on(machines: Machines) -> BadDays:
    """Give a new machine for an order that is known."""
    BadDays.machines, BadDays.failure = machines, None
    return BadDays()


@pytest.mark.parametrize("order", KNOWN, ids=lambda order: order.__name__)
def test_an_order_in_which_something_was_lost_once_loses_nothing(machines: Machines, order: Order) -> None:
    follow(on(machines), order)


def goes_on_with_what_it_had_done(patched: pytest.MonkeyPatch) -> None:
    """A journal that was left behind, whatever was written since (issue 24, 1)."""
    patched.setattr(Restore, "_untouched", lambda _: False)
    patched.setattr(Restore, "_still_done", lambda restoring: restoring.journal.done)


def goes_on_with_an_old_copy(patched: pytest.MonkeyPatch) -> None:
    """An import that was cut off, whatever the old stack has written since (issue 24, 2)."""
    patched.setattr(import_compose, "_after", lambda before, _: before)
    patched.setattr(import_compose, "refuse_changed", lambda *_: None)


def takes_an_empty_volume_for_a_copy(patched: pytest.MonkeyPatch) -> None:
    """A replacement that was pruned, and that the engine makes again where it is mounted (issue 24, 3)."""
    whole, copy = EngineRestore.whole, EngineRestore.copy

    def there(hands: EngineRestore, volume: str, server: Server) -> bool:
        return RESTORED in volume or whole(hands, volume, server)

    def made(hands: EngineRestore, source: str, target: str, *, whole: Server | None) -> None:
        hands.make(source)
        copy(hands, source, target, whole=whole)

    patched.setattr(EngineRestore, "whole", there)
    patched.setattr(EngineRestore, "copy", made)
    demanded = 'if [ -n "$3" ] && ! (whole'
    assert demanded in scripts.COPY
    patched.setattr(on_engine, "COPY", scripts.COPY.replace(demanded, "if false && ! (whole"))


def lets_anybody_change_it_during_a_restore(patched: pytest.MonkeyPatch) -> None:
    """A second person's `make up` in the middle of it (issue 24, 7)."""

    @contextmanager
    def held(workspace: Workspace, _doing: str, **_: str) -> Iterator[Workspace]:
        yield workspace

    patched.setattr(lock, "held", held)


def passes_over_a_start_by_hand(patched: pytest.MonkeyPatch) -> None:
    """It is stopped again, and what it has written is in no copy (issue 24, 7)."""

    def stopped(restoring: Restore, _server: Server) -> bool:
        restoring._stop()
        return False

    patched.setattr(Restore, "_stopped_writers", stopped)


def gives_its_lock_back_half_way(patched: pytest.MonkeyPatch) -> None:
    """A restore that failed while it replaced the data (issue 24)."""
    patched.setattr(lock, "_mark_half", lambda *_: None)


FAULTS: Mapping[Callable[[pytest.MonkeyPatch], None], Order] = {
    goes_on_with_what_it_had_done: known_orders.a_restore_is_cut_off_and_its_journal_is_left_behind,
    goes_on_with_an_old_copy: known_orders.an_import_is_cut_off_and_the_old_stack_goes_on,
    takes_an_empty_volume_for_a_copy: known_orders.what_a_restore_has_made_is_pruned,
    lets_anybody_change_it_during_a_restore: known_orders.a_second_person_brings_it_up_after_it_was_set_aside,
    passes_over_a_start_by_hand: known_orders.the_server_is_started_by_hand_after_it_was_set_aside,
    gives_its_lock_back_half_way: known_orders.a_restore_fails_half_way_and_another_clone_restores,
}
PROGRAM_FAULTS: Mapping[Callable[[], None], Order] = {
    program_faults.counts_a_base_backup_that_is_bad: known_orders.a_base_backup_is_not_what_was_written,
    program_faults.ends_a_verification_at_what_cannot_be_read: known_orders.a_copy_cannot_be_read,
    program_faults.removes_what_cannot_be_read: known_orders.a_description_cannot_be_read,
    program_faults.takes_the_end_of_the_history_before_for_the_latest_moment: (
        known_orders.latest_is_asked_for_after_a_restore_without_a_base_backup
    ),
    program_faults.believes_a_clock_that_was_ahead: known_orders.a_copy_is_made_while_the_clock_is_ahead,
}


def finds(machines: Machines, order: Order) -> None:
    """Expect that an order shows its fault, by its own words and not by something that fails on the way."""
    with pytest.raises(AssertionError, match=KNOWN[order]):
        follow(on(machines), order)


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_machine_finds_a_fault_that_restores_and_imports_had(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fault(monkeypatch)
    finds(machines, FAULTS[fault])


@pytest.mark.faults
@pytest.mark.parametrize("fault", PROGRAM_FAULTS, ids=lambda fault: fault.__name__)
def test_the_machine_finds_a_fault_that_the_backup_program_had(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], None]
) -> None:
    # A copy is due each minute: one that never comes is not waited for as long as one that may.
    monkeypatch.setattr(bad_days, "PATIENCE_SECONDS", 120.0)
    machines.agent.run("tee", "/world/fault", stdin=fault.__name__)
    try:
        finds(machines, PROGRAM_FAULTS[fault])
    finally:
        machines.agent.run("rm", "/world/fault")
