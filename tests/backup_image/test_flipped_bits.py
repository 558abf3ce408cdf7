"""One flipped bit in what the program notes makes no good backup go, and no bad one good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samokoder_backup import barman, catalogue, copies, entries, jobs, restore, retention, settings, state
from samokoder_backup.process import CannotError
from samokoder_backup.restore import Target
from samokoder_backup.settings import Kind
from tests.backup_image.folders import Home, home_at


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return home_at(tmp_path, monkeypatch)


def flips(path: Path, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Write a file anew with each bit flipped in turn, then as it was."""
    whole = path.read_bytes()
    for at in range(start, len(whole) if length is None else start + length):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            path.write_bytes(changed)
            yield bytes(changed)
    path.write_bytes(whole)


def described(home: Home, identifier: str) -> tuple[Path, int, int]:
    """Find a description, and where in it the moment is."""
    (note,) = home.root.glob(f"*/{identifier}.json")
    moment = json.loads(note.read_text())["finished"]
    return note, note.read_text().index(moment), len(moment)


@pytest.mark.parametrize("kind", ["dump", "redis"])
def test_no_flipped_bit_in_the_moment_of_a_description_of_an_earlier_version_removes_its_copy(
    home: Home, kind: Kind
) -> None:
    step = timedelta(days=1) if kind == "dump" else timedelta(hours=1)
    made = [home.copy(home.now - number * step, kind) for number in range(8 if kind == "dump" else 49)]
    path = next(copy.path for copy in copies.copies(kind) if copy.id == made[2])
    content = path.read_bytes()
    note, start, length = described(home, made[2])
    changed = 0
    for text in flips(note, start, length):
        copies.retire(home.settings, kind, set())
        assert path.exists(), f"{made[2]} is good, and its description says {text!r}"
        believed = [copy.finished for copy in copies.copies(kind) if copy.id == made[2]]
        assert all(abs(moment - (home.now - 2 * step)) <= timedelta(minutes=1) for moment in believed), text
        changed += not believed
    assert changed > 100, "most of them are no moment at all, or another one"
    assert path.read_bytes() == content
    assert {copy.id for copy in copies.copies(kind)} >= {made[2]}, "it is believed again, once it was mended"


@pytest.mark.parametrize("kind", ["dump", "redis", "workspace"])
def test_no_flipped_bit_in_a_description_changes_what_is_believed_of_its_copy(
    home: Home, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "WORKSPACE_COPIES", home.root / "workspace")

    def fill(path: Path) -> dict[str, object]:
        path.write_text("all of it")
        return {"roles": ["samokoder_app", "samokoder_exporter"], "keys": 1024}

    made = copies._make(kind, fill)
    bad = 0
    for text in flips(made.path.with_suffix(".json")):
        believed, broken = copies.copies(kind), copies.broken(kind)
        assert believed in ([], [made]), f"roles or keys would be restored wrong: {text!r}"
        assert [each.id for each in broken] == ([] if believed else [made.id]), "it is told"
        bad += len(broken)
    assert bad > 1000
    assert copies.copies(kind) == [made]


def test_a_copy_has_the_moment_of_its_name_also_where_names_were_taken(home: Home) -> None:
    taken = [home.copy(home.now + timedelta(seconds=seconds)) for seconds in range(100)]
    made = copies._make("dump", lambda path: {"roles": [], "bytes": path.write_text("new")})
    assert made.id not in taken
    assert made.id == f"dump-{made.finished:%Y%m%dT%H%M%SZ}", "it would be taken for damaged"


def test_a_base_backup_that_nobody_has_verified_is_not_removed_for_a_flipped_bit_in_its_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barman, "barman", lambda *_, **__: "")
    monkeypatch.setattr(barman, "current", lambda _: home.server())
    old = home.base(home.ago(days=8))
    new = home.base(home.ago(hours=1), 2, verified=False)
    info = home.server() / "meta" / f"{new}-backup.info"
    start = info.read_text().index("end_time=") + len("end_time=")
    for text in flips(info, start, len(home.now.isoformat())):
        retention.retire(home.settings, entries.known_bad())
        assert (home.server() / "base" / old).exists(), text
        assert (home.server() / "base" / new).exists(), text


