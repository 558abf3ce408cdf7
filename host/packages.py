"""Install packages from the host's own Debian or Ubuntu sources."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from host.errors import EngineError
from host.process import Say, run_and_say


def debian_has(package: str) -> bool:
    """Tell whether the host's package sources have a real package of this name: a virtual one does not count."""
    if shutil.which("apt-cache") is None:
        return False
    answer = subprocess.run(["apt-cache", "show", "--quiet=2", package], capture_output=True, check=False)
    return answer.returncode == 0


def install_packages(packages: Sequence[str], *, report: Say) -> None:
    """Install packages from the host's own Debian or Ubuntu sources. Raises EngineError when that fails."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise EngineError(f"Missing: {', '.join(packages)}. Install them by your system's packages.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run_and_say(["apt-get", "update", "-q"], "Reading the package lists", report, environment)
    # Waits for another apt at work (a fresh cloud host runs its own) instead of failing on its lock.
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=-1"]
    run_and_say([*install, *packages], f"Installing {', '.join(packages)}", report, environment)
