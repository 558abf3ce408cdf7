"""The working state of a clone: whose backend, whose passphrase, what this machine adds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations.engine.images import third_party_images
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle import prepare as preparing
from operations.lifecycle.prepare import Prepared, prepare, refuse_changed
from operations.workspace import origins, pulumi_cli, pulumi_state, stack_file
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "a clone"
    root.mkdir()
    (root / "Pulumi.yaml").write_text("name: samokoder\nruntime: {name: python}\n", encoding="utf-8")
    (root / "Pulumi.staging.yaml").write_text("config: {}\n", encoding="utf-8")
    return root


def _workspace(clone: Path, **arguments: Any) -> Workspace:
    variables = {"HOME": str(clone.parent / "home"), "PATH": os.environ["PATH"]}
    return Workspace(root=clone, variables=variables | arguments.pop("variables", {}), **arguments)


def _passphrase(workspace: Workspace) -> dict[str, str]:
    run = workspace.pulumi_by("", {}, workspace.backend())
    return workspace._passphrase(workspace.document(), run, make=True)


def _installed(*, variables: dict[str, str], **_: object) -> SimpleNamespace:
    return SimpleNamespace(program="pulumi", variables=variables)


def test_the_state_is_in_the_clone_when_the_user_has_chosen_nothing(clone: Path) -> None:
    backend = _workspace(clone).backend()

    assert backend.folder == clone / ".samokoder/state", "a trial needs no account, and a space in a path is no error"


def test_the_users_own_backend_is_respected(clone: Path) -> None:
    (clone.parent / "home/.pulumi").mkdir(parents=True)
    (clone.parent / "home/.pulumi/credentials.json").write_text('{"current": "s3://login"}', encoding="utf-8")

    assert _workspace(clone).backend().url == "s3://login", "a team that has logged in must not get a second state"
    assert _workspace(clone, variables={"PULUMI_BACKEND_URL": "s3://bucket"}).backend().url == "s3://bucket", (
        "the variable is Pulumi's own and comes first"
    )
    assert _workspace(clone, variables={"PULUMI_ACCESS_TOKEN": "x"}).backend().url == "", (
        "with a token Pulumi finds its service itself"
    )


def test_an_isolated_workspace_never_reaches_the_users_backend(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"PULUMI_BACKEND_URL": "s3://bucket", "PULUMI_CONFIG_PASSPHRASE": "x"}
    workspace = _workspace(clone, isolated=True, variables=variables)

    monkeypatch.setattr(pulumi_cli, "ensure_pulumi", _installed)
    given = workspace.connected().variables

    assert workspace.backend().folder == clone / ".samokoder/state", "a test must not write into a team's state"
    assert "PULUMI_CONFIG_PASSPHRASE" not in given, "nor encrypt under the team's passphrase"
    assert given["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(clone / ".samokoder/passphrase")


def test_a_passphrase_is_generated_once_and_only_its_owner_can_read_it(clone: Path) -> None:
    first = Path(_passphrase(_workspace(clone))["PULUMI_CONFIG_PASSPHRASE_FILE"])
    text = first.read_text(encoding="utf-8")
    again = Path(_passphrase(_workspace(clone))["PULUMI_CONFIG_PASSPHRASE_FILE"])

    assert stat.S_IMODE(first.stat().st_mode) == 0o600, "it opens every secret of the state"
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700, "nobody else has any business there"
    assert again.read_text(encoding="utf-8") == text, "another one would not open the state any more"
    assert len(text) >= 64, "it must not be guessable"


def test_two_first_runs_at_once_have_one_passphrase(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def nothing_encrypted_yet(_run: PulumiRun) -> list[str]:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # until the other one has looked too, where it may
        return []

    monkeypatch.setattr(PulumiRun, "encrypted_stacks", nothing_encrypted_yet)

    made: list[str] = []
    write = stack_file.write

    def noted(path: Path, text: str) -> None:
        made.append(text)
        write(path, text)

    monkeypatch.setattr(stack_file, "write", noted)
    (clone / "Pulumi.prod.yaml").write_text("config: {}\n", encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: _passphrase(_workspace(clone, environment=name)), ["staging", "prod"]))
    assert made == [(clone / ".samokoder/passphrase").read_text()], "what the other one encrypts could never be read"


def test_a_stack_that_another_run_has_made_meanwhile_is_taken(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[str] = []

    def pulumi(_run: PulumiRun, *words: str, **_: object) -> None:
        assert words[:2] == ("stack", "init")
        there.append("staging")
        raise PulumiFailedError("stack 'staging' already exists")

    monkeypatch.setattr(PulumiRun, "pulumi", pulumi)
    monkeypatch.setattr(PulumiRun, "stacks", lambda _: list(there))
    workspace = _workspace(clone)
    run = workspace.pulumi_by("", {}, workspace.backend())
    run.ensure_stack(workspace.document())
    assert workspace.stack_file.is_file()
    there.clear()
    monkeypatch.setattr(PulumiRun, "stacks", lambda _: [])
    with pytest.raises(PulumiFailedError, match="already exists"):
        run.ensure_stack(workspace.document())


def test_the_users_own_passphrase_is_respected(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi_cli, "ensure_pulumi", _installed)
    given = _workspace(clone, variables={"PULUMI_CONFIG_PASSPHRASE_FILE": "/own"}).connected().variables

    assert Path(given["PULUMI_CONFIG_PASSPHRASE_FILE"]) == Path("/own"), "it is the one that their secrets are under"
    assert not (clone / ".samokoder/passphrase").exists(), "and a second one would only confuse"


def test_a_team_encrypted_stack_file_asks_for_the_teams_passphrase(clone: Path) -> None:
    (clone / "Pulumi.staging.yaml").write_text("encryptionsalt: v1:team\nconfig: {}\n", encoding="utf-8")

    with pytest.raises(ProjectError, match="PULUMI_CONFIG_PASSPHRASE_FILE"):
        _passphrase(_workspace(clone))


def test_a_lost_passphrase_is_told_and_no_other_one_is_made(clone: Path) -> None:
    stacks = clone / ".samokoder/state/.pulumi/stacks/samokoder"
    stacks.mkdir(parents=True)
    (stacks / "staging.json").write_text('{"checkpoint": {}}', encoding="utf-8")

    with pytest.raises(ProjectError, match="passphrase of this state is gone"):
        _passphrase(_workspace(clone))


def test_the_copy_keeps_its_salt_and_the_committed_file_is_never_written(clone: Path) -> None:
    workspace = _workspace(clone, extra_config={"samokoder:api": {"port": 18000}})
    before = (clone / "Pulumi.staging.yaml").read_bytes()
    stack_file.write(workspace.stack_file, "encryptionsalt: v1:kept\nconfig:\n  samokoder:old: 1\n")

    document = workspace.document()

    assert document == {"encryptionsalt": "v1:kept", "config": {"samokoder:api": {"port": 18000}}}, (
        "the copy is made anew from the committed file; only the salt is Pulumi's own"
    )
    assert (clone / "Pulumi.staging.yaml").read_bytes() == before, "`git status` stays clean"


def test_a_stack_of_another_name_has_its_own_copy(clone: Path) -> None:
    workspace = _workspace(clone, stack="t1")

    assert workspace.stack_file == clone / ".samokoder/Pulumi.t1.yaml", "two stacks of one file must not share a salt"
    assert workspace.settings().name == "t1", "everything on the engine is named after the stack"


def test_only_images_that_nobody_configured_are_looked_for(clone: Path) -> None:
    own = "mirror.example.org/redis:7@sha256:" + "0" * 64
    (clone / "Pulumi.staging.yaml").write_text(f"config:\n  samokoder:images: {{redis: '{own}'}}\n", encoding="utf-8")

    names = third_party_images(_workspace(clone).settings())

    assert "redis" not in names, "the team's mirror has it"
    others = {"postgres", "prometheus", "grafana", "python", "backup"}
    assert others <= set(names), "the others come from a registry or from here"


def test_the_engine_is_asked_with_the_patience_that_the_question_needs(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr(
        "operations.workspace.workspace.connect", lambda host, *, timeout: asked.append((host, timeout))
    )
    workspace = _workspace(clone, extra_config={"samokoder:dockerHost": "unix:///own.sock"})

    workspace.client(timeout=120)
    workspace.client()

    (_, patient), (host, usual) = asked
    assert host == "unix:///own.sock", "another engine's volumes would be looked at"
    assert patient == 120, "an engine removes a volume of some GiB while it is asked"
    assert usual < patient, "but `status` of one that hangs must not take minutes"


def _run(clone: Path, code: str) -> PulumiRun:
    """Return a run whose "pulumi" is a Python program: how a process is treated is what is tested."""
    program = clone / "pulumi"
    program.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
    program.chmod(0o755)
    workspace = _workspace(clone)
    return replace(workspace.pulumi_by(str(program), os.environ, workspace.backend()), folder=clone)


@pytest.mark.parametrize(
    ("host", "own", "expected"),
    [
        ("", {}, "64"),
        ("ssh://root@prod.example.com", {}, "8"),
        ("", {"PULUMI_PARALLEL": "3"}, "3"),
    ],
)
def test_containers_that_wait_for_health_hold_no_others_back_but_logins_are_few(
    clone: Path, monkeypatch: pytest.MonkeyPatch, host: str, own: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(pulumi_cli, "ensure_pulumi", _installed)
    monkeypatch.setattr(PulumiRun, "mend", lambda _: None)
    monkeypatch.setattr(PulumiRun, "ensure_stack", lambda *_, **__: None)
    config = {"samokoder:dockerHost": host} if host else {}

    run = _workspace(clone, variables=own, extra_config=config).open()

    assert run.variables["PULUMI_PARALLEL"] == expected, "Pulumi's own default is four for each core"


def test_pulumi_sees_sigint_although_the_shell_has_us_ignore_it(clone: Path) -> None:
    run = _run(clone, "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in `nohup make up &`
    try:
        said = run.pulumi("preview", capture=True).stdout.strip()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "we go on ignoring it"
    finally:
        signal.signal(signal.SIGINT, before)
    assert said == "False", "its plugins would be waited for five seconds and then killed"


def test_a_failed_command_says_which_and_what_it_printed(clone: Path) -> None:
    run = _run(clone, "import sys; print('why', file=sys.stderr); sys.exit(3)")

    with pytest.raises(PulumiFailedError, match=r"(?s)`pulumi stack init` failed:\nwhy"):
        run.pulumi("stack", "init", "x", capture=True)
    assert run.pulumi("preview", capture=True, check=False).returncode == 3, "without a check the status is the answer"


def test_a_state_of_megabytes_reaches_a_pulumi_that_begins_to_read_late(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.workspace.pulumi_process._TURN_SECONDS", 0.01)
    run = _run(clone, "import sys, time; time.sleep(0.1); print(len(sys.stdin.read()))")

    assert run.pulumi("stack", "import", given="x" * 1_000_000).stdout.strip() == "1000000", "it would wait for ever"


def test_lines_are_shown_as_they_come(clone: Path) -> None:
    shown: list[str] = []

    _run(clone, "import sys; print('out'); print('err', file=sys.stderr)").pulumi("up", show=shown.append)

    assert sorted(shown) == ["err", "out"], "errors belong to what a person follows"


LEAKS = """
import json, sys
said = " ".join(sys.argv[1:])
if said.startswith("config"):
    print(json.dumps({"samokoder:SMTP_PASSWORD": {"value": "mail-pass-word", "secret": True}}))
