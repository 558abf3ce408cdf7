from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from urllib.parse import urlsplit

import pytest

from stack.common import managed
from stack.common.references import parse_reference
from stack.parts.postgres import exporter as postgres_exporter
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.parts.redis import exporter as redis_exporter
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.types import CERTIFICATE
from stack.spec.files import Template
from stack.spec.service import ServiceSpec
from tests.described import specs
from tests.recording import (
    CASES,
    DATABASE_PASSWORD,
    DATABASE_URL,
    REDIS_PASSWORD,
    REDIS_URL,
    Config,
    Recording,
    case_config,
    case_environment,
    merged,
    record,
    record_case,
    secret_value,
)

API_CASES = ["staging", "prod", "managed"]


def files_of(recording: Recording, part: str) -> dict[str, str]:
    return {u["file"].removeprefix("/files/"): u["content"] for u in recording.carriers()[part].inputs["uploads"]}


def variables_of(recording: Recording, part: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in recording.containers()[part].inputs["envs"])


def settings_of(recording: Recording, part: str) -> dict[str, str]:
    """All that the image is told: its variables, and what the files hold that variables point to."""
    variables = variables_of(recording, part)
    from_files = {name.upper(): text for name, text in files_of(recording, part).items()}
    pointed = {name.removesuffix("_FILE") for name in variables if name.endswith("_FILE")}
    assert pointed == from_files.keys(), "a file that no variable points to, or a variable to no file"
    for name in pointed:
        assert variables[f"{name}_FILE"] == f"/run/secrets/{name.lower()}"
    return {name: value for name, value in variables.items() if not name.endswith("_FILE")} | from_files


@pytest.mark.parametrize("part", ["api-1", "api-2", "migrations", "worker"])
@pytest.mark.parametrize("case", API_CASES)
def test_the_application_is_told_all_of_the_originals_contract(case: str, part: str) -> None:
    settings = settings_of(record_case(case), part)
    assert settings.keys() >= {
        "ENVIRONMENT",
        "SECRET_KEY",
        "APP_SECRET_KEY",
        "SAMOKODER_DATABASE_URL",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_PASSWORD",
    }
    assert all(settings.values()), "an empty setting is one that the image takes its own default for"
    mounts = {mount["containerPath"] for mount in record_case(case).containers()[part].inputs["volumes"]}
    assert "/run/secrets" in mounts


def test_a_local_database_and_redis_are_reached_by_the_parts_names() -> None:
    recording = record_case("staging")
    settings = settings_of(recording, "api-1")
    password = recording.secrets["secret-postgres-app"]
    assert (
        settings["SAMOKODER_DATABASE_URL"] == f"postgresql+asyncpg://samokoder_app:{password}@postgres:5432/samokoder"
    )
    assert settings["ENVIRONMENT"] == "staging"
    redis_settings = {name: value for name, value in settings.items() if name.startswith("REDIS_")}
    assert redis_settings == {
        "REDIS_HOST": "redis",
        "REDIS_PORT": "6379",
        "REDIS_USERNAME": "samokoder_app",
        "REDIS_PASSWORD": recording.secrets["secret-redis-app"],
    }


def test_production_is_called_so() -> None:
    assert settings_of(record_case("prod"), "api-1")["ENVIRONMENT"] == "production"


def test_managed_servers_are_reached_with_the_decoded_password() -> None:
    recording = record_case("managed")
    settings = settings_of(recording, "worker")
    assert settings["SAMOKODER_DATABASE_URL"] == asyncpg(DATABASE_URL)
    redis_settings = {name: value for name, value in settings.items() if name.startswith("REDIS_")}
    assert redis_settings == {
        "REDIS_HOST": "cache.example.org",
        "REDIS_PORT": "6380",
        "REDIS_USERNAME": "default",
        "REDIS_PASSWORD": REDIS_PASSWORD,
        "REDIS_DB": "0",
        "REDIS_TLS": "true",
    }, "a password with %40 in place of @ is another password; without TLS its server answers nothing"


def asyncpg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://").replace("sslmode=", "ssl=")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("postgres://u:p@h/d", "u:p@h:5432/d?ssl=require"),
        ("postgresql://u:p@h:6432/d", "u:p@h:6432/d?ssl=require"),
        ("postgresql://u:p@[2001:db8::1]:6432/d", "u:p@[2001:db8::1]:6432/d?ssl=require"),
        ("postgresql://u%40t:p%2Fw%3A@h/d?sslmode=require", "u%40t:p%2Fw%3A@h:5432/d?ssl=require"),
        ("postgres://u:p@h/d?sslmode=disable", "u:p@h:5432/d?ssl=disable"),
        ("postgres://u:p@h/d?sslmode=require&channel_binding=prefer", "u:p@h:5432/d?ssl=require"),
    ],
)
def test_a_database_url_becomes_sqlalchemys_for_asyncpg(given: str, made: str) -> None:
    assert managed.asyncpg_url(given, ca=False) == f"postgresql+asyncpg://{made}", (
        "asyncpg takes each other parameter for an unknown argument"
    )