def test_a_flipped_bit_in_what_verification_found_makes_nothing_bad_good_and_lets_nothing_go(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = home.base(home.ago(days=2)), home.base(home.ago(days=1), 2)
    made = [home.copy(home.ago(hours=hours), "redis") for hours in range(60, 0, -1)]
    state.record("verify", {"bad": {bad: "one byte"}, "finished": 1.0, "whole": 1.0})
    path = home.root / "state.json"
    forgotten = 0
    for text in flips(path):
        known = state.bad()
        assert bad in known or state.FORGOTTEN in known, f"it would be restored from: {text!r}"
        if state.FORGOTTEN in known:
            forgotten += 1
            assert "whole" not in state.read()["verify"], "older good ones would be removed for it"
    assert forgotten > 500
    assert restore.plan(Target(latest=True)).source.id == good
    said = path.read_text()
    path.write_text(said.replace('"bad"', '"baf"'))
    jobs._retire(home.settings, "redis")
    assert len(copies.copies("redis")) == len(made)
    assert "nobody knows yet what is bad" in capsys.readouterr().err
    path.write_text(said.replace('"finished": 1.0', '"finished": 9.0'))
    with pytest.raises(CannotError, match=f"{bad} is bad"):
        restore.plan(Target(backup=bad))
    state.record("redis", {"exit": 0})
    assert state.bad().keys() == {bad, state.FORGOTTEN}, "until all was verified, whatever is written meanwhile"


def test_what_an_earlier_version_has_noted_is_read(home: Home) -> None:
    path = home.root / "state.json"
    path.write_text(json.dumps({"verify": {"bad": {"one": "byte"}, "finished": 1.0}}))
    assert state.bad() == {"one": "byte"}
    state.record("redis", {"exit": 0})
    assert json.loads(path.read_text())["verify"] == {"bad": {"one": "byte"}, "finished": 1.0}
    assert state.read().keys() == {"verify", "redis"}, "the checksum is no job"


def test_what_an_earlier_version_has_written_in_between_forgets_nothing(home: Home) -> None:
    """CI goes back to the earlier image, and forward again."""
    path = home.root / "state.json"
    state.record("verify", {"bad": {"one": "byte"}, "finished": 1.0})
    earlier = {name: dict(values) for name, values in json.loads(path.read_text()).items()}
    path.write_text(json.dumps({**earlier, "drill": {"exit": 0}}, indent=1))
    assert state.bad() == {"one": "byte"}, "it would page that the backups are damaged"
    assert state.read()["drill"] == {"exit": 0}
    state.record("redis", {"exit": 0})
    path.write_text(path.read_text().replace('"byte"', '"bite"'))
    assert state.FORGOTTEN in state.bad(), "what this version writes has its checksum again"


def test_a_flipped_bit_in_the_pauses_of_a_history_is_told_and_restores_no_moment_from_the_wrong_one(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    base, server, moment = home.base(home.ago(hours=9)), home.server(), home.ago(hours=5)
    home.wal(2, home.now)
    for start, end in ((6, 4), (3, 2)):
        catalogue.note_pause(server, home.ago(hours=start).timestamp(), home.ago(hours=end).timestamp() + 0.25)
    known = catalogue.pauses(server)
    assert [start for start, _ in known] == [home.ago(hours=6), home.ago(hours=3)], "the checksum is no pause"
    path = server / "samokoder-pauses.json"
    damaged = 0
    for text in flips(path):
        read = catalogue.pauses(server)
        forgotten = [(catalogue.FORGOTTEN, datetime.fromtimestamp(path.stat().st_mtime, UTC))]
        assert read in (known, forgotten), f"a moment would be restored from the wrong history: {text!r}"
        damaged += read == forgotten
    assert damaged > 500
    path.write_text(path.read_text().replace(f"{known[0][1].timestamp()}", f"{known[0][0].timestamp()}"))
    with pytest.raises(CannotError, match=r"samokoder-pauses.json of main-7000-1 was damaged"):
        restore.plan(Target(moment=moment))
    (entry,) = entries.entries()
    assert entry.without == ((entry.start, catalogue.pauses(server)[0][1]),), "the list offers no moment either"
    assert entry.id == restore.plan(Target(backup=base)).source.id, "the backup itself is good"
    capsys.readouterr()
    assert not jobs.verify()
    assert state.bad().keys() == {"main-7000-1/samokoder-pauses.json"}
    newer = home.base(home.now + timedelta(minutes=1), 3)
    catalogue.note_pause(server, home.ago(hours=1).timestamp(), home.now.timestamp())
    assert catalogue.pauses(server)[0][0] == catalogue.FORGOTTEN, "what is noted next makes nothing known"
    assert newer in {each.id for each in entries.entries() if not each.without}, "later backups have no pause in them"


def test_what_an_earlier_version_has_noted_of_pauses_is_read_and_it_forgets_nothing(home: Home) -> None:
    """CI goes back to the earlier image, and forward again."""
    server = home.server()
    path = server / "samokoder-pauses.json"
    stamps = [(home.ago(hours=hours).timestamp(), home.ago(hours=hours - 1).timestamp()) for hours in (9, 6, 3)]
    path.write_text(json.dumps(stamps[:1]))
    assert len(catalogue.pauses(server)) == 1
    catalogue.note_pause(server, *stamps[1])
    earlier = [
        (datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC))
        for start, end in json.loads(path.read_text())
    ]
    assert all(end < home.ago(days=365) for _, end in earlier[2:]), "it would take a checksum for a pause that matters"
    path.write_text(json.dumps([*((start.timestamp(), end.timestamp()) for start, end in earlier), stamps[2]]))
    assert [(start.timestamp(), end.timestamp()) for start, end in catalogue.pauses(server)] == stamps
    catalogue.note_pause(server, *stamps[2])
    assert [(start.timestamp(), end.timestamp()) for start, end in catalogue.pauses(server)] == stamps
    path.write_text(path.read_text().replace(str(stamps[0][1]), str(stamps[0][1] + 1)))
    assert catalogue.pauses(server)[0][0] == catalogue.FORGOTTEN, "what this version writes has its checksum again"
