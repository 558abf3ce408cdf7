"""The state of a clone moves to where a team reaches it: by the real Pulumi, to a folder and to a bucket."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from host.cache import cache_directory
from operations.clone import ROOT
from operations.errors import ProjectError
from operations.lifecycle import move_state
from operations.workspace import backend as places
from operations.workspace import pulumi_state
from operations.workspace.backend import Backend
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from tests.backup_image.s3_server import BUCKET, REGION, S3Server, built

PROGRAM = """\
import pulumi, pulumi_random
for name in {names!r}:
    pulumi_random.RandomPassword(f"secret-{{name}}", length=24, keepers={{"generation": "1"}})
"""
TAG = "samokoder:good-commit"


class KilledError(Exception):
    """The process is no more."""


@pytest.fixture
def name(engine: docker.DockerClient) -> str:
    """An environment that nobody has; what asks for its lock asks the machine's engine."""
    assert engine.ping()
    return f"m{secrets.token_hex(3)}"


@pytest.fixture
def clone(tmp_path: Path, name: str) -> Workspace:
    """A clone whose small program makes two secrets, brought up with a state of its own."""
    root = tmp_path / "first clone"
    root.mkdir()
    shutil.copy(ROOT / "Pulumi.yaml", root)
    (root / f"Pulumi.{name}.yaml").write_text("config: {}\n")
    workspace = working(root, name)
    up(workspace, ["one", "two"])
    workspace.open().pulumi("stack", "tag", "set", TAG, "a" * 40, capture=True)
    return workspace


def working(root: Path, name: str) -> Workspace:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "AWS_"))}
    home = {"HOME": str(root.parent / "home"), "OFFLINE": "1"}
    return Workspace(environment=name, root=root, variables={**variables, **home}, cache=cache_directory())


