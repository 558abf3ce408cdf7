"""A deploy from CI is not taken back for what was red before it, and no fault of its own passes for an old one.

Real Git clones and worktrees; `samokoder` is a stand-in whose smoke test finds what is wrong with the environment, and
with the version that runs, whichever version asks.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from operations.__main__ import app
from operations.checks.report import Finding, Report, Verdict
from operations.delivery import red_checks
from operations.delivery.commit_deploy import GOOD_COMMIT, LAST_COMMIT, CommitDeploy, Deployed
from operations.errors import ProjectError
from operations.workspace import stack_file
from operations.workspace.workspace import Workspace
from tests.unit.operations.delivery import test_delivery
from tests.unit.operations.delivery.test_delivery import Clone, Pulumi, deploy

held = test_delivery.held

BOOTSTRAP = """#!/bin/sh
mkdir -p .venv/bin
cat >.venv/bin/samokoder <<'END'
#!/bin/sh
echo "$(cat version) $ENV $*" >>"$CALLS"
case $1 in
up)
    cp version "$CALLS.runs"
    cp faults "$CALLS.faults"
    cat damage >>"$CALLS.red"
    ;;
smoke)
    [ -e "$CALLS.deaf" ] && exit 1
    case $* in *--wait*) rm -f "$CALLS.passing" ;; esac
    cat "$CALLS.red" "$CALLS.faults" >"$CALLS.found"
    [ -e "$CALLS.passing" ] && cat "$CALLS.passing" >>"$CALLS.found"
    cmp -s version "$CALLS.runs" || echo "rules loaded" >>"$CALLS.found"
    cp ".samokoder/machine.$ENV.yaml" "$CALLS.machine" 2>/dev/null
    for report; do :; done
    {
        echo '<testsuite><testcase name="container api-1"/>'
        sed 's|.*|<testcase name="&"><failure message="because"/></testcase>|' "$CALLS.found"
        echo '</testsuite>'
    } >"$report" || exit 2
    [ ! -s "$CALLS.found" ]
    ;;
esac
END
chmod +x .venv/bin/samokoder
"""
OLD, NEW = "certificate", "public entry: write, read"


class Environment(Clone):
    """A clone, and the environment that its commits are deployed to. It begins with a good version."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "bootstrap").write_text(BOOTSTRAP)
        (folder / ".gitignore").write_text("/.venv/\n/.samokoder/\n/build/\n/calls*\n")
        for name in ("red", "faults"):
            self._of_calls(name).write_text("")
        self.pulumi = Pulumi()
        self.said: list[str] = []
        self.good = self.version("one")
        self.deploys()

    def _of_calls(self, name: str) -> Path:
        return self.folder / f"calls.{name}"

    def version(self, name: str, *, faults: str = "", damage: str = "", postgres: str = "15.19") -> str:
        """Commit a version. faults: checks that are red while it runs; damage: that are red ever after."""
        for file, text in (("faults", faults), ("damage", damage)):
            (self.folder / file).write_text(f"{text}\n" if text else "")
        return self.commit(name, postgres=postgres)

    def is_red(self, *checks: str) -> None:
        """Have the environment be red whatever runs."""
        self._of_calls("red").write_text("".join(f"{each}\n" for each in checks))

    def is_red_for_a_moment(self, check: str) -> None:
        """Have the environment be red until somebody waits."""
        self._of_calls("passing").write_text(f"{check}\n")

    def cannot_be_asked(self, *, so: bool) -> None:
        file = self._of_calls("deaf")
        file.write_text("") if so else file.unlink()

    def deploys(self) -> str:
        """Deploy what is checked out; return what was done, or what the error says."""
        try:
            return deploy(self, self.pulumi, self.said)
        except ProjectError as error:
            return str(error)

    @property
    def runs(self) -> str:
        return self._of_calls("runs").read_text()

    @property
    def machine(self) -> dict[str, Any]:
        """What the smoke test knew of the machine, the last time that it knew something."""
        return stack_file.load(self._of_calls("machine"))


