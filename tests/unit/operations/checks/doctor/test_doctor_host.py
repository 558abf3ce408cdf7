"""What a host shows only after a reboot, with another resolver or with a VPN: each check's good and bad side."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.own_ports import own_ports
from operations.checks.doctor import ranges, resolver, set_aside
from operations.checks.doctor.asked import _FACTS, EnvironmentAsked, HostFacts, Route, _network
from operations.checks.doctor.at_boot import judge_addresses, judge_start
from operations.checks.doctor.ranges import judge_ranges
from operations.checks.doctor.resolver import judge_resolver
from operations.checks.doctor.set_aside import judge_set_aside
from operations.checks.report import Check, Once, Verdict, ask_all
from operations.engine.bound import BoundError
from operations.workspace.workspace import Workspace
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from tests.fake_engine import FakeEngine, engine_at

USUAL = "unix:///var/run/docker.sock"


@contextmanager
def examined(folder: Path, host: str = USUAL, facts: str = "", **settings: Any) -> Iterator[EnvironmentAsked]:
    """What the checks of staging ask, with these settings; facts: what its host says."""
    ports = own_ports()
    values = {f"samokoder:{name}": {**ports.get(f"samokoder:{name}", {}), **each} for name, each in settings.items()}
    workspace = Workspace(home=folder / "home", isolated=True, extra_config={**ports, **values}, cache=folder)
    with ExitStack() as open_:
        asked = EnvironmentAsked(workspace, workspace.settings(), host, 10, open_)
        object.__setattr__(asked, "facts", Once(lambda: HostFacts.parse(facts)))
        yield asked


def judged(ask: Callable[[EnvironmentAsked], str], asked: EnvironmentAsked) -> tuple[Verdict, str]:
    (found,) = ask_all([Check(name="one", ask=lambda: ask(asked))], seconds=30)
    return found.verdict, found.why


# At boot


@pytest.mark.parametrize(
    ("facts", "expected", "told"),
    [
        ("systemd yes\ndocker-at-boot enabled\n", Verdict.PASSED, "at boot"),
        ("systemd yes\ndocker-at-boot disabled\n", Verdict.FAILED, "`systemctl enable docker.service`"),
        ("systemd yes\ndocker-at-boot enabled-runtime\n", Verdict.FAILED, "`systemctl enable docker.service`"),
        ("systemd yes\ndocker-at-boot masked\n", Verdict.NOT_AVAILABLE, "says masked of"),
        ("systemd yes\ndocker-at-boot \n", Verdict.NOT_AVAILABLE, "says nothing of"),
        ("", Verdict.NOT_AVAILABLE, "no systemd"),
    ],
)
def test_an_engine_that_only_its_socket_starts_fails_for_nothing_runs_after_a_reboot(
    tmp_path: Path, facts: str, expected: Verdict, told: str
) -> None:
    for host in (USUAL, "ssh://deploy@host.example.org"):
        with examined(tmp_path, host, facts) as asked:
            found, why = judged(judge_start, asked)
        assert found is expected, why
        assert told in why


@pytest.mark.parametrize("host", ["unix:///run/user/1000/docker.sock", "ssh://you@host/run/user/1000/docker.sock"])
def test_an_engine_at_another_socket_is_not_the_one_of_the_hosts_service(tmp_path: Path, host: str) -> None:
    with examined(tmp_path, host, "systemd yes\ndocker-at-boot disabled\n") as asked:
        assert judged(judge_start, asked)[0] is Verdict.NOT_AVAILABLE


PUBLIC: Mapping[str, Any] = {"ingress": {"bindAddress": "10.0.0.5", "bindReason": "a test"}}
HAS = "has 127.0.0.1\nhas 10.0.0.5\n"


@pytest.mark.parametrize(
    ("facts", "expected", "told"),
    [
        (f"{HAS}docker-waits yes\n", Verdict.PASSED, "samokoder:ingress.bindAddress 10.0.0.5: on an interface"),
        ("has 127.0.0.1\ndocker-waits yes\n", Verdict.FAILED, "cannot assign requested address"),
        ("has 127.0.0.1\n", Verdict.FAILED, "printf '%s\\n' net.ipv4.ip_nonlocal_bind=1 > /etc/sysctl.d/"),
        (f"{HAS}docker-waits no\n", Verdict.FAILED, "After=network-online.target"),
        (f"{HAS}docker-waits no\nnet/ipv4/ip_nonlocal_bind 1\n", Verdict.PASSED, "ip_nonlocal_bind"),
        ("has 127.0.0.1\nnet/ipv4/ip_nonlocal_bind 1\n", Verdict.PASSED, "ip_nonlocal_bind"),
        ("", Verdict.NOT_AVAILABLE, "does not say"),
    ],
)
def test_an_address_that_is_missing_or_may_be_at_boot_fails_before_the_engine_meets_it(
    tmp_path: Path, facts: str, expected: Verdict, told: str
) -> None:
    with examined(tmp_path, facts=facts, **PUBLIC) as asked:
        found, why = judged(judge_addresses, asked)
    assert found is expected, why
    assert told in why


def test_an_address_of_ipv6_is_found_in_the_form_that_the_kernel_has_it(tmp_path: Path) -> None:
    settings: Mapping[str, Any] = {"ingress": {"bindAddress": "2001:db8::7", "bindReason": "a test"}}
    with examined(tmp_path, facts=f"has 20010db8{'0' * 23}7\n", **settings) as asked:
        assert judged(judge_addresses, asked)[0] is Verdict.PASSED
    with examined(tmp_path, facts="has 10.0.0.5\n", **settings) as asked:
        assert "net.ipv6.ip_nonlocal_bind=1" in judged(judge_addresses, asked)[1]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - what is judged
def test_what_is_there_at_every_boot_is_not_asked_for(tmp_path: Path, address: str) -> None:
    ingress = {"bindAddress": address, **({} if address == "127.0.0.1" else {"bindReason": "a test"})}
    with examined(tmp_path, facts="has 127.0.0.1\n", ingress=ingress) as asked:
        assert judged(judge_addresses, asked)[0] is Verdict.NOT_CONFIGURED


# Ranges of addresses


def network(name: str, subnet: str, **options: str) -> dict[str, Any]:
    return {"Name": name, "Id": f"{name:0<64}", "Options": options, "IPAM": {"Config": [{"Subnet": subnet}]}}


EDGE = network("samokoder-staging-edge", "172.19.0.0/16", **{"com.docker.network.bridge.name": "samokoder0"})
APP = network("samokoder-staging-app", "172.20.0.0/16")
OTHER = network("other", "192.168.16.0/20")


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        ("route 10.0.0.0/16 eth1", ""),
        ("route 172.19.0.0/16 samokoder0", ""),
        (f"route 172.20.0.0/16 br-{APP['Id'][:12]}", ""),
        ("route 0.0.0.0/1 tun0\nroute 128.0.0.0/1 tun0", ""),
        ("route 192.168.16.0/24 eth1", ""),
        ("route 172.16.0.0/12 tun0", "samokoder-staging-edge has 172.19.0.0/16, and the host a route to 172.16.0.0/12"),
        ("route 172.20.7.1 eth0", "samokoder-staging-app has 172.20.0.0/16, and the host a route to 172.20.7.1/32"),
        ("route 000014AC/0000FFFF wg0", "a route to 172.20.0.0/16 (wg0)"),
    ],
    ids=["beside", "its own bridge", "its own", "everything", "another's", "a VPN", "a gateway", "without ip"],
)
def test_a_route_of_the_host_into_a_network_of_the_stack_fails_with_another_range(
    tmp_path: Path, routes: str, told: str
) -> None:
    with (
        engine_at(FakeEngine(networks=[EDGE, APP, OTHER])) as host,
        examined(tmp_path, host, f"{routes}\nroute 10.201.0.0/16 eth2\n") as asked,
    ):
        found, why = judged(judge_ranges, asked)
    assert found is (Verdict.FAILED if told else Verdict.PASSED), why
    assert told in why
    if told:
        assert '"default-address-pools": [{"base": "10.202.0.0/16", "size": 24}]' in why, "10.201 is the host's"
        assert "make down" in why


def test_before_the_first_up_there_is_no_range_to_judge(tmp_path: Path) -> None:
    with engine_at(FakeEngine(networks=[OTHER])) as host, examined(tmp_path, host, "route 10.0.0.0/8 eth0\n") as asked:
        assert judged(judge_ranges, asked)[0] is Verdict.PASSED
    with engine_at(FakeEngine(networks=[EDGE])) as host, examined(tmp_path, host) as asked:
        assert judged(judge_ranges, asked)[0] is Verdict.NOT_AVAILABLE, "a host that says nothing"


def test_the_script_reads_the_tables_of_this_host_with_ip_and_without(tmp_path: Path) -> None:
    for name in ("sh", "awk", "cat"):
        (tmp_path / name).symlink_to(Path("/bin") / name)
    for script in (_FACTS, _FACTS.replace('"$PATH:/usr/sbin:/sbin"', f'"{tmp_path}"')):
        done = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=True)
        facts = HostFacts.parse(done.stdout)
        assert "127.0.0.1" in facts.addresses
    assert Route(_network("10.0.0.0/8"), "eth0") == HostFacts.parse("route 0000000A/000000FF eth0").routes[0]


# The resolver


def running(part: str, network: str = "samokoder-staging-edge", state: str = "running") -> dict[str, Any]:
    labels = {ENVIRONMENT_LABEL: "staging", PART_LABEL: part}
    whole = {"Id": part, "Name": f"/{part}", "State": {"Status": state}, "Config": {"Labels": labels}}
    listed = {"Id": part, "Names": [f"/{part}"], "Labels": labels, "State": state, "Ports": [], "Whole": whole}
    return {**listed, "NetworkSettings": {"Networks": {network: {}}}}


STACK = [
    running("alertmanager"),
    running("worker"),
    running("api-1"),
    running("redis", "samokoder-staging-data"),
    running("migrations", state="exited"),
]
TELEGRAM: Mapping[str, Any] = {
    "alertmanager": {"telegram": {"chatId": -100}},
    "telegramBotToken": {"secure": "v1:x"},
}


@contextmanager
def answering(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answers: Mapping[str, str], *, known: int = 0, **settings: Any
) -> Iterator[tuple[EnvironmentAsked, list[Sequence[str]]]]:
    """An engine with containers that say this. known: what the host's getent ends with."""
    commands: list[Sequence[str]] = []

    def execute(container: Any, _command: Sequence[str], **_: object) -> tuple[int, bytes]:
        if answers[container.id] == "silence":
            raise BoundError("it does not end within 5 s")
        return 0, answers[container.id].encode()

    def run(_asked: EnvironmentAsked, *words: str, given: str) -> subprocess.CompletedProcess[str]:
        commands.append(words)
        return subprocess.CompletedProcess(words, known, stdout=given, stderr="")

    monkeypatch.setattr(resolver, "execute", execute)
    monkeypatch.setattr(EnvironmentAsked, "run", run)
    with engine_at(FakeEngine(containers=STACK)) as host, examined(folder, host, **settings) as asked:
        yield asked, commands


