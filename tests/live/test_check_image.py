"""`samokoder check-image` on a real engine: our own image passes, and a broken one fails for what is broken in it.

The broken ones are the reference application's image with another command: each has one fault and no other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import docker
import pytest

from host.progress import Reporter
from operations.checks.image import check_image
from operations.checks.image.contract import ImageCheck
from operations.checks.report import Report, Verdict
from operations.engine import laboratory
from operations.engine.laboratory import LABEL
from stack.monitoring.metrics import Kind
from stack.parts.redis import spec as redis
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec
from tests.live.originals import reference_of

UVICORN = "uvicorn samokoder.main:app --host 0.0.0.0 --port 8000"
Spec = Callable[[ServiceSpec], ServiceSpec]


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, local_images: Environment) -> str:
    """The reference application's image, as `up` names it; built here where no `up` has done that yet."""
    return reference_of(engine, local_images).name


@pytest.fixture
def checked(engine: docker.DockerClient, local_images: Environment, image: str) -> Callable[..., Report]:
    """Checks the image, changed as a test wants it, in a laboratory of its own."""

    def check(
        kind: Kind, changed: Spec = lambda spec: spec, *, timeout: float = 120, migrates: list[str] | None = None
    ) -> Report:
        migrations = local_images.settings.migrations.model_copy(update={"command": migrates})
        settings = local_images.settings.model_copy(update={"migrations": migrations})
        environment = local_images.model_copy(update={"settings": settings})
        environment = check_image.environment_for(environment, image, kind)
        with laboratory.opened(engine) as made:
            report = check_image.check(made, environment, kind, reporter=Reporter(), timeout=timeout, changed=changed)
        assert left(engine, made.token) == [], "whoever checks an image finds the engine as it was"
        return report

    return check


def left(engine: docker.DockerClient, token: str) -> list[object]:
    mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={token}"}
    containers = engine.containers.list(all=True, filters=mine, ignore_removed=True)
    return [*containers, *engine.networks.list(filters=mine), *engine.volumes.list(filters=mine)]


def reasons(report: Report) -> str:
    return "\n".join(f"{each.check}: {each.verdict}: {each.why}" for each in report.findings)


def why(report: Report, check: ImageCheck) -> str:
    return next(each.why for each in report.findings if each.check == check)


def verdicts(report: Report, verdict: Verdict) -> set[str]:
    return {each.check for each in report.findings if each.verdict is verdict}


def shell(script: str) -> Spec:
    return lambda spec: replace(spec, command=("sh", "-c", script))


def python(script: str) -> Spec:
    return lambda spec: replace(spec, command=("python", "-c", script))


@pytest.mark.parametrize("kind", list(Kind))
def test_the_reference_applications_image_keeps_the_whole_contract(kind: Kind, checked: Callable[..., Report]) -> None:
    report = checked(kind)
    of_the_api = {ImageCheck.MIGRATES, ImageCheck.DRAINS} if kind is Kind.WORKER else set()
    assert verdicts(report, Verdict.PASSED) == set(ImageCheck) - of_the_api, reasons(report)
    assert verdicts(report, Verdict.NOT_AVAILABLE) == of_the_api, reasons(report)


def test_an_image_that_listens_on_another_port_fails_that_check_and_is_told_which(
    checked: Callable[..., Report],
) -> None:
    # Nothing to wait for: so long it looks for somebody on port 8000.
    report = checked(Kind.API, shell(UVICORN.replace("8000", "8001")), timeout=15)
    assert report.failed == [ImageCheck.PORT], reasons(report)
    assert "8001" in why(report, ImageCheck.PORT), "the port that it does listen on is the first thing to know"
    assert ImageCheck.HEALTH in verdicts(report, Verdict.NOT_AVAILABLE), "one cause is one failure"


def test_an_image_that_listens_on_loopback_alone_fails_the_port(checked: Callable[..., Report]) -> None:
    report = checked(Kind.API, shell(UVICORN.replace("0.0.0.0", "127.0.0.1")), timeout=15)  # noqa: S104 - inside
    assert report.failed == [ImageCheck.PORT], f"neither Prometheus nor a proxy would reach it:\n{reasons(report)}"


def test_an_image_that_has_to_be_root_fails_the_hardening_alone(checked: Callable[..., Report]) -> None:
    script = f'[ "$(id -u)" = 0 ] || {{ echo "I have to be root" >&2; exit 3; }}; exec {UVICORN}'
    report = checked(Kind.API, shell(script))
    assert report.failed == [ImageCheck.HARDENED], reasons(report)
    assert "exit code 3" in why(report, ImageCheck.HARDENED)
    assert "I have to be root" in why(report, ImageCheck.HARDENED), "its own last words tell what it misses"


