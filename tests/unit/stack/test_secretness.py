from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

import pytest
from pydantic.alias_generators import to_camel

from stack.common.secret_rules import CONFIGURED_SECRETS
from stack.settings.rotation import Rotation
from stack.spec.files import Template
from stack.spec.rotation import SLOTTED
from stack.spec.secrets import GENERATED as GENERATED_SECRETS
from stack.spec.secrets import WEB_PASSWORDS, bcrypt_of, secret_names
from tests.described import specs
from tests.recording import (
    CASES,
    CONTAINER,
    DATABASE_PASSWORD,
    GENERATED,
    REDIS_PASSWORD,
    Leaf,
    Recording,
    record,
    record_case,
)

# Part -> the variables that hold a secret themselves, because somebody asked for it or the image reads nothing else.
OPTED_IN = {
    "opted-in": {
        # The migrations run with all that the API has.
        **{part: {"SECRET_KEY", "SAMOKODER_DATABASE_URL"} for part in ("migrations", "api-1", "api-2")},
        "worker": {"REDIS_PASSWORD"},
    },
}
# Part -> what comes out of the secret URL of a managed Redis and is no password: nobody need be warned of it.
ADDRESSES = {
    "managed": {
        "redis-exporter": {"REDIS_ADDR", "REDIS_USER"},
        **{
            part: {f"REDIS_{name}" for name in ("HOST", "PORT", "USERNAME", "DB", "TLS")}
            for part in ("migrations", "api-1", "api-2", "worker")
        },
    },
}


def known_variables(case: str, part: str) -> set[str]:
    """The variables of a part that come from a secret, and may."""
    return {name for table in (OPTED_IN, ADDRESSES) for name in table.get(case, {}).get(part, set())}


def values_that_must_not_be_seen(recording: Recording) -> set[str]:
    """Every secret, and what a password looks like in a URL and out of it."""
    values = set(recording.secrets.values())
    if "managedDatabaseUrl" in recording.secrets:
        values |= {DATABASE_PASSWORD, REDIS_PASSWORD}
    return values | {quote(value, safe="") for value in values} | {unquote(value) for value in values}


def all_leaves(recording: Recording) -> Iterator[tuple[str, Leaf]]:
    for resource in recording.resources:
        for leaf in resource.leaves:
            yield f"{resource.type} {resource.name}", leaf
    for leaf in recording.component_outputs:
        yield "component's output", leaf


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_in_plain_text_anywhere_in_the_state(case: str) -> None:
    recording = record_case(case)
    hidden = values_that_must_not_be_seen(recording)
    assert len(hidden) > 5, "there is nothing to look for"
    seen = [
        f"{where}: {leaf.path}"
        for where, leaf in all_leaves(recording)
        if not leaf.secret and any(value in str(leaf.value) for value in hidden)
    ]
    assert not seen, f"the state, the preview and docker inspect would show a secret in {seen}"


@pytest.mark.parametrize("case", CASES)
def test_a_secret_travels_only_in_the_content_of_a_carriers_file(case: str) -> None:
    recording = record_case(case)
    for resource in recording.resources:
        known = known_variables(case, resource.name)
        for leaf in resource.leaves:
            if not leaf.secret:
                continue
            in_file = resource.inputs.get("start") is False and re.fullmatch(r"uploads\[\d+\]\.content", leaf.path)
            in_environment = re.fullmatch(r"envs\[\d+\]", leaf.path) and leaf.value.partition("=")[0] in known
            assert resource.type == CONTAINER, f"{resource.name} has a secret in {leaf.path}"
            assert in_file or in_environment, f"{resource.name}: the engine shows {leaf.path} to everybody who may ask"


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_a_secret_exactly_when_it_is_made_from_one(case: str) -> None:
    recording = record_case(case)
    for spec in specs(recording.environment):
        if not spec.files:
            continue
        carrier = recording.carriers()[spec.part]
        secret = {leaf.path: leaf.secret for leaf in carrier.leaves}
        uploads = {upload["file"]: index for index, upload in enumerate(carrier.inputs["uploads"])}
        assert uploads.keys() == {f"/files/{path}" for path in spec.files}, f"{spec.part} has other files than it says"
        for path, content in spec.files.items():
            is_secret = secret[f"uploads[{uploads[f'/files/{path}']}].content"]
            assert is_secret == isinstance(content, Template), (
                f"{spec.part}/{path}: a secret in plain text, or a plain file that a preview hides"
            )


