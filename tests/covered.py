"""Measure which lines of the product the unit tests run: `python -m tests.covered`, by `make coverage`.

Prints the share of each folder and names each file below 80 %: what else of such a file is run, the tests on a real
engine run. Ends as pytest does; a low share is no failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENOUGH_PERCENT = 80.0
UNIT = ["-m", "not live and not archive and not long", "-n", "2", "--ignore=tests/live", "--ignore=tests/reference_app"]
_CONFIGURATION = f"""\
[run]
source =
    {ROOT}/stack
    {ROOT}/operations
    {ROOT}/host
    {ROOT}/offline
    {ROOT}/backup_image/samokoder_backup
parallel = true
patch = subprocess
[report]
exclude_also =
    if TYPE_CHECKING:
    class .*\\(Protocol\\):
"""
"""`patch`: pytest's other processes, and commands that a test starts, are measured too."""


def lines_of(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say the share of each folder and name the files below 80 %. files: of coverage's JSON report."""
    known: defaultdict[str, int] = defaultdict(int)
    run: defaultdict[str, int] = defaultdict(int)
    low = []
    for name, file in files.items():
        summary = file["summary"]
        for folder in (name.partition("/")[0], "all"):
            known[folder] += summary["num_statements"]
            run[folder] += summary["covered_lines"]
        if summary["percent_covered"] < ENOUGH_PERCENT:
            low.append((summary["percent_covered"], name))
    shares = [f"{run[folder] / known[folder]:7.1%}  {folder}" for folder in sorted(known) if known[folder]]
    below = [f"{percent:6.1f}%  {name}" for percent, name in sorted(low)]
    title = f"Below {ENOUGH_PERCENT:.0f} %, the rest is for the tests on a real engine: {len(below)} files"
    return ["Lines of the product that the unit tests run:", *shares, title, *below]


def main() -> int:
    """Run the unit tests under coverage and print what they reach; the status is pytest's."""
    with tempfile.TemporaryDirectory(prefix="samokoder-coverage-") as name:
        folder = Path(name)
        settings = folder / "coveragerc"
        settings.write_text(_CONFIGURATION, encoding="utf-8")
        variables = {**os.environ, "COVERAGE_FILE": str(folder / "data")}

        def coverage(*words: str) -> int:
            whole = [sys.executable, "-m", "coverage", words[0], f"--rcfile={settings}", *words[1:]]
            return subprocess.run(whole, cwd=ROOT, env=variables, check=False).returncode

        status = coverage("run", "-m", "pytest", "-q", *UNIT)
        if coverage("combine", "--quiet") or coverage("json", "--quiet", "-o", str(folder / "report.json")):
            return status or 1
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    print("\n".join(lines_of(report["files"])))
    return status


if __name__ == "__main__":
    sys.exit(main())
