"""One lock for an environment: whoever changes it holds the lock, so that no two do it at once, from whatever clone.

It is an empty volume on the environment's engine, whose labels say who holds it; `docker volume ls` shows it, and it
needs no image. Each run makes one of a name of its own, then looks for others: of two that come at once, at least one
sees the other and ends. A name is never used again, so a lock that is removed is the one that was looked at.

The lock of a process that is gone is taken over, where that is known: on the same machine. Not where it has left a
restore or an import half done in another clone: that is finished there, for there lies how far it has come. So a lock
is not given back, but marked, while a restore that failed has half replaced the data.
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
from collections.abc import Iterator, Sequence
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
from operations.workspace import pulumi_state
from operations.workspace.workspace import Workspace

if TYPE_CHECKING:
    import docker

LABEL = "samokoder.lock"
"""Of the volume; its value is the environment's name."""
VARIABLE = "SAMOKODER_LOCK"
"""Environment variable of what a holder runs: the names of its volume and of those that it runs under."""
_HOLDER = "samokoder.lock.holder"
_DIGITS = 8
_ANSWER_SECONDS = 120
_PULUMI_SECONDS = 60.0


def _hidden(process: int) -> bool:
    """Tell whether a process runs that this user may not look at: `/proc` may hide those of others."""
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
    """Return a name that only this machine has, and that tells nothing of it; empty where there is none."""
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
    """When the process was started, as the kernel counts it: its number may be another's by now."""
    system: str = field(default_factory=_system)
    """The running kernel and its processes' namespace, in which the number means something; empty where unknown."""
    machine: str = field(default_factory=_machine)
    host: str = field(default_factory=socket.gethostname)
    user: str = field(default_factory=_user)
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    half: bool = False
    """Whether it has ended, and a restore of its folder has half replaced the data."""

    def __str__(self) -> str:
        """Say who it is and since when."""
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
        # The same machine after a restart: nothing of before it runs.
        restarted = self.system.partition(" ")[0] != _system().partition(" ")[0]
        return bool(self.machine and self.system and _system()) and self.machine == _machine() and restarted

    @property
    def _is_of_this_machine(self) -> bool:
        return (self.machine, self.host) == (_machine(), socket.gethostname())

    def left(self, name: str) -> bool:
        """Whether it has left something half done that is noted in its folder. name: the environment's."""
        try:
            there = any(path.exists() for path in unfinished(Path(self.folder), name))
        except OSError:
            return True  # another user's folder: nobody here can tell
        return there or (self.half and not self._is_of_this_machine)

    def is_of(self, folder: Path, name: str) -> bool:
        """Whether it ran in this clone. folder: the clone's working state. name: the environment's."""
        if self.folder != str(folder.absolute()):
            return False
        # Clones on two machines may have the same path.
        return not self.half or self._is_of_this_machine or _half_replaced(folder, name)


@contextmanager
def held(workspace: Workspace, doing: str, *, docker_host: str = "") -> Iterator[Workspace]:
    """Hold the environment's lock; give the workspace whose commands, and what they start, know that it is held.

    doing: the command, for who is refused. docker_host: the engine, where this machine has not noted it yet.
    Raises ProjectError that says who holds it.
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
            # Beside the one of the process that started this: killed, it would leave this one without any.
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
                remove_volumes(engine, [volume])
        except (EngineError, APIError, RequestException) as error:
            workspace.reporter.say(
                f"The lock could not be given back ({error}). By hand: {_removal(workspace, volume)}"
            )


def unfinished(folder: Path, name: str) -> list[Path]:
    """Return the files that are there while a restore or an import is half done. folder: of the working state."""
    return [folder / f"{what}.{name}.json" for what in ("restore", "import")]


def _half_replaced(folder: Path, name: str) -> bool:
    """Tell whether the journal of a restore says that the data is half replaced. folder, name: as of `unfinished`."""
    journal, _ = unfinished(folder, name)
    try:
        noted = json.loads(journal.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return bool(noted.get("half", noted.get("touched")))  # an earlier version noted no `half`


def is_one(volume: str, prefix: str) -> bool:
    """Tell whether a volume is a lock, by its name alone. prefix: of the environment."""
    return re.fullmatch(rf"{re.escape(prefix)}-lock-[0-9a-f]{{{_DIGITS}}}", volume) is not None


def holders(client: docker.DockerClient, name: str) -> dict[str, Holder]:
    """Return who holds an environment's lock, by volume; none or one, but for moments."""
    found = client.volumes.list(filters={"label": f"{LABEL}={name}"})
    return {str(each.name): Holder(**json.loads(each.attrs["Labels"][_HOLDER])) for each in found}


