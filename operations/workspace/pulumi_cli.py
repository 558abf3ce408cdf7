"""The Pulumi command and its two resource plugins: those of the machine, else the official ones, else built here.

The official archive is what Pulumi's install script downloads; it is fetched directly, so no script from the network is
run, and it is used only if its checksum is the one in this file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

import httpx

from host.file_lock import exclusive
from host.progress import Reporter, Task
from offline.pulumi_cli import ensure_pulumi as build_pulumi

#: Fetched or built when the machine has none.
# renovate: datasource=github-releases depName=pulumi/pulumi
PULUMI_VERSION = "3.259.0"
#: Least version of an installed Pulumi: it has the same major version, and the options that are used here.
PULUMI_MINIMUM = (3, 250)
#: SHA-256 of the archive for each system. Two public sources agreed: Pulumi's Homebrew formula (pulumi/homebrew-tap)
#: and a Nix file of another author. When you raise the version, take the new sums from two sources again.
PULUMI_SUMS = {
    "pulumi-v3.259.0-linux-x64.tar.gz": "94ba357acac23d01474084c4b00098dc0f7bc70ce13f34c777459254a5f718e5",
    "pulumi-v3.259.0-linux-arm64.tar.gz": "edc8327463a72160bb36cf82cf5062da9c8a244290a706d9980988e7bf486853",
    "pulumi-v3.259.0-darwin-x64.tar.gz": "eaca4c3b8277bfa3ab061fa3b270d1c66358a0b2e613da8c5587a04b7226c534",
    "pulumi-v3.259.0-darwin-arm64.tar.gz": "57c27f179e527e2cf9f62b841a448af72a020e44b2fb4ee0d9bd85556c00c864",
}
#: Both sites have the same archives: many networks allow GitHub but not Pulumi's own site.
DOWNLOADS = (
    "https://get.pulumi.com/releases/sdk",
    f"https://github.com/pulumi/pulumi/releases/download/v{PULUMI_VERSION}",
)
CONNECT_SECONDS = 5.0
_PLUGINS = ("docker", "random")


@dataclass(frozen=True, kw_only=True)
class PulumiCommand:
    """A usable Pulumi: its program, and the environment that it must run in."""

    program: str
    variables: Mapping[str, str]
    origin: str
    """Where Pulumi comes from, for people."""


def ensure_pulumi(
    *, cache: Path, variables: Mapping[str, str], reporter: Reporter, downloads: Sequence[str] = DOWNLOADS
) -> PulumiCommand:
    """Return a Pulumi command with its plugins, and get what is missing.

    variables: the environment that the command shall run in, with PATH. Raises OfflineError when it can neither be
    downloaded nor built.
    """
    if command := found_pulumi(cache=cache, variables=variables, reporter=reporter, downloads=downloads):
        return command
    base = _base(variables)
    install = build_pulumi(cache=cache, progress=reporter)
    # Pulumi keeps the user's login beside the plugins by default: the login's folder must not change with theirs.
    base.setdefault("PULUMI_CREDENTIALS_PATH", str(user_home(variables)))
    return PulumiCommand(
        program=str(install.bin_dir / "pulumi"),
        variables=install.environment(base, venv=Path(sys.prefix)),
        origin=f"built from Go modules, version {PULUMI_VERSION}",
    )


def found_pulumi(
    *, cache: Path, variables: Mapping[str, str], reporter: Reporter, downloads: Sequence[str] = DOWNLOADS
) -> PulumiCommand | None:
    """Return a Pulumi command that is here or could be downloaded; None where it has to be built or was built."""
    if variables.get("OFFLINE") == "1":
        return None
    base = _base(variables)
    program, origin = _installed(base.get("PATH", os.defpath)), "PATH"
    if program is None and not _was_built(cache):
        # Once Pulumi was built here because its site could not be reached, no later run waits for that site.
        program, origin = _official(cache, downloads, reporter), f"Pulumi's release, version {PULUMI_VERSION}"
    if program is not None and _plugins_are_there(program, base, cache, reporter):
        return PulumiCommand(program=str(program), variables=_with_paths(base, program.parent), origin=origin)
    if not _was_built(cache):
        reporter.say("Pulumi's downloads cannot be reached: building Pulumi from Go modules")
    return None


def _base(variables: Mapping[str, str]) -> dict[str, str]:
    base = {**variables, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    # Many container images set this variable, and the program would compile the same packages in every preview.
    base.pop("PYTHONDONTWRITEBYTECODE", None)
    return base


def user_home(variables: Mapping[str, str]) -> Path:
    """Return the folder where Pulumi keeps a user's login and plugins."""
    return Path(variables.get("PULUMI_HOME") or Path(variables.get("HOME") or Path.home()) / ".pulumi")


