"""Run a command in a new container, and read the output of a program in a container."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from host.progress import Task
from operations.engine.commands import frames
from operations.errors import ProjectError
from stack.common.names import NO_NEW_PRIVILEGES, NO_SEARCH_DOMAIN

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container


PROGRAM = "samokoder-backup"
LABELS = RESTORE, IMPORT = "samokoder.restore", "samokoder.import"
"""Labels, with the environment's name, of containers that only who holds its lock may run: those that write."""
HARDENED: Mapping[str, Any] = {
    "read_only": True,
    "init": True,
    "cap_drop": ["ALL"],
    "security_opt": [NO_NEW_PRIVILEGES],
}
"""The Docker SDK's options of each container that runs beside the stack; those in it are made by Pulumi."""
Chunks = Iterable[tuple[bytes | None, bytes | None]]

_REFUSED = 2
_LAST_LINES = 5


def run_once(
    client: docker.DockerClient,
    image: str,
    command: Sequence[str],
    *,
    task: Task,
    check: Callable[[int, Sequence[str]], None],
    prepare: Callable[[Container], None] = lambda _: None,
    **options: Any,
) -> str:
    """Run a command in a new container, remove the container, and return the command's standard output.

    The container has no network, unless an option gives it one, and can write only to what is mounted. `task` shows the
    progress. check: gets the exit status and the lines of standard error, and raises where the command failed. prepare:
    gets the container before it starts. options: of the SDK's `containers.create`.
    """
    container: Container = client.containers.create(
        image,
        list(command[1:]),
        entrypoint=[command[0]],
        healthcheck={"test": ["NONE"]},
        **HARDENED,
        **{"network_mode": "none", "dns_search": [NO_SEARCH_DOMAIN], **options},
    )
    try:
        prepare(container)
        with attached(container) as chunks:
            container.start()
            out, err = read(chunks, task)
        check(container.wait()["StatusCode"], err)
    finally:
        container.remove(force=True, v=True)
    return out


def attached(container: Container) -> AbstractContextManager[Chunks]:
    """Yield both streams of a container that is not started yet, so that no line is missed."""
    return streams(container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1}))


@contextmanager
def streams(socket: Any) -> Iterator[Chunks]:
    """Yield pairs from a container's socket: standard output or None, standard error or None. Close it at the end."""
    try:
        yield ((text, None) if number == 1 else (None, text) for number, text in frames(socket))
    finally:
        # The SDK's own reader leaves the open socket in a reference cycle with its answer, to the garbage collector.
        socket._response.close()  # noqa: SLF001 - there is no other way to it


def read(chunks: Chunks, task: Task) -> tuple[str, list[str]]:
    """Read both streams to their end; return standard output and the lines of standard error.

    The task shows the last line of standard error.
    """
    out, rest, lines = b"", b"", list[str]()
    for said, told in chunks:
        out += said or b""
        *whole, rest = (rest + (told or b"")).split(b"\n")
        lines += [text for line in whole if (text := line.decode(errors="replace").strip())]
        if lines:
            task.detail = lines[-1]
    if rest.strip():
        lines.append(rest.decode(errors="replace").strip())
    return out.decode(errors="replace"), lines


def check(words: Sequence[str], status: int, told: Sequence[str]) -> None:
    """Raise ProjectError unless a run of the backup program has ended well."""
    if status == _REFUSED:
        raise ProjectError(told[-1] if told else f"`{PROGRAM} {' '.join(words)}` refuses.")
    if status:
        said = "\n".join(told[-_LAST_LINES:]) or "(it said nothing)"
        raise ProjectError(f"`{PROGRAM} {' '.join(words)}` failed ({status}):\n{said}")
