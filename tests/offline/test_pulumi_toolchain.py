"""Pulumi itself tells which Python it runs the program with: on hosts with uv, and on those without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from host.cache import cache_directory
from offline.toolchain import build
from operations.clone import ROOT
from operations.workspace.workspace import Workspace

pytestmark = pytest.mark.long  # it is built for these tests


@pytest.fixture(scope="module")
def program() -> Path:
    return build(["pulumi-toolchain"], cache=cache_directory())["pulumi-toolchain"] / "pulumi-toolchain"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a newcomer has after `./bootstrap`; the virtual environment is this one."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    (folder / "Pulumi.yaml").write_bytes((ROOT / "Pulumi.yaml").read_bytes())  # not yet committed, perhaps
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def without_uv() -> str:
    """Return the folders of PATH that have no uv."""
    folders = [f"{sys.prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"]
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / "uv").exists())


def python_of(program: Path, project: Path, clone: Path, path: str) -> str:
    """Ask for the Python that Pulumi takes for the program `clone` with the options of `project`."""
    options = yaml.safe_load((project / "Pulumi.yaml").read_text(encoding="utf-8"))["runtime"].get("options", {})
    words = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [program, project, clone, *words],
        env={"PATH": path, "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"`pulumi up` ends with this for everybody without uv: {done.stderr}"
    return done.stdout.strip()


@pytest.mark.parametrize("uv", [False, True], ids=["without uv", "with uv"])
def test_the_projects_of_a_clone_run_in_its_virtual_environment_and_leave_the_lock_file_alone(
    program: Path, clone: Path, tmp_path: Path, *, uv: bool
) -> None:
    path = without_uv()
    if uv:
        (tmp_path / "bin").mkdir()
        changes_it = f"#!/bin/sh\necho changed >>{clone}/uv.lock\n"
        (tmp_path / "bin/uv").write_text(changes_it)
        (tmp_path / "bin/uv").chmod(0o755)
        path = f"{tmp_path}/bin:{path}"
    workspace = Workspace(root=clone, home=tmp_path / "home", isolated=True)
    workspace.folder.mkdir()
    workspace._write_project()
    locked = (clone / "uv.lock").read_bytes()
    assert python_of(program, clone, clone, path) == str(clone / ".venv/bin/python"), "plain `pulumi up` in the clone"
    found = Path(python_of(program, workspace.folder, clone, path))
    assert found.parent == Path(sys.prefix) / "bin", "`make up`, whose project lies in .samokoder"
    assert (clone / "uv.lock").read_bytes() == locked, "uv of another version would write it anew at each `up`"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["login", "gs://bucket"], "gs:// and gcpkms:// are left out of this build of Pulumi"),
        (["stack", "init", "one", "--secrets-provider", "gcpkms://key"], "gcpkms:// are left out of this build"),
        (["api", "/user"], "`pulumi api` is left out of this build"),
    ],
)
def test_what_is_left_out_of_the_pulumi_that_is_built_here_says_so(tmp_path: Path, words: list[str], says: str) -> None:
    pulumi = build(["pulumi"], cache=cache_directory())["pulumi"] / "pulumi"
    (tmp_path / "Pulumi.yaml").write_text("name: example\nruntime: yaml\n")
    environment = {"PATH": os.environ["PATH"], "PULUMI_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    environment |= {"PULUMI_BACKEND_URL": f"file://{tmp_path}"} if words[0] == "stack" else {}
    done = subprocess.run([pulumi, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert says in done.stderr, "an address that Pulumi does not know would be taken for one of Pulumi Cloud"
