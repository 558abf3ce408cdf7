"""Nothing comes in under a licence that nobody has looked at."""

from __future__ import annotations

import tomllib
from email.message import Message
from pathlib import Path

import pytest

from operations.audit import licences
from operations.audit.licences import ALLOWED, EXCEPTIONS, Licensed, UnknownLicenceError, is_allowed, licence_of
from stack.images import IMAGES

ROOT = Path(__file__).resolve().parents[4]


def metadata(**fields: str | list[str]) -> Message:
    message = Message()
    for name, value in {"Name": "it", **fields}.items():
        for each in [value] if isinstance(value, str) else value:
            message[name.replace("_", "-")] = each
    return message


def test_every_dependency_has_an_allowed_licence_or_an_exception_with_a_reason() -> None:
    everything = [*licences.python_packages(), *licences.images()]
    refused = [f"{each.name}: {each.licence}" for each in everything if not is_allowed(each)]
    assert not refused, f"decide about each in ALLOWED or EXCEPTIONS of operations/audit/licences.py: {refused}"


def test_every_package_of_the_lock_is_looked_at() -> None:
    locked = {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    listed = {each.name for each in licences.python_packages()}
    assert listed == locked - {"samokoder-platform"}, "what is locked is installed somewhere"
    assert len(list(licences.images())) == len(IMAGES)


def test_who_uses_a_package_is_told_also_where_another_package_asks_for_it() -> None:
    users = {each.name: each.used_by for each in licences.python_packages()}
    assert users["barman"] == ("backup server",), "the licence of the backup server's programs is that image's alone"
    assert users["pytest"] == ("development",)
    assert set(users["pydantic"]) == {"program", "reference application", "backup server"}
    assert "program" in users["grpcio"], "pulumi asks for it"


def lock(tmp_path: Path, text: str) -> dict[str, tuple[str, ...]]:
    """Return the users of the packages of a uv.lock in which `own` is ours and asks for `a[x]`."""
    own = """
[[package]]
name = "own"
source = { editable = "." }
dependencies = [{ name = "a", extra = ["x"] }]
"""
    (tmp_path / "uv.lock").write_text(own + text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(licences, "ROOT", tmp_path)
        return licences._users()


@pytest.mark.timeout(20)
def test_extras_that_ask_for_each_other_come_to_an_end(tmp_path: Path) -> None:
    text = """
[[package]]
name = "a"
[package.optional-dependencies]
x = [{ name = "a", extra = ["y"] }, { name = "b", extra = ["z"] }]
y = [{ name = "a", extra = ["x"] }, { name = "c" }]
[[package]]
name = "b"
dependencies = [{ name = "a" }]
[package.optional-dependencies]
z = [{ name = "a", extra = ["x"] }, { name = "d" }]
[[package]]
name = "c"
[[package]]
name = "d"
"""
    assert set(lock(tmp_path, text)) == {"a", "b", "c", "d"}


def test_of_two_versions_of_a_package_each_has_its_dependencies(tmp_path: Path) -> None:
    text = """
[[package]]
name = "a"
version = "1"
[package.optional-dependencies]
x = [{ name = "of-the-old-one" }]
[[package]]
name = "a"
version = "2"
[[package]]
name = "of-the-old-one"
"""
    assert set(lock(tmp_path, text)) == {"a", "of-the-old-one"}, "its licence would be looked at by nobody"


def test_every_exception_is_still_needed_and_says_why() -> None:
    listed = {each.name: each.licence for each in [*licences.python_packages(), *licences.images()]}
    for name, (licence, why) in EXCEPTIONS.items():
        assert listed.get(name) == licence, f"{name} is here no more, or under another licence: look at it again"
        assert licence not in ALLOWED, f"{name} needs no exception"
        assert len(why) > 20, "an exception without a reason is a hole"


def test_an_exception_holds_for_the_licence_it_was_made_for() -> None:
    assert not is_allowed(Licensed(name="barman", licence="AGPL-3.0-only", used_by=())), "it may have changed"
    assert not is_allowed(Licensed(name="redis", licence="LicenseRef-RSALv2 OR SSPL-1.0", used_by=())), (
        "the Python package of that name has nothing to do with the server's exception"
    )


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND (Apache-2.0 OR AGPL-3.0-only)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("LicenseRef-Proprietary", False),
    ],
)
def test_an_expression_is_allowed_as_it_reads(licence: str, allowed: bool) -> None:
    assert is_allowed(Licensed(name="it", licence=licence, used_by=())) is allowed, (
        "of alternatives one is chosen, a combination must be kept as a whole"
    )


@pytest.mark.parametrize(
    ("given", "licence"),
    [
        (metadata(License_Expression="MIT OR Apache-2.0", License="GPL"), "MIT OR Apache-2.0"),
        (metadata(Classifier=["License :: OSI Approved :: MIT License"], License="MIT"), "MIT"),
        (
            metadata(
                Classifier=[
                    "License :: OSI Approved :: MIT License",
                    "License :: OSI Approved :: Apache Software License",
                    "License :: OSI Approved",
                    "Topic :: System :: MIT",
                ]
            ),
            "Apache-2.0 OR MIT",
        ),
        (metadata(License="3-Clause BSD License"), "BSD-3-Clause"),
        (metadata(Classifier=["License :: OSI Approved :: Strange"], License="MIT"), "MIT"),
    ],
)
def test_a_package_may_say_its_licence_in_each_of_three_ways(given: Message, licence: str) -> None:
    assert licence_of(given) == licence


@pytest.mark.parametrize(
    "given",
    [metadata(), metadata(License="see LICENSE"), metadata(Classifier=["License :: Other/Proprietary License"])],
)
def test_an_unknown_licence_is_an_error_that_says_where_to_write_it(given: Message) -> None:
    with pytest.raises(UnknownLicenceError, match=r"it says .*_NAMES"):
        licence_of(given)
