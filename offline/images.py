"""Build, on the local Docker Engine, the images that a container registry would give.

What goes in comes from package registries alone: Debian packages (from the host's own apt sources), Go
programs built by `offline.toolchain`, Python wheels. The images keep the official ones' contract (paths,
entrypoint, user, volumes), so that one service spec serves both. They are made by create, copy, run, commit
over the engine's API, which is the same with every engine version and needs neither a builder nor a folder
that the engine can see.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import io
import json
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import docker
import docker.types
from packaging.markers import default_environment
from packaging.requirements import Requirement

from host.engine import connect
from host.errors import EngineError
from host.file_lock import exclusive
from host.packages import install_packages
from host.process import run
from host.progress import Reporter, Task, about
from offline import toolchain
from offline.plan import expected, together
from offline.pulumi_cli import PROGRAMS_OF_PULUMI, ensure_pulumi
from offline.toolchain import OfflineError

SUITE = "bookworm"
"""The Debian release that the images are made of (PostgreSQL 15, Redis 7.0, Python 3.11)."""

PYTHON_VERSION = "3.11"
"""Python in the `python` image, and so the tags of its wheels."""

GLIBC_MINOR = 36
"""glibc 2.36 is the suite's: wheels for a newer one do not load."""

_POLL_SECONDS = 0.3
_DEBIAN_BASE = "Debian base"
_BUSYBOX_BASE = "BusyBox base"
_NO_GRAFANA = "no package registry has Grafana; load the official image by `docker load --input FILE`"
_Run = Callable[[Sequence[str | Path], str, Path | None], str]

_ROOTFS = Path(__file__).parent / "rootfs"
_REQUIREMENTS = Path(__file__).parent.parent / "reference_app" / "requirements.txt"
_BACKUP_REQUIREMENTS = Path(__file__).parent.parent / "backup_image" / "requirements.txt"
_LABEL_RECIPE = "samokoder.offline.recipe"
_LABEL_VERSION = "org.opencontainers.image.version"
_VERSION_FOLLOWS = "--- version"
_RECIPE_FORMAT = 2  # part of every recipe's hash: count up when this module builds differently
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRAFANA_REPOSITORIES = ("grafana/grafana", "grafana/grafana-oss", "grafana/grafana-enterprise")
_NOBODY = (65534, 65534)
# struct vfs_cap_data of linux/capability.h, little-endian: revision 2 with the effective flag, permitted (bit 10 is
# CAP_NET_BIND_SERVICE) and inheritable, each lower half first.
_CAP_NET_BIND_SERVICE_EP = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


@dataclass(frozen=True)
class OfflineImages:
    """The result of `ensure_images`."""

    ids: dict[str, str] = field(default_factory=dict)
    """Name -> local image id (`sha256:…`)."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Name -> why there is none."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image: what goes in, and the official image's contract."""

    base: str
    """`debian`, `busybox`, another recipe's name, or empty for the two bases themselves."""
    version_command: tuple[str, ...] = ()
    """Prints the software's version; run in the image while it is made."""
    packages: tuple[str, ...] = ()
    """Debian packages, installed by `build.sh` of the recipe's folder in `rootfs/`."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """Path in the image -> `program/executable` of `offline.toolchain`."""
    folders: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Folders to make -> their user and group id."""
    wheels: bool = False
    """Lay locked wheels into /wheels: the reference application's, unless `requirements` names others."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    stop_signal: str = ""
    # Not in repr, which is in every image's key: a new kind of ingredient must not rebuild the images without it.
    file_capabilities: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Program of `programs` -> its capabilities, as the kernel keeps them (capabilities(7), vfs_cap_data)."""
    requirements: Path | None = field(default=None, repr=False)
    """The file that locks the wheels."""