class CutOff(list[str]):
    """What is said, until the runner dies: a version is up, and its smoke test is about to begin."""

    def __init__(self, clone: Clone) -> None:
        super().__init__()
        self._end = f"samokoder smoke of {clone.folder}"

    def append(self, text: str) -> None:
        if text == self._end:
            raise InterruptedError
        super().append(text)


@pytest.fixture
def there(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "clone")


def test_a_deploy_stays_when_nothing_is_red_but_what_was_red_before(there: Environment) -> None:
    there.is_red(OLD)
    commit = there.version("two")
    said = there.deploys()
    assert there.runs == "two", "it was taken back for a fault that it has not made"
    assert there.pulumi.good == there.pulumi.noted[LAST_COMMIT] == commit, "the next deploy would have no good one"
    assert said.endswith(f"and good. Red since before this deploy: {OLD}."), (
        "nobody would know that it is not all green"
    )


def test_each_later_deploy_stays_as_well_until_one_mends_what_is_red(there: Environment) -> None:
    there.is_red(OLD)
    there.version("two")
    there.deploys()
    assert "and good." in there.deploys(), "the same commit, whose job is run again"
    mends = there.version("three")
    assert "and good." in there.deploys()
    assert there.pulumi.good == mends, "nobody could deploy any more, the one who mends it neither"
    there.is_red()
    there.version("four")
    assert there.deploys().endswith("and good."), "what is green again is told of no more"


def test_a_new_fault_beside_an_old_one_goes_back_to_a_version_that_is_good_but_for_the_old_one(
    there: Environment,
) -> None:
    there.is_red(OLD)
    there.version("two", faults=NEW)
    said = there.deploys()
    assert there.runs == "one"
    assert f"`samokoder smoke` ended with 1: {NEW}. It runs" in said, "the one that made it go back is named, alone"
    assert said.endswith(f"again, which is good. Red since before this deploy: {OLD}.")
    assert there.pulumi.noted[LAST_COMMIT] == there.good, "else the next deploy would not ask what is red before it"
    there.version("three")
    assert "and good." in there.deploys()


def test_the_good_version_says_what_is_red_before(there: Environment) -> None:
    there.version("two", faults="rules loaded")
    there.deploys()
    assert there.runs == "one", "to the new program the rules that run are old, which excuses none that it has itself"
    assert there.calls()[2] == "one staging smoke"


def test_what_is_red_for_a_moment_before_a_deploy_does_not_excuse_the_fault_of_the_deploy(there: Environment) -> None:
    there.is_red_for_a_moment(NEW)
    there.version("two", faults=NEW)
    assert f"ended with 1: {NEW}. It runs" in there.deploys()
    assert there.runs == "one", "one late answer has hidden a version that cannot write"


def test_the_good_version_is_asked_on_the_engine_that_it_runs_on_and_without_the_parts_that_it_lacks(
    there: Environment,
) -> None:
    there.pulumi.outputs = {"dockerHost": "ssh://deploy@engine.example.org", "unavailable": ["grafana"]}
    there.version("two")
    there.deploys()
    assert there.machine == {
        "samokoder:dockerHost": "ssh://deploy@engine.example.org",
        "samokoder:unavailable": ["grafana"],
    }, "a new worktree knows neither, so Grafana's rules would always be red before"


def test_where_the_state_says_nothing_of_the_machine_the_stack_file_alone_does(there: Environment) -> None:
    there.version("two")
    assert "and good." in there.deploys()
    assert there.machine == {}


def test_a_fault_of_a_version_is_no_old_one_when_its_job_is_run_again(there: Environment) -> None:
    there.version("two", faults=NEW)
    with pytest.raises(InterruptedError):
        deploy(there, there.pulumi, CutOff(there))
    assert there.runs == "two"
    assert f"ended with 1: {NEW}" in there.deploys()
    assert there.runs == "one", "the bad version was taken for what had been there before"


def test_what_was_red_before_a_job_that_was_cut_off_is_known_to_the_next_one(there: Environment) -> None:
    there.is_red(OLD)
    there.version("two")
    with pytest.raises(InterruptedError):
        deploy(there, there.pulumi, CutOff(there))
    assert "and good." in there.deploys(), "the same version would have stayed, had its runner not died"
    assert there.runs == "two"


