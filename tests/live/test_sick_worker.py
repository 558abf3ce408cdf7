"""A new version whose worker can do no job is not taken for a good one: `up` or the smoke test fails and names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from operations.checks.smoke import smoke
from operations.errors import PulumiFailedError
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from tests.live.conftest import no_limits, with_config

JOB = "job: queue, worker, database"
PATIENCE_SECONDS = 300.0
THROWS = """\
import arq
import samokoder.worker.main as main
def thrown(*_):
    raise LookupError("tomorrow")
main.skeleton = thrown
arq.run_worker(main.WorkerSettings)
"""
STALE = """\
import os, pathlib, re
given = pathlib.Path(os.environ["SAMOKODER_DATABASE_URL_FILE"]).read_text()
stale = pathlib.Path("/tmp/samokoder_database_url")
stale.write_text(re.sub(":[^:@/]*@", ":Jd83nqPz81Lm0Xw4@", given))
os.environ |= {"SAMOKODER_DATABASE_URL_FILE": str(stale), "SECRETS_DIR": "/tmp"}
os.execvp("arq", ["arq", "samokoder.worker.main.WorkerSettings"])
"""


@pytest.fixture(scope="module")
def good(new_workspace: Callable[[], Workspace]) -> Iterator[Workspace]:
    """A stack that is up and whole."""
    workspace = with_config(new_workspace(), {"samokoder:api": {"environment": no_limits()}})
    bring_up(workspace, interactive=False)
    whole = smoke.smoke(workspace, wait=PATIENCE_SECONDS)
    assert not whole.failed, whole.as_json()
    yield workspace
    destroy_data(workspace, interactive=False)


def with_worker(workspace: Workspace, program: str) -> Workspace:
    health = {"startPeriodSeconds": 1, "intervalSeconds": 2, "retries": 2, "waitTimeoutSeconds": 30}
    return with_config(workspace, {"samokoder:worker": {"command": ["python", "-c", program], "health": health}})


def test_a_worker_whose_code_throws_comes_up_and_fails_the_smoke_test_by_its_name(good: Workspace) -> None:
    bad = with_worker(good, THROWS)
    bring_up(bad, interactive=False)
    found = {each.check: each for each in smoke.smoke(bad, wait=PATIENCE_SECONDS / 10).findings}
    assert JOB in smoke.report_of(bad.settings(), list(found.values())).failed, "the deploy would be called a good one"
    assert "the worker has ended a job as failed: failed: LookupError" in found[JOB].why
    assert "logs PART=worker" in found[JOB].why
    bring_up(good, interactive=False)
    mended = smoke.smoke(good, wait=PATIENCE_SECONDS)
    assert not mended.failed, mended.as_json()


def test_a_worker_with_a_stale_password_fails_the_up_by_its_name(
    good: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = with_worker(good, STALE)
    with pytest.raises(PulumiFailedError):
        bring_up(bad, interactive=False)
    said = capsys.readouterr()
    assert "worker is not healthy" in said.out + said.err, "it is alive, and can do no job"
    failed = smoke.smoke(bad).failed
    assert "container worker" in failed, failed
    bring_up(good, interactive=False)
    mended = smoke.smoke(good, wait=PATIENCE_SECONDS)
    assert not mended.failed, mended.as_json()
