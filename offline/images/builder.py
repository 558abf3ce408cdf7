"""Build, on the local Docker Engine, the images that a container registry would give.

What goes in comes from package registries alone: Debian packages (from the host's own apt sources), Go programs built
by `offline.toolchain`, Python wheels. The images are made by create, copy, run, commit over the engine's API, which is
the same with every engine version and needs neither a builder nor a folder that the engine can see.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import shlex
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import docker
import docker.types

from host.file_lock import exclusive
from host.packages import install_packages
from host.process import run
from host.progress import Reporter, Task
from offline.errors import OfflineError
from offline.images.archive import Entry, tar_of
from offline.images.busybox import busybox_entries
from offline.images.debian import Apt
from offline.images.grafana import official_grafana
from offline.images.recipes import (
    BUSYBOX_BASE,
    DEBIAN_BASE,
    RECIPES,
    REFERENCE_REQUIREMENTS,
    ROOTFS,
    SEARCH_PATH,
    SUITE,
    Recipe,
    files_of,
    programs_of,
)
from offline.images.wheels import download_wheels

POLL_SECONDS = 0.3

LABEL_RECIPE = "samokoder.offline.recipe"
_LABEL_VERSION = "org.opencontainers.image.version"
VERSION_FOLLOWS = "--- version"
_RECIPE_FORMAT = 2  # part of every recipe's hash: count up when this module builds differently


class Builder:
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
        self._apt: Apt | None = None
        self._have = self._known()
        # Named after the cache, because the lock is the cache's: two caches may build on one engine.
        self._container = f"samokoder-offline-build-{hashlib.sha256(bytes(self._work)).hexdigest()[:8]}"

    def _known(self) -> dict[str, str]:
        """Return hash of the recipe -> image id of all that this module ever made on this engine."""
        labelled = self._api.images(filters={"label": LABEL_RECIPE})
        return {str(image["Labels"][LABEL_RECIPE]): str(image["Id"]) for image in labelled}

    def grafana(self) -> str | None:
        """Return the id of an official image that somebody has loaded."""
        return official_grafana(self._client)

    def missing(self, names: Sequence[str], programs: Mapping[str, Path]) -> list[str]:
        """Return the bases and images that have to be made, by the titles of their tasks. programs: those built."""
        things: dict[str, None] = {}
        for name in [each for wanted in names if wanted in RECIPES for each in (*self._bases(wanted), wanted)]:
            recipe = RECIPES[name]
            if (
                programs_of(name) <= programs.keys()
                and self._key(name, recipe, files_of(recipe, programs)) in self._have
            ):
                continue
            if recipe.base == "debian" and not self._debian_archive().exists():
                things[DEBIAN_BASE] = None
            if recipe.base == "busybox" and self._key("busybox", Recipe(base=""), {}) not in self._have:
                things[BUSYBOX_BASE] = None
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
        files = files_of(recipe, programs)
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
            entries = [Entry(path, owner=owner) for path, owner in recipe.folders.items()]
            entries += [
                Entry(path, program, capabilities=recipe.file_capabilities.get(path, b""))
                for path, program in files.items()
            ]
            entrypoint = ROOTFS / name / "docker-entrypoint.sh"
            if entrypoint.exists():
                entries.append(Entry("/usr/local/bin/docker-entrypoint.sh", entrypoint))
            if recipe.wheels:
                locked = recipe.requirements or REFERENCE_REQUIREMENTS
                wheels = download_wheels(locked, packages, work=self._work, run=self._run)
                entries += [Entry("/wheels"), *(Entry(f"/wheels/{each.name}", each, mode=0o644) for each in wheels)]
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
                str(path.relative_to(ROOTFS)): digest_of(path)
                for folder in filter(None, (name, recipe.base))
                for path in sorted((ROOTFS / folder).glob("*"))
            },
            "programs": {path: digest_of(program) for path, program in files.items()},
            "functions": digest_of(ROOTFS / "build-functions.sh") if recipe.base else "",
            "requirements": digest_of(recipe.requirements or REFERENCE_REQUIREMENTS) if recipe.wheels else "",
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
        entries: Sequence[Entry],
        packages: Sequence[Path],
    ) -> str:
        """Run the build script and the version command in a container of `base`; return the image's id."""
        script = (ROOTFS / "build-functions.sh").read_text(encoding="utf-8")
        build = ROOTFS / name / "build.sh"
        if build.exists():
            script += build.read_text(encoding="utf-8") + "\n"
        script += f"echo {VERSION_FOLLOWS}\n{shlex.join(recipe.version_command)}\n"
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
            inputs = [Entry("/tmp/build.sh", script.encode()), Entry("/tmp/packages")]  # noqa: S108
            inputs += [Entry(f"/tmp/packages/{deb.name}", deb, mode=0o644) for deb in packages]  # noqa: S108
            self._put(container, inputs)
            self._api.start(container)
            while (state := self._api.inspect_container(container)["State"])["Running"]:
                self.check()
                time.sleep(POLL_SECONDS)
            status = state["ExitCode"]
            output = self._api.logs(container).decode(errors="replace")
            if status != 0:
                tail = "\n".join(f"    {line}" for line in output.strip().splitlines()[-40:])
                raise OfflineError(f"{name}: the build script ended with status {status}.\n{tail}")
            version = version_in(output)
            image = self._api.commit(
                container,
                repository=f"samokoder-offline/{name}",
                tag=version,
                pause=False,
                conf=image_config(name, recipe, key=key, version=version),
            )["Id"]
        finally:
            self._api.remove_container(container, v=True, force=True)
        return str(image)

    def _put(self, container: str, entries: Sequence[Entry]) -> None:
        if entries:
            with tar_of(entries) as archive:
                self._api.put_archive(container, "/", archive)

    def _packages(self, recipe: Recipe) -> list[Path]:
        status = self._debian_archive().with_suffix(".status")
        return self._sources().fetch(["install", *recipe.packages], status=status, what="Debian packages")

    def _sources(self) -> Apt:
        if self._apt is None:
            self._apt = Apt(self._work / "apt", run=self._run)
        return self._apt

    def _import(self, name: str, key: str, archive: IO[bytes]) -> str:
        changes = [
            f"LABEL {LABEL_RECIPE}={key} org.opencontainers.image.title=samokoder-offline-{name}",
            f"ENV PATH={SEARCH_PATH}",
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
            with self._doing(DEBIAN_BASE):
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
        # tree nor a mmdebstrap that still writes into it.
        own: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        own += ["--pid", "--fork", "--kill-child", "--", "env", f"TMPDIR={self._tree}"]
        customize = shlex.join(["sh", "-c", f'chroot "$1" sh -s <{shlex.quote(str(ROOTFS / "debian/customize.sh"))}'])
        bootstrap: list[str | Path] = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
        # What it would make and remove again is made by customize.sh to stay.
        bootstrap += ["--skip=chroot/policy-rc.d"]
        bootstrap += [f"--keyring={apt.keyrings}", f"--aptopt={apt.proxy_options()}"]
        bootstrap += [f"--dpkgopt={ROOTFS / 'debian/dpkg.cfg'}", f'--customize-hook={customize} sh "$1"']
        self._run([*own, *bootstrap, SUITE, partial, apt.sources], DEBIAN_BASE)
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
            with self._doing(BUSYBOX_BASE):
                debs = self._sources().fetch(
                    ["download", "busybox-static", "ca-certificates"], status=None, what=BUSYBOX_BASE
                )
                with tar_of(busybox_entries(debs)) as archive:
                    self._have[key] = self._import("busybox", key, archive)
        return self._have[key]

    def _run(self, command: Sequence[str | Path], what: str, cwd: Path | None = None) -> str:
        """Run a command as a part of the step at hand; return what it printed. Raises EngineError when it fails."""

        def waiting(_seconds: float, last: str) -> None:
            if self._task is not None:
                self._task.detail = last if what == self._task.title else f"{what}: {last}"
            self.check()

        return run(command, what=what, waiting=waiting, cwd=cwd)


def image_config(name: str, recipe: Recipe, *, key: str, version: str) -> dict[str, Any]:
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
            LABEL_RECIPE: key,
            _LABEL_VERSION: version,
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.description": f"{name} {version}, made offline from packages, not official",
            "org.opencontainers.image.vendor": "samokoder offline",
        },
    }


def version_in(output: str) -> str:
    """Return the version in the build container's output: the first number with a dot after the mark."""
    said = output.rpartition(VERSION_FOLLOWS)[2]
    if match := re.search(r"\d+(?:\.\d+)+", said):
        return match[0]
    raise OfflineError(f"The version command named no version: {said.strip()[-300:]}")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
