"""A walk through the life of one environment, typed in clones of its own: every day, 3 a.m., a deploy, a colleague.

The tests go one after the other on one stack; each leaves it as it found it, but for the images and where the state is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import secrets
import shlex
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from bench.own_ports import own_ports
from operations.clone import ROOT
from stack.parts.api import migrations
from tests.live import clones
from tests.live.clones import run, run_apart
from tests.live.conftest import own_images

ENVIRONMENT = "walk"
FILE = f"Pulumi.{ENVIRONMENT}.yaml"
SAMOKODER = ".venv/bin/samokoder"
COLUMNS = 80


@pytest.fixture(scope="module")
def clone(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone of the work tree as it is, whose environment is up."""
    folder = tmp_path_factory.mktemp("walk") / "samokoder platform"
    clones.make(folder, ENVIRONMENT, {**own_ports(), "samokoder:api": {"stableSeconds": 2}})
    typed(folder, "make up")
    yield folder
    clones.remove(engine, ENVIRONMENT)


def typed(folder: Path, line: str, *, status: int = 0, **variables: str) -> str:
    """As `clones.typed`, in the environment of this walk where no other is named."""
    return clones.typed(folder, line, status=status, **{"ENV": ENVIRONMENT, **variables})


def as_json(folder: Path, line: str) -> Any:
    """Type a line whose standard output is one JSON document."""
    answer = run_apart(folder, *shlex.split(line), ENV=ENVIRONMENT)
    assert answer.returncode == 0, f"{line}:\n{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
    return json.loads(answer.stdout)


