from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from host.errors import EngineError
from tests import newer_engine, private_engine
from tests.private_engine import PrivateEngine


def test_a_socket_path_that_the_kernel_refuses_is_said_before_anything_starts(tmp_path: Path) -> None:
    private = PrivateEngine(root=tmp_path / ("x" * 120))
    with pytest.raises(EngineError, match="too long for the kernel"):
        private_engine.start(private, report=pytest.fail, cache=tmp_path)


def test_it_shares_nothing_with_the_engine_of_the_system(tmp_path: Path) -> None:
    words = private_engine._arguments(PrivateEngine(root=tmp_path / "e", bridge="sktest9", pool="10.219"))
    assert {"--iptables=false", "--ip6tables=false"} <= {*words}, (
        "two engines that write the Docker chains delete each other's rules, and a newer one writes those of IPv6 too"
    )
    assert {
        f"--data-root={tmp_path}/e/data",
        "--bridge=sktest9",
        "--default-address-pool=base=10.219.0.0/16,size=24",
    } <= {*words}


@pytest.mark.parametrize("mounted", [False, True])
def test_its_images_are_gone_afterwards_and_what_is_mounted_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, mounted: bool
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **_: nullcontext(str(tmp_path)))
    monkeypatch.setattr(private_engine, "start", lambda *_, **__: None)
    monkeypatch.setattr(private_engine, "stop", lambda *_, **__: None)
    below = tmp_path / "images/volumes/of-the-host"
    monkeypatch.setattr(private_engine, "_mounts_below", lambda _: [str(below)] if mounted else [])
    with private_engine.private_engine("10.219", data=tmp_path / "images"):
        below.mkdir(parents=True)
    assert below.exists() is mounted, "five engines fill the disk of one night"


def test_a_folder_that_was_there_before_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **_: nullcontext(str(tmp_path)))
    (kept := tmp_path / "kept").mkdir()
    with pytest.raises(FileExistsError), private_engine.private_engine("10.219", data=kept):
        pass
    assert kept.exists()


def test_the_engine_from_its_module_has_an_api_that_none_of_debian_has() -> None:
    assert tuple(map(int, newer_engine.api_of_module().split("."))) > (1, 51), "28 would pass for 29"
