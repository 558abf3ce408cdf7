from __future__ import annotations

import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import httpx
import pytest

from host.engine import EngineInfo
from host.progress import Reporter
from offline import registries, toolchain
from offline.errors import BuildError, OfflineError
from offline.images import builder as builder_module
from offline.images import ensure
from offline.images.archive import Entry, tar_of
from offline.images.builder import Builder, image_config, version_in
from offline.images.debian import debian_mirrors
from offline.images.ensure import ensure_images
from offline.images.grafana import official_grafana
from offline.images.recipes import _CAP_NET_BIND_SERVICE_EP, NAMES, RECIPES, ROOTFS, Recipe
from offline.images.wheels import requirements_for
from offline.programs import PROGRAMS
from stack.images import IMAGES
from tests.serving import serving

ENTRYPOINTS = ROOTFS
HUB = {"redis": IMAGES["redis"].reference}
DEBIAN = {"ID": "debian", "VERSION_CODENAME": "bookworm"}


def engine_info(index: str, mirrors: tuple[str, ...] = ()) -> EngineInfo:
    return EngineInfo(
        docker_host="unix:///nowhere",
        version="28.0",
        api_version="1.44",
        started_by_us=False,
        index_address=index,
        registry_mirrors=mirrors,
        memory_bytes=1,
        cpus=1,
        architecture="x86_64",
        cgroup_version="2",
        storage_driver="overlay2",
        data_root="/",
        containerd_socket=None,
        clock_ahead_seconds=0,
        userns_remap=False,
    )


