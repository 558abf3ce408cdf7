"""Where Pulumi keeps the state: who has chosen the place, how a team chooses one, and that a state has left it.

A place that `samokoder move-state` has emptied of its meaning keeps its files and gets a mark. Whoever comes to it with
an old clone, or an old PULUMI_BACKEND_URL, is told the new place, and makes no second state there.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from operations import recovery, stack_file
from operations.stack_file import ProjectError

OWN = "a folder of this clone"
"""Origin of the place that nobody has chosen."""
MOVE = "move-state"
"""Origin of the place that a state is being moved to."""
ANSWER = "your answer"
"""Origin of the place that somebody has just named for the first state."""
PROJECT_FILE = "Pulumi.yaml"
VARIABLE = "PULUMI_BACKEND_URL"
TOKEN = "PULUMI_ACCESS_TOKEN"  # noqa: S105 - its name
MOVED_STACK = "samokoder-moved-away"
"""Name of the empty stack that marks a bucket whose state was moved; its tag `TO` says where to."""
TO = "samokoder:moved-to"
COPY_OF = "samokoder:copy-of"
"""Tag of a stack that is being copied: on which host, and a hash of the place it comes from."""

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
        return f"{shown(self.url) or 'as Pulumi finds it'} ({self.origin})"

    @property
    def may_be_made(self) -> bool:
        """Whether a folder that is not there is made. Else a share that is not mounted would get a second state."""
        return self.origin in {OWN, MOVE, ANSWER}


def shown(url: str) -> str:
    """Return an address as it may be shown: no user, no password, and no options where we do not know them."""
    parts = urlsplit(url)
    known = parts.scheme in _SCHEMES or not parts.scheme
    if known and "@" not in parts.netloc:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query=parts.query if known else ""))


def own(working: Path) -> Backend:
    """Return the place of a clone that nobody has chosen another one for. working: its working state."""
    return Backend(url=(working / "state").absolute().as_uri(), origin=OWN)


def forgotten(working: Path, backend: Backend) -> dict[str, int]:
    """Return what the clone's own place still has where `backend` is in use: stack -> how many resources.

    working: the clone's working state. Empty where both are the same place, or the state was moved away.
    """
    mine = own(working)
    folder = working / "state"
    if (backend.folder and backend.folder.resolve() == folder.resolve()) or moved_to(mine):
        return {}
    counts = {
        stack: len((recovery.checkpoint(folder, stack) or {}).get("resources") or ())
        for stack in recovery.stacks(folder)
    }
    return {stack: count for stack, count in counts.items() if count}


def refuse_forgotten(working: Path, backend: Backend, stack: str, command: str) -> None:
    """Raise ProjectError before the wrong one of two states is taken down: the one in use, or the clone's own.

    working: the clone's working state. command: as a person types it.
    """
    if stack not in forgotten(working, backend):
        return
    mine = own(working)
    here, passphrase = f"{VARIABLE}={shlex.quote(mine.url)} {command}", working / "passphrase"
    raise ProjectError(
        f"Two states have {stack}: {backend}, which the commands use, and {mine.url}, which this clone had before. "
        f"Nothing was changed. To end the clone's own one: {here} (its passphrase was in {passphrase}). To end the "
        "other one: do that first, or type this in a clone that has no state of its own."
    )


def copy_of(url: str) -> str:
    """Return the value of the tag `COPY_OF` for a copy that this host makes. The address may have a password."""
    return f"{socket.gethostname()} {hashlib.sha256(url.encode()).hexdigest()[:32]}"


def unfinished(backend: Backend, stack: str, tag: str) -> ProjectError:
    """Return the error for who comes to a copy that is not finished. tag: the value of `COPY_OF`."""
    host, command = tag.partition(" ")[0], f"samokoder move-state {shlex.quote(shown(backend.url))}"
    return ProjectError(
        f"{stack} in {backend} is an unfinished copy: {host} was moving the state there. In the clone that it comes "
        f"from, type again: {command}"
    )


def chosen(root: Path, variables: Mapping[str, str]) -> Backend | None:
    """Return the place that the user or the team has chosen; None for none. root: the clone."""
    if url := variables.get(VARIABLE):
        return Backend(url=url, origin=VARIABLE)
    if variables.get(TOKEN):
        return Backend(url="", origin=TOKEN)
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
    again = f"samokoder move-state {shlex.quote(to)}"
    whose = f"{PROJECT_FILE} of a newer commit says so: `git pull`. Nobody has committed it? {again}"
    if backend.origin == VARIABLE:
        whose = f"{VARIABLE} names the old place: set it to the new one, or unset it where {PROJECT_FILE} has that."
    return ProjectError(f"The state was moved from {backend} to {shown(to)}. {whose}")
