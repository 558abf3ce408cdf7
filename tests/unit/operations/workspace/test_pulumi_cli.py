"""Which Pulumi is used: the machine's own, else the official download, else one that is built here."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest
from rich.console import Console

from host.progress import Reporter, Task
from offline.pulumi_cli import PulumiInstall
from operations.workspace import pulumi_cli
from tests.serving import serving

ARCHIVES = [
    f"pulumi-v{pulumi_cli.PULUMI_VERSION}-{system}-{machine}.tar.gz"
    for system in ("linux", "darwin")
    for machine in ("x64", "arm64")
]


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Pulumi's download site, with a program that says which version it is."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()
    program = f"#!/bin/sh\necho v{pulumi_cli.PULUMI_VERSION}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("pulumi/pulumi")
        member.mode, member.size = 0o755, len(program)
        archive.addfile(member, io.BytesIO(program))
    for name in ARCHIVES:
        (folder / name).write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(pulumi_cli, "PULUMI_SUMS", dict.fromkeys(ARCHIVES, digest))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))) as server:
        yield lambda: f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def reporter() -> Reporter:
    return Reporter(Console(file=io.StringIO(), width=200))


def _said(reporter: Reporter) -> str:
    file = reporter.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def _variables(tmp_path: Path, **more: str) -> dict[str, str]:
    """A user with both plugins and, on PATH, nothing but the system's programs."""
    home = tmp_path / "home"
    for name in ("docker", "random"):
        (home / f".pulumi/plugins/resource-{name}-v{version(f'pulumi-{name}')}").mkdir(parents=True, exist_ok=True)
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", **more}


def _pulumi_on_path(tmp_path: Path, answer: str) -> str:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "pulumi").write_text(f"#!/bin/sh\necho {answer}\n", encoding="utf-8")
    (folder / "pulumi").chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_a_recent_pulumi_of_the_machine_is_used(tmp_path: Path, reporter: Reporter) -> None:
    variables = _variables(tmp_path, PATH=_pulumi_on_path(tmp_path, "v3.260.1"))

    command = pulumi_cli.ensure_pulumi(cache=tmp_path / "cache", variables=variables, reporter=reporter, downloads=())

    assert command.program == str(tmp_path / "bin/pulumi"), "who has Pulumi keeps the one that they have"
    assert not (tmp_path / "cache").exists(), "nothing is fetched for them"


def test_the_program_is_compiled_once_and_not_at_each_run(tmp_path: Path, reporter: Reporter) -> None:
    variables = _variables(tmp_path, PATH=_pulumi_on_path(tmp_path, "v3.260.1"), PYTHONDONTWRITEBYTECODE="1")

    command = pulumi_cli.ensure_pulumi(cache=tmp_path / "cache", variables=variables, reporter=reporter, downloads=())

    assert "PYTHONDONTWRITEBYTECODE" not in command.variables, "a preview would compile all that it imports again"


@pytest.mark.parametrize(
    ("answer", "good"), [("v3.259.0", True), ("v3.250.0", True), ("v3.249.9", False), ("v4.0.0", False), ("?", False)]
)
def test_another_major_or_an_old_version_does_not_do(answer: str, good: bool) -> None:
    assert pulumi_cli.is_recent(answer) is good, "the options that are used here must be there"


def test_the_official_archive_is_downloaded_once(tmp_path: Path, reporter: Reporter, site: Callable[[], str]) -> None:
    variables = _variables(tmp_path, PATH=_pulumi_on_path(tmp_path, "v3.1.0"))
    get = partial(pulumi_cli.ensure_pulumi, cache=tmp_path / "cache", variables=variables, reporter=reporter)

    first = get(downloads=(site(),))
    second = get(downloads=("http://127.0.0.1:9/nobody-listens",))

    assert first.program == str(tmp_path / f"cache/pulumi/{pulumi_cli.PULUMI_VERSION}/pulumi"), (
        "the old one is passed over"
    )
    assert second.program == first.program, "a second run needs no network"
    assert [path.name for path in (tmp_path / "cache/pulumi").iterdir()] == [pulumi_cli.PULUMI_VERSION], (
        "nothing is left over"
    )


