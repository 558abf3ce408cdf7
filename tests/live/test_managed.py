"""A managed PostgreSQL and a managed Redis as providers give them: TLS alone, an authority of their own, a login."""

from __future__ import annotations

import io
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from urllib.parse import quote

import docker
import pytest
from docker.models.containers import Container

from operations.checks.smoke import smoke
from operations.data import backups
from operations.engine import containers
from operations.engine.commands import execute
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from tests.live.conftest import no_limits, with_config, with_secrets
from tests.live.stand_in_sites import certify

PATIENCE_SECONDS = 300.0
#: All that a URL must write in another way.
AWKWARD = "p@s:s/w?o#r[d]%"
NUMBER = 3
TLS_ONLY = """\
#!/bin/sh
sed -i 's/^host /hostssl /' "$PGDATA/pg_hba.conf"
"""


@dataclass(frozen=True)
class Servers:
    """The two, and what their provider's page would show."""

    database: Container
    redis: Container
    urls: Mapping[str, str]
    authorities: Mapping[str, str]


def put(container: Container, files: Mapping[str, tuple[str, int]]) -> None:
    """Put files into a container that has not started: path -> text and owner, who alone may read it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, (text, owner) in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.uid, member.gid = len(text.encode()), 0o700, owner, owner
            archive.addfile(member, io.BytesIO(text.encode()))
    container.put_archive("/", content.getvalue())


def bridge_address(engine: docker.DockerClient) -> str:
    """Return the engine's address in its default network. An engine that found that network at its start names none."""
    config = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]
    return str(config.get("Gateway") or next(ip_network(config["Subnet"]).hosts()))


