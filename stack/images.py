"""Every third-party image of the stack, in one place, each one pinned by its digest.

A reference is `name:tag@sha256:<64 hex digits>`: the tag tells a person which version it is, the digest
is what the engine pulls, so a tag that was moved cannot change what runs. Each digest is that of the
multi-architecture index. Where each one was confirmed, and how Renovate raises it: `docs/images.md`.

Each reference is one literal on one line, because Renovate reads and rewrites this file with a regular
expression. No other file under `stack/` may have one; a unit test sees to that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

PartName = Literal[
    "postgres",
    "redis",
    "prometheus",
    "alertmanager",
    "grafana",
    "postgres_exporter",
    "redis_exporter",
    "node_exporter",
    "blackbox_exporter",
    "cadvisor",
    "caddy",
    "python",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """One image of the catalogue: what a person calls it, and `name:tag@sha256:…` for the engine."""

    name: str
    reference: str


IMAGES: Mapping[PartName, Image] = MappingProxyType(
    {
        # The Debian variant, not Alpine: its uid 999 and its collation library are those of the data
        # directories that existing installations have.
        "postgres": Image(
            name="PostgreSQL",
            reference="postgres:15.19-bookworm@sha256:539ceaaae49b3a7c8a04467cf00cc6788d8e3f1675df41860d86eebc4c40524f",
        ),
        "redis": Image(
            name="Redis",
            reference="redis:7.4.11-bookworm@sha256:c6eabf748fc7a61dbb5a705c78bcf3d6377b1127a97d0ce965c11c44ba46896f",
        ),
        # 3.13 is the release with long-term support. Not the distroless variant: the health check is
        # BusyBox's wget.
        "prometheus": Image(
            name="Prometheus",
            reference="prom/prometheus:v3.13.4@sha256:87861b8cf91579109319ebc300f3f1060e6da9c05d6ae8ad15a20c879e84e32e",
        ),
        "alertmanager": Image(
            name="AlertManager",
            reference="prom/alertmanager:v0.34.1@sha256:e9733bafb1bdef9b00e25a21f8f99dc26a22224bf16641ad754d1649f4c3357a",
        ),
        "grafana": Image(
            name="Grafana",
            reference="grafana/grafana:13.2.3@sha256:b28bae15e219c998fb0e0424ed724930cc61b1f61fb404d47c862f9a23f9e572",
        ),
        "postgres_exporter": Image(
            name="PostgreSQL exporter",
            reference="quay.io/prometheuscommunity/postgres-exporter:v0.20.1@sha256:ac5ec343104fae0e2d84a27bb8d69b38430a11910c5382cad85d478d2bab713e",
        ),
        # The plain tag is built from nothing and has no program for a health check; Alpine's has wget.
        "redis_exporter": Image(
            name="Redis exporter",
            reference="oliver006/redis_exporter:v1.93.0-alpine@sha256:93831cd4d5d67687de67c9d5221b14312fea580af8d157583ed9d4459bf2dd70",
        ),
        "node_exporter": Image(
            name="node_exporter",
            reference="prom/node-exporter:v1.12.1@sha256:1b4e4438faca4dd7e001dd445d161a4a2091b0fededa84093b3a8dfeae1f1be0",
        ),
        "blackbox_exporter": Image(
            name="Blackbox exporter",
            reference="prom/blackbox-exporter:v0.28.0@sha256:e753ff9f3fc458d02cca5eddab5a77e1c175eee484a8925ac7d524f04366c2fc",
        ),
        # Since 0.53 it is published on ghcr.io only; older guides name gcr.io, which stops there.
        "cadvisor": Image(
            name="cAdvisor",
            reference="ghcr.io/google/cadvisor:v0.60.6@sha256:b8e7d1093144fd088f425ff003d75a4aa405de075db78dae3bc563730b1bd07a",
        ),
        "caddy": Image(
            name="Caddy",
            reference="caddy:2.11.4-alpine@sha256:5f5c8640aae01df9654968d946d8f1a56c497f1dd5c5cda4cf95ab7c14d58648",
        ),
        "python": Image(
            name="Python, base of the reference application",
            reference="python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b",
        ),
    }
)


class ImageReferenceError(ValueError):
    """A text is not an image reference: `problem` says why, `instead` what to write.

    The message leaves out what was given: somebody may have put a registry's password into it.
    """

    def __init__(self, problem: str, instead: str) -> None:
        self.problem = problem
        self.instead = instead
        super().__init__(f"{problem}; write {instead}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageReference:
    """A reference taken apart.

    `repository` is registry and path as they were written (`prom/prometheus`, `ghcr.io/google/cadvisor`);
    it is empty for an image that exists on the engine only and is named by its id. `digest` is
    `sha256:<64 hex digits>`: that of the registry's index, or the id of such a local image.
    """

    repository: str
    tag: str | None
    digest: str | None

    @property
    def is_pinned(self) -> bool:
        """Whether it can never mean another content: it has a digest, or it is a local image's id."""
        return self.digest is not None


_SHAPE = "name:tag@sha256:<64 hex digits>"
_HEX = re.compile(r"[0-9a-f]{64}")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_LONGEST_REPOSITORY = 255


def parse_reference(text: str) -> ImageReference:
    """Take `[registry/]path[:tag][@sha256:…]`, or a local image id `sha256:…`, apart.

    Raises ImageReferenceError where the text is neither, and where it has neither tag nor digest: the
    engine would then take the tag `latest` without a word.
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
    """Return an image as a table shows it: a name without its digest, an id by its first twelve digits."""
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
    first, slash, rest = repository.partition("/")
    # Docker tells a registry from the first part of a path by just this.
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    if has_registry and not _REGISTRY.fullmatch(first):
        raise ImageReferenceError(
            "the registry is not a host name with an optional port", f"registry.example.org:5000/{_SHAPE}"
        )
    components = (rest if has_registry else repository).split("/")
    if not all(_COMPONENT.fullmatch(component) for component in components):
        raise ImageReferenceError(
            "a name has lower-case letters and digits, and between them dots, dashes and underscores", _SHAPE
        )