@pytest.mark.parametrize("first", ["away", "another file"])
def test_the_archive_comes_from_the_second_site_where_the_first_does_not_give_it(
    tmp_path: Path, reporter: Reporter, site: Callable[[], str], first: str
) -> None:
    if first == "another file":
        (tmp_path / "site" / "wrong").mkdir()
        for name in ARCHIVES:
            (tmp_path / "site" / "wrong" / name).write_bytes(b"a page that asks for a login")
    before = "http://127.0.0.1:9" if first == "away" else f"{site()}/wrong"

    command = pulumi_cli.ensure_pulumi(
        cache=tmp_path / "cache", variables=_variables(tmp_path), reporter=reporter, downloads=(before, site())
    )

    assert command.program == str(tmp_path / f"cache/pulumi/{pulumi_cli.PULUMI_VERSION}/pulumi"), (
        "networks that filter get.pulumi.com and not GitHub would build for minutes"
    )
    assert before in _said(reporter), "why the first did not do is told"


def test_of_two_first_runs_one_downloads_and_the_other_waits_and_takes_that(
    tmp_path: Path, site: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulumi_cli, "build_pulumi", lambda **_: pytest.fail("it was built, which takes minutes"))
    real, downloads, waits = pulumi_cli._download, list[str](), threading.Event()
    reporters = [Reporter(Console(file=io.StringIO(), width=200)) for _ in range(2)]
    said, found = list[str](), list[str]()
    second = threading.Thread(target=lambda: found.append(get(1)))

    def get(number: int) -> str:
        return pulumi_cli.ensure_pulumi(
            cache=tmp_path / "cache",
            variables=_variables(tmp_path),
            reporter=reporters[number],
            downloads=(site(),),
        ).program

    def download(url: str, target: Path, task: Task) -> None:
        downloads.append(url)
        if len(downloads) == 1:
            # The second run begins while the first one downloads, and goes on until it waits or is done too.
            second.start()
            while second.is_alive() and not waits.is_set():
                time.sleep(0.01)
        real(url, target, task)

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    monkeypatch.setattr(pulumi_cli, "_download", download)
    monkeypatch.setattr(reporters[1], "say", say)
    first = get(0)
    second.join()
    assert found == [first], "the second run had to build what the first one had just fetched"
    assert said == [f"Pulumi {pulumi_cli.PULUMI_VERSION}: another run is at it, waiting for it"]
    assert len(downloads) == 1


