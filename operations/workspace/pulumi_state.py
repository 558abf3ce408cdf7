"""Read Pulumi's state: from the files of a file backend, and from a deployment that Pulumi has exported."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.common.names import PROJECT
from stack.common.references import parse_reference
from stack.spec.rotation import IN_USE, PHASES, SECOND, label
from stack.spec.secrets import KEPT_FORMS, KEPT_MARKS, KEPT_ORIGINS

CONTAINER = "docker:index/container:Container"
IMAGE = "docker:index/remoteImage:RemoteImage"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
SECRET_MARK = "4dabf18193072939515e22adb298388d"  # noqa: S105 - the key by which Pulumi's state marks a secret
_PASSWORD = "random:index/randomPassword:RandomPassword"  # noqa: S105 - a resource's type
_STACK = "pulumi:pulumi:Stack"
_SECRETS = "samokoder:platform:Secrets"
_SECRET_PREFIX = "secret-"  # noqa: S105 - first part of a resource's name
_DATA_PREFIX = "data-"
_SECOND_SLOT = label(SECOND)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """One lock of a stack in a file backend: the process that made it and on which host."""

    process: int
    host: str
    since: str

    @property
    def is_here(self) -> bool:
        """Whether it was made on this host, so that its process can be looked for."""
        return self.host == socket.gethostname()

    def is_stale(self, proc: Path = Path("/proc")) -> bool:
        """Whether it was made here by a process that is gone; another program may have its number by now."""
        if not self.is_here or not proc.is_dir():
            return False
        try:
            return (proc / str(self.process) / "comm").read_text(encoding="utf-8").strip() != "pulumi"
        except OSError:
            return True


def locks(backend: Path, stack: str) -> list[Lock]:
    """Return the locks of a stack in the file backend `backend`."""
    folder = backend / ".pulumi" / "locks" / "organization" / PROJECT / stack
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            note = json.loads(file.read_text(encoding="utf-8"))
            found.append(Lock(process=int(note["pid"]), host=str(note["hostname"]), since=str(note["timestamp"])))
        except FileNotFoundError:
            continue  # released meanwhile
        except (ValueError, KeyError, TypeError):
            # Pulumi was interrupted while it wrote this lock, so no process holds it.
            found.append(Lock(process=0, host=socket.gethostname(), since="?"))
    return found


def _stacks_folder(backend: Path) -> Path:
    return backend / ".pulumi" / "stacks" / PROJECT


def stacks(backend: Path) -> list[str]:
    """Return the names of the stacks in the file backend `backend`, sorted."""
    return sorted(file.name.removesuffix(".json") for file in _stacks_folder(backend).glob("*.json"))


def checkpoint(backend: Path, stack: str) -> dict[str, Any] | None:
    """Return a stack's deployment as the file backend holds it, secrets encrypted; None when there is no such stack."""
    file = _stacks_folder(backend) / f"{stack}.json"
    try:
        latest = json.loads(file.read_text(encoding="utf-8"))["checkpoint"].get("latest")
    except FileNotFoundError:
        return None
    return dict(latest or {})


def tags(backend: Path, stack: str) -> dict[str, str]:
    """Return the tags of a stack in the file backend `backend` by name."""
    file = _stacks_folder(backend) / f"{stack}.pulumi-tags"
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("tags") or {}
    except FileNotFoundError:
        return {}
    return {str(name): str(value) for name, value in found.items()}


def mend(backend: Path, stack: str) -> list[Path]:
    """Remove the empty attribute files that a killed Pulumi has left; return them.

    Pulumi's file backend writes an attribute file beside each file. It replaces the file itself atomically, but makes
    the attribute file first and then writes it. A Pulumi that is killed in between leaves it empty, and then every
    command ends with "failed to load checkpoint: EOF". Its content (a content type, a checksum) is not needed. Only
    sizes are checked, because there are thousands of these files after years of updates. The caller makes sure that no
    process uses the stack.
    """
    folder = backend / ".pulumi"
    places = [(_stacks_folder(backend), f"{stack}.*"), (folder / "locks" / "organization" / PROJECT / stack, "*.")]
    places += [(folder / kind / PROJECT / stack, "*.") for kind in ("history", "backups")]
    broken = [file for place, name in places for file in place.glob(f"{name}attrs") if not file.stat().st_size]
    for file in broken:
        file.unlink(missing_ok=True)
    return broken


