from __future__ import annotations

import pytest
import yaml

from stack.platform import specs
from stack.settings import Environment
from tests.recording import CASES, case_environment
from tests.render.conftest import Laboratory, contents, output

CONFIGURATION = "/etc/samokoder/alertmanager.yml"


def alertmanager_files(case: str) -> dict[str, str]:
    (spec,) = [spec for spec in specs(case_environment(case)) if spec.part == "alertmanager"]
    return {f"{spec.files_at}/{path}": text for path, text in contents(spec).items()}


@pytest.mark.parametrize("case", CASES)
def test_every_secret_file_that_is_named_is_there_and_no_secret_is_in_the_text(case: str) -> None:
    files = alertmanager_files(case)
    document = yaml.safe_load(files[CONFIGURATION])
    (on_call,) = [receiver for receiver in document["receivers"] if receiver["name"] == "on-call"]
    integrations = [each for kind, several in on_call.items() if kind.endswith("_configs") for each in several]
    named = {value for each in integrations for key, value in each.items() if key.endswith("_file")}
    assert named == files.keys() - {CONFIGURATION}, "AlertManager would look for a file that nobody mounts"
    plain = {key for each in integrations for key in each if key in {"bot_token", "auth_password"}}
    assert not plain, "a secret in the configuration is shown by AlertManager's own status page"


def test_alerts_of_production_reach_telegram_with_their_end() -> None:
    document = yaml.safe_load(alertmanager_files("prod")[CONFIGURATION])
    (telegram,) = document["receivers"][0]["telegram_configs"]
    assert telegram["chat_id"] == -1001234567890
    assert telegram["send_resolved"] is True, "somebody must know that it is over"


@pytest.mark.live
@pytest.mark.parametrize("case", ["staging", "prod", "email-and-keys"])
def test_amtool_accepts_the_configuration(laboratory: Laboratory, environment: Environment, case: str) -> None:
    shell = laboratory.shell(environment.image("alertmanager"), alertmanager_files(case))
    code, said = output(shell, "amtool", "check-config", CONFIGURATION)
    assert code == 0, said
    assert "SUCCESS" in said


@pytest.mark.live
def test_an_alert_goes_to_who_is_to_know_it(laboratory: Laboratory, environment: Environment) -> None:
    shell = laboratory.shell(environment.image("alertmanager"), alertmanager_files("prod"))
    for severity, receiver in {
        "critical": "on-call",
        "warning": "on-call",
        "info": "on-call",
        "none": "nobody",
    }.items():
        code, said = output(
            shell, "amtool", "config", "routes", "test", f"--config.file={CONFIGURATION}", f"severity={severity}"
        )
        assert (code, said.strip()) == (0, receiver), f"an alert of severity {severity} goes to {said}"


@pytest.mark.live
def test_alertmanager_itself_starts_with_it(laboratory: Laboratory, environment: Environment) -> None:
    (spec,) = [spec for spec in specs(environment) if spec.part == "alertmanager"]
    container = laboratory.healthy_part(spec)
    code, said = output(container, "amtool", "config", "show", "--alertmanager.url=http://127.0.0.1:9093")
    assert code == 0, said
    assert "receiver: on-call" in said