def is_recent(text: str) -> bool:
    """Tell whether `pulumi version`'s answer is one that this project works with."""
    found = re.match(r"v?(\d+)\.(\d+)\.", text.strip())
    if found is None:
        return False
    major, minor = int(found[1]), int(found[2])
    return major == PULUMI_MINIMUM[0] and minor >= PULUMI_MINIMUM[1]


def _installed(path: str) -> Path | None:
    program = shutil.which("pulumi", path=path)
    if program is None:
        return None
    answer = subprocess.run(
        [program, "version"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )
    return Path(program) if answer.returncode == 0 and is_recent(answer.stdout) else None


def _was_built(cache: Path) -> bool:
    return any((cache / "offline" / "pulumi-installed").glob("*/bin/pulumi"))


def _with_paths(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Put Pulumi and this virtual environment first on PATH: the language host takes its Python from there."""
    path = os.pathsep.join([str(folder), f"{sys.prefix}/bin", variables.get("PATH", os.defpath)])
    return {**variables, "PATH": path}


def _alone(cache: Path, reporter: Reporter) -> contextlib.AbstractContextManager[None]:
    """Keep other runs of this machine from fetching the same meanwhile; what they have fetched by then is taken."""
    return exclusive(cache / "pulumi.lock", what=f"Pulumi {PULUMI_VERSION}", report=reporter.say)


def _plugins_are_there(program: Path, variables: Mapping[str, str], cache: Path, reporter: Reporter) -> bool:
    """Download the plugins that are missing; False when that cannot be done."""
    plugins = user_home(variables) / "plugins"
    wanted = {name: package_version(f"pulumi-{name}") for name in _PLUGINS}

    def missing() -> dict[str, str]:
        return {name: each for name, each in wanted.items() if not (plugins / f"resource-{name}-v{each}").is_dir()}

    if not missing():
        return True
    with _alone(cache, reporter):
        return _install_plugins(program, variables, missing(), reporter)


def _install_plugins(
    program: Path, variables: Mapping[str, str], missing: Mapping[str, str], reporter: Reporter
) -> bool:
    for name, wanted in missing.items():
        with reporter.task(f"Pulumi plugin {name} {wanted}"):
            done = subprocess.run(
                [str(program), "plugin", "install", "resource", name, wanted],
                env=dict(variables),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            reporter.say(f"Pulumi plugin {name} {wanted}: {(done.stderr or done.stdout).strip()[-300:]}")
            return False
    return True


def _official(cache: Path, downloads: Sequence[str], reporter: Reporter) -> Path | None:
    """Return the official command from the cache; download it first if needed; None when no site gives it."""
    program = cache / "pulumi" / PULUMI_VERSION / "pulumi"
    if program.exists():
        return program
    with _alone(cache, reporter):
        if program.exists():
            return program
        # Another run may have built it: it has found out that no site answers, and this one need not wait for that.
        return None if _was_built(cache) else _download_official(program.parent, downloads, reporter)


def _download_official(home: Path, downloads: Sequence[str], reporter: Reporter) -> Path | None:
    """Download the official command into a new folder `home`; None when no site gives it."""
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system())
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
    if system is None or machine is None:
        return None
    archive = f"pulumi-v{PULUMI_VERSION}-{system}-{machine}.tar.gz"
    unfinished = home.with_name(f".{home.name}.{os.getpid()}")
    for site in downloads:
        try:
            with reporter.task(f"Pulumi {PULUMI_VERSION}") as task:
                unfinished.mkdir(parents=True)
                _download(f"{site}/{archive}", unfinished / archive, task)
                subprocess.run(["tar", "-xzf", archive], cwd=unfinished, check=True, capture_output=True)
                (unfinished / "pulumi").rename(home)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, subprocess.CalledProcessError) as error:
            reporter.say(f"Cannot download Pulumi {PULUMI_VERSION} from {site}: {error or type(error).__name__}")
        else:
            return home / "pulumi"
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return None


def _download(url: str, target: Path, task: Task) -> None:
    """Download `url` to `target`. Raises ValueError when the file has not the checksum that its name has here."""
    digest = hashlib.sha256()
    timeout = httpx.Timeout(60.0, connect=CONNECT_SECONDS)
    with (
        httpx.Client(timeout=timeout, follow_redirects=True) as client,
        client.stream("GET", url) as answer,
        target.open("wb") as file,
    ):
        for chunk in answer.raise_for_status().iter_bytes():
            file.write(chunk)
            digest.update(chunk)
            task.detail = f"{file.tell() // 2**20} MiB"
    if digest.hexdigest() != PULUMI_SUMS.get(target.name):
        msg = f"{target.name} has not the checksum that operations/workspace/pulumi_cli.py has for it"
        raise ValueError(msg)
