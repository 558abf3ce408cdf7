"""What a keeper says while the server that it keeps is not there: who finds it unhealthy reads its log."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stack.parts.postgres.roles import KEEP_ROLES
from stack.parts.redis.users import KEEP_USERS

_COUNTED = 'echo x >> "$COUNT" && [ "$(wc -l < "$COUNT")" -gt 3 ]'
# Each answers three times that nobody is there, and then so that the keeper ends.
_PROGRAMS = {
    "redis-cli": f"{_COUNTED} && echo WRONGPASS || echo 'Name does not resolve'",
    "pg_isready": f"echo 'postgres:5432 - no response'; {_COUNTED}",
    "psql": "exit 1",
    "sleep": "exit 0",
}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (KEEP_USERS, "waiting for Redis: Name does not resolve"),
        (KEEP_ROLES, "waiting for PostgreSQL: postgres:5432 - no response"),
    ],
)
def test_a_keeper_says_once_what_it_waits_for(script: str, said: str, tmp_path: Path) -> None:
    for name, program in _PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("keeper_password", "superuser_password"):
        (tmp_path / name).write_text("secret")
    for place, own in (("/tmp/", f"{tmp_path}/own-"), ("/etc/samokoder", str(tmp_path))):  # noqa: S108 - the container's
        script = script.replace(place, own)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "COUNT": str(tmp_path / "count"), "SUPERUSER": "x"}
    done = subprocess.run(["sh", "-c", script], env=variables, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines().count(said) == 1, f"an empty log helps nobody: {done.stdout}{done.stderr}"
    assert "secret" not in done.stdout + done.stderr
