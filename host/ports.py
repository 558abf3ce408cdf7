"""Ports of loopback that are free, each given once."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a port of that range may be
# free now and taken a second later.
FIRST, LAST = 20000, 32000
#: Ports that this process already got: a second call returns others, even before anything listens on the first ones.
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on. All are bound at the same time, so that they differ."""
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
