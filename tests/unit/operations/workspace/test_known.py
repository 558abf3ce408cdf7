"""Whatever only reads works with a broken stack file too: by the labels of the containers and by Pulumi's state."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from host.progress import Reporter
from operations import __main__ as command
from operations.audit import gate
from operations.audit.rules import Seen
from operations.data import backups
from operations.workspace import known, stack_file
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL, PROJECT

BROKEN = {
    "a value that cannot be": "config:\n  samokoder:ingress: {port: eighty}\n  samokoder:nothing: 1\n",
    "no YAML": "config: {\n",
    "no mapping": "- config\n",
    "a configuration that is none": "config: all\n",
    "a date": "config:\n  samokoder:api: {environment: {RELEASE: 2026-11-23}}\n",
    "a date that no calendar has": "config:\n  samokoder:api: {environment: {RELEASE: 2026-02-30}}\n",
    "a number as a key": "config:\n  8000: samokoder:api\n",
    "a mapping that has itself": "config: &all\n  samokoder:api: {environment: *all}\n",
    "a key that is there twice": "config:\n  samokoder:keepImages: 1\n  samokoder:keepImages: 2\n",
    "another encoding": "config: {}  # производство\n",
}
ENCODING = "cp1251"
"""Of the files; an editor of old writes it where there are letters that are not ASCII."""
URL = "http://127.0.0.1:13000"
OUTPUTS = {
    "dockerHost": "unix:///run/of-the-state.sock",
    "parts": {"grafana": {"container": "samokoder-prod-grafana", "url": URL}, "worker": {}, "api-1": {}},
    "unavailable": ["node_exporter"],
}


class Said(Reporter):
    """What was said."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., tuple[Workspace, Said]]:
    def make(text: str, *, state: bool = True) -> tuple[Workspace, Said]:
        (tmp_path / "Pulumi.prod.yaml").write_text(text, encoding=ENCODING)
        home, said = tmp_path / "home", Said()
        stacks = home / "state/.pulumi/stacks" / PROJECT
        stacks.mkdir(parents=True)
        if state:
            resources = [{"type": "pulumi:pulumi:Stack", "urn": "urn", "outputs": OUTPUTS}]
            (stacks / "prod.json").write_text(json.dumps({"checkpoint": {"latest": {"resources": resources}}}))
        return Workspace(environment="prod", home=home, stack_files=tmp_path, isolated=True, reporter=said), said

    return make


