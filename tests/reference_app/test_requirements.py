"""The image's lock is a part of the project's lock."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("image", ["reference_app", "backup_image"])
def test_the_image_installs_what_the_tests_ran_with_hash_by_hash(image: str) -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {
        package["name"]: (
            package["version"],
            {f["hash"] for f in [package.get("sdist", {}), *package.get("wheels", [])] if f},
        )
        for package in lock["package"]
    }
    text = (ROOT / image / "requirements.txt").read_text()
    blocks = re.findall(r"^([a-z0-9-]+)==(\S+)(.*?)(?=^[a-z]|\Z)", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10, "the expression no longer reads the file"
    for name, version, rest in blocks:
        hashes = set(re.findall(r"sha256:[0-9a-f]{64}", rest))
        assert locked[name][0] == version, f"{name}: run `make docs`"
        assert hashes, f"{name} has no hash"
        assert hashes <= locked[name][1], f"{name}: run `make docs`"
