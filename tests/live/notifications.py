"""The stand-in for what a stack speaks to outside, as a test sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import docker
import httpx

from host.ports import free_ports
from operations.engine import containers
from stack.common.names import NetworkName
from stack.settings.environment import Environment

NAME = "stand-in"
SERVER = Path(__file__).parent / "stand_in" / "server.py"
PACKAGES = ("aiosmtpd", "attr", "attrs", "public")
# So long that only something that never comes meets it.
PATIENCE_SECONDS = 600.0


@dataclass
class StandIn:
    """What has been delivered."""

    port: int
    seen: int = field(default=0)

    def received(self, kind: str = "") -> list[dict[str, Any]]:
        """Return all that has come, oldest first; of one kind, where one is named."""
        everything: list[dict[str, Any]] = httpx.get(f"http://127.0.0.1:{self.port}/received", timeout=30).json()
        return [each for each in everything if not kind or each["kind"] == kind]

    def texts(self, kind: str) -> list[str]:
        """Return the texts of one kind: a mail's with its subject."""
        return [f"{each.get('subject', '')}\n{each['text']}" for each in self.received(kind)]

    def wait_for(
        self, kind: str, what: str, good: Callable[[str], bool], *, meanwhile: Callable[[], object] = lambda: None
    ) -> str:
        """Return the first text of a kind that is good; AssertionError with all texts where none comes.

        meanwhile: done between two looks.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            for text in self.texts(kind):
                if good(text):
                    return text
            meanwhile()
            time.sleep(1)
        raise AssertionError(f"{what} never came by {kind}; what came:\n" + "\n---\n".join(self.texts(kind)))

    def refuse_telegram(self, refused: bool) -> None:
        """Have Telegram refuse everything, or take it again."""
        httpx.post(f"http://127.0.0.1:{self.port}/refused", json={"telegram": refused}, timeout=30).raise_for_status()


@contextmanager
def stand_in(engine: docker.DockerClient, environment: Environment, token: str = "") -> Iterator[StandIn]:
    """Run the stand-in in the network `edge` of an environment, by the name that its settings have.

    It is made from the API's image, which has Python. token: that of the Telegram bot; empty: it is no bot.
    """
    image = str(containers.find(engine, environment, "api-1").attrs["Image"])
    token = token or "no bot here"
    packages = {}
    for package in PACKAGES:
        found = find_spec(package)
        assert found, f"{package} is not installed"
        assert found.origin
        packages[str(Path(found.origin).parent)] = {"bind": f"/site/{package}", "mode": "ro"}
    (port,) = free_ports(1)
    network = f"{environment.prefix}-{NetworkName.EDGE}"
    container = engine.containers.run(
        image,
        ["/server.py", token],
        entrypoint=["python"],
        detach=True,
        network=network,
        networking_config={network: engine.api.create_endpoint_config(aliases=[NAME])},
        environment={"PYTHONPATH": "/site", "PYTHONDONTWRITEBYTECODE": "1"},
        volumes={**packages, str(SERVER): {"bind": "/server.py", "mode": "ro"}},
        ports={"8080/tcp": ("127.0.0.1", port)},
        user="10001:10001",
        cap_drop=["ALL"],
        read_only=True,
        init=True,
        healthcheck={"test": ["NONE"]},  # the image's own asks the API
    )
    try:
        client = StandIn(port)
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                client.received()
                break
            except httpx.TransportError:
                assert time.monotonic() < end, container.logs().decode()
                time.sleep(0.2)
        yield client
    finally:
        container.remove(force=True)
