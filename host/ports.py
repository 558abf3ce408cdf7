"""Ports of loopback that are free, each given once."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a port from there is free
# now and somebody's a second later.
FIRST, LAST = 20000, 32000
#: What this process was given: what asks twice gets other ports, also where nothing listens on the first ones yet.
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on. Held open together, so that they differ."""
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
