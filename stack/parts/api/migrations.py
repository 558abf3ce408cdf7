"""The migrations: they bring the database's schema to the API's version before a replica of that version serves.

The container stays running after the migration, for the reason in `stack/parts/postgres/roles.py`. If the migration
fails, the replicas of the previous version are not replaced and keep serving.
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

# docker-init sends SIGTERM only to the shell, so the shell passes it on and waits until the migration has rolled back.
# The signal ends the first `wait` before that, and with the shell the container would end.
_KEEP = """\
rm -f /tmp/applied
"$@" &
stopped=
trap 'stopped=yes; kill -TERM $! || :' TERM
until wait $!; do
    status=$?
    kill -0 $! 2> /dev/null || exit $status
done
if [ -n "$stopped" ]; then exit; fi
trap - TERM
touch /tmp/applied
exec sleep infinity
"""


def spec(environment: Environment) -> ServiceSpec:
    """Describe the container of the migrations."""
    settings, application = environment.settings.migrations, environment.settings.api
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Migrations",
        **contract.given(environment, application)
        | {"entrypoint": contract.started(application, "sh", "-euc", _KEEP, PART)},
        settings=settings,
        command=tuple(settings.command or REFERENCE),
        health_command=health.APPLIED,
        # `edge`, because a managed database is outside.
        networks=(NetworkName.EDGE, NetworkName.DATA),
        scrape=NotScraped(reason="has nothing to measure: its health says whether the schema is migrated"),
        after=(postgres_roles.PART, workspace.PART),
    )
