"""The words of docs/style.md: phrases that one reads twice become fewer, and never more.

Vale, which does this elsewhere, is in no package registry: the package of that name on PyPI downloads it from GitHub.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.recording import ROOT

FOLDERS = ("backup_image", "bench", "host", "offline", "operations", "reference_app", "stack")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "style.md"),  # which cites them
]

# Phrase -> the word to write, and how often the phrase may be there still. Lower the number when you remove one.
PHRASES: dict[str, tuple[str, int]] = {
    r"(cannot|can|could|must|to) be had": ("available", 5),
    r"cut off": ("interrupted", 68),
    r"go(es)? on": ("resume, continue", 82),
    r"set aside": ("kept as …", 44),
    r"anew": ("again", 69),
    r"by (itself|themselves)": ("automatically", 59),
    r"stands? (in|there|here|twice|once)": ("is", 14),
    r"whoever": ("name the person or the program", 77),
    r"sick": ("unhealthy", 8),
    r"(throws?|thrown) (away|out)": ("evicts, removes", 10),
    r"so (many|long) (of|until|before|after|failed)": ("number of …, seconds until …", 46),
}


def prose_of(file: Path) -> Iterator[str]:
    """Yield the comments and docstrings of a Python file, or a page without its code."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield re.sub(r"^ *```.*?^ *```|`[^`\n]*`|<!--.*?-->", "", text, flags=re.DOTALL | re.MULTILINE)
        return
    yield from (t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


@cache
def everything() -> dict[str, str]:
    """Return the prose of the product: file -> text, its lines joined."""
    files = [*PAGES, *(file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))]
    return {file.relative_to(ROOT).as_posix(): " ".join("\n".join(prose_of(file)).split()) for file in files}


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_that_one_reads_twice_is_not_written_again(phrase: str) -> None:
    word, most = PHRASES[phrase]
    pattern = re.compile(rf"\b(?:{phrase})\b", re.IGNORECASE)
    found = {file: count for file, text in everything().items() if (count := len(pattern.findall(text)))}
    assert sum(found.values()) <= most, f"write: {word}. It is in {found}"