def test_an_image_that_writes_beside_tmp_fails_the_hardening_alone(checked: Callable[..., Report]) -> None:
    report = checked(Kind.API, shell(f"echo begun > /app/state && exec {UVICORN}"))
    assert report.failed == [ImageCheck.HARDENED], reasons(report)
    assert "Read-only file system" in why(report, ImageCheck.HARDENED)


def test_an_image_that_reads_variables_alone_fails_the_files_alone(checked: Callable[..., Report]) -> None:
    script = f'[ -n "$SECRET_KEY" ] || {{ echo "no SECRET_KEY" >&2; exit 1; }}; exec {UVICORN}'
    report = checked(Kind.API, shell(script))
    assert report.failed == [ImageCheck.FILES], reasons(report)


def test_an_image_that_takes_weak_and_default_secrets_fails_those_checks(checked: Callable[..., Report]) -> None:
    script = (
        "import samokoder.settings as settings; settings.weakness = lambda *_: None; "
        "import uvicorn; uvicorn.run('samokoder.main:app', host='0.0.0.0', port=8000)"
    )
    report = checked(Kind.API, python(script))
    assert report.failed == [ImageCheck.WEAK, ImageCheck.DEFAULT], reasons(report)
    assert "APP_SECRET_KEY: runs all the same" in why(report, ImageCheck.WEAK), "each secret is told by its name"


def test_an_image_without_metrics_fails_them_alone(checked: Callable[..., Report]) -> None:
    script = (
        "import uvicorn; from samokoder.main import app; "
        "app.router.routes[:] = [r for r in app.router.routes if getattr(r, 'path', '') != '/metrics']; "
        "uvicorn.run(app, host='0.0.0.0', port=8000)"
    )
    report = checked(Kind.API, python(script))
    assert report.failed == [ImageCheck.METRICS], reasons(report)
    assert "404" in why(report, ImageCheck.METRICS)


def test_an_image_that_lacks_one_metric_is_told_its_name(checked: Callable[..., Report]) -> None:
    script = (
        "import uvicorn; from samokoder import metrics, main; metrics.API.unregister(metrics.AUTH_ATTEMPTS); "
        "metrics.API.unregister(metrics.JOBS_SUBMITTED); uvicorn.run(main.app, host='0.0.0.0', port=8000)"
    )
    report = checked(Kind.API, python(script))
    assert report.failed == [], f"it runs without it:\n{reasons(report)}"
    assert why(report, ImageCheck.METRICS) == (
        "not exposed: samokoder_auth_attempts_total; mute without them: AuthenticationFailureSpike"
    )
    assert why(report, ImageCheck.OPTIONAL) == "missing: samokoder_jobs_submitted_total", "told, and no failure"


def test_an_image_whose_migrations_fail_fails_them_alone_and_is_told_what_they_say(
    checked: Callable[..., Report],
) -> None:
    report = checked(Kind.API, timeout=15, migrates=["sh", "-c", "echo no such revision >&2; exit 3"])
    assert report.failed == [ImageCheck.MIGRATES], (
        f"that it is not ready then is no fault of its own:\n{reasons(report)}"
    )
    assert "exit code 3; its log ends: no such revision" in why(report, ImageCheck.MIGRATES)


def test_an_image_that_does_not_drain_is_told_so_and_fails_nothing(checked: Callable[..., Report]) -> None:
    report = checked(Kind.API, shell(f"DRAIN_SECONDS=0 exec {UVICORN}"))
    assert report.failed == [], reasons(report)
    assert verdicts(report, Verdict.NOT_AVAILABLE) == {ImageCheck.DRAINS}, reasons(report)
    assert "503" in why(report, ImageCheck.DRAINS), "what to do about it"


def test_an_image_that_ignores_sigterm_fails_to_stop_alone(checked: Callable[..., Report]) -> None:
    script = f"trap '' TERM; {UVICORN} & wait $!"
    report = checked(Kind.API, lambda spec: replace(shell(script)(spec), stop_grace_seconds=3))
    assert report.failed == [ImageCheck.STOPS], reasons(report)
    assert "3 s" in why(report, ImageCheck.STOPS), "how long it was given"


def test_an_image_that_logs_a_secret_is_told_which_and_not_its_value(checked: Callable[..., Report]) -> None:
    report = checked(Kind.API, shell(f"cat /run/secrets/redis_password; echo; exec {UVICORN}"))
    assert report.failed == [ImageCheck.SILENT], reasons(report)
    assert why(report, ImageCheck.SILENT) == "its log has the value of REDIS_PASSWORD"


def test_an_image_that_ends_at_once_fails_once_and_nothing_else_is_said_of_it(
    checked: Callable[..., Report],
) -> None:
    report = checked(Kind.API, shell("echo no such module; exit 4"))
    assert report.failed == [ImageCheck.PORT], reasons(report)
    assert "exit code 4" in why(report, ImageCheck.PORT)
    assert "no such module" in why(report, ImageCheck.PORT), "the log is gone with the container"
    refused = {ImageCheck.MISSING, ImageCheck.WEAK, ImageCheck.DEFAULT, ImageCheck.EQUAL}
    assert refused <= verdicts(report, Verdict.NOT_AVAILABLE), "that it ends with a weak secret too proves nothing"


