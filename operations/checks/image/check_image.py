"""`samokoder check-image`: whether an image keeps the contract of README's "Your own images".

The image runs as the stack would run it, from the same description of the part, beside a temporary PostgreSQL and Redis
of the stack's own images, in a network without a way out. The image needs no program beyond the contract: the
PostgreSQL container sends the requests, as Prometheus sends them from another container.

Where the image does not come up, it is also started with fewer requirements, so that the report names those it fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import docker.errors
from docker.models.containers import Container

from host.progress import Reporter, Task
from operations.checks.image.contract import ImageCheck
from operations.checks.image.image_answer import log_of, tried
from operations.checks.image.image_start import TURN_SECONDS
from operations.checks.image.judging import Checking, random_text
from operations.checks.image.life import at_once, text, writable
from operations.checks.report import Report
from operations.engine import laboratory
from operations.engine.images import has_images
from operations.engine.laboratory import Laboratory
from operations.engine.redaction import without
from operations.errors import ProjectError
from stack.monitoring.metrics import Kind
from stack.parts.api import migrations
from stack.parts.api import spec as api
from stack.parts.api.reference import reference_image
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.parts.worker import spec as worker
from stack.settings.app import LLM_KEYS, Application
from stack.settings.environment import Environment
from stack.settings.rotation import Rotating, Rotation
from stack.spec.files import Template
from stack.spec.secrets import KEY_LENGTH, PASSWORD_LENGTH
from stack.spec.service import ServiceSpec

if TYPE_CHECKING:
    from host.engine import EngineInfo
    from operations.workspace.workspace import Workspace


_READY_SECONDS = 30.0


def check_image(workspace: Workspace, image: str, kind: Kind, *, timeout: float = 0) -> Report:
    """Check an image on the environment's engine, with the environment's settings of the part.

    timeout: seconds that the image has to become ready; 0: 30. A start with good secrets is measured, and sets the time
    that the image has to refuse a wrong one.
    Raises ProjectError where the image, or that of PostgreSQL or Redis, cannot be pulled.
    """
    from host.engine import connect  # noqa: PLC0415 - tests check without it, on an engine that they have

    environment, engine = workspace.settings(), workspace.engine()
    client = connect(engine.docker_host, timeout=120)
    try:
        environment = _with_images(workspace, client, environment, engine)
        _ensure(client, image, workspace.reporter, f"There is no image {image} on the engine, and it cannot be pulled")
        environment = environment_for(environment, image, kind)
        with laboratory.opened(client, workspace.reporter) as made:
            return check(made, environment, kind, reporter=workspace.reporter, timeout=timeout)
    finally:
        client.close()


def environment_for(environment: Environment, image: str, kind: Kind) -> Environment:
    """Return the environment with this image, and with PostgreSQL and Redis in containers.

    Every LLM key is configured, so that the image shows all that it can. Each of `samokoder:applicationSecrets` gets a
    value of letters and digits.
    """
    part: Application = getattr(environment.settings, kind.value)
    # The check generates new secrets, so no rotation is under way.
    # No replica is replaced after this one, so it need not stay healthy for some seconds first.
    own = {"image": image} | ({"stable_seconds": 0, "replicas": 1} if kind is Kind.API else {})
    changes = {"rotation": Rotation(), "rotating": Rotating(), kind.value: part.model_copy(update=own)}
    if image == reference_image(environment).name:  # the reference application, given by its image's name
        command = environment.settings.migrations.command or list(migrations.REFERENCE)
        changes["migrations"] = environment.settings.migrations.model_copy(update={"command": command})
    settings = environment.settings.model_copy(update=changes)
    names = frozenset({*LLM_KEYS, *settings.application_secrets})
    return environment.model_copy(update={"settings": settings, "configured_secrets": names})


def check(
    made: Laboratory,
    environment: Environment,
    kind: Kind,
    *,
    reporter: Reporter,
    timeout: float = 0,
    changed: Callable[[ServiceSpec], ServiceSpec] = lambda spec: spec,
) -> Report:
    """Run the checks in an environment from `environment_for`. changed: returns the spec to use for the stack's."""
    spec = changed(next(api.specs(environment)) if kind is Kind.API else worker.spec(environment))
    if spec.data:  # in the stack the volume belongs to the part's user
        spec = replace(spec, data=None, tmpfs={**spec.tmpfs, **writable([spec.data.path])})
    values = _throw_away_secrets(environment, spec)
    with reporter.task("PostgreSQL and Redis") as task:
        asker, queue = _bring_up_servers(made, environment, values, task)
    migrating = None if "migrations" in environment.absent else migrations.spec(environment)
    checking = Checking(
        made, environment, spec, migrating, kind, values, asker, queue, timeout or _READY_SECONDS, reporter
    )
    checking.run()
    return Report(
        title=f"{spec.image} as {kind.value}",
        about={"image": spec.image, "kind": kind.value},
        findings=[checking.findings[check] for check in ImageCheck],
        proposal=checking.proposal,
    )


