"""Run a small script on an engine's host, which is reached as `up` reaches it; a host without an answer is no error."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence

from host import ssh

_SECONDS = 20


def words(docker_host: str, script: str, *, enter: Sequence[str] = ()) -> Mapping[str, str]:
    """Return name -> value from the lines of two words that a script prints on the host; empty: it gives no answer.

    `tcp://` reaches only the engine and not its host. enter: the first words of a command, which run it in another
    network namespace of this machine.
    """
    if docker_host.startswith("tcp://"):
        return {}
    command = [*enter, "sh"] if docker_host.startswith("unix://") else [*ssh.command(docker_host), "sh"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        # The user's own start-up files may print anything, in any encoding.
        done = subprocess.run(
            command,
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
        lines = (line.split() for line in done.stdout.splitlines())
        return {line[0]: line[1] for line in lines if len(line) == 2}  # noqa: PLR2004 - a name, a value
    return {}
