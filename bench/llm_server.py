"""A local OpenAI-compatible server with a fixed latency, which fails as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

PROMPT_TOKENS, COMPLETION_TOKENS = 1000, 500


@dataclass
class LlmServer:
    """One provider. `plan` says how the next calls go; after it, and for "good", they are answered.

    A step is "good", "hang", "garbage", "empty", a status like "500", or "429 7": 429 with Retry-After 7.
    """

    latency_seconds: float = 0.0
    text: str = "print('written')"
    plan: deque[str] = field(default_factory=deque)
    always: str = "good"
    calls: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    now: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def _complete(self, request: Request) -> Response:
        self.calls.append({"authorization": request.headers["authorization"], **await request.json()})
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            return await self._answer(self.plan.popleft() if self.plan else self.always, self.calls[-1]["model"])
        finally:
            self.now -= 1

    async def _answer(self, step: str, model: str) -> Response:
        await asyncio.sleep(3600 if step == "hang" else self.latency_seconds)
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
        if step in {"good", "empty"}:
            message = {"role": "assistant", "content": self.text if step == "good" else None}
            return JSONResponse({"model": model, "choices": [{"message": message}], "usage": usage})
        if step == "garbage":
            return PlainTextResponse("<html>a proxy's page</html>")
        status, _, wait = step.partition(" ")
        return JSONResponse({"error": "no"}, int(status), {"retry-after": wait} if wait else None)

    @contextlib.contextmanager
    def running(self) -> Iterator[LlmServer]:
        """Serve in a thread of its own."""
        app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="critical", timeout_graceful_shutdown=0))
        # Accepts from now on, and answers a little later. All who call at once find a place.
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
            self.port = listening.getsockname()[1]
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join()
