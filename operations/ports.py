"""Ports for an environment beside others on the same machine: for tests and measurements."""

from __future__ import annotations

import contextlib
import random
import socket

from pydantic.alias_generators import to_camel

from stack.common.names import PROJECT
from stack.settings.part import Published
from stack.settings.tree import Settings

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a port from there is free
# now and somebody's a second later.
FIRST, LAST = 20000, 32000
#: What this process was given: what asks twice gets other ports, also where nothing listens on the first ones yet.
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on. Held open together, so that they differ."""
    if len(_given) > (LAST - FIRST) // 2:
        _given.clear()
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.randint(FIRST, LAST)  # noqa: S311 - no secret
            if port in _given:
                continue
            one = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                ports.append(port)
    _given.update(ports)
    return ports


def own_ports() -> dict[str, dict[str, int]]:
    """Configuration that gives every published part ports that are free now."""
    fields = {
        (name, port)
        for name, field in Settings.model_fields.items()
        if isinstance(part := field.get_default(call_default_factory=True), Published)
        for port in ("port", "https_port")
        if port in type(part).model_fields
    }
    ports: dict[str, dict[str, int]] = {}
    for (name, field_name), number in zip(sorted(fields), free_ports(len(fields)), strict=True):
        ports.setdefault(f"{PROJECT}:{to_camel(name)}", {})[to_camel(field_name)] = number
    return ports
