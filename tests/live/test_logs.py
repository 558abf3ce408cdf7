"""What `samokoder logs` makes of what a real engine sends."""

from __future__ import annotations

import secrets

import docker

from operations.cli import logs
from stack.settings.environment import Environment


def test_a_line_that_the_engine_keeps_in_pieces_comes_back_whole(
    engine: docker.DockerClient, local_images: Environment
) -> None:
    written = 'head -c 50000 /dev/zero | tr \'\\0\' x; echo; echo \'{"event": "done", "level": "error"}\'; echo -n end'
    container = engine.containers.create(
        local_images.image("redis"),
        ["-c", written],
        entrypoint=["sh"],
        name=f"samokoder-test-{secrets.token_hex(4)}",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
    )
    try:
        container.start()
        container.wait()
        log = {"redis": logs._lines("redis", container, follow=False, tail=None, since=None)}
        first, second, last = logs.in_order(log, None)
        assert first.text == "x" * 50_000, "the engine keeps 16 KiB at a time, each piece with a moment of its own"
        assert first.at.endswith("Z"), "the moment is the engine's, in UTC"
        assert second.readable().endswith("Z ERROR done")
        assert last.text == "end", "what has no end yet is shown too"
        begun = logs.since_when("1h")
        assert len(list(logs._lines("redis", container, follow=True, tail=2, since=begun))) == 2, "the last two"
    finally:
        container.remove(force=True, v=True)
