"""The errors that end a command, or a check, in a message.

Like `operations/clone.py` it imports nothing slow, because `samokoder --help` and the shell's completion load it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_STATE = ".samokoder"
"""Name of the folder with the working state of a clone."""


class ProjectError(Exception):
    """Something that the person can put right: the text says what it is and what to do."""


class PulumiFailedError(ProjectError):
    """Pulumi ended with an error; what it said is already on the screen, or in the text when it was captured."""


class FailedError(Exception):
    """A check has failed; the text says why, and what to do."""


class UnavailableError(Exception):
    """A check has no result; the text says why."""


class NotConfiguredError(Exception):
    """A check has nothing to check, because a setting that would enable it is not set; the text names the setting."""


def unusable(error: OSError) -> str:
    """Say which file an error is about, and where this user may not use it, whose it is."""
    said = f"{error.filename} cannot be used: {error.strerror}."
    if not isinstance(error, PermissionError):
        return said
    place = Path(error.filename)
    return f"{said} {_whose(place)}" if place.is_absolute() else said


def _whose(place: Path) -> str:
    import pwd  # noqa: PLC0415 - only for an error

    # A file in another user's folder does not say whose it is, and a temporary one was not made.
    while True:
        with contextlib.suppress(OSError):
            number = place.stat().st_uid
            break
        place = place.parent
    owner = str(number)
    with contextlib.suppress(KeyError):
        owner = pwd.getpwuid(number).pw_name
    # Nothing but the working state of a clone is given to somebody else: the folder found may be /etc.
    if _STATE in place.parts:
        otherwise = f'if that was a `sudo` by mistake: sudo chown -R "$(id -un)" {place}'
    else:
        otherwise = "name another folder"
    return f"{place} belongs to {owner}: type the same as {owner}, or {otherwise}"
