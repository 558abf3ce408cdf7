"""A real sshd on loopback; its program, for tests that start it with a configuration of their own."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host.errors import EngineError
from host.packages import install_packages
from host.ports import free_ports


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


@dataclass
class Sshd:
    """A server on loopback: its address (`ssh://user@127.0.0.1:2222`), its log, the folder with the keys of both."""

    host: str
    log: Path
    folder: Path


@pytest.fixture
def sshd_folder() -> Iterator[Path]:
    """A folder that the server's user may enter, as it may not those of pytest."""
    with tempfile.TemporaryDirectory(prefix="sshd-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def sshd(sshd_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """A real server with a key of its own, and an `ssh` on PATH that knows both."""
    folder, program = sshd_folder, sshd_program()
    if program is None:
        pytest.skip("there is no sshd here, and only root can install one: openssh-server")
    # Without root it needs neither a user for its separation of privileges nor a folder in /run.
    root = os.geteuid() == 0
    user = "nobody" if root else getpass.getuser()
    account = pwd.getpwnam(user)
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    os.chown(folder / "host_key", account.pw_uid, account.pw_gid)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (port,) = free_ports(1)
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "UsePAM": "yes",  # without it, a server that may not read the shadow file takes every account for locked
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    known = f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}"
    (folder / "known_hosts").write_text(known)
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder / 'user_key'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n"
    )
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    log = folder / "log"
    root = os.geteuid() == 0
    with log.open("wb") as said:
        process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdout=said,
            stderr=said,
            user=account.pw_uid if root else None,
            group=account.pw_gid if root else None,
            extra_groups=[] if root else None,
        )
        try:
            until_listening(port, log)
            yield Sshd(host=f"ssh://{user}@127.0.0.1:{port}", log=log, folder=folder)
        finally:
            process.terminate()
            process.wait()


def until_listening(port: int, log: Path) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
