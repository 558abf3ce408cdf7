"""The examination before `up`: each check's good and bad side, against small real servers and a stand-in for an engine.

The stand-in speaks the engine's HTTP API on a socket; a shell and SMTP are real.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socketserver
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from bench.own_ports import own_ports
from host.ports import free_ports
from operations import __main__ as command
from operations.checks.alert import alert_report, send
from operations.checks.alert.alert_report import Delivery, DeliveryState
from operations.checks.doctor import after, disk_room, doctor
from operations.checks.doctor.asked import EnvironmentAsked, HostFacts, secrets_of
from operations.checks.doctor.host import judge_clock, judge_disk, judge_engine, judge_kernel, judge_memory, judge_ports
from operations.checks.doctor.images import image_checks
from operations.checks.doctor.outside import ask_mail_server, ask_telegram
from operations.checks.doctor.secrets import judge_grafana_password, judge_secrets
from operations.checks.report import Check, Finding, Once, Report, Verdict, ask_all
from operations.checks.smoke import smoke
from operations.data.repair import redis_log
from operations.errors import FailedError, UnavailableError
from operations.workspace.workspace import Workspace
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.common.secret_rules import SecretInput
from stack.parts.alertmanager.routing import integrations
from tests.fake_engine import FakeEngine, engine_at
from tests.recording import TELEGRAM_TOKEN, case_config, case_environment, environment_of, secret_value
from tests.serving import serving

OWN = "registry.example.org/samokoder/api:1.4.2"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Workspace]:
    """Makes a workspace of staging with ports of its own and these settings."""

    def workspace(**settings: Any) -> Workspace:
        config = {**own_ports(), **{f"samokoder:{name}": values for name, values in settings.items()}}
        return Workspace(home=tmp_path / "home", isolated=True, extra_config=config, cache=tmp_path)

    return workspace


@contextmanager
def examined(
    workspace: Workspace, host: str = "unix:///nowhere.sock", secrets: Mapping[str, str] | None = None
) -> Iterator[EnvironmentAsked]:
    """What the checks of one environment ask; its secrets given in place of what Pulumi decrypts."""
    with ExitStack() as open_:
        asked = EnvironmentAsked(workspace, workspace.settings(), host, 10, open_)
        if secrets is not None:
            given = {name: SecretInput(value, encrypted=True) for name, value in secrets.items()}
            object.__setattr__(asked, "secrets", Once(lambda: given))
        yield asked


def verdict(ask: Callable[[], str]) -> tuple[Verdict, str]:
    (found,) = ask_all([Check(name="one", ask=ask)], seconds=30)
    return found.verdict, found.why


def test_a_host_that_is_fit_passes_and_what_is_not_configured_is_said(make: Callable[..., Workspace]) -> None:
    fake = FakeEngine(registry=set())
    with engine_at(fake) as host:
        workspace = make(dockerHost=host)
        declared = workspace.settings()
        fake.images |= {declared.image(name) for name in ("postgres", "redis", "caddy")}
        found = {each.check: each for each in doctor.doctor(workspace).findings}
    failed = [name for name, each in found.items() if each.verdict is Verdict.FAILED]
    # What a test's machine is like is not this test's business.
    assert not set(failed) - {"clock", "kernel", "disk"}, {name: found[name].why for name in failed}
    for name in ("settings", "secrets", "engine", "memory and cores", "ports", "grafana password"):
        assert found[name].verdict is Verdict.PASSED, found[name].why
    for name in ("telegram", "e-mail", "backup destination"):
        assert found[name].verdict is Verdict.NOT_CONFIGURED, "nobody has asked for it, and nothing is missing"
        assert "samokoder:" in found[name].why, "the key that would make it so"
    assert "on the engine" in found["image postgres"].why
    assert "package registries" in found["image prometheus"].why, "no registry answers here"
    assert found["image grafana"].verdict is Verdict.NOT_AVAILABLE


def test_wrong_settings_are_told_whole_and_nothing_else_is_guessed(make: Callable[..., Workspace]) -> None:
    report = doctor.doctor(make(api={"replicas": 99}, redis={"memoryMib": 16}))
    assert report.failed == ["settings"]
    assert "samokoder:api.replicas" in report.findings[0].why
    assert "samokoder:redis.maxmemoryMib" in report.findings[0].why, "every mistake at once"
    assert {each.verdict for each in report.findings[1:]} == {Verdict.NOT_AVAILABLE}


# Secrets


def test_configured_secrets_are_judged_by_their_values(make: Callable[..., Workspace]) -> None:
    good = secret_value("openai")
    workspace = make(openaiApiKey={"secure": "v1:x"})
    with examined(workspace, secrets={"openaiApiKey": good}) as asked:
        assert "openaiApiKey" in judge_secrets(asked)
    with (
        examined(workspace, secrets={"openaiApiKey": "changeme"}) as asked,
        pytest.raises(FailedError, match="known default") as error,
    ):
        judge_secrets(asked)
    assert "changeme" not in str(error.value), "an error is read by many"


def test_a_secret_of_the_application_is_judged_and_not_called_strong(make: Callable[..., Workspace]) -> None:
    workspace = make(applicationSecrets=["SMTP_PASSWORD"], SMTP_PASSWORD={"secure": "v1:x"})
    with examined(workspace, secrets={"SMTP_PASSWORD": "of the mail"}) as asked:
        assert judge_secrets(asked).endswith("or more; of the application: SMTP_PASSWORD")
    with (
        examined(workspace, secrets={"SMTP_PASSWORD": "your-smtp-password"}) as asked,
        pytest.raises(FailedError, match=r"samokoder:SMTP_PASSWORD\n.*placeholder"),
    ):
        judge_secrets(asked)


def test_an_encrypted_empty_secret_of_the_application_is_told_as_up_tells_it(make: Callable[..., Workspace]) -> None:
    encrypted = {"secure": "v1:x"}
    workspace = make(applicationSecrets=["SMTP_PASSWORD", "JWT"], SMTP_PASSWORD=encrypted, JWT=encrypted)
    with examined(workspace, secrets={"JWT": secret_value("jwt")}) as asked, pytest.raises(FailedError) as error:
        judge_secrets(asked)
    assert "samokoder:SMTP_PASSWORD\n  is:    an empty value" in str(error.value), "`make up` refuses it"
    assert "samokoder:JWT" not in str(error.value)


def test_pulumis_own_words_about_secrets_are_understood() -> None:
    config = {
        "samokoder:openaiApiKey": {"value": "a", "secret": True},
        "samokoder:smtpPassword": {"value": "b", "secret": False},
        "samokoder:api": {"value": "{}", "secret": False},
        "samokoder:heartbeatUrl": {"value": "", "secret": False},
        "samokoder:SMTP_PASSWORD": {"value": "c", "secret": True},
    }
    found = secrets_of(config)
    assert {name: (each.value, each.encrypted) for name, each in found.items()} == {
        "openaiApiKey": ("a", True),
        "smtpPassword": ("b", False),
        "SMTP_PASSWORD": ("c", True),
    }


# The engine and its host


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        (FakeEngine(version="19.03.15"), "too old: 20.10"),
        (FakeEngine(info={"MemoryLimit": False}), "cannot limit memory"),
        (FakeEngine(info={"CpuCfsQuota": False}), "cannot limit CPU"),
        (FakeEngine(info={"SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"]}), "userns-remap"),
    ],
)
def test_an_engine_that_is_too_old_cannot_limit_or_remaps_users_fails(
    make: Callable[..., Workspace], fake: FakeEngine, why: str
) -> None:
    with engine_at(fake) as host, examined(make(), host) as asked, pytest.raises(FailedError, match=why):
        judge_engine(asked)


def test_where_no_engine_answers_that_is_told_once(make: Callable[..., Workspace]) -> None:
    with examined(make(), "unix:///nowhere/docker.sock") as asked:
        with pytest.raises(FailedError, match="started only at"):
            judge_engine(asked)
        for ask in (judge_memory, judge_disk, judge_ports):
            with pytest.raises(UnavailableError, match="no engine answers"):
                ask(asked)


def test_a_host_that_is_too_small_fails(make: Callable[..., Workspace]) -> None:
    for info, why in (
        ({"MemTotal": 2 * 2**30}, r"limits of all parts are \d+ MiB, and the host has 2048 MiB"),
        ({"NCPU": 1}, "has 1 cores, and these want more: backup"),
    ):
        with engine_at(FakeEngine(info=info)) as host, examined(make(backup={"cpus": 2.0}), host) as asked:
            found, said = verdict(partial(judge_memory, asked))
        assert found is Verdict.FAILED
        assert re.search(why, said), said


def told(text: str, asked: EnvironmentAsked) -> None:
    """Let the host say this."""
    object.__setattr__(asked, "facts", Once(lambda: HostFacts.parse(text)))


def test_a_disk_without_room_for_what_may_come_fails(make: Callable[..., Workspace]) -> None:
    with engine_at(FakeEngine()) as host, examined(make(), host) as asked:
        told(f"disk {20 * 2**20}\n", asked)
        assert "20480 MiB left" in judge_disk(asked)
        told(f"disk {8 * 2**20}\n", asked)
        with pytest.raises(FailedError, match=r"metrics 5120, .*left free by the collected logs 1024, .*4096"):
            judge_disk(asked)
        told("", asked)
        with pytest.raises(UnavailableError):
            judge_disk(asked)


def test_images_need_their_room_where_containerd_has_them(make: Callable[..., Workspace], tmp_path: Path) -> None:
    with engine_at(FakeEngine()) as host, examined(make(), host) as asked:
        much, little = 40 * 2**20, 2 * 2**20
        of_images = f"images {little}\nimages-in /var/lib/containerd\nimages-at"
        told(f"disk {much}\ndisk-at /\n{of_images} /var\n", asked)
        with pytest.raises(FailedError, match="2048 MiB left in /var/lib/containerd"):
            judge_disk(asked)
        told(f"disk {much}\ndisk-at /\n{of_images} /\n", asked)
        assert "/var/lib/containerd" not in judge_disk(asked), "one disk has one room"
    store = [["driver-type", "io.containerd.snapshotter.v1"]]
    own = {"DriverStatus": store, "Containerd": {"Address": "/run/docker/containerd/containerd.sock"}}
    (tmp_path / "containerd/daemon").mkdir(parents=True)
    for info, folder in (
        (own, f"{tmp_path}/containerd/daemon"),
        ({"DriverStatus": store}, "/var/lib/containerd"),
        ({"DriverStatus": [["Backing Filesystem", "extfs"]]}, None),
    ):
        script = disk_room.script(info, str(tmp_path))
        said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        facts = HostFacts.parse(said.stdout)
        assert int(facts.values["disk"]) > 0
        if folder is None or Path(folder).exists():
            assert facts.values.get("images-in") == folder, "the wrong disk would be looked at"


def bound(name: str, port: int, *, own: bool = False, ip: str = "127.0.0.1") -> dict[str, Any]:
    labels = {ENVIRONMENT_LABEL: "staging", PART_LABEL: "prometheus"} if own else {}
    return {"Id": name, "Names": [f"/{name}"], "Labels": labels, "Ports": [{"IP": ip, "PublicPort": port}]}


def test_a_port_that_somebody_else_holds_fails_and_the_environments_own_does_not(
    make: Callable[..., Workspace],
) -> None:
    fake = FakeEngine()
    with engine_at(fake) as host, examined(make(), host) as asked:
        port = asked.environment.settings.prometheus.port
        own = [bound("samokoder-staging-prometheus", port, own=True)]
        told(f"sockets yes\nlistens 0100007F:{port:04X}\n", asked)
        fake.containers = own
        assert "1 of them held by this environment itself" in judge_ports(asked)
        fake.containers = [bound("somebody-else", port, ip="0.0.0.0")]  # noqa: S104 - what the engine says
        with pytest.raises(FailedError, match=rf"{port} \(prometheus\) is held by the container somebody-else"):
            judge_ports(asked)
        fake.containers = []
        with pytest.raises(FailedError, match=r"another program of the host: ss -ltnp"):
            judge_ports(asked)
        told(f"sockets yes\nlistens {'0' * 32}:{port:04X}\n", asked)
        with pytest.raises(FailedError, match="v6only:1"):
            judge_ports(asked)
        told(f"sockets yes\nlistens {'0' * 24}01000000:{port:04X}\n", asked)
        assert "ports are free" in judge_ports(asked), "a program on ::1 takes nothing of IPv4"
        told("sockets yes\nlistens 0200007F:0050\n", asked)
        assert "ports are free" in judge_ports(asked)
        told("", asked)
        with pytest.raises(UnavailableError, match="cannot be seen"):
            judge_ports(asked)


def test_a_port_that_a_program_really_holds_is_seen(make: Callable[..., Workspace]) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("the sockets of this host cannot be seen")
    with engine_at(FakeEngine()) as host, examined(make(), host) as asked:
        with socketserver.TCPServer(
            ("127.0.0.1", asked.environment.settings.grafana.port), socketserver.BaseRequestHandler
        ):
            found = verdict(lambda: judge_ports(asked))
        assert found[0] is Verdict.FAILED
        assert "(grafana) is held by another program" in found[1]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F:1F90", ("127.0.0.1", 8080)),
        ("00000000:0050", ("0.0.0.0", 80)),  # noqa: S104 - what a kernel says
        ("00000000000000000000000000000000:0050", ("::", 80)),
        ("00000000000000000000000001000000:0051", ("::1", 81)),
    ],
)
def test_the_kernels_table_of_sockets_is_understood(text: str, address: tuple[str, int]) -> None:
    assert HostFacts.parse(f"listens {text}").listening == [address]


def test_a_clock_that_is_wrong_or_not_kept_right_fails(make: Callable[..., Workspace]) -> None:
    with examined(make()) as asked:
        told("synchronised yes\n", asked)
        assert judge_clock(asked) == "synchronised", "no engine answers yet, and the host says it itself"
        told("synchronised no\n", asked)
        with pytest.raises(FailedError, match="set-ntp"):
            judge_clock(asked)
        told("synchronised \n", asked)
        with pytest.raises(UnavailableError, match="systemd"):
            judge_clock(asked)


@pytest.mark.parametrize(("ahead", "wrong"), [(-3600, True), (40, True), (20, False)])
def test_a_clock_that_is_far_from_ours_fails_however_well_it_is_kept(
    make: Callable[..., Workspace], ahead: int, wrong: bool
) -> None:
    there = datetime.now(UTC) + timedelta(seconds=ahead)
    with engine_at(FakeEngine(info={"SystemTime": there.isoformat()})) as host, examined(make(), host) as asked:
        told("synchronised yes\n", asked)
        found, why = verdict(partial(judge_clock, asked))
    assert (found is Verdict.FAILED) == wrong, why
    assert ("The clocks differ" in why) == wrong, "the words by which `up` and docs/remote-engine.md say it"


WELL = "vm/overcommit_memory 0\nnet/ipv4/ip_forward 1\nkmsg yes\n"


@pytest.mark.parametrize(
    ("was", "is_now", "why"),
    [
        ("memory 0", "memory 2", "Redis cannot fork"),
        ("forward 1", "forward 0", "ip_forward=1"),
        ("kmsg yes\n", "", "samokoder:cadvisor.kernelLog: false"),
    ],
)
def test_a_kernel_that_keeps_a_part_from_running_fails(was: str, is_now: str, why: str) -> None:
    environment = case_environment("staging")
    assert "Redis can fork" in judge_kernel(environment, HostFacts.parse(WELL))
    with pytest.raises(FailedError, match=why):
        judge_kernel(environment, HostFacts.parse(WELL.replace(was, is_now)))
    with pytest.raises(UnavailableError):
        judge_kernel(environment, HostFacts.parse(""))


def test_the_script_really_tells_what_this_host_is_like(make: Callable[..., Workspace]) -> None:
    with engine_at(FakeEngine()) as host, examined(make(), host) as asked:
        facts = asked.facts()
    assert int(facts.values["disk"]) == pytest.approx(shutil.disk_usage("/").free / 1024, rel=0.05)
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    assert facts.values["vm/overcommit_memory"] == overcommit.read_text().strip()


def test_a_host_behind_tcp_or_one_that_fails_says_nothing(make: Callable[..., Workspace]) -> None:
    with examined(make(), "tcp://host.example.org:2376") as asked, pytest.raises(UnavailableError, match="alone"):
        asked.shell("true")
    (port,) = free_ports(1)
    with examined(make(), f"ssh://you@127.0.0.1:{port}") as asked, pytest.raises(UnavailableError, match="refused"):
        asked.shell("true")


# Images


def test_an_image_that_can_be_had_nowhere_fails(make: Callable[..., Workspace]) -> None:
    fake = FakeEngine()
    config = case_config("staging")[1]
    assert "samokoder:api" not in config, "the reference application runs in staging"
    with engine_at(fake) as host, examined(make(api={"image": OWN}), host) as asked:
        by_name = {each.name: each for each in image_checks(asked)}
        assert "python" in "".join(by_name), "the worker is still the reference application's"
        found, why = verdict(by_name["image api"].ask)
        assert found is Verdict.FAILED, "nobody but its team can build it"
        assert "no such host" in why
        fake.registry.add(OWN)
        assert verdict(by_name["image api"].ask)[0] is Verdict.PASSED
        fake.registry.clear()
        fake.images.add(OWN)
        assert verdict(by_name["image api"].ask)[0] is Verdict.PASSED


def test_a_third_partys_image_fails_only_where_a_registry_answers_and_has_it_not(
    make: Callable[..., Workspace],
) -> None:
    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Registry)) as server:
        fake = FakeEngine(info={"IndexServerAddress": f"http://127.0.0.1:{server.server_port}/"})
        with engine_at(fake) as host, examined(make(), host) as asked:
            ask = next(each.ask for each in image_checks(asked) if each.name == "image redis")
            assert verdict(ask)[0] is Verdict.FAILED
            fake.registry.add(asked.environment.image("redis"))
            assert verdict(ask)[0] is Verdict.PASSED


# What is outside


@contextmanager
def page(answer: Callable[[str, str, Mapping[str, str]], tuple[int, Any]]) -> Iterator[str]:
    """A page that answers a method, a path and headers with a status and JSON; its address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, body = answer(self.command, self.path, dict(self.headers))
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = handle_one  # noqa: N815 - names of the library

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def telegram(make: Callable[..., Workspace], url: str) -> Workspace:
    return make(
        alertmanager={"port": free_ports(1)[0], "telegram": {"chatId": -100, "apiUrl": url}},
        telegramBotToken={"secure": "v1:x"},
    )


