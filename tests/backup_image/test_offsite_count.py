"""How many copies the bucket holds, with a stand-in for restic: a real one is in `test_offsite.py`."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from samokoder_backup import metrics, offsite, settings
from samokoder_backup.process import BackupError
from samokoder_backup.settings import Offsite, Settings
from tests.backup_image.folders import settings_document

RESTIC = """#!/bin/sh
echo "$@" >>"$0.asked"
case " $* " in
*" backup "*) echo '{"message_type": "summary"}'; echo one >>"$0.copies" ;;
*" list "*) cat "$0.copies"; exit $(cat "$0.fails" 2>/dev/null || echo 0) ;;
*" snapshots "*) echo '[]' ;;
*" forget "*) exit 1 ;;
esac
"""
BUCKET = Offsite(endpoint="https://s3.example.org", bucket="b", prefix="", region="", sync_minutes=5, keep_days=0)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bin" / "restic"
    path.parent.mkdir()
    path.write_text(RESTIC)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "backups"
    (root / "dumps").mkdir(parents=True)
    for name in ("offsite_access_key_id", "offsite_secret_access_key", "encryption_key"):
        (tmp_path / name).write_text("0123456789abcdef")
    monkeypatch.setattr(settings, "ROOT", root)
    return root


def counted() -> float | None:
    """The metric; None: there is none."""
    document = settings_document(physical=False, offsite=BUCKET.model_dump())
    registry = CollectorRegistry()
    registry.register(metrics.Metrics(Settings.model_validate(document), SimpleNamespace()))
    return registry.get_sample_value("backup_offsite_snapshots")


def sync(root: Path, bucket: Offsite = BUCKET) -> None:
    offsite.sync(bucket, root=root, secrets=root.parent)


def test_the_copies_in_the_bucket_are_counted_once_a_day(
    program: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counted() is None, "nothing is known before the first copy"
    sync(root)
    assert counted() == 1
    sync(root)
    assert counted() == 1, "a list of all at each copy is what makes many of them slow"
    monkeypatch.setattr(offsite, "_DAY_SECONDS", 0)
    sync(root)
    assert counted() == 3, "without keepDays each copy stays, and somebody has to see that"
    asked = program.with_name("restic.asked").read_text()
    assert "forget" not in asked, "keys that may not delete are enough"


def test_a_count_that_fails_is_no_failure_of_the_copy(program: Path, root: Path) -> None:
    program.with_name("restic.fails").write_text("1")
    sync(root)
    assert counted() is None


def test_copies_are_counted_where_old_ones_could_not_be_removed_too(program: Path, root: Path) -> None:
    with pytest.raises(BackupError, match="old ones were not removed"):
        sync(root, BUCKET.model_copy(update={"keep_days": 90}))
    assert counted() == 1, "there they grow"
    assert program.with_name("restic.asked").read_text().count("forget") == 1
