"""How much room a restore asks for, and what it looks at, before it stops or makes anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from operations.errors import ProjectError
from tests.restoring import ASKED, STAMP, FakeEngine, restoring

POSTGRES, BACKUP = "samokoder-staging-postgres-data", "samokoder-staging-backup-data"
ASIDE = ASKED["what was set aside"].source


def refused(engine: FakeEngine, asked: str, folder: Path) -> str:
    """Restore what cannot be restored; return what is said. Nothing may be stopped, set aside or replaced."""
    before, running = dict(engine.volumes), set(engine.running)
    with pytest.raises(ProjectError) as caught:
        restoring(engine, folder / "restore.json", ASKED[asked]).run()
    assert engine.running == running, "a refusal comes before anything is stopped"
    kept = {name: text for name, text in engine.volumes.items() if "-restored-" not in name}
    assert kept == before, "a refusal changes no data and sets nothing aside"
    return str(caught.value)


def test_before_anything_is_made_there_is_room_for_what_is_set_aside_and_for_what_is_restored(tmp_path: Path) -> None:
    engine = FakeEngine(free=1500)
    engine.volumes[POSTGRES] = "x" * 1000
    assert "free" in refused(engine, "a moment", tmp_path)
    assert not [what for what in engine.done if what.startswith("restore")], "it would fill the disk of the database"
    engine.free = 2000
    restoring(engine, tmp_path / "restore.json", ASKED["a moment"]).run()


def test_there_is_room_for_every_volume_that_is_replaced_and_not_for_the_largest_alone(tmp_path: Path) -> None:
    engine = FakeEngine(free=5500)
    engine.volumes |= {POSTGRES: "x" * 1000, BACKUP: "x" * 5000}
    assert "free" in refused(engine, "off-site", tmp_path), "5,000 bytes of backups and 1,000 of the database are kept"
    engine.free = 6000
    restoring(engine, tmp_path / "restore.json", ASKED["off-site"]).run()


def test_there_is_room_for_a_database_that_is_larger_than_the_one_it_replaces(tmp_path: Path) -> None:
    engine = FakeEngine(free=500)
    engine.volumes |= {POSTGRES: "x" * 100, ASIDE: "rows of last week" * 100}
    assert "free" in refused(engine, "what was set aside", tmp_path), "it would fill the disk in the middle of the copy"
    engine.free = 1700
    restoring(engine, tmp_path / "restore.json", ASKED["what was set aside"]).run()


@pytest.mark.parametrize("content", ["half", ""])
def test_a_replacement_that_is_not_whole_is_refused_before_the_data_is_stopped(tmp_path: Path, content: str) -> None:
    engine = FakeEngine()
    engine.volumes[ASIDE] = content
    assert "nothing is replaced by it" in refused(engine, "what was set aside", tmp_path)
    assert f"samokoder-staging-postgres-before-restore-{STAMP}" not in engine.volumes
