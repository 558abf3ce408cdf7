"""The `samokoder` command: everything that `make` offers, and commands that have no good form in `make`.

Each command is a function in `operations/cli`, and is listed here in the order in which `--help` shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import typer

from host.errors import EngineError
from operations.cli import app as whole
from operations.cli import (
    checks,
    ci,
    common,
    console,
    data,
    deploy,
    drift,
    environment,
    files,
    logs,
    pages,
    secrets,
    state,
)
from operations.clone import typed
from operations.errors import ProjectError, unusable
from stack.common.mistakes import InvalidSettingsError

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS: dict[str, Callable[..., None]] = {
    "psql": console.psql,
    "restart": console.restart_command,
    "exec": console.exec_command,
    "logs": logs.logs,
    "move-state": state.move_state,
    "up": environment.up,
    "preview": environment.preview,
    "down": environment.down,
    "destroy-data": environment.destroy_data,
    "status": environment.status,
    "tunnel": environment.tunnel,
    "test-alert": checks.send_test_alert,
    "check-image": checks.check_image,
    "smoke": checks.smoke,
    "doctor": checks.doctor,
    "render": files.render,
    "password": secrets.password,
    "rotate": secrets.rotate,
    "backup": data.backup,
    "backups": data.backups,
    "restore": data.restore,
    "repair": data.repair,
    "import-compose": data.import_compose,
    "drill": data.drill,
    "sbom": files.sbom,
    "hardening": checks.show_hardening,
    "pulumi": state.pulumi,
    "engine": environment.engine,
    "open": pages.open_page,
    "drift": drift.drift,
    "deploy": deploy.deploy,
    "rollback": deploy.rollback,
}
_TAKES_ANY_WORDS = {"allow_extra_args": True, "ignore_unknown_options": True}
_INTERRUPTED = 130

app = typer.Typer(
    name="samokoder",
    cls=whole.Commands,
    help="Run Samokoder and its monitoring on a Docker engine. Exit status: 0 done, 1 failed, 2 wrong usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # The help is plain text, because the library that draws boxes around it takes half a second to import.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(ci.app, name="ci")
app.callback()(whole.options)
for name, command in COMMANDS.items():
    app.command(name, context_settings=_TAKES_ANY_WORDS if name == "pulumi" else None)(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Foreseeable errors end in one message and status 1, never in a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "/" in (file := os.environ.get("ENV", "")):
        # POSIX shells have a file in ENV that they read at their start.
        del os.environ["ENV"]
        said = f"ENV is {file}, a file of your shell and no environment. One that is not staging: --env prod"
        common.terminal(stderr=True).print(said, markup=False, soft_wrap=True)
    try:
        app(words)
    except InvalidSettingsError as error:
        from operations.workspace import pasted  # noqa: PLC0415 - as in `up`

        _fail(pasted.mistakes_to_fix(error))
    except (ProjectError, EngineError) as error:
        _fail(str(error), words)
    except PermissionError as error:
        if not error.filename:
            raise
        _fail(unusable(error), words)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # typer turns an interruption into this exit
            _say_how_to_go_on(common.terminal(stderr=True), words)
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"offline", "docker", "requests"}:
            raise
        from offline.errors import OfflineError  # noqa: PLC0415 - as in `up`

        _fail(str(error) if isinstance(error, OfflineError) else f"{type(error).__name__}: {error}", words)


def _fail(message: str, words: Sequence[str] = ()) -> None:
    """End with status 1. The last lines have the cause and how to resume, because a person reads them first."""
    from rich.markup import escape  # noqa: PLC0415 - it takes its time

    console = common.terminal(stderr=True)
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    first, *more = message.strip().splitlines()
    if len(more) > 1:
        console.print(f"[bold red]error:[/] {escape(first)}", soft_wrap=True)
    _say_how_to_go_on(console, words)
    sys.exit(1)


def _say_how_to_go_on(console: Console, words: Sequence[str]) -> None:
    again = {"up": "up", "drift": "drift ARGS=--repair" if "--repair" in words else ""}.get(" ".join(words[:1]))
    if again:
        console.print(f"What is finished is kept. Go on with: {typed(_environment(words), again)}", soft_wrap=True)


def _environment(words: Sequence[str]) -> str:
    """Return the environment that a command was typed for, read as the command itself reads its options."""
    group = cast("whole.Commands", typer.main.get_command(app))
    context = group.commands[words[0]].make_context(words[0], list(words[1:]), resilient_parsing=True)
    return str(context.params["env"])


if __name__ == "__main__":
    main()
