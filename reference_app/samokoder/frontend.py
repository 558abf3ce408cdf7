"""The page: `uvicorn samokoder.frontend:app --host 0.0.0.0 --port 8080`. It has no secret and asks the API alone.

All its paths but `/` and `/health` lie below `/app/`, so that one entry can serve both it and the API.
"""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote
from weakref import WeakSet

import httpx
import structlog
from starlette.applications import Starlette
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from samokoder.db import JobName
from samokoder.logs import set_up_logs
from samokoder.request_log import BODY_BYTES, RequestLog

API_SECONDS: Final = 5.0
#: No script and no style but this page's own files, none in the page itself, and no other site's page around it.
HEADERS: Final = {
    "content-security-policy": "default-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # under "no-referrer" browsers send `Origin: null` with our own forms
    "cache-control": "no-cache",
}

log = structlog.stdlib.get_logger(__name__)

API_URL: Final = os.environ.get("API_URL", "")
if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", API_URL):
    sys.stderr.write("samokoder's page refuses to start: API_URL must be like http://ingress:8000\n")
    sys.exit(os.EX_CONFIG)
set_up_logs("frontend")
# It escapes what goes into a file with a name of `.html`.
templates = Jinja2Templates(Path(__file__).parent / "frontend_files/templates")


def _failure(status: int, detail: str, retry: str = "", said: Mapping[str, object] = {}) -> httpx.Response:
    return httpx.Response(status, json={**said, "detail": detail}, headers={"retry-after": retry} if retry else {})


async def _ask(
    request: Request, method: str, path: str, *, stream: bool = False, key: str = "", **more: Any
) -> httpx.Response:
    """Ask the API in the name of our own client. key: by which it knows a request that it had before.

    An answer that is no success holds JSON with a `detail` for people. Its status is the page's: 503 when the API
    is away, 502 when somebody else answered. Of a stream, only such an answer has been read.
    """
    api: httpx.AsyncClient = request.app.state.api
    # Identity, since a stream's pieces are passed on as they are.
    headers = {"accept": "application/json", "accept-encoding": "identity", "x-request-id": request.state.request_id}
    # The address that was believed, never the header as it came. Even that is any text where all hops are trusted.
    headers["x-forwarded-for"] = quote(request.client.host, safe=":") if request.client else ""
    if key:
        headers["idempotency-key"] = key
    try:
        answer = await api.send(api.build_request(method, path, headers=headers, **more), stream=stream)
        if answer.is_success and ("event-stream" if stream else "json") in answer.headers.get("content-type", ""):
            return answer
        await answer.aread()
        said = dict(answer.json())
    except httpx.HTTPError as error:
        log.warning("the API is away", reason=type(error).__name__)
        return _failure(HTTPStatus.SERVICE_UNAVAILABLE, "The API does not answer.", "5")
    except (ValueError, TypeError):
        said = {}
    detail = said.pop("detail", f"status {answer.status_code}")
    if isinstance(detail, list):
        detail = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in detail)
    status = answer.status_code if answer.is_error else HTTPStatus.BAD_GATEWAY
    return _failure(status, f"The API says: {detail}.", answer.headers.get("retry-after", ""), said)


def _page(request: Request, name: str, answer: httpx.Response, **more: object) -> Response:
    """Show the page `name` about an answer; where that is no success, it says what is wrong."""
    headers = {key: value for key, value in answer.headers.items() if key == "retry-after"}
    return templates.TemplateResponse(request, name, {"answer": answer, **more}, answer.status_code, headers)


async def _first(_: Request) -> Response:
    """Lead to the page; who does not follow reads the product's name."""
    return HTMLResponse('<a href="/app/">Samokoder</a>\n', HTTPStatus.TEMPORARY_REDIRECT, {"location": "/app/"})


async def home(request: Request) -> Response:
    """Show how the API is, the form, and the newest projects; what can be asked is shown whatever cannot."""
    paths = ("/", "/health", "/ready", "/projects?limit=10")
    about, health, ready, projects = await asyncio.gather(*(_ask(request, "GET", path) for path in paths))
    worst = next((answer for answer in (health, ready, projects) if not answer.is_success), projects)
    shown = {"about": about, "health": health, "ready": ready, "projects": projects, "kinds": JobName}
    return _page(request, "home.html", worst, **shown, key=secrets.token_hex())


