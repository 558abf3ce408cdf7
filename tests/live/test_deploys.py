"""Rolling deploys: under load from many users, no request is lost, whether the new version is a good one or not."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import dedent

import docker
import httpx
import pytest

from operations import __main__ as command
from operations.engine import containers
from operations.engine.part_status import NOT_AVAILABLE, PartStatus
from operations.errors import PulumiFailedError
from operations.lifecycle.prepare import prepare
from operations.lifecycle.up import bring_up
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.parts.api.reference import reference_image
from tests.live.conftest import begin_up, cut_off, under_load, up_with_llm, url, with_config
from tests.live.load import Load

pytestmark = pytest.mark.deploy

# The stack starts the API by this name, found on the image's PATH, so a script in its place is another version.
UVICORN = "/opt/venv/bin/uvicorn"
MIGRATE = "/opt/venv/bin/migrate"
GOOD_MIGRATION = "#!/bin/sh\nexec python -m samokoder.migrate\n"


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A version that is bad, by the scripts that it has in place of good ones."""

    scripts: Mapping[str, str]
    replaced: frozenset[str]
    """Parts that are replaced before it is known; no other may be."""
    said: str
    """Pattern that must be on the screen: the container's last lines, or what the engine says of it."""


BAD = {
    "does not start": Bad(
        scripts={UVICORN: "#!/bin/sh\necho 'ModuleNotFoundError: no module named tomorrow' >&2\nexit 1\n"},
        replaced=frozenset({"migrations", "api-1"}),
        said=r"no module named tomorrow",
    ),
    "listens on the wrong port": Bad(
        scripts={UVICORN: "#!/bin/sh\nexec python -m uvicorn samokoder.main:app --host 0.0.0.0 --port 8001\n"},
        replaced=frozenset({"migrations", "api-1"}),
        said=r"(?s)Connection refused.*log: ",
    ),
    "fails its migration": Bad(
        scripts={MIGRATE: "#!/bin/sh\necho 'migration failed: the column is there already' >&2\nexit 1\n"},
        replaced=frozenset({"migrations"}),
        said=r"the column is there already",
    ),
    "falls ill after ten seconds": Bad(
        scripts={
            UVICORN: dedent("""\
                #!/opt/venv/bin/python
                import time
                begun = time.monotonic()
                import uvicorn
                from samokoder.main import app
                async def sick(scope, receive, send):
                    if scope["type"] != "http" or time.monotonic() < begun + 10:
                        return await app(scope, receive, send)
                    print("ill:", scope["path"], flush=True)
                    await send({"type": "http.response.start", "status": 503, "headers": []})
                    await send({"type": "http.response.body", "body": b"ill"})
                uvicorn.run(sick, host="0.0.0.0", port=8000)
                """)
        },
        replaced=frozenset({"migrations", "api-1"}),
        said=r"(?s)HTTP Error 503.*ill: /health",
    ),
    "runs out of memory": Bad(
        scripts={
            UVICORN: "#!/opt/venv/bin/python\nprint('all that I can get', flush=True)\n"
            "held = [b'x' * 2**20 for _ in range(2**20)]\n"
        },
        replaced=frozenset({"migrations", "api-1"}),
        said=r"(?s)api-1 is not healthy.*(with 137|restarted \d+ times).*all that I can get",
    ),
}


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient) -> Iterator[list[str]]:
    """Ids of the images that were made; they go once no container is made from them."""
    made: list[str] = []
    yield made
    for image in made:
        engine.images.remove(image)


@pytest.fixture(scope="module")
def first(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient, images: list[str]
) -> Iterator[Workspace]:
    """The stack as it is first brought up, and its LLM; gone when these tests are over."""
    del images  # that fixture ends after this one
    workspace = under_load(new_workspace())
    with up_with_llm(workspace, engine):
        yield workspace


