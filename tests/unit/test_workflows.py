"""The workflows: what they call exists, what they may do is little, and what a stranger writes is never run."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from typer.testing import CliRunner

from operations.__main__ import app
from operations.workspace.stack_file import environments

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: path for path in sorted(FOLDER.glob("*.yml"))}

#: What a job may do beyond reading the repository, and nothing else may.
BEYOND = {
    ("preview", "comment"): {"pull-requests": "write"},
    ("deploy", "staging"): {"packages": "read"},
    ("deploy", "production"): {"packages": "read"},
}
SECRET = re.compile(r"\$\{\{[^}]*\bsecrets\.(\w+)")


def workflow(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))
    return document


def triggers(name: str) -> set[str]:
    """Return what starts a workflow; YAML 1.1 reads the key `on` as true."""
    document = cast("dict[Any, Any]", workflow(name))
    return set(document[True])


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in WORKFLOWS:
        for job, content in workflow(name)["jobs"].items():
            yield name, job, content


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, job, content in jobs():
        for step in content["steps"]:
            yield name, job, step


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield every command line of every `run`, its variables as a plain word."""
    for name, _job, step in steps():
        for line in str(step.get("run") or "").splitlines():
            if line.strip():
                yield f"{name}: {line}", [re.sub(r"\$\w+", "word", word) for word in shlex.split(line)]


def test_the_workflows_are_those_that_the_document_describes() -> None:
    assert set(WORKFLOWS) == {"ci", "preview", "deploy", "drift", "newcomer", "nightly"}
    document = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
    for path in WORKFLOWS.values():
        assert f"`{path.name}`" in document, f"{path.name} does something that no document tells"


def test_every_command_is_one_of_the_projects_own() -> None:
    programs = {words[0] for _, words in commands()}
    assert programs == {"make", "./bootstrap", ".venv/bin/samokoder"}, (
        "what stands in a workflow alone is tried by nobody before it fails there"
    )


