"""Mends a copy of Redis' data, in a container of the image that will read it, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from operations.data.restore.request import DATA, Mend
from operations.engine import one_off
from operations.errors import ProjectError

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from host.progress import Task

_REFUSES = 3
_LAST_LINES = 8
_FROM = "/from"


def mend(
    container: Container, way: Mend, source: str, *, task: Task, into: str = "", labels: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Copy a volume and mend the copy; return the report of `repair_redis.sh`: name -> value.

    container: Redis' container, whose image, user and memory limit are used. into: the empty volume for the copy;
    without it an anonymous volume, which is removed at the end. labels: of the container that mends. Raises
    ProjectError with the reason where Redis does not read the copy.
    """
    from docker.types import Mount  # noqa: PLC0415 - the SDK takes its time

    like, folder = container.attrs, DATA["redis"]
    script = Path(__file__).with_name("repair_redis.sh").read_text(encoding="utf-8")
    said = one_off.run_once(
        cast("docker.DockerClient", container.client),
        like["Image"],
        ["sh", "-c", script, "sh", _FROM, folder, way],
        task=task,
        check=_check,
        user=like["Config"]["User"],
        mounts=[Mount(_FROM, source, read_only=True), Mount(folder, into or None)],
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=64m"},  # noqa: S108 - in the container
        mem_limit=like["HostConfig"]["Memory"],
        memswap_limit=like["HostConfig"]["Memory"],
        labels=dict(labels or {}),
    )
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def _check(status: int, told: Sequence[str]) -> None:
    if status == _REFUSES and told:
        raise ProjectError(told[-1])
    if status:
        raise ProjectError(f"Redis' data could not be looked at ({status}):\n" + "\n".join(told[-_LAST_LINES:]))
