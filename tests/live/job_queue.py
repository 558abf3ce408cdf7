"""Jobs and keys of an application in the Redis of a stack that is up, in a queue that no worker of it takes from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import docker
import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.engine import containers
from operations.workspace.workspace import Workspace
from stack.parts.redis import spec as redis
from tests.render.conftest import address, output, wait_until
from tests.written import Application

if TYPE_CHECKING:
    from docker.models.containers import Container

# A command that Redis can read, and refuses: the queue, in database 0, is no number.
_REFUSED = """set -eu
cd /data/appendonlydir
last=$(sed -n 's/^file \\(.*\\) seq [0-9]* type i$/\\1/p' appendonly.aof.manifest | tail -n 1)
printf '*2\\r\\n$6\\r\\nSELECT\\r\\n$1\\r\\n0\\r\\n*2\\r\\n$4\\r\\nINCR\\r\\n$%s\\r\\n%s\\r\\n' {size} {name} >> "$last"
"""


@dataclass
class Queue:
    """Jobs in a stack's Redis."""

    workspace: Workspace
    engine: docker.DockerClient
    name: str
    before: dict[str, object] = field(default_factory=dict)

    @property
    def server(self) -> Container:
        return containers.find(self.engine, self.workspace.settings(), redis.PART)

    @property
    def password(self) -> str:
        return self.workspace.open().secrets()["redis-app"]

    @property
    def application(self) -> Application:
        return Application(host=address(self.server), password=self.password, name=self.name)

    def put(self) -> None:
        self.before = self.application.write()
        self.application.settle()

    def holds(self) -> None:
        """Check that all of it is there still, and that each job runs once."""
        self.is_ready()
        self.application.holds(self.before)

    def damage(self, script: str) -> None:
        """Kill Redis, damage its volume, and see that it starts in vain."""
        server = self.server
        server.kill()
        server.wait()
        self.over_its_volume(script)
        server.start()
        end = time.monotonic() + 180
        while not self.restarts():
            assert time.monotonic() < end, "Redis reads what is damaged"
            time.sleep(0.5)

    def over_its_volume(self, script: str) -> None:
        """Run a script in the volume of the server, which does not run."""
        server = self.server
        (volume,) = (each["Name"] for each in server.attrs["Mounts"] if each["Destination"] == "/data")
        self.engine.containers.run(
            server.attrs["Image"],
            ["-c", script],
            entrypoint="sh",
            user="999:999",
            network_mode="none",
            volumes={volume: {"bind": "/data"}},
            remove=True,
        )

    def gets_a_refused_command(self) -> None:
        """Append a command to the file of the stopped server that it will refuse, and start it."""
        server = self.server
        server.stop()
        self.over_its_volume(_REFUSED.format(size=len(self.name), name=self.name))
        server.start()
        self.is_ready()

    def is_ready(self) -> None:
        """Wait for the server."""
        server = self.server
        wait_until(server, lambda: output(server, "/etc/samokoder/healthy.sh")[0] == 0)

    def restarts(self) -> bool:
        server = self.server
        return bool(server.attrs["RestartCount"]) or server.status == "restarting"

    def repair(self) -> str:
        """Repair it as a person without a terminal does."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("operations.cli.common.workspace_of", lambda _: self.workspace)
            asked = CliRunner().invoke(command.app, ["repair", redis.PART])
            assert asked.exit_code == 2, asked.output
            assert "pass --yes" in asked.output
            done = CliRunner().invoke(command.app, ["repair", redis.PART, "--yes"])
        assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
        return done.output
