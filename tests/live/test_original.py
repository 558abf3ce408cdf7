"""An application that was not made for this platform goes the whole way of the owner's, by settings alone.

`tests/original_app` has its traits: settings from the environment, a Fernet key, a secret of its own, no Redis login, a
static `/health`, a `/metrics` that redirects, half of the metrics, files in a shared folder and in a configuration
folder, `/v1` behind `/api`. It is brought up and deployed from CI's command, backed up, restored, and imported from its
compose stack.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml
from cryptography.fernet import Fernet

from bench.own_ports import own_ports
from host.packages import install_packages
from host.ports import free_ports
from stack.common.names import PROJECT
from stack.settings.environment import Environment
from tests.live import clones, originals
from tests.recording import merged, secret_value

ENVIRONMENT = "original"
PASSPHRASE = "of a test, with nothing behind it"  # noqa: S105 - a test's
KEY = "sk-the-key-that-a-user-has-stored"
SMTP_PASSWORD = secret_value("of its mail server")
VERCEL_TOKEN = secret_value("of its old stack")


FRONT = "its page"


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, local_images: Environment) -> Iterator[Callable[[str], str]]:
    """Builds a version of the application's image, or its page's; gone at the end."""
    made: dict[str, str] = {}

    def build(version: str) -> str:
        if version not in made:
            front = version == FRONT
            made[version] = (
                originals.build_front(engine, local_images) if front else originals.build(engine, local_images, version)
            )
        return made[version]

    yield build
    for name in dict.fromkeys(made.values()):
        engine.images.remove(name, force=True)


def settings(image: Callable[[str], str], version: str, ports: dict[str, Any]) -> dict[str, Any]:
    """What its owner writes: nothing of the image is changed for it."""
    application = {"image": image(version), "secretsAs": "environment", "writablePaths": ["/app/config"]}
    return merged(
        ports,
        {
            "samokoder:api": {
                **application,
                "command": ["uvicorn", "original.main:app", "--host", "0.0.0.0", "--port", "8000"],  # noqa: S104
                "stableSeconds": 2,
            },
            "samokoder:worker": {
                **application,
                "command": ["arq", "original.worker.WorkerSettings"],
                "metricsPort": None,
                # Each check starts a Python with all that the worker imports: seconds where others work, too.
                "health": {"intervalSeconds": 15, "timeoutSeconds": 15, "retries": 4, "waitTimeoutSeconds": 240},
            },
            "samokoder:migrations": {"command": ["python", "-m", "original.migrate"]},
            "samokoder:frontend": {
                "image": image(FRONT),
                "containerPort": 80,
                "user": "101:101",
                "writablePaths": ["/var/cache/nginx", "/var/run"],
            },
            "samokoder:appSecretKeyForm": "fernet",
            "samokoder:applicationSecrets": ["SMTP_PASSWORD"],
            "samokoder:redis": {"login": "none"},
            "samokoder:workspace": {"path": "/app/workspace"},
            "samokoder:ingress": {"stripPrefix": "/api"},
        },
    )


# As the owner's, but for the images, which are those of this engine. Its folder is one of the host.
# Redis' official image has no protected mode; Debian's, which is this engine's, lets nobody in without a password.
COMPOSE = """\
services:
  db:
    image: {postgres}
    environment: {{POSTGRES_USER: samokoder, POSTGRES_DB: samokoder, POSTGRES_PASSWORD: old-password}}
    volumes: ["postgres_data:/var/lib/postgresql/data"]
  redis:
    image: {redis}
    command: redis-server --appendonly yes --protected-mode no
    volumes: ["redis_data:/data"]
  api: &application
    image: {image}
    ports: ["127.0.0.1:{port}:8000"]
    environment: &environment
      ENVIRONMENT: development
      SAMOKODER_DATABASE_URL: postgresql+asyncpg://samokoder:old-password@db:5432/samokoder
      REDIS_HOST: redis
      REDIS_PORT: "6379"
      SECRET_KEY: {secret_key}
      APP_SECRET_KEY: {app_secret_key}
      SMTP_PASSWORD: {smtp_password}
      VERCEL_TOKEN: {vercel_token}
    volumes: ["./workspace:/app/workspace"]
  worker:
    image: {image}
    command: arq original.worker.WorkerSettings
    environment: *environment
    volumes: ["./workspace:/app/workspace"]
