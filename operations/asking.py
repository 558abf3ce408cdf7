"""Who is asked before an environment is changed: in production somebody at a terminal, unless --yes was typed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from operations.project import Workspace
from operations.stack_file import ProjectError

if TYPE_CHECKING:
    from operations.lifecycle import Agree

VARIABLE = "SAMOKODER_YES"
"""Environment variable that means --yes. `ci deploy` sets it: an older version, which it goes back to, has no --yes."""
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", envvar=VARIABLE, help="Do it without being asked: production asks, staging does not."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def on_terminal() -> bool:
    """Tell whether somebody sees what is shown and can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def agreement(workspace: Workspace, words: str, *, yes: bool, always: bool = False) -> Agree | None:
    """Return what asks before an environment is changed; None where nobody is asked.

    words: what to type for `make` in place of being asked (`up ARGS=--yes`). always: at a terminal every environment
    asks. Raises ProjectError for production where nobody can be asked, InvalidSettingsError.
    """
    if yes:
        return None
    production = workspace.settings(on_this_machine=False).settings.production
    if not (production or always):
        return None
    if not on_terminal():
        if not production:
            return None
        raise ProjectError(
            f"{workspace.name} is production, and there is no terminal to ask at, so nothing was changed. Look at it: "
            f"{workspace.typed('preview')}. Then do it: {workspace.typed(words)}"
        )

    def ask() -> None:
        typer.confirm(f"Do this to {workspace.name}{', which is production' if production else ''}?", abort=True)

    return ask
