"""Rules about settings that need more than one key."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator

from stack.common import cron
from stack.common.mistakes import Mistake
from stack.common.names import PROJECT
from stack.common.references import parse_reference
from stack.common.secret_rules import CONFIGURED_SECRETS
from stack.images import IMAGES
from stack.settings import application_secrets, connections, ipv6
from stack.settings.app import GIVEN_SECRETS, LLM_KEYS, Application
from stack.settings.data import LEAST_MAXMEMORY_MIB
from stack.settings.environment import Environment
from stack.settings.ingress import IngressSettings
from stack.settings.keys import key_of
from stack.settings.monitoring import PrometheusSettings
from stack.settings.part import Published
from stack.settings.rotation import Rotating
from stack.settings.types import LAST_PORT, seconds


def rules(environment: Environment, *, incomplete: bool = False) -> Iterator[Mistake]:
    """Yield the mistakes that only two or more keys together show.

    incomplete: whether what an `up` needs may still be missing, such as a secret.
    """
    yield from _port_rules(environment)
    yield from _access_rules(environment)
    yield from _ingress_rules(environment)
    yield from _threshold_rules(environment)
    yield from _backup_rules(environment)
    yield from _memory_rules(environment)
    yield from _version_rules(environment)
    yield from connections.rules(environment)
    yield from ipv6.rules(environment)
    yield from _secret_use_rules(environment, incomplete=incomplete)
    yield from _workspace_rules(environment)
    yield from _rotation_rules(environment)
    if environment.settings.production and not incomplete:
        yield from _production_rules(environment)


def _port_rules(environment: Environment) -> Iterator[Mistake]:
    taken: dict[int, str] = {}  # port -> the key that has it
    said = set(_ports(environment))
    for name, part in environment.running().items():
        if not isinstance(part, Published):
            continue
        for field in _port_fields(part):
            port, key = getattr(part, field), key_of(name, field)
            if port in taken:
                allowed = f"a port that no other part has: {taken[port]} has it already"
                free = next(each for each in (*range(port, LAST_PORT + 1), *range(port, 0, -1)) if each not in said)
                said.add(free)
                yield Mistake(key, str(port), allowed, f"{key}: {free}")
            taken.setdefault(port, key)
        inside = bool(ipaddress.ip_address(part.bind_address).is_loopback)
        if not (inside or part.bind_reason.strip()):
            yield Mistake(
                key_of(name, "bind_address"),
                part.bind_address,
                "a loopback address, or bindReason beside it saying why this port is reachable from outside",
                f'{key_of(name, "bind_reason")}: "behind the provider\'s load balancer"',
            )


def _port_fields(part: Published) -> list[str]:
    return ["port", "https_port"] if isinstance(part, IngressSettings) and part.domain else ["port"]


def _ports(environment: Environment) -> Iterator[int]:
    for part in environment.running().values():
        if isinstance(part, Published):
            yield from (getattr(part, field) for field in _port_fields(part))


def _access_rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if Prometheus, AlertManager or VictoriaLogs has no password and is not on loopback."""
    for name in sorted({"prometheus", "alertmanager", "logs"} - environment.absent):
        part: Published = getattr(environment.settings, name)
        if not environment.basic_auth and not ipaddress.ip_address(part.bind_address).is_loopback:
            yield Mistake(
                key_of(name, "bind_address"),
                part.bind_address,
                f"a loopback address, or {key_of('basic_auth')}: always: without a password everybody who reaches "
                "the port may read all and silence every alert",
                f"{key_of('basic_auth')}: always",
            )


def _ingress_rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if the team's Traefik is used without its network, its address or a domain."""
    ingress = environment.settings.ingress
    if ingress.kind == "traefik" and ingress.traefik is None:
        key = key_of("ingress", "traefik", "network")
        yield Mistake(key, "nothing", "the Docker network on which your Traefik listens", f"{key}: traefik")
    if ingress.kind == "traefik" and ingress.traefik and not ingress.traefik.address:
        key = key_of("ingress", "traefik", "address")
        yield Mistake(
            key,
            "nothing",
            f"your Traefik's fixed address on {ingress.traefik.network} (`docker network inspect "
            f"{ingress.traefik.network}`): whoever else is on that network could claim any client's address",
            f"{key}: 172.30.0.2",
        )
    if ingress.kind == "traefik" and not ingress.domain:
        key = key_of("ingress", "domain")
        yield Mistake(
            key, "nothing", "the name by which your Traefik knows the service", f"{key}: samokoder.example.org"
        )