def on_terminal(
    folder: Path, line: str, *, answer: str = "", status: int = 0, environment: str = ENVIRONMENT
) -> list[str]:
    """Type a line at a terminal of 80 columns; return the lines that it shows. answer: to its question."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    variables = clones.shell_variables(ENV=environment, TERM="xterm")
    variables.pop("COLUMNS", None)  # which would say another width than the terminal's
    with subprocess.Popen(
        shlex.split(line), cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown, asked = b"", False
        with contextlib.suppress(OSError):  # the end of a terminal that nobody has open any more
            while piece := os.read(ours, 65536):
                shown += piece
                if answer and not asked and b"[y/N]" in shown:
                    asked = True
                    os.write(ours, f"{answer}\n".encode())
    os.close(ours)
    assert process.returncode == status, f"{line}:\n{shown.decode()[-3000:]}"
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n").split("\n")


def test_every_day(clone: Path) -> None:
    table = typed(clone, "make status")
    assert re.search(r"api-2 +healthy", table), table
    for line, part in (("make logs PART=api", "api-2"), ("make logs TAIL=5 SINCE=1h", "postgres")):
        assert part in typed(clone, line), line
    found = typed(clone, "make logs PART=redis SINCE=1h GREP='[Rr]eady to accept'")
    assert found, "the line is there"
    assert all("eady to accept" in line for line in found.splitlines()), "what does not match was not asked for"
    for line in typed(clone, "make logs PART=worker TAIL=3 ARGS=--json").splitlines():
        assert {"part", "at"} <= json.loads(line).keys()
    assert "api-1, api-2" in typed(clone, "make restart PART=api")
    assert "Which part?" in typed(clone, "make restart", status=2)
    assert "10001" in typed(clone, f"{SAMOKODER} exec api -- id -u")
    assert "1 row" in typed(clone, 'make psql SQL="SELECT count(*) FROM jobs"')
    hashed = typed(clone, "make psql SQL='SELECT $h$$2b$12$abc$h$ AS hashed'")
    assert "$2b$12$abc" in hashed, "what is typed reaches the database as it was typed"
    refused = typed(clone, 'make psql SQL="CREATE TABLE walked (id int)"', status=2)
    assert "read-only" in refused, "nobody changes a database by a mistyped question"
    assert "samokoder_monitoring" in typed(clone, 'make psql MONITORING=1 SQL="SELECT current_user"')
    assert re.match(r"samokoder \d+\.\d+", typed(clone, f"{SAMOKODER} --version"))
    assert "Did you mean 'restart'" in typed(clone, f"{SAMOKODER} restrat", status=2)
    assert "Every day" in typed(clone, "make help")
    typed(clone, "make smoke ARGS='--wait 120'")
    assert "not configured" in typed(clone, "make doctor"), "of what nobody has asked for"
    typed(clone, "make backup KIND=dump")
    assert "dump-" in typed(clone, "make backups")
    assert "takes no ARGS" in typed(clone, "make help ARGS=--json", status=2)


def test_what_a_program_asks_for_is_json_and_nothing_else(clone: Path) -> None:
    assert {row["part"] for row in as_json(clone, f"{SAMOKODER} status --json")["parts"]} >= {"api-1", "postgres"}
    assert as_json(clone, "make status ARGS=--json")["environment"] == ENVIRONMENT, "make hands ARGS on"
    assert as_json(clone, f"{SAMOKODER} drift --json")["result"] == "none"
    assert as_json(clone, f"{SAMOKODER} hardening --json")["findings"] == []
    assert as_json(clone, f"{SAMOKODER} preview --json")["ok"] is True
    assert as_json(clone, f"{SAMOKODER} backups --json")
    for command in ("smoke --wait 120", "doctor"):
        results = {check["verdict"] for check in as_json(clone, f"{SAMOKODER} {command} --json")["checks"]}
        assert "passed" in results
        assert "failed" not in results
    assert "Nothing was stopped or changed" in typed(clone, f"{SAMOKODER} restore --backup latest --dry-run")
    assert "postgres-app" in typed(clone, f"{SAMOKODER} rotate postgres-app --dry-run")


@pytest.mark.parametrize("command", ["status", "backups", "smoke --verbose", "doctor", "rotate"])
def test_a_table_fits_a_narrow_terminal(clone: Path, command: str) -> None:
    lines = on_terminal(clone, f"{SAMOKODER} {command}")
    tables = [line for line in lines if re.match(r" ?[│┃┏└├╭╰]| {1,2}\S", line)]
    assert tables, "\n".join(lines)
    assert not [line for line in tables if len(line) > COLUMNS], "a table that is folded cannot be read"
    text = "\n".join(lines)
    assert all(part in text for part in ("postgres",)) or command == "backups", text


def test_at_3_am_with_a_broken_stack_file(clone: Path) -> None:
    file = clone / FILE
    good = file.read_text()
    try:
        for broken in ("config:\n  samokoder:ingress: {port: eighty}\n", "config: {\n"):
            file.write_text(broken)
            for line, shown in (
                ("make status", "healthy"),
                ("make logs PART=api TAIL=3", "api-1"),
                ("make backups", "dump-"),
                ("make password", "grafana-admin"),
                ("make rotate", "postgres-app"),
                ("make hardening", "Packet filter: not looked at"),
                (f"{SAMOKODER} exec postgres -- echo it-runs", "it-runs"),
            ):
                said = typed(clone, line)
                assert shown in said, f"{line}:\n{said}"
                assert len(re.findall("what follows is what the engine and the state say", said)) == 1, said
            assert "samokoder_app" in typed(clone, 'make psql SQL="SELECT current_user"')
            assert "is not reached by ssh" in typed(clone, "make tunnel", status=2), "which is true of this engine"
            assert "needs" in typed(clone, "make up", status=2) or "valid YAML" in typed(clone, "make up", status=2)
    finally:
        file.write_text(good)


def test_it_is_scaled_and_back_by_the_line_of_the_questions(clone: Path) -> None:
    file = clone / FILE
    good = file.read_text()

    def healthy() -> set[str]:
        rows = as_json(clone, f"{SAMOKODER} status --json")["parts"]
        return {row["part"] for row in rows if row["ok"] and row["part"].startswith("api-")}

    try:
        for number in (3, 2):
            typed(clone, f"make pulumi ARGS='config set --path samokoder:api.replicas {number}'")
            typed(clone, "make up")
            assert healthy() == {f"api-{one}" for one in range(1, number + 1)}
            assert "1 row" in typed(clone, 'make psql SQL="SELECT count(*) FROM jobs"'), "nobody else was touched"
    finally:
        file.write_text(good)


@pytest.fixture(scope="module")
def own(engine: docker.DockerClient, clone: Path) -> Iterator[list[str]]:
    """Two images like the reference application's, by tags that no registry has."""
    assert (clone / FILE).is_file()
    base = engine.containers.get(f"samokoder-{ENVIRONMENT}-api-1").attrs["Config"]["Image"]
    with own_images(engine, base, f"{ENVIRONMENT}-own", (1, 2)) as tags:
        yield tags
        clones.remove(engine, ENVIRONMENT)  # a container that uses one keeps it


