"""`samokoder check-image` on an image that was not made for this platform: all its faults, and settings, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
import yaml

from host.progress import Reporter
from operations.checks.image import check_image
from operations.checks.image.contract import ImageCheck
from operations.checks.report import Report, Verdict
from operations.engine import laboratory
from stack.monitoring.metrics import Kind
from stack.settings.environment import Environment
from tests.live import originals
from tests.recording import environment_of, merged, secret_value

MIGRATIONS = {"samokoder:migrations": {"command": ["python", "-m", "original.migrate"]}}
WORKER = {"samokoder:worker": {"command": ["arq", "original.worker.WorkerSettings"]}}
# No setting gives an image what it has not: it looks at no secret.
ITS_OWN = {ImageCheck.WEAK, ImageCheck.DEFAULT, ImageCheck.EQUAL}
A_MINUTE = 60.0


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, local_images: Environment) -> Iterator[str]:
    """Its image; gone at the end."""
    made = originals.build(engine, local_images, "checked")
    yield made
    engine.images.remove(made, force=True)


@pytest.fixture
def checked(engine: docker.DockerClient, local_images: Environment, image: str) -> Callable[..., tuple[Report, float]]:
    """Checks it with settings, as the command does; returns what came of it, and the seconds that it took."""

    def check(kind: Kind, *settings: dict[str, Any]) -> tuple[Report, float]:
        config: dict[str, Any] = {
            "samokoder:images": local_images.settings.images.model_dump(by_alias=True),
            # Nothing proposes it: only its owner knows what it needs.
            "samokoder:applicationSecrets": ["SMTP_PASSWORD"],
            "samokoder:SMTP_PASSWORD": secret_value("of its mail server"),
        }
        for each in settings:
            config = merged(config, each)
        if "api" in kind.value:
            config = merged(config, {"samokoder:api": {"image": image}})
        environment = check_image.environment_for(environment_of("staging", config), image, kind)
        began = time.monotonic()
        with laboratory.opened(engine) as made:
            report = check_image.check(made, environment, kind, reporter=Reporter())
        return report, time.monotonic() - began

    return check


def reasons(report: Report) -> str:
    return "\n".join(f"{each.check}: {each.verdict}: {each.why}" for each in report.findings) + report.proposal


def test_all_faults_of_the_api_are_told_in_one_run_which_ends_with_the_settings_that_mend_them(
    checked: Callable[..., tuple[Report, float]],
) -> None:
    report, seconds = checked(Kind.API, MIGRATIONS)
    faults = {ImageCheck.COMMAND, ImageCheck.HARDENED, ImageCheck.FILES, ImageCheck.FERNET, ImageCheck.LOGIN}
    assert faults <= set(report.failed), reasons(report)
    proposed = yaml.safe_load(report.proposal)
    assert proposed == {
        "samokoder:api": {
            "command": ["uvicorn", "original.main:app", "--host", "0.0.0.0", "--port", "8000"],  # noqa: S104
            "secretsAs": "environment",
            "writablePaths": ["/app/config"],
        },
        "samokoder:appSecretKeyForm": "fernet",
        "samokoder:redis": {"login": "none"},
        "samokoder:workspace": {"path": "/app/workspace"},
    }, reasons(report)
    report, second = checked(Kind.API, MIGRATIONS, proposed)
    assert set(report.failed) <= ITS_OWN, reasons(report)
    assert not report.proposal, "what is pasted once need not be pasted again"
    metrics = next(each for each in report.findings if each.check == ImageCheck.METRICS)
    assert metrics.verdict is Verdict.NOT_AVAILABLE, "it runs without them"
    assert "mute without them" in metrics.why
    assert "redirects to /metrics/" in metrics.why, "a second request at each scrape, and no failure"
    assert max(seconds, second) < 3 * A_MINUTE, f"{seconds:.0f} s and {second:.0f} s; a minute where nobody else works"


def test_a_worker_that_ignores_wrong_secrets_is_checked_in_a_minute_and_has_no_port(
    checked: Callable[..., tuple[Report, float]],
) -> None:
    report, seconds = checked(Kind.WORKER, WORKER)
    assert seconds < 3 * A_MINUTE, f"{seconds:.0f} s: each wrong secret was waited for in full\n{reasons(report)}"
    assert {ImageCheck.PORT, ImageCheck.FILES, ImageCheck.LOGIN} <= set(report.failed), reasons(report)
    proposed = yaml.safe_load(report.proposal)
    assert proposed["samokoder:worker"]["metricsPort"] is None
    report, _ = checked(Kind.WORKER, WORKER, proposed)
    assert set(report.failed) <= ITS_OWN, reasons(report)