def _threshold_rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if a critical alert would not fire later than the warning about the same thing."""
    alerts = environment.settings.alerts
    for low, almost in (
        ("disk_low_percent", "disk_almost_full_percent"),
        ("tls_expires_days", "tls_expires_very_soon_days"),
        ("tls_expires_percent", "tls_expires_very_soon_percent"),
    ):
        first, second = getattr(alerts, low), getattr(alerts, almost)
        if second >= first:
            yield Mistake(
                key_of("alerts", almost),
                str(second),
                f"less than {key_of('alerts', low)} ({first}): the critical alert comes after the warning",
                f"{key_of('alerts', almost)}: {first / 2}",
            )


def _backup_rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if the threshold of RestoreDrillTooOld is not above the longest pause between two drills."""
    if not environment.settings.backup.enabled:
        return
    pause = cron.parse(environment.settings.backup.drill_schedule).longest_pause_hours / 24
    if environment.settings.alerts.restore_drill_days <= pause:
        key = key_of("alerts", "restore_drill_days")
        yield Mistake(
            key,
            str(environment.settings.alerts.restore_drill_days),
            f"more than {pause:g}, the days between two restores by {key_of('backup', 'drill_schedule')}",
            f"{key}: {pause + 1:.1f}",
        )


_DRILL_BASE_MIB = 96
"""Memory in MiB that the part `drill` needs in addition to the Redis that it loads."""
_LEAST_SCRAPE_SECONDS = 2
_POSTGRES_MAJOR = "15"


def _memory_rules(environment: Environment) -> Iterator[Mistake]:
    limits = {name: part.memory_mib * len(environment.parts_of(name)) for name, part in environment.running().items()}
    total, host = sum(limits.values()), environment.settings.host.memory_mib
    if total > host:
        largest = ", ".join(f"{n} {m}" for n, m in sorted(limits.items(), key=lambda item: -item[1])[:4])
        yield Mistake(
            key_of("host", "memory_mib"),
            str(host),
            f"at least {total} MiB, the sum of the parts' memory limits (the largest: {largest}); "
            "name the host's real memory or lower the limits",
            f"{key_of('host', 'memory_mib')}: {max(total, 1024)}",
        )
    for name, part in environment.running().items():
        if part.cpus > environment.settings.host.cpus:
            yield Mistake(
                key_of(name, "cpus"),
                str(part.cpus),
                f"at most {environment.settings.host.cpus}, the host's cores ({key_of('host', 'cpus')})",
                f"{key_of(name, 'cpus')}: {float(environment.settings.host.cpus)}",
            )
    redis = environment.settings.redis
    if "redis" not in environment.absent and redis.maxmemory_mib > 0.8 * redis.memory_mib:
        most = int(0.8 * redis.memory_mib)
        # There may be no lower value that is allowed.
        lower, higher = f"maxmemoryMib: {most}", f"memoryMib: {math.ceil(redis.maxmemory_mib / 0.8)}"
        yield Mistake(
            key_of("redis", "maxmemory_mib"),
            str(redis.maxmemory_mib),
            f"at most 80 % of {key_of('redis', 'memory_mib')} ({redis.memory_mib}): Redis needs the rest while it "
            "rewrites its append-only file, and the kernel would kill it",
            f"{key_of('redis')}.{lower if most >= LEAST_MAXMEMORY_MIB else higher}",
        )
    drill, needed = environment.settings.drill.memory_mib, math.ceil(1.25 * redis.maxmemory_mib) + _DRILL_BASE_MIB
    if not {"redis", "drill"} & environment.absent and drill < needed:
        yield Mistake(
            key_of("drill", "memory_mib"),
            str(drill),
            f"at least {needed}, {_DRILL_BASE_MIB} and 1.25 times {key_of('redis', 'maxmemory_mib')} "
            f"({redis.maxmemory_mib}): each copy of Redis is loaded there, and one that is full would not be verified",
            f"{key_of('drill', 'memory_mib')}: {needed}",
        )
    yield from _scrape_rules(environment.settings.prometheus)


