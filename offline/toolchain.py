"""Builds programs from the Go module proxy, for a host that cannot reach their official downloads.

Every program is a folder of `offline/go` with a committed go.mod and go.sum, so Go itself verifies each source that
goes into it. What is built lies in the cache below `offline/<program>/<key>/bin`, the key being a hash of the folder,
the build settings and the Go version; it appears there by a rename, so a folder that exists is a finished build.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from host.progress import Reporter, Task
from offline import alertmanager_page, prometheus_pages
from offline.passed import passed

SOURCES = Path(__file__).parent / "go"

#: What is fetched when the host has no Go that is new enough. At least as new as any go.mod here asks for.
# renovate: datasource=golang-version depName=go
GO_VERSION = "1.26.8"

#: Where Debian's packages put a Go that is not on PATH.
_DEBIAN_GO = Path("/usr/lib")

# renovate: datasource=github-releases depName=pulumi/pulumi
_PULUMI_VERSION = "3.259.0"

_PROMETHEUS_VERSION = "github.com/prometheus/common/version"


_POLL_SECONDS = 0.2

#: Seconds to wait before a download that failed is tried again; Go itself does not try twice.
_PAUSES = (5, 20, 60)
_NETWORK_TROUBLE = re.compile(
    r"dial tcp|connection re(set|fused)|i/o timeout|TLS handshake timeout|unexpected EOF|stream error"
    r"|50[0234] (Internal|Bad|Service|Gateway)"
)


class OfflineError(Exception):
    """The offline bring-up cannot get what it needs; the text says what to do."""


class BuildError(OfflineError):
    """A Go program did not build; the text holds its name and the compiler's last lines."""