def _with_images(
    workspace: Workspace, client: docker.DockerClient, environment: Environment, engine: EngineInfo
) -> Environment:
    """Return the environment with images of PostgreSQL and Redis that the engine has: pull or build what is missing."""
    from offline import registries  # noqa: PLC0415 - as below
    from offline.images.ensure import ensure_images  # noqa: PLC0415 - seldom needed, and takes its time

    references = {"postgres": environment.image("postgres"), "redis": environment.image("redis")}
    if has_images(client, references.values()):
        return environment
    reporter = workspace.reporter
    if workspace.variables.get("OFFLINE") != "1" and not registries.unreachable(references, engine):
        for name, reference in references.items():
            _ensure(client, reference, reporter, f"Cannot pull the image of {name}")
        return environment
    made = ensure_images(references, cache=workspace.cache, docker_host=engine.docker_host, progress=reporter)
    images = environment.settings.images.model_copy(update=made.ids)
    return environment.model_copy(update={"settings": environment.settings.model_copy(update={"images": images})})


def _ensure(client: docker.DockerClient, reference: str, reporter: Reporter, otherwise: str) -> None:
    """Pull an image that the engine does not have. Raises ProjectError, which begins with `otherwise`."""
    if has_images(client, [reference]):
        return
    try:
        with reporter.task(f"Pulling {reference}"):
            client.images.pull(reference)
    except docker.errors.APIError as error:
        raise ProjectError(f"{otherwise}: {error.explanation or error}") from error


def _throw_away_secrets(environment: Environment, spec: ServiceSpec) -> dict[str, str]:
    """Generate a value for each secret that the files and variables of the parts need: name -> value."""
    templates = [t for s in (spec, *_servers(environment)) for t in (*s.files.values(), *s.secret_environment.values())]
    names = {need for template in templates if isinstance(template, Template) for need in template.needs}
    lengths = {name: KEY_LENGTH if name in {"secret_key", "app_secret_key"} else PASSWORD_LENGTH for name in names}
    return {name: random_text(length) for name, length in sorted(lengths.items())}


def _servers(environment: Environment) -> list[ServiceSpec]:
    """Describe PostgreSQL, Redis, postgres-roles and redis-users."""
    database = postgres.spec(environment)
    # Nobody needs its data afterwards, so it does not wait for its disk.
    at_first = f"{database.environment['POSTGRES_INITDB_ARGS']} --no-sync"
    database = replace(
        database,
        command=(*database.command, "-c", "fsync=off"),
        environment={**database.environment, "POSTGRES_INITDB_ARGS": at_first},
    )
    return [database, *(part.spec(environment) for part in (redis, postgres_roles, redis_users))]


def _bring_up_servers(
    made: Laboratory, environment: Environment, values: Mapping[str, str], task: Task
) -> tuple[Container, Container]:
    """Start PostgreSQL, Redis, postgres-roles and redis-users; return the first two when all are healthy."""
    specs = _servers(environment)
    started = at_once(
        lambda spec: made.run(spec, {name: text(content, values) for name, content in spec.files.items()}), specs
    )
    end = time.monotonic() + max(spec.health.wait_timeout_seconds for spec in specs)
    for spec, container in zip(specs, started, strict=True):
        task.detail = spec.part
        while not tried(container, spec.health_command, seconds=spec.health.timeout_seconds)[0]:
            container.reload()
            if container.status != "running" or time.monotonic() > end:
                said = without(values, log_of(container))[-1000:]
                raise ProjectError(f"{spec.part} does not come up, so nothing can be checked. Its log ends:\n{said}")
            time.sleep(TURN_SECONDS)
    return started[0], started[1]