def test_an_image_of_ones_own_is_deployed_and_taken_back(
    clone: Path, engine: docker.DockerClient, own: list[str]
) -> None:
    def runs() -> set[str]:
        rows = as_json(clone, f"{SAMOKODER} status --json")["parts"]
        return {row["image"] for row in rows if row["part"] in {"api-1", "api-2", "worker"}}

    before, file = runs(), (clone / FILE).read_text()
    options = f'--migrations "{" ".join(migrations.REFERENCE)}"'
    line = f"make deploy API={own[0]} WORKER={own[0]} ARGS="
    assert "Nothing was changed" in typed(clone, line + shlex.quote(f"--dry-run {options}"))
    assert (runs(), (clone / FILE).read_text()) == (before, file), "only looking changes nothing"
    assert "make rollback ENV=walk" in typed(clone, line + shlex.quote(f"--yes --no-check {options}"))
    first = runs()
    assert first != before
    clones.commit(clone, "the first version")
    typed(clone, f"make deploy API={own[1]} WORKER={own[1]} ARGS='--yes --no-check'")  # tests/live/test_check_image.py
    assert runs() not in (before, first)
    clones.commit(clone, "the second version")
    assert "the first version" in typed(clone, "make rollback ARGS=--yes")
    assert runs() == first, "the version that Git has before"
    assert str(engine.images.get(own[0]).id) in (clone / FILE).read_text(), "the stack file says what runs"
    clones.commit(clone, "back")


PRODUCTION = "walkprod"
ELSEWHERE = "https://127.0.0.1:9"
"""What is outside, for a test that reaches nobody: nothing answers there."""


def set_up_production(clone: Path, image: str) -> None:
    """Paste each line of what production says that it needs, for PRODUCTION."""
    ours = {"api": image, "worker": image, "endpoint": ELSEWHERE}
    missing = typed(clone, "make preview", status=2, ENV=PRODUCTION)
    lines = re.findall(rf"^ +(?:write: +)?(make pulumi ENV={PRODUCTION} ARGS='config set .*)$", missing, re.MULTILINE)
    assert len(lines) == 8, missing
    for line in lines:
        start, _, last = line.rstrip("'").rpartition(" ")
        name = next((each for each in ours if re.search(rf"[:.]{each}\b", start)), "")
        pasted = f"{start} {ours[name]}'" if name else f"{start} {last}'"
        given = f"123456789:{secrets.token_hex(20)}"
        answer = run(clone, *shlex.split(pasted), given=given, ENV=PRODUCTION)
        assert answer.returncode == 0, f"{pasted}:\n{answer.stdout[-2000:]}"
        assert given not in answer.stdout, "a secret that is pasted is not echoed"
    typed(
        clone,
        f"make pulumi ARGS='config set --path samokoder:alertmanager.telegram.apiUrl {ELSEWHERE}'",
        ENV=PRODUCTION,
    )


