"""Where an environment's third-party images come from: a container registry, or built here from packages.

The two origins have different versions (Redis 7.4 from the registry, and 7.0 built here, which cannot read the data of
7.4; no Grafana built here), so a registry that is silent for some seconds must not change the origin.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from operations.engine.images import third_party_images
from operations.errors import ProjectError
from operations.workspace import pulumi_state
from operations.workspace.pulumi import PulumiRun
from stack.common.references import parse_reference
from stack.images import IMAGES
from stack.settings.environment import Environment
from stack.settings.keys import key_of

_KEEPS_DATA = ("postgres", "redis")
_TAGS = {name: f"samokoder:image-of-{name}" for name in _KEEPS_DATA}
"""Tags of a Pulumi stack: the image that last ran on the data of a part, which stays where the container is removed."""


def refuse_others(
    environment: Environment,
    deployment: Mapping[str, Any],
    tags: Callable[[], Mapping[str, str]],
    *,
    built_here: Collection[str],
    typed: str,
    command: str,
) -> None:
    """Raise ProjectError where images of one origin would replace those of the other, unless OFFLINE asks for it.

    deployment: the stack's state. tags: returns the tags of the stack; it is called only where they are needed.
    built_here: names of the images that would be built here, all others come from their registries. typed: value of
    OFFLINE. command: the `up` as a person types it. In production what came from a registry is never replaced by what
    is built here.
    """
    images = _Images.of(deployment, tags)
    from_registry, from_here = images.origins(third_party_images(environment))
    lost = [name for name in from_registry if name in built_here]
    if lost and (typed != "1" or environment.settings.production):
        lines = [
            f"{environment.name} has images of a container registry: {', '.join(lost)}. Nothing was changed.",
            "Those built here would take their place: older versions, which may not read the data, and no Grafana.",
            f"Try again when the registry answers: {command}",
        ]
        if environment.settings.production:
            lines.append(f"Production does not change over. Single images can be pinned: {key_of('images')}")
        else:
            lines.append(f"To change over all the same: OFFLINE=1 {command}")
        raise ProjectError("\n".join(lines))
    # If some images came from a registry, images of another registry may replace local ones, except those with data.
    newer = [name for name in from_here if name not in built_here and (name in _KEEPS_DATA or not from_registry)]
    if newer and typed != "0":
        pins = " ".join(f"{key_of('images')}.{name}: {images.of_parts[name]}" for name in newer if from_registry)
        raise ProjectError(
            f"{environment.name} has images that were built here ({', '.join(newer)}), and those of a container "
            "registry would take their place: newer versions, and the way back is a restore. Nothing was changed.\n"
            + (f"To go on as it is, write: {pins}" if pins else f"To go on as it is: OFFLINE=1 {command}")
            + f"\nTo change over: OFFLINE=0 {command}"
        )


def note(run: PulumiRun) -> None:
    """Note which images run on the data, before something may remove them: `down`, or a part that is switched off."""
    running = pulumi_state.images(run.deployment())[1]
    images = {_TAGS[name]: running[name] for name in _KEEPS_DATA if name in running}
    noted = run.tags() if images else {}
    for tag, image in images.items():
        if noted.get(tag) != image:
            run.pulumi("stack", "tag", "set", tag, image, capture=True)


@dataclass(frozen=True)
class _Images:
    """The images of an environment: those that are pulled, by repository, and which one each part has or last had."""

    pulled: Collection[str]
    of_parts: Mapping[str, str]

    @classmethod
    def of(cls, deployment: Mapping[str, Any], tags: Callable[[], Mapping[str, str]]) -> _Images:
        """Read them from the state. What was noted counts while the state has the data, and nothing runs on it."""
        pulled, running = pulumi_state.images(deployment)
        data = pulumi_state.data_volumes(dict(deployment))
        idle = [name for name in _KEEPS_DATA if name in data and name not in running]
        known = tags() if idle else {}
        noted = {name: known[_TAGS[name]] for name in idle if _TAGS[name] in known}
        return cls(pulled, noted | running)

    def origins(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return which of these images are from a registry, and which were built here."""
        from_registry, built_here = [], []
        for name in names:
            # An image that is built here is known by its id; a mirror's repository is not the one in `IMAGES`.
            image = self.of_parts.get("ingress" if name == "caddy" else name.replace("_", "-"), "")
            local = image.startswith("sha256:")
            own = parse_reference(IMAGES[name].reference).repository if name in IMAGES else None
            if own and ((image and not local) or own in self.pulled):
                from_registry.append(name)
            elif local:
                built_here.append(name)
        return from_registry, built_here
