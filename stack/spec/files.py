"""Files for a container, in plain values: text, or what makes the text from secrets.

`stack/resources/files_volume.py` brings them into a container.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

# In C where the wheel has it, four times as fast: the rules alone are 2,000 lines, in every preview.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def yaml_text(document: Mapping[str, Any]) -> str:
    """Render a configuration file in YAML, its keys in the order given."""
    return str(yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True))


@dataclass(frozen=True)
class Template:
    """A file whose text needs secrets: `render` is called with their values, in the order of `needs`."""

    needs: tuple[str, ...]
    render: Callable[..., str]


def secret_file(name: str) -> Template:
    """Return the file that holds the secret `name` and nothing else, not even a line's end."""
    return Template((name,), str)


# Relative path -> text, or what makes the text from secrets. Plain values: `samokoder render` shows them without
# an engine and with the secrets' names in place of the secrets.
Files = Mapping[str, str | Template]

SALT = "salt"
CARRIER_MOUNT = "/files"
# The provider writes root:root and has no owner field; only the one container mounts the volume.
MODE = "0444"
EXECUTABLE_MODE = "0555"


def content_digest(salt: str, image: str, contents: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits that change with what is in a files volume.

    The salt is generated and secret, so that they tell nothing of the secrets in the content.
    The image is in it because the carrier is made from it, and a carrier is never changed.
    """
    digest = hashlib.sha256()
    for part in (salt, image, *(text for item in sorted(contents.items()) for text in item)):
        # The length before the text: "ab" + "c" must not be "a" + "bc".
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:16]