RECIPES: dict[str, Recipe] = {
    "postgres": Recipe(
        base="debian",
        packages=("postgresql-15", "locales"),
        version_command=("postgres", "--version"),
        entrypoint=("docker-entrypoint.sh",),
        command=("postgres",),
        env={
            "PATH": f"/usr/lib/postgresql/15/bin:{_PATH}",
            "PGDATA": "/var/lib/postgresql/data",
            "LANG": "en_US.utf8",
            "PG_MAJOR": "15",
        },
        volumes=("/var/lib/postgresql/data",),
        ports=(5432,),
        stop_signal="SIGINT",
    ),
    "redis": Recipe(
        base="debian",
        packages=("redis-server", "redis-tools"),
        version_command=("redis-server", "--version"),
        entrypoint=("docker-entrypoint.sh",),
        command=("redis-server",),
        workdir="/data",
        volumes=("/data",),
        ports=(6379,),
    ),
    "python": Recipe(
        base="debian",
        packages=("python3", "python3-venv", "python3-pip"),
        wheels=True,
        version_command=("python", "--version"),
        command=("python3",),
        env={
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
            "PIP_ROOT_USER_ACTION": "ignore",
        },
    ),
    # What `backup_image/` stands on: PostgreSQL's own image with what its Dockerfile would get from Debian and PyPI.
    "backup": Recipe(
        base="postgres",
        packages=("python3", "python3-venv", "redis-server", "restic", "ca-certificates", "file"),
        wheels=True,
        requirements=_BACKUP_REQUIREMENTS,
        version_command=("postgres", "--version"),
        entrypoint=("docker-entrypoint.sh",),
        command=("postgres",),
        env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"},
        volumes=("/var/lib/postgresql/data",),
        ports=(5432,),
        stop_signal="SIGINT",
    ),
    "prometheus": Recipe(
        base="busybox",
        programs={"/bin/prometheus": "prometheus/prometheus", "/bin/promtool": "prometheus/promtool"},
        version_command=("/bin/prometheus", "--version"),
        folders={"/etc/prometheus": _NOBODY, "/prometheus": _NOBODY},
        entrypoint=("/bin/prometheus",),
        command=("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"),
        user="nobody",
        workdir="/prometheus",
        volumes=("/prometheus",),
        ports=(9090,),
    ),
    "alertmanager": Recipe(
        base="busybox",
        programs={"/bin/alertmanager": "alertmanager/alertmanager", "/bin/amtool": "alertmanager/amtool"},
        version_command=("/bin/alertmanager", "--version"),
        folders={"/etc/alertmanager": _NOBODY, "/alertmanager": _NOBODY},
        entrypoint=("/bin/alertmanager",),
        command=("--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"),
        user="nobody",
        workdir="/alertmanager",
        volumes=("/alertmanager",),
        ports=(9093,),
    ),
    "node_exporter": Recipe(
        base="busybox",
        programs={"/bin/node_exporter": "node_exporter/node_exporter"},
        version_command=("/bin/node_exporter", "--version"),
        entrypoint=("/bin/node_exporter",),
        user="nobody",
        ports=(9100,),
    ),
    "postgres_exporter": Recipe(
        base="busybox",
        programs={"/bin/postgres_exporter": "postgres_exporter/postgres_exporter"},
        version_command=("/bin/postgres_exporter", "--version"),
        entrypoint=("/bin/postgres_exporter",),
        user="nobody",
        ports=(9187,),
    ),
    "redis_exporter": Recipe(
        base="busybox",
        programs={"/redis_exporter": "redis_exporter/redis_exporter"},
        version_command=("/redis_exporter", "--version"),
        entrypoint=("/redis_exporter",),
        user="59000:59000",
        ports=(9121,),
    ),
    "blackbox_exporter": Recipe(
        base="busybox",
        programs={"/bin/blackbox_exporter": "blackbox_exporter/blackbox_exporter"},
        version_command=("/bin/blackbox_exporter", "--version"),
        # Empty: the official image has a sample configuration there, but the stack mounts its own.
        folders={"/etc/blackbox_exporter": (0, 0)},
        entrypoint=("/bin/blackbox_exporter",),
        command=("--config.file=/etc/blackbox_exporter/config.yml",),
        # The official image names no user and so is root's; an HTTP probe needs nothing that only root may do.
        user="nobody",
        ports=(9115,),
    ),
    "caddy": Recipe(
        base="busybox",
        programs={"/usr/bin/caddy": "caddy/caddy"},
        # The official image's `setcap cap_net_bind_service=+ep`, kept because it is a demand as well: without the
        # capability in the container's bounding set, the kernel refuses to start such a file (EPERM).
        file_capabilities={"/usr/bin/caddy": _CAP_NET_BIND_SERVICE_EP},
        version_command=("caddy", "version"),
        # Empty: the official image has a sample configuration and a page there, but the stack mounts its own.
        folders=dict.fromkeys(("/etc/caddy", "/config", "/config/caddy", "/data", "/data/caddy", "/srv"), (0, 0)),
        command=("caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"),
        workdir="/srv",
        env={"XDG_CONFIG_HOME": "/config", "XDG_DATA_HOME": "/data"},
        ports=(80, 443, 2019),
    ),
    "cadvisor": Recipe(
        base="busybox",
        programs={"/usr/bin/cadvisor": "cadvisor/cadvisor"},
        version_command=("/usr/bin/cadvisor", "--version"),
        entrypoint=("/usr/bin/cadvisor", "-logtostderr"),
        ports=(8080,),
    ),
}
"""Every image that can be made from packages. Grafana is none of them: no package registry has it."""

