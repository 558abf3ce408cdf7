"""What `samokoder check-image` is made of, without an engine. With one: tests/live/test_check_image.py."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml
from typer.testing import CliRunner

from host.progress import Task
from operations import __main__ as command
from operations.checks.image import check_image, contract, image_start, judging, refusals
from operations.checks.image.contract import ImageCheck
from operations.checks.image.image_answer import Answer, may_be_cut, parsed
from operations.checks.image.image_ways import Way, settings_text, written_folders
from operations.checks.image.life import Life
from operations.checks.report import Finding, Report, Verdict
from operations.engine import laboratory
from stack.monitoring.metrics import Kind
from stack.parts.api import migrations
from stack.parts.api import spec as api
from stack.parts.api.reference import reference_image
from stack.parts.redis import spec as redis
from stack.parts.worker import spec as worker
from tests.described import specs
from tests.recording import case_environment, environment_of, record_case

if TYPE_CHECKING:
    from docker.models.containers import Container

IMAGE = "registry.example.org/samokoder/api:1.4.2"


def report(*failed: ImageCheck) -> Report:
    findings = [
        Finding(check=check, verdict=Verdict.FAILED if check in failed else Verdict.PASSED, why="because [of] it")
        for check in ImageCheck
    ]
    return Report(title=f"{IMAGE} as api", about={"image": IMAGE, "kind": "api"}, findings=findings)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What the command's check returns: the last one."""
    reports = [report()]
    monkeypatch.setattr("operations.checks.image.check_image.check_image", lambda *_, **__: reports[-1])
    return reports


@pytest.mark.usefixtures("reported")
def test_a_good_image_ends_with_status_0_and_a_line_for_each_check() -> None:
    result = CliRunner().invoke(command.app, ["check-image", IMAGE, "--kind", "api"])
    assert result.exit_code == 0, result.output
    for check in ImageCheck:
        assert check.value in result.output
    assert "because [of] it" in result.output, "brackets in a reason are no markup"


def test_an_image_that_fails_a_check_ends_with_status_1_and_names_it(
    reported: list[Report], capsys: pytest.CaptureFixture[str]
) -> None:
    reported.append(report(ImageCheck.PORT, ImageCheck.STOPS))
    with pytest.raises(SystemExit) as ended:
        command.main(["check-image", IMAGE, "--kind", "api", "--json"])
    assert ended.value.code == 1, "a pipeline stops at it"
    said = capsys.readouterr()
    assert f"{ImageCheck.PORT}, {ImageCheck.STOPS}" in said.err
    found = json.loads(said.out)
    assert (found["ok"], found["image"], found["kind"]) == (False, IMAGE, "api")
    assert {each["check"] for each in found["checks"] if each["verdict"] == "failed"} == {
        ImageCheck.PORT,
        ImageCheck.STOPS,
    }


@pytest.mark.parametrize("case", ["staging", "managed", "opted-in"])
@pytest.mark.parametrize("kind", list(Kind))
def test_an_image_is_checked_with_the_environments_settings_but_local_servers(case: str, kind: Kind) -> None:
    environment = check_image.environment_for(case_environment(case), IMAGE, kind)
    spec = next(api.specs(environment)) if kind is Kind.API else worker.spec(environment)
    assert spec.image == IMAGE, "the given one, not the configured one"
    assert not environment.managed_database, "nothing may be done to a real database"
    assert not environment.managed_redis, "nor to a real Redis"
    assert spec.environment["REDIS_HOST"] == redis.PART
    assert "openai_api_key" in spec.files, "with a key an image shows its metrics of the LLM"


def test_the_reference_image_migrates_by_its_own_command_and_another_one_only_by_the_settings_command() -> None:
    environment = case_environment("staging")
    reference = check_image.environment_for(environment, reference_image(environment).name, Kind.API)
    assert reference.settings.migrations.command == list(migrations.REFERENCE)
    assert "migrations" not in reference.absent, "its API would not become ready"
    assert "migrations" in check_image.environment_for(environment, IMAGE, Kind.API).absent, "nobody knows how it does"
    own = environment.settings.migrations.model_copy(update={"command": ["alembic", "upgrade", "head"]})
    settings = environment.settings.model_copy(update={"migrations": own})
    told = check_image.environment_for(environment.model_copy(update={"settings": settings}), IMAGE, Kind.API)
    assert (migrations.spec(told).image, migrations.spec(told).command) == (IMAGE, ("alembic", "upgrade", "head"))


def test_every_secret_of_a_check_is_made_for_it() -> None:
    environment = check_image.environment_for(case_environment("staging"), IMAGE, Kind.API)
    spec = next(api.specs(environment))
    first = check_image._throw_away_secrets(environment, spec)
    second = check_image._throw_away_secrets(environment, spec)
    assert set(first.values()).isdisjoint(second.values())
    assert {"secret_key", "app_secret_key", "postgres_superuser", "redis_app", "openaiApiKey"} <= set(first)
    assert len(set(first.values())) == len(first), "two that are equal would be refused"