async def submit(request: Request) -> Response:
    """Create a project with a job, and go to the job; the same form sent again, after a failure too, makes no second.

    A form on another site's page is refused, by the headers that browsers set themselves; a client without them is
    no browser that somebody could have tricked.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # Over plain HTTP, browsers send the first one to localhost alone.
    own = site == "same-origin" if site else not origin or origin.partition("://")[2] == request.headers.get("host")
    if not own:
        return _page(request, "base.html", _failure(HTTPStatus.FORBIDDEN, "Another site's page sent this form."))
    form = dict(parse_qsl((await request.body()).decode(errors="replace")))
    if form.get("kind") not in list(JobName):
        return _page(request, "base.html", _failure(HTTPStatus.UNPROCESSABLE_ENTITY, "There is no such kind of job."))
    wanted = {"name": form.get("name", ""), "job": {"name": form["kind"]}}
    key = form.get("key", "") if re.fullmatch(r"[0-9a-f]{64}", form.get("key", "")) else secrets.token_hex()
    answer = await _ask(request, "POST", "/projects", key=key, json=wanted)
    if not answer.is_success:
        return _page(request, "base.html", answer)
    job = answer.json()["job"]  # none where its time is over: the form is an old one
    return RedirectResponse(f"/app/jobs/{job['id']}" if job else "/app/", HTTPStatus.SEE_OTHER)


async def show_job(request: Request) -> Response:
    """Show a job, which the page's script then watches."""
    return _page(request, "job.html", await _ask(request, "GET", f"/jobs/{request.path_params['job_id']}"))


async def watch_job(request: Request) -> Response:
    """Pass the API's stream of a job on."""
    path = f"/jobs/{request.path_params['job_id']}/events"
    # The API sends a comment every 15 s into a stream that has nothing to say: three missed ones, and it is dead.
    patience = httpx.Timeout(API_SECONDS, read=45.0)
    upstream = await _ask(request, "GET", path, stream=True, timeout=patience)
    return PassedOn(upstream) if upstream.is_success else _page(request, "base.html", upstream)


class PassedOn(StreamingResponse):
    """A stream of the API, piece by piece as it comes."""

    def __init__(self, upstream: httpx.Response) -> None:
        super().__init__(self._pieces(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self.upstream = upstream

    async def _pieces(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(httpx.HTTPError):  # a browser opens again what ended before the job did
            async for piece in self.upstream.aiter_raw():
                yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and let go of the API's side however it ends."""
        scope["app"].state.streams.add(self.upstream)
        async with contextlib.aclosing(self.upstream):
            await super().__call__(scope, receive, send)


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Hold the connections to the API; on SIGTERM end the streams, for which uvicorn would wait."""
    before, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
    app.state.streams = streams = WeakSet[httpx.Response]()

    def stop(number: int, frame: Any) -> None:
        for upstream in tuple(streams):
            asyncio.run_coroutine_threadsafe(upstream.aclose(), loop)
        if callable(before):
            before(number, frame)

    # The API is in the same stack: no proxy of the environment is for it. No limit: each stream holds a connection.
    async with httpx.AsyncClient(base_url=API_URL, timeout=API_SECONDS, limits=httpx.Limits(), trust_env=False) as api:
        app.state.api = api
        signal.signal(signal.SIGTERM, stop)
        yield


app = Starlette(
    routes=[
        Route("/", _first),
        Route("/health", lambda _: JSONResponse({"status": "ok"})),
        Route("/app/", home),
        Route("/app/projects", submit, methods=["POST"]),
        Route("/app/jobs/{job_id:uuid}", show_job),
        Route("/app/jobs/{job_id:uuid}/events", watch_job),
        Mount("/app/static", StaticFiles(directory=Path(__file__).parent / "frontend_files/static")),
    ],
    lifespan=_lifespan,
)
app.add_middleware(RequestBodyLimitMiddleware, max_body_size=BODY_BYTES)
app.add_middleware(RequestLog, headers=HEADERS)
app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=os.environ.get("TRUSTED_PROXIES", ""))