class _StoppedError(Exception):
    """A build was ended because another one failed, or the whole run was interrupted."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """How one folder of `offline/go` becomes executables.

    `version` is the released version that is built, without a "v"; `executables` maps a file name to the Go package it
    is built from; `stamps` are string variables set at link time, {version} in them being the version; `generate` is a
    `go run` before the build (its words may hold {source}, the folder of the sources); `files` are further files from a
    module: name -> (module, path); `tags` are Go build tags; `without` are modules, each with the folders and files in
    it that are left out: what lies in `added/<module>` takes their place; `pages` is one of these modules, whose web
    pages are built (`offline/prometheus_pages.py`) and put into the program; `own_page` is one of them too, and its
    folder that gets our page in `page/` (`offline/alertmanager_page.py`); `after` is the program whose compiled
    packages this one shares: built at the same time, both would compile them.
    """

    version: str
    executables: Mapping[str, str]
    stamps: Mapping[str, str] = field(default_factory=dict)
    generate: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own_page: tuple[str, str] | None = None
    pages: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        """Put the version into the stamps, so that it is written in one place."""
        stamped = {variable: value.format(version=self.version) for variable, value in self.stamps.items()}
        object.__setattr__(self, "stamps", stamped)


#: What `--version` and the `*_build_info` metric of every Prometheus program read.
_PROMETHEUS_STAMPS = {
    f"{_PROMETHEUS_VERSION}.{name}": value
    for name, value in (("Version", "{version}"), ("Branch", "module-proxy"), ("BuildUser", "samokoder-offline"))
}


_SCHEMA = ("./schema", "schema", "--skip-docs", "--skip-examples", "--out", "{source}")

#: Folder of `offline/go` -> how it is built, in the order in which they start: the long ones first.
PROGRAMS: Mapping[str, Program] = {
    "pulumi": Program(
        version=_PULUMI_VERSION,
        executables={"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
        stamps={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": "v{version}"},
        # `pulumi api` and Google's cloud are two fifths of the build.
        without={
            "github.com/pulumi/pulumi/pkg/v3": (
                "authhelpers/gcpauth.go",
                "operations/operations_gcp.go",
                *(
                    f"cmd/pulumi/cloud/{name}.go"
                    for name in (
                        *("api", "describe", "describe_markdown", "encoding", "envelope", "fields", "format", "list"),
                        *("output", "paginate", "pathmatch", "schema", "spec", "spec_fetch"),
                    )
                ),
            ),
            "gocloud.dev": ("blob/gcsblob", "secrets/gcpkms"),
        },
    ),
    "prometheus": Program(
        # renovate: datasource=github-releases depName=prometheus/prometheus
        version="3.13.4",
        executables={
            "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        },
        stamps=_PROMETHEUS_STAMPS,
        # The clouds' service discoveries are two thirds of the build; file, static and http need no tag.
        tags=("remove_all_sd", "enable_dns_sd", "enable_moby_sd"),
        # promtool has one of them whatever the tags: that of Kubernetes, half of what is left.
        # The description of the API, which nobody here reads, is a quarter of the server.
        without={
            "github.com/prometheus/prometheus": (
                "discovery/kubernetes",
                *(f"web/api/v1/openapi{part}.go" for part in ("", "_examples", "_helpers", "_paths", "_schemas")),
            )
        },
        pages="github.com/prometheus/prometheus",
    ),
    "alertmanager": Program(
        # renovate: datasource=github-releases depName=prometheus/alertmanager
        version="0.34.1",
        executables={
            "alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager",
            "amtool": "github.com/prometheus/alertmanager/cmd/amtool",
        },
        stamps=_PROMETHEUS_STAMPS,
        # Upstream's page is made of Elm packages, which no package registry has.
        without={"github.com/prometheus/alertmanager": ()},
        own_page=("github.com/prometheus/alertmanager", "ui/app/dist"),
    ),
    "caddy": Program(
        # renovate: datasource=github-releases depName=caddyserver/caddy
        version="2.11.4",
        executables={"caddy": "github.com/caddyserver/caddy/v2/cmd/caddy"},
        stamps={"github.com/caddyserver/caddy/v2.CustomVersion": "v{version}"},
    ),
    # The newest module version that still holds the Python language host.
    "pulumi-language-python": Program(
        version="3.75.0",
        executables={"pulumi-language-python": "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"},
        stamps={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": "v{version}"},
        files={
            "pulumi-language-python-exec": (
                "github.com/pulumi/pulumi/sdk/v3",
                "python/cmd/pulumi-language-python-exec",
            )
        },
    ),
    # Both bridges have their dependencies at the versions of the Pulumi command, or newer, so that half of the first
    # and nearly all of the second lie compiled in Go's cache.
    "pulumi-resource-docker": Program(
        # renovate: datasource=pypi depName=pulumi-docker
        version="5.2.0",
        executables={"pulumi-resource-docker": "."},
        generate=_SCHEMA,
        # Images are built on the engine alone; building them in Kubernetes is half of what this one adds to the build.
        without={
            "github.com/docker/buildx": tuple(
                f"driver/kubernetes/{name}"
                for name in ("context", "driver.go", "execconn", "factory.go", "manifest", "podchooser")
            )
        },
        after="pulumi",
    ),
    "pulumi-resource-random": Program(
        # renovate: datasource=pypi depName=pulumi-random
        version="4.21.4",
        executables={"pulumi-resource-random": "."},
        generate=_SCHEMA,
        after="pulumi-resource-docker",
    ),
    "cadvisor": Program(
        # renovate: datasource=github-releases depName=google/cadvisor
        version="0.60.6",
        executables={"cadvisor": "."},
        stamps={"github.com/google/cadvisor/lib/version.Version": "v{version}"},
    ),
    "node_exporter": Program(
        # renovate: datasource=github-releases depName=prometheus/node_exporter
        version="1.12.1",
        executables={"node_exporter": "github.com/prometheus/node_exporter"},
        stamps=_PROMETHEUS_STAMPS,
    ),
    "blackbox_exporter": Program(
        # renovate: datasource=github-releases depName=prometheus/blackbox_exporter
        version="0.28.0",
        executables={"blackbox_exporter": "github.com/prometheus/blackbox_exporter"},
        stamps=_PROMETHEUS_STAMPS,
    ),
    "postgres_exporter": Program(
        # renovate: datasource=github-releases depName=prometheus-community/postgres_exporter
        version="0.19.1",
        executables={"postgres_exporter": "github.com/prometheus-community/postgres_exporter/cmd/postgres_exporter"},
        stamps=_PROMETHEUS_STAMPS,
    ),
    "redis_exporter": Program(
        # renovate: datasource=github-releases depName=oliver006/redis_exporter
        version="1.88.0",
        executables={"redis_exporter": "github.com/oliver006/redis_exporter"},
        stamps={"main.BuildVersion": "v{version}"},
    ),
    # Tells which Python the language host of the pinned Pulumi takes, for a test.
    "pulumi-toolchain": Program(
        version=_PULUMI_VERSION,
        executables={"pulumi-toolchain": "."},
        after="pulumi",
    ),
    # A container registry on loopback, for the tests of pulling by digest.
    "registry": Program(
        # renovate: datasource=github-releases depName=distribution/distribution
        version="3.1.1",
        executables={"registry": "github.com/distribution/distribution/v3/cmd/registry"},
        stamps={"github.com/distribution/distribution/v3/version.version": "v{version}"},
    ),
    # An S3 server on loopback, for the tests of the off-site copies.
    "versitygw": Program(
        # renovate: datasource=github-releases depName=versity/versitygw
        version="1.8.0",
        executables={"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
        stamps={"main.Version": "v{version}"},
    ),
    # Reads the labels of the application's containers, for the tests of an ingress of the team's own. Most of its build
    # is lego's DNS providers, which no router, service or middleware needs.
    "traefik": Program(
        # renovate: datasource=github-releases depName=traefik/traefik
        version="3.7.13",
        executables={"traefik": "github.com/traefik/traefik/v3/cmd/traefik"},
        stamps={"github.com/traefik/traefik/v3/pkg/version.Version": "{version}"},
        without={"github.com/go-acme/lego/v5": ("providers/dns",)},
    ),
    # Reads the workflows, for `make lint`.
    "actionlint": Program(
        # renovate: datasource=github-releases depName=rhysd/actionlint
        version="1.7.12",
        executables={"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"},
        stamps={"github.com/rhysd/actionlint.version": "{version}"},
    ),
}


def build(
    names: Iterable[str],
    *,
    cache: Path,
    jobs: int = 2,
    progress: Reporter | None = None,
    sources: Path = SOURCES,
    programs: Mapping[str, Program] = PROGRAMS,
    stopped: threading.Event | None = None,
    on_built: Callable[[str, Path], None] = lambda _name, _folder: None,
) -> dict[str, Path]:
    """Build what is missing of `names` and return each program's folder of executables.

    `cache` is the product's cache folder; `on_built(name, folder)` is called as each one is there, from any thread.
    Raises BuildError at the first failure, after stopping what still runs; what was finished stays, and Go's own cache
    keeps the packages compiled so far. Several processes may do it at once. Where another thread sets `stopped`, the
    same happens and OfflineError is raised.
    """
    wanted = list(dict.fromkeys(names))
    unknown = sorted(set(wanted) - set(programs))
    if unknown:
        msg = f"not a program of offline/go: {', '.join(unknown)}; there are: {', '.join(sorted(programs))}"
        raise OfflineError(msg)
    reporter = progress or Reporter()
    minimum = max((required_go(sources / name / "go.mod") for name in wanted), default="1.0")
    go = ensure_go(cache=cache, minimum=minimum, progress=reporter)
    version = go_version(go)
    jobs_to_do = {
        name: _Build(name, programs[name], sources / name, cache=cache, go=go, go_release=version, reporter=reporter)
        for name in sorted(wanted, key=list(programs).index)
    }
    missing = [job for job in jobs_to_do.values() if not job.done()]
    for job in missing:
        job.earlier = next((other for other in missing if other.name == job.program.after), None)
    for job in jobs_to_do.values():
        job.on_built = on_built
        if job not in missing:
            on_built(job.name, job.bin_dir)
    if missing:
        _run_all(missing, jobs, stopped or threading.Event())
    return {name: job.bin_dir for name, job in jobs_to_do.items()}


def there(names: Iterable[str], *, cache: Path) -> dict[str, Path]:
    """Return each program that is built already, with its folder of executables. Nothing is fetched or written."""
    wanted = list(dict.fromkeys(names))
    go = found_go(cache=cache, minimum=max((required_go(SOURCES / name / "go.mod") for name in wanted), default="1.0"))
    if go is None:
        return {}
    release, home = go_version(go), cache / "offline"
    found = {name: home / name / cache_key(SOURCES / name, PROGRAMS[name], release) / "bin" for name in wanted}
    return {name: folder for name, folder in found.items() if folder.is_dir()}


def _run_all(builds: list[_Build], jobs: int, stopped: threading.Event) -> None:
    """Run `jobs` of them at a time, in their order; one that waits for another keeps no place from those after it."""
    waiting, begun, futures = list(builds), list[_Build](), list[Future[None]]()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            while not stopped.is_set() and not any(future.done() and future.exception() for future in futures):
                running = [future for future in futures if not future.done()]
                ready = [item for item in waiting if item.earlier is None or item.earlier.over]
                for item in ready[: jobs - len(running)]:
                    waiting.remove(item)
                    begun.append(item)
                    futures.append(pool.submit(item.run))
                if all(future.done() for future in futures) and not waiting:
                    break
                wait([future for future in futures if not future.done()], _POLL_SECONDS, FIRST_COMPLETED)
        finally:
            cut_off = [item for item, future in zip(begun, futures, strict=True) if not future.done()]
            unfinished = sorted(cut_off + waiting, key=builds.index)
            pool.shutdown(wait=False, cancel_futures=True)
            for item in cut_off:
                item.stop()
    for future in futures:
        if not future.cancelled() and not isinstance(future.exception(), _StoppedError):
            future.result()
    if unfinished:
        msg = f"stopped before it was built: {', '.join(item.name for item in unfinished)}"
        raise OfflineError(msg)


@dataclass
class _Build:
    """One program's way into the cache."""

    name: str
    program: Program
    source: Path
    cache: Path
    go: Path
    go_release: str
    reporter: Reporter
    earlier: _Build | None = None
    """The one that this one shares code with, which is built first."""
    over: bool = False
    on_built: Callable[[str, Path], None] = lambda _name, _folder: None
    _process: subprocess.Popen[str] | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def folder(self) -> Path:
        """Where the finished build lies."""
        return self.cache / "offline" / self.name / cache_key(self.source, self.program, self.go_release)

    @property
    def bin_dir(self) -> Path:
        """The finished build's executables."""
        return self.folder / "bin"

    def done(self) -> bool:
        """Tell whether the build lies in the cache; it gets there whole or not at all."""
        return self.bin_dir.is_dir()

    def stop(self) -> None:
        """End a running build."""
        self._stopped.set()
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                group = os.getpgid(process.pid)
                # What it has started ends too, where it has a group of its own.
                os.killpg(group, signal.SIGTERM) if group == process.pid else process.terminate()

    def run(self) -> None:
        """Build it, and have it told."""
        try:
            self._build()
            self.on_built(self.name, self.bin_dir)
        finally:
            self.over = True

    def _build(self) -> None:
        """Build into a temporary folder and rename it, unless another process has done so meanwhile."""
        with self.reporter.task(self.name) as task, self._locked(task):
            if self.done():
                return
            work = self.folder.parent / f".{self.folder.name}.unfinished"
            shutil.rmtree(work, ignore_errors=True)  # an interrupted build's; the lock says that nobody uses it
            source, finished = work / "source", work / "finished"
            shutil.copytree(self.source, source)
            (finished / "bin").mkdir(parents=True)
            self._compile(source, finished / "bin", task)
            finished.rename(self.folder)
            shutil.rmtree(work)

    def _compile(self, source: Path, bin_dir: Path, task: Task) -> None:
        stamps = "".join(f" -X {variable}={value}" for variable, value in self.program.stamps.items())
        # -modcacherw: without it `rm -r` of the cache fails for anyone but root. The linker drops what debuggers read,
        # so the compiler does not make it: a sixth of its time.
        flags = ["-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-modcacherw"]
        flags += [f"-ldflags=-s -w{stamps}", "-gcflags=all=-dwarf=false"]
        for module, left_out in self.program.without.items():
            self._leave_out(module, left_out, source, task)
        tags = [*self.program.tags, *self._pages(source, task)]
        if tags:
            flags.append(f"-tags={','.join(tags)}")
        if self.program.generate:
            words = [word.format(source=source) for word in self.program.generate]
            self._go(["run", *flags, *words], source, task)
        for executable, package in self.program.executables.items():
            self._go(["build", *flags, "-o", str(bin_dir / executable), package], source, task)
        for file, (module, path) in self.program.files.items():
            folder = self._go(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module], source, task)[-1]
            shutil.copyfile(Path(folder) / path, bin_dir / file)
            (bin_dir / file).chmod(0o755)

    def _leave_out(self, module: str, left_out: tuple[str, ...], source: Path, task: Task) -> None:
        """Let the build use a copy of `module`, which go.sum verified when it was fetched, with our files in it.

        Go refuses an overlay of files in its module cache.
        """
        copy = source / "replaced" / module
        self._go(["mod", "download", "-modcacherw", module], source, task)
        folder = self._go(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module], source, task)[-1]
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Go keeps its modules read-only; the copy must take files and be removable.
        subprocess.run(["cp", "-r", "--no-preserve=mode", folder, str(copy)], check=True)
        for name in left_out:
            path = copy / name
            if path.is_dir():
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()
            else:
                msg = f"{self.name}: {module} has no {name} any more: see `without` in offline/toolchain.py"
                raise BuildError(msg)
        if (added := source / "added" / module).is_dir():
            shutil.copytree(added, copy, dirs_exist_ok=True)
        if self.program.own_page and self.program.own_page[0] == module:
            alertmanager_page.lay(alertmanager_page.page(source / "page"), copy / self.program.own_page[1])
        self._go(["mod", "edit", f"-replace={module}=./{copy.relative_to(source)}"], source, task)

    def _pages(self, source: Path, task: Task) -> Sequence[str]:
        """Build the program's web pages; return the tags that put them into it. Without npm's registry it has none."""
        if not self.program.pages:
            return ()
        work = source / "pages"
        for step in prometheus_pages.steps(source / "replaced" / self.program.pages, work):
            try:
                code, lines = self._run_words(step.words, step.folder, step.environment, task)
            except OSError as error:  # there is no such program
                code, lines = 1, [str(error)]
            if self._stopped.is_set():
                raise _StoppedError
            if code:
                said = "\n".join(f"    {line}" for line in lines[-5:])
                self.reporter.say(
                    f"{self.name} gets no web pages, but all else: cannot {step.what}:\n{said}\n"
                    f"To try again, remove {self.folder} and bring the stack up."
                )
                return ()
        return prometheus_pages.TAGS

    def _go(self, words: list[str], folder: Path, task: Task) -> list[str]:
        """Run Go and return its output's lines; a broken download is tried again before it ends a long bring-up."""
        for pause in (*_PAUSES, None):
            code, lines = self._run_go(words, folder, task)
            if self._stopped.is_set():
                raise _StoppedError
            if code == 0:
                return lines
            if pause is None or not any(_NETWORK_TROUBLE.search(line) for line in lines):
                break
            task.detail = f"the network failed, trying again in {pause} s: {lines[-1][:200]}"
            self._stopped.wait(pause)
        raise BuildError(failure_text(self.name, words, code, lines))

    def _run_go(self, words: list[str], folder: Path, task: Task) -> tuple[int, list[str]]:
        """Run Go once, show what it does, return its exit status and its output's lines."""
        return self._run_words([str(self.go), *words], folder, go_environment(self.cache), task)

    def _run_words(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], task: Task
    ) -> tuple[int, list[str]]:
        """Run a program once, show what it does, return its exit status and its output's lines."""
        lines: list[str] = []
        compiled = 0
        with subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A script's own programs would go on without it. Go ends its own, and Ctrl-C reaches it by the terminal.
            start_new_session=words[0] != str(self.go),
        ) as process:
            self._process = process
            if self._stopped.is_set():
                self.stop()
            for line in process.stdout or ():
                text = line.strip()
                if "-v" in words and is_package(text):
                    compiled += 1
                    task.detail = f"{compiled} packages compiled"
                elif text:
                    task.detail = text[:100]
                    lines.append(text)
        return process.returncode, lines

    @contextmanager
    def _locked(self, task: Task) -> Iterator[None]:
        """Keep other processes from building the same program meanwhile."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / ".lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    task.detail = "another run builds it, waiting"
                    if self._stopped.wait(0.2):
                        raise _StoppedError from None
            task.detail = ""
            yield


def is_package(line: str) -> bool:
    """Tell a `go build -v` line that names a compiled package from all that Go has to say."""
    return bool(line) and " " not in line and ":" not in line


def failure_text(name: str, words: list[str], code: int, lines: list[str], *, last: int = 15) -> str:
    """What a person needs to know of a failed build: whose it is and the last lines of what Go said."""
    said = "\n".join(f"    {line}" for line in lines[-last:]) or "    (Go said nothing)"
    return f"{name}: `go {words[0]}` ended with status {code}:\n{said}"


def cache_key(source: Path, program: Program, go_release: str) -> str:
    """Name a build by all that goes into it: sources, go.mod, go.sum, settings, Go version, platform."""
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    # Only what is set: a new kind of setting must not rebuild the programs that do not use it.
    # When it is built (`after`) is no part of what is built.
    settings = [
        f"{item.name}={value!r}"
        for item in fields(program)
        if item.name != "after" and (value := getattr(program, item.name))
    ]
    if program.own_page:
        settings.append(alertmanager_page.page(source / "page"))  # also how it is put together
    digest.update("\0".join([*settings, go_release, os.uname().sysname, os.uname().machine]).encode())
    return digest.hexdigest()[:16]


def required_go(go_mod: Path) -> str:
    """Return the Go version that a go.mod asks for, such as "1.26.0"."""
    found = re.search(r"^go (\S+)$", go_mod.read_text(), re.MULTILINE)
    if found is None:
        msg = f"{go_mod.parent.name}/go.mod has no `go` line"
        raise OfflineError(msg)
    return found[1]


def go_environment(cache: Path) -> dict[str, str]:
    """Return the environment of every Go command: how the user reaches modules, and nothing that changes a build.

    A build's key names what goes into it, and GOFLAGS, GOARCH, GOAMD64, GOEXPERIMENT, CC and their like are not in it:
    what one user set would be found by all. Module and build caches go below the product's cache unless the user has
    named others, so that removing that one folder removes all of it.
    """
    given = {**_saved_go_settings(), **os.environ}
    own = {
        "GOMODCACHE": str(cache / "offline" / "go-modules"),
        "GOCACHE": str(cache / "offline" / "go-build"),
    }
    # Each program is a module of its own: a go.work above the clone must not change what is built.
    fixed = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOENV": "off"}
    return {**own, **passed(given, _REACHES_MODULES), **fixed}


_REACHES_MODULES = frozenset(
    (
        *("PATH", "GOTMPDIR", "GOMODCACHE", "GOCACHE", "GOMAXPROCS", "NETRC"),
        *("GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOAUTH", "GOVCS"),
        *("GIT_SSH", "GIT_SSH_COMMAND", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"),
    )
)
"""Where modules come from; where Go may write."""


def _saved_go_settings() -> dict[str, str]:
    """Read what the user has set by `go env -w`; Go itself reads no such file in our builds (GOENV=off)."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    named = os.environ.get("GOENV") or str(Path(folder) / "go" / "env")
    try:
        lines = Path(named).read_text(encoding="utf-8").splitlines()
    except OSError:  # there is none, or it is "off"
        return {}
    return {name: value for name, equals, value in (line.partition("=") for line in lines) if equals}


