"""Compares what is declared with what the engine has.

Nothing is listed here a second time: `stack.spec.service` says what a container has, and `operations.audit.facts` reads
both its inputs and the engine's answer.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from operations.audit.drift.actual import Actual
from operations.audit.drift.declared import Declared, File
from operations.audit.drift.difference import NOTHING, SECRET, Difference, Typed, missing, remade
from operations.audit.facts import ContainerFacts, Mount, declared
from stack.common.names import ENVIRONMENT_LABEL
from stack.settings.environment import Environment

# Field with many values -> what one of them is called.
_ONE_OF = {
    "environment": "variable",
    "labels": "label",
    "networks": "network",
    "ports": "port",
    "mounts": "mount",
    "tmpfs": "tmpfs",
    "devices": "device",
    "ulimits": "ulimit",
    "sysctls": "sysctl",
    "log": "log",
    "health": "health check",
}
# A container is found by its name, and its part is compared as a label.
_LEFT_OUT = frozenset({"name", "part"})
_BYTES = frozenset({"memory", "memory swap", "memory reservation", "shm size"})
_MIB = 2**20


def compare(wanted: Declared, there: Actual, environment: Environment, typed: Typed) -> list[Difference]:
    """Return every difference between what is declared and what is there, by name."""
    findings = [
        *_networks(wanted, there, typed),
        *_volumes(wanted, there, typed),
        *_containers(wanted, there, typed),
        *_files(wanted, there, typed),
        *_strangers(wanted, there, environment, typed),
    ]
    return sorted(findings, key=lambda each: (each.name, each.field))


def _networks(wanted: Declared, there: Actual, typed: Typed) -> Iterator[Difference]:
    for name, inputs in wanted.networks.items():
        network = there.networks.get(name)
        if network is None:
            yield missing(name, "a network", typed.up)
            continue
        kept = (("driver", "Driver", "bridge"), ("internal", "Internal", False), ("ipv6", "EnableIPv6", False))
        for key, what, default in kept:
            if (declared := inputs.get(key, default)) != (is_now := network.get(what, default)):
                # The engine cannot change this in a network: somebody has made another one under the same name.
                steps = (("rm", "--force", *sorted(_users(name, wanted))), ("network", "rm", name))
                yield Difference(
                    name=name,
                    field=key,
                    declared=_text(declared),
                    found=_text(is_now),
                    repair=typed.line(*steps),
                    steps=steps,
                )


def _users(network: str, wanted: Declared) -> Iterator[str]:
    for name, inputs in wanted.containers.items():
        if any(each["name"] == network for each in inputs.get("networksAdvanced") or ()):
            yield name


def _volumes(wanted: Declared, there: Actual, typed: Typed) -> Iterator[Difference]:
    # A part's volume of files can be missing only when its carrier is, which is reported: the engine removes no volume
    # that a container has.
    yield from (missing(name, "a volume", typed.up) for name in wanted.volumes - there.volumes)


def _containers(wanted: Declared, there: Actual, typed: Typed) -> Iterator[Difference]:
    for name, inputs in wanted.containers.items():
        facts = there.containers.get(name)
        if facts is None:
            yield missing(name, "a container", typed.up)
            continue
        image_id = wanted.image_ids.get(str(inputs["image"])) or str(inputs["image"])
        known = image_id if image_id.startswith("sha256:") else ""
        should = declared(inputs, there.image_of[name], known or facts.image_id)
        hidden = name in wanted.secret_environment
        yield from _differences(should, facts, typed, hidden=hidden)
        if inputs.get("mustRun", True) and name not in there.running:
            yield Difference(name=name, field="state", declared="running", found="stopped", repair=typed.up)
        if should.is_carrier and name in there.running:
            steps = remade(name)
            yield Difference(
                name=name,
                field="state",
                declared="never started",
                found="running",
                repair=typed.line(*steps),
                steps=steps,
            )


def _differences(should: ContainerFacts, facts: ContainerFacts, typed: Typed, *, hidden: bool) -> Iterator[Difference]:
    """Yield where one container differs. hidden: its variables' values are not shown."""
    wanted, there = dict(_flat(should)), dict(_flat(facts))
    for label in sorted(wanted.keys() | there.keys()):
        before, now = wanted.get(label), there.get(label)
        if before == now:
            continue
        steps = remade(facts.name)
        if more := label.startswith("network ") and before is None:
            steps = (("network", "disconnect", label.partition(" ")[2], facts.name),)
        declared_text, found_text = (
            _shown(label, before, hidden=hidden),
            _shown(label, now, hidden=hidden or not before),
        )
        yield Difference(
            name=facts.name,
            field=label,
            declared=declared_text,
            found=found_text,
            repair=typed.line(*steps, up=not more),
            steps=steps,
        )