def test_a_bad_version_without_a_way_back_is_never_good_by_its_own_measure(there: Environment) -> None:
    there.is_red(OLD)
    there.version("two", faults=NEW, postgres="16.4")
    for _ in range(2):
        assert f": {NEW}. It stays: postgres went from 15 to 16" in there.deploys()
    assert there.pulumi.good == there.good
    mends = there.version("three", postgres="16.4")
    assert "and good." in there.deploys()
    assert there.pulumi.good == mends


def test_the_first_deploy_has_nothing_before_it_and_excuses_nothing(there: Environment) -> None:
    there.pulumi.noted |= {
        GOOD_COMMIT: "",
        red_checks.TAG: red_checks.written(red_checks.SmokeReport(red=frozenset({OLD}))),
    }
    there.is_red(OLD)
    there.version("two")
    assert f": {OLD}. It stays: no commit has passed" in there.deploys(), "a note of a good version that nobody knows"


def test_no_program_that_was_never_the_head_of_this_branch_is_asked(there: Environment) -> None:
    there.git("checkout", "--quiet", "-b", "somebodys")
    elsewhere = there.version("pushed by anybody")
    there.git("checkout", "--quiet", "main")
    there.version("two")
    there.pulumi.noted |= {GOOD_COMMIT: elsewhere, LAST_COMMIT: elsewhere}
    there.deploys()
    assert not [call for call in there.calls() if call.startswith("pushed")], "it would run with all secrets"


def test_where_the_smoke_test_cannot_ask_before_every_red_check_counts(there: Environment) -> None:
    there.is_red(OLD)
    there.cannot_be_asked(so=True)
    there.version("two")
    there.said.clear()

    class Comes(list[str]):
        def append(self, text: str) -> None:
            if text.startswith("What was red before this deploy is not known (`samokoder smoke` ended with 1)"):
                there.cannot_be_asked(so=False)
            super().append(text)

    with pytest.raises(ProjectError, match=f": {OLD}. Neither is"):
        deploy(there, there.pulumi, Comes())


def test_a_report_of_an_earlier_job_excuses_no_smoke_test_that_can_ask_nothing(there: Environment) -> None:
    there.is_red(OLD)
    there.version("two")
    there.deploys()
    there.cannot_be_asked(so=True)
    three = there.version("three")
    assert "is not good in staging: `samokoder smoke` ended with 1. Neither" in there.deploys()
    assert there.pulumi.good != three, "nobody has looked at it"


def test_a_fault_that_came_with_a_deploy_and_stays_after_going_back_is_for_a_person_to_judge(
    there: Environment,
) -> None:
    bad = there.version("two", damage=NEW)
    for _ in range(2):
        said = there.deploys()
        assert f"Neither is {there.good[:12]} after going back to it: `samokoder smoke` ended with 1: {NEW}." in said
        assert there.pulumi.good == there.good, "a version that has damaged the data would be good at its second try"
        assert there.pulumi.noted[LAST_COMMIT] == bad
    command = f"make pulumi ARGS='stack tag set {LAST_COMMIT} {there.good}'"
    assert f"`{command}`" in said, "nobody could deploy any more where the fault is of neither"
    there.pulumi.pulumi(*command.partition("'")[2].strip("'").split())
    there.version("three")
    assert "and good. Red since" in there.deploys()


def test_the_folder_of_the_reports_is_made_and_each_smoke_test_has_its_own(there: Environment) -> None:
    there.version("two", faults=NEW)
    there.deploys()
    reports = {file.name for file in (there.folder / "build").iterdir()}
    assert reports == {"smoke.xml", "smoke-before.xml", "smoke-after-going-back.xml"}, (
        "a smoke test that cannot write its report fails"
    )