NAMES: tuple[str, ...] = (*RECIPES, "grafana")


def ensure_images(
    names: Iterable[str],
    *,
    cache: Path,
    docker_host: str,
    progress: Reporter,
    pulumi: bool = False,
) -> OfflineImages:
    """Return local image ids for `names` (of NAMES), building what the engine does not have yet.

    `cache` is the product's cache folder. pulumi: Pulumi is built meanwhile; it takes the longest, so it comes first.
    Two runs at once wait for each other; an interrupted one goes on where it was. Raises OfflineError when one cannot
    be built.
    """
    wanted = list(dict.fromkeys(names))
    if unknown := sorted(set(wanted) - set(NAMES)):
        raise OfflineError(f"No such offline image: {', '.join(unknown)}. There are: {', '.join(NAMES)}.")
    try:
        with contextlib.closing(connect(docker_host, timeout=None)) as client:
            return _ensure(wanted, client=client, cache=cache, progress=progress, pulumi=pulumi)
    except (EngineError, docker.errors.DockerException) as error:
        raise OfflineError(f"Images: {error}") from error


def _ensure(
    wanted: Sequence[str], *, client: docker.DockerClient, cache: Path, progress: Reporter, pulumi: bool = False
) -> OfflineImages:
    programs = [*(PROGRAMS_OF_PULUMI if pulumi else ())]
    programs += [source for name in wanted if name in RECIPES for source in _sources_of(name)]
    stopped = threading.Event()
    built: dict[str, Path] = {}
    builder = _Builder(client=client, cache=cache, progress=progress)
    there = toolchain.there(programs, cache=cache)
    unbuilt = [name for name in dict.fromkeys(programs) if name not in there]
    things = expected([*unbuilt, *builder.missing(wanted, there)])
    if things:
        progress.say(
            f"Building {len(things)} things from package registries, {about(together(things))} on a quiet machine. "
            "They are kept: the next time it takes seconds"
        )
    with (
        progress.plan(things, together=together(things)),
        concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool,
    ):
        # The compiler and the package downloads hardly get in each other's way.
        compiling = pool.submit(_programs, programs, cache, progress, stopped, built)

        def check() -> None:
            if compiling.done():
                compiling.result()

        builder.check = check
        try:
            result = _images(wanted, builder, built)
            compiling.result()
            if pulumi:
                ensure_pulumi(cache=cache, progress=progress)
        finally:
            stopped.set()  # after a failure the compiler would go on for minutes, and the message would wait for it
    return result


def _images(wanted: Sequence[str], builder: _Builder, built: Mapping[str, Path]) -> OfflineImages:
    """Make the images, each as soon as its programs are there. built: grows meanwhile."""
    result = OfflineImages()
    waiting = sorted(wanted, key=lambda name: bool(name in RECIPES and RECIPES[name].programs))
    while waiting:
        name = next((each for each in waiting if _sources_of(each) <= built.keys()), None)
        if name is None:
            builder.check()
            time.sleep(_POLL_SECONDS)
            continue
        waiting.remove(name)
        image = builder.grafana() if name == "grafana" else builder.image(name, programs=built)
        if image is None:
            result.unavailable[name] = _NO_GRAFANA
        else:
            result.ids[name] = image
    return result


def _sources_of(name: str) -> set[str]:
    """Return the programs of `offline.toolchain` that an image holds."""
    return {source.partition("/")[0] for source in RECIPES[name].programs.values()} if name in RECIPES else set()


def _files(recipe: Recipe, programs: Mapping[str, Path]) -> dict[str, Path]:
    """Return path in the image -> executable."""
    return {
        path: programs[source.partition("/")[0]] / source.partition("/")[2] for path, source in recipe.programs.items()
    }


def _programs(
    names: Sequence[str], cache: Path, progress: Reporter, stopped: threading.Event, built: dict[str, Path]
) -> None:
    """Build the Go programs; each one is in `built` as soon as it is there."""
    if names:
        toolchain.build(names, cache=cache, jobs=2, progress=progress, stopped=stopped, on_built=built.__setitem__)


def official_grafana(client: docker.DockerClient) -> str | None:
    """Return the newest Grafana image that the engine has under one of its official names."""
    found: list[tuple[int, str]] = []
    for image in client.api.images():
        references = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
        for reference in references:
            repository = re.sub(r"(@.*|:[^/]*)$", "", reference)
            if repository.removeprefix("docker.io/") in _GRAFANA_REPOSITORIES:
                found.append((int(image["Created"]), str(image["Id"])))
    return max(found)[1] if found else None


