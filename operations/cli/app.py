"""What the whole `samokoder` command has: its version, and what it proposes for a word that is no command."""

from __future__ import annotations

import subprocess
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from operations.clone import ROOT

NEVER_PROPOSED = frozenset({"restore", "destroy-data", "down", "repair", "rotate", "rollback", "import-compose"})
"""Commands that take something away: a person who mistyped a word may type the proposal without reading it."""


class Commands(TyperGroup):
    """Proposes similar commands for a word that is no command, except those of NEVER_PROPOSED."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that the first word names."""
        if args and args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(args[0], sorted(self.commands.keys() - NEVER_PROPOSED))
            meant = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands with the whole of their first sentences."""
        rows = [(name, self.commands[name].get_short_help_str(limit=1000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def said_version() -> str:
    """Return the version, with the commit that is checked out where Git knows it."""
    from importlib.metadata import version  # noqa: PLC0415 - `--help` does not need it

    number = version("samokoder-platform")
    try:
        words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        commit = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        commit = ""
    return f"samokoder {number}" + (f" ({commit})" if commit else "")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(said_version())
        raise typer.Exit


def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Take what stands before a command."""