def go_version(go: Path) -> str:
    """Return a Go command's version, such as "1.26.8"."""
    done = subprocess.run(
        [str(go), "env", "GOVERSION"],
        env=go_environment(Path()),
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.match(r"go(\d+(?:\.\d+)*)", done.stdout.strip())
    if found:
        return found[1]
    # Go before 1.21 knows no GOTOOLCHAIN, but answers the same.
    msg = f"{go} does not tell its version: {done.stderr.strip()[-300:]}"
    raise OfflineError(msg)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def found_go(*, cache: Path, minimum: str) -> Path | None:
    """Return a Go command of at least `minimum` that is here already: the one on PATH, or one fetched earlier."""
    found = shutil.which("go")
    if found and _numbers(go_version(Path(found))) >= _numbers(minimum):
        return Path(found)
    fetched = _fetched(cache)
    return fetched if fetched.exists() else None


def _fetched(cache: Path) -> Path:
    return cache / "offline" / "go-toolchain" / f"go{GO_VERSION}" / "bin" / "go"


def ensure_go(*, cache: Path, minimum: str = GO_VERSION, progress: Reporter | None = None) -> Path:
    """Return a Go command of at least `minimum`: the one on PATH, one fetched earlier, or one fetched now.

    Go's own releases are on the module proxy, but it takes some Go to ask it. When there is none at all, Debian's
    package gives one. Raises OfflineError with what to do when none of that is possible.
    """
    reporter = progress or Reporter()
    if there := found_go(cache=cache, minimum=minimum):
        return there
    home = cache / "offline" / "go-toolchain"
    fetched = _fetched(cache)
    starter = shutil.which("go") or next((str(path) for path in _DEBIAN_GO.glob("go-*/bin/go")), None)
    if starter is None:
        starter = _install_debian_go(minimum, reporter)
    with reporter.task(f"fetching Go {GO_VERSION} from the module proxy"):
        _fetch_toolchain(Path(starter), home, fetched.parent.parent, minimum)
    return fetched


def _install_debian_go(minimum: str, reporter: Reporter) -> str:
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        msg = (
            f"Go {minimum} or newer is needed to build what cannot be downloaded here. Put one on PATH"
            " (Debian: `apt-get install golang-go`; any Go 1.19 or newer will do, it fetches the rest)."
        )
        raise OfflineError(msg)
    with reporter.task("installing Debian's golang-go, which can fetch a newer Go"):
        install = [apt, "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=-1", "golang-go"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (install, [apt, "update"], install):
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 0 and words is install:
                break
        else:
            msg = f"`apt-get install golang-go` failed:\n{done.stderr.strip()[-1000:]}"
            raise OfflineError(msg)
    found = shutil.which("go")
    if found is None:
        msg = "golang-go is installed, but there is no `go` on PATH"
        raise OfflineError(msg)
    return found


def _fetch_toolchain(starter: Path, home: Path, target: Path, minimum: str) -> None:
    """Have an older Go download (and verify) a newer one, and make it runnable."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    module = f"golang.org/toolchain@v0.0.1-go{GO_VERSION}.linux-{machine}"
    home.mkdir(parents=True, exist_ok=True)
    environment = {**go_environment(home), "GOMODCACHE": str(home / "modules")}
    done = subprocess.run(
        [str(starter), "mod", "download", "-json", "-modcacherw", module],
        cwd=home,  # outside any module
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    if done.returncode != 0 or "Dir" not in answer:
        said = answer.get("Error") or done.stderr.strip()[-1000:]
        msg = f"Go {minimum} or newer is needed; {starter} could not fetch {module}:\n{said}"
        raise OfflineError(msg)
    toolchain = Path(answer["Dir"])
    # Module archives carry no executable bits.
    for folder in (toolchain / "bin", toolchain / "pkg" / "tool"):
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o755)
    target.unlink(missing_ok=True)
    target.symlink_to(toolchain)
