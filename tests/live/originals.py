"""The image of `tests/original_app`, an application that was not made for this platform."""

from __future__ import annotations

import os

import docker
import docker.errors

from stack.parts.api.reference import reference_image
from stack.settings.environment import Environment
from stack.spec.built_image import ROOT, BuiltImage

APPLICATION = ROOT / "tests" / "original_app"


def reference_of(engine: docker.DockerClient, local_images: Environment) -> BuiltImage:
    """Give the reference application's image, as `up` names it; built here where no `up` has done that yet."""
    reference = reference_image(local_images)
    for base in reference.bases:
        if base.local:
            engine.images.get(base.local).tag(base.reference)
    try:
        engine.images.get(reference.name)
    except docker.errors.ImageNotFound:
        engine.images.build(path=str(reference.context), tag=reference.name, buildargs=reference.arguments, rm=True)
    return reference


def build(engine: docker.DockerClient, local_images: Environment, version: str) -> str:
    """Build a version of it, with the packages of the reference application; return its id."""
    reference = reference_of(engine, local_images)
    arguments = {**reference.arguments, "REFERENCE": reference.name, "VERSION": version}
    # Named: what has no name, somebody who cleans up takes for nobody's.
    tag = f"samokoder-test-original:{version}-{os.getpid()}"
    engine.images.build(path=str(APPLICATION), tag=tag, buildargs=arguments, rm=True)
    return str(engine.images.get(tag).id)


def build_front(engine: docker.DockerClient, local_images: Environment) -> str:
    """Build its page's image; return its id."""
    base, tag = f"samokoder-test-front-base:{os.getpid()}", f"samokoder-test-front:{os.getpid()}"
    engine.images.get(local_images.image("caddy")).tag(base)
    try:
        arguments = {"BASE": base}
        engine.images.build(path=str(APPLICATION), dockerfile="front.Dockerfile", tag=tag, buildargs=arguments, rm=True)
    finally:
        engine.images.remove(base)
    return str(engine.images.get(tag).id)
