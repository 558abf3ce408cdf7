"""What a machine of CI is given to work with, in files that end with the job, and which machine may be given it.

OpenSSH looks for keys in the home folder of the user database, which a machine of one's own keeps. So the key lies in
the runner's temporary folder, and an `ssh` that names it comes first on PATH.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from operations import stack_file
from operations.stack_file import ProjectError

_FILES = ("key", "known_hosts", "bin/ssh", "docker/config.json")
"""All that is ever written, below the folder. Nothing else is removed."""


def refuse_machine(variables: Mapping[str, str], home: Path) -> str:
    """Return why this machine may not be given secrets; empty where it may, and where it is no runner.

    variables: of the job. home: of the runner's user; there a machine of one's own notes which job it has served.
    """
    where = variables.get("RUNNER_ENVIRONMENT", "")
    if variables.get("SAMOKODER_RUNNER") and where == "github-hosted":
        return (
            "No SAMOKODER_RUNNER: own runners are for private repositories, and this one is not, so this machine is "
            "GitHub's; remove the variable"
        )
    if where != "self-hosted":
        return ""
    names = ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "ENV")
    job = " ".join(variables.get(name, "") for name in names).strip()
    mark = home / ".samokoder-served"
    if mark.exists() and mark.read_text(encoding="utf-8").strip() != job:
        return (
            f"a runner that serves one job: this one has served another before ({mark}), and what that job left here "
            "runs beside the keys; register it with --ephemeral, on a machine that is made anew for each job"
        )
    stack_file.write(mark, f"{job}\n")
    return ""


def place(variables: Mapping[str, str]) -> dict[str, str]:
    """Write the ssh key that the job was given; return the variables that what comes after needs (PATH).

    variables: the job's, with RUNNER_TEMP, SSH_PRIVATE_KEY and SSH_KNOWN_HOSTS. Raises ProjectError where there is no
    such folder, or no ssh.
    """
    key = variables.get("SSH_PRIVATE_KEY", "")
    if not key:
        return {}
    folder = _folder(variables)
    path = variables.get("PATH", os.defpath)
    own = str(folder / "bin")
    ssh = shutil.which("ssh", path=os.pathsep.join(part for part in path.split(os.pathsep) if part != own))
    if not ssh:
        raise ProjectError("There is no `ssh` on this machine: install OpenSSH's client.")
    # OpenSSH refuses a key without a line's end.
    stack_file.write(folder / "key", _lines(key))
    stack_file.write(folder / "known_hosts", _lines(variables.get("SSH_KNOWN_HOSTS", "")))
    # The first of two values counts: nothing of the machine's own configuration comes before these.
    options = '-i "$here/key" -o IdentitiesOnly=yes -o "UserKnownHostsFile=\\"$here/known_hosts\\""'
    text = f'#!/bin/sh\nhere={_quoted(folder)}\nexec {_quoted(ssh)} {options} -o StrictHostKeyChecking=yes "$@"\n'
    stack_file.write(folder / "bin" / "ssh", text, mode=0o700)
    return {"PATH": path if own in path.split(os.pathsep) else f"{own}{os.pathsep}{path}"}


def hand_on(variables: Mapping[str, str], placed: Mapping[str, str]) -> None:
    """Give what `place` returned to the later steps of the job, by the files that the runner reads."""
    for name, value in placed.items():
        file, line = ("GITHUB_PATH", value.partition(os.pathsep)[0]) if name == "PATH" else ("GITHUB_ENV", "")
        if path := variables.get(file):
            with Path(path).open("a", encoding="utf-8") as target:
                target.write(f"{line or f'{name}={value}'}\n")


def remove(variables: Mapping[str, str]) -> bool:
    """Remove the files that this job was given; return whether there were any. A second time is none."""
    if not variables.get("RUNNER_TEMP"):
        return False
    folder = _folder(variables)
    there = [folder / name for name in _FILES if (folder / name).exists()]
    for file in there:
        file.unlink()
    for sub in (folder / "bin", folder / "docker", folder):
        if sub.is_dir() and not any(sub.iterdir()):
            sub.rmdir()
    return bool(there)


def _folder(variables: Mapping[str, str]) -> Path:
    temporary = variables.get("RUNNER_TEMP")
    if not temporary:
        raise ProjectError(
            "RUNNER_TEMP is not set: keys are written where a runner of GitHub removes them after the job, and nowhere "
            "else."
        )
    return Path(temporary).absolute() / "samokoder"


def _lines(text: str) -> str:
    return text.replace("\r", "").rstrip("\n") + "\n"


def _quoted(path: Path | str) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
