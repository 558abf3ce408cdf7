"""Checks of `doctor`: whether `up` can get each image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import docker
import docker.errors

from offline import registries
from offline.images.recipes import NAMES
from operations.checks.doctor.asked import EnvironmentAsked
from operations.checks.report import Check
from operations.engine.images import third_party_images
from operations.errors import FailedError, UnavailableError
from stack.common.references import short_name
from stack.parts.grafana import spec as grafana


def image_checks(asked: EnvironmentAsked) -> Iterator[Check]:
    """Yield a check for each image that `up` needs; an image that an earlier run built instead counts as well."""
    declared = asked.workspace.settings(on_this_machine=False)
    wanted = {name: declared.image(name) for name in third_party_images(declared)}
    configured = declared.settings.images
    wanted |= {name: image for name in type(configured).model_fields if (image := getattr(configured, name))}
    for name in ("api", "worker", "frontend"):
        if name in declared.running() and (image := getattr(declared.settings, name).image):
            wanted[name] = image
    for name, image in wanted.items():
        made = getattr(asked.environment.settings.images, name, None)
        yield Check(name=f"image {name}", ask=partial(_image, asked, name, image, made))


def _image(asked: EnvironmentAsked, name: str, image: str, made: str | None) -> str:
    client = asked.engine().client
    for each in filter(None, (made, image)):
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.get(each)
            return f"{short_name(each)} is on the engine"
    why = "it is an id, and not on the engine"
    if not image.startswith("sha256:"):
        try:
            client.images.get_registry_data(image)
        except docker.errors.APIError as error:
            why = str(error.explanation or error)
        else:
            return f"{short_name(image)} is in its registry"
    registry = registries.registry_of(image)
    if name in NAMES and registry in asked.unreachable():
        if name == grafana.PART:
            raise UnavailableError(f"{registry} cannot be reached: the stack comes up without it, or `docker load` one")
        return f"{registry} cannot be reached: `{asked.workspace.typed('up')}` builds it from package registries"
    raise FailedError(f"cannot pull {short_name(image)}: {why}")
