"""What is left of a statement's text in a metric: no value of anybody's, and no work with what is cut off anyway."""

from __future__ import annotations

import re

import pytest
import yaml

from stack.parts.postgres import exporter as postgres_exporter
from tests.recording import case_environment

SECRET = "a-customers-secret"  # noqa: S105


def shown(statement: str) -> str:
    """Return what is left, as PostgreSQL makes it: there a dot matches the end of a line, too."""
    return re.sub(postgres_exporter.QUOTED, "?", statement, count=1, flags=re.DOTALL)


@pytest.mark.parametrize(
    "value",
    [
        f"'{SECRET}'",
        f"'it''s {SECRET}'",
        rf"E'a\'{SECRET}'",
        rf"'a\', '{SECRET}'",
        rf"date'\', '{SECRET}'",
        f"U&'{SECRET}'",
        f"$${SECRET}$$",
        f"$tag${SECRET}$tag$",
        f"$t1${SECRET}$t1$",
        f"$_é9$\n{SECRET}\n$_é9$",
        f"\"it's\", '{SECRET}'",
        f"'{SECRET} that is cut off",
    ],
)
def test_a_value_that_is_left_in_a_statement_is_in_no_metric(value: str) -> None:
    left = shown(f"INSERT INTO t VALUES ($1, {value}, $2)")
    assert SECRET not in left, "Prometheus keeps a value of somebody for weeks"
    assert left.startswith("INSERT INTO t VALUES ($1, "), "a statement cannot be told from others"


def test_the_places_of_values_are_no_values() -> None:
    for statement in ("SELECT $1, $2::text", "SELECT $1||$2 FROM t WHERE a=$3 AND b = ANY($10)"):
        assert shown(statement) == statement


def test_of_a_long_statement_only_the_beginning_is_searched() -> None:
    document = yaml.safe_load(str(postgres_exporter.files(case_environment("staging"))["queries.yml"]))
    query = document["pg_statement"]["query"]
    assert "pg_catalog.left(query, 1000) AS beginning" in query
    assert query.count("query,") == 1, "a search goes over hundreds of kB of a bulk INSERT at each scrape"
    assert "query ~" not in query, "a search goes over hundreds of kB of a bulk INSERT at each scrape"
    assert "regexp_replace(\n        beginning," in query
