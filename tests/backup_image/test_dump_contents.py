"""Which lines of a dump the superuser restores: only what runs nothing of the dump."""

from __future__ import annotations

import pytest

from samokoder_backup import dumped
from samokoder_backup.process import BackupError

LISTED = """\
; Archive created at 2026-11-29
;     dbname: samokoder
3456; 1262 16384 DATABASE - samokoder samokoder_app
3457; 0 0 DATABASE PROPERTIES - samokoder samokoder_app
6; 2615 16390 SCHEMA - samokoder_extensions postgres
2; 3079 16391 EXTENSION - pg_stat_statements
3458; 0 0 COMMENT - EXTENSION pg_stat_statements
3459; 0 0 ACL - DATABASE samokoder samokoder_app
210; 1255 16400 FUNCTION public canary() samokoder_app
211; 1259 16401 TABLE public EXTENSION - pg_stat_statements samokoder_app
3460; 0 16401 TABLE DATA public EXTENSION - pg_stat_statements samokoder_app
3461; 0 0 COMMENT public TABLE planted samokoder_app
3462; 0 0 ACL public TABLE planted samokoder_app
3463; 826 16500 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES samokoder_app
"""


def numbers(lines: list[str]) -> list[int]:
    return [int(line.split(";")[0]) for line in lines]


def test_the_superuser_makes_the_database_its_schemas_and_extensions_and_grants_rights() -> None:
    found = dumped.contents(LISTED)
    assert (found.name, found.owner) == ("samokoder", "samokoder_app")
    assert numbers(found.first) == [3456, 3457, 6, 2, 3458, 3459]
    assert numbers(found.rest) == [210, 211, 3460, 3461], "a name that looks like an extension is none"
    assert numbers(found.rights) == [3462, 3463]
    assert found.owners == {"samokoder_app"}


def test_what_extensions_keep_in_tables_of_their_own_is_restored_before_there_is_anything_else() -> None:
    own = "4000; 0 16392 TABLE DATA public spatial_ref_sys postgres\n4001; 0 0 SEQUENCE SET topology id_seq postgres\n"
    made = (
        "213; 1259 16403 SEQUENCE public mine_seq samokoder_app\n"
        "3465; 0 0 SEQUENCE SET public mine_seq samokoder_app\n"
        "214; 1259 16404 TABLE public planted samokoder_app\n"
    )
    found = dumped.contents(LISTED + made + own)
    assert numbers(found.kept) == [4000, 4001], "a role without rights cannot write to them: no such dump came back"
    assert numbers(found.rest) == [210, 211, 3460, 3461, 213, 3465, 214]
    assert found.owners == {"samokoder_app"}, "what the application owns would lose its owner"


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_a_name_that_looks_like_a_line_of_the_list_is_a_name(mark: str) -> None:
    planted = f"215; 1259 16402 TABLE public x{mark}210; 2615 1 SCHEMA - y samokoder_app\n"
    found = dumped.contents(LISTED + planted)
    assert numbers(found.first) == [3456, 3457, 6, 2, 3458, 3459], "the superuser would run a function of the dump"
    assert numbers(found.rest) == [210, 211, 3460, 3461, 215]


def test_a_role_that_owns_nothing_in_the_dump_is_not_among_its_owners() -> None:
    attached = "212; 0 16403 TABLE ATTACH public x samokoder_backup \n"  # its owner is empty
    assert dumped.contents(LISTED + attached).owners == {"samokoder_app", ""}, "what the dump runs could become it"


def test_what_has_no_database_is_no_dump_of_ours() -> None:
    with pytest.raises(BackupError, match="no database"):
        dumped.contents("; Archive\n")
