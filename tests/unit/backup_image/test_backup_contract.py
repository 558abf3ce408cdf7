"""What the stack tells the backup server is what that one reads; what it measures is what rules and panels ask for."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from stack.parts.backup import spec as backup
from stack.parts.backup.metrics import BACKUP_METRICS
from stack.spec.service import Scrape
from tests.described import specs
from tests.recording import CASES, DATABASE_URL, ROOT, case_environment

sys.path.insert(0, str(ROOT / "backup_image"))  # the server is no package of this project

from samokoder_backup import copies, entries, metrics
from samokoder_backup import settings as server


def read(case: str) -> server.Settings:
    told = backup.files(case_environment(case))["backup.json"]
    return server.Settings.model_validate_json(told if isinstance(told, str) else told.render(DATABASE_URL))


@pytest.mark.parametrize("case", CASES)
def test_the_server_reads_what_it_is_told(case: str) -> None:
    environment, settings = case_environment(case), read(case)
    assert set(settings.kinds()) == backup.kinds(environment).keys(), "an alert would wait for what nobody makes"
    assert (settings.offsite is None) == (environment.offsite is None)
    assert settings.managed == environment.managed_database, "which clocks may differ goes by it"
    assert settings.schedules.drill == environment.settings.backup.drill_schedule


def dump_of(moment: datetime) -> copies.Copy:
    return copies.Copy(f"dump-{moment:%Y%m%dT%H%M%SZ}", "dump", Path(), moment, 1, "", (), 0)


def test_of_dumps_each_six_hours_one_of_before_this_mornings_mistake_stays() -> None:
    start = datetime(2026, 1, 1, 0, 15, tzinfo=UTC)
    made = [dump_of(start + timedelta(hours=6 * number)) for number in range(400)]
    kept = sorted(copies._kept(read("managed"), "dump", made))
    newest = [each.id for each in made[-4:]]
    assert kept[-4:] == newest, "what was deleted this morning is in the one of last night alone"
    days = {identifier[len("dump-") :][:8] for identifier in kept}
    assert {f"{made[-1].finished - timedelta(days=number):%Y%m%d}" for number in range(7)} <= days, "seven days"
    assert len(kept) <= 4 + 7 + 4 + 6


def test_of_dumps_of_each_day_as_many_stay_as_before() -> None:
    start = datetime(2026, 1, 1, 3, 15, tzinfo=UTC)
    made = [dump_of(start + timedelta(days=number)) for number in range(100)]
    kept = copies._kept(read("staging"), "dump", made)
    assert {each.id for each in made[-7:]} <= kept
    assert len(kept) <= 7 + 4 + 6


def test_the_server_is_where_the_stack_looks_for_it() -> None:
    (spec,) = [spec for spec in specs(case_environment("staging")) if spec.part == backup.PART]
    assert spec.scrape == Scrape(port=server.METRICS_PORT)
    assert Path(spec.files_at) == server.CONFIG
    assert spec.data is not None
    assert Path(spec.data.path) == server.ROOT


class Running:
    """A service that has done everything once."""

    receiving = True
    retained = 1
    lag = 1.0


@pytest.mark.parametrize(("case", "lacks"), [("prod", set()), ("staging", {"offsite"}), ("managed", {"wal", "slot"})])
def test_it_measures_the_contract_with_its_labels_and_nothing_beside_it(
    case: str, lacks: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read(case)
    done = {"finished": 1.0, "success": 1.0, "exit": 0, "seconds": 1.0, "rpo": 1.0, "rto": 1.0}
    names = (*get_args(server.Kind), "verify", "drill", "offsite")
    (tmp_path / "state.json").write_text(json.dumps(dict.fromkeys(names, done)))
    (tmp_path / "offsite").mkdir()
    (tmp_path / "offsite" / "known.json").write_text('{"snapshots": 3}')
    monkeypatch.setattr(server, "ROOT", tmp_path)
    moment = datetime.now(UTC)
    found = [
        entries.Entry(id="x", kind=kind, finished=moment, bytes=1, status="good", start=None, to=None)
        for kind in settings.kinds()
    ]
    monkeypatch.setattr(entries, "entries", lambda: found)

    families = {family.name: family for family in metrics.Metrics(settings, Running()).collect()}

    missing = {metric.name for metric in BACKUP_METRICS} - families.keys()
    assert all(any(word in name.split("_") for word in lacks) for name in missing), f"alerts are mute: {missing}"
    assert families.keys() <= {metric.name for metric in BACKUP_METRICS}, "the contract does not name it"
    for metric in BACKUP_METRICS:
        if metric.name in families:
            assert families[metric.name].type == metric.type
            labels = [tuple(sample.labels) for sample in families[metric.name].samples]
            assert set(labels) == {metric.labels}, metric.name
