"""The servers that check a rotated password: in which container a login is tried, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from operations.engine.commands import frames
from operations.engine.redaction import without
from operations.errors import ProjectError
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment

if TYPE_CHECKING:
    from docker.models.containers import Container


Answer = Literal["in", "refused"]


@dataclass(frozen=True, kw_only=True)
class AuthServer:
    """A server that checks a password: in which part's container a login is tried, and how."""

    part: str
    script: str
    user: str
    """The user that logs in; empty: the role that belongs to the slot."""
    taken: str
    """The output after a login."""
    refused: tuple[str, ...]

    def login(self, container: Container, environment: Environment, slot: str, password: str) -> Answer:
        """Try a password. Raises ProjectError where the server cannot be asked."""
        user = self.user or postgres_roles.role_of(slot.replace("-", "_"))
        database = environment.settings.postgres.database
        said = _exec(container, ["sh", "-c", self.script, user, database], f"{password}\n")
        if any(text in said for text in self.refused):
            return "refused"
        if said.strip() == self.taken:
            return "in"
        raise ProjectError(f"{self.part} cannot ask its server: {without({'the password': password}, said)}")


# The scripts read the password from standard input, so that it is in no command and in no container's configuration.
_PSQL = f"""\
umask 077
IFS= read -r password
file=/tmp/login.$$
trap 'rm -f "$file"' EXIT
printf '%s:%s:*:%s:%s\\n' {postgres.PART} {postgres.PORT} "$0" "$password" > "$file"
PGPASSFILE=$file psql --host={postgres.PART} --port={postgres.PORT} --username="$0" --dbname="$1" --no-password \\
    --no-psqlrc --tuples-only --no-align --command="SELECT 'in'" 2>&1
"""
_REDIS_CLI = f"""\
IFS= read -r REDISCLI_AUTH
export REDISCLI_AUTH
redis-cli -h {redis.PART} -p {redis.PORT} --user "$0" ping 2>&1
"""


def _postgres(user: str) -> AuthServer:
    refused = ("password authentication failed", "is not permitted to log in")
    return AuthServer(part=postgres_roles.PART, script=_PSQL, user=user, taken="in", refused=refused)


def _redis(user: str) -> AuthServer:
    return AuthServer(part=redis_users.PART, script=_REDIS_CLI, user=user, taken="PONG", refused=("WRONGPASS",))


SERVERS: Mapping[str, AuthServer] = {
    "postgres_app": _postgres(""),
    "postgres_exporter": _postgres(postgres.EXPORTER_ROLE),
    "postgres_backup": _postgres(postgres.BACKUP_ROLE),
    "redis_app": _redis(redis.APP_USER),
    "redis_exporter": _redis(redis.EXPORTER_USER),
    "redis_backup": _redis(redis.BACKUP_USER),
}


def _exec(container: Container, command: Sequence[str], text: str) -> str:
    """Run a command in a container with `text` on its standard input; return its output."""
    api = cast("Any", container.client).api
    made = api.exec_create(container.id, list(command), stdin=True)
    stream = api.exec_start(made["Id"], socket=True)
    # The SDK returns a reader over the socket, and closing the reader leaves the socket open; over SSH both are one.
    connection = getattr(stream, "_sock", stream)
    try:
        connection.sendall(text.encode())
        return b"".join(data for _, data in frames(stream)).decode(errors="replace")
    finally:
        stream.close()
        connection.close()
