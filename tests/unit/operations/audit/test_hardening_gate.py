"""The hardening gate: each rule finds what breaks it, and the list of exceptions is neither too long nor too old."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi.runtime import rpc
from pulumi_policy.proxy import unknown_checking_proxy

from operations.audit.exceptions import Allowed, exceptions
from operations.audit.facts import Mount, declared, found
from operations.audit.gate import judge
from operations.audit.policy_pack import validation
from operations.audit.rules import RULES, Broken, Seen, broken
from operations.errors import ProjectError
from tests import recorded
from tests.recording import CASES, CONTAINER, record_case

TODAY = datetime.now(UTC).date()
LATER = date(2999, 1, 1)


def registered(case: str) -> list[Seen]:
    """Every container of a case as the program registers it."""
    return [Seen(facts=declared(each.inputs, {})) for each in record_case(case).containers().values()]


def spotless() -> Seen:
    """A container that breaks no rule at all."""
    facts = declared(record_case("staging").containers()["postgres"].inputs, {})
    return Seen(facts=replace(facts, pids_limit=512, restart="on-failure:5"))


def rules_of(seen: Seen) -> list[str]:
    return [each.rule for each in broken(seen)]


# Rule -> ways to break it, as changes of a spotless container.
BREAKS: dict[str, list[dict[str, Any]]] = {
    "4.1": [{"user": ""}, {"user": "0"}, {"user": "0:0"}, {"user": "root"}, {"user": ":10001"}, {"user": "postgres"}],
    "4.2": [{"image": "redis"}, {"image": "redis:7"}, {"image": "samokoder-reference-app:latest"}],
    "4.6": [{"health": {}}],
    "4.10": [
        {"environment": {"PGPASSWORD": "hunter2"}},
        {"environment": {"SECRET_KEY": "0123456789"}},
        {"environment": {"OPENAI_API_KEY": "sk-0123456789"}},
        {"environment": {"DATABASE_URL": "postgresql://app:hunter2@db/app"}},
        {"labels": {"traefik.auth.token": "0123456789"}},
        {"command": ("redis-server", "--requirepass-password=hunter2")},
        {"command": ("exporter", "redis://:hunter2@redis:6379")},
        {"health": {"test": ("CMD", "curl", "http://admin:hunter2@127.0.0.1/")}},
    ],
    "5.2": [{"security_options": ("apparmor=unconfined", "no-new-privileges=true")}],
    "5.3": [{"security_options": ("label=disable", "no-new-privileges=true")}],
    "5.4": [{"capabilities_dropped": ()}, {"capabilities_added": ("CAP_NET_ADMIN",)}],
    "5.5": [{"privileged": True}],
    "5.6": [
        {"mounts": {"/x": Mount(source=source, read_only=True)}}
        for source in ("/etc", "/etc/ssl", "/usr/bin", "/var/lib/docker/", "/root", "/boot", "/sys")
    ],
    "5.7": [
        {"command": ("/usr/sbin/sshd", "-D")},
        {"entrypoint": ("dropbear",)},
        {"ports": {"22/tcp": ("127.0.0.1:2222",)}},
    ],
    "5.8": [{"ports": {"8080/tcp": (f"127.0.0.1:{port}",)}} for port in (80, 1023)],
    "5.9": [{"publish_all_ports": True}],
    "5.10": [{"network_mode": "host", "networks": {"host": ()}}, {"network_mode": "container:abc", "networks": {}}],
    "5.11": [{"memory": 0}, {"memory_swap": 2**40}, {"memory_swap": -1}],
    "5.12": [{"cpus": 0.0}],
    "5.13": [{"read_only": False}, {"tmpfs": {"/tmp": "rw,size=16m"}}, {"tmpfs": {"/tmp": "noexec,nosuid,nodev"}}],  # noqa: S108
    "5.14": [
        {"ports": {"8080/tcp": (address,)}} for address in ("0.0.0.0:8080", ":8080", "[::]:8080", "192.0.2.7:8080")
    ],
    "5.15": [{"restart": "always"}, {"restart": "no"}, {"restart": "on-failure:0"}, {"restart": "on-failure:6"}],
    "5.16": [{"pid_mode": "host"}, {"pid_mode": "container:abc"}],
    "5.17": [{"ipc_mode": "host"}, {"ipc_mode": "container:abc"}],
    "5.18": [{"devices": {"/dev/sda": "/dev/sda rwm"}}],
    "5.19": [{"ulimits": {"nofile": "1024:1024"}}, {"ulimits": {"nofile": "64:1024", "nproc": "64:64"}}],
    "5.20": [{"mounts": {"/x": Mount(source="/srv/x", read_only=True, propagation="rshared")}}],
    "5.21": [{"uts_mode": "host"}],
    "5.22": [{"security_options": ("no-new-privileges=true", "seccomp=unconfined")}],
    "5.25": [{"cgroup_parent": "/big"}],
    "5.26": [{"security_options": ()}],
    "5.29": [{"pids_limit": 0}],
    "5.30": [{"networks": {"bridge": ()}}],
    "5.31": [{"userns_mode": "host"}],
}
# What only a container that runs can break.
BREAKS_RUNNING: dict[str, list[dict[str, Any]]] = {
    "5.2": [{"engine": frozenset({"apparmor", "seccomp"})}],
    "5.7": [{"processes": ("postgres", "sshd: /usr/sbin/sshd -D")}],
    "5.22": [{"engine": frozenset({"cgroupns"})}],
    "5.23": [{"sessions": (("", True),)}],
    "5.24": [{"sessions": (("root", False),)}, {"sessions": (("0:0", False),)}],
}
TOGETHER = {"4.6": ["4.6", "5.27"]}


def test_a_container_that_breaks_no_rule_breaks_none() -> None:
    assert broken(spotless()) == [], "or the tests below would find what was there before"


@pytest.mark.parametrize(("rule", "change"), [(rule, change) for rule, changes in BREAKS.items() for change in changes])
def test_a_rule_finds_what_breaks_it_and_no_other_rule_does(rule: str, change: dict[str, Any]) -> None:
    seen = spotless()
    worse = replace(seen, facts=replace(seen.facts, **change))
    assert rules_of(worse) == TOGETHER.get(rule, [rule]), f"a container with {change} must break rule {rule} alone"


@pytest.mark.parametrize(
    ("rule", "change"), [(rule, change) for rule, changes in BREAKS_RUNNING.items() for change in changes]
)
def test_a_rule_finds_what_only_a_running_container_has(rule: str, change: dict[str, Any]) -> None:
    assert rules_of(replace(spotless(), **change)) == [rule]


@pytest.mark.parametrize("source", ["/var/run/docker.sock", "/run", "/var/run", "/run/docker", "/"])
def test_the_engines_socket_is_found_by_every_way_to_it(source: str) -> None:
    seen = spotless()
    worse = replace(seen, facts=replace(seen.facts, mounts={"/x": Mount(source=source, read_only=True)}))
    assert rules_of(worse) == ["5.6", "5.32"], f"who mounts {source} has the socket"


def test_every_rule_has_a_case_that_breaks_it() -> None:
    tried = {*BREAKS, *BREAKS_RUNNING, *(rule for rules in TOGETHER.values() for rule in rules), "5.32"}
    assert tried == set(RULES), "a rule that nothing breaks may be one that finds nothing"


@pytest.mark.parametrize(
    "innocent",
    [
        {"environment": {"REDIS_PASSWORD_FILE": "/run/secrets/redis_password"}},
        {"environment": {"SECRET_KEY_FILE": "/run/secrets/secret_key", "LLM_MAX_TOKENS": "4096"}},
        {"environment": {"GPG_KEY": "A035C8C19219BA821ECEA86B64E628F8D684696D"}},
        {"environment": {"REDIS_URL": "redis://redis:6379/0", "PROXY": "http://user@proxy:3128"}},
        {"command": ("exporter", "--password-file=/run/secrets/password", "--web.token=/run/secrets/token")},
        {"mounts": {"/x": Mount(source="samokoder-staging-postgres-data", read_only=False)}},
        {"mounts": {"/x": Mount(source="/srv/etc", read_only=True, propagation="rslave")}},
        {"image": "samokoder-reference-app:ba04c8718269c393"},
        {"image": "redis:7.4@sha256:" + "0" * 64},
        {"image": "sha256:" + "0" * 64},
        {"ports": {"8080/tcp": ("127.0.0.1:8080", "[::1]:1024")}},
    ],
)
def test_what_is_no_fault_is_not_found(innocent: dict[str, Any]) -> None:
    seen = spotless()
    assert broken(replace(seen, facts=replace(seen.facts, **innocent))) == [], "a gate that cries is switched off"


@pytest.mark.parametrize("case", [case for case in CASES if case != "opted-in"])
def test_what_the_program_registers_breaks_no_rule_that_is_not_listed(case: str) -> None:
    verdict = judge(registered(case), exceptions(), TODAY)
    assert verdict.parts >= 14
    assert not verdict.findings, (
        f"change the part, or list it in hardening.yaml with a reason that somebody reviews: {verdict.findings}"
    )


def test_secrets_in_variables_stay_findings_though_somebody_has_opted_in() -> None:
    findings = {
        (each.part, each.rule, each.what) for each in judge(registered("opted-in"), exceptions(), TODAY).findings
    }
    application = ("api-1", "api-2", "migrations")
    assert findings == {
        ("worker", "4.10", "REDIS_PASSWORD"),
        *((part, "4.10", name) for part in application for name in ("SECRET_KEY", "SAMOKODER_DATABASE_URL")),
    }, "who opts in lists it in his own hardening.yaml, with an end"


def test_every_exception_is_needed_by_some_environment() -> None:
    listed = exceptions()
    found = [each for case in CASES for seen in registered(case) for each in broken(seen)]
    unneeded = [(each.part, each.rule, each.what) for each in listed if not any(map(each.allows, found))]
    assert not unneeded, "an exception that nothing needs waits for something worse to hide behind it"


def test_an_exception_that_has_expired_is_a_finding() -> None:
    allowed = [exception.model_copy(update={"expires": LATER}) for exception in exceptions()]
    old = allowed[0].model_copy(update={"expires": date(2020, 2, 3)})
    findings = judge(registered("staging"), [old, *allowed[1:]], TODAY).findings
    assert [(each.part, each.rule) for each in findings] == [(old.part, old.rule)]
    assert "2020-02-03" in findings[0].says, "since when"


def test_an_exception_holds_on_the_day_that_it_names() -> None:
    allowed = [exception.model_copy(update={"expires": TODAY}) for exception in exceptions()]
    assert not judge(registered("staging"), allowed, TODAY).findings


def allowed(**changed: Any) -> Allowed:
    values = {"part": "postgres", "rule": "5.5", "what": "privileged", "reason": "because of a test", "expires": LATER}
    return Allowed.model_validate({**values, "reason": "a reason that is long enough", **changed})


def test_an_exception_that_nothing_needs_is_a_finding_unless_it_depends_on_settings() -> None:
    unneeded = judge([spotless()], [allowed()], TODAY).findings
    assert [(each.part, each.rule, each.what) for each in unneeded] == [("postgres", "5.5", "privileged")]
    assert "hardening.yaml" in unneeded[0].says, "where to remove it"
    assert not judge([spotless()], [allowed(only="samokoder:ingress.domain")], TODAY).findings
    assert not judge([spotless()], [allowed(part="grafana")], TODAY).findings, "a part that is not there needs nothing"


def test_an_exception_is_for_its_part_its_rule_and_its_word_alone() -> None:
    exception = allowed(part="api-*", rule="5.4", what="CAP_SYSLOG")
    about = {"part": "api-2", "rule": "5.4", "what": "CAP_SYSLOG", "says": ""}
    assert exception.allows(Broken(**about))
    for other in ({"part": "worker"}, {"rule": "5.5"}, {"what": "CAP_SYS_ADMIN"}):
        assert not exception.allows(Broken(**{**about, **other})), other


def test_an_exception_for_reading_is_none_for_writing() -> None:
    seen = next(each for each in registered("staging") if each.facts.part == "node-exporter")
    writable = replace(seen.facts, mounts={"/host": Mount(source="/", read_only=False)})
    findings = judge([replace(seen, facts=writable)], exceptions(), TODAY).findings
    assert ("5.6", "/ writable") in [(each.rule, each.what) for each in findings]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- part: api", "rule"),
        ('- {part: api, rule: "9.9", what: x, reason: a reason that is long enough, expires: 2999-01-01}', "9.9"),
        ('- {part: api, rule: "5.5", what: x, reason: short, expires: 2999-01-01}', "reason"),
        ('- {part: api, rule: "5.5", what: x, reason: a reason that is long enough}', "expires"),
        ('- {part: api, rule: "5.5", what: x, reason: a reason that is long enough, expires: never}', "expires"),
        ("part: api", "list"),
        ("- [", "cannot be read"),
    ],
)
def test_a_list_with_a_mistake_is_refused_and_says_where(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "hardening.yaml"
    file.write_text(text)
    with pytest.raises(ProjectError, match=says):
        exceptions(file)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("Privileged", True, "5.5"),
        ("NetworkMode", "host", "5.10"),
        ("PidMode", "host", "5.16"),
        ("IpcMode", "host", "5.17"),
        ("UTSMode", "host", "5.21"),
        ("UsernsMode", "host", "5.31"),
        ("Memory", 0, "5.11"),
        ("NanoCpus", 0, "5.12"),
        ("ReadonlyRootfs", False, "5.13"),
        ("CapDrop", None, "5.4"),
        ("CapAdd", ["SYS_ADMIN"], "5.4"),
        ("SecurityOpt", None, "5.26"),
        ("SecurityOpt", ["no-new-privileges=true", "seccomp=unconfined"], "5.22"),
        ("SecurityOpt", ["no-new-privileges:true", "seccomp:unconfined"], "5.22"),
        ("SecurityOpt", ["no-new-privileges=true", "label:disable"], "5.3"),
        ("SecurityOpt", ["no-new-privileges=false"], "5.26"),
        ("Ulimits", None, "5.19"),
        ("Devices", [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}], "5.18"),
        ("CgroupParent", "/big", "5.25"),
        ("PublishAllPorts", True, "5.9"),
        ("PortBindings", {"8000/tcp": [{"HostIp": "", "HostPort": "8000"}]}, "5.14"),
        ("Tmpfs", {"/tmp": ""}, "5.13"),  # noqa: S108
    ],
)
def test_a_rule_reads_what_the_engine_says(key: str, value: Any, rule: str) -> None:
    said = recorded.recorded()
    container = recorded.container(said, "api-1")
    image = said["images"][container["Image"]]["Config"]
    before = judge([Seen(facts=found(container, image))], exceptions(), TODAY)
    container["HostConfig"][key] = value
    after = judge([Seen(facts=found(container, image))], exceptions(), TODAY)
    assert before.findings == []
    assert {each.rule for each in after.findings} == {rule}, f"HostConfig.{key} = {value}"


def reported(inputs: dict[str, Any], type_: str = CONTAINER) -> list[str]:
    """What the policy pack says of a resource of a preview."""
    said: list[str] = []

    def report(message: str, _urn: str | None = None) -> None:
        said.append(message)

    args: Any = SimpleNamespace(resource_type=type_, props=unknown_checking_proxy(inputs))
    allowed = exceptions()
    for rule in RULES.values():
        validation(rule, allowed)(args, report)
    return said


def test_the_same_entry_by_ipv6_is_no_finding_and_that_of_another_part_is() -> None:
    inputs = record_case("managed").containers()["ingress"].inputs
    assert ":::443" in {f"{port['ip']}:{port['external']:.0f}" for port in inputs["ports"]}
    assert reported(inputs) == []
    alone = deepcopy(inputs)
    alone["ports"] = [port for port in alone["ports"] if port["ip"] == "::"]
    assert set(reported(alone)) == {"ingress is published on :: of the host, around its firewall"}, (
        "without samokoder:network.ipv6 each client by it has one address"
    )
    other = deepcopy(record_case("staging").containers()["grafana"].inputs)
    other["ports"][0]["ip"] = "::"
    assert reported(other) == ["grafana is published on :: of the host, around its firewall"]


def test_the_policy_pack_says_what_the_gate_says() -> None:
    inputs = deepcopy(record_case("staging").containers()["api-1"].inputs)
    assert reported(inputs) == []
    worse = {**inputs, "privileged": True, "user": "0:0"}
    assert reported(worse) == [
        "api-1 runs as root (0:0)",
        "api-1 is privileged: root in it is root on the host",
    ]
    assert reported(worse, "aws:s3/bucket:Bucket") == [], "it is about containers"


def test_the_policy_pack_judges_what_is_known_beside_what_a_preview_cannot_know() -> None:
    inputs = deepcopy(record_case("staging").containers()["api-1"].inputs)
    unknown = rpc.UNKNOWN
    inputs["volumes"][0]["volumeName"] = unknown
    inputs["envs"].append(unknown)
    assert reported(inputs) == [], "the name of a new volume is no finding"
    assert reported({**inputs, "privileged": True}) == ["api-1 is privileged: root in it is root on the host"]


def test_the_policy_pack_leaves_the_carriers_of_files_alone() -> None:
    assert reported(deepcopy(record_case("staging").carriers()["api-1"].inputs)) == [], "they are never started"
