"""Python wheels of locked requirements, for the Python of the `python` image."""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

from offline.errors import OfflineError
from offline.images.debian import Run
from offline.images.recipes import PYTHON_VERSION, SUITE

GLIBC_MINOR = 36
"""glibc 2.36 is the suite's: wheels for a newer one do not load."""


def download_wheels(requirements: Path, packages: Sequence[Path], *, work: Path, run: Run) -> list[Path]:
    """Download the wheels of locked requirements, hashes checked.

    packages: the .deb files of the image, among them its Python. Raises OfflineError where there is none.
    """
    versions = [match[1] for deb in packages if (match := re.match(r"python3\.\d+_([\d.]+)-", deb.name))]
    if not versions:
        raise OfflineError(f"python: the suite {SUITE} gave no Python to choose the wheels for.")
    locked = work / "requirements.txt"
    text = requirements_for(requirements.read_text(encoding="utf-8"), python=versions[0])
    locked.write_text(text, encoding="utf-8")
    folder = work / "wheels" / hashlib.sha256(text.encode()).hexdigest()[:12]
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
    run(command, "Python wheels", None)
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
