"""What a restore brings back of all that can be made in PostgreSQL, from a base backup and from a dump."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backup_image.conftest import Lab
from tests.backup_image.test_backups import ask

pytestmark = pytest.mark.live

WRITES = """
SET ROLE samokoder_app;
CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000) AS n;
CREATE SEQUENCE numbers; SELECT count(nextval('numbers')) FROM generate_series(1, 5);
SELECT lo_from_bytea(4712, 'large');
CREATE EXTENSION pg_trgm;
"""
SEES = """
SELECT (SELECT count(*) FROM fleeting), nextval('numbers') > 5, convert_from(lo_get(4712), 'UTF8'),
 (SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'),
 (SELECT count(*) FROM pg_database WHERE datname = 'another')
"""


@pytest.fixture
def target(lab: Lab) -> Iterator[str]:
    with lab.target() as name:
        yield name


@pytest.mark.parametrize(
    ("kind", "seen"), [("base", "0|t|large|1|1"), ("dump", "1000|t|large|1|0")], ids=["a base backup", "a dump"]
)
def test_a_restore_brings_back_what_the_documents_say(lab: Lab, target: str, kind: str, seen: str) -> None:
    lab.sql("DROP TABLE IF EXISTS fleeting; DROP SEQUENCE IF EXISTS numbers; DROP EXTENSION IF EXISTS pg_trgm;")
    lab.sql(WRITES)
    lab.sql("CREATE DATABASE another")
    try:
        assert lab.backup("now", "--kind", kind).returncode == 0
        lab.restore(f"{lab.name}-backup", target, "--backup", lab.list(kind)[-1]["id"])
        assert ask(lab, target, SEES) == seen
    finally:
        lab.sql("SELECT lo_unlink(4712)")
        lab.sql("DROP DATABASE another")