def _version_rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if PostgreSQL's image is of another major version, by its tag: it would end the running one."""
    key, image = key_of("images", "postgres"), environment.settings.images.postgres
    if image is None or "postgres" in environment.absent:
        return
    major = re.match(r"(9|[1-9][0-9])(?![0-9])", parse_reference(image).tag or "")
    if major and major[0] != _POSTGRES_MAJOR:
        yield Mistake(
            key,
            image,
            f"PostgreSQL {_POSTGRES_MAJOR}: another major version does not start on its files, and from 18 on its "
            "image keeps its data in another folder; upgrade by dump and restore (docs/migrating-from-compose.md)",
            f"{key}: {IMAGES['postgres'].reference}",
        )


def _scrape_rules(prometheus: PrometheusSettings) -> Iterator[Mistake]:
    interval, timeout = seconds(prometheus.scrape_interval), seconds(prometheus.scrape_timeout)
    least = f"{_LEAST_SCRAPE_SECONDS}s"
    for field, value in (("scrape_interval", interval), ("scrape_timeout", timeout)):
        if value >= _LEAST_SCRAPE_SECONDS:
            continue
        yield Mistake(
            key_of("prometheus", field),
            getattr(prometheus, field),
            f"at least {least}: an exporter waits a whole second for its server, and has to say that it is silent "
            "before the scrape is given up",
            f'{key_of("prometheus", field)}: "{least}"',
        )
    if timeout > max(interval, _LEAST_SCRAPE_SECONDS):
        most = prometheus.scrape_interval if interval >= _LEAST_SCRAPE_SECONDS else least
        yield Mistake(
            key_of("prometheus", "scrape_timeout"),
            prometheus.scrape_timeout,
            f"at most the scrape interval, {most}",
            f'{key_of("prometheus", "scrape_timeout")}: "{most}"',
        )


def _secret_use_rules(environment: Environment, *, incomplete: bool) -> Iterator[Mistake]:
    """Yield mistakes about secrets: one that a setting needs is missing, one does not exist, one is in plain text."""
    alertmanager = environment.settings.alertmanager
    needs = (
        ("telegramBotToken", alertmanager.telegram is not None, key_of("alertmanager", "telegram")),
        (
            "smtpPassword",
            bool(alertmanager.email and alertmanager.email.username),
            key_of("alertmanager", "email", "username"),
        ),
        ("s3AccessKeyId", environment.offsite is not None, key_of("backup", "offsite")),
        ("s3SecretAccessKey", environment.offsite is not None, key_of("backup", "offsite")),
    )
    for secret, needed, because in needs:
        if needed and not incomplete and secret not in environment.configured_secrets:
            yield Mistake(
                f"{PROJECT}:{secret}",
                "nothing",
                f"the secret that {because} needs",
                CONFIGURED_SECRETS[secret].how_to_set,
            )
    for name in ("api", "worker"):
        application: Application = getattr(environment.settings, name)
        if application.secrets_as == "environment" and application.secrets_in_environment:
            key = key_of(name, "secrets_in_environment")
            yield Mistake(
                key,
                ", ".join(application.secrets_in_environment),
                f"nothing beside {key_of(name, 'secrets_as')}: environment, which gives the image all of them unseen",
                f"pulumi config rm --path {key}",
            )
        for setting in application.secrets_in_environment:
            if setting not in environment.secret_settings | (frozenset(LLM_KEYS.values()) if incomplete else set()):
                yield Mistake(
                    key_of(name, "secrets_in_environment"),
                    setting,
                    "secret settings that this environment has: " + ", ".join(sorted(environment.secret_settings)),
                    f"{key_of(name, 'secrets_in_environment')}: [SECRET_KEY]",
                )
        listed = environment.settings.application_secrets
        never_plain = GIVEN_SECRETS | set(listed)
        for setting in sorted(application.environment.keys() & application_secrets.paths(listed)):
            yield Mistake(
                f"{key_of(name, 'environment')}.{setting}",
                "a value (not shown)",
                f"nothing: {setting} says where the file of a secret in {application_secrets.KEY} is",
                f"pulumi config rm --path '{key_of(name, 'environment')}.{setting}'",
            )
        for setting in sorted(application.environment.keys() & never_plain):
            yield Mistake(
                f"{key_of(name, 'environment')}.{setting}",
                "a value in plain text (not shown)",
                f"no secret: {setting} reaches the image as a file, or by {key_of(name, 'secrets_in_environment')}",
                f"pulumi config rm --path '{key_of(name, 'environment')}.{setting}'",
            )


