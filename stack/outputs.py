"""Outputs of the stack for the `samokoder` command, and warnings for the person who reads a preview. No secrets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from stack.common.names import PROJECT, typed
from stack.parts.alertmanager.routing import integrations
from stack.parts.api import spec as api
from stack.parts.worker import spec as worker
from stack.settings import connections
from stack.settings.app import Application
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.settings.part import Published
from stack.settings.rotation import Rotating
from stack.spec.rotation import label
from stack.spec.service import ServiceSpec
from stack.spec.volumes import left, used

UNAVAILABLE = "not available"
REACH_SOMEBODY = (
    f"set {key_of('alertmanager', 'telegram')} and the secret {PROJECT}:telegramBotToken, "
    f"{key_of('alertmanager', 'email')}, or the secret {PROJECT}:alertWebhookUrl"
)


def outputs(environment: Environment, specs: Sequence[ServiceSpec]) -> dict[str, Any]:
    """Return the outputs: each part with its container, address and target, and the parts that are not available."""
    return {
        "environment": environment.name,
        "dockerHost": environment.settings.docker_host,
        "production": environment.settings.production,
        "parts": {spec.part: _part(environment, spec) for spec in specs},
        "unavailable": list(environment.settings.unavailable),
        "volumes": sorted({*used(environment, specs).values(), *left(environment, specs).values()}),
    }


def _part(environment: Environment, spec: ServiceSpec) -> dict[str, Any]:
    part: dict[str, Any] = {"container": f"{environment.prefix}-{spec.part}"}
    if spec.publish and isinstance(spec.settings, Published):
        part["url"] = spec.settings.url
        part["healthUrl"] = part["url"] + spec.publish.path
    if spec.job:
        part["job"] = spec.job
    return part


def of_kept_volumes(environment: Environment, specs: Sequence[ServiceSpec]) -> Iterator[str]:
    """Yield a sentence for each part that is switched off: which volume still has its data."""
    for which, volume in left(environment, specs).items():
        yield (
            f"{which} is switched off: its data stays in the volume {volume}, and is not copied to what takes its "
            "place. Switched on again, it has that data."
        )


def warnings(environment: Environment) -> Iterator[str]:
    """Yield warnings about this configuration, for a person to read before the update."""
    settings = environment.settings
    yield from _of_backups(environment)
    for part in settings.unavailable:
        yield (
            f"{part}: {UNAVAILABLE} on this host ({key_of('unavailable')}). The stack comes up without it; "
            "its files are rendered and checked all the same."
        )
    yield from connections.warnings(environment)
    yield from _of_own_images(environment)
    for name in ("api", "worker"):
        for secret in getattr(settings, name).secrets_in_environment:
            yield (
                f"{key_of(name, 'secrets_in_environment')}: {secret} is in the environment of the container, "
                "readable by everybody who may ask the engine. Remove it as soon as the image reads "
                f"/run/secrets/{secret.lower()} or {secret}_FILE."
            )
    for name in Rotating.model_fields:
        if phase := getattr(settings.rotating, name):
            yield (
                f"{key_of('rotating', name)} is {phase!r}: two values of {label(name)} are accepted until "
                f"`{typed(environment.name, f'rotate SECRET={label(name)}')}` has come to its end."
            )
    yield from _of_entry(environment)
    if not integrations(environment):
        yield f"alerts are shown and sent to nobody: {REACH_SOMEBODY}."
    if settings.production and "runbooks_url" not in settings.alerts.model_fields_set:
        yield (
            f"the alerts link to runbooks at {settings.alerts.runbooks_url}: set {key_of('alerts', 'runbooks_url')} to "
            "where your own repository shows docs/runbooks."
        )
    if settings.production and "heartbeatUrl" not in environment.configured_secrets:
        yield (
            f"nobody notices when the monitoring itself stops: set the secret {PROJECT}:heartbeatUrl, an address "
            "outside this host that the Watchdog is sent to and that raises the alarm when it stops."
        )


def _of_entry(environment: Environment) -> Iterator[str]:
    """Yield what the public entry does not protect, and whom it cannot tell apart."""
    settings = environment.settings
    if wide := [each for each in settings.ingress.trusted_proxies if _may_have_users(each)]:
        yield (
            f"{key_of('ingress', 'trusted_proxies')}: all users in {', '.join(wide)} are one client to the rate "
            "limits, because each of their addresses counts as a load balancer's. Name its own addresses: 10.0.3.7/32."
        )
    if settings.production and not settings.ingress.domain:
        yield (
            f"the service is reached on {settings.ingress.bind_address}:{settings.ingress.port} by HTTP alone: set "
            f"{key_of('ingress', 'domain')}, or let your own proxy with TLS in front of it."
        )


def _may_have_users(network: str) -> bool:
    """Tell whether a trusted network is private, and has room for more than a load balancer: an office's, a VPN's."""
    read = ipaddress.ip_network(network)
    widest = 24 if read.version == 4 else 120  # noqa: PLR2004 - 256 addresses of either kind
    return not read.is_global and read.prefixlen < widest


def _of_own_images(environment: Environment) -> Iterator[str]:
    """Yield what a team's own image weakens, and which settings about it are missing."""
    settings = environment.settings
    if settings.redis.login == "none" and not environment.managed_redis:
        yield (
            f"{key_of('redis', 'login')} is none: every part on the network `data` may read, write and delete all that "
            "the application has in Redis, without a password. Set it back as soon as the image logs in with "
            "REDIS_USERNAME and REDIS_PASSWORD."
        )
    for name, default in (("api", api.COMMAND), ("worker", worker.COMMAND)):
        part: Application = getattr(settings, name)
        if part.image and not part.command:
            yield (
                f"{key_of(name, 'command')} is not set, so {part.image} is started by the contract's own command, "
                f"{' '.join(default)}. `make check-image IMAGE={part.image} KIND={name}` says the image's own."
            )
    own = settings.worker.command
    if own and not (settings.worker.metrics_port or settings.worker.health_command or worker.arq_check(own)):
        yield (
            f"{key_of('worker', 'healthCommand')} is not set, and {key_of('worker', 'metricsPort')} is null: the "
            f"worker is asked by arq --check {worker.COMMAND[1]}, which knows nothing of {' '.join(own)}. Set "
            "a command that ends with 0 while the worker is well."
        )