KICKED = {"ok": False, "error_code": 403, "description": "Forbidden: bot was kicked"}
UPGRADED = {
    "ok": False,
    "error_code": 400,
    "description": "Bad Request: group chat was upgraded to a supergroup chat",
    "parameters": {"migrate_to_chat_id": -1009},
}


@pytest.mark.parametrize(
    ("me", "chat", "expected", "why"),
    [
        (200, 200, Verdict.PASSED, "@samokoder_bot is let in"),
        (401, 401, Verdict.FAILED, "does not know the token"),
        (200, 403, Verdict.FAILED, "may not write to the chat -100 (Forbidden: bot was kicked): add it there"),
        (200, 429, Verdict.FAILED, "may not write to the chat -100 (it answers 429)"),
        (200, 400, Verdict.FAILED, "whose id is -1009: make pulumi ENV=staging ARGS='config set --path "),
        (502, 502, Verdict.FAILED, "answers 502"),
    ],
)
def test_the_bot_is_asked_who_it_is_and_whether_it_knows_the_chat(
    make: Callable[..., Workspace], me: int, chat: int, expected: Verdict, why: str
) -> None:
    def answer(_method: str, path: str, _headers: object) -> tuple[int, Any]:
        assert path.startswith(f"/bot{TELEGRAM_TOKEN}/")
        assert "getChat" not in path, "it knows a group that became a supergroup, to which nobody can write"
        refused = {403: KICKED, 400: UPGRADED, 429: []} if "getMe" not in path else {}
        good = {"ok": True, "result": {"username": "samokoder_bot"}}
        return (me if "getMe" in path else chat), refused.get(chat, good)

    with page(answer) as url, examined(telegram(make, url), secrets={"telegramBotToken": TELEGRAM_TOKEN}) as asked:
        found, said = verdict(lambda: ask_telegram(asked))
    assert found is expected, said
    assert why in said
    assert TELEGRAM_TOKEN not in said


