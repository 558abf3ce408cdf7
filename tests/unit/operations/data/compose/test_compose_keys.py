"""The keys of a compose stack: which come along, which are left out, and when none is written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations.data.compose import old_containers
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from stack.common.secret_rules import fernet_key
from tests.recording import environment_of, secret_value
from tests.unit.operations.workspace.test_kept_secrets import state

KEY = fernet_key(secret_value("of the old stack"))
SIGNS = secret_value("signs sessions", 86)
GENERATED = secret_value("generated here", 86)


def brought(
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    configured: dict[str, str] | None = None,
    deployment: dict[str, Any] | None = None,
    **values: Any,
) -> tuple[str, dict[str, str]]:
    """Bring what one old container was given; return what is said, and what was written. configured: there already.

    deployment: the state; none is an environment that was never up.
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

    def keys() -> dict[str, str]:
        return {name.removeprefix("samokoder:"): value for name, value in written.items()}

    container = SimpleNamespace(attrs={"Config": {"Env": [f"{name}={value}" for name, value in env.items()]}})
    monkeypatch.setattr(old_containers, "_containers", lambda *_: [container])
    workspace = SimpleNamespace(
        settings=lambda: environment_of("staging", values | (configured or {}) | keys()),
        client=lambda: SimpleNamespace(close=lambda: None),
        open=lambda: stack,
        typed=lambda words: f"make {words}",
        variables={},
        reporter=SimpleNamespace(say=lambda _: None),
    )
    said = old_containers.bring_keys(cast("Workspace", workspace), "samokoder")
    assert not [value for value in env.values() if value in said], "a key is shown"
    return said, keys()


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
