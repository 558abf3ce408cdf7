"""The reference application's image: built on the engine from `reference_app/` where no image is configured."""

from __future__ import annotations

from stack.settings.environment import Environment
from stack.spec.built_image import BuiltImage, base_of, built_image


def reference_image(environment: Environment) -> BuiltImage:
    """Describe the reference application's image for this environment."""
    base = base_of(environment.image("python"), title="reference-base")
    return built_image("reference-app", folder="reference_app", bases=[base])
