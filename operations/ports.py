"""Ports for an environment beside others on the same machine: for tests and measurements."""

from __future__ import annotations

import contextlib
import socket

from pydantic.alias_generators import to_camel

from stack.settings import PROJECT, Published, Settings


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on. Held open together, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def own_ports() -> dict[str, dict[str, int]]:
    """Configuration that gives every published part a port that is free now."""
    published = [
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.get_default(call_default_factory=True), Published)
    ]
    ports = zip(published, free_ports(len(published)), strict=True)
    return {f"{PROJECT}:{to_camel(name)}": {"port": port} for name, port in ports}