def container(part: str) -> SimpleNamespace:
    state = {"Running": True, "Status": "running", "Health": {"Status": "healthy"}, "StartedAt": "2026-11-29T14:00:00Z"}
    attrs = {"State": state, "Config": {"Image": "image"}}
    return SimpleNamespace(labels={PART_LABEL: part}, attrs=attrs)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An engine; `parts` are the containers on it, `asked` where it was looked for."""
    there = SimpleNamespace(parts=[], asked=[], client=None)
    there.client = client = SimpleNamespace(
        containers=SimpleNamespace(list=lambda **_: [container(part) for part in there.parts]),
        volumes=SimpleNamespace(list=lambda **_: []),
        api=SimpleNamespace(images=list),
        close=lambda: None,
    )

    def connect(host: str, **_: object) -> Any:
        there.asked.append(host)
        return client

    monkeypatch.setattr(known, "connect", connect)
    return there


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_status_of_a_broken_stack_file_shows_what_runs_and_what_should(
    broken: Callable[..., tuple[Workspace, Said]], engine: SimpleNamespace, text: str
) -> None:
    workspace, said = broken(text)
    engine.parts = ["grafana", "worker", "left-over"]
    rows = {row.part: row for row in known.status(known.of(workspace))}
    states = {part: row.state for part, row in rows.items()}
    assert states == {
        "api-1": "missing",
        "grafana": "running",
        "left-over": "running",
        "node-exporter": "not available",
        "worker": "running",
    }, "at 3 a.m. the mistake in the file is not what somebody wants to see"
    assert rows["grafana"].url == URL, "the state knows the address"
    assert engine.asked == [OUTPUTS["dockerHost"]], "the engine is the one on which it was brought up"
    (warning,) = said.told
    assert "Pulumi.prod.yaml" in warning, "which file"
    assert "make doctor ENV=prod" in warning, "and what names its mistakes"
    assert "\n" not in warning, "one line: the table is what was asked for"


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    "words",
    [
        *(["status"], ["status", "--json"], ["logs"], ["logs", "api"], ["backups"], ["password"]),
        *(["hardening"], ["rotate"], ["rotate", "--json"]),
    ],
)
def test_what_is_not_up_is_called_so_whatever_the_stack_file_says(
    broken: Callable[..., tuple[Workspace, Said]],
    engine: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    words: list[str],
) -> None:
    workspace, said = broken(text, state=False)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    with pytest.raises(SystemExit) as ended:
        command.main([*words, "--env", "prod"])
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert "prod is not up" in shown, f"that is what somebody has to know: {shown}"
    assert "make up ENV=prod" in shown, "and what to type"
    assert len(said.told) == 1, "the mistakes are not the answer"
    if words[0] in {"password", "rotate"}:
        assert not engine.asked
        assert not workspace.stack_file.exists(), "who only reads makes no stack"


def test_the_state_of_another_user_hides_nothing_that_runs_and_is_named(
    broken: Callable[..., tuple[Workspace, Said]],
    engine: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workspace, said = broken("config: {}\n")
    denied(monkeypatch, workspace.folder)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    engine.parts = ["grafana", "worker"]
    rows = {row.part: row.state for row in known.status(known.of(workspace))}
    assert rows == {"grafana": "running", "worker": "running"}
    assert str(workspace.folder) in said.told[0], "which file"
    for words in (["doctor"], ["up"], ["password"], ["pulumi", "--", "stack"], ["rotate"]):
        with pytest.raises(SystemExit) as ended:
            command.main([words[0], "--env", "prod", *words[1:]])
        assert ended.value.code == 1
        shown = capsys.readouterr().err
        assert f"{workspace.folder}/" in shown, "no traceback, but the file that cannot be read"
        assert "belongs to" in shown, "who ran `make up` before, with sudo"


def denied(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have the system refuse what is in the folder, as it does to all but root for a folder of root's."""
    opens, stats = io.open, os.stat

    def refused(path: Any) -> None:
        if isinstance(path, str | Path) and folder in Path(path).parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def opened(path: Any, *words: Any, **options: Any) -> Any:
        refused(path)
        return opens(path, *words, **options)

    def looked(path: Any, *words: Any, **options: Any) -> Any:
        refused(path)
        return stats(path, *words, **options)

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(os, "stat", looked)


