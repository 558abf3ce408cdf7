"""The page of AlertManager where it is built here: what can be told without a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from offline.alertmanager_page import lay, page, stored_brotli
from offline.programs import PROGRAMS, SOURCES

FOLDER = SOURCES / "alertmanager" / "page"
PAGE = page(FOLDER)
TEXTS: dict[str, dict[str, str]] = json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
SCRIPTS = "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.js")))
HTML = (FOLDER / "index.html").read_text(encoding="utf-8")
LARGEST_BYTES = 48 * 1024


def unstored(stream: bytes) -> bytes:
    """Read a Brotli stream of uncompressed blocks alone, bit by bit as RFC 7932 (9.1, 9.2) describes it."""
    at, content = 0, b""

    def bits(count: int) -> int:
        nonlocal at
        value = sum((stream[(at + n) // 8] >> (at + n) % 8 & 1) << n for n in range(count))
        at += count
        return value

    assert bits(1) == 0, "a window of 16 bits"
    while True:
        if bits(1):
            assert bits(1) == 1, "the last block is an empty one"
            assert (at + 7) // 8 == len(stream), "nothing comes after it"
            return content
        assert bits(2) == 0, "four nibbles of length"
        length = bits(16) + 1
        assert bits(1) == 1, "uncompressed"
        start = (at + 7) // 8
        assert bits(start * 8 - at) == 0, "a decoder refuses anything but zeros up to the next byte"
        content += stream[start : start + length]
        at = (start + length) * 8


@pytest.mark.parametrize("size", [0, 1, 255, 65_535, 65_536, 65_537, 200_000])
def test_a_stored_brotli_stream_holds_its_content(size: int) -> None:
    content = hashlib.shake_256(b"page").digest(size)
    assert unstored(stored_brotli(content)) == content


def test_both_encodings_hold_the_same_page(tmp_path: Path) -> None:
    lay(PAGE, tmp_path / "dist")
    found = {path.name: path.read_bytes() for path in (tmp_path / "dist").iterdir()}
    assert found.keys() == {"index.html.br", "index.html.gz"}, "AlertManager answers 404 where one is missing"
    assert gzip.decompress(found["index.html.gz"]) == unstored(found["index.html.br"]) == PAGE.encode()
    assert len(PAGE.encode()) < LARGEST_BYTES, "it lies in the program, and is small because it has no library"


def test_alertmanager_gets_the_page_in_the_folder_that_it_serves() -> None:
    module = "github.com/prometheus/alertmanager"
    assert PROGRAMS["alertmanager"].own_page == (module, "ui/app/dist")
    assert module in PROGRAMS["alertmanager"].without, "only a copied module can get files"


def test_both_languages_say_the_same_things() -> None:
    assert TEXTS.keys() == {"en", "ru"}
    assert TEXTS["en"].keys() == TEXTS["ru"].keys()
    for key, words in TEXTS["en"].items():
        there = TEXTS["ru"][key]
        assert words.strip(), key
        assert there.strip(), key
        assert sorted(re.findall(r"\{\d\}", words)) == sorted(re.findall(r"\{\d\}", there)), key


def test_every_text_that_is_asked_for_is_there_and_none_is_left_over() -> None:
    asked = set(re.findall(r'(?:\btext\(|\btext: |\blabel: |\bfield\(|\bfact\(|\btitle: |\bby\()"(\w+)"', SCRIPTS))
    asked |= set(re.findall(r'data-(?:text|label)="(\w+)"', HTML))
    assert asked <= TEXTS["en"].keys(), "a page with `undefined` in it"
    named = set(re.findall(r'"(\w+)"', SCRIPTS + HTML)) | {"language"}  # `TEXTS[other].language`: its own name
    assert TEXTS["en"].keys() <= named, "a text that nobody reads"


def test_the_page_names_no_address_and_makes_no_markup_of_what_it_gets() -> None:
    assert not re.findall(r"https?://|//[a-z0-9-]+\.[a-z]|@import|\burl\(", PAGE), "it would ask somebody outside"
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser"
    assert not re.findall(ways, PAGE), "a label with markup in it would be run with the rights of the page"
    assert not re.findall(r"\sstyle=|\son\w+=", PAGE), "the policy stops it"


def test_the_policy_allows_the_pages_own_script_and_style_and_its_own_address_alone() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', PAGE)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{tag}>(.*)</{tag}>", PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'", "the browser would not run it"
        assert f"</{tag}" not in content, "it would end there"
        assert "\r" not in content, "a browser counts a line's end as one byte"
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_every_field_has_a_name_and_every_colour_one_for_the_night() -> None:
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    light, dark = (set(re.findall(r"(--\w+):", block)) for block in re.findall(r":root \{([^}]*)\}", style))
    assert light == dark, "a colour of the day on the ground of the night"
    assert set(re.findall(r"var\((--\w+)\)", style)) <= light
    colours = re.findall(r"#[0-9a-f]{3,6}\b", re.sub(r":root \{[^}]*\}", "", style))
    assert not colours, "it has none for the night"
