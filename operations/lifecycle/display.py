"""What of Pulumi's plain output is shown where no terminal is."""

from __future__ import annotations

import re
from collections.abc import Callable

from operations.workspace.workspace import Workspace

_SLOW = ("docker:index:Container", "docker:index:RemoteImage")


class LineFilter:
    """Passes on, of Pulumi's plain output, what tells a person something.

    Left out: its sign of life ("@ updating...."), components (each one's resources are there), the beginning of what
    ends at once, what a refresh found unchanged, messages beside a resource (all of them stand under "Diagnostics"
    again), and the Python traceback with which the language host ends when any resource has failed: the error itself
    stands beside it, and the container's log follows.
    """

    _progress = re.compile(r"\s*[-+~<>]*\s+(?P<type>[\w-]+:[\w/-]+:[\w-]+)\s+(?P<name>\S+)\s(?P<what>.*)")

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._in_diagnostics = False
        self._in_traceback = False
        self._blank = True

    def __call__(self, line: str) -> None:
        """Show one line, or not."""
        text = line.strip()
        if text == "Diagnostics:":
            self._in_diagnostics = True
        if self._left_out(line, text) or (not text and self._blank):
            return
        self._blank = not text
        self._show(line.rstrip())

    def _left_out(self, line: str, text: str) -> bool:
        if text.startswith("@ "):
            return True
        if not self._in_diagnostics:
            found = self._progress.fullmatch(line)
            if found is None:
                return False
            if found["type"].partition(":")[0] in {"pulumi", "samokoder"}:
                return True
            # The beginning of what takes its time is a sign of life; of the rest the end is enough.
            begins = found["what"].strip() == "creating (0s)" and found["type"] not in _SLOW
            unchanged = re.fullmatch(r"(refresh(ing)?( \([\d.]+m?s\))?)?", found["what"].strip())
            return begins or unchanged is not None or re.search(r"\b(warning|error|debug):", found["what"]) is not None
        if text.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        if self._in_traceback:
            # It ends with its exception's name, or at the latest with a blank line.
            if not text or re.match(r"[A-Za-z_.]+(Error|Exception|Interrupt|Exit)\b", text):
                self._in_traceback = False
            return True
        return False


def shown_by(workspace: Workspace, *, interactive: bool) -> Callable[[str], None] | None:
    """Return what shows Pulumi's lines; None where its own display on a terminal does."""
    return None if interactive else LineFilter(workspace.reporter.say)
