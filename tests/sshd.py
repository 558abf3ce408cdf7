"""The program of a real sshd, which tests start with a configuration of their own."""

from __future__ import annotations

import os
import shutil

import pytest

from operations.engine import EngineError, install_packages


def sshd_program() -> str | None:
    """Give its path, installed where that can be done: by root, from Debian's sources. None: there is none."""
    where = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if found := shutil.which("sshd", path=where):
        return found
    with pytest.MonkeyPatch.context() as patch:
        # At run level 1 Debian starts no service that it installs: nothing shall listen out here.
        patch.setenv("RUNLEVEL", "1")
        try:
            install_packages(["openssh-server"], report=print)
        except EngineError:
            return None
    return shutil.which("sshd", path=where)
