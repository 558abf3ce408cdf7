"""Prometheus starts also where a power cut has damaged a block, over which it does not start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stack.parts.prometheus import spec as prometheus
from tests.recording import environment_of

_GOOD, _BAD, _WORSE = "01M8QPZS3H9JZ02MHETAXY7YKT", "01M8QPZS64C4KCRPGY1RP8SQXK", "01M8QPZS64C4KCRPGY1RP8SQXM"


def start(folder: Path, said: str = "") -> subprocess.CompletedProcess[str]:
    """Start it where promtool finds errors. said: as promtool 3.13.4 writes them, to standard error."""
    data = folder / "data"
    for name in (_GOOD, _BAD, _WORSE):
        (data / name).mkdir(parents=True)
    (data / "chunks_head").mkdir(exist_ok=True)
    (folder / "said").write_text(said)
    for name, does in (("prometheus", 'echo "serves with $*"'), ("promtool", f"echo blocks; cat {folder}/said >&2")):
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
    ],
)
def test_a_block_that_only_cannot_be_read_now_stays(why: str, tmp_path: Path) -> None:
    done = start(tmp_path, f"corrupted block {_BAD}: {why}\n")
    assert blocks(tmp_path) == {_GOOD, _BAD, _WORSE}, "one block after the other would be taken away, all of them good"
    assert done.stdout == "serves with --a=b\n"


def test_where_nothing_is_damaged_nothing_is_said(tmp_path: Path) -> None:
    assert start(tmp_path).stdout == "serves with --a=b\n"


@pytest.mark.parametrize(("sizes", "aside"), [((0, 8), True), ((8, 0), False), ((8, 8), False), ((), False)])
def test_chunks_that_prometheus_does_not_mend_come_from_its_log(
    sizes: tuple[int, ...], aside: bool, tmp_path: Path
) -> None:
    for number, size in enumerate(sizes, start=1):
        (tmp_path / "data" / "chunks_head").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "chunks_head" / f"{number:06}").write_bytes(b"x" * size)
    done = start(tmp_path)
    assert (tmp_path / "data" / "damaged-chunks_head").exists() is aside
    assert done.stdout.endswith("serves with --a=b\n")