@dataclass(frozen=True)
class _Entry:
    """One thing of a tar archive: a folder (no content), a file, or a symbolic link."""

    path: str
    content: bytes | Path | None = None
    link: str = ""
    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)
    capabilities: bytes = b""
    """Of a file, as the kernel keeps them; every byte below 128, which is all that a tar's header can hold."""


def _tar(entries: Iterable[_Entry]) -> IO[bytes]:
    """Return an uncompressed tar of `entries`, at its start; equal entries give equal bytes."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=spool, mode="w") as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.path.lstrip("/"))
            member.mode = entry.mode
            member.uid, member.gid = entry.owner
            if entry.capabilities:
                member.pax_headers = {"SCHILY.xattr.security.capability": entry.capabilities.decode("ascii")}
            if entry.link:
                member.type, member.linkname = tarfile.SYMTYPE, entry.link
                archive.addfile(member)
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif isinstance(entry.content, bytes):
                member.size = len(entry.content)
                archive.addfile(member, io.BytesIO(entry.content))
            else:
                member.size = entry.content.stat().st_size
                with entry.content.open("rb") as source:
                    archive.addfile(member, source)
    spool.seek(0)
    return spool


class _Builder:
    """Makes images on one engine, under the lock of `ensure_images`."""

    def __init__(self, *, client: docker.DockerClient, cache: Path, progress: Reporter) -> None:
        self.check: Callable[[], None] = lambda: None
        """Asked every few seconds while something runs; what it raises ends that."""
        self._client = client
        self._api = client.api
        self._work = cache / "images"
        self._tree = self._work / "debian-root"
        self._progress = progress
        self._task: Task | None = None
        self._apt: _Apt | None = None
        self._have = self._known()
        # Named after the cache, because the lock is the cache's: two caches may build on one engine.
        self._container = f"samokoder-offline-build-{hashlib.sha256(bytes(self._work)).hexdigest()[:8]}"

    def _known(self) -> dict[str, str]:
        """Return hash of the recipe -> image id of all that this module ever made on this engine."""
        labelled = self._api.images(filters={"label": _LABEL_RECIPE})
        return {str(image["Labels"][_LABEL_RECIPE]): str(image["Id"]) for image in labelled}

    def grafana(self) -> str | None:
        """Return the id of an official image that somebody has loaded."""
        return official_grafana(self._client)

    def missing(self, names: Sequence[str], programs: Mapping[str, Path]) -> list[str]:
        """Return the bases and images that have to be made, by the titles of their tasks. programs: those built."""
        things: dict[str, None] = {}
        for name in [each for wanted in names if wanted in RECIPES for each in (*self._bases(wanted), wanted)]:
            recipe = RECIPES[name]
            if _sources_of(name) <= programs.keys() and self._key(name, recipe, _files(recipe, programs)) in self._have:
                continue
            if recipe.base == "debian" and not self._debian_archive().exists():
                things[_DEBIAN_BASE] = None
            if recipe.base == "busybox" and self._key("busybox", Recipe(base=""), {}) not in self._have:
                things[_BUSYBOX_BASE] = None
            things[f"image {name}"] = None
        return [*things]

    @staticmethod
    def _bases(name: str) -> list[str]:
        base = RECIPES[name].base
        return [base] if base in RECIPES else []

    def image(self, name: str, *, programs: Mapping[str, Path]) -> str:
        """Return the id of image `name`, built unless the engine has one of the very same recipe.

        `programs` are the folders of executables that `offline.toolchain` gave.
        """
        recipe = RECIPES[name]
        if recipe.base in RECIPES:
            self.image(recipe.base, programs=programs)
        files = _files(recipe, programs)
        key = self._key(name, recipe, files)
        if key in self._have:
            return self._have[key]
        with exclusive(self._work / "lock", what=f"image {name}", report=self._progress.say):
            self._have = self._known()
            if key not in self._have:
                self._have[key] = self._build(name, recipe, key, files)
            return self._have[key]

    def _build(self, name: str, recipe: Recipe, key: str, files: Mapping[str, Path]) -> str:
        if (other := str(self._client.info().get("Architecture") or "")) != platform.machine():
            raise OfflineError(
                f"{name}: the engine's host is {other}, this machine {platform.machine()}, and what is built here "
                "would not run there. Run this on that host, or on one of its kind, or let it reach a registry."
            )
        if recipe.base in RECIPES:
            base = self._have[self._key(recipe.base, RECIPES[recipe.base], {})]  # `image` has seen to it
        else:
            base = self._debian() if recipe.base == "debian" else self._busybox()
        with self._doing(f"image {name}"):
            packages = self._packages(recipe) if recipe.packages else []
            entries = [_Entry(path, owner=owner) for path, owner in recipe.folders.items()]
            entries += [
                _Entry(path, program, capabilities=recipe.file_capabilities.get(path, b""))
                for path, program in files.items()
            ]
            entrypoint = _ROOTFS / name / "docker-entrypoint.sh"
            if entrypoint.exists():
                entries.append(_Entry("/usr/local/bin/docker-entrypoint.sh", entrypoint))
            if recipe.wheels:
                wheels = self._wheels(recipe, packages)
                entries += [_Entry("/wheels"), *(_Entry(f"/wheels/{each.name}", each, mode=0o644) for each in wheels)]
            return self._commit(name, recipe, key=key, base=base, entries=entries, packages=packages)

    @contextlib.contextmanager
    def _doing(self, title: str) -> Iterator[None]:
        """Show a step; what `_run` runs meanwhile is its detail."""
        with self._progress.task(title) as self._task:
            yield

    def _key(self, name: str, recipe: Recipe, files: Mapping[str, Path]) -> str:
        """Return the hash of all that decides what the image holds."""
        parts: dict[str, Any] = {
            "format": _RECIPE_FORMAT,
            "suite": SUITE,
            "machine": platform.machine(),
            "name": name,
            "recipe": repr(recipe),
            "rootfs": {
                str(path.relative_to(_ROOTFS)): _digest(path)
                for folder in filter(None, (name, recipe.base))
                for path in sorted((_ROOTFS / folder).glob("*"))
            },
            "programs": {path: _digest(program) for path, program in files.items()},
            "functions": _digest(_ROOTFS / "build-functions.sh") if recipe.base else "",
            "requirements": _digest(recipe.requirements or _REQUIREMENTS) if recipe.wheels else "",
        }
        if recipe.base in RECIPES:
            parts["base"] = self._key(recipe.base, RECIPES[recipe.base], {})
        if recipe.file_capabilities:
            parts["file_capabilities"] = {path: value.hex() for path, value in recipe.file_capabilities.items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _commit(
        self,
        name: str,
        recipe: Recipe,
        *,
        key: str,
        base: str,
        entries: Sequence[_Entry],
        packages: Sequence[Path],
    ) -> str:
        """Run the build script and the version command in a container of `base`; return the image's id."""
        script = (_ROOTFS / "build-functions.sh").read_text(encoding="utf-8")
        build = _ROOTFS / name / "build.sh"
        if build.exists():
            script += build.read_text(encoding="utf-8") + "\n"
        script += f"echo {_VERSION_FOLLOWS}\n{shlex.join(recipe.version_command)}\n"
        with contextlib.suppress(docker.errors.NotFound):  # of a run that was killed
            self._api.remove_container(self._container, v=True, force=True)
        # /tmp is a volume for as long as this container lives: what lies there is no part of the image.
        container = self._api.create_container(
            base,
            command=["/bin/sh", "/tmp/build.sh"],  # noqa: S108 - a path in the container
            environment=dict(recipe.env),
            name=self._container,
            host_config=self._api.create_host_config(
                network_mode="none",
                mounts=[docker.types.Mount(target="/tmp", source=None, type="volume")],  # noqa: S108
            ),
        )["Id"]
        try:
            self._put(container, entries)
            inputs = [_Entry("/tmp/build.sh", script.encode()), _Entry("/tmp/packages")]  # noqa: S108
            inputs += [_Entry(f"/tmp/packages/{deb.name}", deb, mode=0o644) for deb in packages]  # noqa: S108
            self._put(container, inputs)
            self._api.start(container)
            while (state := self._api.inspect_container(container)["State"])["Running"]:
                self.check()
                time.sleep(_POLL_SECONDS)
            status = state["ExitCode"]
            output = self._api.logs(container).decode(errors="replace")
            if status != 0:
                tail = "\n".join(f"    {line}" for line in output.strip().splitlines()[-40:])
                raise OfflineError(f"{name}: the build script ended with status {status}.\n{tail}")
            version = _version(output)
            image = self._api.commit(
                container,
                repository=f"samokoder-offline/{name}",
                tag=version,
                pause=False,
                conf=_image_config(name, recipe, key=key, version=version),
            )["Id"]
        finally:
            self._api.remove_container(container, v=True, force=True)
        return str(image)

    def _put(self, container: str, entries: Sequence[_Entry]) -> None:
        if entries:
            with _tar(entries) as archive:
                self._api.put_archive(container, "/", archive)

    def _packages(self, recipe: Recipe) -> list[Path]:
        status = self._debian_archive().with_suffix(".status")
        return self._sources().fetch(["install", *recipe.packages], status=status, what="Debian packages")

    def _sources(self) -> _Apt:
        if self._apt is None:
            self._apt = _Apt(self._work / "apt", run=self._run)
        return self._apt

    def _import(self, name: str, key: str, archive: IO[bytes]) -> str:
        changes = [
            f"LABEL {_LABEL_RECIPE}={key} org.opencontainers.image.title=samokoder-offline-{name}",
            f"ENV PATH={_PATH}",
            'CMD ["/bin/sh"]',
        ]
        answer = self._api.import_image_from_data(
            archive, repository=f"samokoder-offline/{name}", tag=SUITE, changes=changes
        )
        last = json.loads(answer.strip().splitlines()[-1])
        if "status" not in last:
            raise OfflineError(f"{name}: the engine did not take the base image: {last.get('error', last)}")
        return str(last["status"])

    def _debian_archive(self) -> Path:
        """Name the tar of the Debian base; beside it lies its package state, `.status`."""
        return self._work / f"debian-{SUITE}-{self._key('debian', Recipe(base=''), {})[:12]}.tar"

    def _debian(self) -> str:
        """Return the id of the Debian base image; its tree is made once and kept as a tar in the cache."""
        archive = self._debian_archive()
        key = self._key("debian", Recipe(base=""), {})
        if not archive.exists():
            with self._doing(_DEBIAN_BASE):
                self._bootstrap(archive)
        if key not in self._have:
            with archive.open("rb") as data:
                self._have[key] = self._import("debian", key, data)
        return self._have[key]

    def _bootstrap(self, archive: Path) -> None:
        if shutil.which("mmdebstrap") is None:
            install_packages(["mmdebstrap"], report=self._progress.say)
        apt = self._sources()
        partial = archive.with_suffix(".part")
        partial.unlink(missing_ok=True)
        self._remove_half_made_tree()
        self._tree.mkdir(parents=True)
        # In namespaces of its own, and tied to this process: even when killed, it leaves neither a mount in the
        # tree nor a mmdebstrap that goes on writing into it.
        own: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        own += ["--pid", "--fork", "--kill-child", "--", "env", f"TMPDIR={self._tree}"]
        customize = shlex.join(["sh", "-c", f'chroot "$1" sh -s <{shlex.quote(str(_ROOTFS / "debian/customize.sh"))}'])
        bootstrap: list[str | Path] = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
        # What it would make and remove again is made by customize.sh to stay.
        bootstrap += ["--skip=chroot/policy-rc.d"]
        bootstrap += [f"--keyring={apt.keyrings}", f"--aptopt={apt.proxy_options()}"]
        bootstrap += [f"--dpkgopt={_ROOTFS / 'debian/dpkg.cfg'}", f'--customize-hook={customize} sh "$1"']
        self._run([*own, *bootstrap, SUITE, partial, apt.sources], _DEBIAN_BASE)
        with tarfile.open(partial) as tree:
            status = cast("IO[bytes]", tree.extractfile("./var/lib/dpkg/status")).read()
        archive.with_suffix(".status").write_bytes(status)
        partial.rename(archive)
        for old in {*self._work.glob(f"debian-{SUITE}-*.*")} - {archive, archive.with_suffix(".status")}:
            old.unlink()
        self._remove_half_made_tree()

    def _remove_half_made_tree(self) -> None:
        """Remove the tree that mmdebstrap works in, and no other: the path is no parameter on purpose.

        Raises OfflineError when something is mounted in it (that is not ours to delete), or when it is not the
        plain folder in the cache that this module makes.
        """
        if not self._tree.exists():
            return
        if self._tree.is_symlink() or self._tree.resolve().parent != self._work.resolve():
            raise OfflineError(f"{self._tree} is not the folder that was made here: remove it yourself.")
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        for point in (Path(line.split()[4]) for line in mounts):
            if point.is_relative_to(self._tree.resolve()):
                raise OfflineError(f"{point} is still mounted in a half-made tree: `umount` it and try again.")
        shutil.rmtree(self._tree)

    def _busybox(self) -> str:
        """Return the id of the base for single programs: a shell with wget, the certificates, two users."""
        key = self._key("busybox", Recipe(base=""), {})
        if key not in self._have:
            with self._doing(_BUSYBOX_BASE):
                debs = self._sources().fetch(
                    ["download", "busybox-static", "ca-certificates"], status=None, what=_BUSYBOX_BASE
                )
                with _tar(_busybox_entries(debs)) as archive:
                    self._have[key] = self._import("busybox", key, archive)
        return self._have[key]

    def _run(self, command: Sequence[str | Path], what: str, cwd: Path | None = None) -> str:
        """Run a command as a part of the step at hand; return what it printed. Raises EngineError when it fails."""

        def waiting(_seconds: float, last: str) -> None:
            if self._task is not None:
                self._task.detail = last if what == self._task.title else f"{what}: {last}"
            self.check()

        return run(command, what=what, waiting=waiting, cwd=cwd)

    def _wheels(self, recipe: Recipe, packages: Sequence[Path]) -> list[Path]:
        """Download the wheels of locked requirements, hashes checked."""
        versions = [match[1] for deb in packages if (match := re.match(r"python3\.\d+_([\d.]+)-", deb.name))]
        if not versions:
            raise OfflineError(f"python: the suite {SUITE} gave no Python to choose the wheels for.")
        locked = self._work / "requirements.txt"
        text = requirements_for((recipe.requirements or _REQUIREMENTS).read_text(encoding="utf-8"), python=versions[0])
        locked.write_text(text, encoding="utf-8")
        folder = self._work / "wheels" / hashlib.sha256(text.encode()).hexdigest()[:12]
        machine = platform.machine()
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 4, -1)]
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON_VERSION}"),
            *(
                "--implementation=cp",
                f"--abi=cp{PYTHON_VERSION.replace('.', '')}",
                "--abi=abi3",
                "--abi=none",
            ),
            *(f"--platform={tag}" for tag in (*tags, f"manylinux2014_{machine}")),
            *(f"--dest={folder}", f"--requirement={locked}"),
        ]
        self._run(command, "Python wheels")
        return sorted(folder.glob("*.whl"))


