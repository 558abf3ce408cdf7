from __future__ import annotations

from pathlib import Path

import pytest

from host.errors import EngineError
from tests import private_engine
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
