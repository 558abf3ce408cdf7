"""The Pulumi command, its Python language host and the two resource plugins, built from Go modules.

The result is what the official installer and plugin download would have left: a folder for PATH and a PULUMI_HOME whose
plugins have the versions that the installed pulumi-docker and pulumi-random packages ask for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from host.progress import Reporter
from offline.errors import OfflineError
from offline.programs import PROGRAMS
from offline.toolchain import build

_COMMANDS = ("pulumi", "pulumi-language-python")
#: Plugin name -> the program that it is built as.
_PLUGINS = {"docker": "pulumi-resource-docker", "random": "pulumi-resource-random"}


@dataclass(frozen=True, kw_only=True)
class PulumiInstall:
    """Where Pulumi is: `bin_dir` belongs first on PATH, `home` is its PULUMI_HOME."""

    bin_dir: Path
    home: Path

    def environment(self, base: Mapping[str, str] = os.environ, *, venv: Path | None = None) -> dict[str, str]:
        """Return `base` with Pulumi on PATH and nothing that asks the network for updates.

        `venv`: the program's virtual environment. This language host takes its Python from PATH, so it must be there.
        """
        folders = [str(self.bin_dir), *([str(venv / "bin")] if venv else []), base.get("PATH", os.defpath)]
        return {
            **base,
            "PATH": os.pathsep.join(folders),
            "PULUMI_HOME": str(self.home),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }


PROGRAMS_OF_PULUMI = (*_COMMANDS, *_PLUGINS.values())


def ensure_pulumi(*, cache: Path, jobs: int = 2, progress: Reporter | None = None) -> PulumiInstall:
    """Build what is missing and return where it is; a fraction of a second when all is there.

    Raises OfflineError (BuildError for a failed build) with the reason.
    """
    built = build(PROGRAMS_OF_PULUMI, cache=cache, jobs=jobs, progress=progress)
    key = hashlib.sha256("\0".join(sorted(map(str, built.values()))).encode()).hexdigest()[:16]
    folder = cache / "offline" / "pulumi-installed" / key
    install = PulumiInstall(bin_dir=folder / "bin", home=folder / "home")
    if not folder.is_dir():
        _install(built, folder)
    return install


def _install(built: Mapping[str, Path], folder: Path) -> None:
    """Make the folder under a temporary name and rename it, so that one that exists is whole."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "bin").mkdir(parents=True)
    for name in _COMMANDS:
        for file in built[name].iterdir():
            # No symlinks: Pulumi looks for the language host beside its own real file, and warns when it is elsewhere.
            os.link(file, unfinished / "bin" / file.name)
    staged = PulumiInstall(bin_dir=unfinished / "bin", home=unfinished / "home")
    for plugin, program in _PLUGINS.items():
        words = ["plugin", "install", "resource", plugin, PROGRAMS[program].version]
        done = subprocess.run(
            [str(staged.bin_dir / "pulumi"), *words, "--file", str(built[program] / program)],
            env=staged.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            msg = f"`pulumi {' '.join(words)}` failed:\n{(done.stderr or done.stdout).strip()[-1000:]}"
            raise OfflineError(msg)
    try:
        unfinished.rename(folder)
    except OSError:
        # Another run was first; what it made is the same.
        shutil.rmtree(unfinished)
