"""Redis takes files that no list names for none at all: neither its start nor a repair does so where they hold data."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from operations.data.restore import mending
from stack.parts.redis import users as redis_users
from stack.parts.redis.spec import START_REDIS
from tests.fake_redis import run_script

REPAIR = Path(mending.__file__).with_name("repair_redis.sh").read_text(encoding="utf-8")
EMPTY_BASE = 89
"""Bytes of the base that a first start writes."""

HOLDS_DATA = {
    "commands alone": {"appendonly.aof.1.base.rdb": EMPTY_BASE, "appendonly.aof.1.incr.aof": 1},
    "all in the base, as after a rewrite": {"appendonly.aof.7.base.rdb": 5000, "appendonly.aof.7.incr.aof": 0},
    "a base of commands": {"appendonly.aof.2.base.aof": 5000},
}
HOLDS_NONE: dict[str, dict[str, int]] = {
    "a first start that was killed": {"appendonly.aof.1.base.rdb": EMPTY_BASE, "appendonly.aof.1.incr.aof": 0},
    "a list": {"appendonly.aof.manifest": 80, "appendonly.aof.7.base.rdb": 5000, "appendonly.aof.7.incr.aof": 9},
    "nothing": {},
}
CASES = HOLDS_DATA | HOLDS_NONE


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bool]:
    """A folder of data beside an older snapshot, and whether its list is missed."""
    files, missed = CASES[request.param], request.param in HOLDS_DATA
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True)
    (data / "dump.rdb").write_bytes(b"older")
    for name, size in files.items():
        (data / "appendonlydir" / name).write_bytes(b"x" * size)
    return data, missed


def test_redis_does_not_start_over_files_that_hold_data_and_that_no_list_names(case: tuple[Path, bool]) -> None:
    data, missed = case
    looks, users, _ = START_REDIS.partition("\nusers=")
    assert users, "what follows needs a server"
    done = subprocess.run(["sh", "-c", looks.replace("/data", str(data))], capture_output=True, text=True, check=False)
    assert (done.returncode == 1) is missed, "it would begin empty, or with an older snapshot, and write over them"
    assert ("make repair PART=redis" in done.stdout) is missed, done.stdout + done.stderr


def test_what_a_killed_snapshot_or_rewrite_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    parts = [f"appendonlydir/appendonly.aof.{name}" for name in ("manifest", "1.base.rdb", "1.incr.aof")]
    kept = {"dump.rdb", "users.acl", *parts}
    left = ("temp-21.rdb", "temp-rewriteaof-33.aof", "temp-rewriteaof-bg-33.aof", "appendonlydir/temp-rewriteaof-7.aof")
    for name in (*kept, *left):
        (tmp_path / name).write_bytes(b"x" * 300)
    looks, *_ = START_REDIS.partition("\nusers=")
    subprocess.run(["sh", "-c", looks.replace("/data", str(tmp_path))], check=True)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert there == kept, "each kill leaves a file as large as all data, until the disk is full"


def test_a_repair_does_not_read_such_files_as_nothing(case: tuple[Path, bool], tmp_path: Path) -> None:
    data, missed = case
    into = tmp_path / "into"
    into.mkdir()
    script = REPAIR.replace("/tmp/", f"{tmp_path}/").replace("redis-server ", "false ")  # noqa: S108 - what is replaced
    words = ["sh", "-c", script, "sh", str(data), str(into), "read"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3, "the stand-in for Redis has no reason to tell"
    assert ("appendonly.aof.manifest) is gone" in done.stderr) is missed, done.stderr


def test_a_look_that_fails_is_not_taken_for_no_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True)
    (tmp_path / "find").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "find").chmod(0o755)
    looks, *_ = START_REDIS.partition("\nusers=")
    paths = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", looks.replace("/data", str(data))], env=paths, check=False)
    assert done.returncode == 1, "it would begin empty, and write over what could not be read"
    (into := tmp_path / "into").mkdir()
    done = subprocess.run(["sh", "-c", REPAIR, "sh", str(data), str(into), "read"], env=paths, check=False)
    assert done.returncode == 1, "an empty Redis would be called one that reads all of its data"


@pytest.mark.parametrize("question", ["info keyspace", "info stats"])
def test_a_question_that_fails_is_not_taken_for_a_redis_without_keys(question: str, tmp_path: Path) -> None:
    for name in ("data", "into", "again"):
        (tmp_path / name).mkdir()
    data, *empty = (str(tmp_path / name) for name in ("data", "into", "again"))
    done = run_script(REPAIR, tmp_path, data, empty[0], "read", failing="none")
    assert done.stdout == "keys 3\nrefused 0\n", done.stderr
    done = run_script(REPAIR, tmp_path, data, empty[1], "read", failing=question)
    assert done.returncode == 1, "`0 keys are kept` would be shown to who decides"


# As Redis' src/redis-check-rdb.c prints it: `[offset %llu] %s`, of a field `AUX FIELD %s = '%s'`.
CHECKED = """\
[offset 0] Checking RDB file dump.rdb
[offset 27] AUX FIELD redis-ver = '7.4.11'
[offset 41] AUX FIELD redis-bits = '64'
[offset 53] AUX FIELD ctime = '1764500000'
[offset 68] AUX FIELD used-mem = '1023456'
[offset 80] AUX FIELD aof-base = '0'
[offset 82] Selecting DB ID 0
[offset 1064] Checksum OK
[offset 1064] \\o/ RDB looks OK! \\o/
[info] 3 keys read"""
BEGAN, ENDED = 1764500000, 1764500090


@pytest.mark.parametrize(
    ("printed", "kept"),
    [(CHECKED, BEGAN), (CHECKED.replace("ctime", "mtime"), ENDED)],
    ids=["a snapshot notes its save's begin", "one that does not has its file's time"],
)
def test_a_snapshot_keeps_what_was_written_until_its_save_began(printed: str, kept: int, tmp_path: Path) -> None:
    for name in ("data", "into"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "dump.rdb").write_bytes(b"REDIS0012")
    os.utime(tmp_path / "data" / "dump.rdb", (ENDED, ENDED))
    words = (str(tmp_path / "data"), str(tmp_path / "into"), "snapshot")
    done = run_script(REPAIR, tmp_path, *words, failing="none", rdb=printed)
    assert done.returncode == 0, done.stderr
    assert f"kept {kept}\n" in done.stdout, "what was written while it was saved is lost, and nobody is told"


def test_a_redis_that_dies_while_it_makes_its_append_only_file_ends_the_start(tmp_path: Path) -> None:
    """Docker starts it again; a shell that asks on for ever is only unhealthy."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dump.rdb").write_bytes(b"x")
    programs = {
        "redis-server": f"echo $$ > {tmp_path}/server; echo out of memory; exec sleep 60",
        "redis-cli": f"""case "$*" in
            *ping) if [ -s {tmp_path}/server ]; then echo PONG; fi ;;
            *appendonly*) kill "$(cat {tmp_path}/server)"; echo OK ;;
            *) exit 1 ;;
        esac""",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    begin = START_REDIS.index("if [ -e /data/dump.rdb ]")
    script = "set -eu\n" + START_REDIS[begin : START_REDIS.index("\nfi\n", begin) + 4]
    script = script.replace("/tmp/", f"{tmp_path}/").replace("/data", f"{tmp_path}/data")  # noqa: S108 - what is replaced
    paths = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["timeout", "20", "sh", "-c", script], env=paths, capture_output=True, text=True, check=False)
    assert done.returncode == 1, "the start asks a server that is gone"
    assert "out of memory" in done.stdout


def test_the_shell_of_the_keeper_hands_each_right_on_as_one_word() -> None:
    line = next(line for line in redis_users.KEEP_USERS.splitlines() if "ACL SETUSER" in line and "ask" in line)
    words = list(shlex.shlex(line.partition(">")[0], posix=True, punctuation_chars=True))
    assert "|" not in words, "the shell takes a bare | for a pipe, and no user is ever applied"
    assert {"+client|kill", "+acl|getuser"} <= set(words)