@pytest.mark.parametrize("there", [True, False])
def test_the_topic_of_a_forum_is_asked_for(make: Callable[..., Workspace], *, there: bool) -> None:
    asked_for = []

    def answer(_method: str, path: str, _headers: object) -> tuple[int, Any]:
        asked_for.append(path)
        if "getMe" in path or there:
            return 200, {"ok": True, "result": {"username": "samokoder_bot"}}
        return 400, {"ok": False, "error_code": 400, "description": "Bad Request: message thread not found"}

    with page(answer) as url:
        telegram = {"chatId": -100, "apiUrl": url, "messageThreadId": 42}
        workspace = make(
            alertmanager={"port": free_ports(1)[0], "telegram": telegram}, telegramBotToken={"secure": "v1:x"}
        )
        with examined(workspace, secrets={"telegramBotToken": TELEGRAM_TOKEN}) as asked:
            found, said = verdict(lambda: ask_telegram(asked))
    assert "message_thread_id=42" in asked_for[-1]
    assert found is (Verdict.PASSED if there else Verdict.FAILED), said
    assert "topic 42" in said


def test_a_telegram_that_is_out_of_reach_is_no_failure_and_shows_no_token(make: Callable[..., Workspace]) -> None:
    workspace = telegram(make, "http://127.0.0.1:9")
    with examined(workspace, secrets={"telegramBotToken": TELEGRAM_TOKEN}) as asked:
        found, said = verdict(lambda: ask_telegram(asked))
    assert (found, TELEGRAM_TOKEN in said) == (Verdict.NOT_AVAILABLE, False)
    assert "cannot be reached from here" in said


