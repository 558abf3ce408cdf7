"""An image that the engine builds from a folder of this clone, because no registry has it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stack.common.names import PROJECT

ROOT = Path(__file__).resolve().parents[2]

# An address on the engine's host that refuses connections at once. With containerd's image store a build asks the
# registry of each `FROM`, even for an image that the engine has; behind a firewall that drops packets, a request to
# Docker Hub would hang for a minute.
_NO_REGISTRY = "localhost:1"


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base image: the image of a `FROM` line."""

    argument: str
    """Name of the build argument that carries the reference."""
    reference: str
    title: str
    """Name of the resource that tags a local image; the tag is the project's name and this title."""
    local: str | None
    """Id of a local image that must be tagged as `reference` first, because `FROM` cannot name an id; else None."""


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image that the engine builds. Its tag is a hash of all its inputs, so a change of an input is a new image."""

    title: str
    """Name of the resource, such as `reference-app`; the image's name is the project's name and this title."""
    name: str
    context: Path
    bases: tuple[Base, ...]

    @property
    def arguments(self) -> dict[str, str]:
        """The build arguments."""
        return {base.argument: base.reference for base in self.bases}


def base_of(image: str, *, title: str, argument: str = "BASE") -> Base:
    """Describe the base of a built image. image: a reference, or the id of a local image."""
    local = image if image.startswith("sha256:") else None
    reference = f"{_NO_REGISTRY}/{PROJECT}-{title}:{image[7:19]}" if local else image
    return Base(argument=argument, reference=reference, title=title, local=local)


def built_image(title: str, *, folder: str, bases: Sequence[Base]) -> BuiltImage:
    """Describe the image of a folder of the clone."""
    context = ROOT / folder
    parts = "\n".join([*(base.local or base.reference for base in bases), _source_digest(context)])
    digest = hashlib.sha256(parts.encode()).hexdigest()[:16]
    return BuiltImage(title=title, name=f"{PROJECT}-{title}:{digest}", context=context, bases=tuple(bases))


@cache
def _source_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        # Skips cache folders of Python, mypy and Ruff; the file .dockerignore is hashed, because it changes the image.
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parent.parts):
            content = path.read_bytes()
            digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()