@pytest.fixture(scope="module")
def made(first: Workspace, engine: docker.DockerClient, images: list[str]) -> Callable[[Mapping[str, str]], str]:
    """Makes images from the reference application's and other files; returns their ids."""
    base = reference_image(first.settings()).name

    def make(files: Mapping[str, str]) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, text in {MIGRATE: GOOD_MIGRATION, **files}.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.mode, entry.size = 0o755, len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        container = engine.containers.create(base)
        try:
            container.put_archive("/", buffer.getvalue())
            images.append(str(container.commit().id))
        finally:
            container.remove()
        return images[-1]

    return make


@pytest.fixture(scope="module")
def good(first: Workspace, made: Callable[[Mapping[str, str]], str]) -> Workspace:
    """The version that is there after the first change of images: the team's own, so to speak."""
    return of_image(first, made({"/app/release": "2"}))


def of_image(workspace: Workspace, image: str) -> Workspace:
    """The same workspace with this image for the API, its migrations and the worker."""
    application = {"image": image}
    config = {"samokoder:api": application, "samokoder:worker": application}
    return with_config(workspace, {**config, "samokoder:migrations": {"command": ["migrate"]}})


def replaced(engine: docker.DockerClient, workspace: Workspace, before: Mapping[str, str]) -> set[str]:
    """Parts that have another container than before."""
    after = containers.ids(engine, workspace.name)
    assert after.keys() == before.keys(), "parts came or went"
    return {part for part, container in after.items() if before[part] != container}


@pytest.fixture
def load(first: Workspace) -> Load:
    """Users of the stack; a test says from when until when."""
    return Load(url(first.settings(), "ingress"))


def test_another_image_replaces_one_container_after_the_other_and_every_job_is_done_once(
    first: Workspace, good: Workspace, load: Load, engine: docker.DockerClient
) -> None:
    before = containers.ids(engine, first.name)
    with load:
        bring_up(good, interactive=False)
    assert replaced(engine, first, before) == {"migrations", "api-1", "api-2", "worker"}
    load.report.assert_nothing_lost()
    assert load.report.reopened, "no stream was there when its replica ended: nothing was tried"
    started = [
        containers.find(engine, good.settings(), part).attrs["State"]["StartedAt"]
        for part in ("migrations", "api-1", "api-2")
    ]
    assert started == sorted(started), "migrations first, then one replica, then the other"


@pytest.fixture(scope="module")
def serving(good: Workspace) -> Workspace:
    """The good version, up: it is, unless somebody runs one test alone. Those of bad versions leave it so."""
    bring_up(good, interactive=False)
    return good


@pytest.mark.parametrize("what", BAD)
def test_while_a_bad_version_fails_the_good_one_serves_and_then_repairs_it(
    what: str,
    serving: Workspace,
    made: Callable[[Mapping[str, str]], str],
    load: Load,
    engine: docker.DockerClient,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = BAD[what]
    health = {"intervalSeconds": 2, "startPeriodSeconds": 15, "retries": 2, "waitTimeoutSeconds": 22}
    worse = with_config(
        of_image(serving, made(bad.scripts)),
        {
            "samokoder:api": {"health": health},
            "samokoder:migrations": {"health": {**health, "startPeriodSeconds": 1, "waitTimeoutSeconds": 30}},
        },
    )
    before = containers.ids(engine, serving.name)
    capfd.readouterr()
    with load:
        if what == "does not start":  # once as a person types it
            monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: worse)
            with pytest.raises(SystemExit) as ended:
                command.main(["up"])
            assert ended.value.code == 1
        else:
            with pytest.raises(PulumiFailedError):
                bring_up(worse, interactive=False)
        said = "".join(capfd.readouterr())
        broken = replaced(engine, serving, before)
        rows = bring_up(serving, interactive=False).parts
    assert broken == bad.replaced, "a bad version went further than it may"
    assert re.search(bad.said, said), f"a person must see why:\n{said}"
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    assert replaced(engine, serving, before) == bad.replaced, "a repair replaces what was broken"
    load.report.assert_nothing_lost()