def test_production_with_a_domain_says_what_it_needs_and_asks_before_it_is_changed(
    clone: Path, engine: docker.DockerClient, own: list[str]
) -> None:
    def there() -> set[str]:
        return {str(one.name) for one in engine.containers.list(filters={"name": f"^samokoder-{PRODUCTION}-"})}

    ports: dict[str, dict[str, Any]] = {**own_ports()}
    ports["samokoder:ingress"] |= {"domain": "samokoder.test", "acmeDirectory": f"{ELSEWHERE}/directory"}
    migrated = {"samokoder:migrations": {"command": list(migrations.REFERENCE)}}
    clones.configure(clone, PRODUCTION, {"samokoder:production": True, **ports, **migrated})
    try:
        set_up_production(clone, str(engine.images.get(own[0]).id))
        assert "no terminal to ask at, so nothing was changed" in typed(clone, "make up", status=2, ENV=PRODUCTION)
        shown = "\n".join(on_terminal(clone, "make up", answer="n", status=2, environment=PRODUCTION))
        assert "which is production?" in shown
        assert "to create" in shown, "it is asked before anybody has seen what changes"
        assert not there(), "nobody said yes"
        typed(clone, "make up ARGS=--yes", ENV=PRODUCTION)
        table = typed(clone, "make status", ENV=PRODUCTION)
        assert re.search(r"ingress +healthy +https://samokoder\.test", table), table
        assert "samokoder-walk-" not in table, "each environment is shown by itself"
        assert "no terminal to ask at" in typed(clone, "make down", status=2, ENV=PRODUCTION)
        before = there()
        on_terminal(clone, "make down", answer="n", status=2, environment=PRODUCTION)
        assert there() == before
        typed(clone, "make down ARGS=--yes", ENV=PRODUCTION)
        assert not there()
        said = typed(clone, f"make destroy-data ARGS='--confirm {PRODUCTION}'", ENV=PRODUCTION)
        assert said.count("State: ") == 1, "which state is said once"
    finally:
        clones.remove(engine, PRODUCTION)
        (clone / f"Pulumi.{PRODUCTION}.yaml").unlink()


def put_passphrase(folder: Path, text: str) -> None:
    """Type the lines of docs/colleagues.md by which a passphrase gets into a clone."""
    page = (ROOT / "docs" / "colleagues.md").read_text()
    for line in ("mkdir -p -m 700 .samokoder", "install -m 600 /dev/stdin .samokoder/passphrase"):
        assert f"{line}\n" in page
        assert run(folder, *shlex.split(line), given=f"{text}\n").returncode == 0


def test_a_colleague_joins_and_another_one_leaves(clone: Path, tmp_path: Path) -> None:
    before = typed(clone, f"{SAMOKODER} password postgres-app")
    place = (tmp_path / "state of the team").as_uri()
    said = typed(clone, f"make move-state STATE={shlex.quote(place)}")
    assert f"Moved to {place}: {ENVIRONMENT}" in said
    assert "docs/colleagues.md" in said
    old = typed(clone, "make preview", status=2, PULUMI_BACKEND_URL=(clone / ".samokoder" / "state").as_uri())
    assert "was moved from" in old, "the old state would be a second one"
    assert run(clone, "git", "status", "--porcelain").stdout == " M Pulumi.yaml\n", "one file is to be committed"
    clones.commit(clone, "where the state is")

    joined = tmp_path / "colleague"
    assert run(tmp_path, "git", "clone", "--quiet", str(clone), str(joined)).returncode == 0
    assert "team's passphrase" in typed(joined, "make password", status=2)
    put_passphrase(joined, (clone / ".samokoder" / "passphrase").read_text())
    assert typed(joined, f"{SAMOKODER} password postgres-app") == before
    assert "unchanged" in typed(joined, "make preview"), "he sees what there is"
    assert "healthy" in typed(joined, "make status"), "and what runs"
    assert "worker" in typed(joined, "make restart PART=worker")

    new = secrets.token_urlsafe(24)
    line = "make pulumi ARGS='stack change-secrets-provider passphrase'"
    changed = run(joined, *shlex.split(line), given=f"{new}\n{new}\n", ENV=ENVIRONMENT)
    assert changed.returncode == 0, changed.stdout
    assert "passphrase" in typed(joined, "make password", status=2), "the old one opens nothing any more"
    put_passphrase(joined, new)
    assert typed(joined, f"{SAMOKODER} password postgres-app") == before
    clones.commit(joined, "under another passphrase")
    assert run(clone, "git", "pull", "--quiet", str(joined), "HEAD").returncode == 0
    assert "passphrase" in typed(clone, "make preview", status=2), "who has the old one alone"
    put_passphrase(clone, new)
    assert "unchanged" in typed(clone, "make preview")
    assert run(clone, "git", "status", "--porcelain").stdout == ""


