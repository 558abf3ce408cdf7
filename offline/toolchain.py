"""Builds programs from the Go module proxy, for a host that cannot reach their official downloads.

Every program is a folder of `offline/go` with a committed go.mod and go.sum, so Go itself verifies each source that
goes into it. What is built lies in the cache below `offline/<program>/<key>/bin`, the key being a hash of the folder,
the build settings and the Go version; it appears there by a rename, so a folder that exists is a finished build.
"""

from __future__ import annotations

import contextlib
import hashlib
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

from host.file_lock import locked
from host.progress import Reporter, Task
from offline import alertmanager_page, prometheus_pages
from offline.errors import BuildError, OfflineError
from offline.go_release import ensure_go, found_go, go_environment, go_version
from offline.programs import ADDED, PROGRAMS, SOURCES, Program, required_go

_POLL_SECONDS = 0.2

#: Seconds to wait before a download that failed is tried again; Go itself does not try twice.
_PAUSES = (5, 20, 60)
_NETWORK_TROUBLE = re.compile(
    r"dial tcp|connection re(set|fused)|i/o timeout|TLS handshake timeout|unexpected EOF|stream error"
    r"|50[0234] (Internal|Bad|Service|Gateway)"
)


class _StoppedError(Exception):
    """A build was ended because another one failed, or the whole run was interrupted."""


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
                msg = f"{self.name}: {module} has no {name} any more: see `without` in offline/programs.py"
                raise BuildError(msg)
        for added in (ADDED / module, source / "added" / module):
            if added.is_dir():
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
            # A script's own programs would outlive it. Go ends its own, and Ctrl-C reaches it by the terminal.
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
            while not locked(lock):
                task.detail = "another run builds it, waiting"
                if self._stopped.wait(0.2):
                    raise _StoppedError
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
    for folder in (source, *(ADDED / module for module in program.without)):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    # Only what is set: a new kind of setting must not rebuild the programs that do not use it.
    settings = [
        f"{item.name}={value!r}" for item in fields(program) if item.repr and (value := getattr(program, item.name))
    ]
    if program.own_page:
        settings.append(alertmanager_page.page(source / "page"))  # also how it is put together
    digest.update("\0".join([*settings, go_release, os.uname().sysname, os.uname().machine]).encode())
    return digest.hexdigest()[:16]
