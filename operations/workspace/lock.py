"""One lock for an environment: a command that changes it holds the lock, so that no two do so at once, in any clone.

The lock is an empty volume on the environment's engine, whose labels say who holds it; `docker volume ls` shows it, and
it needs no image. Each run makes a volume with a new name, then looks for other locks: of two runs that start at once,
at least one sees the other and ends. No name is used twice, so a run removes exactly the lock that it has read.

The lock of an ended process is taken over where its end can be known, which is on the same machine. It is not taken
over where the process has left an unfinished restore or import in another clone: that clone has to finish it, because
it has the journal. For the same reason a restore that fails while it replaces the data does not give its lock back: it
leaves a lock that is marked as half done. So does one that fails before PostgreSQL has this stack's password: the `up`
of another clone would have no journal that says so, and fail.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import APIError
from requests.exceptions import RequestException

from host.engine import connect, docker_command
from host.errors import EngineError
from host.process_ids import start_time
from operations.engine import containers, one_off
from operations.engine.volumes import remove_volumes
from operations.errors import ProjectError
from operations.workspace import stack_file
from operations.workspace.pulumi import CHANGES
from operations.workspace.workspace import Workspace
from stack.common.names import NO_NEW_PRIVILEGES

if TYPE_CHECKING:
    import docker

LABEL = "samokoder.lock"
"""Label of the volume; its value is the environment's name."""
VARIABLE = "SAMOKODER_LOCK"
"""Environment variable of processes that a holder starts: the names of its volume and of the outer holders' volumes."""
_HOLDER = "samokoder.lock.holder"
_HALF = "samokoder.lock.half"
_MOUNTS = "samokoder.lock.mounts"
"""Label of the container that mounts a lock which stays; its value is the volume."""
PASSWORD = "own-password"  # noqa: S105 - a step
"""Among the done steps of a restore's journal: PostgreSQL has this stack's superuser's password."""
_RESTORE = ("restore", "repair", "import-compose")
"""Commands that may restore: a container may mount their lock."""
_DIGITS = 8
_ANSWER_SECONDS = 120
_PULUMI_SECONDS = 60.0


def _hidden(process: int) -> bool:
    """Tell whether a process runs that this user may not see: `/proc` may hide other users' processes."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def _system() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _machine() -> str:
    """Return a hash that only this machine has and that reveals nothing of it; empty where it has no id."""
    with contextlib.suppress(OSError):
        text = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
        return hashlib.sha256(f"samokoder {text} {socket.gethostname()}".encode()).hexdigest()[:32] if text else ""
    return ""


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return str(os.getuid())


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock: a process, and where it runs."""

    doing: str
    """The command: `restore`."""
    folder: str
    """Its working state: `.samokoder` of its clone."""
    process: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: start_time(os.getpid()) or "")
    """When the process was started, as the kernel counts it: another process may have its number by now."""
    system: str = field(default_factory=_system)
    """Boot id and PID namespace, in which the process number is valid; empty where unknown."""
    machine: str = field(default_factory=_machine)
    host: str = field(default_factory=socket.gethostname)
    user: str = field(default_factory=_user)
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    half: bool = False
    """Whether it has ended, and a restore of its folder has half replaced the data or not set its password."""

    def __str__(self) -> str:
        """Return who it is and since when."""
        return (
            f"`{self.doing}` since {self.since} (process {self.process} of {self.user} on {self.host}, {self.folder})"
        )

    @property
    def is_this_process(self) -> bool:
        """Whether it is the process that asks."""
        mine = Holder(doing=self.doing, folder=self.folder)
        return (self.process, self.started, self.system) == (mine.process, mine.started, mine.system)

    @property
    def gone(self) -> bool:
        """Whether it is known that the process has ended."""
        if self.half:
            return True
        if self.system and self.system == _system():
            return (start_time(self.process) or "") != self.started and not _hidden(self.process)
        # The same machine after a restart: no process from before the restart runs.
        restarted = self.system.partition(" ")[0] != _system().partition(" ")[0]
        return bool(self.machine and self.system and _system()) and self.machine == _machine() and restarted

    @property
    def _is_of_this_machine(self) -> bool:
        return (self.machine, self.host) == (_machine(), socket.gethostname())

    def left(self, name: str) -> bool:
        """Whether it has left an unfinished restore or import in its folder. name: the environment's."""
        try:
            there = any(path.exists() for path in unfinished(Path(self.folder), name))
        except OSError:
            return True  # another user's folder cannot be read, so this is possible
        return there or (self.half and not self._is_of_this_machine)

    def is_of(self, folder: Path, name: str) -> bool:
        """Whether it ran in this clone. folder: the clone's working state. name: the environment's."""
        if self.folder != str(folder.absolute()):
            return False
        # Clones on two machines may have the same path.
        return not self.half or self._is_of_this_machine or _half_done(folder, name)


