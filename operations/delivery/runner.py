"""Which machine of CI may get keys and logins, and the files that have them until the job ends.

OpenSSH looks for keys in the home folder that the user database names, and a self-hosted runner keeps that folder. So
the key is in the runner's temporary folder, and an `ssh` that names the key comes first on PATH.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from operations.errors import ProjectError
from operations.workspace import stack_file

_FILES = ("key", "known_hosts", "bin/ssh", "docker/config.json")
"""All files that are ever written, relative to the folder of `_folder`. Nothing else is removed."""
_GITHUB = "ghcr.io"
_DOCKER_HUB = dict.fromkeys(("docker.io", "index.docker.io", "registry-1.docker.io"), "https://index.docker.io/v1/")
"""Host that people write for Docker Hub -> key of its login in Docker's config.json."""


def refuse_machine(variables: Mapping[str, str], home: Path) -> str:
    """Return why this machine may not get secrets; empty where it may, and where it is no runner.

    variables: the job's. home: home folder of the runner's user, where a self-hosted runner notes the job it serves.
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


def missing_of_login(variables: Mapping[str, str]) -> list[str]:
    """Return a line for each part of a registry's login that is not there, or is not what it must be."""
    server, password = variables.get("REGISTRY_SERVER", ""), variables.get("REGISTRY_PASSWORD", "")
    if not server:
        given = password or variables.get("REGISTRY_USER")
        return ["REGISTRY_SERVER: which registry the login is for; write its host, such as ghcr.io"] if given else []
    missing = []
    if not re.fullmatch(r"[A-Za-z0-9.-]+(?::\d+)?", server):
        missing.append(
            "REGISTRY_SERVER is not a host: write it as in an image's name, such as registry.example.org:5000"
        )
    if not _user(variables):
        missing.append(f"REGISTRY_USER: who logs in at {server}")
    if not password:
        missing.append(f"REGISTRY_PASSWORD: the password or token of {_user(variables) or 'that user'} at {server}")
    return missing


def _user(variables: Mapping[str, str]) -> str:
    # GitHub's own registry accepts the job's token with any user name, so the actor's name will do.
    own = variables.get("GITHUB_ACTOR", "") if variables.get("REGISTRY_SERVER") == _GITHUB else ""
    return variables.get("REGISTRY_USER") or own


def place(variables: Mapping[str, str]) -> dict[str, str]:
    """Write the job's ssh key and registry login to files; return the variables by which later programs find them.

    variables: the job's, with RUNNER_TEMP, and SSH_PRIVATE_KEY with SSH_KNOWN_HOSTS, or REGISTRY_SERVER, REGISTRY_USER
    and REGISTRY_PASSWORD. Returns PATH for a key, and DOCKER_CONFIG for a login. Raises ProjectError where RUNNER_TEMP
    is not set, or there is no ssh.
    """
    placed = {}
    if server := variables.get("REGISTRY_SERVER"):
        given = f"{_user(variables)}:{variables.get('REGISTRY_PASSWORD', '')}".encode()
        login = {"auth": base64.b64encode(given).decode()}
        docker = _folder(variables) / "docker"
        stack_file.write(docker / "config.json", json.dumps({"auths": {_DOCKER_HUB.get(server, server): login}}))
        placed["DOCKER_CONFIG"] = str(docker)
    if variables.get("SSH_PRIVATE_KEY"):
        placed["PATH"] = _place_key(variables, _folder(variables))
    return placed


def _place_key(variables: Mapping[str, str], folder: Path) -> str:
    """Write the key and the `ssh` that uses it; return PATH with the folder of that `ssh`, in front where it is new."""
    path = variables.get("PATH", os.defpath)
    own = str(folder / "bin")
    ssh = shutil.which("ssh", path=os.pathsep.join(part for part in path.split(os.pathsep) if part != own))
    if not ssh:
        raise ProjectError("There is no `ssh` on this machine: install OpenSSH's client.")
    # OpenSSH refuses a key file that does not end with a newline.
    stack_file.write(folder / "key", _lines(variables["SSH_PRIVATE_KEY"]))
    stack_file.write(folder / "known_hosts", _lines(variables.get("SSH_KNOWN_HOSTS", "")))
    # OpenSSH takes the first of two values, so these options win over the machine's own configuration.
    options = '-i "$here/key" -o IdentitiesOnly=yes -o "UserKnownHostsFile=\\"$here/known_hosts\\""'
    text = f'#!/bin/sh\nhere={_quoted(folder)}\nexec {_quoted(ssh)} {options} -o StrictHostKeyChecking=yes "$@"\n'
    stack_file.write(folder / "bin" / "ssh", text, mode=0o700)
    return path if own in path.split(os.pathsep) else f"{own}{os.pathsep}{path}"


def hand_on(variables: Mapping[str, str], placed: Mapping[str, str]) -> None:
    """Give what `place` returned to the later steps of the job, through the files in GITHUB_PATH and GITHUB_ENV."""
    for name, value in placed.items():
        file, line = ("GITHUB_PATH", value.partition(os.pathsep)[0]) if name == "PATH" else ("GITHUB_ENV", "")
        if path := variables.get(file):
            with Path(path).open("a", encoding="utf-8") as target:
                target.write(f"{line or f'{name}={value}'}\n")


def remove(variables: Mapping[str, str]) -> bool:
    """Remove the files that `place` wrote; return whether there were any. A second call finds none."""
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