OTHER = "walkother"
"""A second environment, whose state has the same passphrase."""


def on_page(heading: str, *, words: str) -> list[str]:
    """Return the lines of a section of docs/colleagues.md that begin with these words, for the environments here."""
    section = (ROOT / "docs" / "colleagues.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(rf"^ +({words} .*)$", section, re.MULTILINE)
    assert lines, words
    return [line.replace("Pulumi.prod.yaml", FILE).replace("ENV=prod", f"ENV={ENVIRONMENT}") for line in lines]


def test_a_colleague_leaves_by_the_lines_of_the_page(clone: Path) -> None:
    leaves = "A colleague leaves"
    person: dict[str, Any] = {
        f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    there = {row["secret"] for row in as_json(clone, f"{SAMOKODER} rotate --json")["secrets"]}
    old = typed(clone, f"{SAMOKODER} password postgres-app")
    for line in on_page(leaves, words="make rotate"):
        if (named := re.search(r"SECRET=(\S+)", line)) and named[1] in there:
            typed(clone, line)
    assert typed(clone, f"{SAMOKODER} password postgres-app") != old, "who has left still knows the password"
    rotated, other_passphrase = on_page(leaves, words="git commit")
    typed(clone, rotated, **person)

    (secret,) = [line for line in on_page(leaves, words="make pulumi") if "samokoder:heartbeatUrl" in line]
    for _ in ("before", "once the colleague has left"):
        done = run(clone, *shlex.split(secret), given=f"{ELSEWHERE}/{secrets.token_hex(8)}", ENV=ENVIRONMENT)
        assert done.returncode == 0, done.stdout
    (up,) = on_page(leaves, words="make up")
    typed(clone, up)

    clones.configure(clone, OTHER, own_ports())
    clones.commit(clone, "another environment")
    assert "to create" in typed(clone, "make preview", ENV=OTHER)
    new = f"{secrets.token_urlsafe(24)}\n"
    first, second = [line for line in on_page(leaves, words="make pulumi") if "change-secrets-provider" in line]
    done = run(clone, *shlex.split(first), given=new * 2, ENV=OTHER)
    assert done.returncode == 0, done.stdout
    # Here the person is called away: one environment has the new passphrase, the other and the file have the old one.
    assert "passphrase" in typed(clone, "make preview", status=2, ENV=OTHER)
    assert "unchanged" in typed(clone, "make preview"), "the other one is as it was"
    done = run(clone, *shlex.split(second), given=new * 2, ENV=ENVIRONMENT)
    assert done.returncode == 0, done.stdout
    put_passphrase(clone, new.strip())
    assert "to create" in typed(clone, "make preview", ENV=OTHER)
    assert "unchanged" in typed(clone, "make preview")
    typed(clone, other_passphrase.replace("Pulumi.staging.yaml", f"Pulumi.{OTHER}.yaml"), **person)
    assert run(clone, "git", "status", "--porcelain").stdout == ""
