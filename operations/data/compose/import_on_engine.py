"""What an import does, on a Docker engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from operations.data import backups
from operations.data.compose import old_containers, old_volumes
from operations.data.compose.old_containers import PROJECT_LABEL
from operations.data.compose.source import Source
from operations.data.repair import collations
from operations.data.restore import restore, unfinished
from operations.data.restore.actions import Up, never
from operations.data.restore.request import DATA
from operations.data.volume_names import IMPORTED
from operations.engine import containers, one_off
from operations.engine.volumes import remove_volumes, volume_names
from operations.errors import ProjectError
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from stack.common.names import APPLICATION_USER
from stack.parts.backup.workspace import MARK
from stack.parts.postgres import spec as postgres
from stack.parts.postgres.collations import OUTDATED
from stack.settings.environment import Environment

if TYPE_CHECKING:
    import docker


_OWNER = "999:999"  # PostgreSQL and Redis have this user in this stack; Alpine's PostgreSQL has 70
_READS = ("DAC_OVERRIDE",)
_GIVES_AWAY = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
_REFUSES = 3
_LAST_LINES = 8


# A workspace's mark is made last, so that a copy without the mark is known to be incomplete.
_COPY = f"""\
set -eu
rm -rf "$2/{MARK}"
find "$2" -mindepth 1 -delete
cd "$1"
find . -mindepth 1 -maxdepth 1 ! -name {MARK} -exec cp -a --reflink=auto -t "$2" {{}} +
if [ "$4" = postgres ]; then rm -f "$2/postmaster.pid" "$2/postmaster.opts"; fi
chown -R "$3" "$2"
chmod 0700 "$2"
sync -f "$2"
if [ "$4" = workspace ]; then
    touch "$2/{MARK}"
    chown "$3" "$2/{MARK}"
    sync -f "$2"