def was_interrupted(deployment: dict[str, Any]) -> bool:
    """Tell whether operations were begun whose end was never noted."""
    return bool(deployment.get("pending_operations"))


def begun(deployment: dict[str, Any]) -> dict[str, frozenset[str]]:
    """Return the containers and networks that an interrupted run had begun to make and not noted.

    The result is name -> names of the volumes that it mounts.
    """
    return {
        str(resource["inputs"]["name"]): frozenset(
            str(volume["volumeName"]) for volume in resource["inputs"].get("volumes") or () if volume.get("volumeName")
        )
        for operation in deployment.get("pending_operations") or ()
        if operation["type"] == "creating"
        and (resource := operation.get("resource") or {}).get("type") in {CONTAINER, NETWORK}
        and (resource.get("inputs") or {}).get("name")
    }


def known_ids(deployment: dict[str, Any]) -> set[str]:
    """Return the engine's ids of all containers and networks in the state."""
    return {str(resource.get("id")) for resource in _resources(deployment) if resource["type"] in {CONTAINER, NETWORK}}


def known_names(deployment: dict[str, Any]) -> set[str]:
    """Return the names on the engine of all containers and networks in the state."""
    return {
        str(resource["inputs"]["name"])
        for resource in _resources(deployment)
        if resource["type"] in {CONTAINER, NETWORK} and not resource.get("delete")
    }


def images(deployment: Mapping[str, Any]) -> tuple[set[str], dict[str, str]]:
    """Return the repositories of pulled images, and part -> image of its container."""
    pulled, running = set(), {}
    for resource in _resources(deployment):
        inputs = resource.get("inputs") or {}
        if resource["type"] == IMAGE and not inputs.get("build") and not resource.get("delete"):
            pulled.add(parse_reference(str(inputs["name"])).repository)
        if resource["type"] == CONTAINER and not resource.get("delete"):
            running[_name(resource)] = str(inputs.get("image") or "")
    return pulled, running