OTHER = CERTIFICATE.replace("MIIB", "MIIC")


def with_authorities() -> tuple[str, Config]:
    stack, values = case_config("managed")
    url = DATABASE_URL.replace("sslmode=require", "sslmode=verify-full")
    given = {"managedDatabaseUrl": url, "managedDatabaseCa": CERTIFICATE, "managedRedisCa": OTHER}
    return stack, merged(values, given)


def test_a_certificate_that_is_left_of_a_managed_server_reaches_no_part() -> None:
    stack, values = case_config("staging")
    recording = record(stack, merged(values, {"managedDatabaseCa": CERTIFICATE, "managedRedisCa": OTHER}))
    command = recording.containers()["redis-exporter"].inputs["command"]
    assert not [word for word in command if "tls" in word], "it would ask for a file that is not there, and end"
    for part in ("api-1", "backup", "postgres-exporter", "redis-exporter"):
        assert not [name for name in files_of(recording, part) if name.endswith(".pem")], part


def test_what_a_person_has_set_of_a_managed_redis_stays() -> None:
    stack, values = case_config("managed")
    recording = record(stack, merged(values, {"worker": {"environment": {"REDIS_DB": "2"}}}))
    assert variables_of(recording, "worker")["REDIS_DB"] == "2", "the queue would move without a word"


def test_the_certificates_of_managed_servers_reach_each_part_that_asks_them() -> None:
    recording = record(*with_authorities())
    api = files_of(recording, "api-1")
    assert (api["managed_database_ca.pem"], api["managed_redis_ca.pem"]) == (CERTIFICATE, OTHER)
    variables = variables_of(recording, "api-1")
    assert variables["PGSSLROOTCERT"] == "/run/secrets/managed_database_ca.pem", "asyncpg looks nowhere else"
    assert variables["REDIS_CA_FILE"] == "/run/secrets/managed_redis_ca.pem"
    assert files_of(recording, "postgres-exporter")["managed_database_ca.pem"] == CERTIFICATE
    assert files_of(recording, "backup")["managed_database_ca.pem"] == CERTIFICATE
    assert files_of(recording, "redis-exporter")["managed_redis_ca.pem"] == OTHER
    command = recording.containers()["redis-exporter"].inputs["command"]
    assert "--tls-ca-cert-file=/etc/samokoder/managed_redis_ca.pem" in command


def test_the_exporters_ask_managed_servers_with_the_decoded_password() -> None:
    recording = record_case("managed")
    assert files_of(recording, "postgres-exporter") == {
        "uri": "db.example.org:6432/samokoder?sslmode=require&connect_timeout=4",
        "user": "app@team",
        "password": DATABASE_PASSWORD,
    }
    address = "rediss://cache.example.org:6380"
    assert json.loads(files_of(recording, "redis-exporter")["passwords.json"]) == {
        "rediss://default@cache.example.org:6380": REDIS_PASSWORD
    }
    variables = variables_of(recording, "redis-exporter")
    assert (variables["REDIS_ADDR"], variables["REDIS_USER"]) == (address, "default")


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("postgres://u:p@h/d", "h:5432/d?sslmode=require&connect_timeout=4"),
        (
            "postgres://u:p@[::1]:6432/d",
            "[::1]:6432/d?sslmode=verify-full&sslrootcert=/etc/samokoder/managed_database_ca.pem&connect_timeout=4",
        ),
        ("postgres://u:p@h/d%20e?sslmode=require", "h:5432/d%20e?sslmode=require&connect_timeout=4"),
    ],
)
def test_the_exporter_of_a_managed_database_encrypts_unless_told_otherwise(url: str, uri: str) -> None:
    assert postgres_exporter.managed_uri(url, 4, ca="verify" in uri) == uri


def test_a_managed_redis_without_a_port_is_asked_at_its_usual_one() -> None:
    assert redis_exporter.managed_address("redis://:p@h/0") == "redis://h:6379"
    assert redis_exporter.managed_address("rediss://:p@[::1]:6380/0") == "rediss://[::1]:6380"
    assert json.loads(redis_exporter.managed_passwords("redis://:p%22%5C@h")) == {"redis://default@h:6379": 'p"\\'}
    made = json.loads(redis_exporter.managed_passwords("redis://a%40b%2Fc$:p@h"))
    assert made == {"redis://a%40b%2Fc$@h:6379": "p"}, "the exporter looks it up under the address as Go writes it"