@contextmanager
def held(workspace: Workspace, doing: str, *, docker_host: str = "") -> Iterator[Workspace]:
    """Hold the environment's lock; yield a workspace whose commands, and the processes they start, know of the lock.

    doing: the command, for the message to a person who is refused. docker_host: the engine, where this machine has not
    noted it yet. Raises ProjectError that says who holds the lock.
    """

    def client() -> contextlib.closing[docker.DockerClient]:
        timeout = _ANSWER_SECONDS
        return contextlib.closing(
            connect(docker_host, timeout=timeout) if docker_host else workspace.client(timeout=timeout)
        )

    prefix = f"{workspace.settings().prefix}-lock-"
    volume = f"{prefix}{secrets.token_hex(_DIGITS // 2)}"
    with client() as engine:
        there = holders(engine, workspace.name)
    outer = [name for name in workspace.variables.get(VARIABLE, "").split() if name in there]
    if any(there[name].is_this_process for name in outer):
        yield workspace
        return
    taken = False
    try:
        with client() as engine:
            # This process makes its own lock, because the process that started it, and has one, may be killed first.
            _take(engine, workspace, volume, doing, outer=outer)
            taken = True
            if not outer:
                _remove_left(engine, workspace)
        yield replace(workspace, variables={**workspace.variables, VARIABLE: " ".join([*outer, volume])})
    finally:
        try:
            with client() as engine:
                if taken:
                    _mark_half(engine, workspace, volume)
                if doing in _RESTORE:
                    _unmount(engine, volume)
                remove_volumes(engine, [volume])
        except (EngineError, APIError, RequestException) as error:
            if taken and _half_done(workspace.folder, workspace.name):
                said = f"The lock stays on purpose: the restore is half done, and that is finished here ({error})"
            else:
                said = f"The lock could not be given back ({error}). By hand: {_removal(workspace, volume, doing)}"
            workspace.reporter.say(said)


def unfinished(folder: Path, name: str) -> list[Path]:
    """Return the files that exist while a restore or an import is unfinished. folder: of the working state."""
    return [folder / f"{what}.{name}.json" for what in ("restore", "import")]


def _half_done(folder: Path, name: str) -> bool:
    """Tell whether a restore's journal says that other clones must wait. folder, name: as of `unfinished`.

    The data is half replaced, or PostgreSQL may have another superuser's password.
    """
    journal, _ = unfinished(folder, name)
    try:
        text = stack_file.written(journal)
        if text is None:
            return False
        noted = json.loads(text)
        done = noted.get("done", ())
        half = bool(noted.get("half", half_by_steps(touched=bool(noted.get("touched")), done=done)))
        return half or owes_by_steps(foreign=bool(noted.get("foreign")), done=done)
    except (OSError, ValueError, AttributeError, TypeError):
        return True  # another user's, or damaged: this is possible


def half_by_steps(*, touched: bool, done: Collection[str]) -> bool:
    """Tell by a journal's steps whether the data is half replaced, where it does not say so itself."""
    return touched and not {"put-postgres", "put-redis", "put-workspace"} & set(done)


def owes_by_steps(*, foreign: bool, done: Collection[str]) -> bool:
    """Tell by a journal's steps whether PostgreSQL may lack this stack's superuser's password.

    foreign: whether it may by an earlier restore. What was put in place has its own.
    """
    return (foreign or "put-postgres" in done) and not {"start", PASSWORD} & set(done)


def is_one(volume: str, prefix: str) -> bool:
    """Tell from a volume's name whether it is a lock. prefix: of the environment."""
    return re.fullmatch(rf"{re.escape(prefix)}-lock-[0-9a-f]{{{_DIGITS}}}", volume) is not None


def holders(client: docker.DockerClient, name: str) -> dict[str, Holder]:
    """Return volume -> who holds an environment's lock; none or one, except while two runs compete."""
    found = client.volumes.list(filters={"label": f"{LABEL}={name}"})
    labels = {str(each.name): each.attrs["Labels"] for each in found}
    return {name: Holder(**json.loads(its[_HOLDER]) | {"half": _HALF in its}) for name, its in labels.items()}


def _mark_half(client: docker.DockerClient, workspace: Workspace, volume: str) -> None:
    """Where a restore is half done, make the lock that stays, before ours goes."""
    if not _half_done(workspace.folder, workspace.name):
        return
    if mine := holders(client, workspace.name).get(volume):
        left = f"{volume[:-_DIGITS]}{secrets.token_hex(_DIGITS // 2)}"
        _make(client, workspace, left, replace(mine, doing="restore", half=True))
        _keep_from_prune(client, workspace, left)
        workspace.reporter.say("The restore is half done: other clones are locked out until that is finished here")


def keep_from_prune(client: docker.DockerClient, locked: Workspace) -> None:
    """Do that for the lock of `locked`, which `held` has yielded: its process may be killed half way."""
    _keep_from_prune(client, locked, locked.variables[VARIABLE].split()[-1])


def _keep_from_prune(client: docker.DockerClient, workspace: Workspace, volume: str) -> None:
    """Mount a lock in a container that is never started: `docker volume prune -a` removes what no container mounts."""
    for part in containers.of_environment(client, workspace.name)[:1]:
        # Without this container the lock is as good as before.
        with contextlib.suppress(APIError, RequestException):
            client.containers.create(
                part.attrs["Image"],
                ["true"],
                name=volume,
                labels={_MOUNTS: volume},
                volumes={volume: {"bind": "/lock", "mode": "ro"}},
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=[NO_NEW_PRIVILEGES],
            )