elif said.startswith("stack export"):
    print("{}")
else:
    print("making api-1\\nDiagnostics:\\n  docker: no login with mail-pass-word", flush=True)
    sys.exit(1)
"""


@pytest.mark.parametrize("command", ["preview", "up", "refresh", "destroy"])
def test_what_a_provider_says_of_an_error_is_shown_without_secrets(clone: Path, command: str) -> None:
    shown: list[str] = []
    run = _run(clone, LEAKS)

    with pytest.raises(PulumiFailedError):
        run.pulumi(command, show=shown.append)
    with pytest.raises(PulumiFailedError) as failed:
        run.pulumi(command, capture=True)

    assert shown == ["making api-1", "Diagnostics:", "  docker: no login with <samokoder:SMTP_PASSWORD>"]
    assert "no login with <samokoder:SMTP_PASSWORD>" in str(failed.value), "it goes to a log of CI, or to JSON"


TWO_SUMS = (
    LEAKS.partition("else:")[0]
    + """
else:
    import pathlib, time
    print("Previewing\\nDiagnostics:\\n  warning: mail-pass-word\\n    Resources:\\n  of mail-pass-word", flush=True)
    print("Resources:\\n    + 1 to create\\nUpdating\\n + api-1 creating", flush=True)
    ends = time.monotonic() + 20
    while not pathlib.Path("seen").exists():
        if time.monotonic() > ends:
            sys.exit(7)
        time.sleep(0.02)
    print("Diagnostics:\\n  error: mail-pass-word\\nResources:\\n    + 1 created", flush=True)