def test_an_image_is_checked_with_a_value_for_each_secret_that_the_settings_list() -> None:
    environment = check_image.environment_for(case_environment("email-and-keys"), IMAGE, Kind.WORKER)
    spec = worker.spec(environment)
    assert {"smtp_password", "github_client_secret"} <= spec.files.keys(), "it would not start without them"
    made = check_image._throw_away_secrets(environment, spec)
    assert {"SMTP_PASSWORD", "GITHUB_CLIENT_SECRET"} <= made.keys(), "an image that is tried gets no real secret"


def test_the_default_secret_of_a_check_is_only_refused_for_what_it_says() -> None:
    assert len(judging._DEFAULT) >= 64, "a shorter one would be refused for its length"
    assert len(set(judging._DEFAULT)) > 20, "and this one is no repetition"


def test_a_refused_secret_in_the_log_is_a_leak_and_no_matter_of_how_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "log_of", str)
    life = {
        "tells": SimpleNamespace(exit_code=1, container="bad SECRET_KEY: weak-1"),
        "takes": SimpleNamespace(exit_code=0, container="bye"),
        "refuses": SimpleNamespace(exit_code=1, container="bad SECRET_KEY"),
    }
    found: list[tuple[ImageCheck, Verdict, str]] = []
    checking = SimpleNamespace(
        start=lambda _, changes: life[next(iter(changes))] if changes else SimpleNamespace(seconds=0),
        is_running=lambda _: None,
        look=lambda _: None,
        end=lambda _: None,
        port=None,
        timeout=0.0,
        leaked=set(),
        cut=False,
        _find=lambda check, verdict, why: found.append((check, verdict, why)),
    )
    cases = {ImageCheck.WEAK: {name: {name: "weak-1"} for name in life}}
    asked = cast("judging.Checking", checking)
    task = cast("Task", SimpleNamespace(detail=""))
    problems, late = judging.Checking.accepted(asked, cast("Way", None), cases, task, comes_up=True)
    assert late == {ImageCheck.WEAK: []}
    assert problems == {ImageCheck.WEAK: ["takes: ends, but with exit code 0"]}, (
        "`make deploy` forgives what is in here"
    )
    judging.Checking._judge_log(asked)
    assert found == [(ImageCheck.SILENT, Verdict.FAILED, "its log has the value of tells (a wrong one)")]
    assert ImageCheck.SILENT not in contract.REFUSALS


@pytest.mark.parametrize(("a_start_takes", "found"), [(40.0, []), (10.0, ["SECRET_KEY: runs all the same after"])])
def test_an_image_has_as_long_to_refuse_a_secret_as_a_start_takes_while_all_of_them_start(
    monkeypatch: pytest.MonkeyPatch, a_start_takes: float, found: list[str]
) -> None:
    now, refuses_after = [0.0], 60.0
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))
    monkeypatch.setattr(refusals, "log_of", str)
    good = SimpleNamespace(exit_code=None, container="", seconds=0, is_up=lambda **_: now[0] >= a_start_takes)
    bad = SimpleNamespace(exit_code=None, container="", listens=False, is_up=lambda **_: False)

    def look(_: object) -> None:
        now[0] += 1
        bad.exit_code = 1 if now[0] >= refuses_after else None

    checking = SimpleNamespace(
        start=lambda _, changes: bad if changes else good,
        is_running=lambda _: None,
        look=look,
        end=lambda _: None,
        port=8000,
        timeout=30.0,
        leaked=set(),
    )
    cases = {ImageCheck.MISSING: {"SECRET_KEY": {"SECRET_KEY": None}}}
    task = cast("Task", SimpleNamespace(detail=""))
    asked = cast("judging.Checking", checking)
    _, late = judging.Checking.accepted(asked, cast("Way", None), cases, task, comes_up=True)
    assert [each[: len("SECRET_KEY: runs all the same after")] for each in late[ImageCheck.MISSING]] == found, (
        "on a busy machine a good image would be told not to refuse a missing secret"
    )


@pytest.mark.parametrize(("takes", "rests"), [(0.25, 0.5), (10.0, 2.0)])
def test_a_container_is_left_alone_after_a_look_for_twice_as_long_as_it_took_and_for_two_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch, takes: float, rests: float
) -> None:
    now, asked = [100.0], []

    def ask(*_: Any) -> None:
        asked.append(now[0])
        now[0] += takes

    monkeypatch.setattr(image_start, "time", SimpleNamespace(monotonic=lambda: now[0]))
    spec = SimpleNamespace(health=SimpleNamespace(timeout_seconds=5))
    running = SimpleNamespace(is_running=lambda _: True, port=8000, ask=ask, spec=spec, kind=Kind.API)
    starting = cast("image_start.Starting", running)
    life = Life(cast("Container", None))
    for after in (0.0, rests - 0.125, 0.125):
        now[0] += after
        image_start.Starting.look(starting, life)
    assert asked == [100.0, 100.0 + takes + rests], "what starts gets no time of a processor"


