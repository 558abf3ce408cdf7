"""Collations of PostgreSQL: whether a database's text is in an order that the server's C library may not have any more.

A new base image may bring another glibc. PostgreSQL then only warns in its log, and an index on text may no longer find
what is there, or let a duplicate in.
"""

from __future__ import annotations

from typing import Any

METRIC = "pg_collation_outdated"

# In one session the indexes of its own database alone can be seen. Without a recorded version, as Alpine leaves it,
# nothing says which order it is.
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
"""Each database, and 1 where its order is of another version; for the exporter, doctor, the import and the repair."""


def exporter_query() -> dict[str, Any]:
    """Return the exporter's question, which becomes the metric."""
    labels = {"datname": {"usage": "LABEL", "description": "Database."}}
    value = {"outdated": {"usage": "GAUGE", "description": "1: its text is in the order of another C library or ICU."}}
    return {"pg_collation": {"query": OUTDATED, "metrics": [labels, value]}}
