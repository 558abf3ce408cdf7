"""What the tests on a real engine write down and no type checker reads: code in texts, paths and what commands say."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from operations.clone import ROOT
from tests.facts import facts

LIVE = ROOT / "tests" / "live"
FILES = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(LIVE.glob("*.py"))}
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


# Code that `begin` runs in another process.


def command_names() -> dict[str, object]:
    """What the code of `begin` has around it: the imports of `_COMMAND` done, and the `workspace` itself."""
    (text,) = [
        str(ast.literal_eval(each.value))
        for each in FILES["conftest.py"].body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "_COMMAND"
    ]
    module = ast.parse(text)
    imports: list[ast.stmt] = [each for each in module.body if isinstance(each, ast.Import | ast.ImportFrom)]
    names: dict[str, object] = {}
    exec(compile(ast.Module(imports, []), "_COMMAND", "exec"), names)  # noqa: S102 - what the tests themselves run
    assigned = {name.id for name in ast.walk(module) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
    return {**dict.fromkeys(assigned), **names}


def text_of(node: ast.expr, tree: ast.Module) -> str:
    """Return an expression's text; in place of a value that only a run knows: `None`, or nothing at its beginning."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        assigned = [
            each.value
            for each in ast.walk(tree)
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id
        ]
        return text_of(assigned[-1], tree) if assigned and isinstance(assigned[-1], _TEXT) else ""
    if isinstance(node, ast.Call):
        named = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
        returned = [
            each.value
            for function in named
            if function.name == ast.unparse(node.func)
            for each in ast.walk(function)
            if isinstance(each, ast.Return) and isinstance(each.value, _TEXT)
        ]
        return text_of(returned[0], tree) if returned else ""
    if isinstance(node, ast.JoinedStr):
        said = ""
        for part in node.values:
            if not isinstance(part, ast.FormattedValue):
                said += text_of(part, tree)
            elif part.conversion == ord("r"):
                said += "{}" if said.endswith("**") else "None"
            else:
                said += text_of(part.value, tree) or ("None" if said else "")
        return said
    return ""


_TEXT = (ast.Constant, ast.JoinedStr)


def begun(tree: ast.Module) -> Iterator[str]:
    """Yield the code that is given to `begin`, and the words before a call that make its process die."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "begin":
            yield text_of(node.args[1], tree)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "dies":
            yield text_of(node.value, tree).removesuffix(" or ")


def unknown(code: str, names: dict[str, object]) -> list[str]:
    """Return the names in a code that nothing gives it, and the attributes that a module does not have."""
    tree = ast.parse(code.strip())
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    wrong = [node.id for node in loads if node.id not in {*bound, *names, *dir(builtins)}]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            given = names.get(node.value.id)
            if given is not None and not hasattr(given, node.attr):
                wrong.append(ast.unparse(node))
    return wrong


def test_code_that_a_test_begins_uses_only_names_that_it_has() -> None:
    names = command_names()
    found = 0
    with facts() as fact:
        for file, tree in FILES.items():
            for code in begun(tree):
                found += 1
                with fact(f"{file}: {code}"):
                    assert unknown(code, names) == [], "the process ends with a NameError, and proves nothing"
    assert found > 5, "the tests no longer begin a call in this way: nothing was looked at"


@pytest.mark.parametrize("code", ["restore.restore(workspace, up=lifecycle.up)", "restore.gone()", "f(lambda x: y)"])
def test_a_name_that_has_moved_is_found(code: str) -> None:
    assert unknown(code, command_names())


# Paths.


def segments(node: ast.expr) -> list[str]:
    """Return the constants at the end of a path that is built by `/`."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)):
        return []
    last = node.right.value if isinstance(node.right, ast.Constant) else None
    before = segments(node.left)
    return [*before, *last.split("/")] if isinstance(last, str) else []


