"""What is raised where a thing cannot be built or fetched."""

from __future__ import annotations


class OfflineError(Exception):
    """The offline bring-up cannot get what it needs; the text says what to do."""


class BuildError(OfflineError):
    """A Go program did not build; the text holds its name and the compiler's last lines."""
