"""What is left out of the monitoring that is compiled here says so, and what is beside it is taken."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from host.cache import cache_directory
from offline.toolchain import build

pytestmark = pytest.mark.long  # it is built for these tests

_REMOTE = "remote_write:\n  - url: http://127.0.0.1/x\n"
_RECEIVER = "route: {receiver: one}\nreceivers: [{name: one}]\n"
_KAFKA = "event_recorder: {kafka_outputs: [{brokers: ['127.0.0.1:1'], topic: x}]}\n"


@pytest.mark.parametrize(
    ("program", "words", "configuration", "says"),
    [
        ("prometheus", ("promtool", "check", "config"), _REMOTE, "SUCCESS"),
        ("prometheus", ("promtool", "check", "config"), f"{_REMOTE}    google_iam: {{}}\n", "google_iam is left out"),
        ("prometheus", ("promtool", "check", "config"), f"{_REMOTE}    azuread: {{}}\n", "azuread is left out"),
        ("alertmanager", ("amtool", "check-config"), _RECEIVER, "SUCCESS"),
        ("alertmanager", ("amtool", "check-config"), _RECEIVER + _KAFKA, "kafka_outputs is left out"),
    ],
)
def test_a_configuration_that_asks_for_what_is_left_out_is_refused_with_the_reason(
    tmp_path: Path, program: str, words: tuple[str, ...], configuration: str, says: str
) -> None:
    file = tmp_path / "configuration.yml"
    file.write_text(configuration)
    folder = build([program], cache=cache_directory())[program]
    done = subprocess.run([folder / words[0], *words[1:], file], capture_output=True, text=True, check=False)
    assert says in done.stdout + done.stderr, "a server that starts and does not do it would be worse"
    assert (done.returncode == 0) == (says == "SUCCESS")


@pytest.mark.parametrize(
    ("program", "words", "configuration", "says"),
    [
        (
            "prometheus",
            ("prometheus", "--web.listen-address=127.0.0.1:0", "--storage.tsdb.path={tmp}", "--config.file"),
            f"{_REMOTE}    sigv4: {{region: x}}\n",
            "sigv4 is left out",
        ),
        (
            "alertmanager",
            (
                *("alertmanager", "--web.listen-address=127.0.0.1:0", "--cluster.listen-address="),
                *("--storage.path={tmp}", "--config.file"),
            ),
            "route: {receiver: one}\nreceivers: [{name: one, sns_configs: [{topic_arn: x, sigv4: {region: x}}]}]\n",
            "sns_configs is left out",
        ),
    ],
)
def test_a_server_does_not_start_with_what_is_left_out(
    tmp_path: Path, program: str, words: tuple[str, ...], configuration: str, says: str
) -> None:
    file = tmp_path / "configuration.yml"
    file.write_text(configuration)
    folder = build([program], cache=cache_directory())[program]
    command: list[str | Path] = [folder / words[0], *(word.format(tmp=tmp_path) for word in words[1:]), file]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