volumes:
  postgres_data:
  redis_data:
"""


@dataclass
class Owner:
    """The owner's clone, and the application as its users have it."""

    folder: Path
    ports: dict[str, Any]
    engine: docker.DockerClient
    environment: str = ENVIRONMENT
    variables: dict[str, str] = field(default_factory=dict)

    def types(self, *words: str, fails: bool = False) -> str:
        """Run a command of the platform's."""
        done = clones.run(self.folder, ".venv/bin/samokoder", *words, "--env", self.environment, **self.variables)
        assert (done.returncode != 0) is fails, f"{' '.join(words)}:\n{done.stdout[-6000:]}"
        return done.stdout

    def tells(self, *words: str) -> Any:
        """Run a command of the platform's that answers in JSON."""
        words = (".venv/bin/samokoder", *words, "--json", "--env", self.environment)
        done = clones.run_apart(self.folder, *words, **self.variables)
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
        return json.loads(done.stdout)

    def configures(self, config: dict[str, Any]) -> None:
        """Write the configuration, keeping what Pulumi has written beside it, and commit it."""
        file = self.folder / f"Pulumi.{self.environment}.yaml"
        before = yaml.safe_load(file.read_text())
        kept = {key: value for key, value in before["config"].items() if isinstance(value, dict) and "secure" in value}
        clones.configure(self.folder, self.environment, {**config, **kept})
        document = {**before, **yaml.safe_load(file.read_text())}
        file.write_text(yaml.safe_dump(document))
        clones.commit(self.folder, "another configuration")

    def sets(self, secret: str, value: str) -> None:
        """Set a secret by the line that the page tells, its value on standard input, and commit it."""
        line = ("pulumi", "--env", self.environment, "--", "config", "set", "--secret", f"samokoder:{secret}")
        done = clones.run(self.folder, ".venv/bin/samokoder", *line, given=value, **self.variables)
        assert done.returncode == 0, done.stdout
        assert value not in (self.folder / f"Pulumi.{self.environment}.yaml").read_text(), "it is in plain text"
        clones.commit(self.folder, f"{secret} is set")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['samokoder:ingress']['port']}"

    def asks(self, method: str, path: str, content: str = "", **headers: str) -> httpx.Response:
        """Send one request as a user does."""
        return httpx.request(method, f"{self.url}/api/v1/{path}", content=content, headers=headers, timeout=30)

    def reads(self, path: str) -> str:
        answer = self.asks("GET", path)
        assert answer.status_code == 200, f"{path} answers {answer.status_code}: {answer.text[:300]}"
        return answer.text

    def builds(self, name: str, text: str) -> None:
        """Have the worker write a file, and wait until the API shows it."""
        assert self.asks("POST", f"projects/{name}", text).status_code == 200
        end = time.monotonic() + 60
        while (answer := self.asks("GET", f"projects/{name}")).status_code != 200:
            assert time.monotonic() < end, f"the worker has written nothing for the API: {answer.status_code}"
            time.sleep(0.5)
        assert answer.text == text

    def container(self, part: str) -> Any:
        return self.engine.containers.get(f"samokoder-{self.environment}-{part}")


