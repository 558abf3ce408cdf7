"""The path of nearly everybody, as far as a machine without a registry can go it.

The images are made by our recipes and have upstream's layout: user, entrypoint, paths. They lie in a registry that
answers as Docker Hub, quay.io and ghcr.io; a site answers as Pulumi's. A new clone differs in two tables alone: the
digests of the images and the sum of Pulumi's archive, which are those of what lies there. docs/images.md says what this
shows of each image and what it cannot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest
import yaml

from bench.own_ports import own_ports
from host.cache import cache_directory
from host.engine import connect
from host.progress import Reporter
from offline.images.ensure import ensure_images
from offline.pulumi_cli import ensure_pulumi
from operations.clone import ROOT
from operations.workspace import pulumi_cli
from stack.common.references import parse_reference
from stack.images import IMAGES
from tests import private_engine
from tests.live.stand_in_sites import Sites, sites
from tests.private_engine import PrivateEngine
from tests.registry import serve

REGISTRIES = ("registry-1.docker.io", "quay.io", "ghcr.io")
PULUMI = "get.pulumi.com"
# Where Pulumi looks for its plugins first: there they are not.
GITHUB = ("api.github.com", "github.com")
# What the official image fetches while the backup image is built is in ours: see docs/images.md.
MADE_AS = {"postgres": "backup"}


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for all of it; a short path, since it holds an engine's sockets."""
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine of its own")
    with tempfile.TemporaryDirectory(prefix="sk", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def digests(folder: Path) -> Iterator[tuple[dict[str, str], tuple[str, int]]]:
    """Name of each pinned image -> digest of what lies in the registry under its name and tag; the registry."""
    made = ensure_images(
        [*(name for name in IMAGES if name != "grafana"), "backup"],
        cache=cache_directory(),
        docker_host="unix:///var/run/docker.sock",
        progress=Reporter(),
    ).ids
    with serve(folder / "registry") as address, contextlib.closing(docker.from_env(timeout=300)) as client:
        table: dict[str, str] = {}
        for name, image in IMAGES.items():
            local = grafana(client, made["blackbox_exporter"]) if name == "grafana" else made[MADE_AS.get(name, name)]
            reference = parse_reference(image.reference)
            path = re.sub(r"^(quay|ghcr)\.io/", "", reference.repository)
            place = f"{address}/{path if '/' in path else f'library/{path}'}"
            client.images.get(local).tag(place, reference.tag)
            pushed = list(client.images.push(place, reference.tag, stream=True, decode=True))
            client.images.remove(f"{place}:{reference.tag}")
            table[name] = next(line["aux"]["Digest"] for line in pushed if "aux" in line)
        host, _, port = address.partition(":")
        yield table, (host, int(port))


def grafana(client: docker.DockerClient, base: str) -> str:
    """A stand-in for the one image that nothing here can make: its user, its script, its page of health."""
    script = "printf '#!/bin/sh\\nexec httpd -f -p 3000 -h /srv\\n' >/run.sh && chmod 755 /run.sh"
    folders = "mkdir -p /srv/api /var/lib/grafana && echo ok >/srv/api/health && chown 472:0 /var/lib/grafana"
    container = client.containers.run(
        base, entrypoint=["sh", "-c", f"{folders} && {script}"], user="0:0", network_mode="none", detach=True
    )
    try:
        assert container.wait()["StatusCode"] == 0, container.logs()
        made = container.commit(conf={"Entrypoint": ["/run.sh"], "Cmd": None, "User": "472"})
    finally:
        container.remove()
    return str(made.id)


@pytest.fixture(scope="module")
def pulumi(folder: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Pulumi's site: the sum of the command's archive, and the server."""
    install = ensure_pulumi(cache=cache_directory())
    site = folder / "site"
    (site / "releases/sdk").mkdir(parents=True)
    (site / "releases/plugins").mkdir()
    archive = site / f"releases/sdk/pulumi-v{pulumi_cli.PULUMI_VERSION}-linux-x64.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(install.bin_dir, "pulumi")
    for plugin in (install.home / "plugins").glob("resource-*"):
        found = re.fullmatch(r"(resource-\w+-v[\d.]+)", plugin.name)
        if found and plugin.is_dir():
            place = site / f"releases/plugins/pulumi-{found[1]}-linux-amd64.tar.gz"
            with tarfile.open(place, "w:gz", compresslevel=1) as packed:
                for file in plugin.glob("pulumi-resource-*"):
                    packed.add(file, file.name)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hashlib.sha256(archive.read_bytes()).hexdigest(), ("127.0.0.1", server.server_port)
        server.shutdown()


@pytest.fixture(scope="module")
def internet(
    folder: Path, digests: tuple[dict[str, str], tuple[str, int]], pulumi: tuple[str, tuple[str, int]]
) -> Iterator[Sites]:
    """All of it under the names that a clone knows."""
    (folder / "tls").mkdir()
    hosts = dict.fromkeys(REGISTRIES, digests[1]) | dict.fromkeys((PULUMI, *GITHUB), pulumi[1])
    with sites(folder / "tls", hosts) as found:
        yield found


@pytest.fixture(scope="module")
def engine(folder: Path, internet: Sites) -> Iterator[PrivateEngine]:
    """An engine that has no image, and reaches the registries by the proxy."""
    private = PrivateEngine(root=folder / "engine", bridge=f"sk{secrets.token_hex(4)}", pool="10.216")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in internet.variables.items():
            patch.setenv(name, value)
        private_engine.start(private, report=print, cache=folder / "cache")
    try:
        yield private
    finally:
        private_engine.stop(private, report=print, cache=folder / "cache")


def new_clone(folder: Path, digests: Mapping[str, str], pulumi: str) -> Path:
    """Copy what git knows of this clone, and put the two tables in: digests, and the sum of Pulumi's archive."""
    clone = folder / "clone"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    replaced = {image.reference.partition("@")[2]: digests[name] for name, image in IMAGES.items()}
    replaced[pulumi_cli.PULUMI_SUMS[f"pulumi-v{pulumi_cli.PULUMI_VERSION}-linux-x64.tar.gz"]] = pulumi
    for file in (clone / "stack/images.py", clone / "operations/workspace/pulumi_cli.py"):
        text = file.read_text()
        for old, new in replaced.items():
            text = text.replace(old, new)
        file.write_text(text)
    (clone / "Pulumi.staging.yaml").write_text(yaml.safe_dump({"config": own_ports()}))
    return clone


def test_make_up_takes_the_normal_path_from_end_to_end(
    folder: Path,
    digests: tuple[dict[str, str], tuple[str, int]],
    pulumi: tuple[str, tuple[str, int]],
    internet: Sites,
    engine: PrivateEngine,
) -> None:
    clone = new_clone(folder, digests[0], pulumi[0])
    (folder / "home").mkdir()
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",  # neither uv, nor Go, nor Pulumi
        "HOME": str(folder / "home"),
        "SAMOKODER_CACHE": str(folder / "cache"),
        "DOCKER_HOST": engine.docker_host,
        **internet.variables,
    }
    done = subprocess.run(
        ["make", "up"], cwd=clone, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "package registries" not in said, "something was built that a registry has"
    assert not (folder / "cache/offline").exists(), "a program was built that is downloaded"
    assert not (folder / "cache/images").exists(), "an image was made that is pulled"
    assert set(internet.asked) >= {*REGISTRIES, PULUMI}, "each site was asked"
    with contextlib.closing(connect(engine.docker_host)) as client:
        running = {
            each.labels["samokoder.part"]: each for each in client.containers.list() if "samokoder.part" in each.labels
        }
        images = {part: each.attrs["Config"]["Image"] for part, each in running.items()}
        ill = [part for part, each in running.items() if each.attrs["State"]["Health"]["Status"] != "healthy"]
    assert ill == [], said[-3000:]
    for part, image in IMAGES.items():
        name = {"caddy": "ingress"}.get(part, part.replace("_", "-"))
        if part != "python":  # the base of our own
            assert images[name] == f"{image.reference.partition('@')[0]}@{digests[0][part]}", "it runs what is pinned"