def _workspace_rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if one of the folders in memory and the shared folder would hide another one."""
    shared = environment.settings.workspace.path
    for name in ("api", "worker"):
        paths = getattr(environment.settings, name).writable_paths
        every = [*paths, *([shared] if shared else [])]
        for path in paths:
            others = [other for other in every if other != path]
            both = [(f"{path}/", f"{other}/") for other in others]
            if every.count(path) > 1 or any(one.startswith(two) or two.startswith(one) for one, two in both):
                key = key_of(name, "writable_paths")
                yield Mistake(
                    key,
                    path,
                    f"a path that is named once, and none in another one ({key_of('workspace', 'path')} too)",
                    f"{key}: [/app/config]",
                )


def _rotation_rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if a secret in rotation is not generated by the stack or has no previous generation."""
    settings = environment.settings
    elsewhere = {
        "secret_key": (
            "secretKey" in environment.configured_secrets,
            "it is configured, and its owner makes a new one",
        ),
        "postgres_app": (environment.managed_database, "the managed database's password is not ours"),
        "redis_app": (environment.managed_redis, "the managed Redis' password is not ours"),
    }
    for name in Rotating.model_fields:
        phase, generation = getattr(settings.rotating, name), getattr(settings.rotation, name)
        key = key_of("rotating", name)
        given_elsewhere, why = elsewhere.get(name, (False, ""))
        if phase and given_elsewhere:
            yield Mistake(key, phase, f"nothing: {why}", f"pulumi config rm --path {key}")
        elif phase and generation == 1:
            generation_key = key_of("rotation", name)
            yield Mistake(
                generation_key, "1", f"2 or more: {key} is {phase!r}, so there is one before", f"{generation_key}: 2"
            )


def _production_rules(environment: Environment) -> Iterator[Mistake]:
    settings = environment.settings
    if settings.alertmanager.telegram is None:
        yield Mistake(
            key_of("alertmanager", "telegram", "chat_id"),
            "nothing",
            "production must be able to wake somebody: the chat that gets the alerts",
            "pulumi config set --path 'samokoder:alertmanager.telegram.chatId' -- -1001234567890",
        )
        if "telegramBotToken" not in environment.configured_secrets:
            yield Mistake(
                f"{PROJECT}:telegramBotToken",
                "nothing",
                "the token that BotFather gave the bot",
                CONFIGURED_SECRETS["telegramBotToken"].how_to_set,
            )
    if settings.backup.enabled and settings.backup.offsite is None:
        key = key_of("backup", "offsite")
        yield Mistake(
            key,
            "nothing",
            "production must survive the loss of this machine: the S3-compatible bucket elsewhere that gets a copy of "
            "every backup, encrypted before it leaves",
            "\n".join(
                (
                    f"pulumi config set --path {key}.endpoint https://s3.example.org",
                    f"pulumi config set --path {key}.bucket samokoder-backups",
                    CONFIGURED_SECRETS["s3AccessKeyId"].how_to_set,
                    CONFIGURED_SECRETS["s3SecretAccessKey"].how_to_set,
                )
            ),
        )
    for name in ("api", "worker"):
        if getattr(settings, name).image is None:
            yield Mistake(
                key_of(name, "image"),
                "nothing",
                "the team's own image with its digest: the reference application is for trials",
                f"{key_of(name, 'image')}: registry.example.org/samokoder/{name}:1.4.2@sha256:…",
            )
    images = {key_of("images", name): getattr(settings.images, name) for name in type(settings.images).model_fields}
    images |= {key_of(name, "image"): getattr(settings, name).image for name in ("api", "worker", "frontend")}
    for key, image in images.items():
        if image is not None and not parse_reference(image).is_pinned:
            yield Mistake(
                key,
                image,
                "production runs what was tested: a tag can move, so the digest is required",
                f"{key}: {image}@sha256:…",
            )
