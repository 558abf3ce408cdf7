"""The process that runs the backup program for the tests of many orders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
OPEN = """
import os

def run(folder, config, words):
    found = []
    for number in range(64):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    print(found)
    return 0
"""


def test_a_run_keeps_nothing_open_of_the_runs_beside_it(tmp_path: Path) -> None:
    (tmp_path / "shifted.py").write_text(OPEN)
    ask = {
        "do": "run",
        "id": 1,
        "command": ["python3", "/test/shifted.py", "/volumes", "/conf", "0", "now"],
        "environment": {},
    }
    agent = subprocess.Popen(
        [sys.executable, "-P", REPOSITORY / "tests/backup_image/agent.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY / 'backup_image'}"},
    )
    assert agent.stdin
    assert agent.stdout
    with agent:
        agent.stdin.write(json.dumps(ask) + "\n")
        agent.stdin.flush()
        answer = json.loads(agent.stdout.readline())
    assert json.loads(answer["out"]) == [0, 1, 2], "who waits for the end of another one's pipe waits for this one too"