"""
)


def test_an_update_is_shown_while_it_lasts_although_its_preview_had_a_warning(clone: Path) -> None:
    shown: list[str] = []
    run = _run(clone, TWO_SUMS)

    def show(line: str) -> None:
        shown.append(line)
        if line == " + api-1 creating":
            (run.folder / "seen").write_text("")

    done = run.pulumi("up", show=show, check=False)

    assert done.returncode == 0, "a deploy of many minutes would be silent until its end"
    assert "mail-pass-word" not in "".join(shown), "an error's own line may be called as the one that ends them"
    assert shown[-4:] == ["Diagnostics:", "  error: <samokoder:SMTP_PASSWORD>", "Resources:", "    + 1 created"]


def test_an_error_is_shown_although_the_secrets_cannot_be_asked_for(clone: Path) -> None:
    run = _run(clone, "import sys; print('Diagnostics:\\n  the bucket does not answer'); sys.exit(1)")
    shown: list[str] = []

    run.pulumi("up", show=shown.append, check=False)

    assert "  the bucket does not answer" in shown, "the cause must be known at 3 a.m."


def test_a_termination_reaches_pulumi_which_is_waited_for(clone: Path) -> None:
    code = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("noted").write_text("")
    sys.exit(1)
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
    ready = threading.Event()

    def kill() -> None:
        ready.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill)
    killer.start()

    with pytest.raises(SystemExit):
        _run(clone, code).pulumi("up", show=lambda _line: ready.set())
    killer.join()

    assert (clone / "noted").exists(), "Pulumi must get to note what it has begun before we end"


def _interrupted(run: PulumiRun, process: int) -> None:
    backend = run.backend.folder
    assert backend is not None
    folder = backend / ".pulumi/locks/organization/samokoder/staging"
    folder.mkdir(parents=True)
    host = os.uname().nodename
    note = {"pid": process, "hostname": host, "timestamp": "t"}
    (folder / "1.json").write_text(json.dumps(note), encoding="utf-8")


def test_a_stale_lock_is_released_by_pulumi_itself(clone: Path) -> None:
    release = """
