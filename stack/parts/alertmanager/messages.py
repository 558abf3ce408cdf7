"""The messages to Telegram and e-mail: AlertManager's templates, in two languages.

`messages.tmpl` has the messages; `alert.tmpl` is the text about one alert, which all messages include. Both are written
in AlertManager's template language, with `@@word` in place of each translated word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Literal

Language = Literal["en", "ru"]

FILE = "messages.tmpl"
TELEGRAM = '{{ template "samokoder.telegram" . }}'
SUBJECT = '{{ template "samokoder.subject" . }}'
MAIL_TEXT = '{{ template "samokoder.mail.text" . }}'
MAIL_HTML = '{{ template "samokoder.mail.html" . }}'

# Words also occur inside quoted strings of Go templates and inside HTML: no quotation mark, backslash, <, > or &.
WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "firing": "FIRING",
        "resolved": "RESOLVED",
        "critical": "critical",
        "warning": "warning",
        "info": "info",
        "since": "Since",
        "already": "for",
        "lasted": "lasted",
        "day": "d",
        "hour": "h",
        "minute": "m",
        "second": "s",
        "dashboard": "Dashboard",
        "runbook": "Runbook",
        "logs": "Logs",
        "query": "Query",
        "silence": "Silence",
        "more": "More alerts",
        "all": "all alerts",
    },
    "ru": {
        "firing": "СРАБОТАЛО",
        "resolved": "РЕШЕНО",
        "critical": "критично",
        "warning": "предупреждение",
        "info": "к сведению",
        "since": "Началось",
        "already": "длится",
        "lasted": "длилось",
        "day": " д",
        "hour": " ч",
        "minute": " мин",
        "second": " сек",
        "dashboard": "Дашборд",
        "runbook": "Что делать",
        "logs": "Логи",
        "query": "Запрос",
        "silence": "Заглушить",
        "more": "Ещё алертов",
        "all": "все алерты",
    },
}


class _Page(Template):
    """A file with `@@word`, and `@@{alert}` for the text of alert.tmpl; Go's `$` and `{{ }}` are left unchanged."""

    delimiter = "@@"
    flags = re.NOFLAG  # string.Template ignores case by default


def messages_tmpl(language: Language) -> str:
    """Return the template file for AlertManager."""
    words = WORDS[language]
    return _Page(_text("messages.tmpl")).substitute(words, alert=_Page(_text("alert.tmpl")).substitute(words).rstrip())


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