fi
"""


@dataclass
class EngineImport:
    """`ImportActions` on a Docker engine."""

    client: docker.DockerClient
    environment: Environment
    workspace: Workspace
    up: Up = never
    """For the restore that puts the copies in place."""

    def volumes(self, project: str) -> list[str]:
        """Find them by Compose's label."""
        found = self.client.volumes.list(filters={"label": f"{PROJECT_LABEL}={project}"})
        return sorted(str(volume.name) for volume in found)

    def projects(self) -> list[str]:
        """Find them by Compose's label."""
        found = self.client.volumes.list(filters={"label": PROJECT_LABEL})
        return sorted({volume.attrs["Labels"][PROJECT_LABEL] for volume in found})

    def look(self, volumes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Run `old_volumes.py` with the Python of the backup server's image."""
        named = {volume for volume in volumes if not volume.startswith("/")}
        if missing := sorted(named - volume_names(self.client)):
            # The engine would create a missing volume when it mounts it.
            raise ProjectError(f"There is no volume {', '.join(missing)} on {self.environment.settings.docker_host}.")
        program = Path(old_volumes.__file__).read_text(encoding="utf-8")
        # The mount points are numbers, because the name of a host's folder has slashes.
        mounts = {f"/volumes/{number}": (volume, True) for number, volume in enumerate(volumes)}
        command = ["python3", "-c", program, "/volumes"]
        said = self._once("Look into the old volumes", backups.PART, command, mounts, capabilities=_READS)
        found = cast("dict[str, dict[str, Any]]", json.loads(said))
        return {volume: found[str(number)] for number, volume in enumerate(volumes)}

    def there(self, volume: str) -> bool:
        """Search the names of all volumes."""
        return volume in volume_names(self.client)

    def users(self, volume: str) -> list[str]:
        """Ask the engine, which lists only running containers."""
        return [str(each.name) for each in self.client.containers.list(filters={"volume": volume}, ignore_removed=True)]

    def shared(self, project: str) -> str:
        """Read the mounts of the project's containers."""
        path = self.environment.settings.workspace.path
        return old_containers.mounted_at(self.client, project, path) if path else ""

    def major(self) -> str:
        """Run the program in its image, because the server does not run while its data is half replaced."""
        said = self._once("Which PostgreSQL is it?", "postgres", ["postgres", "--version"], {}, user=_OWNER)
        match = re.search(r"\) (\d+)", said)
        if match is None:
            raise ProjectError(f"PostgreSQL does not say its version but: {said.strip()}")
        return match[1]

    def copy(self, source: Source, target: str) -> None:
        """Copy as root, because the old server's files belong to another user."""
        self.client.volumes.create(target)
        mounts = {"/from": (source.volume, True), "/to": (target, False)}
        owner = APPLICATION_USER if source.server == "workspace" else _OWNER
        command = ["sh", "-c", _COPY, "sh", f"/from/{source.folder}", "/to", owner, source.server]
        title = f"Copy {source.volume} to {target}"
        self._once(title, backups.PART, command, mounts, capabilities=_GIVES_AWAY)

    def open(self, source: Source, target: str) -> str:
        """Start the server from its image; a workspace has no server."""
        if source.server == "workspace":
            return ""
        # The engine would create a missing volume when it mounts it, and the server would begin empty.
        if not self.there(target):
            again = self.workspace.typed("import-compose PROJECT=…")
            raise ProjectError(f"{target} was removed meanwhile. The same command copies it anew: {again}")
        path, settings = DATA[source.server], self.environment.settings
        if source.server == "postgres":
            words = [settings.postgres.superuser, settings.postgres.database, postgres.PINNED_OPTIONS, OUTDATED]
        else:
            words = ["yes" if source.appendonly else "no", str(settings.redis.maxmemory_mib * 2**20)]
        script = Path(__file__).with_name(f"import_{source.server}.sh").read_text(encoding="utf-8")
        if source.server == "postgres":
            script = collations.script(script)
        command = ["sh", "-c", script, "sh", path, *words]
        return self._once(f"Open {target}", source.server, command, {path: (target, False)}, user=_OWNER).strip()

    def put(self, target: str, noted: Callable[[], None]) -> str:
        """Start a restore that does it, or resume that restore."""
        source = "" if self.replacing(target) else target
        return str(restore.put_imported(self.workspace, source, self.up, noted))

    def replacing(self, target: str) -> bool:
        """Read the restore's journal."""
        return unfinished.replacing(self.workspace) == target

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the environment's lock. Raises ProjectError where a restore of backups is half done."""
        with lock.held(self.workspace, "import-compose") as self.workspace:
            # The last step would refuse it, hours of copying later.
            if IMPORTED not in unfinished.replacing(self.workspace):
                unfinished.refuse_half_replaced(self.workspace)
            yield

    def remove(self, volume: str) -> None:
        """Remove it by its name."""
        remove_volumes(self.client, [volume])

    def _once(
        self,
        title: str,
        part: str,
        command: Sequence[str],
        volumes: Mapping[str, tuple[str, bool]],
        *,
        user: str = "0:0",
        capabilities: Sequence[str] = (),
    ) -> str:
        """Run a command in the image of a part, without a network; return its standard output.

        volumes: path -> volume, and whether it is read-only.
        """
        from docker.types import Mount  # noqa: PLC0415 - the SDK takes its time

        with self.workspace.reporter.task(title) as task:
            return one_off.run_once(
                self.client,
                containers.find(self.client, self.environment, part).attrs["Image"],
                command,
                task=task,
                check=partial(_check, title),
                user=user,
                mounts=[
                    Mount(path, name, type="bind" if name.startswith("/") else "volume", read_only=fixed)
                    for path, (name, fixed) in volumes.items()
                ],
                tmpfs={"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=64m"},  # noqa: S108 - in the container
                cap_add=list(capabilities) or None,
                shm_size="128m",
                # A look writes nothing and needs no lock, so whoever holds it must not remove its container.
                labels={} if all(fixed for _, fixed in volumes.values()) else {one_off.IMPORT: self.environment.name},
            )


def _check(title: str, status: int, told: Sequence[str]) -> None:
    if status:
        said = "\n".join(told[-_LAST_LINES:]) or "(it said nothing)"
        raise ProjectError(told[-1] if status == _REFUSES and told else f"{title}: status {status}\n{said}")