@contextmanager
def registry(status: int) -> Iterator[str]:
    """Serve `status` to every question on a free port of the loopback address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v2/" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Be silent."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/v1/"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, True), (401, True), (429, True), (301, False), (403, False), (404, False), (451, False), (503, False)],
)
def test_a_registry_counts_as_reachable_by_what_it_answers(
    status: int, *, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OFFLINE", raising=False)
    with registry(status) as address:
        lost = registries.unreachable(HUB, engine_info(address))
    assert (lost == {}) is expected, "a filtered registry answers 403, and pulls fail"


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("https://index.docker.io/v1/", "https://registry-1.docker.io/v2/"),
        ("https://mirror.example:5000/", "https://mirror.example:5000/v2/"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/v2/"),
    ],
)
def test_the_registry_that_a_pull_goes_to_is_asked(address: str, asked: str) -> None:
    assert registries.question_to(address) == asked, (
        "the old index redirects to a web page, which may refuse what pulls"
    )


def test_a_registry_that_nobody_runs_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFLINE", raising=False)
    assert registries.unreachable(HUB, engine_info("http://127.0.0.1:1/v1/"))
    assert registries.unreachable(HUB, engine_info("")), "an engine without an index has nowhere to pull from"


def test_a_mirror_of_the_engine_counts_as_its_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFLINE", raising=False)
    with registry(200) as address:
        info = engine_info("http://127.0.0.1:1/", mirrors=(address,))
        assert not registries.unreachable(HUB, info), "an air-gapped site with a mirror of its own can pull"


def test_each_registry_is_asked_and_one_that_does_not_answer_is_named_with_its_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OFFLINE", raising=False)
    asked: list[str] = []

    def get(address: str, **_: object) -> httpx.Response:
        asked.append(address)
        return httpx.Response(403 if "ghcr.io" in address else 401)

    monkeypatch.setattr(httpx, "get", get)
    pinned = {str(name): image.reference for name, image in IMAGES.items()}
    lost = registries.unreachable(pinned, engine_info("https://index.docker.io/v1/"))
    assert lost == {"ghcr.io": ["cadvisor"]}, "`up` would end in the middle, at a refusal of a registry nobody asked"
    assert sorted(asked) == ["https://ghcr.io/v2/", "https://quay.io/v2/", "https://registry-1.docker.io/v2/"]


def test_offline_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE", "1")
    with registry(200) as address:
        assert registries.unreachable(HUB, engine_info(address)) == {"docker.io": ["redis"]}


def test_an_unknown_image_is_refused_before_an_engine_is_asked(tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match=r"No such offline image: mysql\. There are: postgres, .*grafana"):
        ensure_images(["postgres", "mysql"], cache=tmp_path, docker_host="unix:///nowhere", progress=Reporter())


def test_an_engine_that_does_not_answer_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match="Images: No such file"):
        ensure_images(["redis"], cache=tmp_path, docker_host=f"unix://{tmp_path}/none", progress=Reporter())


PATIENCE_SECONDS = 120
"""So long that only something that hangs ever meets it."""


class Closable(SimpleNamespace):
    """What `contextlib.closing` takes."""

    def __init__(self, client: docker.DockerClient) -> None:
        super().__init__(**vars(client))

    def close(self) -> None:
        """There is nothing to close."""


def fake_engine(*listed: dict[str, Any]) -> docker.DockerClient:
    """Return the part of a Docker client that lists images."""
    return cast("docker.DockerClient", SimpleNamespace(api=SimpleNamespace(images=lambda **_filters: list(listed))))


def test_the_newestofficial_grafana_of_the_engine_is_used() -> None:
    engine = fake_engine(
        {"Id": "sha256:old", "Created": 1, "RepoTags": ["grafana/grafana:12.0.0"], "RepoDigests": None},
        {
            "Id": "sha256:new",
            "Created": 3,
            "RepoTags": None,
            "RepoDigests": ["docker.io/grafana/grafana-oss@sha256:aa"],
        },
        {"Id": "sha256:renderer", "Created": 9, "RepoTags": ["grafana/grafana-image-renderer:4"], "RepoDigests": []},
        {"Id": "sha256:other", "Created": 9, "RepoTags": ["example.org:5000/grafana:1"], "RepoDigests": []},
    )
    assert official_grafana(engine) == "sha256:new", "the renderer and look-alikes are no Grafana"


def test_without_grafana_the_reason_says_how_to_bring_it(tmp_path: Path) -> None:
    assert official_grafana(fake_engine()) is None
    result = ensure._ensure(
        ["grafana"],
        client=fake_engine(),
        cache=tmp_path,
        progress=Reporter(),
    )
    assert result.ids == {}
    assert "docker load" in result.unavailable["grafana"], "not available must never look like passed"


def ensure_both(cache: Path) -> None:
    """Ask for an image of Debian packages and for one of a Go program."""
    ensure._ensure(
        ["redis", "prometheus"],
        client=fake_engine(),
        cache=cache,
        progress=Reporter(),
    )


def test_a_base_that_cannot_be_made_ends_the_compiler_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiles = threading.Event()

    def compile_slowly(*_words: object, stopped: threading.Event, **_options: object) -> dict[str, Path]:
        compiles.set()
        assert stopped.wait(PATIENCE_SECONDS), "the reader would wait for all programs before the message comes"
        raise OfflineError("stopped before it was built: prometheus")

    def fail(*_words: object, **_options: object) -> str:
        assert compiles.wait(PATIENCE_SECONDS)
        raise OfflineError("Debian base: no mirror answers")

    monkeypatch.setattr(toolchain, "build", compile_slowly)
    monkeypatch.setattr(Builder, "image", fail)
    with pytest.raises(OfflineError, match="Debian base: no mirror answers"):
        ensure_both(tmp_path)


def test_a_program_that_does_not_build_ends_the_base_that_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun"

    def fail(*_words: object, **_options: object) -> dict[str, Path]:
        end = time.monotonic() + PATIENCE_SECONDS
        while not begun.exists() and time.monotonic() < end:
            time.sleep(0.05)
        raise BuildError("prometheus: `go build` ended with status 1")

    def bootstrap(builder: Builder, _name: str, **_options: object) -> str:
        return builder._run(["sh", "-c", f"touch {begun}; exec sleep {PATIENCE_SECONDS * 10}"], "Debian base")

    monkeypatch.setattr(toolchain, "build", fail)
    monkeypatch.setattr(Builder, "image", bootstrap)
    with pytest.raises(BuildError, match="prometheus: `go build` ended"):
        ensure_both(tmp_path)


def test_a_failed_step_is_named_with_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bootstrap(builder: Builder, _name: str, **_options: object) -> str:
        return builder._run(["sh", "-c", "seq 1 40; exit 3"], "Debian base")

    monkeypatch.setattr(ensure, "connect", lambda *_words, **_options: Closable(fake_engine()))
    monkeypatch.setattr(Builder, "image", bootstrap)
    with pytest.raises(OfflineError) as failure:
        ensure_images(["redis"], cache=tmp_path, docker_host="unix:///nowhere", progress=Reporter())
    lines = str(failure.value).splitlines()
    assert lines[0] == "Images: Debian base: sh ended with status 3.", "the reader must know which step failed"
    assert [line.strip() for line in lines[1:]] == [str(number) for number in range(26, 41)], "its last 15 lines"


LOCKED = r"""# made by uv
async-timeout==5.0.1 ; python_full_version < '3.11.3' \
    --hash=sha256:aaaa \
    --hash=sha256:bbbb
    # via redis