@pytest.mark.parametrize("case", CASES)
def test_every_secret_reaches_the_file_of_who_needs_it(case: str) -> None:
    recording = record_case(case)
    contents = {part: "\n".join(u["content"] for u in c.inputs["uploads"]) for part, c in recording.carriers().items()}
    for spec in specs(recording.environment):
        for path, content in spec.files.items():
            if isinstance(content, Template) and content.render is str:
                (need,) = content.needs
                key = GENERATED_SECRETS[need].configured if need in GENERATED_SECRETS else need
                value = recording.secrets.get(key) or recording.secrets[f"secret-{need.replace('_', '-')}"]
                assert value in contents[spec.part], f"{spec.part}/{path} does not have the value of {need}"


@pytest.mark.parametrize("case", CASES)
def test_no_exported_output_is_or_has_a_secret(case: str) -> None:
    recording = record_case(case)
    assert not recording.secret_outputs, "an exported secret is one command away from a screen"
    text = json.dumps(recording.outputs)
    assert not [value for value in values_that_must_not_be_seen(recording) if value in text]


@pytest.mark.parametrize("case", CASES)
def test_nothing_that_is_logged_has_a_secret(case: str) -> None:
    recording = record_case(case)
    text = "\n".join(message for _, message in recording.log)
    assert not [value for value in values_that_must_not_be_seen(recording) if value in text]


@pytest.mark.parametrize("case", CASES)
def test_no_value_is_an_outputs_warning_asterisks_or_a_python_object(case: str) -> None:
    wrong = re.compile(
        r"Calling __str__ on an Output|\*{3,}|<[\w.]+ object at 0x|SecretInput\(|Output\[|\bNone\b.*\bat 0x"
    )
    seen = [f"{where}: {leaf.path}" for where, leaf in all_leaves(record_case(case)) if wrong.search(str(leaf.value))]
    assert not seen, f"text that Python made of an object, in place of its value: {seen}"


@pytest.mark.parametrize("case", CASES)
def test_a_generated_secret_is_long_and_made_of_letters_and_digits(case: str) -> None:
    for password in record_case(case).of_type(GENERATED):
        key = password.name.removeprefix("secret-").replace("-", "_")
        minimum = 64 if key in ("secret_key", "app_secret_key") else 32
        assert password.inputs["length"] >= minimum, f"{key} is too short"
        assert password.inputs["special"] is False, f"{key} would have to be quoted, differently in each place"
        assert not password.inputs.get("overrideSpecial")
        assert password.inputs["keepers"] == {"generation": "1"}


def test_the_two_keys_of_the_application_are_different_secrets() -> None:
    recording = record_case("staging")
    values = [recording.secrets[f"secret-{name}"] for name in ("secret-key", "app-secret-key")]
    assert values[0] != values[1]
    files = {u["file"]: u["content"] for u in recording.carriers()["api-1"].inputs["uploads"]}
    assert [files["/files/secret_key"], files["/files/app_secret_key"]] == values


def test_rotation_changes_what_rotates_and_nothing_else() -> None:
    rotating = {name for name, secret in GENERATED_SECRETS.items() if secret.rotates}
    before = record("staging", {"basicAuth": "always"}).secrets
    after = record("staging", {"basicAuth": "always", "rotation": {to_camel(name): 2 for name in rotating}}).secrets
    changed = {key for key in before if before[key] != after[key]}
    # That one rotation changes one secret: the cases of test_volumes.py. Of those with two slots none changes.
    assert changed == {f"secret-{name.replace('_', '-')}" for name in rotating - set(SLOTTED)}
    assert after.keys() - before.keys() == {f"secret-{name.replace('_', '-')}-b" for name in SLOTTED}
    assert rotating == Rotation.model_fields.keys(), "a generation that nothing reads"


def test_what_opens_a_volume_never_rotates() -> None:
    fixed = {name for name, secret in GENERATED_SECRETS.items() if not secret.rotates}
    assert fixed == {
        "salt",
        "postgres_superuser",
        "grafana_secret_key",
        "redis_keeper",
        "backup_encryption_key",
        "workspace_backup",
    }, (
        "the superuser's password and Grafana's key are in a volume already: a new value would open nothing; and a "
        "new one of a keeper would restart what it keeps"
    )