class _Sink:
    async def handle_DATA(self, *_: object) -> str:  # noqa: N802 - the library's name
        return "250 OK"


@contextmanager
def mail_server(sink: _Sink | None = None, **options: Any) -> Iterator[str]:
    (port,) = free_ports(1)
    controller = Controller(sink or _Sink(), hostname="127.0.0.1", port=port, **options)
    controller.start()
    yield f"127.0.0.1:{port}"
    controller.stop()


@contextmanager
def tls_port(context: ssl.SSLContext) -> Iterator[int]:
    """Answer one client after the other by TLS, with the greeting of a mail server."""

    class Greeting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as client:
                client.sendall(b"220 mail.example.org\r\n")
                client.recv(1024)
                client.sendall(b"250 mail.example.org\r\n")

    with serving(socketserver.TCPServer(("127.0.0.1", 0), Greeting)) as server:
        yield server.server_address[1]


def email(make: Callable[..., Workspace], smarthost: str, **more: Any) -> Workspace:
    settings = {"smarthost": smarthost, "sender": "a@example.org", "recipient": "b@example.org", **more}
    alertmanager = {"port": free_ports(1)[0], "email": settings}
    secrets = {"smtpPassword": {"secure": "v1:x"}} if "username" in more else {}
    return make(alertmanager=alertmanager, **secrets)


