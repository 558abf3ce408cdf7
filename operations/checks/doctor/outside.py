"""Checks of `doctor` on services outside: Telegram and the mail server."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections.abc import Callable
from email.utils import getaddresses
from functools import partial

import httpx

from operations.checks.doctor.asked import EnvironmentAsked
from operations.errors import FailedError, NotConfiguredError, UnavailableError
from operations.workspace import pasted
from stack.common.names import PROJECT
from stack.parts.alertmanager.routing import mail_hello
from stack.settings.keys import key_of
from stack.settings.monitoring import Email

_SMTPS = 465
_REFUSED_FOR_NOW, _REFUSED = 400, 500
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


def ask_telegram(asked: EnvironmentAsked) -> str:
    """Ask Telegram whether the token is valid, and whether the bot may write to the chat."""
    telegram = asked.environment.settings.alertmanager.telegram
    if telegram is None:
        raise NotConfiguredError(f"{key_of('alertmanager', 'telegram')} is not set")
    refuse_short(httpx.URL(telegram.api_url).host)
    bot = f"{telegram.api_url}/bot{asked.secret('telegramBotToken')}"
    # No proxy from this machine's variables: AlertManager uses none either.
    with httpx.Client(timeout=asked.seconds / 2, trust_env=False) as client:
        try:
            me = client.get(f"{bot}/getMe")
            # sendChatAction fails where the bot cannot write; getChat succeeds for a group that became a supergroup.
            asked_for: dict[str, str | int] = {"chat_id": telegram.chat_id, "action": "typing"}
            if telegram.message_thread_id:
                asked_for["message_thread_id"] = telegram.message_thread_id
            chat = client.get(f"{bot}/sendChatAction", params=asked_for)
        except httpx.TransportError as error:  # its text may have the URL, which has the token
            raise UnavailableError(f"{telegram.api_url} cannot be reached from here ({type(error).__name__})") from None
    if me.status_code in (_UNAUTHORIZED, _NOT_FOUND):
        raise FailedError(f"Telegram does not know the token: set {PROJECT}:telegramBotToken as BotFather gives it")
    if me.status_code != _OK:
        raise FailedError(f"{telegram.api_url} answers {me.status_code}")
    name = me.json()["result"]["username"]
    if chat.status_code != _OK:
        why, moved = _refused(chat)
        if moved:
            line = f"pulumi config set --path {key_of('alertmanager', 'telegram', 'chat_id')} -- {moved}"
            told = f"became a supergroup, whose id is {moved}: {pasted.command(asked.environment.name, line)}"
            raise FailedError(f"the chat {telegram.chat_id} {told}")
        if "thread" in why:
            key = key_of("alertmanager", "telegram", "message_thread_id")
            raise FailedError(f"the chat {telegram.chat_id} has no topic {telegram.message_thread_id} ({why}): {key}")
        told = f"@{name} may not write to the chat {telegram.chat_id} ({why})"
        raise FailedError(f"{told}: add it there, or say /start to it")
    where = f", topic {telegram.message_thread_id}" if telegram.message_thread_id else ""
    return f"@{name} is let in, and may write to the chat {telegram.chat_id}{where}"


def refuse_short(host: str) -> None:
    """Raise FailedError for a name without a dot: this machine may add its search domain, but containers have none."""
    if "." not in host and ":" not in host and host != "localhost":
        raise FailedError(f"containers do not know the search domain of their host: write the whole name of {host}")


def _refused(answer: httpx.Response) -> tuple[str, int]:
    """Return Telegram's reason for a refusal, and the new id of a group that became a supergroup; else 0."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = answer.json()
        return str(said["description"])[:200], int(said.get("parameters", {}).get("migrate_to_chat_id", 0))
    return f"it answers {answer.status_code}", 0


def ask_mail_server(asked: EnvironmentAsked) -> str:
    """Greet the mail server by the name that AlertManager gives, log in, name the recipient, send nothing."""
    email = asked.environment.settings.alertmanager.email
    if email is None:
        raise NotConfiguredError(f"{key_of('alertmanager', 'email')} is not set")
    host, _, port = email.smarthost.partition(":")
    refuse_short(host)
    tls = int(port) == _SMTPS
    try:
        # Without a context of ours Python accepts every certificate, and AlertManager does not.
        context, hello = ssl.create_default_context(), mail_hello(asked.environment)
        kind = partial(smtplib.SMTP_SSL, context=context) if tls else smtplib.SMTP
        with kind(host, int(port), local_hostname=hello, timeout=asked.seconds / 2) as server:
            server.ehlo_or_helo_if_needed()
            if email.require_tls and not tls:
                server.starttls(context=context)
                server.ehlo_or_helo_if_needed()
            if email.username:
                server.login(email.username, asked.secret("smtpPassword"))
            _may_send(server, email)
    except smtplib.SMTPAuthenticationError as error:
        raise FailedError(f"{email.smarthost} refuses the login of {email.username} ({error.smtp_code})") from None
    except smtplib.SMTPHeloError as error:
        key, said = key_of("alertmanager", "email", "hello"), error.smtp_error
        why = said.decode(errors="replace") if isinstance(said, bytes) else said
        text = f"{email.smarthost} refuses the greeting by {hello} ({error.smtp_code} {why}): {key}"
        raise FailedError(text) from None
    except smtplib.SMTPNotSupportedError as error:
        raise FailedError(f"{email.smarthost}: {error}") from None
    except (OSError, smtplib.SMTPException) as error:
        text = f"{email.smarthost} cannot be spoken to from here: {error}"
        raise (UnavailableError if asked.elsewhere else FailedError)(text) from None
    return f"{email.smarthost} answers" + (f" and lets {email.username} in" if email.username else "")


def _may_send(server: smtplib.SMTP, email: Email) -> None:
    """Name sender and recipients, and send nothing: many servers refuse a greeting or a sender only then."""
    (_, sender), *_ = getaddresses([email.sender])
    questions: dict[str, Callable[[], tuple[int, bytes]]] = {f"mail from {sender}": partial(server.mail, sender)}
    for _, address in getaddresses([email.recipient]):
        questions[f"mail to {address}"] = partial(server.rcpt, address)
    for what, ask in questions.items():
        code, said = ask()
        if code >= _REFUSED_FOR_NOW:
            text = f"{email.smarthost} refuses {what} ({code} {said.decode(errors='replace')})"
            hello = f"; it was greeted by the name in {key_of('alertmanager', 'email', 'hello')}"
            raise FailedError(text + hello) if code >= _REFUSED else UnavailableError(f"{text}, for now")
    server.rset()
