"""Collations of PostgreSQL: which databases sort text by another version of the C library than the server has now.

A new base image may have another glibc. PostgreSQL then only warns in its log, but an index on text may not find
existing rows, or may accept a duplicate.
"""

from __future__ import annotations

from typing import Any

METRIC = "pg_collation_outdated"

# A session sees only the indexes of its own database. IS DISTINCT FROM: a database from an Alpine image has no recorded
# version, so its order is unknown.
OUTDATED = """\
SELECT datname, (
    (datlocprovider <> 'c' OR datcollate NOT IN ('C', 'POSIX'))
        AND datcollversion IS DISTINCT FROM pg_catalog.pg_database_collation_actual_version(oid)
    OR datname = pg_catalog.current_database() AND EXISTS (
        SELECT FROM pg_catalog.pg_index, pg_catalog.unnest(indcollation) AS used
        JOIN pg_catalog.pg_collation ON pg_collation.oid = used
        WHERE collprovider <> 'd' AND coalesce(collcollate, '') NOT IN ('C', 'POSIX')
            AND collversion IS DISTINCT FROM pg_catalog.pg_collation_actual_version(pg_collation.oid)
    )
)::int AS outdated
FROM pg_catalog.pg_database WHERE datallowconn ORDER BY datname"""
"""Query: each database, and 1 if its collation version differs. The exporter, doctor, import and repair use it."""


def exporter_query() -> dict[str, Any]:
    """Return the exporter's query and the metric that it makes of the result."""
    labels = {"datname": {"usage": "LABEL", "description": "Database."}}
    value = {"outdated": {"usage": "GAUGE", "description": "1: its text is in the order of another C library or ICU."}}
    return {"pg_collation": {"query": OUTDATED, "metrics": [labels, value]}}
