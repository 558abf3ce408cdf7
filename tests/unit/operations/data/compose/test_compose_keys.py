"""The keys of a compose stack: which come along, which are left out, and when none is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host.progress import Reporter
from operations.data.compose import old_containers
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from stack.common.secret_rules import fernet_key
from tests.recording import secret_value

KEY = fernet_key(secret_value("of the old stack"))
SIGNS = secret_value("signs sessions", 86)


def brought(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], configured: dict[str, str] | None = None, **values: Any
) -> tuple[str, dict[str, str]]:
    """Bring what one old container was given; return what is said, and what was written. configured: there already."""
    written: dict[str, str] = {}
    run = SimpleNamespace(pulumi=lambda *words, given: written.update({words[-1]: given}))
    stack = SimpleNamespace(
        in_clone=lambda: run,
        configuration=lambda: {f"samokoder:{name}": {"value": value} for name, value in (configured or {}).items()},
    )
    container = SimpleNamespace(attrs={"Config": {"Env": [f"{name}={value}" for name, value in env.items()]}})
    monkeypatch.setattr(old_containers, "_containers", lambda *_: [container])
    monkeypatch.setattr(Workspace, "client", lambda _: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(Workspace, "open", lambda _: stack)
    config = values | {name: {"secure": "v1:unreadable"} for name in configured or {}}
    workspace = Workspace(
        home=Path("nowhere"),
        extra_config={f"samokoder:{name}": value for name, value in config.items()},
        reporter=cast("Reporter", SimpleNamespace(say=lambda _: None)),
    )
    said = old_containers.bring_keys(workspace, "samokoder")
    assert not [value for value in env.values() if len(value) > len("yes") and value in said], "a key is shown"
    return said, {name.removeprefix("samokoder:"): value for name, value in written.items()}


def test_a_fernet_key_comes_along_and_its_form_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said, written = brought(monkeypatch, {"APP_SECRET_KEY": KEY, "SECRET_KEY": SIGNS})
    assert written == {"appSecretKey": KEY, "secretKey": SIGNS}
    assert "set samokoder:appSecretKeyForm: fernet" in said


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
