"""The data volumes of parts that leave an environment: they stay in Pulumi's state, and their parts find them again.

Pulumi deletes what leaves the program, and refuses that for a data volume at the end of an update, when half of the
parts have been replaced. So what the state has is asked first. Such a volume stays declared, by the setting
`keptVolumes`; and where a part is to have another volume than its own, nothing is begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operations.errors import ProjectError
from operations.workspace import pulumi_state
from stack.settings.environment import Environment
from stack.settings.keys import key_of


def volumes(environment: Environment, deployment: Mapping[str, Any], *, file: str) -> dict[str, str]:
    """Return the data volumes in a state that no part of these settings uses: which one -> its name on the engine.

    deployment: the stack's state. file: the stack file's name, for what is said. Raises ProjectError where a part would
    get another volume in the place of the one that has its data.
    """
    from stack.catalogue import specs  # noqa: PLC0415 - the settings: `status` must stay fast
    from stack.spec.volumes import used  # noqa: PLC0415 - as above

    there, wanted = pulumi_state.data_volumes(dict(deployment)), used(environment, specs(environment))
    lines = [
        line
        for which, volume in there.items()
        if which in wanted and wanted[which] != volume
        for line in _of_other(environment, which, volume, wanted[which])
    ]
    if lines:
        title = f"{file} names other volumes than those with the data, so nothing was changed:"
        raise ProjectError("\n".join([title, *lines]))
    # A name that the state does not know would become this environment's: `destroy-data` would remove it.
    foreign = {
        which: volume
        for which, volume in environment.settings.kept_volumes.items()
        if which not in wanted and there.get(which) != volume
    }
    if foreign:
        named = ", ".join(f"{key_of('kept_volumes')}.{which}: {volume}" for which, volume in foreign.items())
        raise ProjectError(
            f"{file} says {named}, and the state of {environment.name} has no such volume, so nothing was changed. "
            "Remove that line: what the state has is kept without it"
        )
    return {which: volume for which, volume in there.items() if which not in wanted}


def _of_other(environment: Environment, which: str, volume: str, wanted: str) -> tuple[str, str]:
    """Return what is wrong where a part with data would get another volume, and which line keeps it."""
    key = f"{key_of(which)}.adoptVolume"
    line = f"remove {key}" if volume == environment.data_volume(which) else f"write {key}: {volume}"
    return (
        f"  {which}: its data is in {volume}, and the file names {wanted}.",
        f"    To go on with its data: {line}. How data comes from another volume: docs/migrating-from-compose.md",
    )