def _flat(facts: ContainerFacts) -> Iterator[tuple[str, Any]]:
    """Yield each value of a container with what it is called: `variable LANG`, `memory`."""
    for each in fields(facts):
        value = getattr(facts, each.name)
        if each.name in _LEFT_OUT:
            continue
        if one := _ONE_OF.get(each.name):
            yield from ((f"{one} {key}", inner) for key, inner in value.items())
        else:
            yield each.name.replace("_", " "), value


def _shown(label: str, value: Any, *, hidden: bool) -> str:
    """Return a value for a person. hidden: it is a variable's, and may be a secret that somebody has typed."""
    if value is None:
        return NOTHING
    if hidden and label.startswith("variable "):
        return SECRET
    return f"{value / _MIB:g} MiB" if label in _BYTES and value > 0 else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mount):
        return f"{value.source} ({'read-only' if value.read_only else 'writable'})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return shlex.join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _files(wanted: Declared, there: Actual, typed: Typed) -> Iterator[Difference]:
    for volume, files in wanted.files.items():
        found_there = there.files.get(volume)
        if found_there is None:
            continue  # the volume's containers are missing, which is reported as such
        users = [
            name
            for name, inputs in wanted.containers.items()
            if any(each.get("volumeName") == volume for each in inputs.get("volumes") or ())
        ]
        # Its service first, its carrier after it.
        users.sort(key=lambda name: name == volume)
        steps = remade(*users, volume=volume)
        for path in sorted(files.keys() | found_there.keys()):
            before, now = files.get(path), found_there.get(path)
            if before != now:
                texts = _file_texts(before, now, hidden=volume in wanted.secret_files)
                yield Difference(
                    name=users[0],
                    field=f"file {path}",
                    declared=texts[0],
                    found=texts[1],
                    repair=typed.line(*steps),
                    steps=steps,
                )


def _file_texts(before: File | None, now: File | None, *, hidden: bool) -> tuple[str, str]:
    """Return a file for a person, as it is declared and as it is. hidden: its volume has secrets."""
    if before and now and before.digest == now.digest:
        return f"mode {before.mode}", f"mode {now.mode}"
    if hidden:
        # Whoever issued a secret of the application chose its strength, and a digest lets a weak one be guessed.
        return "a file" if before else NOTHING, ("another content" if before else "a file") if now else NOTHING
    was, is_now = (f"SHA-256 {each.digest[:16]}…" if each else NOTHING for each in (before, now))
    return was, is_now


def _strangers(wanted: Declared, there: Actual, environment: Environment, typed: Typed) -> Iterator[Difference]:
    prefix = f"{environment.prefix}-"
    for name, facts in there.containers.items():
        if name in wanted.containers:
            continue
        networks = sorted(facts.networks.keys() & wanted.networks.keys())
        # The environment `staging-2` has names that begin like those of `staging`.
        label = facts.labels.get(ENVIRONMENT_LABEL) or (environment.name if name.startswith(prefix) else "")
        ours = label == environment.name
        volumes = there.holds.get(name, ())
        disconnect = " && ".join(f"{typed.docker} network disconnect {network} {name}" for network in networks)
        parts = [*networks, *([f"the inside of {there.inside[name]}"] if name in there.inside else ())]
        where = (f" on {', '.join(parts)}" if parts else "") + (f" with {', '.join(volumes)}" if volumes else "")
        above = there.above.get(name, ())
        where += f" with {', '.join(above)} of the host, where every volume is" if above else ""
        remove = f"{typed.docker} rm --force {name}"
        if ours or volumes or name in there.inside:
            # Only its removal separates it from a part that it is inside, or from the volumes that it has.
            repair = remove
        elif above:
            # It may be the host's own backup or monitoring, so the line that is pasted removes nothing.
            repair = f"{typed.docker} inspect {name}  # once nobody needs it: {remove}"
        else:
            repair = disconnect
        yield Difference(
            name=name,
            field="",
            declared=NOTHING,
            found=f"a container{where}",
            repair=repair,
        )
    for name in there.networks.keys() - wanted.networks.keys():
        repair = f"{typed.docker} network rm {name}"
        yield Difference(name=name, field="", declared=NOTHING, found="a network", repair=repair)
    for name in there.volumes - wanted.volumes:
        # The volume may hold data, so the line that is pasted removes nothing.
        repair = f"{typed.docker} volume inspect {name}  # once nobody needs it: {typed.docker} volume rm {name}"
        yield Difference(name=name, field="", declared=NOTHING, found="a volume", repair=repair)
