"""A real stack of staging on a real engine, under a name and on ports of its own: it disturbs nothing that runs."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml

from bench.own_ports import own_ports
from operations.clone import ROOT
from operations.lifecycle.up import bring_up
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from stack.settings.part import Published
from tests.live import clones
from tests.live.notifications import NAME, StandIn, stand_in
from tests.live.traffic import Traffic
from tests.small_disk import small_disk_of_root

sys.path.insert(0, str(ROOT / "reference_app"))  # the application is no package of this project

from samokoder.settings import RATE_LIMITS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs a real engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded to be read: what a process beside others prints itself is lost."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for title, text in getattr(report, "user_properties", ()):
                if getattr(report, "when", "") == "call":
                    terminalreporter.section(title)
                    terminalreporter.line(text)


@pytest.fixture(scope="session")
def new_workspace(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Workspace]]:
    """Makes workspaces with a name, a folder and ports of their own; what they made is gone afterwards.

    The engine is told to remove it: Pulumi takes most of a minute for that, and test_smoke.py tries it.
    """
    made: list[Workspace] = []

    def make() -> Workspace:
        workspace = Workspace(
            environment="staging",
            stack=f"t{secrets.token_hex(3)}",
            home=tmp_path_factory.mktemp("workspace"),
            isolated=True,
            # A good version is waited for no longer than it takes; what steadiness is for, test_deploys.py tries.
            extra_config={**own_ports(), "samokoder:api": {"stableSeconds": 2}},
        )
        made.append(workspace)
        return workspace

    yield make
    for workspace in made:
        clones.remove(engine, workspace.name)
        shutil.rmtree(workspace.folder)


def with_secrets(workspace: Workspace, values: dict[str, str]) -> Workspace:
    """The same workspace with secrets in its configuration, encrypted by Pulumi itself."""
    run = workspace.open()
    for name, value in values.items():
        run.pulumi("config", "set", "--secret", f"samokoder:{name}", value, capture=True)
    written = yaml.safe_load(workspace.stack_file.read_text())["config"]
    encrypted = {f"samokoder:{name}": written[f"samokoder:{name}"] for name in values}
    assert all(set(value) == {"secure"} for value in encrypted.values())
    return replace(workspace, extra_config={**workspace.extra_config, **encrypted})


def with_config(workspace: Workspace, config: Mapping[str, Mapping[str, Any]]) -> Workspace:
    """The same workspace with these settings beside and over its own: `{"samokoder:api": {"replicas": 3}}`."""
    merged = {key: {**workspace.extra_config.get(key, {}), **settings} for key, settings in config.items()}
    return replace(workspace, extra_config={**workspace.extra_config, **merged})


@contextlib.contextmanager
def up_with_llm(workspace: Workspace, engine: docker.DockerClient) -> Iterator[None]:
    """Bring a workspace up, the stand-in its LLM; it is gone afterwards."""
    bring_up(workspace, interactive=False)
    with stand_in(engine, workspace.settings()):
        yield
    clones.remove(engine, workspace.name)


@contextlib.contextmanager
def own_images(engine: docker.DockerClient, base: str, repository: str, numbers: Sequence[int]) -> Iterator[list[str]]:
    """Make images like `base`, by tags that no registry has; they are gone afterwards, so nothing may use them then."""
    tags = []
    for number in numbers:
        container = engine.containers.create(base)
        try:
            container.commit(repository=repository, tag=str(number), changes=f"LABEL own={number}")
        finally:
            container.remove()
        tags.append(f"{repository}:{number}")
    yield tags
    for tag in tags:
        engine.images.remove(tag)


def begin_up(run: PulumiRun) -> subprocess.Popen[bytes]:
    """Begin an `up`, for `cut_off`."""
    return subprocess.Popen(
        [run.program, "up", "--yes", "--skip-preview", "--non-interactive"],
        cwd=run.folder,
        env=dict(run.variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


# What a command of a person does, but for the workspace that it works in.
_COMMAND = """\
import json, sys
from pathlib import Path
from operations.data.compose import import_compose
from operations.data.repair import repair
from operations.data.restore import on_engine, restore, steps
from operations.lifecycle.up import bring_up
from operations.rotation import rotate
from operations.workspace import lock
from operations.workspace.workspace import Workspace
given = json.loads(sys.argv[1])
for name in ("home", "stack_files"):
    given[name] = Path(given[name]) if given[name] else None
