"""Show which tests see a fault: each of the one-line faults in `faults.toml` is tried on a copy of the tree.

`python -m tests.mutations` tries all, `python -m tests.mutations restore lock` those with one of these words in their
file or their reason. The unit tests that a fault names are run, one process at a time, to the first that fails.
Ends with 1 where less than 95 % are seen, where one survives of which the list does not say why, or where the list is
wrong. Needs no engine and changes nothing but its own copy, which it removes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("faults.toml")
LEAST_SEEN = 0.95
TOO_LONG_SECONDS = 300.0
"""What a fault makes endless is seen as well."""
_PASSED, _FAILED = 0, 1


class ListError(Exception):
    """The list of faults is wrong, or the tests are red without any fault."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One wrong line. `old` stands once in `file`."""

    file: str
    old: str
    new: str
    why: str
    """What it would do to somebody."""
    tests: tuple[str, ...]
    """Files with the tests that see it."""
    survives: str = ""
    """Why no unit test can see it."""

    def __str__(self) -> str:
        """Say what is wrong, in one line."""
        return f"{self.file}: {self.why}"


def faults(words: Sequence[str] = ()) -> list[Fault]:
    """Read the list. words: what one of must be in the file or the reason; none: all faults."""
    with LIST.open("rb") as file:
        rows = tomllib.load(file)["fault"]
    every = [Fault(**{**row, "tests": tuple(row["tests"])}) for row in rows]
    return [fault for fault in every if not words or any(word in str(fault) for word in words)]


def broken(text: str, fault: Fault) -> str:
    """Return a file's text with the fault in it. Raises ListError unless there is one place for it."""
    if (places := text.count(fault.old)) != 1:
        raise ListError(f"{fault}: its `old` stands {places} times in the file:\n{fault.old}")
    return text.replace(fault.old, fault.new)


def copy(folder: Path) -> None:
    """Copy what git knows, and what is new and not ignored; the virtual environment is the tree's own."""
    known = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(known, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")


@contextmanager
def put(folder: Path, fault: Fault) -> Iterator[None]:
    """Put a fault into the copy, and take it out again."""
    file = folder / fault.file
    whole = file.read_text(encoding="utf-8")
    # Python knows a compiled file by its source's size and second.
    compiled = Path(importlib.util.cache_from_source(str(file)))
    try:
        file.write_text(broken(whole, fault), encoding="utf-8")
        compiled.unlink(missing_ok=True)
        yield
    finally:
        file.write_text(whole, encoding="utf-8")
        compiled.unlink(missing_ok=True)


def run_tests(folder: Path, files: Sequence[str]) -> tuple[int, str]:
    """Run the unit tests of these files in the copy to the first that fails; return the status and what was said."""
    words = ["-m", "not live and not archive and not long", "-x", "-q", "-p", "no:cacheprovider", "--tb=line"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *words, *files],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=TOO_LONG_SECONDS)
    except subprocess.TimeoutExpired:
        return _FAILED, f"nothing ends: still running after {TOO_LONG_SECONDS:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, said


def seen_by(folder: Path, fault: Fault) -> str:
    """Return the test that sees a fault; empty where none does. Raises ListError where its tests cannot be run."""
    with put(folder, fault):
        status, said = run_tests(folder, fault.tests)
    if status == _PASSED:
        return ""
    if status != _FAILED:
        raise ListError(f"{fault}: its tests cannot be run ({status}):\n{said[-2000:]}")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    return found[1] if found else said.strip().splitlines()[-1]


def main(words: Sequence[str]) -> int:
    """Try the faults and print a line for each; the exit status."""
    chosen = faults(words)
    wrong = []
    survived = 0
    with tempfile.TemporaryDirectory(prefix="samokoder-mutations-") as name:
        folder = Path(name).resolve()
        copy(folder)
        files = sorted({test for fault in chosen for test in fault.tests})
        print(f"{len(chosen)} faults; first the {len(files)} files of tests without any", flush=True)
        status, said = run_tests(folder, files)
        if status != _PASSED:
            raise ListError(f"The tests do not pass without a fault:\n{said[-2000:]}")
        for number, fault in enumerate(chosen, 1):
            began = time.monotonic()
            test = seen_by(folder, fault)
            survived += not test
            outcome = f"seen by {test}" if test else f"SURVIVED {fault.survives and f'({fault.survives})'}"
            spent = time.monotonic() - began
            print(f"[{number}/{len(chosen)}] {spent:5.1f} s  {fault}\n{outcome:>14}", flush=True)
            if bool(test) is bool(fault.survives):
                wrong.append(fault)
    share = 1 - survived / len(chosen) if chosen else 0.0
    print(f"{len(chosen) - survived} of {len(chosen)} faults are seen ({share:.1%})")
    for fault in wrong:
        say = "is seen, though the list says that it cannot be" if fault.survives else "is seen by no test"
        print(f"{fault}\n    {say}: {fault.old.strip()} -> {fault.new.strip() or '(nothing)'}")
    return int(bool(wrong) or share < LEAST_SEEN)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ListError as error:
        sys.exit(str(error))