def test_every_make_target_of_a_workflow_exists() -> None:
    database = subprocess.run(
        ["make", "--print-data-base", "--question", "--no-builtin-rules", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    there = set(re.findall(r"^([a-z][a-z-]*):", database, re.MULTILINE))
    before_a_merge = workflow("ci")["jobs"]["make"]["strategy"]["matrix"]["target"]
    nightly = workflow("nightly")["jobs"]["tests"]["strategy"]["matrix"]["target"]
    called = {words[1] for _, words in commands() if words[0] == "make"} - {"word"} | {*before_a_merge, *nightly}
    assert {"lint", "test", "drill"} <= called
    parts = re.search(r"^test-all: ([a-z -]+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert parts, "the expression no longer reads the Makefile"
    # It is left out with words where nobody is root: green there would mean nothing. `.ci/run` has it.
    assert {*parts[1].split(), "mutations", "coverage"} == {*nightly, "test-archive"}, (
        "a part that no night runs is proved by nobody"
    )
    assert "make test-archive" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert called <= there, "a workflow calls a target that `make` has not"


def test_every_samokoder_command_of_a_workflow_exists_with_its_options() -> None:
    found = [(line, words[1:]) for line, words in commands() if words[0].endswith("samokoder")]
    # What `samokoder ci deploy` calls in its turn, of this commit and of an older one.
    found += [("ci deploy", ["up"]), ("ci deploy", ["smoke", "--wait", "60", "--junit", "smoke.xml"])]
    assert len(found) > 5, "the expression no longer reads the workflows"
    for line, words in found:
        # Help is shown after the words were read: an unknown command or option is wrong usage before that.
        answer = CliRunner().invoke(app, [*words, "--help"])
        assert answer.exit_code == 0, f"{line}:\n{answer.output}"
    assert CliRunner().invoke(app, ["ci", "deploy", "--nonsense", "--help"]).exit_code == 2, "or the above says nothing"


def test_every_action_is_pinned_by_commit_with_its_version_beside_it() -> None:
    pinned = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    versions: dict[str, set[str]] = {}
    for path in WORKFLOWS.values():
        for used in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
            assert pinned.fullmatch(used), f"{path.name}: {used} can become other code from one day to the next"
            versions.setdefault(used.partition("@")[0], set()).add(used)
    assert "actions/checkout" in versions
    twice = {action for action, uses in versions.items() if len(uses) > 1}
    assert not twice, "one version of an action everywhere: an old one in a corner is one that nobody raised"


def test_who_deploys_by_ci_alone_can_change_a_configured_key() -> None:
    triggered = cast("dict[Any, Any]", workflow("deploy"))[True]["workflow_dispatch"]
    assert "other_key" in triggered["inputs"]
    (deploy,) = (step for name, job, step in steps() if job == "staging" and "ci deploy" in str(step.get("run")))
    assert deploy["env"]["OTHER_KEY"] == "${{ inputs.other_key }}", "its `up` would be refused for ever"


def test_nothing_is_granted_beyond_what_a_job_needs() -> None:
    for name in WORKFLOWS:
        assert workflow(name)["permissions"] == {}, f"{name}: a job that forgets its own rights must have none"
    for name, job, content in jobs():
        rights: Mapping[str, str] = content["permissions"]
        beyond = {right: value for right, value in rights.items() if (right, value) != ("contents", "read")}
        assert beyond == BEYOND.get((name, job), {}), f"{name}: {job} may do more than it has to"


def test_no_checkout_leaves_the_token_behind() -> None:
    for name, job, step in steps():
        if str(step.get("uses", "")).startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, f"{name}: {job} leaves its token to every later step"


def test_a_forks_pull_request_reaches_no_secret() -> None:
    from_here = "github.event.pull_request.head.repo.full_name == github.repository"
    for name, job, content in jobs():
        assert "pull_request_target" not in triggers(name), "it runs a stranger's change with the secrets of the base"
        assert "workflow_run" not in triggers(name), "as above, by a detour"
        if "pull_request" not in triggers(name):
            continue
        if SECRET.search(yaml.safe_dump(content)) or "environment" in content:
            assert from_here in content["if"], f"{name}: {job} has secrets and must not run for a fork"
    assert "secrets" not in yaml.safe_dump(workflow("ci")), "what runs a fork's code has nothing to steal"


#: What a job with secrets must be sure of where a pull request starts it.
NO_FORK = "github.event.pull_request.head.repo.full_name == github.repository"
NO_BOT = ("github.event.pull_request.user.type != 'Bot'", "github.event.sender.type != 'Bot'")
OWN_RUNNER = "${{ github.event.repository.visibility == 'private' && vars.SAMOKODER_RUNNER || 'ubuntu-24.04' }}"


def conditions(text: str) -> list[str]:
    """Take an `if` apart at its `&&`. Anything but a chain of them would let in what a single part keeps out."""
    assert "||" not in text, "the parts must all hold"
    assert "!cancelled" not in text, "it would run whatever the jobs before it have said"
    assert "always" not in text, "as above"
    return [part.strip() for part in text.removeprefix("${{").removesuffix("}}").split("&&")]


def with_secrets() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each job that is given a secret, or is in a GitHub environment that may have some."""
    for name, job, content in jobs():
        if SECRET.search(yaml.safe_dump(content)) or "environment" in content:
            yield name, job, content


def test_no_bots_pull_request_gets_a_secret() -> None:
    seen = 0
    for name, job, content in with_secrets():
        if "pull_request" in triggers(name):
            seen += 1
            assert {NO_FORK, *NO_BOT} <= set(conditions(content["if"])), (
                f"{name}: {job}: what a bot pushes, a malicious release among it, would run with the secrets at once: "
                "neither the pull request nor the push may be a bot's"
            )
    assert seen, "the expression no longer reads the workflows"


def test_a_preview_has_a_github_environment_of_its_own() -> None:
    for name, job, content in with_secrets():
        own = content["environment"]["name"].endswith("-preview")
        assert own == ("pull_request" in triggers(name)), (
            f"{name}: {job}: what nobody has looked at and what was merged would share their secrets, and the rules of "
            "GitHub's environments (reviewers, only main) could not differ"
        )


def test_checks_and_deploys_are_of_main_alone_also_when_somebody_starts_them() -> None:
    for name, job, content in with_secrets():
        if "pull_request" in triggers(name):
            continue
        assert "environments" in content["needs"]
        if "if" in content:
            conditions(content["if"])
        guard = conditions(workflow(name)["jobs"]["environments"]["if"])
        assert "github.ref == 'refs/heads/main'" in guard, (
            f"{name}: {job}: whoever may push a branch could start it there by hand, with production's secrets"
        )


def test_a_runner_of_our_own_is_for_private_repositories_and_no_preview_runs_there() -> None:
    own = set()
    for name, job, content in jobs():
        if content["runs-on"] == "ubuntu-24.04":
            continue
        assert content["runs-on"] == OWN_RUNNER, f"{name}: {job}: in a public repository a stranger's job could follow"
        assert "pull_request" not in triggers(name), f"{name}: {job}: a branch's program would run beside the keys"
        own.add(job)
        (prepare,) = [
            step for step in content["steps"] if str(step.get("run")).partition(" --")[0].endswith("ci prepare")
        ]
        assert prepare["env"]["SAMOKODER_RUNNER"] == "${{ vars.SAMOKODER_RUNNER }}", "or it cannot say what is wrong"
    assert own == {"staging", "production", "drift", "drill"}


def test_a_deploy_is_given_the_registrys_login_or_of_githubs_own_the_jobs_token() -> None:
    for job in ("staging", "production"):
        (prepare,) = [s for s in workflow("deploy")["jobs"][job]["steps"] if "ci prepare" in str(s.get("run"))]
        assert prepare["run"].endswith("--images"), "an image that nobody gives us is told before anything changes"
        assert {"REGISTRY_SERVER", "REGISTRY_USER", "REGISTRY_PASSWORD"} <= set(prepare["env"])
        given = "secrets.REGISTRY_PASSWORD || vars.REGISTRY_SERVER == 'ghcr.io' && github.token || ''"
        assert given in prepare["env"]["REGISTRY_PASSWORD"], "another registry would be given the job's token"


def test_the_keys_are_removed_whatever_becomes_of_a_job() -> None:
    seen = 0
    for name, job, content in jobs():
        steps = content["steps"]
        given = [index for index, step in enumerate(steps) if "SSH_PRIVATE_KEY" in (step.get("env") or {})]
        if not given:
            continue
        seen += 1
        cleaning = [index for index, step in enumerate(steps) if str(step.get("run")).endswith("samokoder ci clean")]
        assert cleaning, f"{name}: {job} leaves its key on the machine"
        assert steps[cleaning[0]]["if"] == "${{ always() }}", f"{name}: {job} removes its key only when all went well"
        last = max(index for index, step in enumerate(steps) if SECRET.search(yaml.safe_dump(step)))
        assert cleaning[0] == last + 1, (
            f"{name}: {job}: other steps, and other people's actions, would run beside the key"
        )
    assert seen == 5, "deploy has two jobs, drift, drill and preview one each"


def test_lint_asks_zizmor_without_network_and_each_exception_has_its_reason() -> None:
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert re.search(r"/zizmor .*--offline .*\.github$", lint, re.MULTILINE), "what an attacker looks for is looked for"
    for path in WORKFLOWS.values():
        for line in path.read_text(encoding="utf-8").splitlines():
            if "zizmor: ignore" in line:
                assert re.search(r"zizmor: ignore\[[\w-]+\] \S+ \S+", line), f"{path.name}: {line}: and why?"
    assert not [*ROOT.glob("*zizmor*"), *ROOT.glob(".github/*zizmor*")], "exceptions are beside what they except"


def test_secrets_are_given_to_single_steps_and_only_in_a_github_environment() -> None:
    for name, job, content in jobs():
        outside = {key: value for key, value in content.items() if key != "steps"}
        assert not SECRET.search(yaml.safe_dump(outside)), f"{name}: {job} gives a secret to steps that do not need it"
        if SECRET.search(yaml.safe_dump(content)):
            assert content["environment"]["name"], f"{name}: {job} has secrets that no environment guards"
        for step in content["steps"]:
            if SECRET.search(yaml.safe_dump(step)):
                assert "run" in step, f"{name}: {job} hands a secret to somebody else's action"


def test_the_job_that_may_write_has_no_secret_and_runs_only_what_was_merged() -> None:
    comment = workflow("preview")["jobs"]["comment"]
    assert not SECRET.search(yaml.safe_dump(comment))
    (checkout,) = [step for step in comment["steps"] if str(step.get("uses", "")).startswith("actions/checkout@")]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}", (
        "a pull request could otherwise write whatever it likes under the project's name"
    )


def test_no_expression_is_pasted_into_a_command_line() -> None:
    for name, job, step in steps():
        assert "${{" not in str(step.get("run", "")), (
            f"{name}: {job}: a branch's name with a quote in it would run as a command; pass it by `env`"
        )


def test_every_job_ends_by_itself() -> None:
    for name, job, content in jobs():
        limits = [int(each) for each in re.findall(r"\d+", str(content["timeout-minutes"]))]
        # Orders of events are tried for hours, and whole stacks on five engines; GitHub itself ends a job after six.
        assert limits, f"{name}: {job} could hang for GitHub's six hours"
        hours = "test-orders" in str(content["timeout-minutes"]) or job == "newer-engine"
        assert max(limits) <= (350 if hours else 120), f"{name}: {job}"


def test_the_environments_are_listed_nowhere_but_by_their_files() -> None:
    assert environments(ROOT) == ["prod", "staging"]
    for name, job, content in jobs():
        if "matrix" in content.get("strategy", {}):
            given = yaml.safe_dump(content["strategy"]["matrix"])
            assert not re.search(r"\b(prod|staging)\b", given), f"{name}: {job} would miss an added environment"
        assert content.get("environment", {"name": "${{ matrix.environment }}"})["name"].startswith("${{"), (
            f"{name}: {job} names an environment"
        )


def test_production_comes_after_staging_and_in_its_own_guarded_environment() -> None:
    deploy = workflow("deploy")["jobs"]
    assert "staging" in deploy["production"]["needs"], "what is bad in staging never reaches production"
    assert deploy["production"]["environment"]["name"] == "${{ matrix.environment }}", (
        "the approval is this GitHub environment's; the one for checks has none"
    )
    assert deploy["production"]["steps"] == deploy["staging"]["steps"], "staging has tried what production does"
    for job in ("staging", "production"):
        assert deploy[job]["concurrency"] == {
            "group": "deploy-${{ matrix.environment }}",
            "cancel-in-progress": False,
        }, "a deploy that is cut off is half a deploy, and two at once are none"
        checkout = deploy[job]["steps"][0]["with"]
        assert checkout["fetch-depth"] == 0, "the commit to go back to must be there"


def test_deploys_run_from_main_alone() -> None:
    document = cast("dict[Any, Any]", workflow("deploy"))
    assert document[True]["push"]["branches"] == ["main"]
    assert "github.ref == 'refs/heads/main'" in document["jobs"]["environments"]["if"], "also when started by hand"


def test_nothing_but_ci_and_image_scans_runs_before_somebody_has_set_it_up() -> None:
    for name, job, content in jobs():
        if SECRET.search(yaml.safe_dump(content)):
            assert "environments" in content["needs"], f"{name}: {job}"
            guard = workflow(name)["jobs"]["environments"]["if"]
            assert "vars.SAMOKODER_DELIVERY == 'on'" in guard, f"{name}: a fresh fork would fail every night"


def test_every_secret_and_variable_is_in_the_document() -> None:
    document = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
    used = {
        name
        for path in WORKFLOWS.values()
        for name in re.findall(r"\b(?:secrets|vars)\.(\w+)", path.read_text(encoding="utf-8"))
    }
    assert {"PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"} <= used
    missing = sorted(name for name in used if f"`{name}`" not in document)
    assert not missing, f"nobody can set what no document names: {missing}"
