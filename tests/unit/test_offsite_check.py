"""The copy in the bucket is looked at after copies that were whole: each day, a share of its data in turn."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stack.settings import Offsite as Configured
from tests.recording import ROOT

sys.path.insert(0, str(ROOT / "backup_image"))  # the server is no package of this project

from samokoder_backup import offsite, offsite_check, state
from samokoder_backup import settings as at
from samokoder_backup.process import BackupError, CannotError

WHERE = at.Offsite(
    endpoint="https://s3.example.org", bucket="b", prefix="p", region="r", sync_minutes=5, keep_days=0, read_days=3
)
DAMAGE = "restic ended with 1 at s3:…\npack 1f not found\nFatal: repository contains errors"
DAY = 24 * 3600.0


class Bucket:
    """In place of restic: what it finds, and which shares of the data it was asked for."""

    def __init__(self) -> None:
        self.finds: list[BackupError | None] = []
        self.read: list[str] = []
        self.now = time.time()
        self.stop = threading.Event()
        self.told: list[int] = []
        checks = offsite_check.Checks(WHERE)
        self.after = offsite_check.after_each(lambda status, _: self.told.append(status), checks, self.stop)
        self.checks = checks

    def check(self, _settings: object, *, read: str, **_: object) -> None:
        self.read.append(read)
        if error := self.finds.pop(0) if self.finds else None:
            raise error

    @property
    def noted(self) -> dict[str, Any]:
        return state.read().get(offsite_check.JOB, {})


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr(at, "ROOT", tmp_path)
    bucket = Bucket()
    monkeypatch.setattr(offsite, "check", bucket.check)
    monkeypatch.setattr(time, "time", lambda: bucket.now)
    monkeypatch.setattr(time, "monotonic", lambda: bucket.now)
    monkeypatch.setattr("samokoder_backup.clock.ahead", lambda _: False)
    return bucket


def test_each_day_one_more_share_of_the_data_is_read_and_then_the_first_again(bucket: Bucket) -> None:
    for _ in range(4):
        bucket.after(0, "")
        bucket.after(0, "")
        bucket.now += DAY
    assert bucket.read == ["1/3", "2/3", "3/3", "1/3"], "a pack that nobody reads may be gone for years"
    assert bucket.told == [0] * 8, "the copies themselves are reported as before"


def test_a_pack_that_is_gone_is_noted_as_damage_until_a_check_finds_it_whole(bucket: Bucket) -> None:
    bucket.finds = [BackupError(DAMAGE), BackupError(DAMAGE)]
    bucket.after(0, "")
    assert (bucket.noted["damaged"], bucket.noted["exit"]) == (1, offsite_check.DAMAGED)
    assert "pack 1f not found" in bucket.noted["error"]
    bucket.finds = [BackupError("restic ended with 1: connection refused")]
    bucket.now += offsite_check.AGAIN_SECONDS
    bucket.after(0, "")
    assert bucket.noted["damaged"] == 1, "a check that could not be made is no verdict"
    bucket.now += offsite_check.AGAIN_SECONDS
    bucket.after(0, "")
    assert bucket.noted["damaged"] == 0
    assert set(bucket.read) == {"1/3"}, "the share that was not read is not left out"


def test_what_looks_like_damage_once_is_looked_at_again_at_once(bucket: Bucket) -> None:
    bucket.finds = [BackupError(DAMAGE)]
    bucket.after(0, "")
    assert len(bucket.read) == 2
    assert bucket.noted["damaged"] == 0, "a line that broke would wake somebody at night"


def test_a_failed_check_is_tried_again_in_an_hour_and_after_a_restart_at_once(bucket: Bucket) -> None:
    bucket.finds = [CannotError("it refused the request")]
    bucket.after(0, "")
    bucket.now += offsite_check.AGAIN_SECONDS - 1
    bucket.after(0, "")
    assert len(bucket.read) == 1
    assert bucket.noted["exit"] == CannotError.status
    assert "success" not in bucket.noted
    assert offsite_check.Checks(WHERE).due()


def test_nothing_is_checked_after_a_copy_that_failed_and_nothing_noted_of_a_check_that_was_stopped(
    bucket: Bucket,
) -> None:
    bucket.after(1, "no way out")
    assert bucket.read == [], "before the first copy there is nothing to find there"

    def stopped(*_: object, **__: object) -> None:
        bucket.stop.set()
        raise BackupError("The off-site copy was stopped.")

    bucket.check = stopped  # type: ignore[method-assign]
    offsite.check = stopped  # the fixture puts the real one back
    bucket.after(0, "")
    assert bucket.noted == {}


def test_the_stack_and_the_service_know_the_same_shares() -> None:
    wanted = Configured(endpoint="https://s3.example.org", bucket="backups").model_dump()
    assert at.Offsite.model_validate(wanted | {"prefix": "p"}).read_days == 30


def test_no_text_says_that_a_bucket_may_remove_objects_by_their_age() -> None:
    """Each copy needs objects of the first day."""
    advice = re.compile(r"bucket's (own )?rules|rules for old objects", re.IGNORECASE)
    patterns = ("docs/**/*.md", "stack/**/*.py", "backup_image/**/*.py", "*.md", "Pulumi*.yaml")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    found = [str(path.relative_to(ROOT)) for path in paths if advice.search(path.read_text(encoding="utf-8"))]
    assert not found, "who follows this has no copy on the day that the rule first works"
