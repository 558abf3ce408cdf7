"""What is fetched first: `bootstrap` runs no uv without the SHA-256 of uv.lock: by real pip, and by real curl.

And uv locks nothing that was released within the last days.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from host.cache import cache_directory
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.2.3"
WHEEL = f"uv-{VERSION}-py3-none-any.whl"
#: What a uv is here: it notes how it was called, and makes what `uv sync` would have made.
PROGRAM = '#!/bin/sh\necho "$*" >>"$CALLS"\nmkdir -p "$UV_PROJECT_ENVIRONMENT/bin"\n'

#: To make a virtual environment with pip takes many seconds.
VENV = pytest.mark.parametrize("venv", [pytest.param(True, marks=pytest.mark.long), False])


@dataclass(frozen=True)
class Clone:
    folder: Path
    variables: dict[str, str]

    @property
    def calls(self) -> str:
        file = self.folder / "calls"
        return file.read_text() if file.exists() else ""

    @property
    def cached(self) -> set[str]:
        cache = self.folder / "cache"
        return {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}

    def lock(self, digest: str) -> None:
        """Write a uv.lock with another package before and after uv, each with sums of its own."""
        # One name for each system: the one of this machine is chosen by its name.
        system = ("manylinux_2_17", "musllinux_1_1", "macosx_11_0")
        urls = [f"{self.folder.as_uri()}/site/uv-{VERSION}-py3-none-{name}_{os.uname().machine}.whl" for name in system]
        wheels = "".join(f'    {{ url = "{url}", hash = "sha256:{digest}", size = 1 }},\n' for url in urls)
        other = (
            '[[package]]\nname = "{}"\nversion = "9"\nwheels = [\n    {{ url = "x/x.whl", hash = "sha256:00" }},\n]\n\n'
        )
        uv = f'[[package]]\nname = "uv"\nversion = "{VERSION}"\nwheels = [\n{wheels}]\n\n'
        (self.folder / "uv.lock").write_text(other.format("urllib3") + uv + other.format("uvicorn"))

    def bootstrap(self) -> subprocess.CompletedProcess[str]:
        words = ["sh", str(self.folder / "bootstrap")]
        return subprocess.run(words, env=self.variables, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone on a machine without uv, whose PyPI is a folder with one wheel."""
    return made_in(tmp_path)


