"""One log line, one id and the HTTP metrics for each request."""

import contextlib
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samokoder.metrics import HTTP_IN_PROGRESS, HTTP_METHODS, HTTP_REQUESTS, HTTP_SECONDS

#: The limit of a body stands inside RequestLog, which so sees its 413 as an answer; that of the application's own
#: `max_body_size` stands around it, and passes through it as an error.
BODY_BYTES: Final = 65_536
PROBES: Final = frozenset({"/health", "/ready", "/metrics"})
# What a client sends goes into our logs and into the answer, so only harmless characters, and few of them.
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = structlog.stdlib.get_logger(__name__)


def _count(scope: Scope, method: str, status: int | None, seconds: float) -> None:
    if status is not None:
        endpoint = getattr(scope.get("route"), "path", "unmatched")
        HTTP_REQUESTS.labels(method, endpoint, str(status)).inc()
        HTTP_SECONDS.labels(method, endpoint).observe(seconds)


def ready_answer(parts: Mapping[str, str]) -> JSONResponse:
    """Answer whether it is ready. parts: "ok" of each of what it needs, or what is wrong."""
    return probe_answer("ok" if set(parts.values()) == {"ok"} else "unavailable", **parts)


def probe_answer(status: str, **parts: str) -> JSONResponse:
    """Answer a probe, with 200 when the status is "ok" and 503 otherwise; parts: how each of what it needs is."""
    code = HTTPStatus.OK if status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"status": status, **parts}, code)


class RequestLog:
    """Give each request an id (the client's `X-Request-ID` when it is a sane one), and log and count how it ended.

    The query string stays out, since people put secrets there. Probes are not counted, and logged only when their
    answer has changed: they come each second, and would fill the log while something is away. A stream is counted when
    it begins. What `request.state.headers` holds goes into the answer, whoever makes it; at first that is `headers`.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.app = app
        self.headers = headers
        self._probed: dict[str, int | None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _GOOD_ID.fullmatch(offered) else uuid4().hex
        state = scope.setdefault("state", {})
        state |= {"request_id": request_id, "headers": dict(self.headers)}
        probe = scope["path"] in PROBES
        # A client can send any word as its method, and each would be a series.
        method = scope["method"] if scope["method"] in HTTP_METHODS else "other"
        status: int | None = None
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({"x-request-id": request_id, **state["headers"]})
                if headers.get("content-type", "").startswith("text/event-stream"):
                    counted.close()  # a stream lasts as long as its job, which says nothing of the API
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id), contextlib.ExitStack() as counted:
            if not probe:
                counted.enter_context(HTTP_IN_PROGRESS.labels(method).track_inprogress())
                counted.callback(lambda: _count(scope, method, status, time.perf_counter() - started))
            try:
                await self.app(scope, receive, send_with_headers)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status is not None:
                    raise
                answer = JSONResponse({"detail": "internal error"}, HTTPStatus.INTERNAL_SERVER_ERROR)
                await answer(scope, receive, send_with_headers)
            if probe and status == self._probed.get(scope["path"], HTTPStatus.OK):
                return
            if probe:
                self._probed[scope["path"]] = status
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                route=getattr(scope.get("route"), "path", None),
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 2),
                client=scope["client"][0] if scope.get("client") else None,
            )