def _of_backups(environment: Environment) -> Iterator[str]:
    """Yield which data the backups of this environment do not cover."""
    settings = environment.settings.backup
    if not settings.enabled:
        yield f"no backups are made: {key_of('backup', 'enabled')} is false, and what is lost is lost."
        return
    if not environment.physical_backups:
        whose = "the managed database" if environment.managed_database else "PostgreSQL"
        yield (
            f"of {whose} there are dumps alone ({environment.dump_schedule}, UTC): what was written since the last one "
            f"can be lost, and one cannot go back to a moment between two. {key_of('backup', 'physical')}: true makes "
            "base backups and keeps the write-ahead log; the server must allow replication connections."
        )
    if environment.managed_redis:
        yield "of the managed Redis no copies are made: backups of it are its provider's."
    if environment.offsite is None:
        yield (
            "the backups are on this machine alone, and lost with it: set "
            f"{key_of('backup', 'offsite')} with the secrets {PROJECT}:s3AccessKeyId and {PROJECT}:s3SecretAccessKey."
        )
    elif "backupEncryptionKey" not in environment.configured_secrets:
        shown = typed(environment.name, "password NAME=backup-encryption-key")
        yield (
            "the key of the off-site copies is in this stack's state alone: lost with it, nobody can read them any "
            f"more. Keep it elsewhere (`{shown}`), and set the secret "
            f"{PROJECT}:backupEncryptionKey to it: nothing else changes."
        )
