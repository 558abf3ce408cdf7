"""Renovate's configuration sees every pin of ours: what its expressions find is what the program declares."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offline.go_release import GO_VERSION
from offline.programs import PROGRAMS, SOURCES
from operations.workspace.pulumi_cli import PULUMI_VERSION
from stack.images import IMAGES

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))

#: Programs that Renovate must leave alone -> why.
NOT_RAISED = {
    "pulumi-language-python": "the newest module version that still holds the Python language host",
    "pulumi-toolchain": "has the Pulumi command's version",
}


def tracked() -> list[str]:
    """Return every file of the clone that is not ignored."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def python(expression: str) -> str:
    """Write an expression as Python has it: JavaScript's (?<name> is (?P<name>, the rest here is common to both."""
    return re.sub(r"\(\?<(?=[a-zA-Z])", "(?P<", expression)


def matches(manager: dict[str, Any]) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield what one custom manager finds: file, match."""
    patterns = [pattern.strip("/") for pattern in manager["managerFilePatterns"]]
    for name in tracked():
        if any(re.search(pattern, name) for pattern in patterns):
            for expression in manager["matchStrings"]:
                for match in re.finditer(python(expression), (ROOT / name).read_text(encoding="utf-8")):
                    yield name, match


def manager(word: str) -> dict[str, Any]:
    (found,) = [each for each in CONFIG["customManagers"] if word in each["description"]]
    return dict(found)


def versions() -> dict[str, dict[str, str]]:
    """Return what the comments in front of versions lead Renovate to: file -> package -> version."""
    found: dict[str, dict[str, str]] = {}
    for name, match in matches(manager("comment")):
        assert match["depName"] not in found.get(name, {}), f"{name}: two versions of {match['depName']}"
        found.setdefault(name, {})[match["depName"]] = match["currentValue"]
    return found


def test_every_image_is_found_and_written_back_unchanged() -> None:
    images = manager("images")
    found = [match for _, match in matches(images)]
    references = [f"{match['depName']}:{match['currentValue']}@{match['currentDigest']}" for match in found]
    assert references == [image.reference for image in IMAGES.values()], "Renovate leaves an image behind"
    for match in found:
        written = images["autoReplaceStringTemplate"].replace("{{{depName}}}", match["depName"])
        written = written.replace("{{{newValue}}}", match["currentValue"])
        written = written.replace("{{{newDigest}}}", match["currentDigest"])
        assert written == match[0], "an update would change more than the version and the digest"


def test_every_program_built_from_go_modules_is_found_with_its_version() -> None:
    found = versions()["offline/programs.py"]
    assert versions()["offline/go_release.py"] == {"go": GO_VERSION}
    declared = sorted(program.version for name, program in PROGRAMS.items() if name not in NOT_RAISED)
    assert sorted(found.values()) == declared, "a program without a `renovate:` comment stays old for ever"


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in NOT_RAISED])
def test_the_module_of_every_program_is_one_that_renovate_does_not_pass_over(name: str) -> None:
    required = re.findall(
        r"^(?:require|\t)\s*([\w./~-]+) v\S+( // indirect)?$", (SOURCES / name / "go.mod").read_text(), re.MULTILINE
    )
    assert required, "the expression no longer reads go.mod"
    (rule,) = [rule for rule in CONFIG["packageRules"] if rule.get("matchDepTypes") == ["indirect"]]
    raised = {module for module, indirect in required if not indirect} | set(rule["matchPackageNames"])
    for package in PROGRAMS[name].executables.values():
        owners = [module for module, _ in required if f"{package}/".startswith(f"{module}/")]
        # The programs with sources of ours name what they are made of directly.
        assert package == "." or max(owners, key=len) in raised, (
            f"{name}: go.mod marks the tool as indirect, and Renovate updates no such module by default"
        )


def test_nothing_stands_in_the_rule_for_tools_that_is_none() -> None:
    (rule,) = [rule for rule in CONFIG["packageRules"] if rule.get("matchDepTypes") == ["indirect"]]
    packages = [package for program in PROGRAMS.values() for package in program.executables.values()]
    for module in rule["matchPackageNames"]:
        assert any(f"{package}/".startswith(f"{module}/") for package in packages), f"{module} is built no more"


def test_pulumi_and_uv_are_found() -> None:
    assert versions()["operations/workspace/pulumi_cli.py"] == {"pulumi/pulumi": PULUMI_VERSION}
    # pep621 raises it, with the sums of its wheels in uv.lock.
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["uv"]
    assert re.fullmatch(r"uv==[\d.]+", *group)


def test_no_other_file_has_a_version_that_renovate_does_not_see() -> None:
    # What looks like a pin: NAME_VERSION = "1.2.3", version="1.2.3", Go's Version = "1.2.3", an image with its digest.
    pin = re.compile(
        r'^\s*(?:const )?(?:[A-Z_]*VERSION|[Vv]ersion) ?= ?"?(\d+\.\d+[\w.-]*)'
        r'|"([\w./-]+:[\w.-]+@sha256:[0-9a-f]{64})"',
        re.MULTILINE,
    )
    seen = {(name, match["currentValue"]) for name, match in matches(manager("comment"))}
    images = {image.reference for image in IMAGES.values()}
    # Not pins of something to fetch: the two Pythons and the project's own version; what is not raised has its reason.
    known = {("offline/images/recipes.py", "3.11"), ("pyproject.toml", "0.1.0"), ("pyproject.toml", "3.11")}
    known |= {("offline/programs.py", PROGRAMS[name].version) for name in NOT_RAISED}
    # A plugin tells the version that programs.py has; test_toolchain.py compares them.
    plugins = ("pulumi-resource-docker", "pulumi-resource-random")
    known |= {(f"offline/go/{name}/bridge/bridge.go", PROGRAMS[name].version) for name in plugins}
    # Unit tests and recordings have versions of nothing that is fetched.
    left_out = r"^(tests/(unit|golden|recorded|render|backup_image)|docs)/|\.(md|lock|sum)$"
    places = [name for name in tracked() if not re.search(left_out, name)]
    assert {"bootstrap", "stack/images.py", "reference_app/Dockerfile", "tests/newer_engine.py"} <= set(places)
    for name in places:
        for version, image in pin.findall((ROOT / name).read_text(encoding="utf-8", errors="ignore")):
            if image:
                assert image in images, f"{name}: {image} is pinned where Renovate does not look"
            else:
                assert (name, version) in seen | known, f"{name}: {version} lacks a `# renovate:` comment above it"


def test_every_runner_and_every_system_of_a_workflow_is_found_or_is_a_choice() -> None:
    own = re.compile(r"^\s*runs-on: (ubuntu-[\d.]+)$", re.MULTILINE)  # all that Renovate's own manager reads
    found = [(name, f"ubuntu-{match['currentValue']}") for name, match in matches(manager("runner"))]
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        there = re.findall(r"ubuntu-\d[\d.]+", text)
        read = [*own.findall(text), *(runner for file, runner in found if file == name)]
        assert sorted(read) == sorted(there), f"{name}: a runner that nobody raises is switched off one day"
    # On which systems a newcomer's way is tried is a choice: an old one does not become a new one.
    tried = {".github/workflows/newcomer.yml": {"debian:12", "debian:13", "ubuntu:24.04"}}
    for name in tracked():
        if name.startswith((".github/", ".devcontainer/")):
            systems = set(re.findall(r"\b(?:debian|ubuntu|alpine):\d[\w.]*", (ROOT / name).read_text(encoding="utf-8")))
            by_manager = {"debian:12"} if name == ".devcontainer/devcontainer.json" else set()
            assert systems == tried.get(name, set()) | by_manager, f"{name}: nobody raises {systems}"
    assert "devcontainer" in CONFIG["enabledManagers"]


def test_no_dockerfile_names_an_image_itself() -> None:
    for name in ("reference_app/Dockerfile", "backup_image/Dockerfile"):
        bases = re.findall(r"^FROM (\S+)", (ROOT / name).read_text(), re.MULTILINE)
        assert bases
        assert all(base.startswith("${") for base in bases), f"{name}: an image outside stack/images.py is not raised"


def test_renovates_own_managers_have_the_rest() -> None:
    assert set(CONFIG["enabledManagers"]) == {
        "custom.regex",
        "devcontainer",
        "github-actions",
        "gomod",
        "npm",
        "pep621",
        "pip_requirements",
    }
    files = tracked()
    # pep621 raises what pyproject.toml asks for; uv.lock pins all of it, and is refreshed whole.
    assert {"pyproject.toml", "uv.lock"} <= set(files)
    assert CONFIG["lockFileMaintenance"]["enabled"], "a package of a package is raised only by refreshing the lock"
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    unlocked = [package["name"] for package in locked if "version" not in package]
    assert not unlocked, f"not pinned: {unlocked}"
    other = [name for name in files if re.search(r"(^|/)(Cargo\.toml|Gemfile|pom\.xml|setup\.py)$", name)]
    assert not other, f"no manager is switched on for {other}"
    requirements = {name for name in files if Path(name).name == "requirements.txt"}
    exported = next(rule for rule in CONFIG["packageRules"] if rule.get("matchManagers") == ["pip_requirements"])
    raised = {name for name in requirements if f"{name.partition('/')[0]}/**" not in exported["matchFileNames"]}
    assert raised == {"offline/go/prometheus/pages/requirements.txt"}, "raised alone, it would differ from uv.lock"
    assert {"/".join(Path(name).parts[:2]) for name in files if name.endswith("go.mod")} == {"offline/go"}


def test_nothing_is_locked_before_the_days_that_renovate_waits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    assert project["exclude-newer"] == CONFIG["minimumReleaseAge"], (
        "Renovate does not look at the packages of packages in a lock update: a malicious release would come in at once"
    )
    days = CONFIG["minimumReleaseAge"].removesuffix(" days")
    assert tomllib.loads((ROOT / "uv.lock").read_text())["options"]["exclude-newer-span"] == f"P{days}D", (
        "run `uv lock`"
    )


def test_every_rule_says_why_it_is_there() -> None:
    for rule in [*CONFIG["packageRules"], *CONFIG["customManagers"]]:
        assert rule["description"], "a limit without its reason stays for ever"
