"""Who uses a server, and so is stopped while its data is replaced."""

from __future__ import annotations

from collections.abc import Mapping

from operations.data.restore.request import Server

BACKUP = ("backup", "drill")
"""The backup server and the part that opens backups: a shell that came out of them can hold their lock from there."""
USERS: Mapping[Server, tuple[tuple[str, ...], ...]] = {
    # Group by group they are started, each once the one before is healthy. The keeper gives the roles this machine's
    # passwords; the migrations bring the schema of an older moment to the code that runs. The backup comes last, and
    # takes what is new as a new history.
    "postgres": (("postgres_roles",), ("migrations",), ("api", "worker", "postgres_exporter"), BACKUP),
    "redis": (("redis_users",), ("api", "worker", "redis_exporter")),
    "workspace": (("api", "worker"),),
    "backup": (),
}
"""Who uses a server, by the fields of the settings."""


def users_of(data: str) -> list[str]:
    """Return who uses the server with this data (`postgres`), by the fields of the settings; nobody for other data."""
    return [name for server, groups in USERS.items() if server == data for group in groups for name in group]