def _unmount(client: docker.DockerClient, volume: str) -> None:
    """Remove the container that mounts a lock, if there is one: the engine removes no volume that is mounted."""
    containers.remove_labelled(client, f"{_MOUNTS}={volume}")


def _remove_left(client: docker.DockerClient, workspace: Workspace) -> None:
    """Remove what a holder that was killed has left running: a server must not start on what is still copied."""
    for label in one_off.LABELS:
        if removed := containers.remove_labelled(client, f"{label}={workspace.name}"):
            workspace.reporter.say(f"Removed what a run that is gone was still doing: {', '.join(removed)}")


def _make(client: docker.DockerClient, workspace: Workspace, volume: str, holder: Holder) -> None:
    # In a label of its own: an earlier version reads each name of the holder, and knows no `half`.
    noted = {name: value for name, value in asdict(holder).items() if name != "half"}
    half = {_HALF: "yes"} if holder.half else {}
    client.volumes.create(volume, labels={LABEL: workspace.name, _HOLDER: json.dumps(noted), **half})


def _take(client: docker.DockerClient, workspace: Workspace, volume: str, doing: str, *, outer: Sequence[str]) -> None:
    mine = Holder(doing=doing, folder=str(workspace.folder.absolute()))
    _make(client, workspace, volume, mine)
    others = {name: each for name, each in holders(client, workspace.name).items() if name not in (volume, *outer)}
    for name, other in others.items():
        if not other.gone:
            raise ProjectError(
                f"{workspace.name} is being changed: {other}. One at a time: try again when that has ended. Only if "
                "that process is no more, and has left no restore or import half done in that folder: "
                f"{_removal(workspace, name, other.doing)}"
            )
        if other.left(workspace.name) and not other.is_of(workspace.folder, workspace.name):
            raise ProjectError(
                f"{workspace.name} was left half done: {other} did not come to its end. Finish it there, by "
                f"`{workspace.typed('restore')}` or the same import. "
                f"To give it up: {_removal(workspace, name, other.doing)}"
            )
        if pulumi := _pulumi_at_work(workspace, other):
            raise ProjectError(
                f"{workspace.name} is being changed: {other} is gone, and Pulumi, which it had started, goes on "
                f"(process {pulumi}). Try again when that has ended; `kill -INT {pulumi}` ends it."
            )
    # Only once none refuses: a lock that is taken over by who then gives way would protect nothing any more.
    for name, other in others.items():
        workspace.reporter.say(f"Taking over the lock of a run that is gone: {other}")
        if other.half and not other.left(workspace.name):
            workspace.reporter.say(
                "It has left a restore half done, and its journal is gone. No server starts on half replaced data, and "
                "postgres-roles may not log in to what was restored. "
                f"Restore again: {workspace.typed('restore BACKUP=latest')}, or one of {workspace.typed('backups')}"
            )
        if other.doing in _RESTORE:
            _unmount(client, name)
        remove_volumes(client, [name])


def _pulumi_at_work(workspace: Workspace, holder: Holder) -> int:
    """Wait for the Pulumi of an ended run; return its process if it is still at work after 60 s, else 0.

    Pulumi was asked to end when that run died, and notes what it has begun.
    """
    end, told = time.monotonic() + _PULUMI_SECONDS, False
    while live := pulumi_of(holder, workspace.name):
        if time.monotonic() > end:
            return live[0]
        if not told:
            workspace.reporter.say(f"Waiting for Pulumi (process {live[0]}), whose run is gone")
        told = True
        time.sleep(0.5)
    return 0


def pulumi_of(holder: Holder, name: str, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes of Pulumi that change an environment from a holder's clone. name: the environment's.

    They are looked for among the processes and not in the state, which may be in a bucket. Of another user's process
    only the command may be seen: the holder's user may have started it for this environment.
    """
    found = []
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError):  # it has ended, or its user has no name
            words = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            if (process / "comm").read_text(encoding="utf-8").strip() != "pulumi" or not CHANGES & set(words):
                continue
            try:
                ours = _is_of_clone(process, Path(holder.folder).resolve(), name)
            except PermissionError:
                ours = process.owner() == holder.user
            if ours:
                found.append(int(process.name))
    return sorted(found)


def _is_of_clone(process: Path, folder: Path, name: str) -> bool:
    """Tell whether Pulumi was started for an environment of a clone. folder: the clone's working state.

    It runs there, or in the clone where a person types a command of Pulumi.
    """
    variables = (process / "environ").read_text(encoding="utf-8", errors="replace").split("\0")
    return f"PULUMI_STACK={name}" in variables and (process / "cwd").readlink() in {folder, folder.parent}


def _removal(workspace: Workspace, volume: str, doing: str) -> str:
    engine = docker_command(workspace.settings().settings.docker_host)
    container = f"{engine} rm {volume}; " if doing in _RESTORE else ""
    return f"{container}{engine} volume rm {volume}"
