"""Ports for an environment beside others on the same machine: for tests and measurements."""

from __future__ import annotations

from pydantic.alias_generators import to_camel

from host.ports import free_ports
from stack.common.names import PROJECT
from stack.settings.part import Published
from stack.settings.tree import Settings


def own_ports() -> dict[str, dict[str, int]]:
    """Return the configuration that gives every published part ports that are free now."""
    fields = {
        (name, port)
        for name, field in Settings.model_fields.items()
        if isinstance(part := field.get_default(call_default_factory=True), Published)
        for port in ("port", "https_port")
        if port in type(part).model_fields
    }
    ports: dict[str, dict[str, int]] = {}
    for (name, field_name), number in zip(sorted(fields), free_ports(len(fields)), strict=True):
        ports.setdefault(f"{PROJECT}:{to_camel(name)}", {})[to_camel(field_name)] = number
    return ports