def paths(tree: ast.Module) -> Iterator[str]:
    """Yield the paths in a module that begin with a folder or a file of this repository."""
    top = {name.partition("/")[0] for name in TRACKED}
    inner = {id(node.left) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    for node in ast.walk(tree):
        parts: list[str] = []
        if isinstance(node, ast.BinOp) and id(node) not in inner:
            parts = segments(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.split("/") if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.[a-z]{1,4}", node.value) else []
        if parts and parts[0] in top:
            yield "/".join(parts)


def test_each_path_of_the_repository_that_a_test_builds_exists() -> None:
    found = 0
    with facts() as fact:
        for file, tree in FILES.items():
            for path in paths(tree):
                found += 1
                with fact(f"{file}: {path}"):
                    assert (ROOT / path).exists(), "the test ends before it has tried anything"
    assert found > 5, "nothing was looked at"


@pytest.mark.parametrize("path", ['older / "stack" / "app" / "redis.py"', '"stack/app/redis.py"', 'ROOT / "docs/x.md"'])
def test_a_path_that_has_moved_is_found(path: str) -> None:
    (found,) = set(paths(ast.parse(path)))
    assert not (ROOT / found).exists()


# What commands say.


def words(text: str) -> list[list[str]]:
    """Return the words of each clause: what is between two signs or two values."""
    return [re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)*", clause) for clause in re.split(r"[^A-Za-z' \n-]+", text)]


def triples(text: str) -> set[tuple[str, ...]]:
    """Return each three words of a text that follow each other in a clause."""
    return {tuple(clause[at : at + 3]) for clause in words(text) for at in range(len(clause) - 2)}


def texts(tree: ast.AST, *, but: Callable[[ast.AST], bool] = lambda _: False) -> Iterator[str]:
    """Yield the texts in a module; a value in one is a sign. but: which nodes to leave out, with all in them."""
    if but(tree):
        return
    if isinstance(tree, ast.JoinedStr):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "|" for each in tree.values)
    elif isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree.value
    for child in ast.iter_child_nodes(tree):
        yield from texts(child, but=but)


def told(tree: ast.Module) -> Iterator[str]:
    """Yield each text of which a test says that it is in another one."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Compare)
            and isinstance(node.ops[0], ast.In | ast.NotIn)
            and isinstance(node.left, ast.Constant)
            and isinstance(node.left.value, str)
        ):
            yield node.left.value


def said_somewhere() -> set[tuple[str, ...]]:
    """Return what the product, its scripts and the programs of the tests can say."""
    known: set[tuple[str, ...]] = set()
    for name in TRACKED:
        file = ROOT / name
        if name.startswith(("docs/", "tests/unit/", "tests/live/")) or not file.is_file():
            continue
        if file.suffix == ".py":
            for text in texts(ast.parse(file.read_text(encoding="utf-8"))):
                known |= triples(text)
        elif file.suffix in {".sh", ".tmpl", ".mako"} or file.name == "Makefile":
            known |= triples(file.read_text(encoding="utf-8"))
    for tree in FILES.values():  # what a test itself writes down, for others to say
        for text in texts(tree, but=lambda node: isinstance(node, ast.Assert)):
            known |= triples(text)
    return known


# The kernel says the first one; in the second one two words are values.
NOT_JUDGED = frozenset(
    {
        "Read-only file system",
        "api-1 has what looks like a secret in the variable SMTP_PASSWORD",
    }
)
SENTENCE = 4


def never_said(text: str, known: set[tuple[str, ...]]) -> list[str]:
    """Return the clauses of a text, of four words or more, that nothing can say. The last word may be a value."""
    clauses = [clause for clause in words(text) if len(clause) >= SENTENCE]
    return [" ".join(clause) for clause in clauses if not triples(" ".join(clause[:-1])) <= known]


def test_each_sentence_that_a_test_waits_for_can_be_said() -> None:
    known = said_somewhere()
    found = 0
    with facts() as fact:
        for file, tree in FILES.items():
            for text in told(tree):
                if text in NOT_JUDGED:
                    continue
                found += 1
                with fact(f"{file}: {text}"):
                    assert never_said(text, known) == [], "the words have changed: the test fails, or proves nothing"
    assert found > 20, "nothing was looked at"
    assert never_said("api, which had them before: not exposed: x; mute", known), "words of an earlier version"
