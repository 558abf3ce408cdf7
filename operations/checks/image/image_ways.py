"""Ways to start an image with fewer requirements than the stack's, and the settings that relax them in the stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import yaml

from stack.monitoring.metrics import Kind

_SYSTEM = ("/tmp", "/run", "/proc", "/sys", "/dev", "/etc", "/usr", "/var", "/root", "/home")  # noqa: S108 - in the image
_ADDED_OR_CHANGED = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How an image is started: as in the stack, or with some requirements relaxed."""

    unhardened: bool = False
    secrets_in_environment: bool = False
    own_command: bool = False
    """Whether it starts the image's own command, where the settings name none."""
    fernet: bool = False
    without_login: bool = False
    """Whether Redis accepts clients without a login."""
    writable: tuple[str, ...] = ()
    """Folders that its user may write to."""

    @property
    def easier(self) -> list[str]:
        """Names of the relaxed requirements."""
        return [each.name for each in fields(self) if getattr(self, each.name)]

    def stricter(self, name: str) -> Way:
        """Return the way with this one requirement restored."""
        return replace(self, **{name: type(getattr(self, name))()})

    def only(self, names: Iterable[str]) -> Way:
        """Return the way with only these requirements relaxed."""
        return Way(**{name: getattr(self, name) for name in names})


STRICT = Way()


def written_folders(changes: Iterable[Mapping[str, Any]] | None) -> tuple[str, ...]:
    """Return the image's own folders that a container has written to. changes: the engine's list of changed paths.

    Folders of the system are left out, because no folder in memory can replace them; so is Python's bytecode.
    """
    changed = {str(each["Path"]) for each in changes or () if each["Kind"] in _ADDED_OR_CHANGED}
    leaves = [path for path in changed if not any(other.startswith(f"{path}/") for other in changed)]
    folders = {path.rpartition("/")[0] for path in leaves if "__pycache__" not in path}
    own = {path for path in folders if path and not any(f"{path}/".startswith(f"{each}/") for each in _SYSTEM)}
    return tuple(sorted(path for path in own if not any(path.startswith(f"{other}/") for other in own)))


def settings_text(kind: Kind, way: Way, *, command: Sequence[str], portless: bool) -> str:
    """Return the settings to paste, as YAML of the stack file; empty where none helps.

    command: the image's own, with its ENTRYPOINT. portless: a worker without metrics.
    """
    part: dict[str, Any] = {}
    if way.own_command:
        part["command"] = list(command)
    if way.secrets_in_environment:
        part["secretsAs"] = "environment"
    shared = [path for path in way.writable if path.endswith("/workspace")]
    if paths := [path for path in way.writable if path not in shared[:1]]:
        part["writablePaths"] = paths
    if portless:
        part["metricsPort"] = None
    document: dict[str, Any] = {f"samokoder:{kind.value}": part} if part else {}
    if way.fernet:
        document["samokoder:appSecretKeyForm"] = "fernet"
    if way.without_login:
        document["samokoder:redis"] = {"login": "none"}
    if shared:
        document["samokoder:workspace"] = {"path": shared[0]}
    return str(yaml.safe_dump(document, sort_keys=False, width=1000, default_flow_style=None)) if document else ""