uvloop==0.22 ; sys_platform != 'win32' and platform_python_implementation != 'PyPy' \
    --hash=sha256:cccc
colorama==0.4 ; sys_platform == 'win32' --hash=sha256:dddd
sqlalchemy[asyncio]==2.0 \
    --hash=sha256:eeee
"""


@pytest.mark.parametrize(("python", "has_backport"), [("3.11.2", True), ("3.11.9", False)])
def test_markers_are_judged_for_the_python_of_the_image(python: str, *, has_backport: bool) -> None:
    lines = requirements_for(LOCKED, python=python).splitlines()
    backport = "async-timeout==5.0.1 --hash=sha256:aaaa --hash=sha256:bbbb"
    assert (backport in lines) is has_backport, "pip itself would judge by the Python that it runs on"
    assert "uvloop==0.22 --hash=sha256:cccc" in lines
    assert "sqlalchemy[asyncio]==2.0 --hash=sha256:eeee" in lines
    assert not any("colorama" in line for line in lines), "there is no wheel of it to be had for Linux"


def test_the_mirrors_are_the_hosts_own() -> None:
    rows = (
        "http://mirror.example/other/ stable main\n"
        "http://mirror.example/debian/ bookworm main\n"
        "http://mirror.example/debian/ bookworm contrib\n"
        "http://mirror.example/debian/ bookworm-updates main\n"
        "http://mirror.example/security/ bookworm-security main\n"
    )
    assert debian_mirrors(rows, DEBIAN) == ("http://mirror.example/debian/", "http://mirror.example/security/")


def test_a_host_without_security_updates_still_has_a_mirror() -> None:
    assert debian_mirrors("http://mirror.example/debian/ bookworm main\n", DEBIAN) == (
        "http://mirror.example/debian/",
        None,
    )


@pytest.mark.parametrize(
    ("release", "message"),
    [({"ID": "ubuntu", "PRETTY_NAME": "Ubuntu 24.04"}, "no Debian .Ubuntu 24.04"), (DEBIAN, "name no mirror")],
)
def test_a_host_that_cannot_give_debian_packages_is_told_so(release: dict[str, str], message: str) -> None:
    with pytest.raises(OfflineError, match=message):
        debian_mirrors("", release)


# What a service spec written for the official image relies on.
CONTRACT = {
    "postgres": (("docker-entrypoint.sh",), "", "/var/lib/postgresql/data", "SIGINT"),
    "redis": (("docker-entrypoint.sh",), "", "/data", ""),
    # What PostgreSQL's image is, with more in it.
    "backup": (("docker-entrypoint.sh",), "", "/var/lib/postgresql/data", "SIGINT"),
    "prometheus": (("/bin/prometheus",), "nobody", "/prometheus", ""),
    "alertmanager": (("/bin/alertmanager",), "nobody", "/alertmanager", ""),
    "node_exporter": (("/bin/node_exporter",), "nobody", "", ""),
    "postgres_exporter": (("/bin/postgres_exporter",), "nobody", "", ""),
    "redis_exporter": (("/redis_exporter",), "59000:59000", "", ""),
    # Nobody, where the official image says nothing and so is root's: the stack gives a user of its own to both.
    "blackbox_exporter": (("/bin/blackbox_exporter",), "nobody", "", ""),
    # The official image says nothing of a user and so is root's: the stack gives one of its own.
    "caddy": ((), "", "", ""),
    "cadvisor": (("/usr/bin/cadvisor", "-logtostderr"), "", "", ""),
    "logs": (("/victoria-logs-prod",), "", "", ""),
    "python": ((), "", "", ""),
}


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_an_image_keeps_the_official_ones_contract(name: str) -> None:
    entrypoint, user, volume, stop_signal = CONTRACT[name]
    config = image_config(name, RECIPES[name], key="k", version="1.2")
    assert config["Entrypoint"] == (list(entrypoint) or None)
    assert (config["User"], config["StopSignal"]) == (user, stop_signal)
    assert list(config["Volumes"]) == ([volume] if volume else [])
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2", "what runs must be told from official ones"


def test_every_image_but_grafana_can_be_made() -> None:
    assert set(NAMES) == {*CONTRACT, "grafana"}


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.programs])
def test_every_program_of_an_image_is_one_that_the_toolchain_builds(name: str) -> None:
    for source in RECIPES[name].programs.values():
        program, _, executable = source.partition("/")
        assert executable in PROGRAMS[program].executables, "found only after minutes of building otherwise"


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Setting up libc (2.36)\n--- version\npostgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", "15.20"),
        ("--- version\nRedis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n", "7.0.15"),
        ("--- version\nprometheus, version 3.13.4 (branch: module-proxy)\n  go version: go1.26.8\n", "3.13.4"),
        ('--- version\ntime="2026-11-23T15:43:08Z" level=info msg="Redis Metrics Exporter v1.88.0"\n', "1.88.0"),
    ],
)
def test_the_label_holds_the_version_that_the_program_says(output: str, version: str) -> None:
    assert version_in(output) == version


def test_a_program_that_says_no_version_is_an_error() -> None:
    with pytest.raises(OfflineError, match="named no version: hello"):
        version_in("installed 1.2.3\n--- version\nhello\n")


def test_a_tar_holds_owners_modes_and_links_and_is_the_same_every_time(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    entries = [
        Entry("/data", owner=(65534, 65534)),
        Entry("/bin/program", program, capabilities=_CAP_NET_BIND_SERVICE_EP),
        Entry("/bin/alias", link="program"),
        Entry("/etc/file", b"text", mode=0o644),
    ]
    with tar_of(entries) as first, tar_of(entries) as second:
        assert first.read() == second.read(), "equal input must give the same layer"
        first.seek(0)
        with tarfile.open(fileobj=first) as archive:
            found = {member.name: (member.uid, member.mode, member.linkname) for member in archive}
            extended = {member.name: member.pax_headers for member in archive if member.pax_headers}
    assert found == {
        "data": (65534, 0o755, ""),
        "bin/program": (0, 0o755, ""),
        "bin/alias": (0, 0o755, "program"),
        "etc/file": (0, 0o644, ""),
    }
    # 0x400, little-endian, is CAP_NET_BIND_SERVICE alone; the engine reads it from this header.
    capability = "\x01\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    assert extended == {"bin/program": {"SCHILY.xattr.security.capability": capability}}


@pytest.fixture
def key(tmp_path: Path) -> Callable[[Recipe, dict[str, Path]], str]:
    builder = Builder(client=fake_engine(), cache=tmp_path, progress=Reporter())
    return lambda recipe, files: builder._key("redis_exporter", recipe, files)


def test_an_image_is_made_again_exactly_when_its_ingredients_change(
    key: Callable[[Recipe, dict[str, Path]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("one")
    recipe = RECIPES["redis_exporter"]
    before = key(recipe, {"/redis_exporter": program})
    assert key(recipe, {"/redis_exporter": program}) == before, "else every run would build"
    program.write_text("two")
    assert key(recipe, {"/redis_exporter": program}) != before, "a newer program must reach the image"

    requirements = tmp_path / "requirements.txt"
    monkeypatch.setattr(builder_module, "REFERENCE_REQUIREMENTS", requirements)
    requirements.write_text("a==1")
    one = key(RECIPES["python"], {})
    requirements.write_text("a==2")
    assert key(RECIPES["python"], {}) != one, "the wheels must be those of the lock file"


def test_an_image_on_another_one_changes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder(client=fake_engine(), cache=tmp_path, progress=Reporter())
    before = builder._key("backup", RECIPES["backup"], {})
    assert builder._key("backup", RECIPES["backup"], {}) == before
    changed = replace(RECIPES["postgres"], packages=("postgresql-16",))
    monkeypatch.setitem(RECIPES, "postgres", changed)
    assert builder._key("backup", RECIPES["backup"], {}) != before


@pytest.fixture
def half_made(tmp_path: Path) -> tuple[Builder, Path]:
    builder = Builder(client=fake_engine(), cache=tmp_path / "cache", progress=Reporter())
    tree = tmp_path / "cache/images/debian-root"
    tree.mkdir(parents=True)
    (tree / "file").touch()
    return builder, tree


def test_the_rest_of_an_interrupted_debootstrap_is_removed(half_made: tuple[Builder, Path]) -> None:
    builder, tree = half_made
    builder._remove_half_made_tree()
    assert not tree.exists()
    builder._remove_half_made_tree()  # none is there the first time


def test_a_half_made_tree_that_leads_elsewhere_is_left_alone(half_made: tuple[Builder, Path], tmp_path: Path) -> None:
    builder, tree = half_made
    elsewhere = tmp_path / "elsewhere"
    tree.rename(elsewhere)
    tree.symlink_to(elsewhere)
    with pytest.raises(OfflineError, match="is not the folder that was made here"):
        builder._remove_half_made_tree()
    assert (elsewhere / "file").exists(), "nothing outside the cache may ever be deleted"


@pytest.mark.parametrize(
    "script", sorted(ENTRYPOINTS.rglob("*.sh")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_a_script_of_the_images_is_valid_shell(script: Path) -> None:
    shell = "bash" if script.read_text().startswith("#!/bin/bash") else "sh"
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


PASSWORD = {"POSTGRES_PASSWORD": "pw"}


class Postgres:
    """The PostgreSQL entrypoint on a folder of this machine, the server's programs replaced by small scripts."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.staging = self.data / ".samokoder-initialising"
        self._tools = folder / "tools"
        self._tools.mkdir()
        self.tool("id", "echo 999")  # not root: no user called postgres is needed here
        self.tool("postgres", 'echo "serving $PGDATA"')
        self.tool("initdb", f"ls -A {self.staging} >{folder}/found; exit 9")
        self.found = folder / "found"

    def tool(self, name: str, text: str) -> None:
        path = self._tools / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def start(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", ENTRYPOINTS / "postgres/docker-entrypoint.sh", "postgres"],
            env={"PATH": f"{self._tools}:{os.defpath}", "PGDATA": str(self.data), **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def postgres(tmp_path: Path) -> Postgres:
    return Postgres(tmp_path)


def test_a_database_that_is_there_is_served(postgres: Postgres) -> None:
    (postgres.data / "PG_VERSION").write_text("15\n")
    done = postgres.start()
    assert (done.returncode, done.stdout) == (0, f"serving {postgres.data}\n"), done.stderr


def test_a_new_database_without_a_password_is_refused(postgres: Postgres) -> None:
    done = postgres.start()
    assert done.returncode == 1
    assert "POSTGRES_PASSWORD_FILE" in done.stderr, "the message must name the setting"
    assert not postgres.staging.exists(), "nothing may be made before it is clear how"


def test_a_password_given_twice_is_refused(postgres: Postgres, tmp_path: Path) -> None:
    done = postgres.start(**PASSWORD, POSTGRES_PASSWORD_FILE=str(tmp_path / "two"))
    assert done.returncode != 0
    assert "both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE" in done.stderr


def test_a_volume_with_other_peoples_files_is_refused(postgres: Postgres) -> None:
    (postgres.data / "holiday.jpg").touch()
    done = postgres.start(**PASSWORD)
    assert done.returncode == 1
    assert "holds holiday.jpg but no PG_VERSION" in done.stderr


def test_an_interrupted_initialisation_begins_again_from_nothing(postgres: Postgres) -> None:
    (postgres.staging / "base").mkdir(parents=True)
    (postgres.staging / "PG_VERSION").write_text("15\n")  # initdb was through, the init scripts were not
    done = postgres.start(**PASSWORD)
    assert "serving" not in done.stdout, "half a database must not be served"
    assert postgres.found.read_text() == "", "initdb must find an empty folder, not the rest of the last try"


def test_an_interrupted_move_is_finished(postgres: Postgres) -> None:
    (postgres.data / "base").mkdir()  # moved already
    (postgres.staging / "global").mkdir(parents=True)
    (postgres.staging / "PG_VERSION").write_text("15\n")
    (postgres.staging / "samokoder-complete").touch()
    done = postgres.start()
    assert (done.returncode, done.stdout) == (0, f"serving {postgres.data}\n"), done.stderr
    assert sorted(path.name for path in postgres.data.iterdir()) == ["PG_VERSION", "base", "global"]
    assert not postgres.found.exists(), "the data is complete: initdb must not run again"


def test_a_password_file_does_not_reach_the_environment(postgres: Postgres, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2-hunter2")
    postgres.tool("initdb", f"env >{postgres.found}; tr '\\0' '\\n' </proc/$$/cmdline >>{postgres.found}; exit 9")
    postgres.start(POSTGRES_PASSWORD_FILE=str(secret))
    assert "hunter2" not in postgres.found.read_text(), "environments and command lines are readable by others"
