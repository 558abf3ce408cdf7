"""The Go command that builds the programs: the one on PATH, one fetched earlier, or one fetched now."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from host.progress import Reporter
from offline.errors import OfflineError
from offline.passed import passed

#: What is fetched when the host has no Go that is new enough. At least as new as any go.mod here asks for.
# renovate: datasource=golang-version depName=go
GO_VERSION = "1.26.8"

#: Where Debian's packages put a Go that is not on PATH.
_DEBIAN_GO = Path("/usr/lib")


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
    return {**own, **passed(given, _REACHES_MODULES), **fixed, **_compiler_memory()}


def _compiler_memory() -> dict[str, str]:
    """Let each compiler take memory before it looks for what is garbage, a quarter of its time.

    Two builds run at once, each with one compiler for each processor that this process may use: all of them together
    may take half of the memory that there is. Where that is too little for one, Go is left to itself.
    """
    # macOS does not say which processors a process may use.
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    each = _memory_bytes() // 2**20 // 2 // (2 * processors)
    return {"GOGC": "off", "GOMEMLIMIT": f"{min(each, 1024)}MiB"} if each >= _LEAST_COMPILER_MIB else {}


def _memory_bytes() -> int:
    """Return the machine's memory, or the limit of the container in which this runs, where that is less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _MEMORY_LIMITS:
        try:
            found = min(found, int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return found


#: The limit of a container's memory in bytes: of control groups version 2, and of version 1.
_MEMORY_LIMITS = tuple(Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes"))

#: A compiler that needs nearly as much as it may take would look for garbage all the time.
_LEAST_COMPILER_MIB = 448


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
