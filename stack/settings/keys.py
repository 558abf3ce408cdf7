"""Keys of the configuration, as a person writes them."""

from __future__ import annotations

from pydantic.alias_generators import to_camel

from stack.common.names import PROJECT


def key_of(*names: str) -> str:
    """Return the configuration key of a field: `key_of("api", "bind_address")` is `samokoder:api.bindAddress`."""
    return f"{PROJECT}:" + ".".join(to_camel(name) for name in names)
