"""What a person reads: the messages to Telegram and e-mail, as AlertManager's templates, in two languages.

`messages.tmpl` has the messages, `alert.tmpl` what all of them say of one alert, both with AlertManager's own template
language in them and `@@word` in place of each word.
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

# Each stands inside a quoted string of a Go template as well, so: no quotation mark, no backslash, no <, > or &.
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
        "query": "Запрос",
        "silence": "Заглушить",
        "more": "Ещё алертов",
        "all": "все алерты",
    },
}


class _Page(Template):
    """A file with `@@word`, and `@@{alert}` for the other file; Go's own `$` and `{{ }}` stay as they are."""

    delimiter = "@@"
    flags = re.NOFLAG  # as it is written: the default ignores case


def messages_tmpl(language: Language) -> str:
    """Return the template file for AlertManager."""
    words = WORDS[language]
    return _Page(_text("messages.tmpl")).substitute(words, alert=_Page(_text("alert.tmpl")).substitute(words).rstrip())


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