def up(workspace: Workspace, names: list[str]) -> None:
    (workspace.root / "__main__.py").write_text(PROGRAM.format(names=names))
    workspace.open().pulumi("up", "--yes", "--skip-preview", capture=True)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket of a real S3 server: its address for Pulumi, and the variables of who may use it."""
    server = S3Server(built(), tmp_path / "server").start()
    server.make_bucket()
    server.allow(all=("s3:GetObject", "s3:PutObject", "s3:DeleteObject"))
    where = f"endpoint=127.0.0.1:{server.port}&region={REGION}&s3ForcePathStyle=true&disableSSL=true"
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key, "AWS_REGION": REGION}
    yield f"s3://{BUCKET}?{where}", keys
    server.stop()


def at(workspace: Workspace, url: str) -> PulumiRun:
    return workspace.connected(Backend(url=url, origin="test"))


def told(call: Callable[[], Any]) -> str:
    with pytest.raises(ProjectError) as error:
        call()
    return str(error.value)


def second_clone(first: Workspace, name: str) -> Workspace:
    """What a colleague has who clones what is committed."""
    root = first.root.parent / name
    shutil.copytree(first.root, root, ignore=shutil.ignore_patterns(".samokoder", "__pycache__"))
    return replace(first, root=root)


def joins(first: Workspace) -> None:
    """A colleague works with the state once he has the passphrase, and makes none of his own before."""
    colleague = second_clone(first, "second clone")
    assert "team's passphrase" in told(colleague.open), "another passphrase would be made, and open nothing"
    assert not (colleague.folder / "passphrase").exists()
    shutil.copy(first.folder / "passphrase", colleague.folder / "passphrase")
    run = colleague.open()
    assert run.secrets() == first.open().secrets(), "he sees the same secrets"
    run.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    tried = second_clone(first, "a clone with a trial")
    trial = replace(tried, variables={**tried.variables, places.VARIABLE: (tried.root / "own").as_uri()})
    (tried.root / "own").mkdir()
    trial.open()
    (tried.folder / "passphrase").write_text((first.folder / "passphrase").read_text())
    assert tried.open().secrets() == run.secrets(), "the salt of the trial hides the team's state"


def check_moved(workspace: Workspace, url: str, before: dict[str, Any], files: dict[str, bytes]) -> None:
    run = workspace.open()
    assert run.backend == Backend(url=url, origin="Pulumi.yaml"), "the clone works with the new state"
    assert run.in_plain()["resources"] == before["resources"], "a resource or a secret was lost"
    assert run.tags()[TAG] == "a" * 40, "CI would know no commit to go back to"
    assert places.COPY_OF not in run.tags(), "a second move there could overwrite it"
    old = workspace.folder / "state"
    assert {str(path): path.read_bytes() for path in old.rglob("*.json")} == files, "the old state was touched"
    left = replace(workspace, variables={**workspace.variables, places.VARIABLE: old.as_uri()})
    assert f"was moved from {old.as_uri()}" in told(left.open), "two states of one environment"
    text = (workspace.root / "Pulumi.yaml").read_text()
    assert text.replace(f'# {places._NOTE}\nbackend:\n  url: "{url}"\n', "") == (ROOT / "Pulumi.yaml").read_text()


def state_files(workspace: Workspace) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (workspace.folder / "state").rglob("*.json")}


def test_a_state_moves_to_a_folder_and_a_colleague_works_with_it(clone: Workspace, tmp_path: Path) -> None:
    before, files, url = clone.open().in_plain(), state_files(clone), (tmp_path / "for all of us").as_uri()
    moved = move_state.move(clone, url)
    assert moved.resources == {clone.name: len(before["resources"])}
    check_moved(clone, url, before, files)
    plain = [value.encode() for value in clone.open().secrets().values()]
    copied = [path.read_bytes() for path in (tmp_path / "for all of us").rglob("*") if path.is_file()]
    assert not [one for one in copied for value in plain if value in one], "a secret lies there in plain text"
    joins(clone)
    assert "is there already" in told(lambda: move_state.move(clone, url)), "typed twice it does no harm"
    assert "has left" in told(lambda: move_state.move(clone, (clone.folder / "state").as_uri())), "what is there is old"


def test_a_state_moves_to_a_bucket_and_on_to_another_place(
    clone: Workspace, bucket: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    url, keys = bucket
    before, files = clone.open().in_plain(), state_files(clone)
    assert "failed" in told(lambda: move_state.move(clone, url)), "without keys of the bucket nothing goes there"
    clone = replace(clone, variables={**clone.variables, **keys})
    move_state.move(clone, url)
    check_moved(clone, url, before, files)
    joins(clone)
    late = clone.open()
    again = (tmp_path / "another").as_uri()
    move_state.move(clone, again)
    assert clone.open().in_plain()["resources"] == before["resources"]
    old = replace(clone, variables={**clone.variables, places.VARIABLE: url})
    assert again in told(old.open), "an old PULUMI_BACKEND_URL leads to a state that nobody keeps any more"
    assert again in told(lambda: late.pulumi("up", "--yes")), "it was opened before the move, and would change the old"


STEPS = ({"init"}, {"import"}, {"tag", "set"}, {"tag", "rm"})
"""Words of the commands of `pulumi stack` that change a place."""
IMPORTED = 3
"""How many changes there have been when the copy is whole and not compared yet."""
MARKED = IMPORTED + 2
"""And when the old place has its mark: the tag of the commit goes along before that."""


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the process die after so many changes from now on; 0: never."""
    left = [0]

    def dies_after(function: Callable[..., Any], changes: Callable[..., bool]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            done = function(*words, **options)
            left[0] -= changes(*words)
            if not left[0] and changes(*words):
                raise KilledError
            return done

        return call

    def is_step(_run: PulumiRun, *words: str) -> bool:
        return words[:1] == ("stack",) and any(step <= set(words[1:3]) for step in STEPS)

    monkeypatch.setattr(PulumiRun, "pulumi", dies_after(PulumiRun.pulumi, is_step))
    for name in ("mark", "write"):
        monkeypatch.setattr(places, name, dies_after(getattr(places, name), lambda *_: True))

    def after(changes: int) -> None:
        left[0] = changes

    return after


def is_killed(workspace: Workspace, url: str) -> bool:
    try:
        move_state.move(workspace, url)
    except KilledError:
        return True
    return False


def test_cut_off_after_any_step_the_same_command_goes_on(
    clone: Workspace, tmp_path: Path, kill_after: Callable[[int], None]
) -> None:
    kills = 0
    while True:
        root = tmp_path / f"clone {kills}"
        shutil.copytree(clone.root, root, ignore=shutil.ignore_patterns("__pycache__"))
        mine, url = replace(clone, root=root), (tmp_path / f"team {kills}").as_uri()
        kill_after(kills + 1)
        if not is_killed(mine, url):
            break
        kills += 1
        kill_after(0)
        go_on(mine, url, changed=kills == IMPORTED)
        run = at(mine, url)
        expected = pulumi_state.checkpoint(root / ".samokoder/state", mine.name)
        assert expected
        assert len(run.deployment()["resources"]) == len(expected["resources"]), f"lost after step {kills}"
        assert set(run.tags()) & {places.COPY_OF, TAG} == {TAG}, f"after step {kills}"
    assert kills > IMPORTED + 3, "a step is not killed any more"


@pytest.mark.parametrize("lost", [False, True], ids=["the old place is there", "the old place is lost"])
def test_a_move_whose_machine_is_gone_after_the_mark_is_finished_in_another_clone(
    clone: Workspace, tmp_path: Path, kill_after: Callable[[int], None], lost: bool
) -> None:
    before, url, old = clone.open().in_plain(), (tmp_path / "team").as_uri(), clone.backend()
    kill_after(MARKED)
    assert is_killed(clone, url)
    kill_after(0)
    assert places.moved_to(old) == url, "the mark is not the step that it was killed after"
    other = second_clone(clone, "another clone")
    other.folder.mkdir()
    shutil.copy(clone.folder / "passphrase", other.folder / "passphrase")
    there = replace(other, variables={**other.variables, places.VARIABLE: url})
    if lost:
        shutil.rmtree(clone.folder)
        said = told(there.open)
        assert f"make pulumi ARGS='{' '.join(places.OPENS_COPY)}' ENV={clone.name}" in said, "nobody could open it"
        there.open_copy().pulumi(*places.OPENS_COPY, capture=True)
    else:
        move_state.move(replace(other, variables={**other.variables, places.VARIABLE: old.url}), url)
    run = there.open()
    assert run.in_plain()["resources"] == before["resources"]
    assert set(run.tags()) & {places.COPY_OF, TAG} == {TAG}
    run.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)


