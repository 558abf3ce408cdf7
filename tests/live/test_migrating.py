"""The data of a stack that Docker Compose made comes into an environment, and the old volumes stay as they were."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from typer.testing import CliRunner

from host.errors import EngineError
from host.packages import install_packages
from operations import __main__ as command
from operations.data import volume_names
from operations.data.compose import import_compose, import_on_engine
from operations.data.compose.old_containers import PROJECT_LABEL
from operations.data.compose.source import Source
from operations.engine import containers
from operations.engine.commands import execute
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import ProjectError
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from tests.live.conftest import begin, cut_off
from tests.planted import SUPERUSER_PSQL
from tests.render.conftest import output

# As the original's, but for the images, which are those of this engine. Its Redis writes snapshots alone.
FILE = """\
services:
  postgres:
    image: {postgres}
    environment: {{POSTGRES_USER: samokoder, POSTGRES_DB: samokoder, POSTGRES_PASSWORD: old-password-of-compose}}
    volumes: ["postgres_data:/var/lib/postgresql/data"]
  redis:
    image: {redis}
    command: ["redis-server", "--requirepass", "old"]
    volumes: ["redis_data:/data"]
volumes:
  postgres_data:
  redis_data:
  grafana_data:
"""
ROWS = 20_000


@dataclass
class Old:
    """The compose stack."""

    engine: docker.DockerClient
    project: str
    file: Path

    def compose(self, *words: str) -> str:
        """Run Docker Compose on it."""
        done = subprocess.run(
            ["docker-compose", "--project-name", self.project, "--file", str(self.file), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def inside(self, service: str, *words: str) -> str:
        """Run a program in a service's container."""
        (container,) = self.engine.containers.list(
            filters={"label": [f"{PROJECT_LABEL}={self.project}", f"com.docker.compose.service={service}"]}
        )
        code, said = output(container, *words)
        assert code == 0, said
        return said.strip()

    def sql(self, statement: str) -> str:
        """Ask its database."""
        return self.inside("postgres", "psql", "-U", "samokoder", "-d", "samokoder", "-XAtqc", statement)

    def volume(self, name: str) -> str:
        """Name of one of its volumes."""
        return f"{self.project}_{name}"

    def fingerprint(self, image: str) -> str:
        """What is in its volumes: content, owners, modes and times of every file."""
        script = (
            "cd /old && find . -printf '%p %U %G %m %T@ %s\\n' | sort && find . -type f | sort | xargs -d '\\n' md5sum"
        )
        said = b"".join(
            self.engine.containers.run(
                image,
                ["-c", script],
                entrypoint="bash",
                user="0:0",
                volumes={self.volume(name): {"bind": "/old", "mode": "ro"}},
                network_mode="none",
                remove=True,
            )
            for name in ("postgres_data", "redis_data")
        )
        return hashlib.sha256(said).hexdigest()


@pytest.fixture(scope="module")
def old(
    engine: docker.DockerClient, local_images: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Old]:
    """A compose stack with marked rows and keys, stopped as a person stops it; gone at the end."""
    if shutil.which("docker-compose") is None:
        try:
            install_packages(["docker-compose"], report=print)
        except EngineError as error:
            pytest.fail(f"the test needs Docker Compose: {error}")
    folder = tmp_path_factory.mktemp("compose")
    file = folder / "docker-compose.yml"
    file.write_text(FILE.format(postgres=local_images.image("postgres"), redis=local_images.image("redis")))
    stack = Old(engine, f"old{os.getpid()}", file)
    try:
        stack.compose("up", "--detach")
        # Over TCP: while it initialises, the server listens on its socket alone.
        wait = "until pg_isready -q -h 127.0.0.1 -U samokoder; do sleep 0.2; done"
        stack.inside("postgres", "sh", "-c", wait)
        stack.sql(
            "CREATE TYPE mood AS ENUM ('old');"
            "CREATE TABLE marked (id serial PRIMARY KEY, text text UNIQUE, mood mood);"
            f"INSERT INTO marked (text, mood) SELECT 'row ' || n, 'old' FROM generate_series(1, {ROWS}) AS n;"
            # As Alpine's leave it: no version of the order that the indexes are in.
            "UPDATE pg_database SET datcollversion = NULL WHERE datname = 'samokoder'"
        )
        stack.inside("redis", "redis-cli", "--no-auth-warning", "-a", "old", "set", "marked", "of compose")
        yield stack
    finally:
        stack.compose("down", "--volumes")


