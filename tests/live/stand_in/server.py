"""What a test stack speaks to outside: Telegram's bot API, a mail server, a webhook, a heartbeat, an LLM. One process.

It runs in a container in the stack's own network and keeps what it gets; the test asks for it over loopback.
`python server.py TOKEN` with the packages starlette, uvicorn and aiosmtpd.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import itertools
import sys
import time
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import uvicorn
from aiosmtpd.controller import Controller
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

HTTP_PORT, SMTP_PORT = 8080, 8025
# As Telegram itself (Bot API, "sendMessage").
LONGEST_MESSAGE = 4096

received: list[dict[str, Any]] = []
refused: dict[str, bool] = {"telegram": False}
answers = itertools.count(1)


class Mailbox:
    """Takes every mail."""

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's
        """Keep one mail: its headers and its parts as text."""
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        parts = {part.get_content_type(): part.get_content() for part in mail.walk() if not part.is_multipart()}
        keep("email", subject=str(mail["subject"]), to=str(mail["to"]), text="\n".join(parts.values()))
        return "250 OK"


def keep(kind: str, **what: Any) -> None:
    """Remember one notification."""
    received.append({"kind": kind, "at": time.time(), **what})


async def telegram(request: Request) -> Response:
    """Answer as the bot API does: 401 for another token, 400 for a message that it would not take."""
    if request.path_params["token"] != sys.argv[1] or refused["telegram"]:
        return JSONResponse({"ok": False, "error_code": 401, "description": "Unauthorized"}, 401)
    if request.path_params["method"] != "sendMessage":
        return JSONResponse({"ok": False, "error_code": 404, "description": "Not Found"}, 404)
    body = await request.json()
    text = body.get("text", "")
    if not text or len(text) > LONGEST_MESSAGE:
        return JSONResponse({"ok": False, "error_code": 400, "description": "Bad Request: message is too long"}, 400)
    keep("telegram", text=text, chat=str(body["chat_id"]), parse_mode=body.get("parse_mode", ""))
    chat = {"id": int(body["chat_id"]), "type": "supergroup", "title": "on call"}
    return JSONResponse(
        {"ok": True, "result": {"message_id": len(received), "date": int(time.time()), "chat": chat, "text": text}}
    )


async def posted(request: Request) -> Response:
    """Keep what AlertManager posts to a webhook or to the heartbeat."""
    keep(request.path_params["kind"], path=request.url.path, body=await request.json())
    return Response(status_code=200)


async def complete(request: Request) -> Response:
    """Answer as an OpenAI-compatible provider does: no two answers are alike, and some providers are slow."""
    body = await request.json()
    await asyncio.sleep(request.path_params.get("seconds", 0))
    message = {"role": "assistant", "content": f"print('written {next(answers)}')"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 500}
    return JSONResponse({"model": body["model"], "choices": [{"message": message}], "usage": usage})


async def show(_request: Request) -> Response:
    """Answer with all that has come."""
    return JSONResponse(received)


async def refuse(request: Request) -> Response:
    """From now on refuse, or take again, what Telegram gets."""
    refused["telegram"] = (await request.json())["telegram"]
    return JSONResponse(refused)


@contextlib.asynccontextmanager
async def mail_server(_app: Starlette) -> AsyncIterator[None]:
    """Listen for mail as long as for HTTP."""
    controller = Controller(Mailbox(), hostname="0.0.0.0", port=SMTP_PORT)  # noqa: S104 - in a container of its own
    controller.start()
    yield
    controller.stop()


app = Starlette(
    lifespan=mail_server,
    routes=[
        Route("/received", show),
        Route("/refused", refuse, methods=["POST"]),
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/slow/{seconds:float}/v1/chat/completions", complete, methods=["POST"]),
        Route("/bot{token}/{method}", telegram, methods=["POST"]),
        Route("/{kind}/{secret}", posted, methods=["POST"]),
    ],
)

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=HTTP_PORT, log_level="warning")  # noqa: S104 - in a container of its own
