"""The reference application's image: built on the engine from `reference_app/` where no image is configured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stack.settings import PROJECT, Environment

SOURCE = Path(__file__).resolve().parents[2] / "reference_app"


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image that the engine builds. The tag is the hash of all that goes into it, so a change is a new image."""

    name: str
    context: Path
    base: str
    """What `FROM` names."""
    local_base: str | None
    """Id of the local image that has to be tagged as `base` first: `FROM` cannot name an id."""


def reference_image(environment: Environment) -> BuiltImage:
    """Describe the reference application's image for this environment."""
    base = environment.image("python")
    digest = hashlib.sha256(f"{base}\n{_source_digest()}".encode()).hexdigest()[:16]
    local = base if base.startswith("sha256:") else None
    return BuiltImage(
        name=f"{PROJECT}-reference-app:{digest}",
        context=SOURCE,
        base=f"samokoder-reference-base:{base[7:19]}" if local else base,
        local_base=local,
    )


@cache
def _source_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(SOURCE)}:{len(content)}:".encode() + content)
    return digest.hexdigest()
