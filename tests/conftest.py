"""What all tests share. The recording engine is in `tests/recording.py`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from host import ports
from tests.tiers import asks_for_none_of, is_short

if TYPE_CHECKING:
    import docker

    from stack.settings.environment import Environment

pytest_plugins = ["tests.chromium", "tests.registry", "tests.sshd"]


# How many files the closing lines name.
DEAREST = 15
ALL_FILES = "all files"


def pytest_configure(config: pytest.Config) -> None:
    """Let one warning pass; give each process that runs tests beside another ports of its own."""
    # The pinned Grafana SDK says so of its own class, at import; Grafana 13 reads the classic format all the same.
    config.addinivalue_line("filterwarnings", "ignore:Prefer using dashboardv2:DeprecationWarning")
    if worker := getattr(config, "workerinput", None):
        # What is free now is taken when a stack comes up, much later: meanwhile another process would take it too.
        share = (ports.LAST - ports.FIRST) // int(worker["workercount"])
        ports.FIRST += share * int(worker["workerid"].removeprefix("gw"))
        ports.LAST = ports.FIRST + share - 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read a file none of whose tests is asked for: each process would spend seconds on a hundred such."""
    if not collection_path.match("test_*.py"):
        return None
    file = collection_path.relative_to(Path(__file__).parent).as_posix()
    return asks_for_none_of(file, config.getoption("markexpr")) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests on a real engine that `make test` leaves to `make test-all`. The folders' own hooks ran before."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        if item.get_closest_marker("live") and not is_short(file, getattr(item, "originalname", item.name)):
            item.add_marker(pytest.mark.long)
    # All others stay before them, where they were.
    files = [item.nodeid.partition("::")[0] for item in items]
    places = {file: 1 + IN_ORDER.index(file) for file in set(files).intersection(IN_ORDER)}
    items[:] = [item for _, item in sorted(zip(files, items, strict=True), key=lambda each: places.get(each[0], 0))]


@pytest.fixture(scope="session", autouse=True)
def packet_filter_of_nobody() -> Iterator[None]:
    """This machine's packet filter stays as it is: the tests of ours have network namespaces of their own."""
    from operations.network import packet_filter  # noqa: PLC0415 - what one fixture needs

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packet_filter, "of_engine", lambda _: None)
        yield


def time_by_file(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Return lines of the seconds that each file's tests took to set up, do and take down, the dearest files first."""
    seconds: defaultdict[str, float] = defaultdict(float)
    tests: defaultdict[str, int] = defaultdict(int)
    for report in reports:
        for file in (report.nodeid.partition("::")[0], ALL_FILES):
            seconds[file] += report.duration
            tests[file] += report.when == "setup"
    dearest = sorted(seconds, key=seconds.__getitem__, reverse=True)
    return [f"{seconds[file]:8.1f} s {tests[file]:5d} tests  {file}" for file in dearest[: DEAREST + 1]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print where the time went, of all processes; a single file's time is in pytest's last line."""
    reports = [each for kind in terminalreporter.stats.values() for each in kind if isinstance(each, pytest.TestReport)]
    if len({report.nodeid.partition("::")[0] for report in reports}) > 1:
        terminalreporter.section("time by file")
        for line in time_by_file(reports):
            terminalreporter.line(line)


# Fixture of a stack that is up -> the files of tests/live that use it, in their order: else each process would bring up
# one of its own. What stops a part comes after those who watch that all is well.
ON_ONE_STACK = {
    "stack": (
        "test_collations",
        "test_hardening",
        "test_ingress",
        "test_parts",
        "test_registry",
        "test_rights",
        "test_runbooks",
        "test_the_stack",
        "test_traffic",
        "test_log_search",
        "test_updates",
        "test_volume_lost",
        "test_waiting_jobs",
    ),
    "alerting": ("test_alerts", "test_smoke"),
}
IN_ORDER = [f"tests/live/{file}.py" for files in ON_ONE_STACK.values() for file in files]


ORDERS = "tests/backup_image/test_no_write_is_lost.py"


# What takes longest, the longest first: handed out last, as few tests are, it would be waited for alone.
LONG_FILES = ("tests/live/test_readme.py", "tests/render/test_prometheus.py", "tests/unit/test_adding_a_part.py")
FIRST = (*ON_ONE_STACK, *LONG_FILES)


class _ByFile(LoadFileScheduling):  # type: ignore[misc]
    """A file's tests stay in one process, where they share what they set up; those on one stack are one file here.

    Hundreds of orders of events take an hour, so each part of them is handed out by itself.

    xdist's own way to say so, the mark `xdist_group`, does nothing with pytest 9.2: it writes an attribute that is no
    longer read (pytest-xdist 3.8.0, `remote.py`).
    """

    def _assign_work_unit(self, node: Any) -> None:
        if first := next((each for each in FIRST if each in self.workqueue), ""):
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file == ORDERS:
            return nodeid
        stem = Path(file).stem if file.startswith("tests/live/") else ""
        return next((stack for stack, files in ON_ONE_STACK.items() if stem in files), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Say how tests are handed out when there are several processes."""
    return _ByFile(config, log)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """The machine's engine; where there was none, one that is started here is stopped here, by who is last to go."""
    import docker  # noqa: PLC0415 - half a second that the unit tests do not need

    from host.daemon import ensure_engine, stop_engine  # noqa: PLC0415
    from host.engine import DEFAULT_DOCKER_HOST, connect  # noqa: PLC0415
    from host.errors import EngineError  # noqa: PLC0415
    from host.file_lock import exclusive  # noqa: PLC0415
    from host.progress import Reporter  # noqa: PLC0415

    reporter = Reporter()
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent  # what the processes of one run share
    users, started = folder / "engine-users", folder / "engine-started"
    users.mkdir(exist_ok=True)
    user = users / str(os.getpid())
    with exclusive(folder / "engine-lock", what="the tests' engine", report=reporter.say):
        try:
            connect(DEFAULT_DOCKER_HOST).close()
        except EngineError:
            ensure_engine(DEFAULT_DOCKER_HOST, report=reporter.say)
            started.touch()
        user.touch()
    client = docker.DockerClient(base_url=DEFAULT_DOCKER_HOST, timeout=120)
    yield client
    client.close()
    with exclusive(folder / "engine-lock", what="the tests' engine", report=reporter.say):
        user.unlink()
        if started.exists() and not any(users.iterdir()):
            stop_engine(report=reporter.say)


@pytest.fixture(scope="session")
def local_images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Staging, with images that are on the engine: pulled, or made here where no registry can be reached."""
    import docker  # noqa: PLC0415

    from operations.engine.images import third_party_images  # noqa: PLC0415
    from operations.lifecycle.prepare import prepare  # noqa: PLC0415
    from operations.workspace.workspace import Workspace  # noqa: PLC0415

    workspace = Workspace(environment="staging", home=tmp_path_factory.mktemp("images"), isolated=True)
    prepare(workspace)
    environment = workspace.settings()
    for name in third_party_images(environment):
        reference = environment.image(name)
        try:
            engine.images.get(reference)
        except docker.errors.ImageNotFound:
            engine.images.pull(reference)
    return environment
