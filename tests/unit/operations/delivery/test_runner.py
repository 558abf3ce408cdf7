"""What a runner is given: files that end with the job, on a machine that nobody else gets after it."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from docker.auth import load_config
from typer.testing import CliRunner

from host import ssh
from operations import __main__ as command
from operations.delivery import runner
from operations.delivery.commit_deploy import check_machine
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from tests.sshd import Sshd

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"
PATH = "/usr/bin:/bin"


def job(tmp_path: Path, **more: str) -> dict[str, str]:
    """The variables of a job on a runner."""
    temporary = tmp_path / "_temp of the runner"
    temporary.mkdir(exist_ok=True)
    return {
        "RUNNER_TEMP": str(temporary),
        "PATH": PATH,
        "SSH_PRIVATE_KEY": KEY,
        "SSH_KNOWN_HOSTS": "x ssh-rsa A",
        **more,
    }


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_key_is_for_its_owner_alone_in_the_runners_temporary_folder(tmp_path: Path) -> None:
    given = job(tmp_path, SSH_PRIVATE_KEY=KEY.replace("\n", "\r\n"))
    for _ in range(2):
        assert runner.place(given)
    key = Path(given["RUNNER_TEMP"]) / "samokoder" / "key"
    assert key.read_text() == KEY + "\n", "OpenSSH takes no key without a line's end, nor one with Windows' ends"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600, "OpenSSH refuses a key that others can read"
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert {path.split("/")[0] for path in files(tmp_path)} == {"_temp of the runner"}, (
        "a home folder stays when the job is over, and the key with it"
    )


def test_all_that_was_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    given = job(tmp_path)
    runner.place(given)
    other = Path(given["RUNNER_TEMP"]) / "samokoder" / "somebody's"
    other.write_text("")
    assert runner.remove(given)
    assert files(tmp_path) == {"_temp of the runner/samokoder/somebody's"}, "what it has not made is not its to remove"
    other.unlink()
    assert not runner.remove(given), "a job that was given nothing ends well too"
    assert not runner.remove({}), "and a machine that is no runner"


def test_half_of_what_was_written_is_removed_too(tmp_path: Path) -> None:
    given = job(tmp_path, PATH=str(tmp_path / "no ssh here"))
    with pytest.raises(ProjectError, match="OpenSSH"):
        runner.place(given)
    runner.place(job(tmp_path))
    (Path(given["RUNNER_TEMP"]) / "samokoder" / "bin" / "ssh").unlink()
    assert runner.remove(given), "the job may have died between two files"
    assert not files(tmp_path)


def test_a_machine_that_is_no_runner_is_given_no_key(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="RUNNER_TEMP"):
        runner.place({"SSH_PRIVATE_KEY": KEY, "HOME": str(tmp_path)})
    assert runner.place({"SSH_PRIVATE_KEY": ""}) == {}, "a runner of one's own may have its own way in"
    assert not files(tmp_path)


def test_what_was_placed_reaches_the_later_steps_of_a_job(tmp_path: Path) -> None:
    given = job(tmp_path, GITHUB_PATH=str(tmp_path / "path"), GITHUB_ENV=str(tmp_path / "env"))
    placed = runner.place(given)
    runner.hand_on(given, placed)
    (line,) = (tmp_path / "path").read_text().splitlines()
    assert placed["PATH"] == f"{line}:{PATH}", "the runner puts it first on PATH of each step"
    again = runner.place({**given, **placed})
    assert again["PATH"] == placed["PATH"], "a second time it neither grows nor calls itself"


def test_a_real_login_uses_the_key_that_was_placed_and_ends_with_it(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = job(
        tmp_path,
        SSH_PRIVATE_KEY=(sshd.folder / "user_key").read_text(),
        SSH_KNOWN_HOSTS=(sshd.folder / "known_hosts").read_text(),
    )

    def log_in() -> subprocess.CompletedProcess[str]:
        # Both the Docker SDK's socket and Pulumi's provider run the `ssh` that is first on PATH.
        return subprocess.run(
            [*ssh.command(sshd.host), "true"], capture_output=True, text=True, check=False, timeout=30
        )

    monkeypatch.setenv("PATH", PATH)
    assert log_in().returncode != 0, "or this machine can log in without what is tried here"
    monkeypatch.setenv("PATH", runner.place(given)["PATH"])
    done = log_in()
    assert "Accepted publickey" in sshd.log.read_text(), done.stderr
    (Path(given["RUNNER_TEMP"]) / "samokoder" / "known_hosts").write_text("")
    assert "verification failed" in log_in().stderr, "a host that is another one would be given the passphrase's state"
    runner.remove(given)
    monkeypatch.setenv("PATH", PATH)
    assert log_in().returncode != 0, "who gets this machine next logs in as we did"


def test_a_job_is_given_its_ways_in_by_one_command_and_loses_them_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = login(tmp_path, SSH_PRIVATE_KEY=KEY, GITHUB_PATH=str(tmp_path / "path"), GITHUB_ENV=str(tmp_path / "env"))
    for name, value in {**given, "DOCKER_CONFIG": "", "RUNNER_ENVIRONMENT": "github-hosted"}.items():
        monkeypatch.setenv(name, value)
    workspace = own(tmp_path, **given, RUNNER_ENVIRONMENT="github-hosted", DOCKER_HOST="ssh://deploy@host.example.org")
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    placed = Path(given["RUNNER_TEMP"]) / "samokoder"
    answer = CliRunner().invoke(command.app, ["ci", "prepare"])
    assert answer.exit_code == 0, answer.exception
    assert files(placed) == {"key", "known_hosts", "bin/ssh", "docker/config.json"}
    assert (tmp_path / "path").read_text() == f"{placed / 'bin'}\n", "the next step would log in with no key"
    assert (tmp_path / "env").read_text() == f"DOCKER_CONFIG={placed / 'docker'}\n", "and pull without a login"
    for said in ("Removed what this job could log in with.", "There was nothing to remove."):
        answer = CliRunner().invoke(command.app, ["ci", "clean"])
        assert (answer.exit_code, answer.output.strip()) == (0, said)
        assert not placed.exists(), "who gets this machine next has the key"


def own(tmp_path: Path, **more: str) -> Workspace:
    """A job on a runner of one's own, with all that it needs."""
    (tmp_path / "Pulumi.yaml").write_text("name: samokoder\n")
    (tmp_path / "Pulumi.staging.yaml").write_text("config: {}\n")
    given = {"PULUMI_BACKEND_URL": "s3://state", "PULUMI_CONFIG_PASSPHRASE": "x" * 20, "GITHUB_JOB": "staging"}
    return Workspace(root=tmp_path, variables={**given, "RUNNER_ENVIRONMENT": "self-hosted", **more})


