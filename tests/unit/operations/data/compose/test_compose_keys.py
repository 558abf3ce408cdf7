"""The keys of a compose stack: which come along, which are left out, and when none is written."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner

from operations import __main__ as command
from operations.checks.image import check_image
from operations.checks.report import Report
from operations.clone import ROOT
from operations.data.compose import old_containers
from operations.engine import laboratory
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.common.secret_rules import fernet_key
from stack.settings.environment import Environment
from stack.settings.reading import read_environment
from tests.recording import DIGEST, TELEGRAM_TOKEN, environment_of, secret_value, wire_config
from tests.unit.operations.workspace.test_kept_secrets import state

KEY = fernet_key(secret_value("of the old stack"))
SIGNS = secret_value("signs sessions", 86)
GENERATED = secret_value("generated here", 86)


def brought(
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    configured: dict[str, str] | None = None,
    deployment: dict[str, Any] | None = None,
    others: dict[str, dict[str, str]] | None = None,
    of: str = "",
    **values: Any,
) -> tuple[str, dict[str, str]]:
    """Bring what one old container was given; return what is said, and what was written. configured: there already.

    deployment: the state; none is an environment that was never up. others: further containers with what they were
    given. of: the one that is chosen.
    """
    written: dict[str, str] = {}
    run = SimpleNamespace(pulumi=lambda *words, given: written.update({words[-1]: given}))
    stack = SimpleNamespace(
        in_clone=lambda: run,
        configuration=lambda: {
            f"samokoder:{name}": {"value": value} for name, value in ((configured or {}) | keys()).items()
        },
        deployment=lambda: deployment or {},
        secrets=lambda **_: {"app-secret-key": GENERATED},
    )
    environment = read_environment("staging", wire_config(values), incomplete=True)

    def keys() -> dict[str, str]:
        return {name.removeprefix("samokoder:"): value for name, value in written.items()}

    containers = [
        SimpleNamespace(name=who, attrs={"Config": {"Env": [f"{name}={value}" for name, value in given.items()]}})
        for who, given in {"old-api-1": env, **(others or {})}.items()
    ]
    monkeypatch.setattr(old_containers, "_containers", lambda *_: containers)
    workspace = SimpleNamespace(
        settings=lambda: environment.model_copy(update={"configured_secrets": frozenset((configured or {}) | keys())}),
        client=lambda: SimpleNamespace(close=lambda: None),
        open=lambda: stack,
        committed_file=Path("Pulumi.staging.yaml"),
        typed=lambda words: f"make {words}",
        variables={},
        reporter=SimpleNamespace(say=lambda _: None),
    )
    said = old_containers.bring_keys(cast("Workspace", workspace), "samokoder", of=of)
    assert not [value for value in env.values() if len(value) > len("yes") and value in said], "a key is shown"
    return said, keys()


def test_a_fernet_key_comes_along_and_its_form_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written = brought(monkeypatch, {"APP_SECRET_KEY": KEY, "SECRET_KEY": SIGNS})
    assert written == {"appSecretKey": KEY, "secretKey": SIGNS}
    assert "set samokoder:appSecretKeyForm: fernet" in said


def test_two_values_of_one_key_are_told_with_their_containers_and_one_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = {"APP_SECRET_KEY": KEY, "SECRET_KEY": SIGNS}
    others = {
        "old-worker-1": {"APP_SECRET_KEY": GENERATED, "SECRET_KEY": SIGNS},
        "old-redis-1": {},
        "old-api-2": {"APP_SECRET_KEY": KEY},
    }
    with pytest.raises(ProjectError) as refused:
        brought(monkeypatch, env, others=others)
    said = str(refused.value)
    assert "APP_SECRET_KEY: old-api-1, old-api-2; another one: old-worker-1" in said
    assert " SECRET_KEY" not in said, "of that one they have the same"
    assert "PROJECT=samokoder ARGS='--keys --keys-of old-api-1'" in said, "the choice is one line to type"
    assert not [value for value in (KEY, GENERATED, SIGNS) if value in said], "a key is shown"
    assert brought(monkeypatch, env, others=others, of="old-worker-1")[1]["appSecretKey"] == GENERATED
    assert brought(monkeypatch, env, others=others, of="old-api-2")[1] == {"appSecretKey": KEY, "secretKey": SIGNS}
    with pytest.raises(ProjectError, match="APP_SECRET_KEY"):
        brought(monkeypatch, env, others=others, of="old-redis-1")  # it has neither
    with pytest.raises(ProjectError, match="no container old-api-9"):
        brought(monkeypatch, env, others=others, of="old-api-9")


def test_a_placeholder_in_the_old_file_keeps_no_other_key_from_coming_along(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"APP_SECRET_KEY": KEY, "SECRET_KEY": "change-me", "OPENAI_API_KEY": "sk-your-openai-key-here"}
    said, written = brought(monkeypatch, env, appSecretKeyForm="fernet")
    assert written == {"appSecretKey": KEY}, "what the users have stored would be lost for a key that nobody uses"
    assert "SECRET_KEY: left out, a value (not shown) that is a known default; a new one is generated" in said
    assert "OPENAI_API_KEY: left out, a value (not shown) that is a placeholder" in said


def test_of_two_equal_keys_the_one_comes_along_that_opens_data(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written = brought(monkeypatch, {"APP_SECRET_KEY": KEY, "SECRET_KEY": KEY})
    assert written == {"appSecretKey": KEY}
    assert "SECRET_KEY: left out, " in said


def test_typed_twice_it_writes_no_key_that_it_has_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"APP_SECRET_KEY": SIGNS, "SECRET_KEY": SIGNS}
    _, first = brought(monkeypatch, old)
    said, written = brought(monkeypatch, old, configured=first)
    assert written == {}, "the stack would refuse both, and who then replaces the wrong one loses what is stored"
    assert "SECRET_KEY: left out, the same value as APP_SECRET_KEY" in said


def test_a_key_that_equals_the_one_configured_by_hand_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written = brought(monkeypatch, {"SECRET_KEY": SIGNS}, configured={"appSecretKey": SIGNS})
    assert written == {}
    assert "SECRET_KEY: left out, " in said


@pytest.mark.parametrize("configured", [{}, {"openrouterApiKey": SIGNS}], ids=["both come", "one is here"])
def test_equal_keys_of_providers_come_along(configured: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"OPENAI_API_KEY": SIGNS} | ({} if configured else {"OPENROUTER_API_KEY": SIGNS})
    said, written = brought(monkeypatch, env, configured=configured)
    assert {**configured, **written} == {"openaiApiKey": SIGNS, "openrouterApiKey": SIGNS}, "one proxy's key for all"
    assert "left out" not in said


@pytest.mark.parametrize("configured", [{}, {"telegramBotToken": TELEGRAM_TOKEN}], ids=["both come", "one is here"])
def test_of_two_equal_keys_for_different_things_one_comes_along(
    configured: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"OPENAI_API_KEY": TELEGRAM_TOKEN} | ({} if configured else {"TELEGRAM_BOT_TOKEN": TELEGRAM_TOKEN})
    said, written = brought(monkeypatch, env, configured=configured)
    assert len({**configured, **written}) == 1, "the stack would refuse both"
    assert "left out, the same value as samokoder:" in said


@pytest.mark.parametrize("form", ["fernet", "text"])
def test_nothing_is_written_where_the_key_that_opens_the_data_cannot_be_taken(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProjectError, match="Nothing was written") as told:
        brought(monkeypatch, {"APP_SECRET_KEY": "short-of-the-old-stack", "SECRET_KEY": SIGNS}, appSecretKeyForm=form)
    assert "short-of-the-old-stack" not in str(told.value)


# Further secrets of the application.

OWN = {"APP_SECRET_KEY": KEY, "SECRET_KEY": SIGNS, "SMTP_PASSWORD": "hunter2 of the mail"}


def test_a_listed_secret_of_the_application_comes_along_before_it_has_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written = brought(monkeypatch, OWN, applicationSecrets=["SMTP_PASSWORD", "VERCEL_TOKEN"])
    assert written == {"appSecretKey": KEY, "secretKey": SIGNS, "SMTP_PASSWORD": "hunter2 of the mail"}
    assert "VERCEL_TOKEN: no container of samokoder was given it; set it by hand: make pulumi" in said
    assert "config set --secret samokoder:VERCEL_TOKEN" in said, "`up` is refused until it has one"


def test_a_listed_secret_that_is_set_already_stays_and_a_placeholder_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = OWN | {"VERCEL_TOKEN": "your-vercel-token"}
    said, written = brought(
        monkeypatch,
        old,
        configured={"SMTP_PASSWORD": "another one"},
        applicationSecrets=["SMTP_PASSWORD", "VERCEL_TOKEN"],
    )
    assert written.keys() == {"appSecretKey", "secretKey"}
    assert "SMTP_PASSWORD: samokoder:SMTP_PASSWORD was set already, and stays" in said
    assert "VERCEL_TOKEN: left out, a value (not shown) that is a placeholder" in said


def test_a_secret_of_the_application_comes_along_unless_it_equals_one_of_the_platforms_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"JWT_SECRET": SIGNS, "IMAP_PASSWORD": OWN["SMTP_PASSWORD"]}
    said, written = brought(monkeypatch, OWN | names, applicationSecrets=["SMTP_PASSWORD", *names])
    assert written.keys() == {"appSecretKey", "secretKey", "SMTP_PASSWORD", "IMAP_PASSWORD"}
    assert "JWT_SECRET: left out, the same value as samokoder:secretKey (not shown)" in said


def test_what_looks_like_a_secret_and_was_not_brought_is_named_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = OWN | {
        "GITHUB_CLIENT_SECRET": "of the old stack",
        "VERCEL_TOKEN": "ver-of-the-old-stack",
        "SENTRY_DSN": "https://of-the-old-stack@sentry.example.org/1",
    }
    said, written = brought(monkeypatch, old, applicationSecrets=["SMTP_PASSWORD"])
    assert written.keys() == {"appSecretKey", "secretKey", "SMTP_PASSWORD"}
    assert "Not brought, and may be secrets: GITHUB_CLIENT_SECRET, SENTRY_DSN, VERCEL_TOKEN." in said
    listed = "SMTP_PASSWORD, GITHUB_CLIENT_SECRET, SENTRY_DSN, VERCEL_TOKEN"
    assert f"samokoder:applicationSecrets: [{listed}]" in said, "who pastes it keeps what is listed"
    assert "Pulumi.staging.yaml" in said


def test_what_is_no_secret_or_is_made_by_this_stack_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {
        "ACCESS_TOKEN_EXPIRE_MINUTES": "30",
        "ALLOW_EMPTY_PASSWORD": "yes",
        "PASSWORD_MIN_LENGTH": "8",
        "TLS_KEY_FILE": "/certs/key of the old stack.pem",
        "CLIENT_SECRET_FILE": "/run/secrets/of the old stack",
        "SMTP_TOKEN": "",
        "GITHUB_CALLBACK": "https://app.example.org/callback",
        "lower_case_token": "no name that can be listed",
    }
    made = {
        "POSTGRES_PASSWORD": "of the old stack",
        "REDIS_PASSWORD": "of the old stack",
        "SAMOKODER_DATABASE_URL": "postgresql+asyncpg://samokoder:of-the-old-stack@db/samokoder",
        "GF_SECURITY_ADMIN_PASSWORD": "of the old stack",
        "GPG_KEY": "of the image of Python",
    }
    said, _ = brought(monkeypatch, {"APP_SECRET_KEY": KEY, "SECRET_KEY": SIGNS} | plain | made)
    assert "may be secrets" not in said


def warned(
    monkeypatch: pytest.MonkeyPatch,
    *containers: dict[str, str],
    here: str = "",
    origin: str = "configured",
    mark: str = "",
) -> str:
    """What is said before an import from such containers.

    here: the key that this environment has. origin, mark: of it, in the state.
    """
    found = [
        SimpleNamespace(attrs={"Config": {"Env": [f"{name}={value}" for name, value in env.items()]}})
        for env in containers
    ]
    environment = environment_of("staging", {"appSecretKey": here} if here else {})
    stack = SimpleNamespace(configuration=lambda: {"samokoder:appSecretKey": {"value": here}})
    monkeypatch.setattr(old_containers, "_containers", lambda *_: found)
    workspace = SimpleNamespace(
        settings=lambda: environment,
        client=lambda: SimpleNamespace(close=lambda: None),
        open=lambda: stack,
        typed=lambda words: f"make {words}",
        deployment=lambda: state({"app-secret-key": origin}, marks={"app-secret-key": mark} if mark else None),
    )
    said = old_containers.lost_keys(cast("Workspace", workspace), "old")
    assert not [value for env in containers for value in env.values() if value and value in said], "a key is shown"
    return said


def test_a_key_that_the_environment_has_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not warned(monkeypatch, {"APP_SECRET_KEY": SIGNS}, {"APP_SECRET_KEY": ""}, here=SIGNS)
    assert not warned(monkeypatch), "nobody knows the keys of containers that are gone"
    assert not warned(monkeypatch, {"SECRET_KEY": SIGNS}), "no data is encrypted with this one"
    assert "Bring it first" in warned(monkeypatch, {"APP_SECRET_KEY": SIGNS})


@pytest.mark.parametrize("here", ["", SIGNS], ids=["none is here", "one is here"])
def test_two_different_keys_that_open_data_are_told_before_the_import(
    monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    said = warned(monkeypatch, {"APP_SECRET_KEY": SIGNS}, {"APP_SECRET_KEY": KEY}, here=here)
    assert "Two containers of old have different values of APP_SECRET_KEY" in said, "the users' keys would be lost"
    assert ("has neither" in said) is (not here)
    assert ("make pulumi ARGS='config set --secret samokoder:appSecretKey', then make up" in said) is (not here)


def test_the_command_for_one_of_two_keys_is_not_refused_where_this_environment_has_made_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = warned(monkeypatch, {"APP_SECRET_KEY": SIGNS}, {"APP_SECRET_KEY": KEY}, origin="generated")
    assert "samokoder:appSecretKey', then OTHER_KEY=app-secret-key make up" in said
    said = warned(monkeypatch, {"APP_SECRET_KEY": SIGNS}, {"APP_SECRET_KEY": KEY}, mark="a mark")
    assert "then OTHER_KEY=app-secret-key make up" in said, "a key that is configured is kept as well"


def test_another_key_with_two_values_hides_no_lost_key(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"APP_SECRET_KEY": KEY}
    said = warned(monkeypatch, {**env, "SECRET_KEY": SIGNS}, {**env, "SECRET_KEY": KEY})
    assert "APP_SECRET_KEY of old is not this environment's" in said


def test_the_order_of_the_page_can_be_followed_for_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check-image`, its settings written down, `import-compose --keys`: production is complete after them alone."""
    file = tmp_path / "Pulumi.prod.yaml"
    document = yaml.safe_load((ROOT / file.name).read_text(encoding="utf-8"))
    document["config"]["samokoder:alertmanager"]["telegram"] = {"chatId": -100}
    document["config"]["samokoder:api"] = {"secretsInEnvironment": ["OPENAI_API_KEY"]}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    workspace = Workspace(environment="prod", home=tmp_path / "home", stack_files=tmp_path, isolated=True)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    with pytest.raises(InvalidSettingsError):
        workspace.settings()

    checked: list[Environment] = []
    monkeypatch.setattr(Workspace, "engine", lambda each: SimpleNamespace(docker_host=each.docker_host()))
    monkeypatch.setattr("host.engine.connect", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(check_image, "_with_images", lambda *given: given[2])
    monkeypatch.setattr(check_image, "_ensure", lambda *_: None)
    monkeypatch.setattr(laboratory, "opened", lambda *_: contextlib.nullcontext())

    def check(_: object, environment: Environment, *__: object, **___: object) -> Report:
        checked.append(environment)
        return Report(title="", about={}, findings=[])

    monkeypatch.setattr(check_image, "check", check)
    image = f"registry.example.org/samokoder/api:1@{DIGEST}"
    done = CliRunner().invoke(command.app, ["check-image", image, "--kind", "api", "--env", "prod"])
    assert done.exit_code == 0, f"{done.output}\n{done.exception}"
    assert [each.settings.api.image for each in checked] == [image]

    document["config"]["samokoder:worker"] = {"image": image}
    document["config"]["samokoder:api"]["image"] = image
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    written: list[str] = []
    env = {"APP_SECRET_KEY": KEY, "OPENAI_API_KEY": SIGNS, "TELEGRAM_BOT_TOKEN": TELEGRAM_TOKEN}
    given = [f"{name}={value}" for name, value in env.items()]
    container = SimpleNamespace(name="old-api-1", attrs={"Config": {"Env": given}})
    monkeypatch.setattr(old_containers, "_containers", lambda *_: [container])
    run = SimpleNamespace(pulumi=lambda *words, given: written.append(words[-1]))
    monkeypatch.setattr(Workspace, "open", lambda _: SimpleNamespace(in_clone=lambda: run, deployment=dict))
    monkeypatch.setattr("operations.workspace.workspace.connect", lambda *_, **__: SimpleNamespace(close=lambda: None))
    done = CliRunner().invoke(command.app, ["import-compose", "samokoder", "--env", "prod", "--keys"])
    assert done.exit_code == 0, f"{done.output}\n{done.exception}"
    assert written == ["samokoder:appSecretKey", "samokoder:openaiApiKey", "samokoder:telegramBotToken"]

    with pytest.raises(InvalidSettingsError) as refused:
        workspace.settings()
    assert {each.key for each in refused.value.mistakes} >= {
        "samokoder:telegramBotToken",
        "samokoder:backup.offsite",
    }, "what `up` needs is no less than before"


def test_keys_that_come_before_the_first_up_need_no_other_word_and_later_ones_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = secret_value("of the old stack", 86)
    said, _ = brought(monkeypatch, {"APP_SECRET_KEY": key})
    assert "the next `make up` on" in said
    up = state({"app-secret-key": "generated"})
    said, _ = brought(monkeypatch, {"APP_SECRET_KEY": key}, deployment=up)
    assert "the next `OTHER_KEY=app-secret-key make up` on" in said, "a plain `make up` would be refused"
    said, _ = brought(monkeypatch, {"APP_SECRET_KEY": GENERATED}, deployment=up)
    assert "the next `make up` on" in said, "it is the key in use"