def test_what_was_red_is_read_from_a_report_as_the_smoke_test_writes_it(tmp_path: Path) -> None:
    verdicts = {OLD: Verdict.FAILED, NEW: Verdict.PASSED, "backup base": Verdict.NOT_AVAILABLE}
    findings = [Finding(check=name, verdict=verdict, why="<so & so>") for name, verdict in verdicts.items()]
    file = tmp_path / "smoke.xml"
    file.write_text(Report(title="Smoke test", about={}, findings=findings).junit(), encoding="utf-8")
    assert red_checks.reported(file) == red_checks.SmokeReport(asked=frozenset(verdicts), red=frozenset({OLD})), (
        "what could not be asked was not seen to be red"
    )
    file.write_text(file.read_text()[:40])
    assert red_checks.reported(file) == red_checks.reported(tmp_path / "none") == red_checks.SmokeReport()


@pytest.mark.parametrize(
    ("red", "green", "later", "new"),
    [
        (["metrics api-1", "metrics api-2"], [], "metrics api-3", False),
        (["target api-1:8000"], [], "target api-2:8000", False),
        (["metrics api-1"], ["metrics api-2"], "metrics api-2", True),
        (["metrics api-1"], ["metrics api-2"], "metrics api-3", True),
        (["metrics api-1"], [], "container api-1", True),
        (["probe https://api-1.example.org"], [], "probe https://api-2.example.org", True),
        ([], [], "certificate", True),
    ],
)
def test_a_replica_more_has_no_new_fault_where_each_one_had_it(
    red: list[str], green: list[str], later: str, *, new: bool
) -> None:
    noted = red_checks.written(red_checks.SmokeReport(asked=frozenset([*red, *green]), red=frozenset(red)))
    assert red_checks.split([later], noted) == (([later], []) if new else ([], [later]))


def test_pulumi_takes_the_note_of_an_environment_in_which_all_is_red() -> None:
    names = frozenset(["backup offsite", *(f"target part-{number}:80" for number in range(60))])
    noted = red_checks.written(red_checks.SmokeReport(asked=names, red=names))
    assert len(noted) <= 256, "Pulumi Cloud refuses a longer value"
    assert len(red_checks.split(names, noted)[1]) == 28
    assert red_checks.written(red_checks.SmokeReport()), "Pulumi knows no tag without a value"


def test_a_bucket_that_the_version_before_did_not_ask_is_no_fault_of_the_deploy() -> None:
    noted = red_checks.written(red_checks.SmokeReport(asked=frozenset({"target api"}), red=frozenset()))
    assert red_checks.split(["backup offsite", "target api"], noted) == (["target api"], ["backup offsite"])
    asked = red_checks.written(red_checks.SmokeReport(asked=frozenset({"backup offsite"}), red=frozenset()))
    assert red_checks.split(["backup offsite"], asked) == (["backup offsite"], [])


@pytest.mark.parametrize("red", [(), (OLD,)])
def test_the_job_of_a_deploy_that_stays_is_green_and_warns_of_what_is_red(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, red: tuple[str, ...]
) -> None:
    said = "staging is at 1a2b, and good: 100 %"
    monkeypatch.setattr(Workspace, "open", lambda _: SimpleNamespace())
    monkeypatch.setattr(CommitDeploy, "__call__", lambda *_, **__: Deployed(said=said, red=red))
    summary = tmp_path / "summary.md"
    variables = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true"}
    answer = CliRunner().invoke(app, ["ci", "deploy", "--junit", "smoke.xml"], env=variables)
    assert answer.exit_code == 0, (
        "production waits for staging's job: no deploy would reach it, the mending one neither"
    )
    warning = "::warning title=staging is red since before this deploy::staging is at 1a2b, and good: 100 %25\n"
    assert answer.output == f"{said}\n{warning if red else ''}"
    assert summary.read_text() == f"{said}\n"


def test_the_page_of_a_job_that_went_back_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def bad(*_: object, **__: object) -> Deployed:
        raise ProjectError("1a2b is not good")

    monkeypatch.setattr(Workspace, "open", lambda _: SimpleNamespace())
    monkeypatch.setattr(CommitDeploy, "__call__", bad)
    summary = tmp_path / "summary.md"
    variables = {"GITHUB_STEP_SUMMARY": str(summary)}
    assert CliRunner().invoke(app, ["ci", "deploy", "--junit", "smoke.xml"], env=variables).exit_code == 1
    assert summary.read_text() == "1a2b is not good\n"
