"""Keep secrets out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BOT_TOKEN = re.compile(r"/bot\d+:[\w-]+")


def without(secrets: Mapping[str, str], text: str) -> str:
    """Return `text` with each secret's name in place of its value."""
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        if value:
            text = text.replace(value, f"<{name}>")
    return text


def without_bot_token(text: str) -> str:
    """Return `text` without the token in a URL of Telegram.

    AlertManager before 0.35 logs that URL when it cannot connect (prometheus/alertmanager#5254).
    """
    return _BOT_TOKEN.sub("/bot<telegramBotToken>", text)
