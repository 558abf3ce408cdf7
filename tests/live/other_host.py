"""Another host, with an engine behind a real sshd.

It is this machine seen through namespaces of its own: network, mounts and processes. In there are its own /run,
/var/lib/docker, /etc/ssh and /root, so that its engine is at the places where an engine is, and knows nothing of the
one out here. All of it ends with one process. It needs root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from host.engine import connect
from host.errors import EngineError
from host.packages import install_packages
from operations.engine.images import third_party_images
from stack.settings.environment import Environment
from tests.sshd import sshd_program

PATIENCE_SECONDS = 60.0

# Mounts in a namespace of its own: nothing of it is seen out here. The engine's containers end with the namespace.
INSIDE = """\
set -eu
home=$1
mount -t tmpfs -o mode=755 run /run
mkdir /run/sshd
mount --bind "$home/docker" /var/lib/docker
mount --bind "$home/ssh" /etc/ssh
mount --bind "$home/root" /root
# Debian's engine has the key there that its id is made of.
[ ! -d /etc/docker ] || mount --bind "$home/etc" /etc/docker
ip link set lo up
unset DOCKER_HOST DOCKER_CONTEXT
dockerd --storage-driver=overlay2 > "$home/dockerd.log" 2>&1 &
exec "$2" -D -e 2> "$home/sshd.log"
"""
SSHD = """\
PermitRootLogin prohibit-password
AllowUsers root
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AuthorizedKeysFile /etc/ssh/authorized_keys
HostKey /etc/ssh/host_key
PidFile none
"""


def run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """The other host: its address, and the folder with its files and with what a person here has to log in."""

    address: str
    home: Path

    @property
    def docker_host(self) -> str:
        return f"ssh://root@{self.address}"

    @property
    def gateway(self) -> str:
        """The address of this machine on the cable between the two."""
        return f"{self.address.removesuffix('2')}1"


@contextlib.contextmanager
def other_host(home: Path) -> Iterator[Host]:
    """Another host with an engine and an sshd, and an `ssh` on PATH that knows it and has a key for it.

    home: an empty folder.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can make another host, of namespaces")
    program = sshd_program()
    assert program, "there is no sshd, and openssh-server brought none"
    if shutil.which("ip") is None:
        install_packages(["iproute2"], report=print)
    for folder in ("docker", "ssh", "root", "etc", "bin"):
        (home / folder).mkdir(mode=0o755)
    for key in ("ssh/host_key", "key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / key)
    shutil.copy(home / "key.pub", home / "ssh" / "authorized_keys")
    (home / "ssh" / "sshd_config").write_text(SSHD)
    name, net = f"sk{secrets.token_hex(3)}", f"10.214.{secrets.randbelow(254) + 1}"
    address = f"{net}.2"
    (home / "known_hosts").write_text(f"{address} {(home / 'ssh' / 'host_key.pub').read_text()}")
    config = (
        f'Host *\n  IdentityFile "{home / "key"}"\n  IdentitiesOnly yes\n'
        f'  UserKnownHostsFile "{home / "known_hosts"}"\n'
    )
    (home / "config").write_text(config)
    # Both the SDK and Pulumi's provider run the `ssh` that is first on PATH.
    wrapper = home / "bin" / "ssh"
    wrapper.write_text(
        f'#!/bin/sh\necho "$@" >> "{home}/logins"\nexec {shutil.which("ssh")} -F "{home / "config"}" "$@"\n'
    )
    wrapper.chmod(0o755)
    process: subprocess.Popen[bytes] | None = None
    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "address", "add", f"{net}.1/24", "dev", name)
        run("ip", "link", "set", name, "up")
        run("ip", "-netns", name, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-netns", name, "link", "set", "eth0", "up")
        own = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
        # Not by `ip netns exec`: that hides /sys/fs/cgroup behind a /sys of its own, and an engine needs it.
        words = ["nsenter", f"--net=/run/netns/{name}", *own, "sh", "-c", INSIDE, "sh", str(home), program]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
            there = Host(address, home)
            wait_for_engine(there, process)
            yield there
    finally:
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        shutil.rmtree(home / "docker", ignore_errors=True)  # its images: pytest keeps the folders of three runs


def wait_for_engine(host: Host, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert process.poll() is None, f"the other host ended: {logs(host)}"
        try:
            return connect(host.docker_host).close()
        except EngineError as error:
            refused = error
        assert time.monotonic() < end, f"no engine: {refused}\n{logs(host)}"
        time.sleep(0.5)


def logs(host: Host) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(host.home.glob("*.log")))


@contextlib.contextmanager
def far_engine(host: Host) -> Iterator[docker.DockerClient]:
    with contextlib.closing(connect(host.docker_host, timeout=None)) as client:
        yield client


def load_images(host: Host, engine: docker.DockerClient, local_images: Environment) -> None:
    """Give the host the images of others that the engine here has."""
    with far_engine(host) as far:
        for name in third_party_images(local_images):
            far.images.load(engine.images.get(local_images.image(name)).save())  # type: ignore[arg-type]
