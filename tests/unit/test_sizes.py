"""A file has one subject and at most 400 lines, so that its name says what is in it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("backup_image", "bench", "host", "offline", "operations", "reference_app", "stack")
MOST_LINES = 400

LONGER: dict[str, str] = {}
"""File -> why it cannot be cut along a subject."""


def product() -> dict[str, int]:
    """Return every Python file of the product with its lines."""
    files = [ROOT / "__main__.py", *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]
    return {file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines()) for file in files}


def test_no_file_is_longer_than_a_person_reads_at_once() -> None:
    lines = product()
    assert len(lines) > 150, "the files are not found"
    too_long = {file: count for file, count in lines.items() if count > MOST_LINES}
    assert too_long.keys() <= LONGER.keys(), "cut it along its subjects, or say in LONGER why that cannot be"


def test_no_reason_is_given_for_a_file_that_needs_none() -> None:
    lines = product()
    assert not [file for file in LONGER if lines.get(file, 0) <= MOST_LINES]