def lets_in(_server: object, _session: object, _envelope: object, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.password == secret_value("smtp").encode(), handled=False)


def test_the_mail_server_is_spoken_to_and_logged_in_at(make: Callable[..., Workspace]) -> None:
    with mail_server(authenticator=lets_in, auth_require_tls=False) as host:
        workspace = email(make, host, username="a@example.org", requireTls=False)
        with examined(workspace, secrets={"smtpPassword": secret_value("smtp")}) as asked:
            assert "lets a@example.org in" in ask_mail_server(asked)
        with (
            examined(workspace, secrets={"smtpPassword": "wrong password"}) as asked,
            pytest.raises(FailedError, match=r"refuses the login of a@example.org \(535\)") as error,
        ):
            ask_mail_server(asked)
        assert "wrong password" not in str(error.value)
        with examined(email(make, host)) as asked, pytest.raises(FailedError, match="STARTTLS"):
            ask_mail_server(asked)


def test_a_mail_server_whose_certificate_alertmanager_refuses_is_refused(
    make: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=nobody.invalid -keyout key.pem -out cert.pem"
    subprocess.run(words.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with tls_port(context) as port:
        monkeypatch.setattr("operations.checks.doctor.outside._SMTPS", port)
        refused = pytest.raises(FailedError, match="certificate verify failed")
        with examined(email(make, f"127.0.0.1:{port}")) as asked, refused:
            ask_mail_server(asked)


class _Strict(_Sink):
    """Takes its clients by one name alone."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def handle_EHLO(  # noqa: N802 - the library's name
        self, _server: object, session: Any, _envelope: object, hostname: str, said: list[str]
    ) -> list[str]:
        if hostname != self.name:
            return ["550 who are you?"]
        session.host_name = hostname
        return said

    async def handle_HELO(self, *_: object) -> str:  # noqa: N802 - the library's name
        return "550 who are you?"


@pytest.mark.parametrize(
    ("more", "name"), [({}, "example.org"), ({"hello": "alerts.example.org"}, "alerts.example.org")]
)
def test_the_mail_server_is_greeted_by_the_name_that_alertmanager_gives(
    more: dict[str, str], name: str, make: Callable[..., Workspace]
) -> None:
    with mail_server(_Strict(name)) as host:
        workspace = email(make, host, requireTls=False, **more)
        written = integrations(workspace.settings())["email"]
        assert written["hello"] == name, "it would say localhost, which many servers refuse"
        with examined(workspace) as asked:
            assert "answers" in ask_mail_server(asked)
        other = email(make, host, requireTls=False, hello="localhost")
        with examined(other) as asked, pytest.raises(FailedError, match=r"by localhost \(550 who are you\?\).*hello"):
            ask_mail_server(asked)


class _Refuses(_Sink):
    """Refuses a recipient, as Postfix does a greeting that it does not like."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def handle_RCPT(self, *_: object) -> str:  # noqa: N802 - the library's name
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [("554 5.7.1 <example.org>: Helo command rejected", FailedError), ("450 4.2.0 Greylisted", UnavailableError)],
)
def test_a_mail_server_that_refuses_only_once_it_hears_the_recipient_is_told(
    make: Callable[..., Workspace], answer: str, error: type[Exception]
) -> None:
    refusal = pytest.raises(error, match=re.escape(f"refuses mail to b@example.org ({answer}"))
    with mail_server(_Refuses(answer)) as host, examined(email(make, host, requireTls=False)) as asked, refusal:
        ask_mail_server(asked)


def test_a_mail_server_that_is_not_there_fails_here_and_is_unknown_of_another_host(
    make: Callable[..., Workspace],
) -> None:
    workspace = email(make, "127.0.0.1:9")
    with examined(workspace) as asked, pytest.raises(FailedError, match="cannot be spoken to"):
        ask_mail_server(asked)
    with examined(workspace, "ssh://you@host") as asked, pytest.raises(UnavailableError, match="from here"):
        ask_mail_server(asked)


def test_a_name_that_only_the_hosts_search_domain_completes_fails_before_up(make: Callable[..., Workspace]) -> None:
    for workspace, ask in (
        (email(make, "mail:25"), ask_mail_server),
        (telegram(make, "http://tgapi:8081"), ask_telegram),
    ):
        with examined(workspace) as asked, pytest.raises(FailedError, match="write the whole name of"):
            ask(asked)  # the host would reach it, and no container does: the first real alert would be lost


def grafana_engine(make: Callable[..., Workspace], url: str) -> tuple[FakeEngine, dict[str, Any]]:
    state = {"Status": "running", "Running": True, "StartedAt": "2026-01-01T00:00:00Z", "Health": {"Status": "healthy"}}
    labels = {ENVIRONMENT_LABEL: "staging", PART_LABEL: "grafana"}
    whole = {"Id": "g", "Name": "/g", "State": state, "Config": {"Image": "grafana", "Labels": labels}}
    container = {"Id": "g", "Names": ["/g"], "Labels": labels, "Ports": [], "Whole": whole}
    return FakeEngine(containers=[container]), {"port": urlsplit(url).port}


@pytest.mark.parametrize(
    ("adopted", "taken", "tried", "expected"),
    [
        (False, ["generated"], ["generated"], Verdict.PASSED),
        (True, ["admin"], ["generated", "admin"], Verdict.FAILED),
        (True, [], ["generated", "admin"], Verdict.NOT_AVAILABLE),
        (False, [], ["generated"], Verdict.NOT_AVAILABLE),
        (False, None, ["generated"], Verdict.FAILED),
    ],
    ids=["the generated one", "the default", "an adopted one", "set by hand or locked", "Grafana is ill"],
)
def test_a_grafana_that_lets_admin_in_with_admin_fails_and_the_right_one_is_tried_first(
    make: Callable[..., Workspace],
    monkeypatch: pytest.MonkeyPatch,
    *,
    adopted: bool,
    taken: list[str] | None,
    tried: list[str],
    expected: Verdict,
) -> None:
    state = SimpleNamespace(secrets=lambda: {"grafana-admin": "generated"})
    monkeypatch.setattr(Workspace, "open_made", lambda _: state)
    asked_with = []

    def answer(_method: str, _path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        user, _, password = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
        assert user == "admin"
        asked_with.append(password)
        return 503 if taken is None else 200 if password in taken else 401, {}

    with page(answer) as url:
        fake, settings = grafana_engine(make, url)
        with engine_at(fake) as host:
            grafana = settings | ({"adoptVolume": "grafana_data"} if adopted else {})
            with examined(make(dockerHost=host, grafana=grafana), host) as asked:
                found, why = verdict(lambda: judge_grafana_password(asked))
    assert asked_with == tried, "five logins that fail lock admin out: five runs would"
    assert found is expected, why


def test_before_grafana_is_there_its_password_is_the_generated_one_unless_a_volume_is_adopted(
    make: Callable[..., Workspace],
) -> None:
    with engine_at(FakeEngine()) as host:
        with examined(make(dockerHost=host), host) as asked:
            assert "generated" in judge_grafana_password(asked)
        adopted = make(dockerHost=host, grafana={"port": free_ports(1)[0], "adoptVolume": "grafana_data"})
        with examined(adopted, host) as asked, pytest.raises(UnavailableError, match="adopted"):
            judge_grafana_password(asked)


# After `up`


def test_after_up_come_the_smoke_test_the_test_alert_and_the_restarts(
    make: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = case_environment("every-receiver")
    smoked = smoke.report_of(environment, [Finding(check="container api-1", verdict=Verdict.PASSED, why="well")])
    states = {"telegram": DeliveryState.DELIVERED, "email": DeliveryState.FAILED}
    sent = alert_report.AlertReport(
        environment="staging",
        test_id="0123",
        severity="critical",
        broken_before="",
        integrations=[Delivery(integration=way, state=state) for way, state in states.items()],
    )
    monkeypatch.setattr(smoke, "smoke", lambda *_, **__: smoked)
    monkeypatch.setattr(send, "send_test_alert", lambda *_, **__: sent)
    with engine_at(FakeEngine()) as host:
        workspace = make(
            dockerHost=host,
            alertmanager={"port": free_ports(1)[0], "telegram": {"chatId": -100}},
            telegramBotToken={"secure": "v1:x"},
        )
        found = {each.check: each.verdict for each in after.after(workspace).findings}
        nobody = make(dockerHost=host)
        silent = {each.check: each.why for each in after.after(nobody).findings}
    assert found == {
        "container api-1": Verdict.PASSED,
        "test alert by telegram": Verdict.PASSED,
        "test alert by email": Verdict.FAILED,
        "restarts": Verdict.PASSED,
        "redis' file": Verdict.NOT_AVAILABLE,
        "collations": Verdict.NOT_AVAILABLE,
        "closed addresses": Verdict.FAILED,  # the stand-in's container cannot be asked
        "large packets": Verdict.FAILED,  # as above
    }
    assert "goes to nobody" in silent["test alert"]


# An `ssh` that leads the engine's socket to a stand-in's, and every port of the other host to one page.
SSH = """\
#!{python}
import os, shutil, signal, socket, socketserver, sys, threading

class Port(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(("127.0.0.1", {page})) as there:
            back = threading.Thread(target=pump, args=(there, self.request))
            back.start()
            pump(self.request, there)
            back.join()

def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass

if sys.argv[-1] == "sh":
    os.execvp("sh", ["sh"])
for option, word in zip(sys.argv, sys.argv[1:]):
    if option != "-L":
        continue
    if word.startswith("/"):
        os.symlink("{engine}", word.partition(":")[0])
    else:
        socketserver.ThreadingTCPServer.daemon_threads = True
        server = socketserver.ThreadingTCPServer(("127.0.0.1", int(word.split(":")[1])), Port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
signal.pause()
"""


def test_after_up_on_another_host_engine_and_pages_are_those_of_that_host(
    make: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def answer(_method: str, path: str, _headers: Mapping[str, str]) -> tuple[int, Any]:
        asked.append(path)
        return 200, {"cluster": {}}

    monkeypatch.setattr(smoke, "_passwords", lambda _: lambda: {"grafana-admin": "x"})
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with page(answer) as url:
        fake, _ = grafana_engine(make, url)
        fake.containers[0]["Whole"]["RestartCount"] = 2
        with engine_at(fake) as engine:
            program = tmp_path / "bin" / "ssh"
            program.parent.mkdir()
            given = {"python": sys.executable, "page": urlsplit(url).port, "engine": engine.removeprefix("unix://")}
            program.write_text(SSH.format(**given), encoding="utf-8")
            program.chmod(0o755)
            workspace = make(
                dockerHost=f"ssh://you@{os.getpid()}.example.org",
                alertmanager={"port": free_ports(1)[0], "telegram": {"chatId": -100}},
                telegramBotToken={"secure": "v1:x"},
            )
            found = {each.check: each for each in after.after(workspace, wait=0).findings}
            monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
            monkeypatch.setattr(after, "after", lambda *_, **__: Report(title="After", about={}, findings=[]))
            command.app(["doctor", "--after"], standalone_mode=False)
    assert found["container grafana"].verdict is Verdict.PASSED, found["container grafana"].why
    assert found["page grafana"].verdict is Verdict.PASSED, "nothing listens at its port here: it is that host's"
    assert "/metrics" in asked, "the test alert begins with the metrics of the AlertManager over there"
    assert found["test alert"].verdict is Verdict.FAILED, "that page is no AlertManager"
    assert "grafana 2 times" in found["restarts"].why
    assert "From here: make tunnel" in capsys.readouterr().out, "the addresses to watch are none of this machine's"


def test_a_tunnel_that_breaks_before_the_test_alert_costs_no_other_finding(
    make: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = case_environment("staging")
    smoked = smoke.report_of(environment, [Finding(check="container api-1", verdict=Verdict.PASSED, why="well")])
    monkeypatch.setattr(smoke, "smoke", lambda *_, **__: smoked)
    monkeypatch.setattr(after, "live_status", lambda _: [])
    workspace = make(
        dockerHost=f"ssh://you@127.0.0.1:{free_ports(1)[0]}",
        alertmanager={"port": free_ports(1)[0], "telegram": {"chatId": -100}},
        telegramBotToken={"secure": "v1:x"},
    )
    found = {each.check: each for each in after.after(workspace).findings}
    assert list(found) == [
        *("container api-1", "test alert", "restarts", "redis' file", "collations", "closed addresses"),
        "large packets",
    ]
    assert "There is no tunnel" in found["test alert"].why


def test_a_container_that_was_started_again_is_told(make: Callable[..., Workspace]) -> None:
    fake, _ = grafana_engine(make, "http://127.0.0.1:1")
    fake.containers[0]["Whole"]["RestartCount"] = 3
    with engine_at(fake) as host, pytest.raises(FailedError, match="grafana 3 times"):
        after._restarts(make(dockerHost=host))


def test_what_redis_read_is_not_said_where_it_is_not_here(make: Callable[..., Workspace]) -> None:
    with engine_at(FakeEngine()) as host:
        with pytest.raises(UnavailableError, match="staging is not up"):
            redis_log.read(make(dockerHost=host))
        managed = make(dockerHost=host, managedRedisUrl={"secure": "v1:x"})
        with pytest.raises(UnavailableError, match="its provider's; what it counts itself: 7 commands"):
            redis_log.read(managed, counted="7 commands")


def test_the_first_day_names_commands_pages_and_the_schedules() -> None:
    told = "\n".join(after.first_day(environment_of("prod", case_config("prod")[1])))
    assert "make backups ENV=prod" in told
    assert "15 2 * * *" in told
    assert "samokoder-containers" in told
    told = "\n".join(after.first_day(environment_of("staging", {"backup": {"physical": False}})))
    assert "base backup" not in told, "there is none to look for"


def test_the_command_ends_with_1_when_the_host_is_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Report(
        title="Before", about={"environment": "prod"}, findings=[Finding(check="disk", verdict=Verdict.FAILED, why="x")]
    )
    monkeypatch.setattr(doctor, "doctor", lambda *_, **__: bad)
    with pytest.raises(SystemExit) as ended:
        command.main(["doctor", "-e", "prod", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert json.loads(said.out)["environment"] == "prod"
    assert "disk failed" in said.err

    good = Report(title="After", about={}, findings=[Finding(check="disk", verdict=Verdict.PASSED, why="x")])
    monkeypatch.setattr(after, "after", lambda *_, **__: good)
    command.app(["doctor", "--after"], standalone_mode=False)
    assert "In the first 24 hours" in capsys.readouterr().out
