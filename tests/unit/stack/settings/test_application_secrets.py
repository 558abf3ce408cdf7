"""`samokoder:applicationSecrets`: what is refused of the names and of the values, and how it reads."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest

from operations.workspace import pasted, stack_file
from stack.common.mistakes import InvalidSettingsError, Mistake
from stack.common.secret_rules import SecretInput, check_secrets
from stack.settings import application_secrets
from stack.settings.environment import Environment
from stack.settings.reading import read_environment
from stack.spec.secrets import GENERATED
from tests.described import specs
from tests.recording import CASES, DIGEST, case_environment, environment_of, secret_value, wire_config

KEY = "samokoder:applicationSecrets"
VALUE = secret_value("of the mail server")
SET = "pulumi config set --secret samokoder:SMTP_PASSWORD"


def read(**values: Any) -> Environment:
    return environment_of("staging", values)


def the_mistake(**values: Any) -> Mistake:
    with pytest.raises(InvalidSettingsError) as caught:
        read(**values)
    assert VALUE not in str(caught.value), "a secret is shown"
    (found,) = caught.value.mistakes
    return found


def test_a_listed_secret_with_a_value_is_one_of_the_environments() -> None:
    environment = read(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD=VALUE)
    assert environment.configured_secrets == {"SMTP_PASSWORD"}
    assert "SMTP_PASSWORD" in environment.secret_settings


def test_a_listed_name_without_a_value_is_refused_with_the_command_that_sets_it() -> None:
    wrong = the_mistake(applicationSecrets=["SMTP_PASSWORD"])
    assert (wrong.key, wrong.given, wrong.example) == ("samokoder:SMTP_PASSWORD", "nothing", SET)
    assert KEY in wrong.allowed
    said = pasted.mistakes_to_fix(InvalidSettingsError("prod", [wrong]))
    assert "make pulumi ENV=prod ARGS='config set --secret samokoder:SMTP_PASSWORD'" in said
    assert "standard input" in said


def test_a_value_of_a_name_that_is_not_listed_is_refused_with_the_list_to_write() -> None:
    wrong = the_mistake(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD=VALUE, VERCEL_TOKEN=VALUE)
    assert wrong.key == "samokoder:VERCEL_TOKEN"
    assert wrong.given == "a value (not shown) that nobody gets"
    assert wrong.example == f"{KEY}: [SMTP_PASSWORD, VERCEL_TOKEN]"


def test_several_values_that_are_not_listed_are_told_with_one_list_for_all() -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        read(SMTP_PASSWORD=VALUE, VERCEL_TOKEN=VALUE)
    assert {wrong.example for wrong in caught.value.mistakes} == {f"{KEY}: [SMTP_PASSWORD, VERCEL_TOKEN]"}


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("SECRET_KEY", "samokoder:secretKey"),
        ("OPENAI_API_KEY", "samokoder:openaiApiKey"),
        ("SAMOKODER_DATABASE_URL", ""),
        ("REDIS_PASSWORD", ""),
        ("SECRET_KEY_PREVIOUS", ""),
        ("SECRET_KEY_FILE", ""),
        ("REDIS_HOST", ""),
        ("HOME", ""),
    ],
)
def test_a_name_that_the_platform_gives_is_refused_listed_or_not(name: str, own: str) -> None:
    wrong = the_mistake(**{"applicationSecrets": ["SMTP_PASSWORD", name], "SMTP_PASSWORD": VALUE, name: VALUE})
    assert (wrong.key, wrong.given) == (KEY, name)
    assert "one that the platform gives by itself" in wrong.allowed
    assert own in wrong.allowed, "where its value belongs, where a person may have one"
    assert wrong.example == f"{KEY}: [SMTP_PASSWORD]"
    assert the_mistake(applicationSecrets=[name]).example == f"pulumi config rm {KEY}"
    unlisted = the_mistake(**{name: VALUE})
    assert unlisted.key == f"samokoder:{name}"
    assert unlisted.example.startswith(f"pulumi config rm samokoder:{name}")
    assert own in unlisted.example


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONPATH", "PYTHONHOME"])
def test_a_name_that_decides_how_programs_start_is_refused_listed_or_not(name: str) -> None:
    wrong = the_mistake(**{"applicationSecrets": [name], name: VALUE})
    assert wrong.allowed.endswith(f"{name} is one that decides how each program in the container starts")
    unlisted = the_mistake(**{name: VALUE})
    assert (unlisted.key, unlisted.example) == (f"samokoder:{name}", f"pulumi config rm samokoder:{name}")


@pytest.mark.parametrize("part", ["api", "worker"])
def test_a_name_that_stands_in_plain_text_too_is_refused(part: str) -> None:
    plain = {part: {"environment": {"SMTP_PASSWORD": VALUE}}}
    wrong = the_mistake(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD=secret_value("b"), **plain)
    assert wrong.key == f"samokoder:{part}.environment.SMTP_PASSWORD"
    assert wrong.given == "a value in plain text (not shown)"


def test_the_name_of_the_path_of_another_ones_file_is_refused_listed_or_not() -> None:
    path = "SMTP_PASSWORD_FILE"
    listed: dict[str, Any] = {"applicationSecrets": ["SMTP_PASSWORD", path], "SMTP_PASSWORD": VALUE}
    wrong = the_mistake(**listed, **{path: "a"})
    assert (wrong.key, wrong.given, wrong.example) == (KEY, path, f"{KEY}: [SMTP_PASSWORD]")
    unlisted = the_mistake(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD=VALUE, **{path: "a"})
    assert (unlisted.key, unlisted.example) == (f"samokoder:{path}", f"pulumi config rm samokoder:{path}")
    assert read(applicationSecrets=[path], **{path: VALUE}), "without the other one it is a name as any"


@pytest.mark.parametrize("part", ["api", "worker"])
def test_a_path_of_a_listed_secrets_file_that_stands_in_plain_text_is_refused(part: str) -> None:
    plain = {part: {"environment": {"SMTP_PASSWORD_FILE": "/etc/mine", "OTHER_FILE": "/etc/other"}}}
    wrong = the_mistake(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD=VALUE, **plain)
    key = f"samokoder:{part}.environment.SMTP_PASSWORD_FILE"
    assert (wrong.key, wrong.given) == (key, "a value (not shown)"), "it would win over the platform's"
    assert wrong.example == f"pulumi config rm --path '{key}'"


@pytest.mark.parametrize(
    "name", ["smtp_password", "SMTP-PASSWORD", "1PASSWORD", "", "SMTP PASSWORD", "SMTP_PASSWORD\n"]
)
def test_a_name_that_no_variable_has_is_refused_and_nothing_follows_from_it(name: str) -> None:
    wrong = the_mistake(applicationSecrets=["SMTP_PASSWORD", name], SMTP_PASSWORD=VALUE)
    assert wrong.key == f"{KEY}.1"
    assert "[A-Z][A-Z0-9_]*" in wrong.allowed
    assert wrong.example == f'{KEY}: ["SMTP_PASSWORD", "GITHUB_CLIENT_SECRET"]'


def test_an_empty_value_is_refused() -> None:
    wrong = the_mistake(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD="")
    assert (wrong.key, wrong.given, wrong.example) == ("samokoder:SMTP_PASSWORD", "an empty value", SET)


def test_a_value_in_plain_text_is_refused() -> None:
    config = wire_config({"applicationSecrets": ["SMTP_PASSWORD"], "SMTP_PASSWORD": VALUE})
    with pytest.raises(InvalidSettingsError) as caught:
        read_environment("staging", config, frozenset())
    (wrong,) = caught.value.mistakes
    assert (wrong.key, wrong.given, wrong.example) == ("samokoder:SMTP_PASSWORD", "a value in plain text", SET)
    assert VALUE not in str(wrong)


@pytest.mark.parametrize("value", ["changeme", "your-smtp-password", "${SMTP_PASSWORD}", " ", "\n"])
def test_a_placeholder_is_refused(value: str) -> None:
    assert the_mistake(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD=value).key == "samokoder:SMTP_PASSWORD"


@pytest.mark.parametrize("value", ["7", "two words", "-----BEGIN KEY-----\nMIIB\n-----END KEY-----", "aaaaaaaa"])
def test_a_value_of_any_other_form_is_taken_as_its_issuer_chose_it(value: str) -> None:
    assert read(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD=value)


@pytest.mark.parametrize(
    "written",
    [
        {"SMTP_PASSWORD": "hunter2"},
        {"SMTP_PASSWORD": date(1999, 12, 31)},
        ["SMTP_PASSWORD=hunter2"],
        [{"SMTP_PASSWORD": "hunter2"}],
        [date(1999, 12, 31)],
        "SMTP_PASSWORD=hunter2",
    ],
)
@pytest.mark.parametrize("key", [KEY, "samokoder:application_secrets"])
def test_a_value_that_is_written_in_place_of_its_name_is_not_shown(key: str, written: Any) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        stack_file.read("staging", {"config": {key: written}})
    (wrong,) = caught.value.mistakes
    assert wrong.given.startswith("a value (not shown)")
    assert not {"hunter2", "1999"} & set(re.findall(r"\w+", str(wrong))), "it is a secret"


def test_a_wrong_list_tells_nothing_of_the_values_which_may_belong_to_it() -> None:
    wrong = the_mistake(applicationSecrets="SMTP_PASSWORD", SMTP_PASSWORD=VALUE)
    assert wrong.key == KEY


def test_every_name_that_the_platform_gives_to_api_and_worker_is_known() -> None:
    own = {"image": f"registry.example.org/samokoder/api:1.4.2@{DIGEST}"}
    ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    managed = {"managedDatabaseCa": ca, "managedRedisCa": ca, "rotation": {"secretKey": 2}}
    environments = [case_environment(case) for case in CASES]
    environments.append(read(api=own, worker=own, rotating={"secretKey": "overlap"}, **managed))
    environments.append(read(managedDatabaseUrl="", **managed))
    given: set[str] = set()
    for environment in environments:
        listed = {name for each in environment.settings.application_secrets for name in (each, f"{each}_FILE")}
        for spec in specs(environment):
            if spec.part in {"api-1", "worker", "migrations"}:
                given |= {*spec.environment, *spec.secret_environment, *map(str.upper, spec.files)} - listed
    variables = {name for name in given if not name.endswith(".PEM")}
    assert variables <= application_secrets.GIVEN, "one of two values would win, and nobody is told"


def test_what_is_encrypted_in_the_list_itself_is_told_where_it_belongs() -> None:
    config: dict[str, Any] = {KEY: {"SMTP_PASSWORD": {"secure": "v1:x"}}}
    with pytest.raises(InvalidSettingsError) as caught:
        stack_file.read("staging", {"config": config})
    assert f"each name in {KEY}" in str(caught.value)


def test_who_needs_no_value_reads_the_settings_before_there_is_one() -> None:
    config: dict[str, Any] = {
        "applicationSecrets": ["SMTP_PASSWORD", "VERCEL_TOKEN"],
        "VERCEL_TOKEN": {"secure": "v1"},
        "samokoder:api": {"secretsInEnvironment": ["SMTP_PASSWORD"]},
    }
    environment = stack_file.read("staging", {"config": config}, incomplete=True)
    assert environment.configured_secrets == {"VERCEL_TOKEN"}
    for wrong in ({"GITHUB_TOKEN": {"secure": "v1"}}, {"VERCEL_TOKEN": ""}):
        with pytest.raises(InvalidSettingsError):
            stack_file.read("staging", {"config": config | wrong}, incomplete=True)


def test_secrets_of_the_application_may_be_equal_to_each_other_and_to_what_somebody_else_has_issued() -> None:
    """A mail account for the application and for AlertManager; one key of a proxy under two names."""
    account = {"smtpPassword": VALUE, "openaiApiKey": secret_value("proxy")}
    names = {"SMTP_PASSWORD": VALUE, "IMAP_PASSWORD": VALUE, "LLM_TOKEN": account["openaiApiKey"]}
    assert read(applicationSecrets=list(names), **names, **account).configured_secrets == {*names, *account}


@pytest.mark.parametrize(
    "own", sorted(generated.configured for generated in GENERATED.values() if generated.configured)
)
def test_a_secret_of_the_application_that_equals_one_of_the_platforms_own_is_refused(own: str) -> None:
    value = secret_value(own, 86)
    names = {"JWT_SECRET": value, "SMTP_PASSWORD": VALUE}
    wrong = the_mistake(**{"applicationSecrets": list(names), **names, own: value})
    assert wrong.key == "samokoder:JWT_SECRET", "the platform's own may open what is stored"
    assert wrong.given == f"the same value as samokoder:{own} (not shown)"
    assert value not in str(wrong)
    given = {name: SecretInput(value, encrypted=True) for name in ("JWT_SECRET", own)}
    assert [each.key for each in check_secrets(given)] == [wrong.key], "`doctor` has them in the order of the file"
