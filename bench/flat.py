"""The same resources as the environment's, flat: the floor of a preview.

A program that somebody could write by hand: no components, no settings, no rendering, each resource with its finished
inputs. Program and state are written from the environment's exported state, so its preview finds nothing to do either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operations.workspace.pulumi_state import SECRET_MARK

PROJECT = "flat"
_STACK = "pulumi:pulumi:Stack"
_PROVIDER = "pulumi:providers:"
_DEFAULT = "default"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the value by which Pulumi's state marks a secret
# The engine of Pulumi writes these into the inputs.
_NOT_OURS = frozenset({"__defaults", "__internal"})

PROGRAM = '''"""Declare each resource of resources.json. Written by `make bench`."""

import gc
import json
import pathlib

import pulumi
import pulumi_docker
import pulumi_random

gc.set_threshold(100_000)
RESOURCES = json.loads(pathlib.Path(__file__).with_name("resources.json").read_text())
made = {}


def value_of(value):
    if isinstance(value, dict):
        if value.keys() == {"secret"}:
            return pulumi.Output.secret(value["secret"])
        return {key: value_of(each) for key, each in value.items()}
    return [value_of(each) for each in value] if isinstance(value, list) else value


for each in RESOURCES:
    options = pulumi.ResourceOptions(
        provider=made.get(each["provider"]),
        depends_on=[made[urn] for urn in each["after"] if urn in made],
        protect=each["protect"],
        retain_on_delete=each["retain"],
    )
    made_by = getattr({"docker": pulumi_docker, "random": pulumi_random}[each["package"]], each["class"])
    made[each["urn"]] = made_by(each["name"], opts=options, **{key: value_of(v) for key, v in each["inputs"].items()})
'''


def write_program(deployment: Mapping[str, Any], folder: Path) -> int:
    """Write the program into `folder`, which nobody else may read: secrets are in it in plain text.

    deployment: the state with its secrets in plain text. Returns how many resources it declares.
    Raises ValueError for a resource that cannot be declared so.
    """
    resources = [_declared(each) for each in deployment["resources"] if _is_declared(each)]
    (folder / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    (folder / "resources.json").write_text(json.dumps(resources), encoding="utf-8")
    return len(resources)


def state(deployment: Mapping[str, Any], stack: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the flat program's stack, for `pulumi stack import`.

    deployment: as for `write_program`. own: the state of the stack as it is now, which says how its secrets are kept.
    Raises ValueError where two resources of one type have the same name: flat, they would be one.
    """
    living = [each for each in deployment["resources"] if not each.get("delete")]
    kept = [each for each in living if each.get("custom") or each["type"] == _STACK]
    names = {each["urn"]: _flat(each, stack) for each in kept}
    if len({*names.values()}) < len(names):
        raise ValueError("two resources of one type have the same name")
    root = next(names[each["urn"]] for each in kept if each["type"] == _STACK)
    made = []
    for each in kept:
        flat = {key: value for key, value in each.items() if key not in {"aliases", "parent"}}
        flat["urn"] = names[each["urn"]]
        if each["type"] == _STACK:
            flat["outputs"] = {}
        elif not _is_default(each):
            flat["parent"] = root
        if of := each.get("provider"):
            urn, _, identity = of.rpartition("::")
            flat["provider"] = f"{names[urn]}::{identity}"
        if after := each.get("dependencies"):
            flat["dependencies"] = [names[urn] for urn in after if urn in names]
        # The flat program has finished values: no property of a resource comes from another one.
        flat.pop("propertyDependencies", None)
        made.append(flat)
    kept_by = {key: own[key] for key in ("manifest", "secrets_providers") if key in own}
    return {"version": 3, "deployment": {**kept_by, "resources": made}}


def _is_declared(resource: Mapping[str, Any]) -> bool:
    """Tell whether the program declares this one: Pulumi makes the stack and the default providers itself."""
    return bool(resource.get("custom")) and not _is_default(resource) and not resource.get("delete")


def _is_default(resource: Mapping[str, Any]) -> bool:
    name = str(resource["urn"]).rpartition("::")[2]
    return str(resource["type"]).startswith(_PROVIDER) and name.startswith(_DEFAULT)


def _flat(resource: Mapping[str, Any], stack: str) -> str:
    name = f"{PROJECT}-{stack}" if resource["type"] == _STACK else str(resource["urn"]).rpartition("::")[2]
    return f"urn:pulumi:{stack}::{PROJECT}::{resource['type']}::{name}"


def _declared(resource: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(resource["type"])
    if kind.startswith(_PROVIDER):
        package, made_by = kind.removeprefix(_PROVIDER), "Provider"
    else:
        package, made_by = kind.partition(":")[0], kind.rpartition(":")[2]
    if package not in {"docker", "random"}:
        raise ValueError(f"{resource['urn']}: no class is known for {kind}")
    # The SDK gives a provider its version itself.
    left_out = _NOT_OURS | ({"version"} if made_by == "Provider" else frozenset())
    inputs = {key: value for key, value in (resource.get("inputs") or {}).items() if key not in left_out}
    return {
        "urn": resource["urn"],
        "name": str(resource["urn"]).rpartition("::")[2],
        "package": package,
        "class": made_by,
        "provider": str(resource.get("provider") or "").rpartition("::")[0],
        "after": list(resource.get("dependencies") or ()),
        "protect": bool(resource.get("protect")),
        "retain": bool(resource.get("retainOnDelete")),
        "inputs": {_snake(key): _plain(value) for key, value in inputs.items()},
    }


def _plain(value: Any) -> Any:
    """Return a value of the state as the program reads it: a secret as {"secret": value}."""
    if isinstance(value, Mapping):
        if value.get(SECRET_MARK) == _SECRET:
            return {"secret": json.loads(value["plaintext"])}
        return {key: _plain(each) for key, each in value.items() if key not in _NOT_OURS}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: f"_{found[0]}", name).lower()