def _mark_half(client: docker.DockerClient, workspace: Workspace, volume: str) -> None:
    """Where the data is half replaced, make the lock that stays, before ours goes."""
    if not _half_replaced(workspace.folder, workspace.name):
        return
    if mine := holders(client, workspace.name).get(volume):
        _make(client, workspace, f"{volume[:-_DIGITS]}{secrets.token_hex(_DIGITS // 2)}", replace(mine, half=True))
        workspace.reporter.say("The data is half replaced: other clones are locked out until that is finished here")


def _remove_left(client: docker.DockerClient, workspace: Workspace) -> None:
    """Remove what a holder that was killed has left running: a server must not start on what is still copied."""
    for label in one_off.LABELS:
        if removed := containers.remove_labelled(client, f"{label}={workspace.name}"):
            workspace.reporter.say(f"Removed what a run that is gone was still doing: {', '.join(removed)}")


def _make(client: docker.DockerClient, workspace: Workspace, volume: str, holder: Holder) -> None:
    # Other versions know no `half`.
    noted = {name: value for name, value in asdict(holder).items() if value is not False}
    client.volumes.create(volume, labels={LABEL: workspace.name, _HOLDER: json.dumps(noted)})


def _take(client: docker.DockerClient, workspace: Workspace, volume: str, doing: str, *, outer: Sequence[str]) -> None:
    mine = Holder(doing=doing, folder=str(workspace.folder.absolute()))
    _make(client, workspace, volume, mine)
    others = {name: each for name, each in holders(client, workspace.name).items() if name not in (volume, *outer)}
    for name, other in others.items():
        if not other.gone:
            raise ProjectError(
                f"{workspace.name} is being changed: {other}. One at a time: try again when that has ended. Only if "
                "that process is no more, and has left no restore or import half done in that folder: "
                f"{_removal(workspace, name)}"
            )
        if other.left(workspace.name) and not other.is_of(workspace.folder, workspace.name):
            raise ProjectError(
                f"{workspace.name} was left half done: {other} did not come to its end. Finish it there, by "
                f"`{workspace.typed('restore')}` or the same import. To give it up: {_removal(workspace, name)}"
            )
        if pulumi := _pulumi_at_work(workspace, Path(other.folder)):
            raise ProjectError(
                f"{workspace.name} is being changed: {other} is gone, and Pulumi, which it had started, goes on "
                f"(process {pulumi}). Try again when that has ended; `kill -INT {pulumi}` ends it."
            )
    # Only once none refuses: a lock that is taken over by who then gives way would protect nothing any more.
    for name, other in others.items():
        workspace.reporter.say(f"Taking over the lock of a run that is gone: {other}")
        remove_volumes(client, [name])


def _pulumi_at_work(workspace: Workspace, folder: Path) -> int:
    """Return the process of a Pulumi that still holds its own lock after a while; 0: none does.

    folder: of the working state of who started it. It was asked to end when that died, and notes what it has begun.
    """
    end, told = time.monotonic() + _PULUMI_SECONDS, False
    while live := [
        each.process
        for each in pulumi_state.locks(folder / "state", workspace.name)
        if each.is_here and not each.is_stale()
    ]:
        if time.monotonic() > end:
            return live[0]
        if not told:
            workspace.reporter.say(f"Waiting for Pulumi (process {live[0]}), whose run is gone")
        told = True
        time.sleep(0.5)
    return 0


def _removal(workspace: Workspace, volume: str) -> str:
    return f"{docker_command(workspace.settings().settings.docker_host)} volume rm {volume}"
