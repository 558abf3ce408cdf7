"""Whether Prometheus or AlertManager has moved damaged data out of its way at its start.

Their logs say so, which nobody reads. What was moved counts in no limit of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker.errors import APIError

from operations.checks.doctor.asked import EnvironmentAsked, last_of, own_containers
from operations.engine.bound import MIB, Bound, BoundError
from operations.engine.commands import execute
from operations.errors import FailedError, UnavailableError
from stack.common.names import PART_LABEL
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.prometheus import spec as prometheus

_LOST = {
    prometheus.PART: "hours may be missing in graphs",
    alertmanager.PART: "silences are gone, or alerts were sent once more",
}
ASK = 'cd "$1" && for each in damaged-*; do test ! -e "$each" || du -sh "$each"; done'
"""Shell script that prints size and name of what was moved in the folder that is its argument."""


def judge_set_aside(asked: EnvironmentAsked) -> str:
    """Ask both containers what they have moved. Raises FailedError with each name, its size and the cure."""
    listed = {str(each["Labels"].get(PART_LABEL)): each for each in own_containers(asked)}
    found, silent = [], []
    for part, path in {spec.part: spec.data.path for spec in asked.parts() if spec.part in _LOST and spec.data}.items():
        try:
            moved = _moved(asked, listed.get(part, {}), path)
        except UnavailableError as error:
            silent.append(f"{part} {error}")
            continue
        if moved:
            remove = f"`docker exec {asked.environment.prefix}-{part} sh -c 'rm -r {path}/damaged-*'` removes it"
            found.append(f"{part} could not start with {', '.join(moved)}: {_LOST[part]}. {remove}")
    if found:
        raise FailedError("; ".join(found))
    if silent:
        raise UnavailableError("; ".join(silent))
    return "nothing was moved out of the way"


def _moved(asked: EnvironmentAsked, listed: Mapping[str, Any], path: str) -> list[str]:
    """Return what a container has moved, each as `damaged-silences (4.0K)`."""
    if listed.get("State") != "running":
        raise UnavailableError("does not run")
    try:
        container = asked.engine().client.containers.get(str(listed["Id"]))
        status, said = execute(container, ["sh", "-c", ASK, "sh", path], bound=Bound(asked.seconds / 3, MIB))
    except (BoundError, APIError) as error:
        raise UnavailableError(f"does not answer: {last_of(str(error))}") from None
    text = said.decode(errors="replace")
    if status:
        raise UnavailableError(f"does not say: {last_of(text)}")
    return [f"{name} ({size})" for size, _, name in (line.partition("\t") for line in text.splitlines())]
