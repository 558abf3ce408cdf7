"""One environment: its settings, its name, which secrets are configured, and what follows from them."""

from __future__ import annotations

from stack.common.names import PROJECT
from stack.images import IMAGES
from stack.settings.app import LLM_KEYS, SECRET_SETTINGS
from stack.settings.data import Offsite
from stack.settings.part import PartSettings
from stack.settings.tree import Settings
from stack.settings.types import Model


class Environment(Model):
    """The settings of one stack, together with its name and which secrets its configuration has."""

    name: str
    settings: Settings
    configured_secrets: frozenset[str] = frozenset()

    @property
    def prefix(self) -> str:
        """First part of every name on the engine, so that two environments can share an engine."""
        return f"{PROJECT}-{self.name}"

    def data_volume(self, name: str, adopt: str = "") -> str:
        """Return a data volume's name on the engine. adopt: name of an existing volume that is taken over."""
        return adopt or f"{self.prefix}-{name}-data"

    def scratch_volume(self, name: str) -> str:
        """Return a scratch volume's name on the engine."""
        return f"{self.prefix}-{name}-scratch"

    @property
    def managed_database(self) -> bool:
        """Whether a provider runs PostgreSQL: then the stack has no container, volume or roles for it."""
        return "managedDatabaseUrl" in self.configured_secrets

    @property
    def managed_redis(self) -> bool:
        """Whether a provider runs Redis."""
        return "managedRedisUrl" in self.configured_secrets

    @property
    def database_ca(self) -> str:
        """CA certificate that must have signed the managed PostgreSQL's; empty if none is set or it is local."""
        return self.settings.managed_database_ca if self.managed_database else ""

    @property
    def redis_ca(self) -> str:
        """CA certificate that must have signed the managed Redis'; empty if none is set or Redis is local."""
        return self.settings.managed_redis_ca if self.managed_redis else ""

    @property
    def physical_backups(self) -> bool:
        """Whether there are base backups and the write-ahead log of PostgreSQL, in addition to dumps."""
        asked = self.settings.backup.physical
        return self.settings.backup.enabled and (not self.managed_database if asked is None else asked)

    @property
    def dump_schedule(self) -> str:
        """When a dump is made: more often where there is nothing else to restore from."""
        return self.settings.backup.dump_schedule or ("15 3 * * *" if self.physical_backups else "15 */6 * * *")

    @property
    def offsite(self) -> Offsite | None:
        """The bucket that gets a copy of the backups; None without one or without backups."""
        return self.settings.backup.offsite if self.settings.backup.enabled else None

    @property
    def basic_auth(self) -> bool:
        """Whether Prometheus, AlertManager and VictoriaLogs ask for a password."""
        asked = self.settings.basic_auth
        return asked == "always" or (asked == "production" and self.settings.production)

    @property
    def secret_settings(self) -> frozenset[str]:
        """Names of the application's secret settings in this environment: what `secretsInEnvironment` may name."""
        llm = {name for key, name in LLM_KEYS.items() if key in self.configured_secrets}
        return SECRET_SETTINGS | llm | set(self.settings.application_secrets)

    @property
    def absent(self) -> frozenset[str]:
        """The parts that this environment does not run, by their field names in `Settings`."""
        names: set[str] = set(self.settings.unavailable)
        if not (self.settings.frontend.enabled or self.settings.frontend.image):
            names.add("frontend")
        if self.settings.ingress.kind != "caddy":
            names.add("ingress")
        if self.settings.api.image and not self.settings.migrations.command:
            names.add("migrations")
        if not self.settings.backup.enabled:
            names |= {"backup", "drill"}
        if not self.settings.logs.enabled:
            names |= {"logs", "log_collector"}
        if not self.settings.workspace.path:
            names.add("workspace")
        if self.managed_database:
            names |= {"postgres", "postgres_roles"}
        if self.managed_redis:
            names |= {"redis", "redis_users"}
        return frozenset(names)

    def parts_of(self, field: str) -> list[str]:
        """Return the names of the parts of a field of `Settings`: one part, or for `api` one for each replica."""
        if field == "api":
            return [f"api-{number}" for number in range(1, self.settings.api.replicas + 1)]
        return [field.replace("_", "-")]

    @property
    def alert_ways(self) -> list[str]:
        """The configured integrations that send alerts to a person, named as in AlertManager's metrics."""
        settings = self.settings.alertmanager
        ways = {
            "telegram": settings.telegram is not None,
            "email": settings.email is not None,
            "webhook": "alertWebhookUrl" in self.configured_secrets,
        }
        return [way for way, configured in ways.items() if configured]

    def api_in_turn(self) -> list[str]:
        """Return the names of the API's replicas in the order in which a deploy replaces them."""
        first = [f"api-{number}" for number in self.settings.api.first]
        return sorted(self.parts_of("api"), key=lambda part: part not in first)

    def image(self, name: str) -> str:
        """Return a third-party image: the configured one, else the pinned one. `backup`: base of the backup server."""
        configured: str | None = getattr(self.settings.images, name)
        if name == "backup":
            # Base backups must be read with programs of the same PostgreSQL version that wrote them.
            return configured or self.image("postgres")
        return configured or IMAGES[name].reference

    def running(self) -> dict[str, PartSettings]:
        """Return field name -> settings of each part that runs in this environment."""
        return {
            name: part
            for name in type(self.settings).model_fields
            if isinstance(part := getattr(self.settings, name), PartSettings) and name not in self.absent
        }