def data_volumes(deployment: dict[str, Any]) -> dict[str, str]:
    """Return the data volumes in the state: purpose (`postgres`) -> name on the engine, sorted by that name."""
    found = {
        _name(resource).removeprefix(_DATA_PREFIX): str(resource["outputs"]["name"]) for resource in _data(deployment)
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def data_urns(deployment: dict[str, Any]) -> list[str]:
    """Return the URNs of the data volumes in the state."""
    return [str(resource["urn"]) for resource in _data(deployment)]


def volume_urns(deployment: Mapping[str, Any]) -> dict[str, str]:
    """Return every volume in the state that Pulumi may remove: name on the engine -> URN."""
    return {
        str(resource["outputs"]["name"]): str(resource["urn"])
        for resource in _resources(deployment)
        if resource["type"] == VOLUME and not resource.get("protect") and (resource.get("outputs") or {}).get("name")
    }


def left_volume_urns(deployment: Mapping[str, Any]) -> list[str]:
    """Return the URNs of the volumes that an earlier `down` has protected because foreign containers used them."""
    return [
        str(resource["urn"])
        for resource in _resources(deployment)
        if resource["type"] == VOLUME and resource.get("protect") and not _name(resource).startswith(_DATA_PREFIX)
    ]


def _data(deployment: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    # They are found by name, because an interrupted `destroy-data` has already removed their protection.
    for resource in _resources(deployment):
        if resource["type"] == VOLUME and _name(resource).startswith(_DATA_PREFIX):
            yield resource


def _name(resource: dict[str, Any]) -> str:
    return str(resource["urn"]).rpartition("::")[2]


def generated_secrets(deployment: dict[str, Any]) -> dict[str, str]:
    """Return the secrets in use by name (`grafana-admin`) from a deployment that was exported with its secrets.

    Of a secret with two slots (`stack/spec/rotation.py`) this is the value in use, whichever slot it is in.
    """
    every = every_generated_secret(deployment)
    in_use = slots_in_use(deployment)
    second = {name + _SECOND_SLOT for name in in_use}
    return {name: every.get(in_use.get(name, name), value) for name, value in every.items() if name not in second}


def every_generated_secret(deployment: dict[str, Any]) -> dict[str, str]:
    """Return the value in every slot (`grafana-admin-b`), also those not in use; no message may show any of them."""
    return {
        name.removeprefix(_SECRET_PREFIX): json.loads(resource["outputs"]["result"]["plaintext"])
        for resource in _resources(deployment)
        if resource["type"] == _PASSWORD and (name := _name(resource)).startswith(_SECRET_PREFIX)
    }


def secret_names(deployment: dict[str, Any]) -> list[str]:
    """Return the names of the generated secrets that a person may want to see, from any deployment."""
    passwords = (resource for resource in _resources(deployment) if resource["type"] == _PASSWORD)
    names = {_name(resource).removeprefix(_SECRET_PREFIX) for resource in passwords}
    second = {name + _SECOND_SLOT for name in slots_in_use(deployment)}
    # The salt names volumes and opens nothing.
    return sorted(names - second - {"salt"})


def generations(deployment: Mapping[str, Any]) -> dict[str, int]:
    """Return the generation of the value in each slot (`postgres-app-b`)."""
    return {
        _name(resource).removeprefix(_SECRET_PREFIX): int(resource["inputs"]["keepers"]["generation"])
        for resource in _resources(deployment)
        if resource["type"] == _PASSWORD and not resource.get("delete")
    }


def slots_in_use(deployment: Mapping[str, Any]) -> dict[str, str]:
    """Return secret -> slot in use; empty for a state that is older than the slots."""
    return dict(_of_secrets(deployment).get(IN_USE) or {})


def phases(deployment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return secret -> phase of its rotation; None for a state of a version that did not note phases."""
    return _of_secrets(deployment).get(PHASES)


def kept_origins(deployment: Mapping[str, Any]) -> dict[str, str]:
    """Return what `stack.spec.secrets.kept_origins` was at the last `up`; empty for a state of an earlier version."""
    return dict(_of_secrets(deployment).get(KEPT_ORIGINS) or {})


def kept_forms(deployment: Mapping[str, Any]) -> dict[str, str]:
    """Return what `stack.spec.secrets.kept_forms` was at the last `up`; empty for a state of an earlier version."""
    return dict(_of_secrets(deployment).get(KEPT_FORMS) or {})


def kept_marks(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return label -> mark of a configured secret (`stack.spec.secrets.mark_of`) at the last `up`.

    A mark is None in a deployment that was exported without its secrets; all are in the others. Empty for a state of an
    earlier version.
    """
    return {name: _plain(mark) for name, mark in (_plain(_of_secrets(deployment).get(KEPT_MARKS)) or {}).items()}


def _plain(value: Any) -> Any:
    """Return a value of a deployment as the program gave it; None for one that is encrypted there."""
    if not isinstance(value, dict) or SECRET_MARK not in value:
        return value
    return json.loads(value["plaintext"]) if "plaintext" in value else None


def _of_secrets(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs of the component of the secrets."""
    for resource in _resources(deployment):
        if resource["type"] == _SECRETS:
            return dict(resource.get("outputs") or {})
    return {}


def outputs(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs of the stack (`stack/outputs.py`); empty where the program has not come to its end."""
    for resource in _resources(deployment):
        if resource["type"] == _STACK:
            return dict(resource.get("outputs") or {})
    return {}


def is_production(deployment: Mapping[str, Any]) -> bool:
    """Tell whether the state is that of a production.

    A state of a version without this output shows it by its data volumes, which only production retains on delete.
    """
    said = outputs(deployment).get("production")
    return any(resource.get("retainOnDelete") for resource in _data(deployment)) if said is None else bool(said)


def salt(deployment: dict[str, Any]) -> str | None:
    """Return the passphrase's salt that the state itself is encrypted with."""
    provider = deployment.get("secrets_providers") or {}
    value = (provider.get("state") or {}).get("salt")
    return str(value) if value else None


def _resources(deployment: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from deployment.get("resources") or []