@pytest.fixture(scope="module")
def servers(
    engine: docker.DockerClient, local_images: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """Both on ports of the engine's bridge, as anything outside of the stack."""
    address = bridge_address(engine)
    made: list[Container] = []
    authorities: dict[str, str] = {}

    def begin(name: str, owner: int, command: list[str], variables: dict[str, str], files: dict[str, str]) -> int:
        folder = tmp_path_factory.mktemp(name)
        certify(folder, [f"IP:{address}"])
        authorities[name] = (folder / "ca.pem").read_text()
        port = {"postgres": 5432, "redis": 6379}[name]
        container = engine.containers.create(
            local_images.image(name),
            command,
            name=f"samokoder-test-managed-{name}-{secrets.token_hex(3)}",
            environment=variables,
            ports={f"{port}/tcp": (address, None)},  # type: ignore[dict-item]
        )
        made.append(container)
        files |= {f"etc/samokoder-tls/{each}": (folder / each).read_text() for each in ("site.pem", "site.key")}
        put(container, {path: (text, owner) for path, text in files.items()})
        container.start()
        container.reload()
        return int(container.ports[f"{port}/tcp"][0]["HostPort"])  # type: ignore[index]

    tls = "/etc/samokoder-tls"
    # Two that are equal would be refused.
    password, of_redis = (AWKWARD + secrets.token_hex(12) for _ in range(2))
    login, login_of_redis = (f"{quote('app@team', safe='')}:{quote(each, safe='')}" for each in (password, of_redis))
    try:
        port = begin(
            "postgres",
            999,
            ["postgres", "-c", "ssl=on", "-c", f"ssl_cert_file={tls}/site.pem", "-c", f"ssl_key_file={tls}/site.key"],
            {"POSTGRES_USER": "app@team", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "samokoder"},
            {"docker-entrypoint-initdb.d/tls.sh": TLS_ONLY},
        )
        urls = {"managedDatabaseUrl": f"postgresql://{login}@{address}:{port}/samokoder"}
        port = begin(
            "redis",
            999,
            ["redis-server", "/etc/samokoder-redis.conf"],
            {},
            {
                "etc/samokoder-redis.conf": f"port 0\ntls-port 6379\ntls-cert-file {tls}/site.pem\n"
                f"tls-key-file {tls}/site.key\ntls-auth-clients no\ntls-ca-cert-file {tls}/site.pem\n"
                f'user default off\nuser "app@team" on ">{of_redis}" ~* &* +@all\n'
            },
        )
        urls["managedRedisUrl"] = f"rediss://{login_of_redis}@{address}:{port}/{NUMBER}"
        yield Servers(made[0], made[1], urls, authorities)
    finally:
        for container in made:
            container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def stack(new_workspace: Callable[[], Workspace], servers: Servers) -> Iterator[Workspace]:
    """A stack whose data are at the two; it is up."""
    end = time.monotonic() + PATIENCE_SECONDS
    while execute(servers.database, ["pg_isready", "-q", "-h", "127.0.0.1"])[0]:
        assert time.monotonic() < end, servers.database.logs(tail=20).decode()
        time.sleep(0.5)
    workspace = with_config(new_workspace(), {"samokoder:api": {"environment": no_limits()}})
    workspace = with_secrets(workspace, dict(servers.urls))
    certificates = {
        "samokoder:managedDatabaseCa": servers.authorities["postgres"],
        "samokoder:managedRedisCa": servers.authorities["redis"],
    }
    workspace = replace(workspace, extra_config={**workspace.extra_config, **certificates})
    bring_up(workspace, interactive=False)
    yield workspace
    destroy_data(workspace, interactive=False)


def test_every_part_reaches_them_encrypted_and_a_job_is_done(stack: Workspace, servers: Servers) -> None:
    whole = smoke.smoke(stack, wait=PATIENCE_SECONDS)
    assert not whole.failed, whole.as_json()
    asked = ["psql", "-U", "app@team", "-d", "samokoder", "-XAtc"]
    sessions = "pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.client_addr IS NOT NULL"
    _, said = execute(servers.database, [*asked, f"SELECT count(*), bool_and(s.ssl) FROM {sessions}"])
    count, encrypted = said.decode().strip().split("|")
    assert int(count) > 2, "API, worker and exporter have sessions"
    assert encrypted == "t"


def test_the_queue_is_in_the_database_that_the_url_names(stack: Workspace, engine: docker.DockerClient) -> None:
    worker = containers.find(engine, stack.settings(), "worker")
    script = (
        "import asyncio\nfrom samokoder.backends import make_queue\nfrom samokoder.settings import settings_or_exit\n"
        "async def ask():\n    queue = make_queue(settings_or_exit())\n"
        "    print(queue.connection_pool.connection_kwargs['db'], await queue.dbsize())\nasyncio.run(ask())"
    )
    _, said = execute(worker, ["python", "-c", script])
    number, keys = said.decode().split()
    assert (number, int(keys) > 0) == (str(NUMBER), True), "arq's health check alone is a key"


def test_a_certificate_of_another_authority_is_refused_by_the_application(
    stack: Workspace, engine: docker.DockerClient
) -> None:
    api = containers.find(engine, stack.settings(), "api-1")
    other = {
        "PGSSLROOTCERT": "/run/secrets/managed_redis_ca.pem",
        "REDIS_CA_FILE": "/run/secrets/managed_database_ca.pem",
    }
    script = (
        "import asyncio\nfrom samokoder.backends import make_queue\nfrom samokoder.db import make_engine\n"
        "from samokoder.settings import settings_or_exit\n"
        "async def ask():\n    settings = settings_or_exit()\n"
        "    opened = make_engine(settings, 'api').connect().__aenter__\n"
        "    for name, call in (('database', opened), ('redis', make_queue(settings).ping)):\n"
        "        try:\n            await call()\n            print(name, 'answered')\n"
        "        except Exception as error:\n            print(name, 'CERTIFICATE_VERIFY_FAILED' in str(error))\n"
        "asyncio.run(ask())"
    )
    _, said = execute(api, ["python", "-c", script], environment=other)
    assert said.decode().split("\n")[:2] == ["database True", "redis True"], said.decode()


def test_a_dump_is_made_over_the_encrypted_way(stack: Workspace) -> None:
    backups.now(stack, "dump")
    found = [each for each in backups.backups(stack)[0] if each.kind == "dump"]
    assert found
    assert {each.status for each in found} <= {"good", "made"}, found
