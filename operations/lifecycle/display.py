"""Filter Pulumi's plain output, for runs without a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable

from operations.workspace.workspace import Workspace

_SLOW = ("docker:index:Container", "docker:index:RemoteImage")


class LineFilter:
    """Passes on the lines of Pulumi's plain output that help a person.

    It leaves out: the progress lines ("@ updating...."), components (their resources are shown), the start of quick
    creations, resources that a refresh found unchanged, messages beside a resource (Pulumi repeats all of them under
    "Diagnostics"), and the Python traceback that the language host prints when a resource has failed: the error itself
    is shown beside it, and the container's log follows.
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
        if line.rstrip() == "Resources:":
            self._in_diagnostics = self._in_traceback = False  # an update follows its preview
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
            # The start of a slow creation shows that Pulumi works; for quick creations the end is enough.
            begins = found["what"].strip() == "creating (0s)" and found["type"] not in _SLOW
            unchanged = re.fullmatch(r"(refresh(ing)?( \([\d.]+m?s\))?)?", found["what"].strip())
            return begins or unchanged is not None or re.search(r"\b(warning|error|debug):", found["what"]) is not None
        if text.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        if self._in_traceback:
            # A traceback ends with the exception's name, or at the latest with a blank line.
            if not text or re.match(r"[A-Za-z_.]+(Error|Exception|Interrupt|Exit)\b", text):
                self._in_traceback = False
            return True
        return False


def shown_by(workspace: Workspace, *, interactive: bool) -> Callable[[str], None] | None:
    """Return the function that shows Pulumi's lines; None where Pulumi shows them itself, on a terminal."""
    return None if interactive else LineFilter(workspace.reporter.say)
