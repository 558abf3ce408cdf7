"""An image that the engine builds from a folder of this clone, because nobody publishes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stack.common.names import PROJECT

ROOT = Path(__file__).resolve().parents[2]

# A registry that refuses at once, on the engine's host: with containerd's image store a build asks the registry of a
# `FROM` first, also for an image that is there, and where packets are dropped Docker Hub is silent for a minute.
_NO_REGISTRY = "localhost:1"


@dataclass(frozen=True, kw_only=True)
class Base:
    """An image that a `FROM` names."""

    argument: str
    """Build argument that has it."""
    reference: str
    title: str
    """Of the resource that tags a local image, and of the tag behind the project's name."""
    local: str | None
    """Id of the local image that has to be tagged as `reference` first: `FROM` cannot name an id."""


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image that the engine builds. The tag is the hash of all that goes into it, so a change is a new image."""

    title: str
    """Of the resource, and of the image on the engine behind the project's name: `reference-app`."""
    name: str
    context: Path
    bases: tuple[Base, ...]

    @property
    def arguments(self) -> dict[str, str]:
        """The build arguments."""
        return {base.argument: base.reference for base in self.bases}


def base_of(image: str, *, title: str, argument: str = "BASE") -> Base:
    """Describe what a built image stands on. image: reference, or the id of a local image."""
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
        # Caches of Python, mypy and Ruff; the .dockerignore is no folder, and counts.
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parent.parts):
            content = path.read_bytes()
            digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()
