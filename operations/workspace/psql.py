"""The psql command for the database, as the application's role or the monitoring role; never as the superuser.

A view or a function that the application has in its database runs with the rights of the role that asks. So that role
may do no more than the application, and it changes nothing unless `write` is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from operations.errors import ProjectError

if TYPE_CHECKING:
    from docker.models.containers import Container

    from stack.settings.environment import Environment

_READ_ONLY = "PGOPTIONS=-c default_transaction_read_only=on"


def psql_command(
    environment: Environment, sql: str = "", *, monitoring: bool = False, write: bool = False
) -> list[str]:
    """Return the command to run in PostgreSQL's container. sql: one statement or more; empty: a session for a person.

    Raises ProjectError for a managed database, which has no container here.
    """
    from stack.spec.rotation import slots  # noqa: PLC0415 - the settings take their time

    if environment.managed_database:
        raise ProjectError("The database is managed: ask it where it is, with its own URL.")
    slot = slots(environment, "postgres_app").in_use
    return _words(slot, environment.settings.postgres.database, sql, monitoring=monitoring, write=write)


def psql_command_of_state(
    deployment: Mapping[str, Any], container: Container, sql: str = "", *, monitoring: bool = False, write: bool = False
) -> list[str]:
    """Return the same command from Pulumi's state and PostgreSQL's container, where the stack file has mistakes."""
    from operations.workspace import pulumi_state  # noqa: PLC0415 - as above
    from stack.spec.rotation import label  # noqa: PLC0415

    slot = pulumi_state.slots_in_use(deployment).get(label("postgres_app"), "").replace("-", "_")
    variables = dict(word.partition("=")[::2] for word in container.attrs["Config"]["Env"])
    return _words(slot, variables["POSTGRES_DB"], sql, monitoring=monitoring, write=write)


def _words(slot: str, database: str, sql: str, *, monitoring: bool, write: bool) -> list[str]:
    from stack.parts.postgres import roles as postgres_roles  # noqa: PLC0415 - the settings take their time
    from stack.parts.postgres import spec as postgres  # noqa: PLC0415 - the settings take their time

    role = postgres.EXPORTER_ROLE if monitoring else postgres_roles.role_of(slot)
    words = [*(() if write else ("env", _READ_ONLY)), "psql", "--no-psqlrc", "--pset=pager=off"]
    words += [f"--username={role}", f"--dbname={database}"]
    return [*words, "--set=ON_ERROR_STOP=1", f"--command={sql}"] if sql else words