def test_what_runs_is_shown_also_where_two_places_of_the_state_are_named(
    tmp_path: Path, engine: SimpleNamespace
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("backend:\n  url: s3://state\n")
    (tmp_path / "Pulumi.prod.yaml").write_text(BROKEN["no YAML"])
    engine.parts = ["worker"]
    workspace = Workspace(environment="prod", root=tmp_path, variables={"PULUMI_ACCESS_TOKEN": "x"}, reporter=Said())
    assert [row.part for row in known.status(known.of(workspace))] == ["worker"]


def test_the_last_run_stands_in_for_a_stack_file_that_is_no_yaml(
    broken: Callable[..., tuple[Workspace, Said]],
) -> None:
    workspace, _ = broken(BROKEN["no YAML"])
    workspace.stack_file.write_text("config:\n  samokoder:appSecretKeyForm: fernet\n")
    there = known.of(workspace)
    configured = there.configured() or {}
    assert configured["samokoder:appSecretKeyForm"] == "fernet", "the form of a password is known from there"
    assert there.workspace.stack_file == workspace.stack_file, "and the state is the same one"
    assert there.workspace.name == "prod"


@pytest.mark.parametrize("text", [BROKEN["no YAML"], "config:\n<<<<<<< HEAD\n  a: 1\n=======\n  a: 2\n>>>>>>> b\n"])
def test_a_fresh_clone_shows_a_password_though_its_file_is_no_yaml(
    broken: Callable[..., tuple[Workspace, Said]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    workspace, said = broken(text)
    stacks: list[dict[str, Any]] = []

    def opened(self: Workspace) -> Any:
        stacks.append(self.document())
        # As Pulumi's own run does, it leaves the copy with which it has worked.
        stack_file.write(self.stack_file, stack_file.dump(self.document(), source="a test"))
        return SimpleNamespace(secrets=lambda: {"app-secret-key": "the value", "postgres-app": "another"})

    monkeypatch.setattr(Workspace, "open_made", opened)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    for _ in range(2):  # the copy of the first run must not be taken for settings
        with pytest.raises(SystemExit, match="0"):
            command.main(["password", "app-secret-key", "--env", "prod"])
        shown = capsys.readouterr()
        assert shown.out == "the value\n", "the state has it, whatever the file says"
        assert "where it has samokoder:appSecretKey, that one is used" in shown.err
        assert "samokoder:appSecretKeyForm: fernet" in shown.err, "in the wrong form it opens nothing"
    with pytest.raises(SystemExit, match="0"):
        command.main(["password", "postgres-app", "--env", "prod"])
    assert capsys.readouterr() == ("another\n", ""), "nothing in the file takes its place"
    assert len(said.told) == 3
    assert all(each["config"] == {"samokoder:noSettings": True} for each in stacks)


def test_a_secrets_provider_is_read_from_the_lines_of_a_broken_file(
    broken: Callable[..., tuple[Workspace, Said]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, _ = broken("secretsprovider: awskms://key\nencryptedkey: abc=\nconfig: {\n")
    monkeypatch.setattr(Workspace, "open_made", lambda self: self.document())
    document: Any = known.of(workspace).opened()
    assert (document["secretsprovider"], document["encryptedkey"]) == ("awskms://key", "abc="), (
        "a passphrase opens none"
    )


def test_backups_are_listed_with_a_broken_stack_file(
    broken: Callable[..., tuple[Workspace, Said]], engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, _ = broken(BROKEN["a value that cannot be"])
    engine.parts = ["backup"]
    monkeypatch.setattr(backups, "run_in_service", lambda *_: "[]")
    monkeypatch.setattr(backups, "set_aside", lambda _client, there: [there.prefix])
    monkeypatch.setattr("operations.engine.containers.find", lambda *_: SimpleNamespace(client=None))
    assert backups.backups(workspace) == ([], ["samokoder-prod"])


def test_the_addresses_to_forward_are_those_of_the_state_else_those_that_the_containers_publish(
    broken: Callable[..., tuple[Workspace, Said]], engine: SimpleNamespace
) -> None:
    workspace, _ = broken(BROKEN["no YAML"])
    assert known.addresses(known.of(workspace)) == [URL]
    assert not engine.asked, "an ssh to the host costs seconds"
    bindings = {"3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "13001"}], "9000/tcp": None}
    engine.client.containers.list = lambda **_: [SimpleNamespace(attrs={"HostConfig": {"PortBindings": bindings}})]
    without = known.Known(workspace=workspace, docker_host="ssh://deploy@host.example.org")
    assert known.addresses(without) == ["http://127.0.0.1:13001"], "a state in a bucket is not asked for at 3 a.m."


def in_a_bucket(tmp_path: Path, text: str) -> tuple[Workspace, Said]:
    """Production with this stack file; its state is in a bucket, which nobody asks."""
    (tmp_path / "Pulumi.prod.yaml").write_text(text, encoding=ENCODING)
    said = Said()
    given = {"PULUMI_BACKEND_URL": "s3://state"}
    home = tmp_path / "home"
    return Workspace(environment="prod", root=tmp_path, home=home, variables=given, reporter=said), said


GOOD = "config:\n  samokoder:dockerHost: ssh://deploy@prod.example.org\n"
TYPO = GOOD.replace("ssh:", "shh:")


@pytest.mark.parametrize("text", [*BROKEN.values(), TYPO], ids=[*BROKEN, "a typing error in the engine's address"])
def test_with_a_state_in_a_bucket_the_last_up_has_noted_what_should_run_and_where(
    tmp_path: Path, engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    known.note(in_a_bucket(tmp_path, GOOD)[0])
    workspace, said = in_a_bucket(tmp_path, text)
    engine.parts = ["grafana"]
    rows = {row.part: row for row in known.status(known.of(workspace))}
    assert rows["worker"].state == "missing", "a container that is gone is what somebody looks for"
    assert rows["grafana"].url == "http://127.0.0.1:3000"
    assert engine.asked == ["ssh://deploy@prod.example.org"], "and not this machine's, where nothing of it is"
    assert "this clone's last `up`" in said.told[0], "another clone may have changed it since"
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    answer = CliRunner().invoke(command.app, ["status", "--env", "prod"])
    assert answer.exit_code == 1
    assert "not known" not in str(answer.exception)


def test_the_server_that_the_file_names_comes_before_the_one_that_this_clone_has_noted(
    tmp_path: Path, engine: SimpleNamespace
) -> None:
    known.note(in_a_bucket(tmp_path, GOOD)[0])
    moved = f"{GOOD.replace('prod.', 'new.')}  samokoder:nothing: 1\n"
    workspace, said = in_a_bucket(tmp_path, moved)
    engine.parts = ["grafana"]
    known.status(known.of(workspace))
    assert engine.asked == ["ssh://deploy@new.example.org"], "a colleague has moved it: the old server has old data"
    (warning,) = said.told
    for host in ("ssh://deploy@new.example.org", "ssh://deploy@prod.example.org"):
        assert host in warning, "both are named, for nobody knows whether the move has come to its end"


def test_the_last_up_of_a_state_of_this_clone_comes_before_what_the_file_names(
    broken: Callable[..., tuple[Workspace, Said]], engine: SimpleNamespace
) -> None:
    workspace, said = broken("config:\n  samokoder:dockerHost: ssh://deploy@new.example.org\n  samokoder:nothing: 1\n")
    known.status(known.of(workspace))
    assert engine.asked == [OUTPUTS["dockerHost"]], "nobody else has brought it up"
    assert "new.example.org" not in said.told[0]


def test_an_up_that_has_not_come_to_its_end_is_known_by_its_note(
    broken: Callable[..., tuple[Workspace, Said]], engine: SimpleNamespace
) -> None:
    workspace, _ = broken("config: {}\n")
    known.note(workspace)
    workspace.committed_file.write_text(BROKEN["no YAML"])
    state = workspace.folder / "state/.pulumi/stacks" / PROJECT / "prod.json"
    state.write_text(json.dumps({"checkpoint": {"latest": {"resources": [{"type": "other", "urn": "urn"}]}}}))
    engine.parts = ["grafana"]
    assert {row.part: row.state for row in known.status(known.of(workspace))}["worker"] == "missing"


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("words", [["status"], ["status", "--json"]])
def test_where_nothing_says_which_parts_should_run_that_is_said_and_is_no_success(
    tmp_path: Path, engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    workspace, _ = in_a_bucket(tmp_path, text)
    engine.parts = ["grafana"]
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    monkeypatch.setattr("operations.network.engine_rules.lost_rules_remark", lambda *_: "")
    answer = CliRunner().invoke(command.app, [*words, "--env", "prod"])
    assert answer.exit_code == 1, "a worker that is gone has no row here"
    assert "grafana" in answer.output, "what runs is shown all the same"
    assert "Which parts should be there is not known" in str(answer.exception)
    assert "make doctor ENV=prod" in str(answer.exception)


@pytest.mark.parametrize("text", [BROKEN["no YAML"], BROKEN["no mapping"], TYPO])
@pytest.mark.parametrize("words", [["status"], ["logs"], ["hardening"], ["psql"]])
def test_what_runs_on_an_engine_that_nobody_knows_is_not_called_down(
    tmp_path: Path, engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    workspace, _ = in_a_bucket(tmp_path, text)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    answer = CliRunner().invoke(command.app, [*words, "--env", "prod"])
    assert "On which engine prod runs is not known" in str(answer.exception)
    assert "make up" not in str(answer.exception), "a second production would be brought up beside it"
    assert engine.asked == ["unix:///var/run/docker.sock"]


def test_the_engine_that_an_earlier_run_has_noted_is_where_it_runs(tmp_path: Path) -> None:
    workspace, _ = in_a_bucket(tmp_path, BROKEN["a value that cannot be"])
    noted = {"samokoder:dockerHost": "unix:///run/noted.sock"}
    stack_file.write(workspace.machine_file, stack_file.dump(noted, source="a test"))
    found = known.of(workspace)
    assert found.docker_host == "unix:///run/noted.sock", "another engine would be asked, where nothing of it runs"
    assert found.engine_known


PASSWORDS = [
    {
        "type": "random:index/randomPassword:RandomPassword",
        "urn": f"urn:pulumi:prod::samokoder::random:index/randomPassword:RandomPassword::secret-{name}",
        "inputs": {"keepers": {"generation": str(generation)}},
    }
    for name, generation in (("postgres-app", 3), ("postgres-app-b", 4), ("redis-exporter", 2), ("salt", 1))
]
NOTED = {"inUse": {"postgres-app": "postgres-app-b"}, "phases": {"postgres-app": "overlap"}}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_the_secrets_that_can_be_rotated_are_listed_by_the_state(
    broken: Callable[..., tuple[Workspace, Said]],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    workspace, said = broken(text)
    state = workspace.folder / "state/.pulumi/stacks" / PROJECT / "prod.json"
    secrets = {"type": "samokoder:platform:Secrets", "urn": "urn", "outputs": NOTED}
    state.write_text(json.dumps({"checkpoint": {"latest": {"resources": [secrets, *PASSWORDS]}}}))
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    printed = CliRunner().invoke(command.app, ["rotate", "--env", "prod", "--json"]).stdout
    rows = {row["secret"]: (row["generation"], row["phase"]) for row in json.loads(printed)["secrets"]}
    assert rows == {"postgres-app": (4, "overlap"), "redis-exporter": (2, "")}, "who looks how far a rotation has come"
    assert len(said.told) == 1


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_runs_is_held_against_the_benchmark_whatever_the_stack_file_says(
    broken: Callable[..., tuple[Workspace, Said]],
    engine: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    workspace, said = broken(text)
    engine.parts = ["grafana", "worker"]
    looked: list[str] = []

    def look(_client: object, running: list[SimpleNamespace], _: object) -> list[Seen]:
        looked.extend(each.labels[PART_LABEL] for each in running)
        return []

    monkeypatch.setattr(gate, "inspect", look)
    monkeypatch.setattr(gate, "exceptions", list)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    printed = CliRunner().invoke(command.app, ["hardening", "--env", "prod"]).stdout
    assert looked == ["grafana", "worker"], "the mistake in the file hides nothing that runs"
    assert "Packet filter: not looked at" in printed, "which rules there must be stands in that file"
    assert len(said.told) == 1


@pytest.mark.parametrize(
    ("runs", "there", "state"),
    [
        ("sha256:" + "a" * 64, [], "not available"),
        ("sha256:" + "a" * 64, ["docker.io/grafana/grafana:11.0.0"], "missing"),
        ("docker.io/prom/prometheus:v3@sha256:" + "a" * 64, [], "missing"),
    ],
    ids=["made here", "made here, but for Grafana, which somebody has loaded", "of a registry"],
)
def test_a_fresh_clone_knows_that_no_grafana_can_be_had_without_a_registry(
    broken: Callable[..., tuple[Workspace, Said]], engine: SimpleNamespace, runs: str, there: list[str], state: str
) -> None:
    workspace, _ = broken("config: {}\n")
    of_prometheus = container("prometheus")
    of_prometheus.attrs["Config"]["Image"] = runs
    engine.client.containers.list = lambda **_: [of_prometheus]
    engine.client.api.images = lambda: [{"Id": "i", "Created": 1, "RepoTags": [name]} for name in there]
    rows = {row.part: row for row in known.status(known.of(workspace))}
    assert rows["grafana"].state == state, "a colleague would look for a fault that there is none"
    assert rows["grafana"].counts_as_failed is (state == "missing")
    assert rows["worker"].state == "missing", "all else can be had"


def test_an_environment_that_there_is_not_is_an_error_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="There is no environment 'prod'"):
        known.of(Workspace(environment="prod", stack_files=tmp_path, home=tmp_path, isolated=True))


def test_a_good_stack_file_is_what_counts(
    broken: Callable[..., tuple[Workspace, Said]], engine: SimpleNamespace
) -> None:
    workspace, said = broken("config:\n  samokoder:dockerHost: unix:///run/of-the-file.sock\n")
    there = known.of(workspace)
    assert there.environment is not None
    there.client()
    assert engine.asked == ["unix:///run/of-the-file.sock"], "the file says where it is to be from now on"
    assert not said.told
    assert "api-2" in there.parts, "as the file says, not as the state"