@pytest.fixture(scope="module")
def here(new_workspace: Callable[[], Workspace], engine: docker.DockerClient) -> Iterator[Workspace]:
    """An environment that is up and empty; gone at the end, with what was set aside in it."""
    workspace = new_workspace()
    bring_up(workspace, interactive=False)
    yield workspace
    destroy_data(workspace, interactive=False)
    for volume in volume_names.set_aside(engine, workspace.settings()):
        engine.volumes.get(volume).remove()


def imported(workspace: Workspace, project: str) -> str:
    """Do what the command does."""
    with import_compose.opened(workspace, project, {}, up=bring_up) as importing:
        return import_compose.run_import(importing)


def sql(engine: docker.DockerClient, workspace: Workspace, statement: str) -> str:
    postgres = containers.find(engine, workspace.settings(), "postgres")
    code, said = output(postgres, *SUPERUSER_PSQL, "-d", "samokoder", "-XAtqc", statement)
    assert code == 0, said
    return said.strip()


def key(engine: docker.DockerClient, workspace: Workspace) -> str:
    """The marked key, read as the application reads it."""
    password = workspace.open().secrets()["redis-app"]
    redis = containers.find(engine, workspace.settings(), "redis")
    words = [
        "redis-cli",
        "--no-auth-warning",
        "-u",
        f"redis://samokoder_app:{password}@127.0.0.1:6379",
        "get",
        "marked",
    ]
    return output(redis, *words)[1].strip()


def test_a_stack_that_still_runs_is_refused_and_nothing_changes(
    old: Old, here: Workspace, engine: docker.DockerClient
) -> None:
    before = containers.ids(engine, here.name)
    with pytest.raises(ProjectError, match=r"In use by .*docker compose --project-name old\d+ stop"):
        imported(here, old.project)
    assert containers.ids(engine, here.name) == before
    assert sql(engine, here, "SELECT to_regclass('marked')") == ""


def test_the_data_comes_over_although_the_import_is_killed_and_the_old_volumes_stay_as_they_were(
    old: Old, here: Workspace, engine: docker.DockerClient, local_images: Environment
) -> None:
    old.compose("stop")
    before = old.fingerprint(local_images.image("postgres"))
    with import_compose.opened(here, old.project, {}, up=bring_up) as importing:
        assert [source.volume for source in importing.plan.sources] == [
            old.volume("postgres_data"),
            old.volume("redis_data"),
        ]
    for seconds in (3.0, 8.0):
        process = begin(
            here,
            "(lambda i: import_compose.run_import(i.__enter__()))"
            f"(import_compose.opened(workspace, {old.project!r}, {{}}, up=bring_up))",
        )
        time.sleep(seconds)
        assert process.poll() is None, "it was over before it could be killed"
        cut_off(process)
    said = imported(here, old.project)
    assert sql(engine, here, "SELECT count(*), max(text) FROM marked") == f"{ROWS}|row 9999"
    assert key(engine, here) == "of compose", "Redis began empty"
    assert "PostgreSQL: " in said
    assert f"The volumes of {old.project} are as they were" in said
    assert old.fingerprint(local_images.image("postgres")) == before, "the way back is gone"
    left = [str(v.name) for v in engine.volumes.list() if f"samokoder-{here.name}-" in str(v.name)]
    assert not [name for name in left if "-from-compose-" in name], "a copy was left behind"


