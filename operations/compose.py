"""Import of the data of a stack that Docker Compose made: its volumes are read and never written to.

Each is copied into a volume of its own, in which a server of this stack's version opens it, alone and without a
network: what it cannot open is refused while everything still runs. Then it takes the way of a restore (`restore.py`):
what is there now is set aside, replaced, given this stack's passwords and backed up. Each step that is done is noted in
a file beside the state; cut off at any point, the same command goes on. While nothing was put in place it begins anew,
and so it does where an old volume has been written to since it was copied: whoever went on with the old stack is to
lose nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from operations import backups, collations, compose_containers, compose_volumes, restore
from operations.backups import IMPORTED, STAMP
from operations.clone import typed
from operations.compose_containers import PROJECT_LABEL
from operations.engine import containers
from operations.engine.volumes import remove_volumes, volume_names
from operations.errors import ProjectError
from operations.journal import DATA
from operations.workspace import lock, stack_file
from operations.workspace.workspace import Workspace
from stack.app import contract, postgres
from stack.app.collations import OUTDATED
from stack.backup.workspace import MARK
from stack.settings import Environment, key_of

if TYPE_CHECKING:
    import docker

Server = Literal["postgres", "workspace", "redis"]
SERVERS: tuple[Server, ...] = ("postgres", "workspace", "redis")
"""In the order in which they are imported: a queue that is there before its database would lose its jobs."""
LABEL = "samokoder.import"

_NAMES: Mapping[Server, str] = {"postgres": "PostgreSQL", "workspace": "The workspace", "redis": "Redis"}
_OWNER = "999:999"  # of both servers in this stack; Alpine's PostgreSQL is 70
_READS = ("DAC_OVERRIDE",)
_GIVES_AWAY = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
_DOCUMENT = "docs/migrating-from-compose.md"
_REFUSES = 3
_OVER = "over"
_LAST_LINES = 8


@dataclass(frozen=True, kw_only=True)
class Source:
    """One volume of the compose stack."""

    server: Server
    volume: str
    folder: str
    """Of the data in the volume; `.` is the volume itself."""
    bytes: int
    free: int
    """Of the disk that it is on."""
    changed: str = ""
    """What `compose_volumes.look` says of all of it: another text once it was written to."""
    appendonly: bool = False
    """Of Redis: whether its append-only file is read; else its snapshot."""

    def __str__(self) -> str:
        """Say what is read, for people."""
        if self.server == "postgres":
            return f"PostgreSQL's data, {self.bytes / 2**20:.0f} MiB"
        if self.server == "workspace":
            return f"The workspace, {self.bytes / 2**20:.0f} MiB"
        return (
            f"Redis' {'append-only file' if self.appendonly else 'snapshot (dump.rdb)'}, {self.bytes / 2**20:.0f} MiB"
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an import would do, or how far one has come."""

    project: str
    sources: tuple[Source, ...]
    stamp: str
    """In the names of the volumes that it makes."""
    done: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """What the person must know at the end."""

    @classmethod
    def read(cls, path: Path) -> Plan | None:
        """Return the plan of an import that has not come to its end."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        sources = tuple(Source(**source) for source in raw["sources"])
        return cls(**raw | {"sources": sources, "done": tuple(raw["done"]), "told": tuple(raw["told"])})

    def write(self, path: Path) -> None:
        """Note it."""
        stack_file.write(path, json.dumps(asdict(self), indent=2))

    def same(self, other: Plan) -> bool:
        """Whether another import is of the same volumes, and none has been written to since."""
        return {(each.volume, each.changed) for each in self.sources} == {
            (each.volume, each.changed) for each in other.sources
        }


class Hands(Protocol):
    """What an import does on the engine. Every call can be cut off and made again."""

    def alone(self) -> AbstractContextManager[None]:
        """Hold the environment's lock."""

    def replacing(self, target: str) -> bool:
        """Tell whether a restore of the copy has begun to replace the data, and has not come to its end."""

    def volumes(self, project: str) -> list[str]:
        """Return the volumes that Compose has made for a project."""

    def projects(self) -> list[str]:
        """Return the projects that Compose has made volumes for."""

    def look(self, volumes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return what is in each volume, as `compose_volumes.look` says it."""

    def there(self, volume: str) -> bool:
        """Tell whether there is such a volume."""

    def users(self, volume: str) -> list[str]:
        """Return the running containers that mount a volume."""

    def shared(self, project: str) -> str:
        """Return the volume, or the folder of the host, that a project has where this environment has its workspace."""

    def major(self) -> str:
        """Return the major version of this environment's PostgreSQL."""

    def copy(self, source: Source, target: str) -> None:
        """Make `target` a copy of a source, owned by this stack's server."""

    def open(self, source: Source, target: str) -> str:
        """Let a server open the copy and bring it to what this stack expects; return what it found.

        Raises ProjectError for what it cannot open.
        """

    def put(self, target: str) -> str:
        """Put the copy in the place of what is there, which is set aside; return what the person must know."""

    def remove(self, volume: str) -> None:
        """Remove a volume, where it is there."""


@dataclass
class Import:
    """One import, from the last step that was done to its end."""

    environment: Environment
    hands: Hands
    plan: Plan
    path: Path
    say: Callable[[str], None]

    def copy_of(self, source: Source) -> str:
        """Name the volume that a source is copied into."""
        return f"{self.environment.prefix}-{source.server}{IMPORTED}{self.plan.stamp}"

    def run(self) -> str:
        """Do what is left to do; return what the person must know now. Up to the first `put` nothing here changes."""
        made = [self.copy_of(each) for each in self.plan.sources if f"copy-{each.server}" in self.plan.done]
        if _OVER not in self.plan.done and not all(map(self.hands.there, made)):
            # The copies go at the end alone, or with all that was here (`destroy-data`).
            self.plan = replace(self.plan, done=(), told=())
        steps = [(name, source) for name in ("copy", "open", "put") for source in self.plan.sources]
        for number, (name, source) in enumerate(steps, 1):
            key = f"{name}-{source.server}"
            if key not in self.plan.done:
                self.say(f"[{number}/{len(steps)}] {_TITLES[name].format(_NAMES[source.server], source.volume)}")
                told = self._do(name, source)
                self._note(key, told)
        self._note(_OVER)
        self.forget()
        return "\n".join(
            [*self.plan.told, f"The volumes of {self.plan.project} are as they were: keep them until you are sure."]
        )

    def finish(self, source: Source) -> None:
        """Put the copy of a source in its place, and note it."""
        self._note(f"put-{source.server}", self._do("put", source))

    def _note(self, key: str, told: str = "") -> None:
        said = (*self.plan.told, *([told] if told else []))
        self.plan = replace(self.plan, done=(*self.plan.done, key), told=said)
        self.plan.write(self.path)

    def forget(self) -> None:
        """Remove the copies and the notes."""
        for source in self.plan.sources:
            self.hands.remove(self.copy_of(source))
        stack_file.remove(self.path)

    def after_failure(self) -> str:
        """Say how things are."""
        if all(f"open-{source.server}" in self.plan.done for source in self.plan.sources):
            return "Then this again."
        return "Nothing was changed, neither here nor in the old volumes."

    def _do(self, name: str, source: Source) -> str:
        if name == "copy":
            refuse_while_used(self.hands, self.plan.project, [source])
            self.hands.copy(source, self.copy_of(source))
            _refuse_changed(self.hands, self.plan)
            return ""
        if name == "put" and not self.hands.replacing(self.copy_of(source)):
            _refuse_changed(self.hands, self.plan)
        return self.hands.open(source, self.copy_of(source)) if name == "open" else self.hands.put(self.copy_of(source))


_TITLES = {
    "copy": "Copy {}'s data out of {}",
    "open": "Can {} of this stack open the copy of {}?",
    "put": "Put {}'s copy in the place of what is here",
}


def planned(
    environment: Environment, hands: Hands, project: str, given: Mapping[Server, str], say: Callable[[str], None]
) -> Plan:
    """Find out what an import would do, reading alone. given: a volume in place of the one that is found.

    Raises ProjectError for what would not work.
    """
    if "backup" in environment.absent:
        raise ProjectError(
            f"What is imported is put into its place by the backup server, which {environment.name} does not have: "
            f"set {key_of('backup', 'enabled')}: true and `{typed(environment.name, 'up')}`, then this."
        )
    shared = "" if "workspace" in environment.absent else given.get("workspace") or hands.shared(project)
    volumes = list(dict.fromkeys([*hands.volumes(project), *given.values(), *([shared] if shared else [])]))
    if not volumes:
        raise ProjectError(
            f"Docker Compose has made no volume here for a project {project!r}. There are: "
            f"{', '.join(hands.projects()) or 'none'}. A volume that is not Compose's is named by itself: "
            "--postgres-volume, --redis-volume."
        )
    found = hands.look(volumes)
    sources = []
    for server in SERVERS:
        volume = shared if server == "workspace" else _volume_of(server, found, given)
        if server == "workspace" and server in environment.absent:
            continue
        if not volume:
            say(f"{_NAMES[server]}: no volume of {project} has its data")
        elif server in environment.absent:
            say(f"{_NAMES[server]} is a managed one here: bring {volume} there by a dump ({_DOCUMENT})")
        else:
            sources.append(_source(server, volume, found[volume], hands))
    if not sources:
        raise ProjectError(f"Nothing in the volumes of {project} can be imported: {', '.join(volumes)}.")
    refuse_while_used(hands, project, sources)
    needed, free = 2 * sum(source.bytes for source in sources), min(source.free for source in sources)
    if free < needed:
        raise ProjectError(
            f"The engine's disk has {free / 2**20:.0f} MiB free, and this needs {needed / 2**20:.0f}: the old volumes "
            "stay as they are."
        )
    return Plan(project=project, sources=tuple(sources), stamp=f"{datetime.now(UTC):{STAMP}}")


def _volume_of(server: Server, found: Mapping[str, Mapping[str, Any]], given: Mapping[Server, str]) -> str:
    if server in given:
        if found[given[server]]["kind"] != server:
            raise ProjectError(f"There is no data of {_NAMES[server]} in the volume {given[server]}.")
        return given[server]
    fitting = [volume for volume, each in sorted(found.items()) if each["kind"] == server]
    if len(fitting) > 1:
        raise ProjectError(
            f"More than one volume has {_NAMES[server]}'s data: {', '.join(fitting)}. Name the one: "
            f"--{server}-volume {fitting[0]}"
        )
    return fitting[0] if fitting else ""


def _source(server: Server, volume: str, found: Mapping[str, Any], hands: Hands) -> Source:
    if server == "postgres":
        _refuse_cluster(volume, found, hands.major())
    return Source(
        server=server,
        volume=volume,
        folder=str(found.get("folder", ".")),
        bytes=int(found["bytes"]),
        changed=str(found["changed"]),
        free=int(found["free"]),
        appendonly=bool(found.get("appendonly")),
    )


def _refuse_cluster(volume: str, found: Mapping[str, Any], major: str) -> None:
    """Raise ProjectError for a data folder that this stack's PostgreSQL would not start on."""
    if found["others"]:
        folders = ", ".join([found["folder"], *found["others"]])
        raise ProjectError(f"{volume} has more than one PostgreSQL in it ({folders}): bring the right one by a dump.")
    if found["version"] != major:
        raise ProjectError(
            f"{volume} was written by PostgreSQL {found['version']}, and this stack's is {major}: another major "
            f"version cannot read its files. Bring it by a dump ({_DOCUMENT})."
        )
    if found["elsewhere"]:
        raise ProjectError(
            f"Parts of this PostgreSQL are outside of {volume}: {', '.join(found['elsewhere'])}. Bring it by a dump "
            f"({_DOCUMENT})."
        )
    if found["standby"]:
        raise ProjectError(f"{volume} is a standby's: import the volume of the primary, or promote it first.")


def refuse_while_used(hands: Hands, project: str, sources: Sequence[Source]) -> None:
    """Raise ProjectError while somebody may write to a volume: a copy of it would be of no moment at all."""
    users = {name for source in sources for name in hands.users(source.volume)}
    if users:
        raise ProjectError(
            f"In use by {', '.join(sorted(users))}: stop the old stack first, so that nothing is written that would be "
            f"left behind: docker compose --project-name {project} stop"
        )


def _refuse_changed(hands: Hands, plan: Plan) -> None:
    """Raise ProjectError where the old stack runs again, or an old volume was written to since the plan was made."""
    refuse_while_used(hands, plan.project, plan.sources)
    now = hands.look([source.volume for source in plan.sources])
    if changed := [each.volume for each in plan.sources if str(now[each.volume]["changed"]) != each.changed]:
        raise ProjectError(
            f"Written to since this import began: {', '.join(changed)}. What was written would be left behind. Stop "
            f"the old stack, then this again, which copies it anew: docker compose --project-name {plan.project} stop"
        )


@contextmanager
def opened(workspace: Workspace, project: str, given: Mapping[Server, str]) -> Iterator[Import]:
    """Give an import that is planned, or the one that was cut off; `run` does it. Nothing is changed by this.

    Raises ProjectError for what would not work.
    """
    environment, say = workspace.settings(), workspace.reporter.say
    path = workspace.folder / f"import.{workspace.name}.json"
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        hands = Engine(client, environment, workspace)
        yield Import(environment, hands, planned(environment, hands, project, given, say), path, say)
    finally:
        client.close()


def run(importing: Import) -> str:
    """Do it, or go on with the one that was cut off; return what the person must know now.

    Raises ProjectError that says how things are.
    """
    with importing.hands.alone():
        if begun := Plan.read(importing.path):
            importing = _after(replace(importing, plan=begun), importing.plan)
        importing.plan.write(importing.path)
        try:
            return importing.run()
        except ProjectError as error:
            raise ProjectError(f"{error}\n{importing.after_failure()}") from error
        except KeyboardInterrupt:
            importing.say("Cut off. The same command goes on")
            raise


def _after(before: Import, plan: Plan) -> Import:
    """Return the import that goes on, or the one that begins anew: see the module's docstring."""
    for source in before.plan.sources:
        if before.hands.replacing(before.copy_of(source)) and f"put-{source.server}" not in before.plan.done:
            before.say(f"Finishing what was cut off: {_NAMES[source.server]}'s copy is put in its place")
            before.finish(source)
    before = replace(before, plan=_of_earlier_version(before.plan, plan, before.hands))
    if before.plan.same(plan) and any(key.startswith("put-") for key in before.plan.done):
        before.say(f"Going on with the import of {before.plan.project}: {', '.join(before.plan.done)} is done")
        return before
    before.forget()
    return replace(before, plan=plan)


def _of_earlier_version(begun: Plan, plan: Plan, hands: Hands) -> Plan:
    """Return a plan with what this version notes of each old volume that was not written to since, as far as it tells.

    The version before noted the newest time in a volume. Taken for another volume, the import would begin anew over
    what is in place and was served meanwhile.
    """
    volumes = [each.volume for each in begun.sources]
    earlier = any(str(each.changed).isdecimal() for each in begun.sources)
    if not earlier or set(volumes) != {each.volume for each in plan.sources}:
        return begun
    now = hands.look(volumes)
    return replace(
        begun,
        sources=tuple(
            replace(each, changed=str(now[each.volume]["changed"]))
            if str(each.changed) == str(now[each.volume]["newest"])
            else each
            for each in begun.sources
        ),
    )


# Of a workspace one file comes last: without it a copy is not whole.
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
class Engine:
    """`Hands` on a Docker engine."""

    client: docker.DockerClient
    environment: Environment
    workspace: Workspace

    def volumes(self, project: str) -> list[str]:
        """Ask by Compose's label."""
        found = self.client.volumes.list(filters={"label": f"{PROJECT_LABEL}={project}"})
        return sorted(str(volume.name) for volume in found)

    def projects(self) -> list[str]:
        """Ask by Compose's label."""
        found = self.client.volumes.list(filters={"label": PROJECT_LABEL})
        return sorted({volume.attrs["Labels"][PROJECT_LABEL] for volume in found})

    def look(self, volumes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Look with the backup server's Python."""
        named = {volume for volume in volumes if not volume.startswith("/")}
        if missing := sorted(named - volume_names(self.client)):
            # The engine would make it, empty.
            raise ProjectError(f"There is no volume {', '.join(missing)} on {self.environment.settings.docker_host}.")
        program = Path(compose_volumes.__file__).read_text(encoding="utf-8")
        # By numbers: one that is a folder of the host has slashes in its name.
        mounts = {f"/volumes/{number}": (volume, True) for number, volume in enumerate(volumes)}
        command = ["python3", "-c", program, "/volumes"]
        said = self._once("Look into the old volumes", backups.PART, command, mounts, capabilities=_READS)
        found = cast("dict[str, dict[str, Any]]", json.loads(said))
        return {volume: found[str(number)] for number, volume in enumerate(volumes)}

    def there(self, volume: str) -> bool:
        """Ask for all."""
        return volume in volume_names(self.client)

    def users(self, volume: str) -> list[str]:
        """Ask for running ones."""
        return [str(each.name) for each in self.client.containers.list(filters={"volume": volume}, ignore_removed=True)]

    def shared(self, project: str) -> str:
        """Ask its containers."""
        path = self.environment.settings.workspace.path
        return compose_containers.mounted_at(self.client, project, path) if path else ""

    def major(self) -> str:
        """Ask the program in its image: while half of the data is in place, the server does not run."""
        said = self._once("Which PostgreSQL is it?", "postgres", ["postgres", "--version"], {}, user=_OWNER)
        match = re.search(r"\) (\d+)", said)
        if match is None:
            raise ProjectError(f"PostgreSQL does not say its version but: {said.strip()}")
        return match[1]

    def copy(self, source: Source, target: str) -> None:
        """Copy as root: the old server's files are another user's."""
        self.client.volumes.create(target)
        mounts = {"/from": (source.volume, True), "/to": (target, False)}
        owner = contract.USER if source.server == "workspace" else _OWNER
        command = ["sh", "-c", _COPY, "sh", f"/from/{source.folder}", "/to", owner, source.server]
        title = f"Copy {source.volume} to {target}"
        self._once(title, backups.PART, command, mounts, capabilities=_GIVES_AWAY)

    def open(self, source: Source, target: str) -> str:
        """Open it with the server's own image; files of a workspace have none."""
        if source.server == "workspace":
            return ""
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

    def put(self, target: str) -> str:
        """Let a restore do it, or go on with it."""
        source = "" if self.replacing(target) else target
        return str(restore.put_imported(self.workspace, source))

    def replacing(self, target: str) -> bool:
        """Ask the restore's journal."""
        return restore.replacing(self.workspace) == target

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it on the engine; containers of a run that was killed go, and what they were at is done again."""
        with lock.held(self.workspace, "import-compose") as self.workspace:
            containers.remove_labelled(self.client, f"{LABEL}={self.environment.name}")
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
            return backups.run_once(
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
                labels={LABEL: self.environment.name},
            )


def _check(title: str, status: int, told: Sequence[str]) -> None:
    if status:
        said = "\n".join(told[-_LAST_LINES:]) or "(it said nothing)"
        raise ProjectError(told[-1] if status == _REFUSES and told else f"{title}: status {status}\n{said}")