import pathlib, sys
assert sys.argv[1:] == ["cancel", "--yes"], sys.argv
for lock in pathlib.Path(".samokoder/state").rglob("*.json"):
    lock.unlink()
"""
    run = _run(clone, release)
    _interrupted(run, process=os.getpid())  # alive, but no Pulumi

    assert run._released(), "the lock of a killed run would stop every run after it"
    assert run.backend.folder is not None
    assert pulumi_state.locks(run.backend.folder, "staging") == [], "and it is Pulumi that removes it"


REFRESH = """
import json, pathlib, sys
given = sys.argv[1:]
assert given[0] == "refresh", given
excluded = {urn for option, urn in zip(given, given[1:]) if option == "--exclude"}
file = pathlib.Path(".samokoder/state/.pulumi/stacks/samokoder/staging.json")
state = json.loads(file.read_text())
latest = state["checkpoint"]["latest"]
latest["resources"] = [each for each in latest["resources"] if each["urn"] in excluded]  # the engine has nothing
del latest["pending_operations"]
file.write_text(json.dumps(state))
"""


def test_after_an_interruption_the_state_still_knows_of_a_data_volume_that_is_lost(clone: Path) -> None:
    run = _run(clone, REFRESH)
    volume = {
        "type": pulumi_state.VOLUME,
        "urn": "u$v::data-postgres",
        "protect": True,
        "outputs": {"name": "its-data"},
    }
    container = {"type": pulumi_state.CONTAINER, "urn": "u$c::postgres", "id": "c1", "outputs": {}}
    latest = {"resources": [volume, container], "pending_operations": [{"type": "creating"}]}
    _state(run, latest)

    run.settle(_engine(containers=[], networks=[]))

    left = run.deployment()
    assert pulumi_state.data_volumes(left) == {"postgres": "its-data"}, (
        "an `up` after this `down` would begin with an empty database and say nothing"
    )
    assert not pulumi_state.known_ids(left), "everything else is what the engine says"
    assert not pulumi_state.was_interrupted(left), "or every run would ask again"


REDIS = "redis:7.4.11-bookworm@sha256:" + "a" * 64
PULLED = {"type": pulumi_state.IMAGE, "urn": "u::redis-abc", "inputs": {"name": REDIS}}
OWN = {"type": pulumi_state.IMAGE, "urn": "u::app", "inputs": {"name": "redis:1", "build": {"context": "."}}}


def running(image: str) -> dict[str, Any]:
    return {"type": pulumi_state.CONTAINER, "urn": "u::redis", "id": "c", "inputs": {"name": "x", "image": image}}


FROM_REGISTRY, BUILT_HERE = [PULLED, running(REDIS)], [OWN, running("sha256:" + "b" * 64)]


@pytest.mark.parametrize("production", [False, True])
@pytest.mark.parametrize("typed", ["", "0", "1"])
@pytest.mark.parametrize("there", [[], FROM_REGISTRY, BUILT_HERE])
@pytest.mark.parametrize("reachable", [False, True])
def test_a_registry_that_is_silent_or_answers_again_never_swaps_the_images_of_what_runs(
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: list[dict[str, Any]],
    typed: str,
    reachable: bool,
    production: bool,
) -> None:
    workspace = _workspace(clone, variables={"OFFLINE": typed} if typed else {})
    environment = workspace.settings()
    settings = environment.settings.model_copy(update={"production": production})
    environment = environment.model_copy(update={"settings": settings})
    monkeypatch.setattr(stack_file, "read", lambda *_, **__: environment)
    monkeypatch.setattr(
        Workspace,
        "engine",
        lambda _: SimpleNamespace(docker_host="unix:///nowhere", version="20.10.24", other_users=""),
    )
    monkeypatch.setattr("operations.lifecycle.prepare._of_engine", lambda *_, **__: {})
    built: list[str] = []

    def build(*_: object, **__: object) -> dict[str, object]:
        built.append("built here")
        return {}

    monkeypatch.setattr("operations.lifecycle.prepare._of_images", build)
    monkeypatch.setattr("operations.lifecycle.prepare.connect", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr("operations.network.replacement.networks", lambda *_: {})
    monkeypatch.setattr("operations.engine.registry.pull", lambda *_, **__: None)
    monkeypatch.setattr("operations.lifecycle.prepare.has_images", lambda *_: False)
    monkeypatch.setattr("offline.registries.unreachable", lambda pinned, _: {} if reachable else {"all": list(pinned)})
    monkeypatch.setattr(Workspace, "open", lambda _: None)
    _state(_run(clone, ""), {"resources": there})
    local = typed == "1" or (typed != "0" and not reachable)
    refused = (there is FROM_REGISTRY and local and (production or typed != "1")) or (
        there is BUILT_HERE and not local and typed != "0"
    )

    if refused:
        with pytest.raises(ProjectError, match=r"(?s)redis.*Nothing was changed"):
            prepare(workspace)
        assert not built, "minutes of building for nothing"
        assert not workspace.machine_file.exists(), "what is asked next would take the other images for declared"
    else:
        prepare(workspace)
        assert bool(built) is local


def test_an_engine_that_remaps_users_is_refused_before_anything_is_built_or_written(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = _workspace(clone)
    engine = SimpleNamespace(docker_host="unix:///nowhere", other_users="it has userns-remap")
    monkeypatch.setattr(Workspace, "engine", lambda _: engine)
    with pytest.raises(ProjectError, match=r"Nothing was changed: it has userns-remap"):
        prepare(workspace)
    assert not workspace.machine_file.exists(), "facts about an engine that the stack does not run on"

    class GoesOnError(Exception):
        """It was not refused."""

    def goes_on(*_: object, **__: object) -> None:
        raise GoesOnError

    monkeypatch.setattr("operations.lifecycle.prepare._of_engine", goes_on)
    monkeypatch.setattr("operations.workspace.pulumi_state.known_names", lambda _: {"samokoder-staging-postgres"})
    with pytest.raises(GoesOnError):
        prepare(workspace)


def test_a_silent_registry_swaps_nothing_that_comes_from_another_one(clone: Path) -> None:
    environment = _workspace(clone).settings()

    origins.refuse_others(
        environment, {"resources": FROM_REGISTRY}, dict, built_here=["prometheus"], typed="", command="make up"
    )


@pytest.mark.parametrize(
    ("machine", "now", "said"),
    [
        # Another run in this clone has written its own machine file meanwhile, whatever was judged here.
        ({}, "nothing", ""),
        ({}, "registry", ""),
        ({}, "here", "images that were built here"),
        ({"samokoder:images": {"redis": "sha256:" + "b" * 64}}, "here", ""),
        ({"samokoder:images": {"redis": "sha256:" + "b" * 64}}, "registry", "images of a container registry"),
        ({"samokoder:unavailable": ["grafana"]}, "grafana", "other data volumes"),
        (
            {"samokoder:unavailable": ["grafana"], "samokoder:keptVolumes": {"grafana": "dashboards"}},
            "grafana",
            "",
        ),
        ({"samokoder:unavailable": ["grafana"]}, "nothing", ""),
    ],
)
def test_what_another_run_changed_while_this_one_built_images_is_seen(
    clone: Path, machine: dict[str, Any], now: str, said: str
) -> None:
    run, workspace = _run(clone, ""), _workspace(clone)
    volume = {"type": pulumi_state.VOLUME, "urn": "u$v::data-grafana", "outputs": {"name": "dashboards"}}
    resources = {"registry": FROM_REGISTRY, "here": BUILT_HERE, "grafana": [volume]}
    _state(run, {"resources": resources.get(now, [])})
    kept = machine.get("samokoder:keptVolumes", {})
    by = Prepared(
        run=run,
        facts={},
        built_here=["redis"] if "samokoder:images" in machine else [],
        machine={key: value for key, value in machine.items() if key != "samokoder:keptVolumes"},
        kept_volumes=kept,
    )
    other = {"samokoder:images": {"redis": "sha256:" + "d" * 64}, "samokoder:keptVolumes": {"grafana": "others"}}
    stack_file.write(workspace.machine_file, stack_file.dump(other, source="a test"))
    if said:
        with pytest.raises(ProjectError, match=rf"(?s)by another run.*Run it again.*{said}"):
            refuse_changed(workspace, by)
    else:
        refuse_changed(workspace, by)
        given = stack_file.load(workspace.stack_file)["config"]
        assert {key: given[key] for key in machine} == machine, "a run in the same clone wrote another one for Pulumi"
        assert not set(given) & set(other) - set(machine), "what was not judged must not be deployed"


MIRROR = "registry.example.org/mirror/redis:7.4.11@sha256:" + "c" * 64


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("production", [False, True])
def test_a_silent_registry_swaps_nothing_that_a_mirror_gave(clone: Path, *, production: bool, down: bool) -> None:
    """The line that names the mirror is not in this stack file: another clone, or somebody removed it."""
    environment = _workspace(clone).settings()
    settings = environment.settings.model_copy(update={"production": production})
    environment = environment.model_copy(update={"settings": settings})
    pulled = {"type": pulumi_state.IMAGE, "urn": "u::redis-def", "inputs": {"name": MIRROR}}
    state = [DATA] if down else [DATA, pulled, running(MIRROR)]
    tags = {"samokoder:image-of-redis": MIRROR}

    def up(*built_here: str, typed: str = "") -> None:
        origins.refuse_others(
            environment, {"resources": state}, lambda: tags, built_here=built_here, typed=typed, command="make up"
        )

    with pytest.raises(ProjectError, match=r"(?s)redis.*Nothing was changed"):
        up("redis")
    up()
    if not production:
        up("redis", typed="1")


class Noted:
    """A stack that was up with these resources, as Pulumi has it."""

    def __init__(self, resources: list[dict[str, Any]]) -> None:
        self.resources, self.noted, self.words = resources, dict[str, str](), list[tuple[str, ...]]()

    def deployment(self) -> dict[str, Any]:
        return {"resources": self.resources}

    def tags(self) -> dict[str, str]:
        return dict(self.noted)

    def pulumi(self, *words: str, **_: object) -> None:
        assert words[:3] == ("stack", "tag", "set"), words
        self.words.append(words)
        self.noted[words[3]] = words[4]


DATA = {"type": pulumi_state.VOLUME, "urn": "u$v::data-redis", "outputs": {"name": "its-data"}}


@pytest.mark.parametrize("production", [False, True])
@pytest.mark.parametrize("typed", ["", "0", "1"])
@pytest.mark.parametrize("before", [FROM_REGISTRY, BUILT_HERE])
@pytest.mark.parametrize("reachable", [False, True])
def test_an_up_after_a_down_swaps_no_image_under_the_data(
    clone: Path, before: list[dict[str, Any]], typed: str, reachable: bool, production: bool
) -> None:
    environment = _workspace(clone).settings()
    settings = environment.settings.model_copy(update={"production": production})
    environment = environment.model_copy(update={"settings": settings})
    run = Noted([*before, DATA])
    origins.note(cast("PulumiRun", run))
    run.resources = [DATA]  # all that `down` leaves of it
    origins.note(cast("PulumiRun", run))  # `down` once more
    local = typed == "1" or (typed != "0" and not reachable)
    built_here = third_party_images(environment) if local else []

    def up() -> None:
        origins.refuse_others(
            environment, run.deployment(), run.tags, built_here=built_here, typed=typed, command="make up"
        )

    refused = (before is FROM_REGISTRY and local and (production or typed != "1")) or (
        before is BUILT_HERE and not local and typed != "0"
    )
    if refused:
        with pytest.raises(ProjectError, match=r"(?s)redis.*Nothing was changed"):
            up()
    else:
        up()
    run.resources = []
    up()  # after `destroy-data` there is nothing that another version could not read


@pytest.mark.parametrize(
    ("resources", "asked"),
    [([*FROM_REGISTRY, DATA], False), ([*BUILT_HERE, DATA], False), ([], False), ([DATA], True)],
    ids=["it runs", "it runs, built here", "there is no data", "nothing runs on the data"],
)
def test_the_tags_of_a_stack_are_asked_for_only_where_data_has_no_container(
    clone: Path, resources: list[dict[str, Any]], asked: bool
) -> None:
    environment, asks = _workspace(clone).settings(), list[int]()

    def tags() -> dict[str, str]:
        asks.append(1)
        return {}

    deployment = {"resources": resources}
    origins.refuse_others(environment, deployment, tags, built_here=[], typed="0", command="make up")
    assert bool(asks) is asked, "of a bucket Pulumi is asked, which takes a second of each preview"


def test_a_state_in_a_bucket_is_read_without_its_tags(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(deployment=dict, tags=lambda: pytest.fail("Pulumi was asked"))
    monkeypatch.setattr(Workspace, "open", lambda _: run)
    workspace = replace(_workspace(clone), variables={"PULUMI_BACKEND_URL": "s3://state"})
    deployment, tags = preparing._state(workspace)
    assert (deployment, tags) == ({}, run.tags)


def test_where_the_images_came_from_is_noted_once_and_anew_when_it_changes() -> None:
    run = Noted([*FROM_REGISTRY, DATA])
    for _ in range(2):
        origins.note(cast("PulumiRun", run))
    assert run.words == [("stack", "tag", "set", "samokoder:image-of-redis", REDIS)], "a call of Pulumi takes a second"
    run.resources = [*BUILT_HERE, DATA]
    origins.note(cast("PulumiRun", run))
    assert run.noted == {"samokoder:image-of-redis": "sha256:" + "b" * 64}


def test_after_a_down_the_line_that_keeps_an_image_built_here_is_told(clone: Path) -> None:
    pulled = {"type": pulumi_state.IMAGE, "urn": "u::exporter", "inputs": {"name": EXPORTER}}
    tags = {"samokoder:image-of-redis": "sha256:" + "b" * 64}
    with pytest.raises(ProjectError, match=r"samokoder:images.redis: sha256:bbbb"):
        origins.refuse_others(
            _workspace(clone).settings(),
            {"resources": [pulled, DATA]},
            lambda: tags,
            built_here=[],
            typed="",
            command="make up",
        )


EXPORTER = "quay.io/prometheuscommunity/postgres-exporter:v0.20.1@sha256:" + "c" * 64


def test_where_one_registry_was_silent_at_first_what_keeps_data_changes_over_only_when_that_is_typed(
    clone: Path,
) -> None:
    environment = _workspace(clone).settings()
    pulled = {"type": pulumi_state.IMAGE, "urn": "u::exporter", "inputs": {"name": EXPORTER}}
    alertmanager = {**running("sha256:" + "d" * 64), "urn": "u::alertmanager"}
    state = {"resources": [pulled, *BUILT_HERE, alertmanager]}
    with pytest.raises(ProjectError) as refused:
        origins.refuse_others(environment, state, dict, built_here=[], typed="", command="make up")
    said = str(refused.value)
    assert "(redis)" in said, "Redis 7.4 takes the data of 7.0 and does not give it back"
    assert "samokoder:images.redis: sha256:bbbb" in said, "OFFLINE=1 would swap what came from a registry"
    origins.refuse_others(environment, state, dict, built_here=[], typed="0", command="make up")


@dataclass
class Listed:
    """A container or a network of an engine."""

    name: str
    volumes: tuple[str, ...] = ()
    removed: bool = False
    status: str = "created"

    @property
    def id(self) -> str:
        return f"id of {self.name} {self.volumes}"

    @property
    def attrs(self) -> dict[str, Any]:
        mounts, none = [{"Name": name} for name in self.volumes], dict[str, Any]()
        networks = {"NetworkSettings": {"Networks": none}, "Containers": none}
        return {"Mounts": mounts, "State": {"Running": False}, **networks}

    def reload(self) -> None:
        """Ask the engine again."""

    def remove(self, **_: object) -> None:
        self.removed = True


def creating(kind: str, name: str, *volumes: str) -> dict[str, Any]:
    inputs = {"name": name, "volumes": [{"volumeName": each} for each in volumes]}
    return {"type": "creating", "resource": {"type": kind, "urn": f"u::{name}", "inputs": inputs}}


@pytest.mark.parametrize(
    "pending", [[], [creating(pulumi_state.CONTAINER, "s-staging-api-1", "s-staging-api-1-files-b")]]
)
def test_an_interrupted_run_whose_state_knows_nothing_leaves_a_running_environment_alone(
    clone: Path, pending: list[dict[str, Any]]
) -> None:
    run = _run(clone, REFRESH)
    _state(run, {"resources": [], "pending_operations": [*pending, {"type": "updating", "resource": {}}]})
    running = [Listed("s-staging-api-1", ("s-staging-api-1-files-a",)), Listed("s-staging-redis"), Listed("s-app")]
    run.settle(_engine(containers=running[:2], networks=running[2:]))

    assert not any(each.removed for each in running), "another state's environment runs there, with its users"


def test_what_an_interrupted_run_had_begun_to_make_is_removed_although_its_refresh_is_cut_off_too(clone: Path) -> None:
    made = [Listed("api-1", ("files-b",)), Listed("node-exporter"), Listed("app")]
    stranger = Listed("app-2")
    pending = [
        creating(pulumi_state.CONTAINER, "api-1", "files-b"),
        creating(pulumi_state.CONTAINER, "node-exporter"),
        creating(pulumi_state.NETWORK, "app"),
    ]
    run = _run(clone, "raise SystemExit(1)")
    _state(run, {"resources": [], "pending_operations": pending})
    connect = _engine(containers=made[:2], networks=[*made[2:], stranger])

    with pytest.raises(PulumiFailedError):
        run.settle(connect)

    assert all(each.removed for each in made), "a refresh forgets what was begun, and the next `up` fails"
    assert not stranger.removed
    assert pulumi_state.begun(run.deployment()), "and before it, the next run knows as much"


def _state(run: PulumiRun, latest: dict[str, Any]) -> None:
    assert run.backend.folder is not None
    stacks = run.backend.folder / ".pulumi/stacks/samokoder"
    stacks.mkdir(parents=True)
    (stacks / "staging.json").write_text(json.dumps({"checkpoint": {"latest": latest}}), encoding="utf-8")


def _engine(*, containers: list[Listed], networks: list[Listed]) -> Callable[[], Any]:
    client = SimpleNamespace(
        close=lambda: None,
        containers=SimpleNamespace(list=lambda **_: containers),
        networks=SimpleNamespace(list=lambda **_: networks),
    )
    return lambda: client


def test_a_lock_of_another_host_is_told_with_what_to_do(clone: Path) -> None:
    run = _run(clone, "")
    _interrupted(run, process=1)
    assert run.backend.folder is not None
    [file] = run.backend.folder.rglob("1.json")
    note = json.loads(file.read_text(encoding="utf-8")) | {"hostname": "elsewhere"}
    file.write_text(json.dumps(note), encoding="utf-8")

    with pytest.raises(ProjectError, match=r"process 1 on elsewhere.*cancel"):
        run.settle(_engine(containers=[], networks=[]))


def test_what_a_newer_version_has_noted_in_this_clone_keeps_nobody_from_a_backup(tmp_path: Path) -> None:
    workspace = Workspace(home=tmp_path, isolated=True)
    known = {
        "samokoder:startInterval": True,
        "samokoder:network": {"uplinkMtu": 1400},
        "samokoder:images": {"redis": f"sha256:{'d' * 64}"},
        "samokoder:keptVolumes": {"grafana": "samokoder-staging-grafana"},
        "samokoder:unavailable": ["grafana"],
    }
    newer = {**known, "samokoder:moon": 1, "samokoder:network": {"uplinkMtu": 1400, "phase": "full"}}
    stack_file.write(workspace.machine_file, stack_file.dump(newer, source="a newer version"))
    assert workspace.settings().settings.network.uplink_mtu == 1400
    assert stack_file.noted(workspace.machine_file) == known, "what this version knows is lost"
    assert not {"samokoder:moon"} & set(workspace.document()["config"]), "Pulumi's program refuses it"


def test_limits_are_not_checked_against_a_host_that_an_earlier_run_has_noted(tmp_path: Path) -> None:
    workspace = Workspace(home=tmp_path, extra_config={"samokoder:api": {"replicas": 5}}, isolated=True)
    workspace.machine_file.parent.mkdir(parents=True, exist_ok=True)
    for memory in (65536, 4096):
        noted = {"samokoder:host": {"memoryMib": memory, "cpus": 2}}
        workspace.machine_file.write_text(json.dumps(noted))
        workspace.settings(on_this_machine=False)
    with pytest.raises(InvalidSettingsError, match=r"host\.memoryMib"):
        workspace.settings()
