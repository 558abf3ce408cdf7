"""What a keeper says while the server that it keeps is not there or does not answer: its log has the reason."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
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


def kept(script: str, folder: Path, programs: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a keeper with stand-ins for the programs that it calls."""
    for name, program in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{program}\n")
        (folder / name).chmod(0o755)
    for name in ("keeper_password", "superuser_password"):
        (folder / name).write_text("secret")
    for place, own in (("/tmp/", f"{folder}/own-"), ("/etc/samokoder", str(folder))):  # noqa: S108 - the container's
        script = script.replace(place, own)
    variables = {"PATH": f"{folder}:/usr/bin:/bin", "COUNT": str(folder / "count"), "SUPERUSER": "x"}
    return subprocess.run(["sh", "-c", script], env=variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (KEEP_USERS, "waiting for Redis: Name does not resolve"),
        (KEEP_ROLES, "waiting for PostgreSQL: postgres:5432 - no response"),
    ],
)
def test_a_keeper_says_once_what_it_waits_for(script: str, said: str, tmp_path: Path) -> None:
    done = kept(script, tmp_path, _PROGRAMS)
    assert done.stdout.splitlines().count(said) == 1, f"an empty log helps nobody: {done.stdout}{done.stderr}"
    assert "secret" not in done.stdout + done.stderr


_OLD, _NEW = "0" * 64, "1" * 64
# Knows the old password until it is told the users, and refuses a question about one user so many times.
_REDIS = """\
case "$*" in
    *ping) echo PONG ;;
    *"GETUSER {refused}")
        echo x >> "$COUNT"
        if [ "$(wc -l < "$COUNT")" -gt {times} ]; then
            if [ {refused} = samokoder_app ]; then printf 'flags\\non\\npasswords\\n{old}\\n'; fi
        else
            {answer}
        fi ;;
    *"GETUSER samokoder_app") printf 'flags\\non\\npasswords\\n{old}\\n' ;;
    *GETUSER*) echo ;;
    *SETUSER*) echo OK ;;
    *subscribe*) kill $PPID ;;
    *)
        cat > "$COUNT.told"
        printf 'OK\\nOK\\nOK\\nOK\\nOK\\n1\\nOK\\n' ;;
esac
"""
_REFUSED = "case \"$*\" in *-e\\ *) echo 'NOPERM no' >&2; exit 1 ;; *) echo 'NOPERM no' ;; esac"
_GONE = "echo 'Could not connect to Redis' >&2; exit 1"


@pytest.mark.parametrize("user", ["samokoder_app", "samokoder_backup"])
@pytest.mark.parametrize(("answer", "said"), [(_REFUSED, "NOPERM"), (_GONE, "Could not connect")])
@pytest.mark.parametrize("times", [0, 2, 9])
def test_redis_gets_no_new_users_before_it_has_said_which_passwords_are_withdrawn(
    tmp_path: Path, user: str, answer: str, said: str, times: int
) -> None:
    lines = [f"ACL SETUSER samokoder_app on #{_NEW}", *(f"ACL SETUSER {each} off" for each in "abc"), "ACL SAVE"]
    (tmp_path / "users.redis").write_text("".join(f"{line}\n" for line in lines))
    stand_in = _REDIS.format(refused=user, times=times, answer=answer, old=_OLD)
    done = kept(KEEP_USERS, tmp_path, {"redis-cli": stand_in})
    told = tmp_path / "count.told"
    if times < 3:
        assert "CLIENT KILL USER samokoder_app" in told.read_text(), "who has the leaked password reads on for ever"
        assert "users applied" in done.stdout
    else:
        assert done.returncode == 1
        assert "the users are not applied" in done.stdout
        assert not told.exists(), "the next question would find no withdrawn password any more"
    assert (said in done.stdout) is (times > 0), done.stdout
    assert _OLD not in done.stdout
