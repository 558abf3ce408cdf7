"""AlertManager starts also with a file of its own that it cannot read, as it leaves one on a full disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stack.parts.alertmanager import spec as alertmanager
from tests.recording import environment_of

# As AlertManager 0.34.1: it reads both files, listens, and writes both at its end, whatever its end is.
_SERVER = """\
for word in "$@"; do case $word in --storage.path=*) path=${word#*=} ;; esac; done
for name in nflog silences; do
    made=silence
    [ $name = silences ] || made="notification log"
    case $(cat "$path/$name" 2> /dev/null) in
        bad*) echo "error creating $made: $(cut -c 5- "$path/$name")"; exit 1 ;;
    esac
done
for name in nflog silences; do echo nothing > "$path/$name.102abe"; mv "$path/$name.102abe" "$path/$name"; done
case "$*" in *:-1*) echo "listen tcp: address -1: invalid port"; exit 1 ;; esac
"""
_SERVED = f'case "$*" in *:-1*) ;; *) echo "serves with $*"; exit 0 ;; esac\n{_SERVER}'


def start(folder: Path, **kept: str) -> subprocess.CompletedProcess[str]:
    """Start it over files with that content."""
    (folder / "data").mkdir(exist_ok=True)
    for name, content in kept.items():
        (folder / "data" / name).write_text(content)
    (folder / "server").write_text(f"#!/bin/sh\n{_SERVED}")
    (folder / "server").chmod(0o755)
    script = alertmanager.files(environment_of("staging", {}), ())["start-alertmanager.sh"]
    assert isinstance(script, str)
    for its, ours in (("=/alertmanager\n", "data"), ("=/bin/alertmanager\n", "server"), ("=/tmp/try\n", "try")):
        assert its in script, script
        script = script.replace(its, f"={folder / ours}\n")
    words = ["sh", "-c", script, "sh", "--storage.path=/alertmanager", "--log.level=info"]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def there(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "data").iterdir()}


# All that its decoder and protobuf's reader say of content (silence.go, nflog.go; protodelim.go, wire.go, decode.go).
@pytest.mark.parametrize(
    "why",
    [
        "unexpected EOF",
        "invalid state",
        "proto: cannot parse invalid wire-format data",
        "proto:\u00a0variable length integer overflow",
        "proto: : message size 268435455 exceeded unmarshaler's maximum configured size 4194304",
        "string field contains invalid UTF-8",
    ],
)
@pytest.mark.parametrize("name", ["nflog", "silences"])
def test_a_half_written_file_is_moved_out_of_the_way_and_the_alerts_go_on(name: str, why: str, tmp_path: Path) -> None:
    other = "silences" if name == "nflog" else "nflog"
    done = start(tmp_path, **{name: f"bad {why}", other: "whole"})
    assert "serves with --storage.path=/alertmanager --log.level=info" in done.stdout, (
        "nobody is told anything any more"
    )
    assert there(tmp_path) == {f"damaged-{name}": f"bad {why}", other: "whole"}
    assert f"cannot read its file {name}" in done.stdout, "who has lost silences is told so"


def test_files_that_can_be_read_stay_as_they_are(tmp_path: Path) -> None:
    done = start(tmp_path, nflog="whole", silences="whole")
    assert there(tmp_path) == {"nflog": "whole", "silences": "whole"}, "the try has written at its end"
    assert done.stdout.splitlines() == ["serves with --storage.path=/alertmanager --log.level=info"]


def test_a_first_start_has_no_files(tmp_path: Path) -> None:
    assert "serves with" in start(tmp_path).stdout
    assert not there(tmp_path)


@pytest.mark.parametrize(
    "why",
    [
        "open /alertmanager/silences: permission denied",
        "open /alertmanager/silences: too many open files",
        "read /alertmanager/silences: input/output error",
        "read /alertmanager/silences: cannot allocate memory",
    ],
)
def test_a_file_that_only_cannot_be_read_now_stays(why: str, tmp_path: Path) -> None:
    start(tmp_path, silences=f"bad {why}")
    assert there(tmp_path) == {"silences": f"bad {why}"}, "all silences would be gone, and they are good"


def test_each_damaged_file_is_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        done = start(tmp_path, silences="bad invalid state")
        (tmp_path / "data" / "silences").write_text("whole")
        assert f"kept as {tmp_path}/data/damaged-silences{f'-{number}' if number > 1 else ''}." in done.stdout
    assert len(there(tmp_path)) == 4, "what was kept first may be nearly whole"


def test_what_was_being_written_when_it_was_killed_is_removed(tmp_path: Path) -> None:
    half = {"silences.102abe862eb7dedd": "half", "nflog.a02abe862eb7ded": ""}
    start(tmp_path, silences="whole", **half)
    assert there(tmp_path) == {"silences": "whole"}


def test_copies_that_a_person_has_made_stay(tmp_path: Path) -> None:
    names = ["silences.bak", "silences.2026-11-01", "silences.2026", "silences.20261101123000", "nflog.before-upgrade"]
    names += ["silences.bad", "silences.old.102abe862eb7dedd", "silences.102abe862eb7dedd.gz", "damaged-silences"]
    copies = dict.fromkeys([*names, "silences.102ABE862EB7DEDD", "nflog.1"], "mine")
    start(tmp_path, silences="whole", **copies)
    assert there(tmp_path) == {"silences": "whole", **copies}