def test_a_run_that_has_waited_takes_what_the_other_one_has_built(
    tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = _built(tmp_path, monkeypatch)

    @contextlib.contextmanager
    def waited(*_: object, **__: object) -> Iterator[None]:
        (tmp_path / "cache/offline/pulumi-installed/key/bin").mkdir(parents=True)
        (tmp_path / "cache/offline/pulumi-installed/key/bin/pulumi").write_text("")
        yield

    monkeypatch.setattr(pulumi_cli, "exclusive", waited)
    monkeypatch.setattr(pulumi_cli, "_download", lambda *_: pytest.fail("a site that is silent was asked again"))
    command = pulumi_cli.ensure_pulumi(
        cache=tmp_path / "cache", variables=_variables(tmp_path), reporter=reporter, downloads=("http://127.0.0.1:9",)
    )
    assert command.program == str(install.bin_dir / "pulumi")
    assert "building Pulumi" not in _said(reporter)


def test_of_two_first_runs_one_installs_the_plugins(
    tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = _variables(tmp_path, PATH=_pulumi_on_path(tmp_path, "v3.260.1"))
    plugins = tmp_path / "home/.pulumi/plugins"
    for plugin in plugins.iterdir():
        plugin.rename(tmp_path / plugin.name)
    (tmp_path / "bin/pulumi").write_text(
        f"#!/bin/sh\n[ $1 = version ] && echo v3.260.1 && exit\ntouch {tmp_path}/installs; exit 1\n"
    )

    @contextlib.contextmanager
    def waited(*_: object, **__: object) -> Iterator[None]:
        for name in pulumi_cli._PLUGINS:
            plugin = f"resource-{name}-v{version(f'pulumi-{name}')}"
            (tmp_path / plugin).rename(plugins / plugin)
        yield

    monkeypatch.setattr(pulumi_cli, "exclusive", waited)
    command = pulumi_cli.ensure_pulumi(cache=tmp_path / "cache", variables=variables, reporter=reporter, downloads=())
    assert command.program == str(tmp_path / "bin/pulumi")
    assert not (tmp_path / "installs").exists(), "the other run has installed them while this one waited"


def test_the_sums_are_those_of_the_version() -> None:
    assert sorted(pulumi_cli.PULUMI_SUMS) == sorted(ARCHIVES), (
        "who raises the version raises the sums, or each machine would build Pulumi instead"
    )
    assert all(len(bytes.fromhex(digest)) == hashlib.sha256().digest_size for digest in pulumi_cli.PULUMI_SUMS.values())
    assert [url.split("/")[2] for url in pulumi_cli.DOWNLOADS] == ["get.pulumi.com", "github.com"]
    assert f"/v{pulumi_cli.PULUMI_VERSION}" in pulumi_cli.DOWNLOADS[1]


def test_pulumis_packages_name_no_sum_of_their_plugins() -> None:
    for name in pulumi_cli._PLUGINS:
        told = json.loads(files(f"pulumi_{name}").joinpath("pulumi-plugin.json").read_text(encoding="utf-8"))
        assert told["version"] == version(f"pulumi-{name}"), "the plugin's version is the locked package's"
        assert told.keys() == {"resource", "name", "version"}, (
            "a sum may be there now, held by uv.lock: compare it, and mend docs/security.md, which says there is none"
        )


def _built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PulumiInstall:
    install = PulumiInstall(bin_dir=tmp_path / "built/bin", home=tmp_path / "built/home")
    monkeypatch.setattr(pulumi_cli, "build_pulumi", lambda **_: install)
    return install


def test_an_archive_with_a_wrong_checksum_is_not_used(
    tmp_path: Path, reporter: Reporter, site: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install = _built(tmp_path, monkeypatch)
    for name in ARCHIVES:
        with (tmp_path / "site" / name).open("ab") as file:
            file.write(b"x")
        # Who can change the archive on its server can change the list of sums beside it.
        changed = hashlib.sha256((tmp_path / "site" / name).read_bytes()).hexdigest()
        with (tmp_path / "site" / f"pulumi-{pulumi_cli.PULUMI_VERSION}-checksums.txt").open("a") as sums:
            sums.write(f"{changed}  {name}\n")

    command = pulumi_cli.ensure_pulumi(
        cache=tmp_path / "cache", variables=_variables(tmp_path), reporter=reporter, downloads=(site(),)
    )

    assert command.program == str(install.bin_dir / "pulumi"), "what is not what it should be must not be run"
    assert "checksum" in _said(reporter), "and the person is told why it is built instead"


def test_without_the_site_pulumi_is_built_and_it_is_said(
    tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = _built(tmp_path, monkeypatch)

    command = pulumi_cli.ensure_pulumi(
        cache=tmp_path / "cache",
        variables=_variables(tmp_path),
        reporter=reporter,
        downloads=("http://127.0.0.1:9",),
    )

    assert command.variables["PULUMI_HOME"] == str(install.home), "the plugins that were built are beside it"
    assert command.variables["PULUMI_CREDENTIALS_PATH"] == str(tmp_path / "home/.pulumi"), "a login is still found"
    assert "building Pulumi from Go modules" in _said(reporter), "minutes of building must not come as a surprise"


def test_OFFLINE_asks_no_network(  # noqa: N802 - the variable's name
    tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = _built(tmp_path, monkeypatch)
    monkeypatch.setattr(pulumi_cli, "_official", lambda *_: pytest.fail("the network was asked"))
    variables = _variables(tmp_path, PATH=_pulumi_on_path(tmp_path, "v3.260.1"), OFFLINE="1")

    command = pulumi_cli.ensure_pulumi(cache=tmp_path / "cache", variables=variables, reporter=reporter)

    assert command.program == str(install.bin_dir / "pulumi"), "OFFLINE=1 forces what offline/ brings"
