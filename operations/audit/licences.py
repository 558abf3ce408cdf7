"""The licences of everything that this product is made of, and the licences that are allowed.

Python packages state theirs in three ways of different age; all become one SPDX expression here. No image states its
own, so `stack/images.py` lists it.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import cache
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, get_spdx_licensing
from packaging.utils import canonicalize_name

from stack.images import IMAGES

ROOT = Path(__file__).resolve().parents[2]

ALLOWED = frozenset(
    {
        *("MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0", "PostgreSQL"),
        # These ask only to publish changes of their own files, and we change none of those.
        *("MPL-2.0", "LGPL-3.0-or-later"),
    }
)
"""Licences that anything here may have, by SPDX identifier."""

EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "barman": ("GPL-3.0-or-later", "a program of its own that ours starts and never imports, unchanged"),
    "codespell": ("GPL-2.0-only", "a program of its own that `make lint` starts, in nothing that we hand out"),
    "image grafana/grafana": ("AGPL-3.0-only", "runs unchanged as it was published; nothing of ours is a part of it"),
    "image redis": (
        "LicenseRef-RSALv2 OR SSPL-1.0",
        "runs unchanged for the application alone, and is offered to nobody",
    ),
}
"""Name of what may have another licence -> that licence, and why it is no obstacle."""

_ELSEWHERE: Mapping[str, str] = {
    "async-timeout": "Apache-2.0",
    "colorama": "BSD-3-Clause",
    "psycopg2": "LGPL-3.0-or-later",
    "pywin32": "PSF-2.0",
    "uv": "MIT OR Apache-2.0",
}
"""Package of uv.lock -> its licence, where this system or Python does not install it, so its metadata are not here."""

_NAMES: Mapping[str, str] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    # Only Psycopg's metadata say no more than this; its LICENSE says version 3 or later.
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-3.0-or-later",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages call a licence -> its SPDX identifier."""

_GROUPS = {
    "dev": "development",
    "reference-app": "reference application",
    "backup-image": "backup server",
    "build": "build of our own package",
    "uv": "bootstrap",
}


class UnknownLicenceError(ValueError):
    """A package does not say its licence in a way that is known here; the text says where to write it."""


@dataclass(frozen=True, kw_only=True)
class Licensed:
    """Something that this product is made of."""

    name: str
    licence: str
    """SPDX expression."""
    used_by: tuple[str, ...]


def python_packages() -> Iterator[Licensed]:
    """Yield every package of uv.lock but our own. Raises UnknownLicenceError."""
    installed = {canonicalize_name(each.metadata["Name"]): each.metadata for each in importlib.metadata.distributions()}
    for name, users in sorted(_users().items()):
        if name in _ELSEWHERE:
            licence = _ELSEWHERE[name]
        elif name in installed:
            licence = licence_of(installed[canonicalize_name(name)])
        else:
            raise UnknownLicenceError(f"{name} is not installed: write its licence into _ELSEWHERE of {__name__}")
        yield Licensed(name=name, licence=licence, used_by=users)


def images() -> Iterator[Licensed]:
    """Yield every third-party image, with `image` before its name, because there is a Python package `redis` too."""
    for image in IMAGES.values():
        name = image.reference.partition("@")[0].rpartition(":")[0]
        yield Licensed(name=f"image {name}", licence=image.licence, used_by=(image.name,))


def licence_of(metadata: Message | importlib.metadata.PackageMetadata) -> str:
    """Return the SPDX expression of a Python package from its METADATA. Raises UnknownLicenceError."""
    for expression in metadata.get_all("License-Expression") or []:
        return _spdx(str(expression))
    every = [str(each) for each in metadata.get_all("Classifier") or []]
    classifiers = [each.rpartition(" :: ")[2] for each in every if _is_licence(each)]
    said = [_NAMES[each] for each in classifiers if each in _NAMES]
    if said and len(said) == len(classifiers):
        return _spdx(" OR ".join(sorted(set(said))))
    text = "".join(str(each) for each in metadata.get_all("License") or []).strip()
    try:
        return _spdx(_NAMES.get(text, text))
    except UnknownLicenceError:
        raise UnknownLicenceError(
            f"{metadata['Name']} says {text[:60] or classifiers or 'nothing'} of its licence: "
            f"write what that is into _NAMES of {__name__}"
        ) from None


def is_allowed(licensed: Licensed) -> bool:
    """Whether the licence is in ALLOWED, or is the one in EXCEPTIONS for this name.

    One of several alternatives (OR) must be allowed, each of a combination (AND), and the licence before a WITH.
    """
    if licensed.name in EXCEPTIONS:
        return EXCEPTIONS[licensed.name][0] == licensed.licence
    return _satisfied(_parse(licensed.licence))


def _satisfied(node: Any) -> bool:
    if node.isliteral:
        return str(getattr(node, "license_symbol", node).key) in ALLOWED
    return (any if node.operator == " OR " else all)(_satisfied(each) for each in node.args)


def _is_licence(classifier: str) -> bool:
    return classifier.startswith("License :: ") and classifier.count(" :: ") > 1


@cache
def _spdx(expression: str) -> str:
    return str(_parse(expression))


@cache
def _parse(expression: str) -> Any:
    try:
        parsed = get_spdx_licensing().parse(expression, validate=not expression.startswith("LicenseRef-"))
    except ExpressionError as error:
        raise UnknownLicenceError(f"{expression!r} is no SPDX expression: {error}") from None
    if parsed is None:
        raise UnknownLicenceError("there is no licence")
    return parsed


def _users() -> dict[str, tuple[str, ...]]:
    """Return package of uv.lock -> the groups that depend on it, directly or through other packages."""
    packages: dict[str, list[Any]] = {}  # several of a name where the versions of Python need different ones
    for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        packages.setdefault(each["name"], []).append(each)
    (own,) = [each for every in packages.values() for each in every if "editable" in each.get("source", {})]
    starts = {"program": own.get("dependencies", [])}
    starts |= {_GROUPS[group]: asked for group, asked in own.get("dev-dependencies", {}).items()}
    found: dict[str, list[str]] = {}
    for user, asked in starts.items():
        for name in _closure(packages, asked):
            found.setdefault(name, []).append(user)
    return {name: tuple(users) for name, users in found.items()}


def _closure(packages: Mapping[str, Sequence[Any]], asked: Iterable[Any]) -> set[str]:
    """Return the names of all packages that are asked for, directly or through others. Extras may ask for each other.

    packages: name -> its entries in uv.lock. asked: dependencies as uv.lock has them.
    """
    found: set[tuple[str, str]] = set()  # with an extra, or without one
    waiting = list(asked)
    while waiting:
        each = waiting.pop()
        for extra in {"", *each.get("extra", ())} - {extra for name, extra in found if name == each["name"]}:
            found.add((each["name"], extra))
            for package in packages[each["name"]]:
                extras = package.get("optional-dependencies", {})
                waiting += extras.get(extra, ()) if extra else package.get("dependencies", ())
    return {name for name, _ in found}
