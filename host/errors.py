"""What goes wrong on a machine."""

from __future__ import annotations


class EngineError(Exception):
    """There is no engine, or a command failed; the text says what happened and what to do."""
