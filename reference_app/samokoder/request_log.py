"""One log line and one id for each request."""

from __future__ import annotations

import re
import time
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBES: Final = frozenset({"/health", "/ready", "/metrics"})
# What a client sends goes into our logs and into the answer, so only harmless characters, and few of them.
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = structlog.stdlib.get_logger(__name__)


class RequestLog:
    """Give each request an id (the client's `X-Request-ID` when it is a sane one), and log how it ended.

    The query string stays out, since people put secrets there. Probes are logged only when they fail.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _GOOD_ID.fullmatch(offered) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status: int | None = None
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status is not None:
                    raise
                answer = JSONResponse({"detail": "internal error"}, HTTPStatus.INTERNAL_SERVER_ERROR)
                await answer(scope, receive, send_with_id)
            if scope["path"] in PROBES and status == HTTPStatus.OK:
                return
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                route=getattr(scope.get("route"), "path", None),
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 2),
                client=scope["client"][0] if scope.get("client") else None,
            )
