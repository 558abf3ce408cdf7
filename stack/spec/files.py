"""Files for a container, in plain values: a text, or a template that is rendered with secrets.

`stack/resources/files_volume.py` puts them into a container.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

# Those in C, where PyYAML's wheel has them, are four times as fast: each preview writes 2,000 lines of alert rules.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def yaml_text(document: Mapping[str, Any]) -> str:
    """Render a configuration file in YAML, with the keys in the given order."""
    return str(yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True))


def yaml_document(text: str) -> Any:
    """Read a configuration file in YAML. Raises YAMLError where it is none."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one, of either kind


@dataclass(frozen=True)
class Template:
    """A file whose text needs secrets: `render` is called with their values, in the order of `needs`."""

    needs: tuple[str, ...]
    render: Callable[..., str]


def secret_file(name: str) -> Template:
    """Return a file that contains only the secret `name`, without a newline at its end."""
    return Template((name,), str)


# Relative path -> text or template. Plain values, so that `samokoder render` shows them without an engine, with the
# names of secrets in place of their values.
Files = Mapping[str, str | Template]

SALT = "salt"
CARRIER_MOUNT = "/files"
# Readable by everybody, because the provider cannot set an owner other than root:root; only one container mounts it.
MODE = "0444"
EXECUTABLE_MODE = "0555"


def content_digest(salt: str, image: str, contents: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits that change with the content of a files volume.

    The salt is a generated secret, so that the digest reveals nothing about secrets in the content.
    The image is part of the digest because the carrier is made from it, and a carrier is never changed.
    """
    digest = hashlib.sha256()
    for part in (salt, image, *(text for item in sorted(contents.items()) for text in item)):
        # The length comes before the text, so that "ab" + "c" and "a" + "bc" give different digests.
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:16]
