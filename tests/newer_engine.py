"""An engine newer than Debian 12's, on this machine: dockerd, containerd and runc of a newer Debian.

That Debian's /usr takes the place of the host's for this engine alone, in a mount namespace of its own, and so does a
/run with its sockets, where cAdvisor looks for them; everything else that it sees is the host's. Docker 29, which no
Debian has yet, is dockerd from its Go module with that Debian's containerd and runc.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from host.cache import cache_directory
from host.engine import EngineInfo
from host.packages import install_packages
from host.progress import Reporter
from offline.images.debian import debian_mirrors
from offline.programs import SOURCES
from offline.toolchain import build
from tests.private_engine import ROOT, PrivateEngine, private_engine

SUITE = "forky"
"""Debian's next release: its engine is the newest that a package registry has."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine: its version, and where it keeps its images."""

    major: int
    from_module: bool = False
    """Whether its dockerd is built from its Go module."""
    store: str
    """Its storage driver, as it tells it."""
    argument: str
    """The argument that has it use that one."""

    @property
    def name(self) -> str:
        return f"{self.major}, {self.store}"


def _engines() -> Iterator[Engine]:
    # Docker 29 takes containerd's store by itself. Its driver is `overlayfs`.
    stores = {"overlay2": "--storage-driver=overlay2", "overlayfs": "--feature=containerd-snapshotter"}
    for major, from_module in ((28, False), (29, True)):
        for store, argument in stores.items():
            yield Engine(major=major, from_module=from_module, store=store, argument=argument)


ENGINES: Mapping[str, Engine] = {each.name: each for each in _engines()}

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Its folder is /run for it, and is found under its own name there as well.
_IN_ITS_OWN = (
    'mkdir "$1/${1##*/}" && mount --bind "$1" /run && mount --bind /run "$1" && mount --bind "$0" /usr '
    '&& shift && exec dockerd "$@"'
)


def in_its_own(usr: Path, run: str) -> tuple[str, ...]:
    """Return the words that start the engine of another Debian; its arguments follow. run: a folder for its /run."""
    return ("unshare", "--mount", "--propagation=slave", "sh", "-c", _IN_ITS_OWN, str(usr), run)


def unpack(suite: str, packages: Sequence[str], target: Path) -> None:
    """Unpack packages of another Debian with all that they need, without their scripts. target: a folder, or a `.tar`.

    Skips where that cannot be done here, unless the environment says that it must.
    """
    if os.geteuid() != 0 or not _KEYRING.exists():
        why = f"only root of a Debian can unpack {packages[0]} of another one"
        pytest.fail(why) if os.environ.get("SAMOKODER_NEWER_ENGINE") else pytest.skip(why)
    if shutil.which("mmdebstrap") is None:
        install_packages(["mmdebstrap"], report=print)
    rows = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    mirror, _ = debian_mirrors(rows, platform.freedesktop_os_release())
    done = subprocess.run(
        [
            *("mmdebstrap", "--mode=root", "--variant=extract", f"--include={','.join(['base-files', *packages])}"),
            f"--keyring={_KEYRING}",
            # A mirror that stands still, as of a sealed test machine, has lists whose time is over.
            '--aptopt=Acquire::Check-Valid-Until "false"',
            *(suite, str(target), mirror),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"Debian {suite} was not unpacked: {done.stderr[-2000:]}"


def unpacked(folder: Path, *, from_module: bool = False) -> Path:
    """Unpack the engine's packages with all that they need; return their /usr. from_module: as of Engine."""
    root = folder / "debian"
    unpack(SUITE, ["docker.io"], root)
    # What the packages' own scripts would have made: the engine has containers find each other by packet filter rules.
    for name in ("iptables", "ip6tables"):
        (root / "usr/sbin" / name).symlink_to(f"/etc/alternatives/{name}")
    if from_module:
        built = build(["engine"], cache=cache_directory(), progress=Reporter())["engine"]
        for program in built.iterdir():
            # The package's own one would be taken before it, wherever it is.
            there = [*root.glob(f"usr/*bin/{program.name}"), *root.glob(f"usr/lib*/docker/{program.name}")]
            for place in there or [root / "usr/sbin" / program.name]:
                shutil.copy2(program, place)
    return root / "usr"


def api_of_module() -> str:
    """Return the version of the API that the engine from the Go module has, such as `1.56`."""
    text = (SOURCES / "engine" / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^\s*github\.com/moby/moby/api v(\d+\.\d+)\.", text, re.MULTILINE)
    assert found, "go.mod does not name the engine's API"
    return found[1]


@contextlib.contextmanager
def newer_engine(folder: Path, engine: Engine, *, pool: str) -> Iterator[tuple[PrivateEngine, EngineInfo]]:
    """Start it; it is gone afterwards. pool: as of `private_engine`."""
    dockerd = (*in_its_own(unpacked(folder, from_module=engine.from_module), ROOT), engine.argument)
    with private_engine(pool, data=folder / "data", dockerd=dockerd) as (private, info):
        nothing = f"the test proves nothing of {engine.name}: {info}"
        assert info.version.startswith(f"{engine.major}."), nothing
        # The version of one from a module is the text that our build gives it.
        assert not engine.from_module or info.api_version == api_of_module(), nothing
        assert info.storage_driver == engine.store, nothing
        yield private, info
