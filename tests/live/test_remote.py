"""A stack on an engine of another host, behind a real sshd.

The other host is this one seen through namespaces of its own: network, mounts and processes. In there are its own
/run, /var/lib/docker, /etc/ssh and /root, so that its engine is at the places where an engine is, and knows nothing of
the one out here. All of it ends with one process. It needs root.
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
import httpx
import pytest

from bench.own_ports import own_ports
from host.daemon import ensure_engine
from host.engine import connect
from host.errors import EngineError
from host.packages import install_packages
from operations.data import backups
from operations.engine import containers, reach
from operations.engine.images import third_party_images
from operations.engine.part_status import NOT_AVAILABLE
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from tests.live import clones
from tests.sshd import sshd_program

ENVIRONMENT = "far"
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


@pytest.fixture(scope="module")
def host(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Another host with an engine and an sshd, and an `ssh` on PATH that knows it and has a key for it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make another host, of namespaces")
    program = sshd_program()
    assert program, "there is no sshd, and openssh-server brought none"
    if shutil.which("ip") is None:
        install_packages(["iproute2"], report=print)
    home = tmp_path_factory.mktemp("host")
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
        f"Host *\n  IdentityFile {home / 'key'}\n  IdentitiesOnly yes\n  UserKnownHostsFile {home / 'known_hosts'}\n"
    )
    (home / "config").write_text(config)
    # Both the SDK and Pulumi's provider run the `ssh` that is first on PATH.
    wrapper = home / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {home}/logins\nexec {shutil.which("ssh")} -F {home / "config"} "$@"\n')
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
        with contextlib.suppress(EngineError):
            connect(host.docker_host).close()
            return
        assert time.monotonic() < end, f"no engine: {logs(host)}"
        time.sleep(0.5)


def logs(host: Host) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(host.home.glob("*.log")))


@pytest.fixture(scope="module")
def there(
    host: Host, engine: docker.DockerClient, local_images: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """An environment of a clone, brought up on the other host by the lines of docs/remote-engine.md.

    The host got its images from the engine here. All that is made over there ends with the host.
    """
    folder = tmp_path_factory.mktemp("far") / "clone"
    clones.make(folder, ENVIRONMENT, {**own_ports(), "samokoder:api": {"replicas": 1, "stableSeconds": 2}})
    with far_engine(host) as far:
        for name in third_party_images(local_images):
            far.images.load(engine.images.get(local_images.image(name)).save())  # type: ignore[arg-type]
    workspace = Workspace(environment=ENVIRONMENT, root=folder, isolated=True)
    typed(workspace, f"make pulumi ARGS='config set --path samokoder:dockerHost {host.docker_host}'")
    assert f"From here: make tunnel ENV={ENVIRONMENT}" in typed(workspace, "make up")
    return workspace


def typed(there: Workspace, line: str) -> str:
    """Type a line in the environment's clone."""
    return clones.typed(there.root, line, ENV=there.environment)


@contextlib.contextmanager
def far_engine(host: Host) -> Iterator[docker.DockerClient]:
    with contextlib.closing(connect(host.docker_host, timeout=None)) as client:
        yield client


def test_every_part_is_healthy_over_there_and_none_is_here(
    there: Workspace, host: Host, engine: docker.DockerClient
) -> None:
    rows = live_status(there)
    assert len(rows) > 10
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    with far_engine(host) as far:
        assert far.info()["ID"] != engine.info()["ID"], "the engine here was asked"
        assert containers.of_environment(far, there.name)
    assert not containers.of_environment(engine, there.name), "the stack is on the engine here"


def test_a_second_up_changes_nothing_also_after_a_refresh(there: Workspace) -> None:
    running = there.open()
    running.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    running.pulumi("refresh", "--yes", "--skip-preview", "--suppress-outputs", capture=True)
    running.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)


def test_what_is_written_through_the_public_entry_over_there_is_read_back(there: Workspace) -> None:
    environment = there.settings()
    with reach.opened(environment) as url, httpx.Client(base_url=url(environment.settings.ingress), timeout=30) as page:
        page.post("/projects", json={"name": "over there"}).raise_for_status()
        assert "over there" in [project["name"] for project in page.get("/projects").json()]


