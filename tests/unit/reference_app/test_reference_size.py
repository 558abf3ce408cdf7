"""The reference application stays small enough to be read in an hour."""

from __future__ import annotations

import ast
import tokenize
from pathlib import Path

APPLICATION = Path(__file__).parents[3] / "reference_app"
MOST_LINES = 1700
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstring_lines(tree: ast.Module) -> set[int]:
    documented = (n for n in ast.walk(tree) if isinstance(n, Documented) and ast.get_docstring(n) is not None)
    return {line for n in documented for line in range(n.body[0].lineno, (n.body[0].end_lineno or 0) + 1)}


def code_lines(path: Path) -> int:
    """Count the lines of a file that are neither blank nor a comment nor of a docstring."""
    with path.open("rb") as file:
        code = [token for token in tokenize.tokenize(file.readline) if token.type not in NO_CODE]
    lines = {line for token in code for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - docstring_lines(ast.parse(path.read_bytes())))


def test_only_code_is_counted(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    text = '"""Two\nlines."""\n\n# a comment\nX = """two\nlines"""\n\n\ndef f():\n    """One."""\n    return X  # !\n'
    module.write_text(text)
    assert code_lines(module) == 4, "a text over two lines is code, a docstring and a comment are none"


def test_the_reference_application_is_under_1700_lines_of_code() -> None:
    sizes = {path.relative_to(APPLICATION).as_posix(): code_lines(path) for path in sorted(APPLICATION.rglob("*.py"))}
    assert "samokoder/main.py" in sizes, "it is no longer where this test looks"
    assert sum(sizes.values()) < MOST_LINES, f"a newcomer reads all of it, so it says no more than it has to: {sizes}"
