"""Debian packages by the host's own apt configuration, and the mirrors that it names."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from host.process import run
from offline.errors import OfflineError
from offline.images.recipes import SUITE

Run = Callable[[Sequence[str | Path], str, Path | None], str]


def run_quietly(command: Sequence[str | Path], what: str, cwd: Path | None = None) -> str:
    """Run a command that takes no time worth showing; return what it printed."""
    return run(command, what=what, waiting=lambda _seconds, _last: None, cwd=cwd)


class Apt:
    """Debian packages by the host's own apt configuration, without touching the host's apt state."""

    def __init__(self, root: Path, *, run: Run) -> None:
        self._root = root
        self._run = run
        self.sources = root / "sources.list"
        """The suite with its updates and its security updates, from the host's own mirrors."""
        self.keyrings = root / "trusted"
        """The keys of Debian's archive that this host has."""
        wanted = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
        rows = run_quietly(
            ["apt-get", "indextargets", "--no-release-info", *wanted], "Reading the host's package sources"
        )
        main, security = debian_mirrors(rows, _os_release())
        lines = [f"deb {main} {SUITE} main", f"deb {main} {SUITE}-updates main"]
        if security:
            lines.append(f"deb {security} {SUITE}-security main")
        self._archives = root / "archives"
        for folder in (
            self._archives / "partial",
            root / "no-archives" / "partial",
            root / "lists" / "partial",
            self.keyrings,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        self.sources.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (root / "empty-status").touch()
        for keyring in (
            *Path("/etc/apt/trusted.gpg.d").glob("*"),
            *Path("/usr/share/keyrings").glob("debian-archive-keyring.*"),
        ):
            link = self.keyrings / keyring.name
            link.unlink(missing_ok=True)
            link.symlink_to(keyring)
        self._apt(["update", "-q"], status=None, what="Debian package lists")

    def _apt(self, words: Sequence[str], *, status: Path | None, what: str = "", archives: Path | None = None) -> str:
        """Run apt-get; `what` names it to the user when it may take long."""
        folder = archives or self._archives
        options = {
            "Dir::Etc::SourceList": self.sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::TrustedParts": self.keyrings,
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": self._root,
            "Dir::State::Lists": self._root / "lists",
            "Dir::State::Status": status or self._root / "empty-status",
            "Dir::State::Extended_States": self._root / "extended-states",
            "Dir::Cache": self._root,
            "Dir::Cache::Archives": folder,
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
        }
        command = ["apt-get", *(f"-o{name}={value}" for name, value in options.items()), *words]
        return self._run(command, what, folder) if what else run_quietly(command, "apt-get", folder)

    def proxy_options(self) -> Path:
        """Return a file with the host's own way to its mirrors, for another apt: proxies and the like."""
        file = self._root / "acquire.conf"
        words = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n']
        file.write_text(run_quietly([*words, "Acquire::http", "Acquire::https"], "apt-config") + "\n", encoding="utf-8")
        return file

    def fetch(self, words: Sequence[str], *, status: Path | None, what: str) -> list[Path]:
        """Download what `apt-get WORDS` would, seen from the package state `status`; return the .deb files."""
        flags = [] if words[0] == "download" else ["--download-only", "-y", "-q"]
        # Seen from an empty folder: what lies in the archive already would not be listed.
        listed = self._apt([*words, *flags, "--print-uris"], status=status, archives=self._root / "no-archives")
        names = re.findall(r"^'[^']+' (\S+\.deb) ", listed, flags=re.MULTILINE)
        if any(not (self._archives / name).exists() for name in names):
            self._apt([*words, *flags], status=status, what=f"{what}: downloading {len(names)}")
        return [self._archives / name for name in names]


def debian_mirrors(index_targets: str, os_release: Mapping[str, str]) -> tuple[str, str | None]:
    """Choose the main and the security mirror from lines of `URI RELEASE COMPONENT`.

    Raises OfflineError when the host is not Debian, or names none.
    """
    if os_release.get("ID") != "debian":
        raise OfflineError(
            "Offline images are made of Debian packages, and this host is no Debian "
            f"({os_release.get('PRETTY_NAME', 'unknown')}): use a Debian 12 host, or one that reaches a registry."
        )
    codename = os_release.get("VERSION_CODENAME", SUITE)
    rows = [line.split() for line in index_targets.splitlines() if len(line.split()) == 3]  # noqa: PLR2004
    by_release = {release: uri for uri, release, component in reversed(rows) if component == "main"}
    main = by_release.get(codename) or by_release.get("stable")
    if main is None:
        raise OfflineError(f"The host's apt sources name no mirror of Debian {codename} with the component main.")
    return main, by_release.get(f"{codename}-security") or by_release.get("stable-security")


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
