"""PostgreSQL's text in the order of another C library: the metric, `doctor` and the repair, on a stack that is up."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container

from operations.data.repair import collations, repair
from operations.engine import containers
from operations.engine.commands import execute
from operations.errors import FailedError, ProjectError
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.parts.postgres.collations import METRIC
from stack.settings.environment import Environment
from tests.live.conftest import prometheus
from tests.live.test_the_stack import until
from tests.planted import SUPERUSER_PSQL

PATIENCE_SECONDS = 120


@pytest.fixture
def server(stack: Workspace, engine: docker.DockerClient) -> Iterator[Container]:
    """PostgreSQL with an ordered table; its database says that another C library has put it in order."""
    made = containers.find(engine, stack.settings(), "postgres")
    psql(
        made,
        "CREATE TABLE ordered (name text PRIMARY KEY, upper text, number int)",
        "INSERT INTO ordered SELECT 'row ' || n, 'ROW ' || n, n FROM generate_series(1, 1000) AS n",
        'CREATE INDEX "Of an expression" ON ordered (lower(upper))',
        "CREATE INDEX of_numbers ON ordered (number)",
        "UPDATE pg_database SET datcollversion = '0.0' WHERE datname = 'samokoder'",
    )
    yield made
    psql(
        made,
        "DROP TABLE ordered",
        "UPDATE pg_database SET datcollversion = pg_database_collation_actual_version(oid) WHERE datname = 'samokoder'",
    )


def psql(server: Container, *statements: str) -> str:
    words = [word for statement in statements for word in ("-c", statement)]
    status, said = execute(
        server, [*SUPERUSER_PSQL, "-d", "samokoder", "-XAtq", "-v", "ON_ERROR_STOP=1", *words], stderr=False
    )
    assert status == 0, said
    return said.decode().strip()


def files(server: Container) -> dict[str, str]:
    """Index -> its file: one that is built anew has another."""
    said = psql(server, "SELECT indexrelid::regclass, pg_relation_filenode(indexrelid) FROM pg_index JOIN pg_class "
                "ON pg_class.oid = indrelid WHERE relname = 'ordered'")  # fmt: skip
    return dict(line.split("|") for line in said.splitlines())


def outdated(environment: Environment) -> dict[str, str]:
    found = prometheus(environment, "query", query=METRIC)["result"]
    return {each["metric"]["datname"]: each["value"][1] for each in found}


def test_another_c_library_is_measured_told_by_doctor_and_repaired(
    stack: Workspace, environment: Environment, server: Container
) -> None:
    found = until(lambda: outdated(environment), lambda now: now.get("samokoder") == "1", PATIENCE_SECONDS)
    assert found["samokoder"] == "1", "the alert would be mute"
    assert found["postgres"] == "0", "each database by itself"
    with pytest.raises(FailedError, match="text of samokoder is in the order of another C library"):
        collations.read(stack)
    before = files(server)
    with repair.opened(stack, "collations", up=bring_up) as wrong:
        assert "samokoder" in "\n".join(wrong.lines())
        assert files(server) == before, "nothing is changed before it is agreed to"
        assert "built anew in samokoder" in wrong.run()
    after = files(server)
    anew = {name for name in before if before[name] != after[name]}
    assert anew == {"ordered_pkey", '"Of an expression"'}, "what needs it, and nothing else"
    assert "every database" in collations.read(stack)
    found = until(lambda: outdated(environment), lambda now: now["samokoder"] == "0", PATIENCE_SECONDS)
    assert found["samokoder"] == "0", "the alert would go on"
    with pytest.raises(ProjectError, match="nothing to repair"), repair.opened(stack, "collations", up=bring_up):
        pass


def test_a_duplicate_that_the_order_let_in_is_told_and_the_version_stays_as_it_was(
    stack: Workspace, server: Container
) -> None:
    psql(
        server,
        # As an index in a wrong order lets it in: the row is in the table, and the index does not find it.
        "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'ordered_pkey'::regclass",
    )
    psql(server, "INSERT INTO ordered VALUES ('row 7', 'again', 7)")
    with repair.opened(stack, "collations", up=bring_up) as wrong, pytest.raises(ProjectError, match="row 7"):
        wrong.run()
    with pytest.raises(FailedError):
        collations.read(stack)
    psql(server, "DELETE FROM ordered WHERE upper = 'again'")
    with repair.opened(stack, "collations", up=bring_up) as wrong:
        wrong.run()
    assert "every database" in collations.read(stack)
