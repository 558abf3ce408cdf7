"""The parts that use a server: a restore stops them while it replaces the server's data."""

from __future__ import annotations

from collections.abc import Mapping

from operations.data.restore.request import Server

BACKUP = ("backup", "drill")
"""The backup server and the part that opens backups: a shell that came out of them can hold their lock from there."""
USERS: Mapping[Server, tuple[tuple[str, ...], ...]] = {
    # A restore starts one group after another, each when the group before it is healthy. postgres-roles gives the roles
    # this machine's passwords; the migrations upgrade an older schema to the code that runs. The backup server is last,
    # and records the restored database as a new history.
    "postgres": (("postgres_roles",), ("migrations",), ("api", "worker", "postgres_exporter"), BACKUP),
    "redis": (("redis_users",), ("api", "worker", "redis_exporter")),
    "workspace": (("api", "worker"),),
    "backup": (),
}
"""Server -> groups of the parts that use it, as fields of the settings."""


def users_of(data: str) -> list[str]:
    """Return the parts that use the server with this data (`postgres`), as fields of the settings; other data: none."""
    return [name for server, groups in USERS.items() if server == data for group in groups for name in group]
