"""A stack file that has another key for the stored data than the one in use is refused, with what to do."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations.errors import ProjectError
from operations.lifecycle import up as lifecycle_up
from operations.workspace.pulumi_state import SECRET_MARK
from operations.workspace.workspace import Workspace
from stack.common.secret_rules import fernet_key
from stack.spec.rotation import label
from stack.spec.secrets import GENERATED, mark_of
from tests.recording import environment_of, record, record_case, secret_value

CONFIGURABLE = {secret: generated.configured for secret, generated in GENERATED.items() if generated.configured}
OFFSITE: dict[str, Any] = {
    "backup": {"offsite": {"endpoint": "https://s3.example.org", "bucket": "samokoder", "region": "eu-central-1"}},
    "s3AccessKeyId": secret_value("id", 20),
    "s3SecretAccessKey": secret_value("key"),
}
OWN, OTHER, MADE = (secret_value(name, 86) for name in ("own", "other", "generated"))


def state(
    origins: dict[str, str] | None,
    *,
    data: bool = True,
    marks: dict[str, str] | None = None,
    form: str = "",
    plain: bool = False,
) -> dict[str, Any]:
    """The state after an `up`. origins: what it noted; None: it was of a version that noted nothing. marks: likewise.

    form: of the generated APP_SECRET_KEY; empty: it was of a version that noted none.

    plain: as it is exported with its secrets.
    """
    outputs: dict[str, Any] = {"inUse": {}, "phases": {}} | ({} if origins is None else {"keptOrigins": origins})
    if form:
        outputs["keptForms"] = {"app-secret-key": form}
    if marks is not None:
        outputs["keptMarks"] = {
            is_: {SECRET_MARK: "…", **({"plaintext": json.dumps(mark)} if plain else {"ciphertext": "v1:x"})}
            for is_, mark in marks.items()
        }
    resources: list[dict[str, Any]] = [{"type": "samokoder:platform:Secrets", "urn": "u::secret", "outputs": outputs}]
    if data:
        volume = {"type": "docker:index/volume:Volume", "urn": "u::data-postgres", "outputs": {"name": "postgres"}}
        resources.append(volume)
    return {"resources": resources}


def refused(there: dict[str, Any], *, other_key: str = "", opened: Any = None, **config: Any) -> str:
    """What is said where an `up` with this configuration meets the state; empty: it goes on.

    opened: the state with its secrets, where it is asked for.
    """
    environment = environment_of("staging", config)
    workspace = SimpleNamespace(
        settings=lambda: environment,
        committed_file=SimpleNamespace(name="Pulumi.staging.yaml"),
        committed=dict,
        variables={"OTHER_KEY": other_key},
        typed=lambda words: f"make {words}",
    )
    run = SimpleNamespace(
        deployment=lambda: there,
        in_plain=lambda: opened,
        secrets=lambda **_: dict.fromkeys(map(label, CONFIGURABLE), MADE),
        configuration=lambda: {f"samokoder:{key}": {"value": value} for key, value in config.items()},
    )
    said = ""
    try:
        lifecycle_up.refuse_undoing(cast("Workspace", workspace), cast("Any", run))
    except ProjectError as error:
        said = str(error)
    assert OWN not in said
    assert OTHER not in said
    assert MADE not in said
    return said


@pytest.mark.parametrize(("secret", "key"), CONFIGURABLE.items())
def test_a_key_is_not_changed_for_the_generated_one_nor_the_generated_one_for_a_key(secret: str, key: str) -> None:
    configured, generated = state({label(secret): "configured"}), state({label(secret): "generated"})
    said = refused(configured, **OFFSITE)
    assert f"ARGS='config set --secret samokoder:{key}'" in said, "what is stored could not be read"
    assert "merge the commit" in said, "the file of a colleague has it"
    assert f"OTHER_KEY={label(secret)} make up" in said, "who means it has a way"
    assert f"ARGS='config rm samokoder:{key}'" in refused(generated, **OFFSITE, **{key: OWN})
    assert not refused(configured, **OFFSITE, **{key: OWN})
    assert not refused(generated, **OFFSITE)


@pytest.mark.parametrize(("secret", "key"), CONFIGURABLE.items())
def test_who_names_the_secret_changes_it_and_no_other(secret: str, key: str) -> None:
    there = state({label(secret): "generated"})
    assert not refused(there, other_key=label(secret), **OFFSITE, **{key: OWN})
    assert refused(there, other_key="redis-app", **OFFSITE, **{key: OWN})


@pytest.mark.parametrize(("secret", "key"), CONFIGURABLE.items())
def test_another_configured_key_is_refused_unless_it_is_named(secret: str, key: str) -> None:
    name = label(secret)
    noted: dict[str, Any] = {"origins": {name: "configured"}, "marks": {name: mark_of(secret, OWN)}}
    there, opened = state(**noted), state(**noted, plain=True)
    said = refused(there, opened=opened, **OFFSITE, **{key: OTHER})
    assert f"the file has another one (samokoder:{key})" in said, "what is stored could not be read, without a word"
    assert "also of one that failed" in said, "API and worker may have the one before, which the file then has"
    assert f"OTHER_KEY={name} make up" in said, "who means it types one line"
    assert f"ARGS='config set --secret samokoder:{key}'" in said
    assert "config rm" not in said, "the generated one opens it as little"
    assert not refused(there, opened=opened, other_key=name, **OFFSITE, **{key: OTHER})
    assert not refused(there, opened=opened, **OFFSITE, **{key: OWN})


def test_another_configured_key_passes_where_nothing_is_stored_or_no_mark_is_noted() -> None:
    origins = {"app-secret-key": "configured"}
    assert not refused(state(origins), appSecretKey=OTHER), "the state is of an earlier version"
    noted: dict[str, Any] = {"marks": {"app-secret-key": mark_of("app_secret_key", OWN)}, "data": False}
    assert not refused(state(origins, **noted), opened=state(origins, **noted, plain=True), appSecretKey=OTHER)


def test_the_state_is_not_opened_where_no_such_key_is_configured() -> None:
    assert not refused(state({"app-secret-key": "generated"}, marks={})), "an `up` without one takes no second longer"


def test_the_program_notes_a_mark_of_each_configured_key_as_a_secret() -> None:
    recording = record_case("email-and-keys")
    start = "secret.keptMarks."
    marks = {leaf.path.removeprefix(start): leaf for leaf in recording.component_outputs if start in leaf.path}
    assert marks.keys() == {"app-secret-key", "postgres-superuser", "secret-key"}
    assert all(leaf.secret for leaf in marks.values()), "a weak key could be guessed from it"
    for secret in ("app_secret_key", "postgres_superuser"):
        assert marks[label(secret)].value == mark_of(secret, recording.secrets[GENERATED[secret].configured])
    assert mark_of("app_secret_key", OWN) != mark_of("postgres_superuser", OWN), "equal values must not show"


@pytest.mark.parametrize(("there", "wanted"), [("fernet", "text"), ("text", "fernet")])
def test_the_generated_key_is_not_used_in_another_form(there: str, wanted: str) -> None:
    origins = {"app-secret-key": "generated"}
    said = refused(state(origins, form=there), appSecretKeyForm=wanted)
    assert f"ARGS='config set samokoder:appSecretKeyForm {there}'" in said, "an older commit has another key, unseen"
    assert "merge the commit that has samokoder:appSecretKeyForm" in said
    assert "OTHER_KEY=app-secret-key make up" in said, "who means it types one line"
    assert not refused(state(origins, form=there), appSecretKeyForm=wanted, other_key="app-secret-key")
    assert not refused(state(origins, form=there), appSecretKeyForm=there)
    assert not refused(state(origins), appSecretKeyForm=wanted), "an earlier version did not note it: it may be either"
    assert not refused(state(origins, form=there, data=False), appSecretKeyForm=wanted), "nothing is stored yet"


def test_the_generated_key_may_be_configured_only_in_the_form_in_which_it_is_used() -> None:
    there = state({"app-secret-key": "generated"}, form="fernet")
    assert not refused(there, appSecretKey=fernet_key(MADE)), "the file has the very key that is used"
    assert refused(there, appSecretKey=MADE), "the same secret, and another key"


def test_a_signing_key_that_comes_back_may_have_leaked() -> None:
    for there in (state({"secret-key": "generated"}), state({"secret-key": "configured"})):
        config: dict[str, Any] = {"secretKey": OWN} if "generated" in str(there) else {}
        said = refused(there, **config)
        assert "which may have leaked, would be good again" in said
        assert "could not be opened" not in said, "nothing is stored with it"
        assert "OTHER_KEY=secret-key make up" in said


def test_several_keys_are_told_at_once_and_with_one_line_for_all() -> None:
    there = state({"app-secret-key": "configured", "postgres-superuser": "configured"})
    said = refused(there)
    assert "samokoder:appSecretKey" in said
    assert "samokoder:postgresSuperuserPassword" in said
    assert "OTHER_KEY='app-secret-key postgres-superuser' make up" in said
    assert not refused(there, other_key="app-secret-key postgres-superuser")


def test_a_key_passes_where_nothing_is_stored_yet_or_the_state_does_not_say() -> None:
    for there in ({}, state(None), state({"app-secret-key": "generated"}, data=False)):
        assert not refused(there, appSecretKey=OWN), "as before the first `up`, after `import-compose --keys`"


def test_the_first_off_site_copy_may_have_a_key_of_its_own() -> None:
    assert not refused(state({"app-secret-key": "generated"}), **OFFSITE, backupEncryptionKey=OWN), "no copy is there"


def test_the_generated_key_itself_may_be_configured_to_have_it_elsewhere_too() -> None:
    there = state({"app-secret-key": "generated"})
    assert not refused(there, appSecretKey=MADE), "docs/backup-and-restore.md says to keep it so"
    assert not refused(there, appSecretKeyForm="fernet", appSecretKey=fernet_key(MADE)), "as `make password` shows it"
    assert refused(there, appSecretKeyForm="fernet", appSecretKey=fernet_key(OWN))


def test_the_program_notes_where_each_used_key_comes_from_and_no_value() -> None:
    def noted(recording: Any, output: str = "keptOrigins") -> dict[str, Any]:
        start = f"secret.{output}."
        leaves = {leaf.path: leaf for leaf in recording.component_outputs}
        return {path.removeprefix(start): leaf.value for path, leaf in leaves.items() if path.startswith(start)}

    names = ("app-secret-key", "postgres-superuser", "secret-key")
    assert noted(record("staging", {})) == dict.fromkeys(names, "generated")
    assert noted(record_case("email-and-keys")) == dict.fromkeys(names, "configured")
    assert noted(record("staging", {}), "keptForms") == {"app-secret-key": "text"}
    assert noted(record("staging", {"appSecretKeyForm": "fernet"}), "keptForms") == {"app-secret-key": "fernet"}
    assert not noted(record_case("email-and-keys"), "keptForms"), "a configured one is used as it is"