def test_the_local_exporters_password_file_is_by_the_address_they_ask() -> None:
    recording = record_case("staging")
    passwords = json.loads(files_of(recording, "redis-exporter")["passwords.json"])
    variables = variables_of(recording, "redis-exporter")
    address = variables["REDIS_ADDR"].replace("://", f"://{variables['REDIS_USER']}@")
    assert passwords == {address: recording.secrets["secret-redis-exporter"]}
    files = files_of(recording, "postgres-exporter")
    assert {name: files[name] for name in ("uri", "user", "password")} == {
        "uri": "postgres:5432/samokoder?sslmode=disable&connect_timeout=4",
        "user": "samokoder_monitoring",
        "password": recording.secrets["secret-postgres-exporter"],
    }


def test_a_managed_server_has_no_container_volume_or_role_of_ours() -> None:
    recording = record_case("managed")
    assert not recording.containers().keys() & {"postgres", "postgres-roles", "redis"}
    assert {"postgres-exporter", "redis-exporter"} <= recording.containers().keys(), "it is watched all the same"


# PostgreSQL's password verifiers.


# The exchange of RFC 7677, section 3: user "user", password "pencil".
RFC_SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
RFC_NONCE = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_EXCHANGE = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={RFC_NONCE},s={RFC_SALT},i=4096,c=biws,r={RFC_NONCE}"
RFC_PROOF = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
RFC_SERVER_SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def client(password: str, salt: str, exchange: str) -> tuple[str, str]:
    """A client's side of RFC 5802: the proof that it sends, and the signature that it expects of the server."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(salt), 4096)
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), exchange.encode(), "sha256")
    proof = bytes(ours ^ theirs for ours, theirs in zip(key, signature, strict=True))
    expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), exchange.encode(), "sha256")
    return b64encode(proof).decode(), b64encode(expected).decode()


def server(verifier: str, proof: str, exchange: str) -> str | None:
    """A server's side with nothing but the verifier: its signature, or None where the proof is wrong."""
    stored, key = (b64decode(text) for text in verifier.rpartition("$")[2].split(":"))
    signature = hmac.digest(stored, exchange.encode(), "sha256")
    client_key = bytes(ours ^ theirs for ours, theirs in zip(b64decode(proof), signature, strict=True))
    if hashlib.sha256(client_key).digest() != stored:
        return None
    return b64encode(hmac.digest(key, exchange.encode(), "sha256")).decode()


def test_this_files_client_is_that_of_rfc_7677() -> None:
    assert client("pencil", RFC_SALT, RFC_EXCHANGE) == (RFC_PROOF, RFC_SERVER_SIGNATURE)


@pytest.mark.parametrize("password", ["pencil", secret_value("password"), "p@ss:w/rd"])
def test_the_right_password_opens_a_verifier_and_no_other_does(password: str) -> None:
    verifier = postgres_roles.scram_verifier(password, "salt")
    salt = verifier.split("$")[1].partition(":")[2]
    proof, expected = client(password, salt, RFC_EXCHANGE)
    assert server(verifier, proof, RFC_EXCHANGE) == expected, "PostgreSQL would refuse the right password"
    wrong, _ = client(password + "x", salt, RFC_EXCHANGE)
    assert server(verifier, wrong, RFC_EXCHANGE) is None


def test_a_verifier_has_postgresqls_form_and_not_the_password() -> None:
    password = secret_value("password")
    verifier = postgres_roles.scram_verifier(password, "salt")
    assert re.fullmatch(r"SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=", verifier)
    assert password not in verifier
    assert verifier == postgres_roles.scram_verifier(password, "salt"), "each `up` would apply the roles anew"
    assert verifier != postgres_roles.scram_verifier(password, "pepper")
    assert verifier.split("$")[1] != postgres_roles.scram_verifier(password + "x", "salt").split("$")[1], (
        "one salt for two"
    )


# Redis' users.


