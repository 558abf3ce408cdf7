"""docs/adding-a-part.md is right: its blocks, applied to a copy of the repository, add a part that works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/adding-a-part.md"
BLOCK = re.compile(r"^(Write|Change) `([^`\n]+)`[^\n]*:\n\n(`{3,})(\w+)\n(.*?)^\3$", re.MULTILINE | re.DOTALL)
HOUSE = (
    *("tests/unit/the_new_part.py", "tests/unit/test_sizes.py", "tests/unit/test_names.py"),
    *("tests/unit/stack/test_parts_folders.py", "tests/unit/stack/test_images.py"),
    "tests/unit/operations/audit/test_licences.py",
    "tests/unit/operations/documents/test_documents.py::test_every_link_of_the_documents_to_a_file_here_leads_somewhere",
    *(
        f"tests/unit/test_document_claims.py::{test}"
        for test in (
            "test_a_command_that_a_page_tells_exists_and_takes_its_words",
            "test_a_file_and_a_test_that_a_page_names_are_there",
            "test_a_link_to_a_heading_finds_it",
        )
    ),
    *(
        f"tests/render/test_prometheus.py::{test}"
        for test in (
            "test_every_alert_has_a_case_that_fires_and_one_that_does_not",
            "test_every_alert_has_a_page_for_the_person_on_call_and_every_page_an_alert",
            "test_every_alert_says_how_bad_it_is_what_to_look_at_and_where",
            "test_both_languages_say_the_same_with_the_same_values",
        )
    ),
    *(
        f"tests/render/test_dashboards.py::{test}"
        for test in (
            "test_every_panel_says_what_it_shows_and_in_which_unit[staging]",
            "test_every_graph_has_a_legend_and_a_name_for_each_of_its_lines",
        )
    ),
)
"""What holds the house, and needs neither an engine nor the files of `tests/golden`."""


def applied(page: str, root: Path) -> list[str]:
    """Do what the page says in `root`; return the files that it names. A place must be there, and once."""
    files = []
    for what, name, _, kind, block in BLOCK.findall(page):
        file = root / name
        files.append(name)
        if what == "Write":
            assert not file.exists(), f"{PAGE} writes {name}, which is there"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block, encoding="utf-8")
            continue
        assert kind == "diff", f"{PAGE}: say with + and - what changes in {name}"
        lines = block.splitlines(keepends=True)
        assert all(line[0] in "+- " for line in lines), f"{PAGE}: a line of {name} has no mark"
        before, after = ("".join(line[1:] for line in lines if line[0] in marks) for marks in ("- ", "+ "))
        text = file.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{PAGE}: {name} has this place {text.count(before)} times:\n{before}"
        file.write_text(text.replace(before, after), encoding="utf-8")
    return files


def run(root: Path, *words: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    environment |= {"PYTHONPATH": str(root)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each start would compile everything anew
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words[:2])} in the copy:\n{done.stdout[-6000:]}{done.stderr[-3000:]}"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of this repository as it is now, also of what is not committed, with what Python has compiled of it."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        source, target = ROOT / name, tmp_path / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)  # with its time, by which Python knows what it has compiled
            for compiled in source.parent.glob(f"__pycache__/{source.stem}.*.pyc"):
                (target.parent / "__pycache__").mkdir(exist_ok=True)
                shutil.copy2(compiled, target.parent / "__pycache__")
    return tmp_path


def test_who_follows_the_page_has_a_part_that_is_hardened_scraped_watched_and_shown(copy: Path) -> None:
    files = applied((ROOT / PAGE).read_text(encoding="utf-8"), copy)
    product = {file if "/pushgateway/" not in file else "a folder" for file in files if file.startswith("stack/")}
    assert product == {
        *("a folder", "stack/catalogue.py", "stack/images.py", "stack/settings/images.py", "stack/settings/tree.py")
    }, "a part got one more place: can its spec or its row say it?"
    written = [file for file in dict.fromkeys(files) if file.endswith(".py")]
    run(copy, "ruff", "check", "--quiet", "--no-cache", *written)
    run(copy, "ruff", "format", "--check", "--quiet", "--no-cache", *written)
    run(copy, "operations.documents.generate")
    run(copy, "pytest", "-q", "-p", "no:cacheprovider", "-m", "not live", *HOUSE)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("Write `a.py`:\n\n```python\n```\n", "writes a.py, which is there"),
        ("Change `a.py`:\n\n```diff\n two\n+three\n```\n", "has this place 0 times"),
        ("Change `a.py`:\n\n```diff\n one\n+three\n```\n", "has this place 2 times"),
        ("Change `a.py`:\n\n```python\none\n```\n", "say with [+] and -"),
    ],
)
def test_a_block_that_cannot_be_followed_is_seen(tmp_path: Path, block: str, said: str) -> None:
    (tmp_path / "a.py").write_text("one\none\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=said):
        applied(block, tmp_path)


def test_every_block_of_the_page_is_followed_or_a_command() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    rest = BLOCK.sub("", page)
    assert re.findall(r"^`{3,}(\w+)$", rest, re.MULTILINE) == ["sh"], "a block without Write or Change is never tried"