@pytest.mark.parametrize(("said", "of_the_image"), [(2, {}), (5, {"NOPERM": 3})])
def test_what_redis_refused_its_own_parts_is_no_fault_of_the_image(said: int, of_the_image: dict[str, int]) -> None:
    stats = f"# Errorstats\r\nerrorstat_ERR:count=9\r\nerrorstat_NOPERM:count={said}\r\n"
    starting = SimpleNamespace(_redis=lambda *_: stats, refused_before={"NOPERM": 2})
    assert image_start.Starting.refused(cast("image_start.Starting", starting)) == of_the_image


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        (b"HTTP/1.1 503 Away\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 503, "no"),
        (b"", 0, ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 0, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut", 0, ""),
    ],
)
def test_an_answer_is_one_only_when_it_is_whole_http(raw: bytes, status: int, body: str) -> None:
    assert parsed(raw) == Answer(status=status, body=body)


@pytest.mark.parametrize(
    ("log", "cut"),
    [
        ("a line\n" * 1000, False),
        ("x" * 2**20, False),
        ("\x00" * 4 * 2**20, True),  # six bytes each in the engine's file
        ("y\n" * 300_000, True),  # 75 bytes each there
    ],
    ids=["of an application", "a long line", "bytes that are no text", "many lines"],
)
def test_a_log_of_which_the_engine_may_have_kept_the_end_alone_is_known(log: str, cut: bool) -> None:
    assert may_be_cut(log) is cut, "a secret at its beginning would be taken for one that was never said"


def sizes(options: dict[str, Any]) -> dict[str, int]:
    return {name: int(str(options[name]).removesuffix("m")) for name in ("mem_limit", "memswap_limit", "shm_size")}


@pytest.mark.parametrize("part", ["api-1", "worker", "migrations", "postgres", "postgres-roles", "redis"])
def test_a_part_in_the_laboratory_has_the_container_that_pulumi_makes(part: str) -> None:
    made = record_case("staging").containers()[part].inputs
    spec = next(spec for spec in specs(case_environment("staging")) if spec.part == part)
    options = laboratory.container_options(spec)
    pairs = {
        "user": made["user"],
        "hostname": made["hostname"],
        "dns_search": made["dnsSearches"],
        "entrypoint": made.get("entrypoints"),
        "command": made.get("command"),
        "tmpfs": made["tmpfs"],
        "read_only": made["readOnly"],
        "init": made["init"],
        "cap_drop": made["capabilities"]["drops"],
        "cap_add": made["capabilities"].get("adds", []),
        "security_opt": made["securityOpts"],
        "stop_signal": made["stopSignal"],
    }
    assert {name: options[name] for name in pairs} == pairs, "an image would be judged in another container"
    assert sizes(options) == {
        "mem_limit": made["memory"],
        "memswap_limit": made["memorySwap"],
        "shm_size": made["shmSize"],
    }
    assert (options["log_config"].type, options["log_config"].config) == (made["logDriver"], made["logOpts"]), (
        "an image that says much would fill the disk of the engine"
    )
    assert options["nano_cpus"] == float(made["cpus"]) * 1e9
    assert [(each["Name"], each["Soft"], each["Hard"]) for each in options["ulimits"]] == [
        (each["name"], each["soft"], each["hard"]) for each in made["ulimits"]
    ]


def test_the_folders_that_an_image_writes_to_are_its_own_and_not_the_systems() -> None:
    changes = [
        {"Path": path, "Kind": kind}
        for path, kind in (
            ("/app", 0),
            ("/app/config", 0),
            ("/app/config/config.json", 1),
            ("/app/workspace", 0),
            ("/app/workspace/projects", 1),
            ("/app/original", 0),
            ("/app/original/__pycache__", 1),
            ("/app/original/__pycache__/main.pyc", 1),
            ("/var/log/app.log", 1),
            ("/root/.cache", 1),
            ("/app/gone", 2),
            ("/run/secrets", 1),
        )
    ]
    assert written_folders(changes) == ("/app/config", "/app/workspace")
    assert written_folders(None) == (), "the engine says so where nothing has changed"


def test_the_settings_to_paste_are_those_that_the_stack_knows() -> None:
    way = Way(
        secrets_in_environment=True,
        own_command=True,
        fernet=True,
        without_login=True,
        writable=("/app/config", "/app/workspace"),
    )
    proposed = yaml.safe_load(settings_text(Kind.WORKER, way, command=("arq", "app.W"), portless=True))
    environment = environment_of("staging", proposed)
    assert environment.settings.worker.command == ["arq", "app.W"]
    assert environment.settings.worker.metrics_port is None
    assert environment.settings.workspace.path == "/app/workspace"
    assert settings_text(Kind.API, Way(), command=(), portless=False) == "", "where nothing helps, nothing is proposed"
    assert settings_text(Kind.API, Way(unhardened=True), command=(), portless=False) == ""