def go_on(workspace: Workspace, url: str, *, changed: bool) -> None:
    """Type the command again. changed: once somebody has worked with the old state, which is still the truth."""
    place = workspace.backend()
    if place.url == url:
        assert "is there already" in told(lambda: move_state.move(workspace, url))
        return
    if changed:
        assert not places.moved_to(place)
        up(workspace, ["one", "two", "three"])
    move_state.move(workspace, url)
    assert workspace.backend().url == url


def test_nothing_moves_while_somebody_changes_the_environment(clone: Workspace, tmp_path: Path) -> None:
    holds = (
        "import sys\nfrom pathlib import Path\nfrom operations.workspace import lock\n"
        "from operations.workspace.workspace import Workspace\n"
        f"with lock.held(Workspace(environment={clone.name!r}, root=Path({str(clone.root)!r})), 'restore'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    url = (tmp_path / "team").as_uri()
    words = [sys.executable, "-c", holds]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        assert "is being changed" in told(lambda: move_state.move(clone, url))
    assert not (tmp_path / "team").exists(), "the copy would be old before it is used"
    assert clone.open().backend.origin == places.OWN
    move_state.move(clone, url)


def test_a_place_that_has_another_state_of_that_name_is_refused(clone: Workspace, tmp_path: Path) -> None:
    url = (tmp_path / "team").as_uri()
    other = second_clone(clone, "another team")
    up(other, ["other"])
    move_state.move(other, url)
    theirs = other.open().in_plain()
    assert f"has another {clone.name} already" in told(lambda: move_state.move(clone, url))
    assert other.open().in_plain() == theirs, "somebody else's state was overwritten"
    assert clone.open().backend.origin == places.OWN, "and this clone works on with its own"
    (clone.root / f"Pulumi.{clone.name}.yaml").rename(clone.root / "Pulumi.other.yaml")
    elsewhere = replace(clone, environment="other")
    assert "bring that file back" in told(lambda: move_state.move(elsewhere, (tmp_path / "b").as_uri()))