@pytest.fixture(scope="module")
def owner(
    engine: docker.DockerClient, image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Owner]:
    """A clone with the application's settings, deployed from CI; gone at the end."""
    folder, state = tmp_path_factory.mktemp("owner") / "clone", tmp_path_factory.mktemp("state")
    ports = own_ports()
    clones.make(folder, ENVIRONMENT, settings(image, "1", ports))
    variables = {"PULUMI_BACKEND_URL": state.as_uri(), "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE}
    variables["SAMOKODER_CACHE"] = os.environ.get("SAMOKODER_CACHE", str(Path.home() / ".cache" / "samokoder"))
    made = Owner(folder, ports, engine, variables=variables)
    try:
        assert clones.run(folder, "./bootstrap").returncode == 0
        said = made.types("preview", fails=True)
        assert "samokoder:SMTP_PASSWORD" in said, (
            f"it would end at its start, in the middle of a deploy:\n{said[-3000:]}"
        )
        made.sets("SMTP_PASSWORD", SMTP_PASSWORD)
        made.types("ci", "deploy", "--junit", str(state / "first.xml"))
        yield made
    finally:
        clones.remove(engine, ENVIRONMENT)
        shutil.rmtree(folder)


def test_it_is_brought_up_by_its_settings_alone_and_does_all_that_it_does(owner: Owner) -> None:
    about = json.loads(owner.reads("about"))
    assert about["version"] == "1"
    assert about["mail"] == hashlib.sha256(SMTP_PASSWORD.encode()).hexdigest(), "its own secret is another one there"
    assert owner.asks("PUT", "keys/alice", KEY).status_code == 200
    assert owner.reads("keys/alice") == KEY, "a user's key cannot be stored: APP_SECRET_KEY is no Fernet key"
    owner.builds("first", "written by the worker")
    page = httpx.get(f"{owner.url}/", timeout=30)
    assert (page.status_code, page.text) == (200, "the page of the original\n"), "its users see no page"
    owner.types("drift")


def test_its_secrets_are_in_its_process_and_nowhere_that_the_engine_shows(owner: Owner) -> None:
    for part in ("api-1", "api-2", "worker", "migrations"):
        container = owner.container(part)
        shown = json.dumps(container.attrs)
        script = (
            "import pathlib, json; print(json.dumps([p.read_text() for p in pathlib.Path('/run/secrets').iterdir()]))"
        )
        values = json.loads(container.exec_run(["python", "-c", script]).output)
        assert len(values) >= 5
        assert SMTP_PASSWORD in values
        assert not [value for value in values if value in shown], f"docker inspect of {part} shows a secret"
        process = container.exec_run(["python", "-c", "print(open('/proc/1/environ').read())"]).output.decode()
        inside = container.exec_run(["sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'"]).output.decode()
        assert "SECRET_KEY=" not in process, "the first process is the engine's own, which needs none"
        assert any(f"SECRET_KEY={value}" in inside for value in values), f"{part} has it nowhere"
        assert f"SMTP_PASSWORD={SMTP_PASSWORD}" in inside, f"{part} has the application's own secret nowhere"


def test_another_value_of_its_own_secret_replaces_the_replicas_the_worker_and_the_migrations(owner: Owner) -> None:
    def ids() -> dict[str, str]:
        prefix = f"samokoder-{owner.environment}-"
        containers = owner.engine.containers.list(filters={"name": f"^{prefix}"})
        return {str(each.name).removeprefix(prefix): str(each.id) for each in containers}

    before, new = ids(), secret_value("another one of its mail server")
    owner.sets("SMTP_PASSWORD", new)
    owner.types("up")
    after = ids()
    assert {part for part in after if after[part] != before.get(part)} == {"api-1", "api-2", "worker", "migrations"}
    assert json.loads(owner.reads("about"))["mail"] == hashlib.sha256(new.encode()).hexdigest()


def test_each_user_has_a_limit_of_its_own_and_the_metrics_are_not_public(owner: Owner) -> None:
    assert json.loads(owner.reads("about"))["client"] not in ("", "127.0.0.1")
    network = owner.container("ingress").attrs["NetworkSettings"]["Networks"]
    assert json.loads(owner.reads("about"))["client"] not in {each["IPAddress"] for each in network.values()}, (
        "it takes the ingress for everybody: five logins a minute for all users together"
    )
    assert [owner.asks("POST", "login").status_code for _ in range(6)] == [200] * 5 + [429]
    outside = {"Host": "samokoder.example.org"}  # without it the ingress takes the question for this machine's own
    for path in ("/metrics", "/metrics/", "/api/metrics", "/api/metrics/", "/api//metrics", "/api/%6detrics"):
        answer = httpx.get(owner.url + path, headers=outside, timeout=30, follow_redirects=True)
        assert answer.status_code == 404, path


def test_smoke_names_what_it_does_not_expose_and_the_alerts_that_are_mute(owner: Owner) -> None:
    found = owner.tells("smoke", "--wait", "120")
    checks = {each["check"]: each for each in found["checks"]}
    assert found["ok"]
    for part in ("api-1", "api-2"):
        said = checks[f"metrics {part}"]
        assert said["verdict"] == "not available"
        assert "samokoder_auth_attempts_total" in said["why"]
        assert "AuthenticationFailureSpike" in said["why"]
        assert "samokoder_rate_limit_hits_total" not in said["why"], "a counter that has counted nothing is there"


def test_a_new_version_is_deployed_from_ci_and_a_bad_one_goes_back(
    owner: Owner, image: Callable[[str], str], tmp_path: Path
) -> None:
    owner.configures(settings(image, "2", owner.ports))
    said = owner.types("ci", "deploy", "--junit", str(tmp_path / "second.xml"))
    assert "and good" in said
    assert json.loads(owner.reads("about"))["version"] == "2"
    bad = merged(
        settings(image, "3", owner.ports), {"samokoder:api": {"command": ["python", "-m", "original.nothing"]}}
    )
    owner.configures(bad)
    said = owner.types("ci", "deploy", "--junit", str(tmp_path / "third.xml"), fails=True)
    assert "which is good" in said, said[-3000:]
    assert json.loads(owner.reads("about"))["version"] == "2", "a version that does not start stayed"
    owner.configures(settings(image, "2", owner.ports))
    assert owner.reads("keys/alice") == KEY


# Its own command, without one of its metrics.
MUTE = """
import uvicorn
from prometheus_client import REGISTRY
from original import main
REGISTRY.unregister(main.LIMITED)
uvicorn.run(main.app, host="0.0.0.0", port=8000)
"""


def test_a_version_that_has_lost_a_metric_goes_back_and_is_told_the_alert_that_would_be_mute(
    owner: Owner, image: Callable[[str], str], tmp_path: Path
) -> None:
    good = settings(image, "2", owner.ports)
    owner.configures(merged(good, {"samokoder:api": {"command": ["python", "-c", MUTE]}}))
    said = owner.types("ci", "deploy", "--junit", str(tmp_path / "mute.xml"), fails=True)
    assert "api, which an earlier good version had: not exposed: samokoder_rate_limit_hits_total; mute" in said, said[
        -3000:
    ]
    assert "RateLimitHitsHigh" in said
    assert "which is good" in said, said[-3000:]
    page = owner.container("api-1").exec_run(
        ["python", "-c", "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/metrics').read())"]
    )
    assert b"samokoder_rate_limit_hits_total" in page.output, "it stayed"
    owner.configures(good)


def test_a_restart_of_redis_loses_no_job_and_lets_the_application_in_again(owner: Owner) -> None:
    owner.container("worker").stop()
    assert owner.asks("POST", "projects/queued", "waited for").status_code == 200
    owner.container("redis").restart()
    owner.container("worker").start()
    end = time.monotonic() + 120
    while owner.asks("GET", "projects/queued").status_code != 200:
        assert time.monotonic() < end, "what the application queued without a login did not outlive a restart"
        time.sleep(1)


def test_its_files_and_its_users_keys_are_backed_up_and_restored(owner: Owner) -> None:
    owner.builds("first", "written by the worker")
    assert owner.asks("PUT", "keys/alice", KEY).status_code == 200
    owner.types("backup")
    rows = owner.tells("backups")["backups"]
    newest = {row["kind"]: row["id"] for row in reversed(rows)}
    assert all(row["status"] != "bad" for row in rows), rows
    owner.builds("later", "after the copy")
    gone = owner.container("worker").exec_run(["rm", "-rf", "/app/workspace/projects"])
    assert gone.exit_code == 0, gone.output
    assert owner.asks("GET", "projects/first").status_code == 404
    said = owner.types("restore", "--backup", newest["workspace"])
    assert "before-restore" in said
    assert owner.reads("projects/first") == "written by the worker"
    assert owner.asks("GET", "projects/later").status_code == 404
    modes = owner.container("api-1").exec_run(["stat", "-c", "%a %u", "/app/workspace/projects/first.txt"]).output
    assert modes.split() == [b"600", b"10001"], "the application can no longer read what it wrote"
    owner.builds("again", "it can write")
    aside = next(word for word in said.replace("=", " ").split() if "-workspace-before-restore-" in word)
    owner.types("restore", "--from", aside.rstrip(".,"))
    assert owner.asks("GET", "projects/first").status_code == 404, "what was set aside is put back as it was"
    owner.types("restore", "--backup", newest["workspace"])
    assert owner.asks("PUT", "keys/alice", "another").status_code == 200
    owner.types("restore", "--backup", newest["dump"])
    assert owner.reads("keys/alice") == KEY, "a user's key was restored, and cannot be decrypted"


@dataclass
class Old:
    """The application as its compose file runs it."""

    folder: Path
    project: str
    port: int

    def compose(self, *words: str) -> str:
        file = str(self.folder / "docker-compose.yml")
        done = clones.run(self.folder, "docker-compose", "--project-name", self.project, "--file", file, *words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def asks(self, method: str, path: str, content: str = "") -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.port}/v1/{path}", content=content, timeout=30)


@pytest.fixture(scope="module")
def old(
    image: Callable[[str], str], local_images: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Old]:
    """Its compose stack with a user's key, a file and a job that waits, stopped; gone at the end."""
    if shutil.which("docker-compose") is None:
        install_packages(["docker-compose"], report=print)
    folder = tmp_path_factory.mktemp("compose")
    (folder / "workspace").mkdir()
    (folder / "workspace").chmod(0o777)
    made = Old(folder, f"old{os.getpid()}", free_ports(1)[0])
    values = {
        "postgres": local_images.image("postgres"),
        "redis": local_images.image("redis"),
        "image": image("1"),
        "port": made.port,
        "secret_key": secret_value("old secret key", 86),
        "app_secret_key": Fernet.generate_key().decode(),
        "smtp_password": SMTP_PASSWORD,
        "vercel_token": VERCEL_TOKEN,
    }
    (folder / "docker-compose.yml").write_text(COMPOSE.format(**values))
    try:
        made.compose("up", "--detach", "db", "redis")
        wait = "until pg_isready -q -h 127.0.0.1 -U samokoder; do sleep 0.2; done"
        made.compose("exec", "-T", "db", "sh", "-c", wait)
        made.compose("run", "--rm", "-T", "api", "python", "-m", "original.migrate")
        made.compose("up", "--detach")
        end = time.monotonic() + 60
        while True:
            try:
                assert made.asks("PUT", "keys/bob", KEY).status_code == 200
                break
            except httpx.HTTPError:
                assert time.monotonic() < end, made.compose("logs")
                time.sleep(0.5)
        assert made.asks("POST", "projects/of-compose", "from compose").status_code == 200
        while made.asks("GET", "projects/of-compose").status_code != 200:
            assert time.monotonic() < end, made.compose("logs")
            time.sleep(0.5)
        made.compose("stop", "worker")
        assert made.asks("POST", "projects/waiting", "queued in compose").status_code == 200
        made.compose("stop")
        yield made
    finally:
        made.compose("down", "--volumes")


def test_its_compose_stack_comes_over_with_its_users_keys_its_files_and_its_jobs(owner: Owner, old: Old) -> None:
    shown = owner.types("import-compose", old.project, "--preview")
    assert f"APP_SECRET_KEY of {old.project} is not this environment's" in shown, "its users' keys would be lost unseen"
    said = owner.types("import-compose", old.project, "--keys")
    assert "APP_SECRET_KEY: written as samokoder:appSecretKey, encrypted" in said
    assert f"SMTP_PASSWORD: {PROJECT}:SMTP_PASSWORD was set already, and stays" in said
    assert "Not brought, and may be secrets: VERCEL_TOKEN." in said
    assert VERCEL_TOKEN not in said
    keys = re.search(r"OTHER_KEY='?([a-z -]+?)'? ", said)
    assert keys, "this environment has begun with a key of its own"
    assert "app-secret-key" in keys[1].split()
    replace(owner, variables={**owner.variables, "OTHER_KEY": keys[1]}).types("up")
    shown = owner.types("import-compose", old.project, "--preview")
    assert "is not this environment's" not in shown
    assert f"From {old.folder}/workspace: The workspace" in shown
    owner.types("import-compose", old.project, "--confirm", owner.environment)
    assert owner.reads("keys/bob") == KEY, "a user's API key cannot be decrypted any more"
    assert owner.reads("projects/of-compose") == "from compose"
    end = time.monotonic() + 60
    while owner.asks("GET", "projects/waiting").status_code != 200:
        assert time.monotonic() < end, "a job that waited in the old stack is lost"
        time.sleep(1)
    owner.builds("new", "written to what came over")
    assert (old.folder / "workspace" / "projects" / "of-compose.txt").read_text() == "from compose", "the way back"
