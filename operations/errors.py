"""The errors that end a command, or a check, in a message.

Like `operations/clone.py` it imports nothing slow, because `samokoder --help` and the shell's completion load it.
"""

from __future__ import annotations


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
