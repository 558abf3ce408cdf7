"""An engine of a test's own: nothing comes from the machine's and nothing is left on it."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from operations.engine import EngineInfo, PrivateEngine, ensure_engine, stop_engine

ROOT = "folder of the engine"


@contextlib.contextmanager
def private_engine(
    pool: str, *, data: Path | None = None, dockerd: tuple[str, ...] = ()
) -> Iterator[tuple[PrivateEngine, EngineInfo]]:
    """Start one; it is stopped and its folder gone afterwards.

    pool: of addresses, such as `10.214`: one engine's. data: folder for its images and volumes; the others lie below
    /run then, where cAdvisor looks for containerd. dockerd: as of PrivateEngine; the word ROOT stands for its folder.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine of its own")
    # A short path: it holds sockets.
    with tempfile.TemporaryDirectory(prefix="sk", dir="/run" if data else None, ignore_cleanup_errors=True) as folder:
        if data:
            data.mkdir()
            (Path(folder) / "data").symlink_to(data)
        own = {"dockerd": tuple(folder if word == ROOT else word for word in dockerd)} if dockerd else {}
        private = PrivateEngine(root=Path(folder), bridge=f"sk{secrets.token_hex(4)}", pool=pool, **own)
        info = ensure_engine(report=print, private=private)
        try:
            yield private, info
        finally:
            stop_engine(report=print, private=private)