def test_what_came_over_belongs_to_this_stack(old: Old, here: Workspace, engine: docker.DockerClient) -> None:
    version = "datcollversion IS NOT DISTINCT FROM pg_database_collation_actual_version(oid)"
    for what, expected in (
        ("SELECT DISTINCT relowner::regrole FROM pg_class WHERE relname LIKE 'marked%'", "samokoder_app"),
        ("SELECT typowner::regrole FROM pg_type WHERE typname = 'mood'", "samokoder_app"),
        ("SHOW data_checksums", "on"),
        (f"SELECT {version} FROM pg_database WHERE datname = 'samokoder'", "t"),
    ):
        assert sql(engine, here, what) == expected, what
    login = "PGPASSWORD=old-password-of-compose psql -h postgres -U samokoder -d samokoder -c 'select 1'"
    keeper = containers.find(engine, here.settings(), "postgres-roles")
    assert execute(keeper, ["sh", "-c", login])[0] != 0, "the old password opens the new database"


def test_an_up_after_it_changes_nothing_and_the_data_is_there(
    old: Old, here: Workspace, engine: docker.DockerClient
) -> None:
    before = containers.ids(engine, here.name)
    rows = bring_up(here, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    assert containers.ids(engine, here.name) == before
    containers.find(engine, here.settings(), "redis").restart()
    assert sql(engine, here, "SELECT count(*) FROM marked") == str(ROWS)
    end = time.monotonic() + 30
    while key(engine, here) != "of compose":
        assert time.monotonic() < end, "the key did not outlive a restart of Redis"
        time.sleep(0.5)


def test_another_major_version_is_refused(
    here: Workspace, engine: docker.DockerClient, local_images: Environment
) -> None:
    name = f"old-{here.name}"
    engine.volumes.create(name)
    try:
        engine.containers.run(
            local_images.image("postgres"),
            ["-c", "echo 13 > /v/PG_VERSION"],
            entrypoint="sh",
            volumes={name: {"bind": "/v"}},
            network_mode="none",
            user="0:0",
            remove=True,
        )
        with (
            pytest.raises(ProjectError, match="written by PostgreSQL 13, and this stack's is 15"),
            import_compose.opened(here, "none", {"postgres": name}, up=bring_up),
        ):
            pytest.fail("it was not refused")
    finally:
        engine.volumes.get(name).remove()


def test_the_command_refuses_an_unknown_project_with_those_that_there_are(
    old: Old, here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: here)
    result = CliRunner().invoke(command.app, ["import-compose", "nobodys", "--preview"])
    assert isinstance(result.exception, ProjectError)
    assert old.project in str(result.exception), "a typing error is seen by the right name beside it"
    shown = CliRunner().invoke(command.app, ["import-compose", old.project, "--preview"])
    assert shown.exit_code == 0, shown.output
    assert f"From {old.volume('redis_data')}: Redis' snapshot" in shown.output


def test_an_import_that_was_refused_begins_anew_with_what_the_old_stack_has_written_since(
    old: Old, here: Workspace, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(text: str) -> None:
        old.compose("start")
        old.inside("postgres", "sh", "-c", "until pg_isready -q -h 127.0.0.1 -U samokoder; do sleep 0.2; done")
        old.sql(f"CREATE TABLE IF NOT EXISTS later (text text); INSERT INTO later VALUES ('{text}')")
        old.compose("stop")

    write("of before")
    opened, copied = import_on_engine.EngineImport.open, import_on_engine.EngineImport.copy

    def refuses(hands: import_on_engine.EngineImport, source: Source, target: str) -> str:
        if source.server == "redis":
            raise ProjectError("it cannot be opened")
        return opened(hands, source, target)

    with monkeypatch.context() as patched:
        patched.setattr(import_on_engine.EngineImport, "open", refuses)
        with pytest.raises(ProjectError, match="it cannot be opened\nNothing was changed"):
            imported(here, old.project)
    write("of the days since")

    def while_it_is_copied(hands: import_on_engine.EngineImport, source: Source, target: str) -> None:
        copied(hands, source, target)
        if source.server == "postgres":
            old.compose("start")

    with monkeypatch.context() as patched:
        patched.setattr(import_on_engine.EngineImport, "copy", while_it_is_copied)
        with pytest.raises(ProjectError, match=r"In use by .*(?s:.)*Nothing was changed"):
            imported(here, old.project)
    write("while it was copied")
    imported(here, old.project)
    written = sql(engine, here, "SELECT string_agg(text, ', ' ORDER BY text) FROM later")
    assert written == "of before, of the days since, while it was copied", "a copy of days ago was put in place"
