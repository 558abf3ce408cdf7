"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from operations.clone import YES_VARIABLE

EnvironmentName = Annotated[
    str, typer.Option("--env", "-e", envvar="ENV", help="Environment: the name in Pulumi.<name>.yaml.")
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", envvar=YES_VARIABLE, help="Do it without being asked: production asks, staging does not."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