def made_in(tmp_path: Path) -> Clone:
    shutil.copy(ROOT / "bootstrap", tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    site, tools = tmp_path / "site", tmp_path / "bin"
    site.mkdir()
    tools.mkdir()
    dist = f"uv-{VERSION}.dist-info"
    with zipfile.ZipFile(site / WHEEL, "w") as archive:
        program = zipfile.ZipInfo(f"uv-{VERSION}.data/scripts/uv")
        program.external_attr = 0o100755 << 16
        archive.writestr(program, PROGRAM)
        archive.writestr(f"{dist}/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {VERSION}\n")
        archive.writestr(f"{dist}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n")
        archive.writestr(f"{dist}/RECORD", "")
    # Nobody is root: nothing is installed on the machine that the tests run on.
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "uv").exists()]
    variables = {
        "PATH": os.pathsep.join([str(tools), *path]),
        "HOME": str(tmp_path),
        "SAMOKODER_CACHE": str(tmp_path / "cache"),
        "CALLS": str(tmp_path / "calls"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(site),
        "PIP_NO_CACHE_DIR": "1",
    }
    return Clone(tmp_path, variables)


def digest(clone: Clone) -> str:
    return hashlib.sha256((clone.folder / "site" / WHEEL).read_bytes()).hexdigest()


def without_venv(clone: Clone) -> None:
    """Make Python one that Debian ships: venv and ensurepip are in another package."""
    stub = clone.folder / "bin" / "python3"
    stub.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {shutil.which("python3")} "$@"\n')
    stub.chmod(0o755)
    for name in ("manylinux_2_17", "musllinux_1_1", "macosx_11_0"):
        target = clone.folder / "site" / f"uv-{VERSION}-py3-none-{name}_{os.uname().machine}.whl"
        shutil.copy(clone.folder / "site" / WHEEL, target)


@VENV
def test_a_uv_with_the_sum_of_the_lock_is_used_and_kept(clone: Clone, venv: bool) -> None:
    clone.lock(digest(clone))
    if not venv:
        without_venv(clone)
    done = clone.bootstrap()
    assert done.returncode == 0, done.stderr
    assert clone.calls == "sync --frozen\n"
    assert clone.cached == {f"uv/{VERSION}/uv"}, "nothing is left over of what it was unpacked in"


@VENV
def test_a_uv_with_another_sum_is_not_run(clone: Clone, venv: bool) -> None:
    clone.lock("0" * 64)
    if not venv:
        without_venv(clone)
    done = clone.bootstrap()
    assert done.returncode != 0
    assert clone.calls == "", "whoever can change what is downloaded would run a program here, with the user's rights"
    assert clone.cached == set(), "and would be there at the next run"
    assert digest(clone) in done.stderr, "what was got is told, to compare it"


def test_a_clone_under_a_path_with_spaces_and_cyrillic_letters_is_made_and_its_targets_reach_the_command(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "мои проекты" / "клон,  два пробела"
    folder.mkdir(parents=True)
    clone = made_in(folder)
    clone.lock(digest(clone))
    without_venv(clone)
    done = clone.bootstrap()
    assert done.returncode == 0, done.stderr
    assert clone.calls == "sync --frozen\n"
    programs = folder / ".venv" / "bin"
    for name in ("python", "samokoder"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s|" "$ENV" "$PWD" "$@" >>"$CALLS"\n')
        (programs / name).chmod(0o755)
    (folder / "calls").unlink()
    shutil.copy(ROOT / "Makefile", folder)
    variables = {**clone.variables, "SAMOKODER_CACHE": f"{folder}/cache"}
    words = ["make", "-C", str(folder), "restore", "BACKUP=dump of today", "ENV=prod"]
    made = subprocess.run(words, env=variables, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 0, made.stderr
    assert clone.calls == f"prod|{folder}|restore|--backup|dump of today|", "a word more is another command"


def test_a_step_that_ends_at_once_does_not_hang() -> None:
    script = (ROOT / "bootstrap").read_text()
    functions = script[script.index("log=$(mktemp)") : script.index("has_venv()")]
    steps = f"set -eu\n{functions}\nfor _ in $(seq 200); do quietly step :; done"
    done = subprocess.run(["sh", "-c", steps], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == 200 * "step ...\n", "nobody reads how the sign of life was stopped"


def test_no_script_from_the_network_is_run() -> None:
    text = (ROOT / "bootstrap").read_text()
    assert "install.sh" not in text, "a script that is run as it comes has no sum"
    assert text.count("curl --fail") == 1


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package index with `direct`, which needs `inner`: of both a release of a month ago and one of today."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    wheels: dict[str, bytes] = {}
    times: dict[str, datetime] = {}
    for name, needs in (("direct", "Requires-Dist: inner\n"), ("inner", "")):
        for version, age in (("1.0", timedelta(days=30)), ("2.0", timedelta(hours=1))):
            content, dist = io.BytesIO(), f"{name}-{version}.dist-info"
            with zipfile.ZipFile(content, "w") as archive:
                metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
                archive.writestr(f"{dist}/METADATA", metadata)
                archive.writestr(f"{dist}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                archive.writestr(f"{dist}/RECORD", "")
            file = f"{name}-{version}-py3-none-any.whl"
            wheels[file], times[file] = content.getvalue(), datetime.now(UTC) - age

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            body, kind = wheels.get(name), "application/octet-stream"
            if body is None:
                files = [
                    {
                        "filename": file,
                        "url": f"/files/{file}",
                        "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
                        "upload-time": times[file].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                    }
                    for file, content in wheels.items()
                    if file.startswith(f"{name}-")
                ]
                page = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
                body, kind = json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - its caller's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Index)) as server:
        yield f"http://127.0.0.1:{server.server_port}/simple"


@pytest.mark.parametrize("waits", [True, False])
def test_a_release_of_today_is_not_locked_neither_are_packages_of_packages(
    tmp_path: Path, index: str, waits: bool
) -> None:
    here = [str(path) for path in sorted((cache_directory() / "uv").glob("*/uv"))]
    uv = shutil.which("uv") or (here and here[-1])
    assert uv, "`bootstrap` has used one"
    days = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["exclude-newer"]
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["direct"]\n'
        + (f'[tool.uv]\nexclude-newer = "{days}"\n' if waits else "")
    )
    variables = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_DEFAULT_INDEX": index}
    variables["UV_PYTHON"] = sys.executable
    done = subprocess.run(
        [uv, "lock"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    locked = {each["name"]: each["version"] for each in tomllib.loads((tmp_path / "uv.lock").read_text())["package"]}
    newest = "1.0" if waits else "2.0"
    assert (locked["direct"], locked["inner"]) == (newest, newest), (
        "what was stolen this morning would run on every machine this noon"
    )


def test_what_builds_our_own_package_is_locked_with_sums_and_nothing_else_is_asked_for(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tool = project["tool"]["uv"]
    assert tool["no-build-isolation-package"] == [project["project"]["name"]], (
        "uv would take what builds it from PyPI without a sum, and run it"
    )
    assert "build" in tool["default-groups"]
    locked = {each["name"]: each for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    asked = [re.split(r"[<>=]", each)[0] for each in project["dependency-groups"]["build"]]
    assert {re.split(r"[<>=]", each)[0] for each in project["build-system"]["requires"]} <= set(asked)
    while asked:
        package = locked[asked.pop()]
        assert all(wheel["hash"].startswith("sha256:") for wheel in package["wheels"])
        asked += [each["name"] for each in package.get("dependencies", [])]
    # By what is in the environment, and so in uv.lock, alone: the build asks for nothing else.
    program = f"import hatchling.build; print(hatchling.build.build_editable({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
