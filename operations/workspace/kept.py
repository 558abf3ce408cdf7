"""The data volumes of parts that leave an environment: they stay in Pulumi's state, and their parts find them again.

Pulumi deletes what the program no longer declares, and refuses that for a data volume only at the end of an update,
when half of the parts are replaced. So the state is read first. The setting `keptVolumes` keeps such a volume declared;
and nothing is begun where a part would get another volume than the one with its data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operations.errors import ProjectError
from operations.workspace import pulumi_state
from stack.settings.environment import Environment
from stack.settings.keys import key_of


def volumes(environment: Environment, deployment: Mapping[str, Any], *, file: str) -> dict[str, str]:
    """Return the data volumes in a state that no part of these settings uses: purpose -> name on the engine.

    deployment: the stack's state. file: the stack file's name, for the message. Raises ProjectError where a part would
    get another volume than the one with its data.
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
    # A volume that the state does not know would become part of this environment, and `destroy-data` would remove it.
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