def test_redis_users_are_known_by_a_hash_and_can_do_no_more_than_they_need() -> None:
    users: dict[str, list[str]] = {}
    commands = redis_users.users_commands(
        app=["app-password"], exporter="exporter-password", backup="backup-password", login=True
    )
    for line in (redis.seed_acl("keeper-password") + commands.replace("ACL SETUSER", "user")).splitlines():
        if line == "ACL SAVE":
            continue
        keyword, name, *rules = line.split()
        assert keyword == "user"
        users[name] = [*users.get(name, []), *rules]
    assert users.keys() == {"default", redis.APP_USER, redis.EXPORTER_USER, redis.BACKUP_USER, redis.KEEPER_USER}
    read_as = ["off", "resetpass", "~*", "&*", "+@all"]
    assert users["default"] == [*read_as, "off", "resetpass"], "Redis reads its file as it; nobody logs in"
    for user, password in (
        (redis.APP_USER, "app-password"),
        (redis.EXPORTER_USER, "exporter-password"),
        (redis.BACKUP_USER, "backup-password"),
        (redis.KEEPER_USER, "keeper-password"),
    ):
        assert f"#{hashlib.sha256(password.encode()).hexdigest()}" in users[user]
        assert password not in " ".join(users[user])
        assert "nopass" not in users[user]
    app = users[redis.APP_USER]
    assert app.index("+@all") < app.index("-@admin") < app.index("-@dangerous"), "the last rule wins"
    for user in (redis.EXPORTER_USER, redis.BACKUP_USER, redis.KEEPER_USER):
        assert "-@all" in users[user]
        assert not any(rule.startswith("~") for rule in users[user]), f"{user} needs no key of anybody"


# Health checks and images.


def described(case: str) -> dict[str, ServiceSpec]:
    return {spec.part: spec for spec in specs(case_environment(case))}


def test_the_reference_application_is_asked_whether_it_is_ready_and_a_teams_image_whether_it_lives() -> None:
    for case, path in (("staging", "/ready"), ("prod", "/health")):
        for part in ("api-1", "api-2"):
            assert f"http://127.0.0.1:8000{path}'" in described(case)[part].health_command[2], f"{case}, {part}"


@pytest.mark.parametrize("case", CASES)
def test_every_part_that_is_scraped_says_where_and_the_others_say_why_not(case: str) -> None:
    for spec in described(case).values():
        reason = getattr(spec.scrape, "reason", None)
        if reason is None:
            assert spec.scrape.port > 0  # type: ignore[union-attr]
        else:
            assert reason.strip(), f"{spec.part} is not scraped, and nobody knows why"


@pytest.mark.parametrize("case", CASES)
def test_every_image_that_is_pulled_is_pinned_and_declared_once(case: str) -> None:
    recording = record_case(case)
    images = {resource.inputs["name"]: resource for resource in recording.resources if "remoteImage" in resource.type}
    for part, container in recording.containers().items():
        image = container.inputs["image"]
        assert image in images, f"{part}: an image that nobody pulls is pulled after the old container is gone"
        assert images[image].urn in container.dependencies
    for name, image in images.items():
        assert image.inputs["keepLocally"] is True, "the old image is the way back"
        assert image.delete_before_replace is False
        assert image.inputs.get("build") or parse_reference(str(name)).is_pinned


def test_a_files_text_is_never_empty() -> None:
    for case in CASES:
        for spec in described(case).values():
            empty = [path for path, content in spec.files.items() if not isinstance(content, Template) and not content]
            assert not empty, "the provider refuses an empty upload"


def test_postgresql_takes_its_memory_from_the_limit() -> None:
    text = postgres.postgresql_conf(1024, 50, 2048)
    assert "shared_buffers = 256MB" in text
    assert "effective_cache_size = 512MB" in text
    assert "max_connections = 50" in text
    assert "max_slot_wal_keep_size = 2048MB" in text, "a backup server that is away would fill the disk"


def test_only_named_roles_reach_the_database_and_all_of_them_with_a_password() -> None:
    rules = [line.split() for line in postgres.pg_hba_conf("db", "owner").splitlines() if not line.startswith("#")]
    assert rules == [
        ["local", "all", "owner", "peer", "map=owner"],
        ["local", "db", "samokoder_app,samokoder_app_b,samokoder_monitoring", "peer", "map=owner"],
        ["host", "db", "samokoder_app", "samenet", "scram-sha-256"],
        ["host", "db", "samokoder_app_b", "samenet", "scram-sha-256"],
        ["host", "db", "samokoder_monitoring", "samenet", "scram-sha-256"],
        ["host", "db", "samokoder_backup", "samenet", "scram-sha-256"],
        ["host", "samokoder_backup", "samokoder_backup", "samenet", "scram-sha-256"],
        ["host", "replication", "samokoder_backup", "samenet", "scram-sha-256"],
        ["host", "all", "owner", "samenet", "scram-sha-256"],
    ]


def test_the_urls_of_this_file_are_as_awkward_as_they_can_be() -> None:
    assert set("@/:%") <= set(DATABASE_PASSWORD)
    assert set("@/#") <= set(REDIS_PASSWORD)
    assert urlsplit(DATABASE_URL).hostname == "db.example.org"
    assert urlsplit(REDIS_URL).hostname == "cache.example.org"
