"""A dump with extensions comes back: those that the application may make, and what they keep themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.parts.postgres import spec as postgres
from tests.backup_image.machines import one_machine
from tests.backup_image.world import World

pytestmark = [pytest.mark.live, pytest.mark.timeout(2400)]

WHERE = "/usr/share/postgresql/15/extension"
CONTROL = "default_version = '1'\nrelocatable = false\nschema = public\ntrusted = true\n"
KEEPS = """\
CREATE TABLE places (name text PRIMARY KEY, of_the_extension boolean NOT NULL DEFAULT false);
CREATE SEQUENCE places_numbers;
SELECT pg_catalog.pg_extension_config_dump('places', 'WHERE NOT of_the_extension');
SELECT pg_catalog.pg_extension_config_dump('places_numbers', '');
INSERT INTO places VALUES ('made by the extension', true);
GRANT ALL ON places, places_numbers TO PUBLIC;
"""
"""As PostGIS keeps its coordinate systems, to which a user may add."""


@pytest.fixture(scope="module")
def world(backup_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = Path(tmp_path_factory.mktemp("extension"))
    options = []
    for name, text in (("keeps.control", CONTROL), ("keeps--1.sql", KEEPS)):
        (folder / name).write_text(text)
        options.append(f"--volume={folder / name}:{WHERE}/{name}:ro")
    folder.chmod(0o755)
    with one_machine(backup_image, folder / "machines", *options) as world:
        yield world


def restored(world: World) -> str:
    """The folder that the newest dump comes back into."""
    world.program("now", "--kind", "dump")
    newest = [each["id"] for each in world.listed() if each["kind"] == "dump"][-1]
    into = f"/world/{newest}"
    done = world.program("restore", "--backup", newest, "--into", into, check=False)
    assert done["status"] == 0, done["err"]
    return into


def test_every_extension_that_the_application_may_make_comes_back(world: World) -> None:
    trusted = "SELECT DISTINCT name FROM pg_available_extension_versions WHERE trusted"
    names = set(world.sql(trusted).split()) - {"plpgsql", "keeps"}
    assert {"hstore", "citext", "pgcrypto", "pg_trgm", "ltree", "unaccent", "btree_gist"} <= names
    made = "".join(f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE;' for name in sorted(names))
    used = (
        "CREATE TABLE public.used (a hstore, b citext, c ltree); INSERT INTO public.used VALUES ('a=>1', 'B', 'c.d');"
    )
    used += "CREATE INDEX ON public.used USING gist (c); CREATE INDEX ON public.used USING gin (b gin_trgm_ops);"
    # As in the application's own session: in the superuser's, `public` is not searched.
    world.sql(f"SET ROLE {postgres.APP_ROLE}; SET search_path = public; {made} {used}")
    into = restored(world)
    assert names <= set(world.asked_in(into, "SELECT extname FROM pg_extension")), "what used it would not come back"
    assert world.asked_in(into, "SELECT (a->'a') || b::text || c::text FROM public.used") == ["1Bc.d"]


def test_what_an_extension_keeps_in_a_table_of_its_own_comes_back(world: World) -> None:
    world.sql(f"SET ROLE {postgres.APP_ROLE}; CREATE EXTENSION keeps; INSERT INTO public.places VALUES ('of a user');")
    world.sql("SELECT setval('public.places_numbers', 42)")
    into = restored(world)
    assert world.asked_in(into, "SELECT name FROM public.places ORDER BY 1") == ["made by the extension", "of a user"]
    assert world.asked_in(into, "SELECT last_value::text FROM public.places_numbers") == ["42"]
