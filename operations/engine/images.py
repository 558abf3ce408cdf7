"""Which images an environment uses, and whether the engine has them."""

from __future__ import annotations

from collections.abc import Collection

import docker
import docker.errors

from stack.images import IMAGES
from stack.settings.environment import Environment


def third_party_images(environment: Environment) -> list[str]:
    """Return the names, as in `samokoder:images`, of the images that an environment takes from a registry."""
    configured = environment.settings.images
    return [name for name in _image_names(environment) if getattr(configured, name) is None]


def used_images(environment: Environment) -> list[str]:
    """Return the references of all images that an environment runs or builds upon, except those that are built here."""
    return [*dict.fromkeys(used_by_name(environment).values())]


def used_by_name(environment: Environment) -> dict[str, str]:
    """Return name -> reference for `used_images`: a name as in `samokoder:images`, or a part of the application."""
    found = {name: environment.image(name) for name in _image_names(environment)}
    parts = {part: getattr(environment.settings, part).image for part in ("api", "worker", "frontend")}
    return found | {part: image for part, image in parts.items() if image}


def _image_names(environment: Environment) -> list[str]:
    # Every part has the name of its image, except the ingress and what collects the logs.
    running = {"caddy" if part == "ingress" else part for part in environment.running()}
    names: list[str] = [name for name in IMAGES if name in running]
    reference = ("api", "worker", *(("frontend",) if "frontend" in running else ()))
    if "log_collector" in running or any(getattr(environment.settings, part).image is None for part in reference):
        names.append("python")
    if "backup" in running:
        names.append("backup")
    return names


def has_images(client: docker.DockerClient, references: Collection[str]) -> bool:
    """Tell whether the engine has all these images already, so that it need not ask a registry."""
    try:
        for reference in references:
            client.images.get(reference)
    except docker.errors.ImageNotFound:
        return False
    return True
