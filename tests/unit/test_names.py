"""One word is one thing: a search for the name of a class finds one class."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.unit.test_sizes import ROOT, product

PROGRAMS = ("backup_image/", "reference_app/", "")
"""What runs in containers of its own imports nothing of the rest, and is a program with names of its own."""


def test_no_two_classes_of_one_program_have_one_name() -> None:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for file in product():
        program = next(prefix for prefix in PROGRAMS if file.startswith(prefix))
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[program, node.name].append(file)
    assert len(found) > 300, "the classes are not found"
    twice = {name: files for (_, name), files in found.items() if len(files) > 1}
    assert not twice, "give each class the name of what it is, so that a search for the name answers"