def test_containers_that_do_not_find_whom_the_host_finds_fail_each_with_its_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"alertmanager": "lost\n", "worker": "silence", "api-1": "found\n"}
    with answering(tmp_path, monkeypatch, answers, **TELEGRAM) as (asked, commands):
        found, why = judged(judge_resolver, asked)
    assert found is Verdict.FAILED, "no alert leaves, and nothing else says why"
    assert "the host finds api.telegram.org, and these containers do not: alertmanager, worker." in why
    assert "make restart" in why
    assert "PART=alertmanager" in why
    assert "api-1" not in why
    assert "-s dns hosts api.telegram.org" in " ".join(commands[0]), "containers have no /etc/hosts of the host"


@pytest.mark.parametrize(
    ("program", "body", "expected"),
    [
        ("getent", "exit 0", "found"),
        ("getent", "exit 2", "lost"),
        ("nslookup", "echo Server: 127.0.0.11; echo Name: $1; echo Address: 192.0.2.7", "found"),
        ("nslookup", 'echo Server: 127.0.0.11; echo "** server can\'t find $1: NXDOMAIN"', "lost"),
        ("other", "exit 0", ""),
    ],
)
def test_a_container_is_asked_by_the_program_that_its_image_has(
    tmp_path: Path, program: str, body: str, expected: str
) -> None:
    (tmp_path / program).write_text(f"#!/bin/sh\n{body}\n")
    (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", resolver._ASK, "sh", "api.telegram.org"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(
    ("answers", "known", "expected", "told"),
    [
        ("found\n", 0, Verdict.PASSED, "alertmanager, worker, api-1 find api.telegram.org"),
        ("OCI runtime exec failed: no sh", 0, Verdict.NOT_AVAILABLE, "no container has a program"),
        ("lost\n", 2, Verdict.NOT_AVAILABLE, "the host itself does not find api.telegram.org"),
        ("lost\n", 1, Verdict.NOT_AVAILABLE, "no getent"),
    ],
)
def test_what_the_host_does_not_find_either_is_not_the_containers_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: str, known: int, expected: Verdict, told: str
) -> None:
    every = dict.fromkeys(("alertmanager", "worker", "api-1"), answers)
    with answering(tmp_path, monkeypatch, every, known=known, **TELEGRAM) as (asked, _):
        found, why = judged(judge_resolver, asked)
    assert found is expected, why
    assert told in why


