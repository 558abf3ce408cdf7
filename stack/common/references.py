"""Parse image references, `[registry/]path[:tag][@sha256:…]`, and refuse invalid ones."""

from __future__ import annotations

import re
from dataclasses import dataclass


class ImageReferenceError(ValueError):
    """A text is not an image reference. problem: why it is not. instead: what to write.

    The message does not contain the given text, because that may contain a registry's password.
    """

    def __init__(self, problem: str, instead: str) -> None:
        self.problem = problem
        self.instead = instead
        super().__init__(f"{problem}; write {instead}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageReference:
    """A parsed reference.

    `repository` is registry and path as they were written (`prom/prometheus`, `ghcr.io/google/cadvisor`);
    it is empty for a local image, which exists only on the engine and is named by its id. `digest` is
    `sha256:<64 hex digits>`: the digest of the registry's index, or the id of a local image.
    """

    repository: str
    tag: str | None
    digest: str | None

    @property
    def is_pinned(self) -> bool:
        """Whether it always names the same content: it has a digest or is a local image's id."""
        return self.digest is not None

    @property
    def registry(self) -> str:
        """The registry's host and port as they were written; empty: none was, so Docker Hub is meant."""
        return _registry_of(self.repository)


_SHAPE = "name:tag@sha256:<64 hex digits>"
_HEX = re.compile(r"[0-9a-f]{64}")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_LONGEST_REPOSITORY = 255


def parse_reference(text: str) -> ImageReference:
    """Parse `[registry/]path[:tag][@sha256:…]` or a local image id `sha256:…`.

    Raises ImageReferenceError if the text is neither, and if it has neither a tag nor a digest: the
    engine would then silently take the tag `latest`.
    """
    if not text or any(character.isspace() for character in text):
        raise ImageReferenceError("an image reference is one word without white space", _SHAPE)
    if "://" in text:
        raise ImageReferenceError("an image reference is not a web address", f"registry.example.org/{_SHAPE}")
    if text.startswith("sha256:"):
        return ImageReference(repository="", tag=None, digest=_digest(text))
    if _HEX.fullmatch(text):
        raise ImageReferenceError("a local image id names its algorithm", "sha256:<the 64 hex digits>")

    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    path, colon, tag = last.partition(":")
    repository = head + slash + path
    _check_repository(repository)
    if colon and not _TAG.fullmatch(tag):
        raise ImageReferenceError(
            "a tag has 1 to 128 letters, digits, dots, dashes or underscores and does not start with a dot or a dash",
            f"{repository}:<version>@sha256:<64 hex digits>",
        )
    if not colon and not at:
        raise ImageReferenceError(
            "there is neither a tag nor a digest, so the engine would take whatever 'latest' is today",
            f"{repository}:<version>@sha256:<64 hex digits>",
        )
    return ImageReference(repository=repository, tag=tag if colon else None, digest=_digest(digest) if at else None)


def short_name(image: str) -> str:
    """Return an image as tables show it: a name without its digest, or the first twelve digits of an id."""
    return image.removeprefix("sha256:")[:12] if image.startswith("sha256:") else image.partition("@")[0]


def _digest(digest: str) -> str:
    """Check `sha256:<64 hex digits>` and return it; raises ImageReferenceError."""
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256":
        raise ImageReferenceError("a digest starts with sha256:", "sha256:<64 hex digits>")
    if not _HEX.fullmatch(digits):
        raise ImageReferenceError(
            f"a digest has 64 digits out of 0-9 and a-f; here are {len(digits)} characters",
            "the whole digest, as `docker buildx imagetools inspect <name>:<tag>` prints it",
        )
    return digest


def _check_repository(repository: str) -> None:
    """Check `[registry[:port]/]path` against Docker's own grammar; raises ImageReferenceError."""
    if len(repository) > _LONGEST_REPOSITORY:
        raise ImageReferenceError(f"a name has at most {_LONGEST_REPOSITORY} characters", "a shorter name")
    registry = _registry_of(repository)
    if registry and not _REGISTRY.fullmatch(registry):
        raise ImageReferenceError(
            "the registry is not a host name with an optional port", f"registry.example.org:5000/{_SHAPE}"
        )
    components = repository.removeprefix(f"{registry}/" if registry else "").split("/")
    if not all(_COMPONENT.fullmatch(component) for component in components):
        raise ImageReferenceError(
            "a name has lower-case letters and digits, and between them dots, dashes and underscores", _SHAPE
        )


def _registry_of(repository: str) -> str:
    # Docker uses the same rule to tell a registry from the first part of a path.
    first, slash, _ = repository.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""
