"""How a dump is restored: by a role without rights, since it has functions and checks that run meanwhile.

The superuser makes only what runs nothing of the dump: the database, its schemas and extensions, and what these keep in
tables of their own, while nothing else is there, and in the end the rights to things, which are data.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from psycopg2 import sql

from samokoder_backup.copies import Copy
from samokoder_backup.process import BackupError, run, say
from samokoder_backup.server import Server

_LINE = re.compile(r"\d+; (?P<catalogue>\d+) \d+ (?P<what>.+)")
_DATABASE, _SCHEMA, _EXTENSION = "1262", "2615", "3079"
"""Oids of the catalogues that have them; unlike names they cannot be chosen."""
_FIRST = ("COMMENT - EXTENSION ", "DATABASE PROPERTIES ", "ACL - DATABASE ", "COMMENT - DATABASE ")
_DATA = {
    "TABLE DATA ": ("TABLE", "FOREIGN TABLE"),
    "SEQUENCE SET ": ("SEQUENCE",),
    "MATERIALIZED VIEW DATA ": ("MATERIALIZED VIEW",),
}
"""How a line of data begins -> the kinds of lines that make what it fills, which end in the same words."""
_RIGHTS = ("ACL ", "DEFAULT ACL ")
_RESTORER = "samokoder_restorer"
"""Restores where the superuser owned the database."""

_SCHEMAS = """
SELECT nspname FROM pg_catalog.pg_namespace AS schema
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND (
        nspname = 'public' OR nspowner <> 10
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extnamespace = schema.oid)
    )
"""
"""In which things of the dump lie. Not the superuser's with extensions: who watches looks for names there too."""


_NOT_OF = """
SELECT nspname FROM pg_catalog.pg_namespace WHERE pg_catalog.pg_get_userbyid(nspowner) <> {}
"""


@dataclass(frozen=True)
class Contents:
    """The lines of a dump's list, by who restores them."""

    first: list[str]
    kept: list[str]
    """Data of extensions, in tables that they have made: the dump has no line that makes these."""
    rest: list[str]
    rights: list[str]
    owners: frozenset[str]
    """Last word of each line of `rest`: who owned it."""
    name: str
    """Of the database."""
    owner: str


def contents(listed: str) -> Contents:
    """Sort the lines of `pg_restore --list --create`. Raises BackupError where there is no database among them."""
    first: list[str] = []
    others: list[tuple[str, str]] = []
    rights: list[str] = []
    name = owner = ""
    # pg_restore takes newlines out of names, and nothing else at which `splitlines` would begin a line.
    for line in listed.split("\n"):
        if not (found := _LINE.fullmatch(line)):
            continue
        catalogue, what = found["catalogue"], found["what"]
        if catalogue == _DATABASE:
            name, _, owner = what.removeprefix("DATABASE - ").rpartition(" ")
        if catalogue in {_DATABASE, _SCHEMA, _EXTENSION} or what.startswith(_FIRST):
            first.append(line)
        elif what.startswith(_RIGHTS):
            rights.append(line)
        else:
            others.append((line, what))
    if not name:
        raise BackupError("the dump has no database")
    made = {what for _, what in others}
    kept = [line for line, what in others if _is_kept(what, made)]
    rest = [line for line, what in others if not _is_kept(what, made)]
    return Contents(first, kept, rest, rights, frozenset(line.rpartition(" ")[2] for line in rest), name, owner)


def _is_kept(what: str, made: AbstractSet[str]) -> bool:
    """Tell whether a line of a list is data of what no line makes, so that it is an extension's."""
    return any(
        what.startswith(data) and not made & {f"{kind} {what.removeprefix(data)}" for kind in makes}
        for data, makes in _DATA.items()
    )


def restore(server: Server, dump: Copy) -> None:
    """Restore into a server that has nothing yet. Raises BackupError."""
    found = contents(run(["pg_restore", "--list", "--create", dump.path], what="pg_restore --list"))
    roles = [role for role in dump.roles if role != server.superuser]
    restorer = found.owner if found.owner in roles else _RESTORER
    for role in dict.fromkeys((*roles, restorer)):
        server.ask(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    # Of no other role: what the dump runs meanwhile could become one that may do more, and leave something behind.
    others = [role for role in roles if role != restorer and role in found.owners]
    _ask(server, "ALTER ROLE {} LOGIN", restorer)
    for role in others:
        _ask(server, "GRANT {} TO {}", role, restorer)
    _restore(server, dump, found.first, "--create", "--dbname=postgres")
    # While there is nothing of the application's that it could run.
    _restore(server, dump, found.kept, f"--dbname={found.name}")
    _ask(server, "ALTER DATABASE {} OWNER TO {}", found.name, restorer)
    schemas = [str(schema) for (schema,) in server.ask(_SCHEMAS, found.name)]
    for schema in schemas:
        _ask(server, "GRANT ALL ON SCHEMA {} TO {}", schema, restorer, database=found.name)
    whose = []
    if found.owners & {server.superuser}:
        say(f"what {server.superuser} owned in the dump becomes {restorer}'s")
        whose = ["--no-owner"]
    _restore(server, dump, found.rest, *whose, f"--dbname={found.name}", user=restorer)
    others_schemas = server.ask(sql.SQL(_NOT_OF).format(sql.Literal(restorer)), found.name)
    for schema in {str(schema) for (schema,) in others_schemas} & set(schemas):
        _ask(server, "REVOKE ALL ON SCHEMA {} FROM {}", schema, restorer, database=found.name)
    _restore(server, dump, found.rights, f"--dbname={found.name}")
    for role in others:
        _ask(server, "REVOKE {} FROM {}", role, restorer)
    _ask(server, "ALTER ROLE {} NOLOGIN", restorer)


def _restore(server: Server, dump: Copy, lines: list[str], *words: str | Path, user: str = "") -> None:
    if not lines:
        return
    chosen = server.sockets / "list"
    chosen.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    server.run("pg_restore", "--exit-on-error", f"--use-list={chosen}", *words, dump.path, user=user)


def _ask(server: Server, query: str, *names: str, database: str = "postgres") -> None:
    server.ask(sql.SQL(query).format(*map(sql.Identifier, names)), database)
