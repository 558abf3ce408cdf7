"""The Go half of the offline bring-up, with a `go` that is a few lines of shell."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import stat
import threading
import time
import tomllib
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from host.progress import Reporter
from offline import alertmanager_page, go_release, prometheus_pages, pulumi_cli, toolchain
from offline.errors import BuildError, OfflineError
from offline.go_release import GO_VERSION, ensure_go, go_environment
from offline.programs import PROGRAMS, SOURCES, Program, required_go
from offline.pulumi_cli import ensure_pulumi
from offline.toolchain import build, cache_key, failure_text, is_package

HELLO = Program(version="1.0.0", executables={"hello": "."})

#: Answers `go env GOVERSION`, and for `go build` prints a package and writes the file named after -o.
FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.99.0; exit 0; fi
echo "$@" >> "$(dirname "$0")/calls"
echo example.org/hello
while [ $# -gt 0 ]; do [ "$1" = -o ] && printf built > "$2"; shift; done
"""


@pytest.fixture
def reporter() -> Reporter:
    return Reporter(Console(file=StringIO(), force_terminal=False))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources" / "hello"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module example.org/hello\n\ngo 1.25.0\n")
    (folder / "main.go").write_text("package main\n")
    return folder.parent


def install_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str = FAKE_GO) -> Path:
    """Put a `go` on PATH; the file beside it that lists its calls is returned."""
    folder = tmp_path / "path"
    folder.mkdir(exist_ok=True)
    (folder / "go").write_text(script)
    (folder / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "calls"


def test_a_build_lands_in_the_cache_and_is_not_done_twice(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    calls = install_go(tmp_path, monkeypatch)
    for _ in range(2):
        built = build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": HELLO})
    assert (built["hello"] / "hello").read_text() == "built", "the executable is what the compiler wrote"
    assert len(calls.read_text().splitlines()) == 1, "a second run takes seconds because nothing is compiled again"


def test_only_whole_builds_appear_under_their_final_name(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    install_go(tmp_path, monkeypatch, FAKE_GO + "exit 1\n")
    with pytest.raises(BuildError):
        build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": HELLO})
    left = [path for path in (tmp_path / "offline" / "hello").iterdir() if not path.name.startswith(".")]
    assert left == [], "a half-written executable must never be taken for a finished one"
    install_go(tmp_path, monkeypatch)
    built = build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": HELLO})
    assert (built["hello"] / "hello").exists(), "what a failed run left must not stop the next one"


def test_a_failing_build_is_told_with_its_name_and_the_compilers_last_lines(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    script = FAKE_GO + 'echo "main.go:3:1: syntax error: unexpected }"; exit 2\n'
    install_go(tmp_path, monkeypatch, script)
    with pytest.raises(BuildError) as failure:
        build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": HELLO})
    text = str(failure.value)
    assert "hello" in text, "of ten builds, the reader must know which one failed"
    assert "main.go:3:1: syntax error" in text, "the reason is in the compiler's words"
    assert "example.org/hello" not in text, "the names of what compiled well only hide the reason"


def test_one_failure_ends_the_builds_that_still_run(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    slow = sources / "slow"
    slow.mkdir()
    (slow / "go.mod").write_text("module example.org/slow\n\ngo 1.25.0\n")
    started = tmp_path / "slow-started"
    script = FAKE_GO + (
        f'case "$PWD" in */slow/*) touch {started}; exec sleep 600;; esac\n'
        f"while [ ! -e {started} ]; do sleep 0.05; done\necho 'link: out of memory'; exit 1\n"
    )
    install_go(tmp_path, monkeypatch, script)
    with pytest.raises(BuildError, match=r"hello: .*\n.*out of memory"):
        build(
            ["slow", "hello"],
            cache=tmp_path,
            progress=reporter,
            sources=sources,
            programs={"slow": HELLO, "hello": HELLO},
        )


def test_a_failure_elsewhere_ends_a_build_and_names_what_is_missing(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    started = tmp_path / "started"
    install_go(tmp_path, monkeypatch, FAKE_GO + f"touch {started}; exec sleep 600\n")
    stopped = threading.Event()

    def fail_elsewhere() -> None:
        while not started.exists():
            time.sleep(0.05)
        stopped.set()

    threading.Thread(target=fail_elsewhere, daemon=True).start()
    with pytest.raises(OfflineError, match="stopped before it was built: hello"):
        build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": HELLO}, stopped=stopped)


def test_programs_that_share_code_are_built_one_after_the_other(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    calls = install_go(tmp_path, monkeypatch, FAKE_GO.replace('echo "$@"', 'sleep 0.2; echo "${PWD%/source}"'))
    for name in ("first", "second"):
        (sources / name).mkdir()
        (sources / name / "go.mod").write_text(f"module example.org/{name}\n\ngo 1.25.0\n")
    programs = {"first": HELLO, "second": replace(HELLO, after="first")}
    build(["second", "first"], cache=tmp_path, progress=reporter, sources=sources, programs=programs)
    order = [Path(line).parent.name for line in calls.read_text().splitlines()]
    assert order == ["first", "second"], "at the same time, both would compile the same packages"


def test_a_program_that_waits_for_another_keeps_no_place_from_those_after_it(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    third = tmp_path / "third"
    wait = f'case "$PWD" in */first/*) while [ ! -e {third} ]; do sleep 0.05; done;; */third/*) touch {third};; esac\n'
    install_go(tmp_path, monkeypatch, FAKE_GO + wait)
    for name in ("first", "second", "third"):
        (sources / name).mkdir()
        (sources / name / "go.mod").write_text(f"module example.org/{name}\n\ngo 1.25.0\n")
    programs = {"first": HELLO, "second": replace(HELLO, after="first"), "third": HELLO}
    built = build(list(programs), cache=tmp_path, jobs=2, progress=reporter, sources=sources, programs=programs)
    assert built.keys() == programs.keys(), "the first ends only once the third has begun, beside it"


def test_a_download_that_breaks_is_tried_again(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    monkeypatch.setattr(toolchain, "_PAUSES", (0, 0))
    calls = install_go(
        tmp_path,
        monkeypatch,
        FAKE_GO + '[ $(wc -l < "${0%/*}/calls") -ge 3 ] || { echo "dial tcp: connection refused"; exit 1; }\n',
    )
    built = build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": HELLO})
    assert (built["hello"] / "hello").exists(), "a moment without network must not end a long bring-up"
    assert len(calls.read_text().splitlines()) == 3


def test_a_program_is_reported_as_soon_as_it_is_there_built_or_not(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    install_go(tmp_path, monkeypatch)
    for _ in ("built", "there already"):
        told: dict[str, Path] = {}
        built = build(
            ["hello"],
            cache=tmp_path,
            progress=reporter,
            sources=sources,
            programs={"hello": HELLO},
            on_built=told.__setitem__,
        )
        assert told == built, "an image whose program is there need not wait for all the others"


@pytest.fixture
def big_module(tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a module in Go's cache, of which the program `hello` has a file of its own; the build notes what it saw."""
    module = tmp_path / "modules" / "big"
    for file in ("keep/keep.go", "clients/one.go", "clients/two.go", "api/api.go", "api/rest.go"):
        (module / file).parent.mkdir(parents=True, exist_ok=True)
        (module / file).write_text("upstream's")
    added = sources / "hello/added/example.org/big/clients"
    added.mkdir(parents=True)
    (added / "one.go").write_text("ours")
    answers = f"""case "$1" in list) echo {module}; exit 0;; mod) echo "$@" >> "$(dirname "$0")/seen"; exit 0;; esac
cd replaced/example.org/big
{{ find . -type f | sort; cat clients/one.go; }} >> "$(dirname "$0")/seen"
"""
    install_go(tmp_path, monkeypatch, FAKE_GO.replace("echo example.org/hello\n", answers))
    return module


def test_folders_and_files_of_a_module_are_left_out_and_the_module_in_the_cache_stays(
    tmp_path: Path, sources: Path, big_module: Path, reporter: Reporter
) -> None:
    program = replace(HELLO, without={"example.org/big": ("clients", "api/rest.go")})
    build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": program})
    seen = (tmp_path / "path/seen").read_text().splitlines()
    assert "mod edit -replace=example.org/big=./replaced/example.org/big" in seen, "the build takes the copy"
    assert seen[-4:] == ["./api/api.go", "./clients/one.go", "./keep/keep.go", "ours"], (
        "what is left of the folder would compile all that it was taken out for"
    )
    assert (big_module / "clients/two.go").exists(), "Go's cache is checked by its sums and shared by all programs"


def test_what_more_than_one_program_leaves_out_has_one_file_in_its_place_and_its_text_is_in_the_key_of_those_alone(
    tmp_path: Path, sources: Path, big_module: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "added/example.org/big/api/rest.go"
    shared.parent.mkdir(parents=True)
    shared.write_text("of all")
    monkeypatch.setattr(toolchain, "ADDED", tmp_path / "added")
    program = replace(HELLO, without={"example.org/big": ("clients/two.go", "api/rest.go")})
    keys = [cache_key(sources / "hello", each, "1.26") for each in (program, HELLO)]
    build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": program})
    seen = (tmp_path / "path/seen").read_text().splitlines()
    assert "./api/rest.go" in seen, "the module would not compile"
    assert seen[-1] == "ours", "what is the program's own is there too"
    shared.write_text("of all, changed")
    changed = [cache_key(sources / "hello", each, "1.26") for each in (program, HELLO)]
    assert changed[0] != keys[0], "an old build would be taken for the new one"
    assert changed[1] == keys[1], "the others would be built anew for nothing"


def test_a_page_lies_in_its_module_in_both_encodings_before_the_module_is_compiled(
    tmp_path: Path, sources: Path, big_module: Path, reporter: Reporter
) -> None:
    shutil.copytree(SOURCES / "alertmanager/page", sources / "hello/page")
    program = replace(HELLO, without={"example.org/big": ()}, own_page=("example.org/big", "ui/dist"))
    build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": program})
    seen = (tmp_path / "path/seen").read_text().splitlines()
    assert {"./ui/dist/index.html.br", "./ui/dist/index.html.gz"} < {*seen}, "the program would answer 404"
    assert not (big_module / "ui").exists(), "Go's cache is checked by its sums and shared by all programs"


def test_a_program_is_built_anew_when_its_page_is_put_together_otherwise(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = replace(HELLO, own_page=("example.org/big", "ui/dist"))
    keys = set()
    for made in ("one page", "another"):
        monkeypatch.setattr(alertmanager_page, "page", lambda _, made=made: made)
        keys.add(
            (
                cache_key(sources / "hello", program, "1.26"),
                cache_key(sources / "hello", HELLO, "1.26"),
            )
        )
    assert len({key for key, _ in keys}) == 2, "the old page would stay in the image"
    assert len({key for _, key in keys}) == 1, "a program without a page is none the less"


def test_what_a_new_version_of_a_module_has_no_more_ends_the_build_with_its_name(
    tmp_path: Path, sources: Path, big_module: Path, reporter: Reporter
) -> None:
    program = replace(HELLO, without={"example.org/big": ("api/soap.go",)})
    with pytest.raises(BuildError, match=r"example\.org/big has no api/soap\.go any more"):
        build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": program})
    assert big_module.is_dir()


def step(folder: Path, *words: str) -> prometheus_pages.Step:
    return prometheus_pages.Step("draw them", words, folder, {"PATH": "/usr/bin:/bin"})


def with_pages(monkeypatch: pytest.MonkeyPatch, *words: str) -> Program:
    monkeypatch.setattr(prometheus_pages, "steps", lambda module, _work: [step(module, *words)])
    return replace(HELLO, tags=("small",), without={"example.org/big": ()}, pages="example.org/big")


@pytest.mark.usefixtures("big_module")
def test_the_pages_of_a_program_are_built_in_its_module_and_put_into_it(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    program = with_pages(monkeypatch, "sh", "-c", "pwd >keep/drawn.go")
    build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": program})
    calls = (tmp_path / "path" / "calls").read_text().splitlines()
    (compiled,) = [line for line in calls if line.startswith("build ")]
    assert "-tags=small,builtinassets" in compiled, "without the tag Go leaves them out"
    assert "./keep/drawn.go" in (tmp_path / "path/seen").read_text(), "they are there when Go compiles the module"


@pytest.mark.usefixtures("big_module")
def test_a_program_whose_pages_cannot_be_built_is_built_without_and_that_is_said(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = StringIO()
    reporter = Reporter(Console(file=said, force_terminal=False, width=200))
    program = with_pages(monkeypatch, "sh", "-c", "echo npm is not reached; exit 1")
    built = build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": program})
    assert (built["hello"] / "hello").read_text() == "built", "a monitoring without pages is better than none"
    calls = (tmp_path / "path" / "calls").read_text()
    assert "-tags=small " in calls
    assert "builtinassets" not in calls, "half of the pages would not compile"
    for words in ("hello gets no web pages", "cannot draw them", "npm is not reached", str(built["hello"].parent)):
        assert words in said.getvalue(), "somebody looks for the page, and for the reason"


def test_what_builds_the_pages_sees_no_secret_and_nothing_that_changes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PULUMI_CONFIG_PASSPHRASE", "AWS_SECRET_ACCESS_KEY", "NODE_OPTIONS", "PREBUILT_ASSETS_STATIC_DIR"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    for each in prometheus_pages.steps(Path("module"), Path("work")):
        assert "secret" not in each.environment.values(), "hundreds of packages of others run there"
        assert each.environment["https_proxy"], "by which way packages come is the host's affair"


def test_all_that_the_pages_are_built_with_is_locked() -> None:
    folder = SOURCES / "prometheus" / "pages"
    assert "--hash=sha256:" in (folder / "requirements.txt").read_text(), "Node runs with the user's rights"
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    fetched = {name: package for name, package in packages.items() if name}
    assert fetched, "pnpm is among them"
    assert all(package["integrity"].startswith("sha512-") for package in fetched.values()), "and so does pnpm"
    words = [word for each in prometheus_pages.steps(Path("module"), Path("work")) for word in each.words]
    assert {"--require-hashes", "ci", "--frozen-lockfile"} <= set(words), "a lock that nobody asks locks nothing"


def test_a_compiler_error_is_not_tried_again(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    calls = install_go(tmp_path, monkeypatch, FAKE_GO + "echo 'main.go:3:1: syntax error'; exit 1\n")
    with pytest.raises(BuildError):
        build(["hello"], cache=tmp_path, progress=reporter, sources=sources, programs={"hello": HELLO})
    assert len(calls.read_text().splitlines()) == 1, "it would only fail again, minutes later"


def test_the_error_text_keeps_the_last_lines_only() -> None:
    text = failure_text("hello", ["build", "-v"], 1, [f"line {number}" for number in range(100)], last=3)
    assert text == "hello: `go build` ended with status 1:\n    line 97\n    line 98\n    line 99"
    assert "said nothing" in failure_text("hello", ["build"], 1, []), "an empty reason would look like a bug of ours"


def test_two_runs_at_once_build_once(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    calls = install_go(tmp_path, monkeypatch)
    folder = tmp_path / "offline" / "hello"
    folder.mkdir(parents=True)
    finished = folder / cache_key(sources / "hello", HELLO, "1.99.0") / "bin"
    with (folder / ".lock").open("w") as other_run:
        fcntl.flock(other_run, fcntl.LOCK_EX)
        ours = threading.Thread(
            target=build,
            args=(["hello"],),
            kwargs={
                "cache": tmp_path,
                "progress": reporter,
                "sources": sources,
                "programs": {"hello": HELLO},
            },
        )
        ours.start()
        ours.join(timeout=0.5)
        assert ours.is_alive(), "while another run holds the lock, this one has to wait"
        finished.mkdir(parents=True)
    ours.join()
    assert not calls.exists(), "the other run has built it meanwhile"


@pytest.mark.parametrize("change", ["source", "go.sum", "settings", "go"])
def test_whatever_goes_into_a_build_changes_its_key(sources: Path, change: str) -> None:
    folder, program, release = sources / "hello", HELLO, "1.26.0"
    before = cache_key(folder, program, release)
    if change == "source":
        (folder / "main.go").write_text("package main // changed\n")
    elif change == "go.sum":
        (folder / "go.sum").write_text("example.org/x v1.0.0 h1:x=\n")
    elif change == "settings":
        program = Program(version="1.0.0", executables={"hello": "."}, tags=("netgo",))
    else:
        release = "1.26.1"
    assert cache_key(folder, program, release) != before, "an old build would be taken for the new one"


def test_the_key_does_not_depend_on_where_the_clone_lies(sources: Path) -> None:
    copy = sources.parent / "another-clone"
    (sources / "hello").rename(copy)
    moved = cache_key(copy, HELLO, "1.26.0")
    copy.rename(sources / "hello")
    assert cache_key(sources / "hello", HELLO, "1.26.0") == moved, "clones share one cache"


def test_an_unknown_name_is_refused_with_the_names_there_are(tmp_path: Path, reporter: Reporter) -> None:
    with pytest.raises(OfflineError, match=r"grafana.*prometheus"):
        build(["grafana"], cache=tmp_path, progress=reporter)


def test_a_host_without_go_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(go_release, "_DEBIAN_GO", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(OfflineError, match=r"Go 1\.25\.0 or newer is needed.*golang-go"):
        ensure_go(cache=tmp_path, minimum="1.25.0", progress=reporter)


def test_an_old_go_fetches_a_newer_one_and_makes_it_runnable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    release = tmp_path / "downloaded"
    for name in ("bin/go", "pkg/tool/linux_amd64/compile"):
        (release / name).parent.mkdir(parents=True)
        (release / name).write_text("")
        (release / name).chmod(0o644)  # module archives carry no executable bits
    answer = json.dumps({"Dir": str(release)})
    install_go(
        tmp_path,
        monkeypatch,
        f"#!/bin/sh\nif [ \"$1\" = env ]; then echo go1.19.8; exit 0; fi\necho '{answer}'\n",
    )
    go = ensure_go(cache=tmp_path, minimum="1.25.0", progress=reporter)
    for path in (go, release / "pkg/tool/linux_amd64/compile"):
        assert path.stat().st_mode & stat.S_IXUSR, f"{path.name} has to be runnable"
    assert ensure_go(cache=tmp_path, minimum="1.25.0", progress=reporter) == go, "fetched once, used ever after"


def test_a_go_that_cannot_fetch_a_newer_one_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    install_go(
        tmp_path,
        monkeypatch,
        '#!/bin/sh\nif [ "$1" = env ]; then echo go1.19.8; exit 0; fi\necho "no such host" >&2; exit 1\n',
    )
    with pytest.raises(OfflineError, match="no such host"):
        ensure_go(cache=tmp_path, minimum="1.25.0", progress=reporter)


def test_the_users_own_go_settings_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPROXY", "https://example.org")
    monkeypatch.setenv("GOMODCACHE", "/elsewhere")
    monkeypatch.delenv("GOCACHE", raising=False)
    environment = go_environment(tmp_path)
    assert environment["GOPROXY"] == "https://example.org", "a site's own proxy is the reason this code exists"
    assert environment["GOMODCACHE"] == "/elsewhere", "what the user has named wins"
    assert environment["GOCACHE"].startswith(str(tmp_path)), "all else is removed with the product's cache"
    assert environment["CGO_ENABLED"] == "0", "the executables run in images of another C library"


def test_nothing_that_the_user_has_set_changes_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tmp_path / "go" / "env"
    saved.parent.mkdir()
    saved.write_text("GOPROXY=https://mirror.example.org\nGOFLAGS=-tags=saved\nGOAMD64=v4\n", encoding="utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("GOENV", "GOPROXY"):
        monkeypatch.delenv(name, raising=False)
    theirs = {
        "GOFLAGS": "-tags=theirs",
        "GOARCH": "arm64",
        "GOOS": "windows",
        "GOAMD64": "v3",
        "CGO_ENABLED": "1",
        "GOEXPERIMENT": "nogreenteagc",
        "GODEBUG": "netdns=cgo",
        "GO111MODULE": "off",
        "CC": "theirs",
        "GOTOOLCHAIN": "go1.99.0",
        "GOROOT": "/nowhere",
        "GOWORK": "/theirs",
        "https_proxy": "http://proxy",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    environment = go_environment(tmp_path)
    assert environment["https_proxy"] == "http://proxy", "a site's own way out is the reason this code exists"
    assert environment["GOPROXY"] == "https://mirror.example.org", "set once by `go env -w`, as a mirror's manual says"
    left = {name: environment.get(name) for name in theirs if name != "https_proxy"}
    kept = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    assert {name: value for name, value in left.items() if value is not None} == kept, (
        "it is no part of the build's key, so all others would get what this user has built"
    )
    assert environment["GOENV"] == "off", "Go would read the same from the user's file"


@pytest.mark.parametrize(
    ("gibibytes", "processors", "limit"),
    [(24, 2, "1024MiB"), (4, 2, "512MiB"), (8, 4, "512MiB"), (2, 2, None), (8, 8, None)],
)
def test_the_compilers_take_half_of_the_memory_at_most_and_none_gets_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gibibytes: int, processors: int, limit: str | None
) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gibibytes * 2**18}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setattr(go_release, "_MEMORY_LIMITS", ())
    monkeypatch.setenv("GOGC", "10")
    environment = go_environment(tmp_path)
    assert environment.get("GOMEMLIMIT") == limit
    assert environment.get("GOGC") == ("off" if limit else None), (
        "without a limit one compiler may take gigabytes; with one that is too low it looks for garbage all the time"
    )


@pytest.mark.parametrize(
    ("said", "limit"),
    [(str(4 * 2**30), "512MiB"), ("max", "1024MiB"), (str(2**63 - 4096), "1024MiB"), (None, "1024MiB")],
)
def test_in_a_container_the_compilers_take_half_of_its_memory_and_not_of_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, limit: str
) -> None:
    file = tmp_path / "memory.max"
    if said:
        file.write_text(f"{said}\n")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * 2**18}.__getitem__)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    monkeypatch.setattr(go_release, "_MEMORY_LIMITS", (tmp_path / "none", file))
    assert go_environment(tmp_path)["GOMEMLIMIT"] == limit, "the kernel would kill the build"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("github.com/pulumi/pulumi/pkg/v3", True),
        ("go: downloading example.org/x v1.0.0", False),
        ("main.go:3:1: syntax error", False),
        ("# example.org/broken", False),
        ("", False),
    ],
)
def test_progress_knows_a_package_from_a_message(line: str, *, expected: bool) -> None:
    assert is_package(line) is expected, "a message taken for a package would be missing from the error text"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_its_sources_and_checksums_committed(name: str) -> None:
    assert (SOURCES / name / "go.sum").stat().st_size > 0, "without go.sum nothing is verified"
    assert required_go(SOURCES / name / "go.mod") <= GO_VERSION, "the Go we fetch must be new enough"


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if not program.generate])
def test_the_stamped_version_is_the_one_in_go_mod(name: str) -> None:
    version = PROGRAMS[name].version
    if name == "prometheus":  # 3.13.4 is the Go module v0.313.4
        _, minor, patch = version.split(".")
        version = f"0.3{minor}.{patch}"
    text = (SOURCES / name / "go.mod").read_text()
    assert re.search(rf" v{re.escape(version)}(\s|\+|$)", text), "the program would claim a version that it is not"


def test_a_program_starts_after_one_that_stands_before_it() -> None:
    names = list(PROGRAMS)
    for name, program in PROGRAMS.items():
        if program.after:
            assert names.index(program.after) < names.index(name), "with one at a time it would wait for ever"


@pytest.mark.parametrize("plugin", pulumi_cli._PLUGINS)
def test_a_plugin_has_the_version_that_the_python_package_asks_for(plugin: str) -> None:
    wanted = importlib.metadata.version(f"pulumi-{plugin}")
    program = PROGRAMS[f"pulumi-resource-{plugin}"]
    assert program.version == wanted, "Pulumi would look for another plugin and try to download it"
    bridge = (SOURCES / f"pulumi-resource-{plugin}" / "bridge" / "bridge.go").read_text()
    assert f'Version = "{wanted}"' in bridge, "the plugin tells its version itself"


def test_the_pinned_python_packages_are_those_that_the_plugins_were_made_for() -> None:
    project = tomllib.loads((SOURCES.parents[1] / "pyproject.toml").read_text())
    for plugin in pulumi_cli._PLUGINS:
        pinned = f"pulumi-{plugin}=={PROGRAMS[f'pulumi-resource-{plugin}'].version}"
        assert pinned in project["project"]["dependencies"], "a loose pin would one day ask for another plugin"


def fake_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulumi: str) -> None:
    """Let `build` give a shell script as `pulumi`, and empty files as all else."""
    built = {name: tmp_path / "built" / name for name in PROGRAMS if name.startswith("pulumi")}
    for name, folder in built.items():
        folder.mkdir(parents=True, exist_ok=True)
        for executable in (*PROGRAMS[name].executables, *PROGRAMS[name].files):
            (folder / executable).write_text("")
    (built["pulumi"] / "pulumi").write_text(pulumi)
    (built["pulumi"] / "pulumi").chmod(0o755)
    monkeypatch.setattr(pulumi_cli, "build", lambda *_args, **_options: built)


def test_pulumi_gets_its_language_host_and_both_plugins_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "plugins"
    fake_builds(tmp_path, monkeypatch, f'#!/bin/sh\nmkdir -p "$PULUMI_HOME"\necho "$3 $4 $5" >> {log}\n')
    install, again = (ensure_pulumi(cache=tmp_path) for _ in range(2))
    assert install == again, "the second call finds what the first has made"
    plugins = [f"resource {name} {PROGRAMS[f'pulumi-resource-{name}'].version}" for name in ("docker", "random")]
    assert log.read_text().splitlines() == plugins, "each plugin is installed once, under the version asked for"
    names = {path.name for path in install.bin_dir.iterdir()}
    assert names == {"pulumi", "pulumi-language-python", "pulumi-language-python-exec"}
    assert not any(path.is_symlink() for path in install.bin_dir.iterdir()), "Pulumi warns of a language host elsewhere"
    environment = install.environment({"PATH": "/usr/bin"}, venv=tmp_path / "venv")
    assert environment["PATH"] == f"{install.bin_dir}:{tmp_path}/venv/bin:/usr/bin", "nothing else may come first"


def test_a_plugin_that_does_not_install_leaves_no_half_made_pulumi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_builds(tmp_path, monkeypatch, "#!/bin/sh\necho no space left on device >&2\nexit 255\n")
    with pytest.raises(OfflineError, match=r"resource docker .*\n.*no space left"):
        ensure_pulumi(cache=tmp_path)
    made = [path for path in (tmp_path / "offline" / "pulumi-installed").iterdir() if not path.name.startswith(".")]
    assert made == [], "the next run would take it for a whole one"
