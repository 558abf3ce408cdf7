"""The ways in which providers let parts reach PostgreSQL and Redis, each with the real drivers and real servers.

TLS that is required, a certificate that is verified, PgBouncer in transaction mode, IPv6; Redis by TLS, with a user of
its own and a numbered database. A whole stack at such servers: tests/live/test_managed.py.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

import docker
import pytest
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from operations.checks.image.image_answer import tried
from operations.checks.image.judging import random_text
from operations.checks.image.life import text
from operations.engine import laboratory
from operations.engine.commands import execute
from operations.engine.laboratory import Laboratory
from stack.parts.api import migrations
from stack.parts.api import spec as api
from stack.parts.postgres import exporter as postgres_exporter
from stack.parts.redis import exporter as redis_exporter
from stack.settings.environment import Environment
from stack.spec.files import Template
from stack.spec.service import Scrape, ServiceSpec
from tests.live.conftest import no_limits
from tests.live.originals import reference_of
from tests.live.stand_in_sites import certify
from tests.live.test_managed import AWKWARD, NUMBER, TLS_ONLY, put
from tests.live.test_the_stack import until
from tests.newer_engine import unpack
from tests.recording import environment_of

PATIENCE_SECONDS = 180.0
USER = "app@team"
DATABASE, POOL, STORE = "database.test", "pool.test", "store.test"
TLS = "/etc/samokoder-tls"
# PostgreSQL and Redis of the images; the pooler's package has no user.
OWNER = 999
# Debian 12 has PgBouncer 1.18, which keeps no prepared statements.
SUITE = "trixie"

POOLER = f"""\
[databases]
samokoder = host={DATABASE} port=5432

[pgbouncer]
listen_addr = *
listen_port = 6432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /etc/pgbouncer.test/users.txt
pool_mode = transaction
default_pool_size = 2
max_prepared_statements = 100
ignore_startup_parameters = extra_float_digits
server_tls_sslmode = require
"""

# Many at once, so that a statement is seldom run where it was prepared.
USE = """
import json, urllib.request
from concurrent.futures import ThreadPoolExecutor
def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request("http://127.0.0.1:8000" + path, data, headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)
def one(number):
    made = ask("/projects", {"name": f"project {number}", "notes": "to be encrypted"})
    ask(f"/projects/{made['id']}/jobs", {"name": "write_skeleton"})
    return ask(f"/projects/{made['id']}")["name"] == f"project {number}"
with ThreadPoolExecutor(10) as pool:
    print(json.dumps([ask("/ready"), all(pool.map(one, range(40)))]))
"""


@dataclass(frozen=True)
class Servers:
    """All of them, on one network of IPv4 and IPv6."""

    made: Laboratory
    images: Environment
    passwords: tuple[str, str]
    """Of PostgreSQL and of Redis: two that are equal would be refused."""
    authority: str
    addresses: Mapping[str, str]
    """Server -> its IPv6 address."""

    def database(self, host: str, port: int, mode: str) -> str:
        """The URL of PostgreSQL by this host, as a provider's page shows it."""
        return f"postgresql://{self._login(0)}@{host}:{port}/samokoder?sslmode={mode}"

    def redis(self, host: str) -> str:
        """The URL of Redis by this host."""
        return f"rediss://{self._login(1)}@{host}:6379/{NUMBER}"

    def _login(self, server: int) -> str:
        return f"{quote(USER, safe='')}:{quote(self.passwords[server], safe='')}"