def test_another_setting_replaces_only_what_has_it(serving: Workspace, load: Load, engine: docker.DockerClient) -> None:
    before = containers.ids(engine, serving.name)
    environment = {**serving.extra_config["samokoder:api"]["environment"], "LOG_LEVEL": "warning"}
    with load:
        bring_up(with_config(serving, {"samokoder:api": {"environment": environment}}), interactive=False)
    assert replaced(engine, serving, before) == {"migrations", "api-1", "api-2"}, "the worker has not this setting"
    load.report.assert_nothing_lost()


def test_an_up_that_is_killed_in_the_middle_of_a_roll_leaves_a_service_and_the_next_one_ends_it(
    first: Workspace, serving: Workspace, load: Load, engine: docker.DockerClient
) -> None:
    before = containers.ids(engine, serving.name)
    with load:
        run = prepare(first)
        process = begin_up(run)
        while containers.ids(engine, serving.name).get("api-1", before["api-1"]) == before["api-1"]:
            assert process.poll() is None, "it was over before the first replica was replaced"
            time.sleep(0.2)
        cut_off(process)
        assert containers.ids(engine, serving.name)["api-2"] == before["api-2"], "the other one serves"
        rows = bring_up(first, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    assert {"api-1", "api-2"} <= replaced(engine, serving, before)
    load.report.assert_nothing_lost()


ILL_AFTER_SECONDS = 10
LAST_ALONE = '#!/bin/sh\n[ "$(hostname)" = api-2 ] && exec /opt/venv/bin/bad\nexec python -m uvicorn "$@"\n'


@pytest.mark.parametrize("stable_seconds", [15, 6])
@pytest.mark.parametrize("what", [what for what in BAD if UVICORN in BAD[what].scripts])
def test_going_back_takes_the_sick_last_replica_first_and_never_the_one_that_serves(
    what: str,
    stable_seconds: int,
    serving: Workspace,
    made: Callable[[Mapping[str, str]], str],
    load: Load,
    engine: docker.DockerClient,
) -> None:
    health = {"intervalSeconds": 2, "startPeriodSeconds": 17, "retries": 2, "waitTimeoutSeconds": 40}
    there = with_config(serving, {"samokoder:api": {"stableSeconds": stable_seconds, "health": health}})
    bring_up(there, interactive=False)
    bad = made({UVICORN: LAST_ALONE, "/opt/venv/bin/bad": BAD[what].scripts[UVICORN]})
    before, begun = containers.ids(engine, serving.name), time.monotonic()
    with load:
        with contextlib.suppress(PulumiFailedError):
            bring_up(of_image(there, bad), interactive=False)
        assert {"api-1", "api-2"} <= replaced(engine, serving, before), "the fault is at the last one alone"
        end = time.monotonic() + 60
        while (row := _row(there, "api-2")).ok:  # the one that falls ill later than it was watched
            assert time.monotonic() < end, row
            time.sleep(1)
        _answers_well(url(serving.settings(), "ingress"))
        left_out = time.monotonic() - begun
        rows = bring_up(there, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    # What a replica says itself before the ingress knows that it is ill is the version's fault, and no deploy's.
    lost = [each for each in load.report.failed if not (each.what == "503 ill" and each.at < left_out)]
    assert stable_seconds < ILL_AFTER_SECONDS or lost == load.report.failed, "it was let in before it was steady"
    replace(load.report, failed=lost).assert_nothing_lost()


def _answers_well(entry: str) -> None:
    """Wait until the ingress has left out the replica that is ill: they are asked in turn."""
    end, well = time.monotonic() + 180, 0
    with httpx.Client(base_url=entry, timeout=60, trust_env=False) as client:
        while well < 20:
            assert time.monotonic() < end, "the ingress goes on asking a replica that is ill"
            try:
                well = well + 1 if client.get("/").is_success else 0
            except httpx.TransportError:
                well = 0


def _row(workspace: Workspace, part: str) -> PartStatus:
    return next(row for row in live_status(workspace) if row.part == part)