def test_the_monitoring_over_there_measures_that_host(there: Workspace) -> None:
    environment = there.settings()
    with reach.part(environment, environment.settings.prometheus) as address:

        def ask(query: str) -> list[dict[str, str]]:
            answer = httpx.get(f"{address}/api/v1/query", params={"query": query}, timeout=30)
            return [series["metric"] for series in answer.json()["data"]["result"]]

        end = time.monotonic() + PATIENCE_SECONDS
        while ask("up == 0") or len(ask("up")) < 10:
            assert time.monotonic() < end, ask("up == 0")
            time.sleep(2)
        # Without the way to that host's containerd, cAdvisor would have no container and say nothing of it.
        while not ask(f'container_last_seen{{name="samokoder-{there.name}-postgres"}}'):
            assert time.monotonic() < end, "cAdvisor sees no container"
            time.sleep(2)


def test_a_program_over_there_is_run_with_its_progress_and_its_end(there: Workspace) -> None:
    end = time.monotonic() + 2 * PATIENCE_SECONDS
    while not any(each.status == "good" for each in backups.backups(there)[0]):
        assert time.monotonic() < end, "the first backups are not made"
        time.sleep(2)
    before = {each.id for each in backups.backups(there)[0]}
    backups.now(there, "dump")
    made = [each for each in backups.backups(there)[0] if each.id not in before]
    assert [(each.kind, each.status) for each in made] == [("dump", "good")]


def test_all_that_this_process_asks_goes_through_one_login(there: Workspace, host: Host) -> None:
    logins = host.home / "logins"
    logins.write_text("")
    live_status(there)
    with far_engine(host) as far:
        far.ping()
    ran = logins.read_text().splitlines()
    assert not ran, f"what is there already is logged in, and each question was another login: {ran}"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nobody@{address}", "Permission denied"),
        ("root@{address}:1", "Connection refused"),
    ],
)
def test_a_host_that_lets_nobody_in_is_told_in_ssh_s_own_words(
    host: Host, address: str, said: str, tmp_path: Path
) -> None:
    named = f"ssh://{address.format(address=host.address)}"
    with pytest.raises(EngineError, match=said) as error:
        ensure_engine(named, report=lambda _: None, cache=tmp_path)
    assert "This must work without a question" in str(error.value)


def test_a_host_without_an_engine_says_so(host: Host, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"nothing answers at /run/nothing.sock there"):
        ensure_engine(f"{host.docker_host}/run/nothing.sock", report=lambda _: None, cache=tmp_path)


def test_what_a_person_types_every_day_is_done_over_there(there: Workspace) -> None:
    assert "api-1" in typed(there, "make status")
    assert "api-1" in typed(there, "make logs TAIL=3")
    assert "worker" in typed(there, "make restart PART=worker")
    assert "1 row" in typed(there, "make psql SQL='SELECT count(*) FROM jobs'")
    typed(there, "make smoke ARGS='--wait 120'")
    typed(there, "make doctor")
    assert "unchanged" in typed(there, "make preview")


def test_a_tunnel_for_people_leads_to_the_same_ports_here(there: Workspace) -> None:
    port = there.settings().settings.ingress.port
    with subprocess.Popen(
        ["make", "tunnel"],
        cwd=there.root,
        env=clones.shell_variables(ENV=there.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            end = time.monotonic() + PATIENCE_SECONDS
            while True:
                assert process.poll() is None, f"it ended: {process.communicate()[0]!r}"
                with contextlib.suppress(httpx.TransportError):
                    assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
                    break
                assert time.monotonic() < end, "no page of the other host is reached here"
                time.sleep(0.2)
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_down_keeps_the_data_over_there_and_destroy_data_removes_it(there: Workspace, host: Host) -> None:
    volumes = f"samokoder-{there.name}-"
    with far_engine(host) as far:
        said = typed(there, "make down")
        assert not containers.of_environment(far, there.name), "down leaves no container"
        kept = [str(volume.name) for volume in far.volumes.list() if str(volume.name).endswith("-data")]
        assert f"{volumes}postgres-data" in kept
        assert all(name in said for name in kept), "what is kept is said"
        typed(there, f"make destroy-data ARGS='--confirm {there.name}'")
        assert not [one.name for one in far.volumes.list() if str(one.name).startswith(volumes)], "its data is there"
