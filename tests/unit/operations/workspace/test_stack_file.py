"""The copy of the stack file that Pulumi works with, and what can be read without Pulumi."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from pydantic.alias_generators import to_camel

from operations.errors import ProjectError
from operations.workspace import stack_file, stack_text
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.common.secret_rules import CONFIGURED_SECRETS, SecretInput, check_secrets
from stack.settings.tree import Settings

SALT = "v1:salt:v1:abc:def=="


def test_what_this_machine_adds_never_wins_over_the_committed_file() -> None:
    committed = {"config": {"samokoder:images": {"redis": "mirror.example.org/redis:7"}}}

    result = stack_file.merged(
        committed,
        machine={"samokoder:images": {"redis": "sha256:1", "postgres": "sha256:2"}, "samokoder:host": {"cpus": 4}},
    )

    assert result["config"] == {
        "samokoder:images": {"redis": "mirror.example.org/redis:7", "postgres": "sha256:2"},
        "samokoder:host": {"cpus": 4},
    }, "the team's own image must stay, and what it says nothing about must come from the machine"


def test_extra_configuration_wins_over_the_committed_file_key_by_key() -> None:
    committed = {"config": {"samokoder:ingress": {"port": 8000, "memoryMib": 512}}}

    result = stack_file.merged(committed, machine={}, extra={"samokoder:ingress": {"port": 18000}})

    assert result["config"]["samokoder:ingress"] == {"port": 18000, "memoryMib": 512}, (
        "a test changes a port and leaves the rest of the part as it is"
    )


def test_the_salt_of_an_earlier_run_is_kept() -> None:
    result = stack_file.merged({"config": {}}, machine={}, encryption={"encryptionsalt": SALT})

    assert result["encryptionsalt"] == SALT, "without its salt the state's secrets cannot be read any more"


@pytest.mark.parametrize("own", [{"encryptionsalt": "v1:team"}, {"secretsprovider": "awskms://alias/x"}])
def test_the_encryption_of_the_committed_file_wins_over_an_earlier_salt(own: dict[str, str]) -> None:
    result = stack_file.merged({**own, "config": {}}, machine={}, encryption={"encryptionsalt": SALT})

    assert stack_file.encryption_of(result) == own, "the team's encryption is the one that its secrets are under"


def test_a_key_without_a_namespace_is_the_projects_own() -> None:
    result = stack_file.merged({"config": {"production": True}}, machine={})

    assert result["config"] == {"samokoder:production": True}, "Pulumi reads such a key as the project's"


def test_a_merged_file_survives_being_written_and_read(tmp_path: Path) -> None:
    document = stack_file.merged(
        {"config": {"samokoder:production": True}}, machine={}, encryption={"encryptionsalt": SALT}
    )
    file = tmp_path / "private" / "Pulumi.staging.yaml"

    stack_file.write(file, stack_file.dump(document, source="Pulumi.staging.yaml"))

    assert stack_file.load(file) == document, "what is written must be what Pulumi reads"
    assert file.read_text(encoding="utf-8").startswith("# Made by `samokoder`"), "nobody should edit the copy"


def test_a_written_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "private" / "passphrase"

    stack_file.write(file, "secret")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "the passphrase opens every secret of the state"
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700, "others must not even see what is there"
    assert [path.name for path in file.parent.iterdir()] == ["passphrase"], "nothing unfinished may stay behind"


def test_an_unknown_environment_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    for name in ("staging", "prod"):
        (tmp_path / f"Pulumi.{name}.yaml").write_text("config: {}\n", encoding="utf-8")
    (tmp_path / "Pulumi.yaml").write_text("name: samokoder\n", encoding="utf-8")

    with pytest.raises(ProjectError, match=r"no environment 'stagin'.*prod, staging\."):
        stack_file.committed(tmp_path, "stagin")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("config: [1, 2", "not valid YAML"),
        ("- a list\n", "must be a mapping"),
        ("config: {}\nother: 2026-02-30\n", "day is out of range"),
        ("config: {}\nother: 0x_\n", "invalid literal"),
        ("config: {}\nother: !!timestamp soon\n", "line 2"),
        ("config: {}\nother: !!bool x\n", "line 2"),
        ("config: {}\nother: !!int ''\n", "line 2"),
        ("config: {}\n# ещё\n", "line 2 is not UTF-8"),
        ("config:\n  8000: 1\n", "config.8000"),
        ("config:\n  yes: 1\n", "config.true"),
        ("config:\n  ~: 1\n", "config.null"),
        ("config:\n  samokoder:api: {list: [{2026-11-23: x}]}\n", r"config\.samokoder:api\.list\[0\]\.2026-11-23"),
        ("config: &all\n  samokoder:api: *all\n", "config.samokoder:api contains itself"),
        ("config:\n  samokoder:api: &all [*all]\n", r"config\.samokoder:api\[0\] contains itself"),
        ("config: " + "[" * 5_000, "nested"),
        ("config:\n  samokoder:a: 1\n  samokoder:b: 2\n  samokoder:a: 3\n", "samokoder:a in the lines 2 and 4"),
        ("config:\n  samokoder:a: 1\n  a: 2\n", "samokoder:a in the lines 2 and 3"),
        ("config:\n  samokoder:a: {b: {c: 1,\n c: 2}}\n", r"samokoder:a\.b\.c in the lines 2 and 3"),
        ("config:\n  a: [{b: 1, c: 2}, {b: 1,\n b: 2,\n b: 3}]\n", r"samokoder:a\[1\]\.b in the lines 2, 3 and 4"),
        ("config: {}\nencryptionsalt: v1:a\nencryptionsalt: v1:b\n", "encryptionsalt in the lines 2 and 3"),
        ("config: {}\nconfig: {}\n", "config in the lines 1 and 2"),
        ("config: {a: 1, a: 2, b: 1, b: 2}\n", "samokoder:a in the lines 1 and 1; samokoder:b in the lines 1 and 1"),
    ],
)
def test_a_broken_stack_file_is_a_readable_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "Pulumi.staging.yaml").write_text(text, encoding="cp1251")

    with pytest.raises(ProjectError, match=rf"Pulumi\.staging\.yaml[\s\S]*{says}"):
        stack_file.committed(tmp_path, "staging")


def test_a_stack_file_that_cannot_be_read_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / "machine.staging.yaml").mkdir()

    with pytest.raises(ProjectError, match=r"machine\.staging\.yaml cannot be used: Is a directory"):
        stack_file.load(tmp_path / "machine.staging.yaml")


def test_two_merges_into_one_mapping_are_no_key_twice() -> None:
    text = "x: &a {q: 1}\ny: &b {r: 2}\nz:\n  <<: *a\n  <<: *b\n"
    assert stack_file.load_text(text, "F")["z"] == {"q": 1, "r": 2}, "a valid file would be refused"
    with pytest.raises(ProjectError, match=r"z\.q in the lines 4 and 5"):
        stack_file.load_text("x: &a {r: 1}\nz:\n  <<: *a\n  q: 1\n  q: 2\n", "F")


def test_a_key_that_is_there_twice_is_told_before_a_file_is_changed() -> None:
    text = "config:\n  samokoder:api: {image: a}\n  samokoder:api: {image: b}\n"

    with pytest.raises(ProjectError, match=r"^The stack file has a key twice: samokoder:api in the lines 2 and 3\."):
        stack_text.edited(text, lambda config: config.clear())


def test_a_value_of_a_key_that_is_there_twice_is_not_shown(tmp_path: Path) -> None:
    text = "config:\n  samokoder:smtpPassword: in-plain-text\n  samokoder:smtpPassword: another-one\n"
    (tmp_path / "Pulumi.staging.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(ProjectError) as caught:
        stack_file.committed(tmp_path, "staging")

    assert not {"in-plain-text", "another-one"} & set(str(caught.value).split()), "it may be a secret"


def test_a_merged_mapping_may_say_a_key_anew(tmp_path: Path) -> None:
    text = "config:\n  samokoder:api: &one {cpus: 1, replicas: 2}\n  samokoder:worker: {<<: *one, cpus: 2}\n"
    (tmp_path / "Pulumi.staging.yaml").write_text(text, encoding="utf-8")

    assert stack_file.committed(tmp_path, "staging")["config"]["samokoder:worker"]["cpus"] == 2


SHARED = {
    "a value by an alias": "config:\n  samokoder:api: &own {image: a}\n  samokoder:worker: *own\n",
    "an alias on the other side": "config:\n  samokoder:worker: &own {image: a}\n  samokoder:api: *own\n",
    "a key by a merge": "base: &own {image: a}\nconfig:\n  samokoder:worker: {<<: *own, replicas: 2}\n",
}


@pytest.mark.parametrize("text", SHARED.values(), ids=SHARED)
def test_a_value_that_two_keys_share_is_refused_before_one_of_them_is_changed(text: str) -> None:
    def change(config: Any) -> None:
        stack_text.section(config, "worker").pop("image")

    with pytest.raises(ProjectError) as refused:
        stack_text.edited(text, change, name="Pulumi.prod.yaml")
    for said in ("Pulumi.prod.yaml", "&own", "*own", "Nothing was changed"):
        assert said in str(refused.value), "the other part would get this one's image"


def test_an_anchor_that_a_change_does_not_touch_is_no_hindrance() -> None:
    text = "config:\n  samokoder:api: &own {image: a}\n  samokoder:worker: *own\n"
    written = stack_text.edited(text, lambda config: stack_text.section(config, "rotation").update(redisApp=2))
    assert written.startswith(text)
    assert "redisApp: 2" in written


def test_one_mapping_in_two_places_is_no_mistake(tmp_path: Path) -> None:
    text = "config:\n  samokoder:api: &one {environment: {A: x}}\n  samokoder:worker: *one\n"
    (tmp_path / "Pulumi.staging.yaml").write_text(text, encoding="utf-8")

    config = stack_file.committed(tmp_path, "staging")["config"]

    assert config["samokoder:worker"] == config["samokoder:api"]


def test_a_value_that_yaml_takes_for_something_else_is_a_mistake_with_what_to_write() -> None:
    config = yaml.safe_load(
        "samokoder:api: {environment: {RELEASE: 2026-11-23, KEY: !!binary aGVsbG8=}, cpus: none}\n"
        "samokoder:smtpPassword: 1999-12-31\nsamokoder:redis: {image: !!set {A}}"
    )

    with pytest.raises(InvalidSettingsError) as caught:
        stack_file.read("staging", {"config": config})

    found = {mistake.key: mistake for mistake in caught.value.mistakes}
    assert found["samokoder:api.environment.RELEASE"].example == 'samokoder:api.environment.RELEASE: "2026-11-23"'
    assert not {"hello", "1999"} & set(re.findall(r"\w+", str(caught.value))), "they may be secrets"
    assert {"samokoder:api.environment.KEY", "samokoder:smtpPassword", "samokoder:api.cpus"} <= found.keys(), (
        "all mistakes at once"
    )


STRUCTURED = {
    to_camel(name): list if get_origin(field.annotation) is list else dict
    for name, field in Settings.model_fields.items()
    if not isinstance(field.get_default(call_default_factory=True), (str, int, float))
}


@pytest.mark.parametrize(
    "value", ["secretKey=2", "", '{"secretKey": 2}', "{}", "[]", "- a", 2, True, None, [1], {"x": 1}]
)
@pytest.mark.parametrize("name", STRUCTURED)
def test_a_section_or_a_list_in_another_form_is_refused_with_its_key_and_its_form(name: str, value: Any) -> None:
    key = f"samokoder:{name}"
    if isinstance(value, STRUCTURED[name]):
        return

    with pytest.raises(InvalidSettingsError) as caught:
        stack_file.read("staging", {"config": {key: value}})

    mistake = next(each for each in caught.value.mistakes if each.key == key)
    assert re.search("list|array" if STRUCTURED[name] is list else "object", mistake.allowed), "which form is meant"
    written = yaml.safe_load(mistake.example)
    assert isinstance(written[key], STRUCTURED[name]), "what it says to write must be of that form"


def test_an_object_as_text_is_refused_although_pulumi_would_take_it() -> None:
    config = {"samokoder:cadvisor": '{"port": 18080}'}
    merged = stack_file.merged({"config": config}, machine={"samokoder:cadvisor": {"dataRoot": "/srv/docker"}})

    with pytest.raises(InvalidSettingsError, match="samokoder:cadvisor"):
        stack_file.read("staging", merged)  # what this machine adds to the section would be lost without a word


def test_a_secret_of_the_application_that_yaml_takes_for_a_date_is_neither_shown_nor_told_to_be_in_plain_text() -> None:
    config = yaml.safe_load(
        "samokoder:applicationSecrets: [SMTP_PASSWORD]\n"
        "samokoder:SMTP_PASSWORD: 1999-12-31\nsamokoder:VERCEL_TOKEN: {a: [1999-12-31]}\n"
        "samokoder:JWT_SECRET.x: 1999-12-31"
    )

    with pytest.raises(InvalidSettingsError) as caught:
        stack_file.read("staging", {"config": config})

    assert "1999" not in str(caught.value)
    assert {"samokoder:SMTP_PASSWORD", "samokoder:VERCEL_TOKEN", "samokoder:JWT_SECRET.x"} == {
        mistake.key for mistake in caught.value.mistakes
    }, "each is a mistake all the same"
    examples = [mistake.example for mistake in caught.value.mistakes if mistake.key == "samokoder:SMTP_PASSWORD"]
    assert examples == ["pulumi config set --secret samokoder:SMTP_PASSWORD"]


def test_plain_values_are_read_as_pulumi_hands_them_over() -> None:
    environment = stack_file.read(
        "staging", {"config": {"samokoder:production": False, "samokoder:ingress": {"port": 8100, "cpus": 0.5}}}
    )

    assert (environment.settings.ingress.port, environment.settings.ingress.cpus) == (8100, 0.5), (
        "numbers and mappings of the YAML must arrive with their types"
    )


def test_every_mistake_is_found_without_pulumi() -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        stack_file.read("staging", {"config": {"samokoder:ingress": {"port": 0}, "samokoder:redis": {"cpu": 1}}})

    assert {mistake.key for mistake in caught.value.mistakes} == {"samokoder:ingress.port", "samokoder:redis.cpu"}, (
        "a person corrects the file once, not once for each mistake"
    )


def test_an_encrypted_secret_counts_as_there_and_its_value_as_good() -> None:
    telegram = {"samokoder:alertmanager": {"telegram": {"chatId": -100}}}

    environment = stack_file.read(
        "staging", {"config": {**telegram, "samokoder:telegramBotToken": {"secure": "v1:unreadable"}}}
    )

    assert environment.configured_secrets == {"telegramBotToken"}, "it cannot be read here, but it is configured"


def test_before_a_secret_of_the_application_is_set_what_needs_none_of_them_works(tmp_path: Path) -> None:
    listed = {"samokoder:applicationSecrets": ["SMTP_PASSWORD"]}
    workspace = Workspace(home=tmp_path, extra_config=listed)

    with pytest.raises(InvalidSettingsError, match="samokoder:SMTP_PASSWORD"):
        workspace.settings()
    environment = replace(workspace, incomplete=True).settings()
    assert environment.settings.application_secrets == ["SMTP_PASSWORD"]
    assert not environment.configured_secrets
    whole = replace(workspace, extra_config={**listed, "samokoder:SMTP_PASSWORD": {"secure": "v1:x"}})
    assert whole.settings() == replace(whole, incomplete=True).settings()


@pytest.mark.parametrize("strict", [False, True], ids=["by the defaults", "by each rule that a setting adds"])
@pytest.mark.parametrize("name", sorted(CONFIGURED_SECRETS))
def test_the_stand_in_of_every_secret_passes_its_own_rules(name: str, strict: bool) -> None:
    given = {name: SecretInput(stack_file.stand_in(name), encrypted=True)}

    problems = list(check_secrets(given, fernet=strict, database_ca=strict, redis_ca=strict))

    assert problems == [], "else a good encrypted secret would be called wrong before `up`"


def test_an_encrypted_value_inside_a_setting_is_told() -> None:
    config: dict[str, Any] = {"samokoder:alertmanager": {"telegram": {"chatId": {"secure": "v1:x"}}}}

    with pytest.raises(InvalidSettingsError) as caught:
        stack_file.read("staging", {"config": config})

    assert caught.value.mistakes[0].key == "samokoder:alertmanager.telegram.chatId", (
        "settings are plain: what is encrypted there cannot be checked before it runs"
    )


def test_a_file_is_on_the_disk_before_it_takes_its_name_and_its_name_is_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, path = list[tuple[str, str]](), tmp_path / "restore.staging.json"
    sync = os.fsync

    def noted(handle: int) -> None:
        text = path.read_text() if path.exists() else "nothing"
        synced.append(("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file", text))
        sync(handle)

    stack_file.write(path, "before")
    monkeypatch.setattr(os, "fsync", noted)
    stack_file.write(path, "after")
    assert synced == [("file", "before"), ("folder", "after")], (
        "a power cut would leave an empty journal, or the old one"
    )
    synced.clear()
    stack_file.remove(path)
    stack_file.remove(path)
    assert synced == [("folder", "nothing")], "a power cut would bring back the journal of a restore that is over"
