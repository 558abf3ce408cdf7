"""The search for what users sent finds it in each form in which a log may have it: what is planted here is found."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote_plus

import pytest

from tests.leaks import found

USED = {"password": "pass word/7", "both": "kim@example.org:pass word/7"}
HARMLESS = json.dumps(
    [
        {"_msg": "2026-11-23 10:05:00.123 UTC [7] app@samokoder LOG:  duration: 1200 ms", "part": "postgres"},
        {"_msg": '{"uri": "/auth/me?REDACTED", "request_id": "eyJ"}', "part": "ingress"},
        {"_msg": "main.go:7 github.com/somebody/something@v1.2.3", "part": "logs"},
    ]
)


def test_harmless_logs_have_nothing_of_a_user() -> None:
    assert found(HARMLESS, USED) == []


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ("FATAL: pass word/7", ["password"]),
        (f"GET /auth/me?secret={quote_plus('pass word/7')}", ["password"]),
        (f"Basic {base64.b64encode(b'kim@example.org:pass word/7').decode()}", ["both"]),
        ("DETAIL:  Key (email)=(kim@example.org) already exists.", ["an e-mail address"]),
        ("GET /auth/me?user=1f00@smoke.invalid", ["an e-mail address"]),
        ("GET /auth/me?user=kim%40example.org", ["an e-mail address"]),
        ("Bearer eyJhbGciOiJIUzI1.eyJpc3MiOiJzYW1.c2lnbmF0dXJl", ["a token"]),
        ("parameters: $1 = '$argon2id$v=19$m=19456'", ["a hash of a password"]),
    ],
)
def test_what_is_planted_in_logs_is_found(planted: str, told: list[str]) -> None:
    rows = [*json.loads(HARMLESS), {"_msg": planted, "part": "api"}]
    assert found(json.dumps(rows), USED) == told