def test_a_runner_that_has_served_another_job_is_given_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for _ in range(2):
        check_machine(own(tmp_path, GITHUB_RUN_ID="1"), home=home)
    with pytest.raises(ProjectError, match="--ephemeral"):
        check_machine(own(tmp_path, GITHUB_RUN_ID="2"), home=home)
    with pytest.raises(ProjectError, match="--ephemeral"):
        check_machine(own(tmp_path, GITHUB_RUN_ID="1", GITHUB_JOB="production"), home=home)
    check_machine(own(tmp_path, GITHUB_RUN_ID="2"), home=tmp_path / "a new machine")
    check_machine(own(tmp_path, RUNNER_ENVIRONMENT=""), home=home)  # a person's machine serves whoever sits there


def test_the_variable_for_own_runners_in_a_public_repository_is_told(tmp_path: Path) -> None:
    workspace = own(tmp_path, RUNNER_ENVIRONMENT="github-hosted", SAMOKODER_RUNNER="ours", DOCKER_HOST="ssh://d@h")
    with pytest.raises(ProjectError, match="own runners are for private repositories"):
        check_machine(workspace, home=tmp_path)


def login(tmp_path: Path, **more: str) -> dict[str, str]:
    given = {"REGISTRY_SERVER": "registry.example.org:5000", "REGISTRY_USER": "me", "REGISTRY_PASSWORD": "a: b"}
    return {**job(tmp_path, SSH_PRIVATE_KEY=""), **given, **more}


def test_the_login_of_a_registry_is_where_docker_looks_for_it_and_goes_with_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = login(tmp_path, GITHUB_ENV=str(tmp_path / "env"))
    placed = runner.place(given)
    runner.hand_on(given, placed)
    assert (tmp_path / "env").read_text() == f"DOCKER_CONFIG={placed['DOCKER_CONFIG']}\n"
    file = Path(placed["DOCKER_CONFIG"]) / "config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv("DOCKER_CONFIG", placed["DOCKER_CONFIG"])
    read = load_config().resolve_authconfig("registry.example.org:5000")
    assert (read["username"], read["password"]) == ("me", "a: b"), "as Docker's own programs read it"
    assert load_config().resolve_authconfig("ghcr.io") is None, "no other registry is told"
    assert runner.remove(given)
    assert not file.exists()


def test_a_login_of_docker_hub_has_the_name_that_docker_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", runner.place(login(tmp_path, REGISTRY_SERVER="docker.io"))["DOCKER_CONFIG"])
    assert load_config().resolve_authconfig(None)["username"] == "me"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, []),
        ({"REGISTRY_PASSWORD": ""}, ["REGISTRY_PASSWORD"]),
        ({"REGISTRY_USER": "", "REGISTRY_PASSWORD": ""}, ["REGISTRY_USER", "REGISTRY_PASSWORD"]),
        ({"REGISTRY_SERVER": ""}, ["REGISTRY_SERVER"]),
        ({"REGISTRY_SERVER": "", "REGISTRY_USER": "", "REGISTRY_PASSWORD": ""}, []),
        ({"REGISTRY_SERVER": "https://registry.example.org/v2"}, ["REGISTRY_SERVER"]),
        ({"REGISTRY_SERVER": "ghcr.io", "REGISTRY_USER": "", "GITHUB_ACTOR": "me"}, []),
    ],
)
def test_what_a_login_lacks_is_named(tmp_path: Path, given: dict[str, str], missing: list[str]) -> None:
    lines = runner.missing_of_login(login(tmp_path, **given))
    assert [line.split(":")[0].split(" ")[0] for line in lines] == missing
    assert "a: b" not in " ".join(lines), "a password is in no message"
