"""Where Pulumi keeps the state: who has chosen the place, how a team chooses one, and that a state has left it.

A place that `samokoder move-state` has emptied of its meaning keeps its files and gets a mark. Whoever comes to it with
an old clone, or an old PULUMI_BACKEND_URL, is told the new place, and makes no second state there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from operations import stack_file
from operations.stack_file import ProjectError

OWN = "a folder of this clone"
"""Origin of the place that nobody has chosen."""
PROJECT_FILE = "Pulumi.yaml"
VARIABLE = "PULUMI_BACKEND_URL"
MOVED_STACK = "samokoder-moved-away"
"""Name of the empty stack that marks a bucket whose state was moved; its tag `TO` says where to."""
TO = "samokoder:moved-to"

_MARK = "moved-to"
_SCHEMES = ("file", "s3", "gs", "azblob")
_NOTE = "# Where Pulumi keeps the state of all environments. Commit it: whoever clones this works with that state.\n"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Where Pulumi keeps the state. `url` is empty where Pulumi's own rules find it (a token)."""

    url: str
    origin: str
    """Why this one, for people."""

    @property
    def folder(self) -> Path | None:
        """The folder of a file backend; None for any other."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None

    def __str__(self) -> str:
        """Say where it is, and why there."""
        return f"{self.url or 'as Pulumi finds it'} ({self.origin})"


def chosen(root: Path, variables: Mapping[str, str]) -> Backend | None:
    """Return the place that the user or the team has chosen; None for none. root: the clone."""
    if url := variables.get(VARIABLE):
        return Backend(url=url, origin=VARIABLE)
    if variables.get("PULUMI_ACCESS_TOKEN"):
        return Backend(url="", origin="PULUMI_ACCESS_TOKEN")
    project = stack_file.load(root / PROJECT_FILE)
    if url := (project.get("backend") or {}).get("url"):
        return Backend(url=str(url), origin=PROJECT_FILE)
    if url := _logged_in(variables):
        return Backend(url=url, origin="your `pulumi login`")
    return None


def _logged_in(variables: Mapping[str, str]) -> str:
    """Return the backend that the user is logged in to, empty for none. Nothing but its address is looked at."""
    folder = Path(
        variables.get("PULUMI_CREDENTIALS_PATH")
        or variables.get("PULUMI_HOME")
        or Path(variables.get("HOME") or Path.home()) / ".pulumi"
    )
    try:
        return str(json.loads((folder / "credentials.json").read_text(encoding="utf-8")).get("current") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def checked(url: str) -> str:
    """Return the address of a place in one spelling. Raises ProjectError that says what to write."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ProjectError(
            f"{url!r} is not a valid address of a state. Write "
            "s3://BUCKET?endpoint=s3.example.org&s3ForcePathStyle=true, or file:///a/folder that all of you reach."
        )
    if parts.password:
        raise ProjectError("No password in the address: it is committed. AWS_ACCESS_KEY_ID and such are for that.")
    if parts.scheme != "file":
        return url
    if parts.netloc or not parts.path.startswith("/") or parts.query:
        raise ProjectError(f"{url!r}: write the whole path, after three slashes: file:///srv/samokoder-state")
    return Path(unquote(parts.path)).resolve().as_uri()


def write(root: Path, url: str) -> None:
    """Note the place in the clone's Pulumi.yaml, whole or not at all; all else stays. Raises ProjectError."""
    path = root / PROJECT_FILE
    text = path.read_text(encoding="utf-8")
    note = f"{_NOTE}backend:\n  url: {json.dumps(url)}\n"
    without = re.sub(rf"^(?:{re.escape(_NOTE)})?backend:.*\n(?:[ \t]+.*\n)*", "", text, flags=re.MULTILINE)
    head, runtime, rest = (
        re.split(r"(?m)^(runtime:)", without, maxsplit=1) if "\nruntime:" in without else (without, "", "")
    )
    path_mode = path.stat().st_mode & 0o777
    written = f"{head}{note}{runtime}{rest}"
    before, after = (stack_file.load_text(each, PROJECT_FILE) for each in (text, written))
    if before | {"backend": {"url": url}} != after:
        raise ProjectError(f"{PROJECT_FILE} could not be changed. Write it there yourself:\n{note}")
    stack_file.write(path, written, mode=path_mode)


def moved_to(backend: Backend) -> str:
    """Return where the state of a file backend was moved to; empty: it is there."""
    if backend.folder is None:
        return ""
    try:
        return (backend.folder / _MARK).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def mark(folder: Path, url: str) -> None:
    """Mark a file backend: its state was moved to `url`. On the disk when this returns."""
    stack_file.write(folder / _MARK, f"{url}\n", mode=0o644)


def moved(backend: Backend, to: str) -> ProjectError:
    """Return the error for who comes to a place that the state has left."""
    whose = (
        f"{PROJECT_FILE} of a newer commit says so: `git pull`. Nobody has committed it? samokoder move-state '{to}'"
    )
    if backend.origin == VARIABLE:
        whose = f"{VARIABLE} names the old place: set it to the new one, or unset it where {PROJECT_FILE} has that."
    return ProjectError(f"The state was moved from {backend} to {to}. {whose}")
