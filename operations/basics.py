"""What the commands of `samokoder` need before anything is imported that takes its time: errors, and what is typed.

So `samokoder --help` and the shell's completion load neither the Docker SDK nor the settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operations.project import Workspace

ROOT = Path(__file__).resolve().parents[1]

CHANGE_PROVIDER = "change-secrets-provider"
CHANGES = frozenset({"up", "update", "destroy", "down", "dn", "refresh", "import", "watch", CHANGE_PROVIDER})
"""Commands of Pulumi that change what is on the engine, or what is known of it, with their other names."""


class ProjectError(Exception):
    """Something that the person can put right: the text says what it is and what to do."""


class PulumiFailedError(ProjectError):
    """Pulumi ended with an error; what it said is already on the screen, or in the text when it was captured."""


class EngineError(Exception):
    """There is no engine, or a command failed; the text says what happened and what to do."""


def typed(environment: str, words: str) -> str:
    """Return a command of `make` as a person types it for an environment. words: `restore BACKUP=latest`."""
    return f"make {words}{'' if environment == 'staging' else f' ENV={environment}'}"


def workspace(environment: str) -> Workspace:
    """Return an environment of this clone, by its name."""
    from operations.project import Workspace  # noqa: PLC0415 - Pulumi and the settings take their time

    return Workspace(environment=environment)