def test_a_worker_whose_settings_say_that_it_has_no_port_is_checked_without_one(
    engine: docker.DockerClient, local_images: Environment, image: str
) -> None:
    environment = check_image.environment_for(local_images, image, Kind.WORKER)
    # The default one, `arq --check`, wants an image's WorkerSettings to have `redis_settings`; this one has a pool.
    health = ["python", "-m", "samokoder.healthcheck", "http://127.0.0.1:9000/health"]
    part = environment.settings.worker.model_copy(update={"metrics_port": None, "health_command": health})
    settings = environment.settings.model_copy(update={"worker": part})
    environment = environment.model_copy(update={"settings": settings})
    with laboratory.opened(engine) as made:
        report = check_image.check(made, environment, Kind.WORKER, reporter=Reporter())
    without = {ImageCheck.PORT, ImageCheck.HEALTH, ImageCheck.METRICS, ImageCheck.OPTIONAL} | {
        ImageCheck.MIGRATES,
        ImageCheck.DRAINS,
    }  # of the API alone
    assert verdicts(report, Verdict.NOT_AVAILABLE) == without, reasons(report)
    assert report.failed == [], reasons(report)


def test_an_image_whose_health_check_fails_is_told_what_that_says(checked: Callable[..., Report]) -> None:
    command = ("python", "-c", "raise SystemExit('the queue is away')")
    report = checked(Kind.WORKER, lambda spec: replace(spec, health_command=command), timeout=30)
    assert report.failed == [ImageCheck.READY], reasons(report)
    assert "it says: the queue is away" in why(report, ImageCheck.READY)


NO_END = {
    "never ends": ("sleep 3600", "it does not end within 2 s"),
    "says much for ever": ("yes", "it says more than 1 MiB"),
    "closes its output and stays": ("exec >&- 2>&-; sleep 3600", "it does not end within 2 s"),
}


@pytest.mark.parametrize("how", NO_END)
def test_a_health_check_that_has_no_end_is_told_and_holds_nothing_up(how: str, checked: Callable[..., Report]) -> None:
    script, told = NO_END[how]

    def hostile(spec: ServiceSpec) -> ServiceSpec:
        health = spec.health.model_copy(update={"timeout_seconds": 2})
        settings = spec.settings.model_copy(update={"health": health})
        return replace(spec, settings=settings, health_command=("sh", "-c", script))

    report = checked(Kind.WORKER, hostile, timeout=15)
    assert report.failed == [ImageCheck.READY], reasons(report)
    assert told in why(report, ImageCheck.READY), "any image may have any program in the place of Python"


def test_an_answer_that_has_no_end_is_not_kept_in_memory(checked: Callable[..., Report]) -> None:
    script = """
import uvicorn
from samokoder.main import app
from starlette.responses import StreamingResponse

def endless():
    while True:
        yield bytes(65536)

app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/metrics"]
app.add_route("/metrics", lambda request: StreamingResponse(endless()))
uvicorn.run(app, host="0.0.0.0", port=8000)
"""
    report = checked(Kind.API, python(script))
    assert report.failed == [ImageCheck.METRICS], reasons(report)
    assert "no whole answer within 5 s and 8 MiB" in why(report, ImageCheck.METRICS)


def test_of_a_log_that_the_engine_cuts_nobody_says_that_it_has_no_secret(checked: Callable[..., Report]) -> None:
    line = "yes $(head -c 1000 /dev/zero | tr '\\0' x) | head -c 25000000"
    report = checked(Kind.API, shell(f"cat /run/secrets/secret_key; echo; {line}; exec {UVICORN}"))
    assert report.failed == [], reasons(report)
    assert verdicts(report, Verdict.NOT_AVAILABLE) == {ImageCheck.SILENT}, reasons(report)
    assert "the beginning may be gone" in why(report, ImageCheck.SILENT)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Have Ctrl-C interrupt: whoever started pytest in the background may have it ignored."""
    of_the_run = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, of_the_run)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("sent", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interruption_leaves_nothing_on_the_engine(
    engine: docker.DockerClient, local_images: Environment, sent: signal.Signals, ends: type[BaseException]
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    spec = redis.spec(local_images)
    tokens = []

    def interrupted() -> None:
        with laboratory.opened(engine) as made:
            tokens.append(made.token)
            made.run(spec, {"start-redis.sh": "#!/bin/sh\nexec sleep 60\n"})
            assert len(left(engine, made.token)) >= 3, "a container, its files and a network are there to be removed"
            os.kill(os.getpid(), sent)

    with pytest.raises(ends):
        interrupted()
    assert left(engine, tokens[0]) == [], "who presses Ctrl-C wants it gone"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
