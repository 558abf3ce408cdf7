"""What a restore does, on a Docker engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from host.progress import Reporter, Task
from offline.images.archive import Entry, tar_of
from operations.clone import typed
from operations.data import backups, volume_names
from operations.data.restore import mending
from operations.data.restore.actions import INTO, PRESENT, Up, never
from operations.data.restore.request import DATA, Mend, Server
from operations.data.restore.scripts import COPY, RELEASE, SET_OWN, SIZES, WHOLE
from operations.data.volume_names import STAMP
from operations.engine import containers, healthy, one_off
from operations.engine import volumes as engine_volumes
from operations.engine.commands import execute
from operations.errors import ProjectError
from operations.workspace import pulumi_state
from operations.workspace.workspace import Workspace
from stack.common.names import APPLICATION_USER, PART_LABEL, PROJECT, NetworkName
from stack.parts.backup.spec import OFFSITE_FILES
from stack.parts.redis import spec as redis
from stack.settings.environment import Environment
from stack.settings.part import PartSettings
from stack.spec.rotation import label
from stack.spec.secrets import GENERATED

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

_RECEIVES_SECONDS = 60
_FILES = "/etc/samokoder"


@contextmanager
def engine_of(environment: Environment, workspace: Workspace, up: Up = never) -> Iterator[EngineRestore]:
    """Yield the environment's engine to a caller that holds the lock.

    up: called when a restore needs a server whose data volume was lost.
    """

    def bring_up() -> None:
        # Other volumes may be lost too: `up` names them, makes them empty, and each can be restored next.
        lost = pulumi_state.data_volumes(workspace.open().deployment())
        up(workspace, interactive=False, empty=lost)

    def keys() -> dict[str, str]:
        run = workspace.open()
        known = {key.removeprefix(f"{PROJECT}:"): str(each["value"]) for key, each in run.configuration().items()}
        found = {name: known.get(_configured(name), "") for name in OFFSITE_FILES.values()}
        for name in GENERATED.keys() & found.keys():
            found[name] = found[name] or run.secrets().get(label(name), "")
        return found

    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        yield EngineRestore(client, environment, workspace.reporter, bring_up, keys)
    finally:
        client.close()


@dataclass
class EngineRestore:
    """`RestoreActions` on a Docker engine."""

    client: docker.DockerClient
    environment: Environment
    reporter: Reporter
    up: Callable[[], None]
    """Brings the environment up, with empty data volumes where they were lost."""
    keys: Callable[[], Mapping[str, str]] = dict
    """Returns the secrets that the off-site copy is read with, by name; one that there is not is empty."""
    _starts: dict[str, str] = field(default_factory=dict)
    """Container -> when it was last started, as `stop` saw it."""

    def data_of(self, server: Server) -> str:
        """Return the volume that the server's container mounts; without a container, the one that it will mount."""
        for container in containers.of_fields(self.client, self.environment, [server]):
            for mount in container.attrs["Mounts"]:
                if mount["Destination"] == DATA[server]:
                    return str(mount["Name"])
        adopted = getattr(getattr(self.environment.settings, server), "adopt_volume", "")
        return self.environment.data_volume(server, adopted)

    def bring_up(self, server: Server) -> bool:
        """Call `up`, which creates every part that is missing."""
        if self.there(server):
            return False
        # `up` makes the backup server last, and may fail at the very data that is to be replaced; its volume is enough.
        if server == "backup" and self.data_of(server) in engine_volumes.volume_names(self.client):
            return False
        self.up()
        return True

    def complete(self) -> None:
        """Call `up` where there is no backup container, which waits for PostgreSQL and Redis.

        Not where another part is missing: it may be new in a stack file that nobody has brought up yet.
        """
        if not self.there(backups.PART):
            self.up()

    def there(self, name: str) -> bool:
        """Tell whether a part has a container. name: its field of the settings."""
        return bool(containers.of_fields(self.client, self.environment, [name]))

    def make(self, volume: str) -> None:
        """Create a volume; the engine returns an existing one unchanged."""
        self.client.volumes.create(volume)

    def program(self, *words: str, store: str, into: str = "", present: str = "", online: bool = False) -> None:
        """Run the backup program in a container with the settings of the backup container."""
        # This machine's backups are mounted read-only, so that a restore cannot damage them.
        fixed = store == self.data_of("backup")
        volumes = {DATA["backup"]: (store, fixed)} | ({INTO: (into, False)} if into else {})
        # The engine would create a volume that does not exist.
        if present and present in engine_volumes.volume_names(self.client):
            volumes[PRESENT] = (present, True)
        with self.reporter.task(f"{one_off.PROGRAM} {' '.join(words[:2])}") as task:
            said = self._once([one_off.PROGRAM, *words], volumes, online=online, task=task)
        if words[0] == "restore" and said.strip():
            # Which changes a restored moment has: a person compares it with what was asked for.
            self.reporter.say(said.strip())

    def mend(self, way: Mend, into: str = "") -> dict[str, str]:
        """Run `repair_redis.sh` in a container of Redis' image."""
        with self.reporter.task(f"Redis reads a copy of its data ({way})") as task:
            container = containers.find(self.client, self.environment, redis.PART)
            source, labels = self.data_of("redis"), {one_off.RESTORE: self.environment.name}
            # The engine would create a missing volume when it mounts it.
            if source not in engine_volumes.volume_names(self.client):
                raise ProjectError(f"There is no volume {source}: `{typed(self.environment.name, 'up')}` says more.")
            return mending.mend(container, way, source, into=into, labels=labels, task=task)

    def sizes(self, volume: str) -> tuple[int, int]:
        """Ask du and df."""
        # The engine would create a missing volume when it mounts it; all volumes are on one disk.
        there = volume in engine_volumes.volume_names(self.client)
        said = self._shell(SIZES, {"/volume": (volume if there else self.data_of("backup"), True)}, "/volume")
        size, free = said.split()
        return int(size) if there else 0, int(free)

    def stamp(self) -> str:
        """Take the present second, or the first later one that is in no volume's name."""
        there, now = volume_names.made_by_restores(self.client, self.environment), datetime.now(UTC)
        while any(volume.endswith(f"{now:{STAMP}}") for volume in there):
            now += timedelta(seconds=1)
        return f"{now:{STAMP}}"

    def whole(self, volume: str, server: Server) -> bool:
        """Run the script `WHOLE` on the volume."""
        # The engine would create a missing volume when it mounts it.
        if volume not in engine_volumes.volume_names(self.client):
            return False
        script = f"if ({WHOLE}); then echo yes; else echo no; fi"
        return self._shell(script, {"/volume": (volume, True)}, "/volume", server).strip() == "yes"

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        """Run the script `COPY` in a container."""
        if whole and source not in engine_volumes.volume_names(self.client):
            raise ProjectError(f"There is no volume {source}, which was to come into {target}.")
        with self.reporter.task(f"Copy {source} to {target}"):
            volumes = {"/from": (source, True), INTO: (target, False)}
            owner = APPLICATION_USER if self._shared(target) else ""
            again = typed(self.environment.name, "restore")
            self._shell(COPY, volumes, "/from", INTO, whole or "", again, owner)

    def release(self, volume: str) -> None:
        """Run the script `RELEASE`: move PG_VERSION to its place, and remove the marker of an incomplete copy."""
        # The engine would create a missing volume when it mounts it.
        if volume in engine_volumes.volume_names(self.client):
            self._shell(RELEASE, {"/volume": (volume, False)}, "/volume")

    def stop(self, fields: Sequence[str]) -> tuple[str, ...]:
        """Stop them in parallel, each with its own stop timeout."""
        listed = containers.stop(self.client, self.environment, fields, self.reporter)
        ran = set[str]()
        for each in listed:
            name, at = str(each.id), str(each.attrs["State"]["StartedAt"])
            if containers.runs(each) or self._starts.get(name, at) != at:
                ran.add(each.labels[PART_LABEL])
                # One in a restart loop may have started once more between the list and its stop.
                each.reload()
            self._starts[name] = str(each.attrs["State"]["StartedAt"])
        return tuple(name for name in fields if ran & set(self.environment.parts_of(name)))

    def start(self, fields: Sequence[str]) -> None:
        """Start them all, then wait; raises ProjectError for one that is not healthy within its timeout."""
        found = [
            (name, each) for name in fields for each in containers.of_fields(self.client, self.environment, [name])
        ]
        for _, each in found:
            each.start()
        for name, each in found:
            part: PartSettings = getattr(self.environment.settings, name)
            label = each.labels[PART_LABEL]
            seconds = part.health.wait_timeout_seconds
            healthy.wait(each, label, self.environment.name, seconds=seconds, reporter=self.reporter)

    def own_password(self) -> None:
        """Set it through PostgreSQL's Unix socket."""
        container = containers.find(self.client, self.environment, "postgres")
        status, said = execute(container, ["sh", "-c", SET_OWN])
        if status != 0:
            raise ProjectError(f"PostgreSQL does not take its superuser's password: {said.decode(errors='replace')}")

    def new_backup(self) -> None:
        """Run the backup program in the backup container, again until it succeeds or the time is over."""
        kind = "base" if self.environment.physical_backups else "dump"
        container = containers.find(self.client, self.environment, backups.PART)
        end = time.monotonic() + _RECEIVES_SECONDS
        with self.reporter.task(f"{one_off.PROGRAM} now") as task:
            while True:
                try:
                    backups.run_in_service(container, ["now", "--kind", kind], task)
                    break
                except ProjectError:
                    # The backup server is healthy before it has found the new history and receives its WAL.
                    if time.monotonic() > end:
                        raise
                    time.sleep(2)

    def remove(self, volume: str) -> None:
        """Remove it by its name."""
        engine_volumes.remove_volumes(self.client, [volume])

    def _shared(self, volume: str) -> bool:
        """Tell whether a volume is a workspace, whose files belong to the application's user."""
        return volume.startswith(f"{self.environment.prefix}-workspace")

    def _shell(self, script: str, volumes: Mapping[str, tuple[str, bool]], *words: str) -> str:
        root = any(self._shared(volume) for volume, _ in volumes.values())
        return self._once(["sh", "-c", script, "sh", *words], volumes, root=root)

    def _once(
        self,
        command: Sequence[str],
        volumes: Mapping[str, tuple[str, bool]],
        *,
        online: bool = False,
        root: bool = False,
        task: Task | None = None,
    ) -> str:
        """Run a command in a container with the backup container's settings; return its standard output.

        volumes: path -> volume, and whether it is read-only. online: on the network that reaches the Internet. root:
        as root, who may read files of other users and change their owner.
        """
        from docker.types import Mount  # noqa: PLC0415 - the SDK takes its time

        drill = containers.of_fields(self.client, self.environment, ["drill"])
        backup = containers.of_fields(self.client, self.environment, [backups.PART])
        # `up` makes no backup container where PostgreSQL or Redis does not start. The drill has the same image.
        there = backup or drill
        if online and not there:
            raise ProjectError(
                "The off-site copy is read by the image of the part 'backup' or 'drill', and neither has a container: "
                f"`{typed(self.environment.name, 'up')}` makes the drill also where PostgreSQL does not start, and "
                "says what is in its way. Then this."
            )
        given = online and not backup
        if online:
            # PostgreSQL runs on the restored data: only then it gets the drill's files, which have no key.
            drill = []
        like = (there[0] if there else containers.find(self.client, self.environment, backups.PART)).attrs
        files = drill[0].attrs if drill else like
        host = like["HostConfig"]
        mounts = [Mount(path, name, read_only=fixed) for path, (name, fixed) in volumes.items()]
        mounts += [  # its files
            Mount(each["Destination"], each["Name"], read_only=True)
            for each in files["Mounts"]
            if each["Destination"] == _FILES and not given
        ]
        # Of the container alone, and removed with it: only the backup container has the keys in its files.
        mounts += [Mount(_FILES, None)] if given else []
        return one_off.run_once(
            self.client,
            like["Image"],
            command,
            task=task or Task(""),
            check=partial(one_off.check, command[1:]),
            prepare=partial(self._give_keys, there[0]) if given else lambda _: None,
            user="0:0" if root else like["Config"]["User"],
            cap_add=["CHOWN", "DAC_OVERRIDE", "FOWNER"] if root else None,
            environment=like["Config"]["Env"],
            mounts=mounts,
            tmpfs={path: how for path, how in (host["Tmpfs"] or {}).items() if path not in volumes},
            network_mode=f"{self.environment.prefix}-{NetworkName.EDGE}" if online else "none",
            mem_limit=host["Memory"],
            memswap_limit=host["Memory"],
            nano_cpus=host["NanoCpus"],
            shm_size=host["ShmSize"],
            labels={one_off.RESTORE: self.environment.name},
        )

    def _give_keys(self, drill: Container, container: Container) -> None:
        """Put the drill's settings and the keys of the off-site copy into a container that has not started yet."""
        found = self.keys()
        if missing := [_configured(each) for each in sorted(OFFSITE_FILES.values()) if not found[each]]:
            raise ProjectError(
                f"The off-site copy cannot be read without {', '.join(f'{PROJECT}:{each}' for each in missing)}: set "
                "it as on the machine that made the copy, then this."
            )
        settings, _ = drill.get_archive(f"{_FILES}/backup.json")
        container.put_archive(_FILES, b"".join(settings))
        with tar_of(Entry(name, found[key].encode(), mode=0o444) for name, key in OFFSITE_FILES.items()) as archive:
            container.put_archive(_FILES, archive.read())


def _configured(secret: str) -> str:
    """Return the setting that gives a secret."""
    return GENERATED[secret].configured if secret in GENERATED else secret