def requirements_for(text: str, *, python: str) -> str:
    """Return a locked requirements file without what the `python` image does not need, and without markers.

    `python` is the full version in the image. pip would judge the markers by the interpreter that it runs on.
    """
    environment = {
        **{name: str(value) for name, value in default_environment().items()},
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_name": "cpython",
        "implementation_version": python,
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    kept = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "-")):
            continue
        words = line.split(" --hash=")
        requirement = Requirement(words[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            kept.append(" --hash=".join([str(requirement), *(word.strip() for word in words[1:])]))
    return "\n".join(kept) + "\n"


def _quietly(command: Sequence[str | Path], what: str, cwd: Path | None = None) -> str:
    """Run a command that takes no time worth showing; return what it printed."""
    return run(command, what=what, waiting=lambda _seconds, _last: None, cwd=cwd)


class _Apt:
    """Debian packages by the host's own apt configuration, without touching the host's apt state."""

    def __init__(self, root: Path, *, run: _Run) -> None:
        self._root = root
        self._run = run
        self.sources = root / "sources.list"
        """The suite with its updates and its security updates, from the host's own mirrors."""
        self.keyrings = root / "trusted"
        """The keys of Debian's archive that this host has."""
        wanted = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
        rows = _quietly(["apt-get", "indextargets", "--no-release-info", *wanted], "Reading the host's package sources")
        main, security = debian_mirrors(rows, _os_release())
        lines = [f"deb {main} {SUITE} main", f"deb {main} {SUITE}-updates main"]
        if security:
            lines.append(f"deb {security} {SUITE}-security main")
        self._archives = root / "archives"
        for folder in (
            self._archives / "partial",
            root / "no-archives" / "partial",
            root / "lists" / "partial",
            self.keyrings,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        self.sources.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (root / "empty-status").touch()
        for keyring in (
            *Path("/etc/apt/trusted.gpg.d").glob("*"),
            *Path("/usr/share/keyrings").glob("debian-archive-keyring.*"),
        ):
            link = self.keyrings / keyring.name
            link.unlink(missing_ok=True)
            link.symlink_to(keyring)
        self._apt(["update", "-q"], status=None, what="Debian package lists")

    def _apt(self, words: Sequence[str], *, status: Path | None, what: str = "", archives: Path | None = None) -> str:
        """Run apt-get; `what` names it to the user when it may take long."""
        folder = archives or self._archives
        options = {
            "Dir::Etc::SourceList": self.sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::TrustedParts": self.keyrings,
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": self._root,
            "Dir::State::Lists": self._root / "lists",
            "Dir::State::Status": status or self._root / "empty-status",
            "Dir::State::Extended_States": self._root / "extended-states",
            "Dir::Cache": self._root,
            "Dir::Cache::Archives": folder,
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
        }
        command = ["apt-get", *(f"-o{name}={value}" for name, value in options.items()), *words]
        return self._run(command, what, folder) if what else _quietly(command, "apt-get", folder)

    def proxy_options(self) -> Path:
        """Return a file with the host's own way to its mirrors, for another apt: proxies and the like."""
        file = self._root / "acquire.conf"
        words = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n']
        file.write_text(_quietly([*words, "Acquire::http", "Acquire::https"], "apt-config") + "\n", encoding="utf-8")
        return file

    def fetch(self, words: Sequence[str], *, status: Path | None, what: str) -> list[Path]:
        """Download what `apt-get WORDS` would, seen from the package state `status`; return the .deb files."""
        flags = [] if words[0] == "download" else ["--download-only", "-y", "-q"]
        # Seen from an empty folder: what lies in the archive already would not be listed.
        listed = self._apt([*words, *flags, "--print-uris"], status=status, archives=self._root / "no-archives")
        names = re.findall(r"^'[^']+' (\S+\.deb) ", listed, flags=re.MULTILINE)
        if any(not (self._archives / name).exists() for name in names):
            self._apt([*words, *flags], status=status, what=f"{what}: downloading {len(names)}")
        return [self._archives / name for name in names]


def debian_mirrors(index_targets: str, os_release: Mapping[str, str]) -> tuple[str, str | None]:
    """Choose the main and the security mirror from lines of `URI RELEASE COMPONENT`.

    Raises OfflineError when the host is not Debian, or names none.
    """
    if os_release.get("ID") != "debian":
        raise OfflineError(
            "Offline images are made of Debian packages, and this host is no Debian "
            f"({os_release.get('PRETTY_NAME', 'unknown')}): use a Debian 12 host, or one that reaches a registry."
        )
    codename = os_release.get("VERSION_CODENAME", SUITE)
    rows = [line.split() for line in index_targets.splitlines() if len(line.split()) == 3]  # noqa: PLR2004
    by_release = {release: uri for uri, release, component in reversed(rows) if component == "main"}
    main = by_release.get(codename) or by_release.get("stable")
    if main is None:
        raise OfflineError(f"The host's apt sources name no mirror of Debian {codename} with the component main.")
    return main, by_release.get(f"{codename}-security") or by_release.get("stable-security")


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _busybox_entries(debs: Sequence[Path]) -> Iterator[_Entry]:
    """Yield the tree of the busybox base from its two packages."""
    contents: dict[str, bytes] = {}
    for deb in debs:
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if (source := archive.extractfile(member)) is not None:
                    contents[member.name.removeprefix(".")] = source.read()
    program = next(content for path, content in contents.items() if path.endswith("/bin/busybox"))
    certificates = [content for path, content in sorted(contents.items()) if path.endswith(".crt")]
    for folder in (
        "/bin",
        "/etc",
        "/etc/ssl",
        "/etc/ssl/certs",
        "/usr",
        "/usr/bin",
        "/var",
        "/root",
        "/licenses",
    ):
        yield _Entry(folder)
    yield _Entry("/tmp", mode=0o1777)  # noqa: S108 - a path in the image
    yield _Entry("/bin/busybox", program)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "busybox"
        local.write_bytes(program)
        local.chmod(0o755)
        applets = subprocess.run([local, "--list"], capture_output=True, check=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            yield _Entry(f"/bin/{applet}", link="busybox")
    yield _Entry("/etc/ssl/certs/ca-certificates.crt", b"".join(certificates), mode=0o644)
    for path, content in sorted(contents.items()):
        if path.endswith("/copyright"):
            yield _Entry(f"/licenses/{path.split('/')[-2]}", content, mode=0o644)
    for file in sorted((_ROOTFS / "busybox").iterdir()):
        yield _Entry(f"/etc/{file.name}", file, mode=0o644)


def _image_config(name: str, recipe: Recipe, *, key: str, version: str) -> dict[str, Any]:
    """Return what a Dockerfile would say, as the engine's API has it."""
    return {
        "Entrypoint": list(recipe.entrypoint) or None,
        "Cmd": list(recipe.command) or None,
        "User": recipe.user,
        "WorkingDir": recipe.workdir,
        "Env": [f"{variable}={value}" for variable, value in recipe.env.items()],
        "Volumes": {volume: {} for volume in recipe.volumes},
        "ExposedPorts": {f"{port}/tcp": {} for port in recipe.ports},
        "StopSignal": recipe.stop_signal,
        "Labels": {
            _LABEL_RECIPE: key,
            _LABEL_VERSION: version,
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.description": f"{name} {version}, made offline from packages, not official",
            "org.opencontainers.image.vendor": "samokoder offline",
        },
    }


def _version(output: str) -> str:
    """Return the version in the build container's output: the first number with a dot after the mark."""
    said = output.rpartition(_VERSION_FOLLOWS)[2]
    if match := re.search(r"\d+(?:\.\d+)+", said):
        return match[0]
    raise OfflineError(f"The version command named no version: {said.strip()[-300:]}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