workspace = Workspace(**given, isolated=True)
"""


def begin(workspace: Workspace, call: str) -> subprocess.Popen[bytes]:
    """Begin a call of `restore` or `rotation` on the `workspace`, for `cut_off`; what it returns is printed."""
    given = {
        "environment": workspace.environment,
        "stack": workspace.stack,
        "home": str(workspace.home or ""),
        "stack_files": str(workspace.stack_files or ""),
        "extra_config": dict(workspace.extra_config),
    }
    return subprocess.Popen(
        [sys.executable, "-c", f"{_COMMAND}print({call})", json.dumps(given)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def cut_off(process: subprocess.Popen[bytes]) -> None:
    """Kill a process group of its own whole and at once, as a machine that loses its power would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def llm(seconds: float = 0) -> dict[str, str]:
    """Environment of a worker whose LLM is the stand-in, each answer of which takes so long. It needs an OpenAI key."""
    base_url = f"http://{NAME}:8080/{f'slow/{seconds}/' if seconds else ''}v1"
    provider = {"name": "openai", "base_url": base_url, "model": "test", "prompt_usd": 0.15, "completion_usd": 0.6}
    return {"LLM_PROVIDERS": json.dumps([provider])}


def no_limits() -> dict[str, str]:
    """Environment of an API that takes any number of requests."""
    return {"RATE_LIMITS": json.dumps(dict.fromkeys(RATE_LIMITS, 0))}


def under_load(workspace: Workspace) -> Workspace:
    """The same workspace for `tests.live.load`: no limits, and jobs of an LLM outlast a worker's end and a drain.

    A replica is steady after 15 s, so that one which falls ill after 10 s never was: the ingress lets one in up to
    three seconds sooner. The checks come often.
    """
    workspace = with_secrets(workspace, {"openaiApiKey": f"sk-{secrets.token_hex(24)}"})
    health = {"intervalSeconds": 2, "startPeriodSeconds": 17, "retries": 2, "waitTimeoutSeconds": 60}
    api = {"stableSeconds": 15, "health": health, "environment": no_limits()}
    worker = {"environment": {**llm(9), "WORKER_SHUTDOWN_SECONDS": "5"}}
    return with_config(workspace, {"samokoder:api": api, "samokoder:worker": worker})


def unlimited(workspace: Workspace) -> Workspace:
    """The same workspace with an API that takes any number of reads.

    To the API all clients of a port that the engine publishes are one: the bridge's address.
    """
    reads = ("GET /projects", "GET /projects/{project_id}", "GET /jobs/{job_id}")
    environment = {"RATE_LIMITS": json.dumps(dict.fromkeys(reads, 0))}
    return with_config(workspace, {"samokoder:api": {"environment": environment}})


@pytest.fixture(scope="session")
def stack(new_workspace: Callable[[], Workspace]) -> Workspace:
    """One stack that is up with every part, its LLM the stand-in. A test that changes it puts it back.

    Files that use it are named in tests/conftest.py, or each process of `make test-live` would bring one up.
    """
    workspace = with_secrets(unlimited(new_workspace()), {"openaiApiKey": f"sk-{secrets.token_hex(24)}"})
    workspace = with_config(
        workspace, {"samokoder:worker": {"environment": llm()}, "samokoder:frontend": {"enabled": True}}
    )
    bring_up(workspace, interactive=False)
    return workspace