@pytest.fixture(scope="module")
def pooler(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with PgBouncer; gone at the end."""
    archive = tmp_path_factory.mktemp("pooler") / "root.tar"
    unpack(SUITE, ["pgbouncer"], archive)
    tag = f"samokoder-test-pooler:{secrets.token_hex(3)}"
    repository, _, version = tag.partition(":")
    engine.api.import_image(str(archive), repository=repository, tag=version)
    yield tag
    engine.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def servers(
    engine: docker.DockerClient, local_images: Environment, pooler: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """All of them; gone at the end, with their network."""
    reference_of(engine, local_images)
    own = f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}"
    addresses = {DATABASE: f"{own}::10", STORE: f"{own}::11"}
    password, of_redis = AWKWARD + secrets.token_hex(12), AWKWARD + secrets.token_hex(12)
    folder = tmp_path_factory.mktemp("authority")
    certify(folder, [f"DNS:{DATABASE}", f"DNS:{STORE}", *(f"IP:{each}" for each in addresses.values())])
    certificate = {f"{TLS[1:]}/{name}": ((folder / name).read_text(), OWNER) for name in ("site.pem", "site.key")}

    with laboratory.opened(engine) as made:
        network = engine.networks.create(
            f"samokoder-test-ways-{made.token}",
            driver="bridge",
            internal=True,
            enable_ipv6=True,
            ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=f"{own}::/64")]),
            labels=made.labels,
        )
        on_both = replace(made, network=network)

        def serve(
            image: str, name: str, command: list[str], files: Mapping[str, tuple[str, int]], **more: object
        ) -> Container:
            endpoint = engine.api.create_endpoint_config(aliases=[name], ipv6_address=addresses.get(name))
            container: Container = engine.containers.create(
                image,
                command,
                network=str(network.name),
                networking_config={str(network.name): endpoint},
                labels=made.labels,
                **more,  # type: ignore[arg-type]
            )
            put(container, files)
            container.start()
            return container

        redis_conf = (
            f"port 0\ntls-port 6379\ntls-cert-file {TLS}/site.pem\ntls-key-file {TLS}/site.key\n"
            f"tls-auth-clients no\ntls-ca-cert-file {TLS}/site.pem\n"
            f'user default off\nuser "{USER}" on ">{of_redis}" ~* &* +@all\n'
        )
        ssl = {"ssl": "on", "ssl_cert_file": f"{TLS}/site.pem", "ssl_key_file": f"{TLS}/site.key"}
        database = serve(
            local_images.image("postgres"),
            DATABASE,
            ["postgres", *(word for name, value in ssl.items() for word in ("-c", f"{name}={value}"))],
            {**certificate, "docker-entrypoint-initdb.d/tls.sh": (TLS_ONLY, OWNER)},
            environment={"POSTGRES_USER": USER, "POSTGRES_PASSWORD": password, "POSTGRES_DB": "samokoder"},
        )
        serve(
            local_images.image("redis"),
            STORE,
            ["redis-server", "/etc/samokoder-redis.conf"],
            {
                **certificate,
                "etc/samokoder-redis.conf": (redis_conf, OWNER),
            },
        )
        serve(
            pooler,
            POOL,
            ["/etc/pgbouncer.test/pgbouncer.ini"],
            {
                "etc/pgbouncer.test/pgbouncer.ini": (POOLER, OWNER),
                "etc/pgbouncer.test/users.txt": (f'"{USER}" "{password}"\n', OWNER),
            },
            entrypoint=["/usr/sbin/pgbouncer"],
            user=f"{OWNER}:{OWNER}",
        )
        asked = ["pg_isready", "--quiet", "--host=127.0.0.1"]
        assert until(lambda: execute(database, asked)[0], lambda status: status == 0, PATIENCE_SECONDS) == 0, (
            database.logs(tail=20).decode()
        )
        yield Servers(on_both, local_images, (password, of_redis), (folder / "ca.pem").read_text(), addresses)


def ways(servers: Servers) -> Mapping[str, tuple[str, str, bool]]:
    """Way -> URL of PostgreSQL, of Redis, and whether PostgreSQL's certificate is verified."""
    six = {name: f"[{address}]" for name, address in servers.addresses.items()}
    return {
        "TLS is required": (servers.database(DATABASE, 5432, "require"), servers.redis(STORE), False),
        "the certificate is verified": (servers.database(DATABASE, 5432, "verify-full"), servers.redis(STORE), True),
        "a pooler in transaction mode": (servers.database(POOL, 6432, "disable"), servers.redis(STORE), False),
        "IPv6": (servers.database(six[DATABASE], 5432, "verify-full"), servers.redis(six[STORE]), True),
    }


@dataclass(frozen=True)
class Parts:
    """Parts of the stack that run with these URLs, as the stack makes them."""

    servers: Servers
    urls: Mapping[str, str]
    running: list[Container]

    def run(self, spec: ServiceSpec) -> Container:
        """Start a part, and wait until its health check succeeds."""
        contents = {**spec.files, **spec.secret_environment}
        needs = {need for each in contents.values() if isinstance(each, Template) for need in each.needs}
        values = {need: self.urls.get(need) or random_text(64) for need in sorted(needs)}
        files = {name: text(content, values) for name, content in spec.files.items()}
        secret = {name: text(content, values) for name, content in spec.secret_environment.items()}
        container = self.servers.made.run(spec, files, environment={**spec.environment, **secret})
        self.running.append(container)
        good = until(
            lambda: tried(container, spec.health_command, seconds=10)[0], lambda healthy: healthy, PATIENCE_SECONDS
        )
        assert good, f"{spec.part}: {container.logs(tail=20).decode()}"
        return container


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "name", ["TLS is required", "the certificate is verified", "a pooler in transaction mode", "IPv6"]
)
def test_each_part_reaches_them_by_each_way_of_a_provider(servers: Servers, name: str) -> None:
    database, redis, verified = ways(servers)[name]
    config = {
        "samokoder:images": servers.images.settings.images.model_dump(by_alias=True),
        "samokoder:managedDatabaseUrl": database,
        "samokoder:managedRedisUrl": redis,
        "samokoder:managedRedisCa": servers.authority,
        **({"samokoder:managedDatabaseCa": servers.authority} if verified else {}),
        "samokoder:api": {"replicas": 1, "environment": no_limits()},
    }
    environment = environment_of("staging", config)
    parts = Parts(servers, {"managedDatabaseUrl": database, "managedRedisUrl": redis}, [])
    try:
        parts.run(migrations.spec(environment))
        serving = parts.run(next(api.specs(environment)))
        status, said = execute(serving, ["python", "-c", USE])
        assert status == 0, said.decode()
        ready, whole = json.loads(said)
        assert ready == {"status": "ok", "database": "ok", "redis": "ok"}
        assert whole, "what was written is read as it was"
        for spec, up in (
            (postgres_exporter.spec(environment), "pg_up 1"),
            (redis_exporter.spec(environment), "redis_up 1"),
        ):
            parts.run(spec)
            assert isinstance(spec.scrape, Scrape)
            port = spec.scrape.port
            page = f"import urllib.request as u; print(u.urlopen('http://{spec.part}:{port}/metrics').read().decode())"
            _, metrics = execute(serving, ["python", "-c", page])
            assert up in metrics.decode().splitlines(), f"{spec.part} does not reach it"
    finally:
        for container in parts.running:
            container.remove(force=True, v=True)
