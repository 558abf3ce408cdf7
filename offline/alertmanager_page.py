"""The page of AlertManager for a host without a container registry, put together as AlertManager's own code serves it.

Upstream's page is written in Elm, whose packages no package registry has. Ours lies in `offline/go/alertmanager/page`;
it is one file without a library, and asks AlertManager's API at its own address alone.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path

_SCRIPTS = ("basics.js", "alerts.js", "silences.js", "app.js")
_LONGEST_BLOCK = 1 << 16


def page(folder: Path) -> str:
    """Return the page as one HTML file, whose policy lets a browser run nothing but what is in it.

    folder: `index.html` with places for the policy, the style and the script; the style, the scripts, the texts.
    """
    style = (folder / "style.css").read_text(encoding="utf-8").strip()
    texts = json.dumps(json.loads((folder / "texts.json").read_text(encoding="utf-8")), ensure_ascii=False)
    parts = ['"use strict";', f"const TEXTS = {texts};"]
    parts += [(folder / name).read_text(encoding="utf-8").strip() for name in _SCRIPTS]
    script = "\n".join(parts)
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    made = (folder / "index.html").read_text(encoding="utf-8")
    for place, content in (("@policy@", policy), ("@style@", style), ("@script@", script)):
        before, after = made.split(place)
        made = before + content + after
    return made


def lay(text: str, folder: Path) -> None:
    """Write a page into a new folder, in both encodings that AlertManager serves; it answers 404 without."""
    folder.mkdir(parents=True)
    (folder / "index.html.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (folder / "index.html.br").write_bytes(stored_brotli(text.encode()))


def stored_brotli(content: bytes) -> bytes:
    """Return a Brotli stream (RFC 7932) that holds `content` uncompressed: Python has no compressor of that kind.

    On loopback the size does not matter. Each block begins with its length less one in 16 bits; the first one has a bit
    more before it, for the window.
    """
    blocks = [content[at : at + _LONGEST_BLOCK] for at in range(0, len(content), _LONGEST_BLOCK)]
    stream = bytearray()
    for number, block in enumerate(blocks):
        shift = 4 if number == 0 else 3
        stream += ((len(block) - 1 | 1 << 16) << shift).to_bytes(3, "little") + block
    return bytes(stream) + (b"\x03" if blocks else b"\x06")


def _source(text: str) -> str:
    """Return the source of a policy that allows this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
