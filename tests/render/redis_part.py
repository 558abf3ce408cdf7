"""Redis and the keeper of its users, as the stack makes them, for tests of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.app import redis_users
from stack.platform import specs
from stack.service import ServiceSpec
from stack.settings import Environment, Phase, Rotating, Rotation
from tests.recording import secret_value
from tests.render.conftest import Laboratory

if TYPE_CHECKING:
    from docker.models.containers import Container

APP_SECRET = secret_value("redis_app")
SECOND_SECRET = secret_value("redis_app_b")
KEEPER_SECRET = secret_value("redis_keeper")


def described(environment: Environment, part: str = "redis") -> ServiceSpec:
    (spec,) = [spec for spec in specs(environment) if spec.part == part]
    return spec


def keep_users(
    laboratory: Laboratory, environment: Environment, *, generation: int = 1, phase: Phase = ""
) -> Container:
    """Run the keeper of a generation and a phase until it is healthy."""
    changed = {"rotation": Rotation(redis_app=generation), "rotating": Rotating(redis_app=phase)}
    environment = environment.model_copy(update={"settings": environment.settings.model_copy(update=changed)})
    return laboratory.healthy_part(described(environment, redis_users.PART))