@pytest.fixture(scope="session")
def traffic(stack: Workspace, engine: docker.DockerClient) -> Iterator[Traffic]:
    """Users of the stack that is up, and its LLM, from the first test that wants them until somebody stops them."""
    environment = stack.settings()
    with contextlib.ExitStack() as llm:
        llm.enter_context(stand_in(engine, environment))
        running = Traffic(url(environment, "ingress"), stopped=llm.close)
        running.start()
        yield running
        running.stop()


TOKEN = f"1234567890:{secrets.token_hex(20)}"
"""Of the Telegram bot that `alerting` has."""
_QUICK = {"groupWait": "1s", "groupInterval": "10s", "repeatInterval": "1h"}


def everything_that_notifies() -> dict[str, dict[str, Any]]:
    """Return settings with all of it at the stand-in."""
    return {
        "samokoder:prometheus": {"scrapeInterval": "5s", "scrapeTimeout": "5s"},
        "samokoder:alertmanager": {
            "telegram": {"chatId": -1001234567890, "apiUrl": f"http://{NAME}:8080"},
            "email": {
                "smarthost": f"{NAME}:8025",
                "sender": "alerts@example.org",
                "recipient": "oncall@example.org",
                "requireTls": False,
            },
            "timing": dict.fromkeys(("critical", "warning", "info"), _QUICK),
            "heartbeatInterval": "5s",
        },
    }


@pytest.fixture(scope="session")
def alerted_disk() -> Iterator[Path | None]:
    """A small file system of its own, mounted before `alerting` is up, where node_exporter (nobody) may go."""
    with small_disk_of_root(64) as mounted:
        yield mounted


@pytest.fixture(scope="session")
def told(
    engine: docker.DockerClient, new_workspace: Callable[[], Workspace], alerted_disk: Path | None
) -> Iterator[tuple[Workspace, StandIn]]:
    """One more stack: it can tell people, asks for passwords, has a page and an API that takes any number of requests.

    Its waiting times are a twentieth, once those whom it notifies are there: notified before, each way would have lost
    more than half for 15 minutes, and the heart would not beat.
    """
    del alerted_disk  # that was mounted before
    workspace = with_secrets(
        new_workspace(),
        {
            "telegramBotToken": TOKEN,
            "alertWebhookUrl": f"http://{NAME}:8080/webhook/{secrets.token_hex(16)}",
            "heartbeatUrl": f"http://{NAME}:8080/heartbeat/{secrets.token_hex(16)}",
        },
    )
    workspace = with_config(
        workspace,
        {
            **everything_that_notifies(),
            "samokoder:frontend": {"enabled": True},
            "samokoder:api": {"environment": no_limits()},
        },
    )
    workspace = replace(workspace, extra_config={**workspace.extra_config, "samokoder:basicAuth": "always"})
    bring_up(workspace, interactive=False)
    with stand_in(engine, workspace.settings(), TOKEN) as receiver:
        quick = with_config(workspace, {"samokoder:alerts": {"waitFactor": 0.05}})
        bring_up(quick, interactive=False)
        yield quick, receiver


@pytest.fixture(scope="session")
def alerting(told: tuple[Workspace, StandIn]) -> Workspace:
    """That stack. Files that use it are named in tests/conftest.py too."""
    return told[0]


@pytest.fixture(scope="session")
def alerted(told: tuple[Workspace, StandIn]) -> StandIn:
    """Where its notifications go."""
    return told[1]


@pytest.fixture(scope="session")
def environment(stack: Workspace) -> Environment:
    """The settings of the stack that is up."""
    return stack.settings()


def url(environment: Environment, field: str) -> str:
    """Address of a part on the host."""
    part = getattr(environment.settings, field)
    assert isinstance(part, Published)
    return f"http://127.0.0.1:{part.port}"


def prometheus(environment: Environment, path: str, **query: str) -> Any:
    """Data of an answer of Prometheus' API."""
    answer = httpx.get(f"{url(environment, 'prometheus')}/api/v1/{path}", params=query, timeout=30)
    answer.raise_for_status()
    return answer.json()["data"]
