"""The keeper of the schema: migrates the database to the API's version before a replica of that one serves.

A keeper and not a job that ends, for the reason in `stack/parts/postgres/roles.py`. While it fails, the replicas of the
version before stay as they are and go on serving.
"""

from __future__ import annotations

from stack.common.names import NetworkName
from stack.parts.api import contract
from stack.parts.backup import workspace
from stack.parts.postgres import roles as postgres_roles
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.service import NotScraped, ServiceSpec

PART = "migrations"
REFERENCE = ("python", "-m", "samokoder.migrate")

# The shell is process 1's child and must hand SIGTERM on: a migration that is told to end rolls back.
_KEEP = """\
rm -f /tmp/applied
"$@" &
trap "kill -TERM $!" TERM
wait $! || exit
trap - TERM
touch /tmp/applied
exec sleep infinity
"""


def spec(environment: Environment) -> ServiceSpec:
    """Describe the keeper."""
    settings, application = environment.settings.migrations, environment.settings.api
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Migrations",
        **contract.given(environment, application)
        | {"entrypoint": contract.started(application, "sh", "-euc", _KEEP, PART)},
        settings=settings,
        command=tuple(settings.command or REFERENCE),
        health_command=health.APPLIED,
        # `edge`: a managed database is outside.
        networks=(NetworkName.EDGE, NetworkName.DATA),
        scrape=NotScraped(reason="has nothing to measure: its health says whether the schema is migrated"),
        after=(postgres_roles.PART, workspace.PART),
    )