def test_a_configured_key_takes_the_place_of_the_generated_one() -> None:
    recording = record_case("email-and-keys")
    generated = {password.name for password in recording.of_type(GENERATED)}
    assert "secret-secret-key" not in generated, "two values for one secret"
    assert {"secret-app-secret-key", "secret-postgres-superuser"} <= generated, "they open what was made before"
    files = {u["file"]: u["content"] for u in recording.carriers()["api-1"].inputs["uploads"]}
    assert files["/files/secret_key"] == recording.secrets["secretKey"]
    assert files["/files/app_secret_key"] == recording.secrets["appSecretKey"], "new data is under the configured one"
    assert files["/files/openai_api_key"] == recording.secrets["openaiApiKey"]
    database = {u["file"]: u["content"] for u in recording.carriers()["postgres"].inputs["uploads"]}
    assert database["/files/superuser_password"] == recording.secrets["postgresSuperuserPassword"]


def test_a_managed_server_leaves_no_local_password_behind() -> None:
    generated = {password.name for password in record_case("managed").of_type(GENERATED)}
    assert generated == {
        "secret-salt",
        "secret-secret-key",
        "secret-app-secret-key",
        "secret-grafana-admin",
        "secret-grafana-secret-key",
        "secret-prometheus-web",
        "secret-alertmanager-web",
        "secret-logs-web",
        # They open what was there before the servers were managed ones, and copies of it elsewhere.
        *("secret-postgres-superuser", "secret-redis-keeper", "secret-backup-encryption-key"),
    }, "a password that nothing checks is only there to be stolen"


@pytest.mark.parametrize("case", CASES)
def test_the_secrets_of_an_environment_are_those_that_its_files_need(case: str) -> None:
    environment = record_case(case).environment
    needed = {"salt"}
    for spec in specs(environment):
        templates = [*spec.files.values(), *spec.secret_environment.values()]
        needed |= {need for template in templates if isinstance(template, Template) for need in template.needs}
    needed -= {bcrypt_of(secret) for secret in WEB_PASSWORDS}  # made with the password
    known = set(secret_names(environment))
    assert needed <= known, "a file needs a secret that there is not"
    unused = known - needed
    gone = {"grafana_admin", "grafana_secret_key"} if "grafana" in environment.absent else set()
    in_place_of_generated = {secret.configured for secret in GENERATED_SECRETS.values()}
    assert unused <= gone | in_place_of_generated, f"secrets that reach nobody: {unused}"
    listed = set(environment.settings.application_secrets)
    assert known <= GENERATED_SECRETS.keys() | CONFIGURED_SECRETS.keys() | listed


@pytest.mark.parametrize("case", CASES)
def test_a_secret_is_in_the_environment_only_where_asked_for_and_the_preview_warns(case: str) -> None:
    recording = record_case(case)
    warned = {
        (match[1], match[2])
        for _, message in recording.log
        if (match := re.match(r"samokoder:(\w+)\.secretsInEnvironment: (\w+) is in the environment", message))
    }
    settings = {"api-1": "api", "worker": "worker"}
    asked = {
        (settings[part], name) for part, names in OPTED_IN.get(case, {}).items() for name in names if part in settings
    }
    assert warned == asked, "what is readable by everybody who may ask the engine must be said, and nothing else"
    for part, container in recording.containers().items():
        secret = {
            leaf.value.partition("=")[0] for leaf in container.leaves if leaf.path.startswith("envs") and leaf.secret
        }
        assert secret == known_variables(case, part), f"{part} has other secrets in its environment"


def test_an_opted_in_secret_is_no_file_any_more_and_the_others_stay() -> None:
    recording = record_case("opted-in")
    files = {u["file"].removeprefix("/files/") for u in recording.carriers()["api-1"].inputs["uploads"]}
    assert files == {"app_secret_key", "redis_password"}, "the same secret in two places is found in two places"
    variables = dict(line.split("=", 1) for line in recording.containers()["api-1"].inputs["envs"])
    assert variables["SECRET_KEY"] == recording.secrets["secret-secret-key"]
    assert "SECRET_KEY_FILE" not in variables
    assert "APP_SECRET_KEY_FILE" in variables
