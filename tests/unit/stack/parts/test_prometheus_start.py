"""Prometheus starts also where a power cut has damaged a block, over which it does not start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stack.parts.prometheus import spec as prometheus
from tests.recording import environment_of

_GOOD, _BAD, _WORSE = "01M8QPZS3H9JZ02MHETAXY7YKT", "01M8QPZS64C4KCRPGY1RP8SQXK", "01M8QPZS64C4KCRPGY1RP8SQXM"


def start(folder: Path, said: str = "") -> subprocess.CompletedProcess[str]:
    """Start it where promtool finds errors and fails. said: as promtool 3.13.4 writes them, to standard error."""
    data = folder / "data"
    for name in (_GOOD, _BAD, _WORSE):
        (data / name).mkdir(parents=True, exist_ok=True)
    (data / "chunks_head").mkdir(exist_ok=True)
    (folder / "said").write_text(said)
    for name, does in (
        ("prometheus", 'echo "serves with $*"'),
        ("promtool", f"echo blocks; cat {folder}/said >&2; ! test -s {folder}/said"),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    script = prometheus.files(environment_of("staging", {}), (), ())["start-prometheus.sh"]
    assert isinstance(script, str)
    for its, ours in (
        ("=/prometheus\n", "data"),
        ("=/bin/prometheus\n", "prometheus"),
        ("=/bin/promtool\n", "promtool"),
    ):
        assert its in script, script
        script = script.replace(its, f"={folder / ours}\n")
    return subprocess.run(["sh", "-c", script, "sh", "--a=b"], capture_output=True, text=True, check=False, timeout=60)


def blocks(folder: Path) -> set[str]:
    return {path.name for path in (folder / "data").iterdir()} - {"chunks_head"}


@pytest.mark.parametrize(
    "why",
    [
        "mmap, size 0: invalid argument",
        "mmap files: mmap, size 0: invalid argument",
        "tombstones header: invalid size",
        "invalid magic number 0",
        "read TOC: read TOC: invalid checksum",
        "open /prometheus/01M8QPZS64C4KCRPGY1RP8SQXK/chunks: no such file or directory",
    ],
)
def test_damaged_blocks_are_moved_out_of_the_way_and_the_alerts_go_on(why: str, tmp_path: Path) -> None:
    done = start(tmp_path, f"corrupted block {_BAD}: {why}\ncorrupted block {_WORSE}: {why}\n")
    assert blocks(tmp_path) == {_GOOD, f"damaged-{_BAD}", f"damaged-{_WORSE}"}
    assert done.stdout.splitlines()[-1] == "serves with --a=b", "no alert is sent any more"
    assert f"{_BAD}, which is damaged ({why})" in done.stdout


@pytest.mark.parametrize(
    "why",
    [
        "open /prometheus/x/index: permission denied",
        "mmap: cannot allocate memory",
        "open /prometheus/x/index: too many open files",
        "read /prometheus/x/index: input/output error",
        "mmap, size 4711: invalid argument",
        # A newer Prometheus has written them.
        "invalid chunk format version 2",
        "invalid tombstone format 2",
        "unknown index file version 4",
    ],
)
def test_a_block_that_only_cannot_be_read_now_stays(why: str, tmp_path: Path) -> None:
    done = start(tmp_path, f"corrupted block {_BAD}: {why}\n")
    assert blocks(tmp_path) == {_GOOD, _BAD, _WORSE}, "one block after the other would be taken away, all of them good"
    assert done.stdout == "serves with --a=b\n"


def test_where_nothing_is_damaged_nothing_is_said(tmp_path: Path) -> None:
    assert start(tmp_path).stdout == "serves with --a=b\n"


def test_a_search_that_fails_is_told_and_prometheus_starts(tmp_path: Path) -> None:
    """promtool makes a folder in the data first, which it cannot on a full disk or a read-only volume."""
    done = start(tmp_path, "some context\nsetting up sandbox dir: no space left on device\n")
    assert done.stdout.splitlines() == [
        "promtool cannot look for damaged blocks: setting up sandbox dir: no space left on device",
        "serves with --a=b",
    ]
    assert blocks(tmp_path) == {_GOOD, _BAD, _WORSE}


def test_what_a_killed_promtool_has_left_is_removed(tmp_path: Path) -> None:
    for name in ("tmp_dbro_sandbox2345678", "tmp_dbro_sandbox9"):
        (tmp_path / "data" / name / "wal").mkdir(parents=True)
    start(tmp_path)
    assert blocks(tmp_path) == {_GOOD, _BAD, _WORSE}


GOOD, ZEROS = b"\x01\x30\xbc\x91\x01\x00\x00\x00", b"\x00" * 4096
"""First 8 bytes of a file of chunks_head, and what a power cut leaves of a file."""


# Each as Prometheus 3.13.4 starts with it or not (openMMapFiles in tsdb/chunks/head_chunks.go).
@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({1: b"", 2: GOOD}, "has a file 000001 that begins with nothing"),
        ({1: ZEROS, 2: GOOD}, "has a file 000001 that begins with 00 00 00 00 00 00 00 00"),
        ({1: GOOD, 2: ZEROS, 3: GOOD}, "has a file 000002 that begins with 00 00 00 00 00 00 00 00"),
        ({1: GOOD, 2: b"", 3: b""}, "has a file 000002 that begins with nothing"),
        ({1: GOOD[:1], 2: GOOD}, "has a file 000001 that begins with 01"),
        ({1: GOOD[:7], 2: GOOD}, "has a file 000001 that begins with 01 30 bc 91 01 00 00"),
        ({1: GOOD, 2: GOOD[:4]}, "has a file 000002 that begins with 01 30 bc 91"),
        ({1: GOOD, 2: GOOD[:7]}, "has a file 000002 that begins with 01 30 bc 91 01 00 00"),
        ({1: b"something"}, "has a file 000001 that begins with 73 6f 6d 65 74 68 69 6e"),
        ({8: GOOD, 10: GOOD}, "has no file between 000008 and 000010"),
    ],
)
def test_chunks_that_prometheus_does_not_mend_are_moved_out_of_the_way(
    files: dict[int, bytes], why: str, tmp_path: Path
) -> None:
    done = start_with_chunks(tmp_path, files)
    assert (tmp_path / "data" / "damaged-chunks_head").exists()
    assert not (tmp_path / "data" / "chunks_head").exists()
    told, served = done.stdout.splitlines()
    assert f"chunks_head, which {why}. It is kept as {tmp_path}/data/damaged-chunks_head." in told
    assert served == "serves with --a=b"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {8: GOOD + b"more", 9: GOOD, 10: GOOD},
        {1: b""},
        {1: GOOD, 2: GOOD[:3]},
        {1: GOOD, 2: ZEROS},
        {1: GOOD, 2: ZEROS[:5]},
        {1: GOOD, 3: ZEROS},
        # A newer Prometheus has written it.
        {1: GOOD[:4] + b"\x02\x00\x00\x00", 2: GOOD},
    ],
)
def test_chunks_with_which_prometheus_starts_or_which_are_newer_stay(files: dict[int, bytes], tmp_path: Path) -> None:
    done = start_with_chunks(tmp_path, files)
    assert len(list((tmp_path / "data" / "chunks_head").iterdir())) == len(files), "hours would be missing for nothing"
    assert done.stdout == "serves with --a=b\n"


def test_chunks_that_cannot_be_read_now_stay(tmp_path: Path) -> None:
    (tmp_path / "data" / "chunks_head" / "000001").mkdir(parents=True)
    done = start_with_chunks(tmp_path, {2: GOOD})
    assert (tmp_path / "data" / "chunks_head").exists()
    assert done.stdout == "serves with --a=b\n"


def test_what_was_kept_first_stays(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        done = start_with_chunks(tmp_path, {number: b"", number + 1: GOOD})
        kept = tmp_path / "data" / f"damaged-chunks_head{f'-{number}' if number > 1 else ''}"
        assert (kept / f"{number:06}").exists(), "the first copy has the most in it"
        assert f"kept as {kept}. What the write-ahead log still has is read from it." in done.stdout


def start_with_chunks(folder: Path, files: dict[int, bytes]) -> subprocess.CompletedProcess[str]:
    """Start it over a chunks_head with these files. files: number -> content."""
    chunks = folder / "data" / "chunks_head"
    chunks.mkdir(parents=True, exist_ok=True)
    for number, content in files.items():
        (chunks / f"{number:06}").write_bytes(content)
    return start(folder)