def test_without_a_name_or_a_container_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(tmp_path, monkeypatch, {}) as (asked, _):
        assert judged(judge_resolver, asked)[0] is Verdict.NOT_CONFIGURED
    monkeypatch.undo()
    with engine_at(FakeEngine()) as host, examined(tmp_path, host, **TELEGRAM) as asked:
        assert judged(judge_resolver, asked) == (
            Verdict.NOT_AVAILABLE,
            "no container runs yet that reaches outside",
        )
    monkeypatch.setattr(resolver, "own_containers", lambda _: STACK)
    with examined(tmp_path, "tcp://host.example.org:2376", **TELEGRAM) as asked:
        found, why = judged(judge_resolver, asked)
    assert found is Verdict.NOT_AVAILABLE
    assert "leads to its engine alone" in why, "what was not asked is said"


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        (["10.201.0.0/16"], "10.202.0.0/16"),
        (["10.0.0.0/8", "172.17.0.0/16", "172.19.0.0/16"], "172.18.0.0/16"),
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], ""),
    ],
)
def test_a_range_that_is_advised_is_one_that_nothing_has(taken: list[str], free: str) -> None:
    assert ranges._free([ipaddress.IPv4Network(each) for each in taken]) == free, "production would have no network"


# What was moved out of the way


@pytest.mark.parametrize(
    ("answers", "expected", "told"),
    [
        ({"prometheus": (0, b""), "alertmanager": (0, b"")}, Verdict.PASSED, "nothing was moved"),
        (
            {"prometheus": (0, b"1.2M\tdamaged-chunks_head\n5.0M\tdamaged-chunks_head-2\n"), "alertmanager": (0, b"")},
            Verdict.FAILED,
            "prometheus could not start with damaged-chunks_head (1.2M), damaged-chunks_head-2 (5.0M)",
        ),
        (
            {"prometheus": (0, b"1.2M\tdamaged-chunks_head\n")},
            Verdict.FAILED,
            "`docker exec samokoder-staging-prometheus sh -c 'rm -r /prometheus/damaged-*'` removes it",
        ),
        (
            {"alertmanager": (0, b"4.0K\tdamaged-silences\n")},
            Verdict.FAILED,
            "damaged-silences (4.0K): silences are gone",
        ),
        ({"alertmanager": (0, b"")}, Verdict.NOT_AVAILABLE, "prometheus does not run"),
        (
            {"prometheus": (0, b""), "alertmanager": (2, b"cd: can't")},
            Verdict.NOT_AVAILABLE,
            "alertmanager does not say",
        ),
        ({}, Verdict.NOT_AVAILABLE, "alertmanager does not run"),
    ],
)
def test_what_a_start_has_moved_out_of_the_way_fails_with_its_size_and_the_command_that_removes_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: Mapping[str, tuple[int, bytes]],
    expected: Verdict,
    told: str,
) -> None:
    def execute(container: Any, _command: Sequence[str], **_: object) -> tuple[int, bytes]:
        return answers[container.id]

    monkeypatch.setattr(set_aside, "execute", execute)
    there = [running(part) for part in answers]
    with engine_at(FakeEngine(containers=there)) as host, examined(tmp_path, host) as asked:
        found, why = judged(judge_set_aside, asked)
    assert found is expected, why
    assert told in why


def test_what_was_moved_is_measured_and_nothing_else(tmp_path: Path) -> None:
    def ask() -> list[list[str]]:
        words = ["sh", "-c", set_aside.ASK, "sh", str(tmp_path)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return [line.split("\t") for line in said.splitlines()]

    (tmp_path / "silences").write_text("whole")
    assert ask() == []
    (tmp_path / "damaged-silences").write_bytes(b"x" * 2**20)
    (tmp_path / "damaged-chunks_head").mkdir()
    (tmp_path / "damaged-chunks_head" / "000001").write_bytes(b"x" * 2**21)
    assert [name for _, name in ask()] == ["damaged-chunks_head", "damaged-silences"]
    assert ask()[1][0] == "1.0M"
