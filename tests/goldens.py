"""Texts that are kept beside the tests and compared word by word.

After a change that is meant: `UPDATE_GOLDEN=1 .venv/bin/pytest tests/unit tests/render`, then read `git diff`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent / "golden"
UPDATE = "UPDATE_GOLDEN"


def compare(folder: str, texts: Mapping[str, str], why: str) -> None:
    """Compare `texts` with all files below `tests/golden/<folder>`; with UPDATE_GOLDEN=1 rewrite those and fail not.

    why: what a difference can mean, for the person who reads the failure.
    """
    root = FOLDER / folder
    kept = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    if os.environ.get(UPDATE) == "1":
        for name in kept.keys() - texts.keys():
            kept[name].unlink()
        for name, text in texts.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return
    differences = "".join(
        _difference(f"{folder}/{name}", kept[name].read_text(encoding="utf-8") if name in kept else "", text)
        for name, text in sorted({**dict.fromkeys(kept, ""), **texts}.items())
    )
    if differences:
        pytest.fail(
            f"{why}\n\n{differences}\nIf it is meant: {UPDATE}=1 .venv/bin/pytest tests/unit tests/render, "
            "then read `git diff tests/golden` and commit it.",
            pytrace=False,
        )


def _difference(name: str, kept: str, text: str) -> str:
    lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), f"kept/{name}", f"now/{name}", lineterm="")
    return "".join(f"{line}\n" for line in lines)
