"""IPv6: what changes with the setting and what does not, and what is said before and after it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
import yaml

from operations.errors import FailedError, ProjectError
from operations.lifecycle import prepare
from operations.lifecycle.in_the_way import published
from operations.network import host_script, ipv6, replacement
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.parts.blackbox_exporter import rules as probes
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.ingress import spec as ingress
from tests.described import specs
from tests.recording import NETWORK, environment_of, record_case

NAME = "samokoder.example.org"
PUBLIC: Mapping[str, Any] = {"domain": NAME, "email": "a@example.org"}
SIX: Mapping[str, Any] = {"network": {"ipv6": True}}
EDGE = "samokoder-staging-edge"
ADDRESS = "20010db8000000000000000000000007"


def test_only_edge_gets_ipv6_and_without_the_setting_no_network_has_an_argument_more() -> None:
    asked = {each.name: each.inputs.get("ipv6") for each in record_case("managed").of_type(NETWORK)}
    assert asked.pop("network-edge") is True
    assert set(asked.values()) == {None}, "what never leaves the host needs none"
    assert not [each for each in record_case("staging").of_type(NETWORK) if "ipv6" in each.inputs], (
        "a further argument replaces the networks of every environment"
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, [(8000, 8000, "127.0.0.1"), (8000, 8000, "::1")]),
        (PUBLIC, [(8000, 80, "0.0.0.0"), (8000, 80, "::"), (8443, 443, "0.0.0.0"), (8443, 443, "::")]),  # noqa: S104
    ],
)
def test_the_ingress_listens_on_the_same_of_both(
    entry: Mapping[str, Any], expected: list[tuple[int, int, str]]
) -> None:
    def ports(values: Mapping[str, Any]) -> list[tuple[int, int, str]]:
        found = published(ingress.spec(environment_of("staging", {**values, "ingress": entry})))
        return [(each.container_port, each.host_port, each.address) for each in found]

    assert ports(SIX) == expected, "by the container's port, as the engine writes them back: else each `up` replaces it"
    assert ports({}) == [each for each in expected if ":" not in each[2]]


@pytest.mark.parametrize("address", ["203.0.113.7", "::", "2001:db8::7"])
def test_an_ipv4_address_that_has_no_pair_is_refused(address: str) -> None:
    values = {**SIX, "ingress": {"bindAddress": address, "bindReason": "a test"}}
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of("staging", values)
    assert [each.key for each in caught.value.mistakes] == ["samokoder:ingress.bindAddress"]
    where = {"kind": "traefik", "domain": NAME, "traefik": {"network": "proxy", "address": "172.30.0.2"}}
    environment_of("staging", {**SIX, "ingress": where})


@pytest.mark.parametrize("largest", [{"mtu": 1200}, {"uplinkMtu": 1200}])
def test_a_network_that_the_kernel_gives_no_ipv6_is_refused(largest: Mapping[str, int]) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of("staging", {"network": {"ipv6": True, **largest}})
    assert [each.key for each in caught.value.mistakes] == ["samokoder:network.mtu"]
    environment_of("staging", {"network": largest})
    environment_of("staging", {"network": {"ipv6": True, **largest, "mtu": 1280}})


def test_the_application_believes_the_ingress_by_ipv6_too() -> None:
    for values, believed in ((SIX, True), ({}, False)):
        parts = {
            each.part: each for each in specs(environment_of("staging", {**values, "frontend": {"enabled": True}}))
        }
        for part in ("api-1", "frontend"):
            trusted = parts[part].environment["TRUSTED_PROXIES"]
            assert ("fd00::/8" in trusted) is believed, "all clients would count as one, the ingress"


# What the exporter asks


def asked(values: Mapping[str, Any]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Family, module and addresses of the public ones."""
    environment = environment_of("staging", dict(values))
    (job,) = blackbox_exporter.probe_jobs(environment, specs(environment))
    return [
        (each["labels"].get("family", ""), each["labels"]["__param_module"], tuple(each["targets"]))
        for each in job["static_configs"]
        if each["labels"]["service"] in {blackbox_exporter.PUBLIC, blackbox_exporter.EXTERNAL}
    ]


def test_the_public_name_is_asked_by_each_family_where_it_has_both() -> None:
    own, other = f"https://{NAME}/health", "https://www.example.org/"
    urls = {"blackboxExporter": {"urls": [own, other]}}
    assert asked({"ingress": PUBLIC, **urls}) == [("", "http_2xx", (own,)), ("", "http_2xx", (other,))], (
        "an older engine has no IPv6"
    )
    assert asked({"ingress": PUBLIC, **urls, **SIX}) == [
        ("IPv4", "http_2xx_ipv4", (own,)),
        ("IPv6", "http_2xx_ipv6", (own,)),
        ("", "http_2xx", (other,)),
    ], "what users meet by the one says nothing of the other"
    assert asked({"ingress": PUBLIC, **SIX}) == [
        ("IPv4", "http_2xx_ipv4", (own,)),
        ("IPv6", "http_2xx_ipv6", (own,)),
    ]
    assert asked(SIX) == [], "without a name there is nothing to ask"
    in_front = {"ingress": {**PUBLIC, "trustedProxies": ["203.0.113.0/24"]}, **SIX}
    traefik = {"kind": "traefik", "domain": NAME, "traefik": {"network": "proxy", "address": "172.30.0.2"}}
    for values in (in_front, {"ingress": traefik, **SIX}):
        assert [each[:2] for each in asked(values)] == [("", "http_2xx")], "whoever is in front may have IPv4 alone"
    environment = environment_of("staging", {"ingress": PUBLIC, **SIX})
    modules = yaml.safe_load(str(blackbox_exporter.files(environment)["blackbox.yml"]))["modules"]
    for family, protocol in (("ipv4", "ip4"), ("ipv6", "ip6")):
        http = modules[f"http_2xx_{family}"]["http"]
        assert (http["preferred_ip_protocol"], http["ip_protocol_fallback"]) == (protocol, False), (
            "a probe that falls back to the other family calls a dead one alive"
        )
    assert "http_2xx_ipv6" not in str(blackbox_exporter.files(environment_of("staging", {"ingress": PUBLIC})))


def expressions(values: Mapping[str, Any], name: str) -> list[str]:
    rules = probes.group(environment_of("staging", dict(values)), []).rules
    return [str(each.expression) for each in rules if each.name == name]


def test_a_name_without_an_aaaa_record_alerts_nobody_and_one_certificate_alerts_once() -> None:
    both = {"ingress": PUBLIC, **SIX}
    (failed,) = expressions(both, "ProbeFailed")
    no_record = 'probe_ip_protocol{service="public", family="IPv6"} == 0'
    (alone,) = expressions({"ingress": PUBLIC}, "ProbeFailed")
    assert failed == f"{alone} unless {no_record}", (
        "the setting comes before the record, and a missing A record stays a failure"
    )
    for name in ("ProbeSlow", "TlsCertificateExpiresSoon", "TlsCertificateExpiresVerySoon"):
        (expression,) = expressions(both, name)
        (alone,) = expressions({"ingress": PUBLIC}, name)
        assert "without (family)" in expression, "two alerts for one certificate"
        assert "family" not in alone


# What an `up` replaces


class Engine:
    """An engine whose networks are made so, with this container of somebody else on each."""

    def __init__(self, *, guest: str = "", **networks: Mapping[str, Any]) -> None:
        there = [{"Name": f"samokoder-staging-{name}", "Id": name, **each} for name, each in networks.items()]
        on_it = SimpleNamespace(attrs={"Containers": {"guest": {"Name": guest}} if guest else {}})
        self.api = SimpleNamespace(networks=lambda **_: there, containers=lambda **_: [])
        self.networks = SimpleNamespace(get=lambda _name: on_it)
        self.close = lambda: None

    @property
    def client(self) -> docker.DockerClient:
        return cast("docker.DockerClient", self)


@pytest.mark.parametrize(
    ("values", "edge", "told"),
    [
        ({}, {}, ""),
        ({}, {"EnableIPv6": False}, ""),
        (SIX, {"EnableIPv6": True}, ""),
        (SIX, {"EnableIPv6": False}, "samokoder:network.ipv6 is true"),
        ({}, {"EnableIPv6": True}, "samokoder:network.ipv6 is false"),
        ({"network": {"ipv6": True, "mtu": 1400}}, {}, "network.mtu is 1400 and samokoder:network.ipv6 is true"),
        ({"network": {"mtu": 1400}}, {"Options": {"com.docker.network.driver.mtu": "1400"}}, ""),
    ],
)
def test_a_network_that_is_made_anew_is_told_before_and_others_are_not(
    values: Mapping[str, Any], edge: Mapping[str, Any], told: str
) -> None:
    environment = environment_of("staging", dict(values))
    said = replacement.replacement_notice(environment, Engine(edge=edge).client)
    assert (told in said) if told else said == ""
    if told:
        assert "nobody is served" in said
        assert EDGE in said
        assert replacement.strangers(environment, Engine(edge=edge, guest="debug").client)[0][1:] == (EDGE, "debug")
    assert replacement.replacement_notice(environment, Engine().client) == "", (
        "before the first `up` there is nothing to replace"
    )


def test_the_network_that_only_publishes_keeps_ipv4_alone() -> None:
    said = replacement.replaced(environment_of("staging", dict(SIX)), Engine(edge={}, published={}).client)
    assert list(said) == [EDGE]


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "27.5.1"])
def test_an_engine_that_hides_the_client_is_refused_before_anything_is_replaced(version: str) -> None:
    asked_for = environment_of("staging", dict(SIX))
    assert "needs Docker Engine 28" in ipv6.refusal(asked_for, version)
    assert "make pulumi" in ipv6.refusal(asked_for, version), "nobody knows how to go on"
    assert ipv6.refusal(asked_for, "28.5.2+dfsg4") == ""
    assert ipv6.refusal(environment_of("staging", {}), version) == "", "who asks for none is served as before"
    engine = cast("Any", SimpleNamespace(version=version, docker_host="unix:///nowhere"))
    with pytest.raises(ProjectError, match="Nothing was replaced"):
        prepare._tell_made_anew(cast("Workspace", SimpleNamespace()), asked_for, engine)


# What doctor says


def judged(
    values: Mapping[str, Any], said: Mapping[str, str], *, version: str = "28.5.2", there: bool | None = None
) -> str:
    return ipv6.judge(environment_of("staging", dict(values)), version, there, said)


HAS = {"ipv6-address": ADDRESS, "ipv6-way": "eth0"}
OPEN: Mapping[str, Any] = {"ingress": PUBLIC}


def test_a_host_with_ipv6_is_told_with_what_to_type_and_one_without_changes_nothing() -> None:
    said = judged(OPEN, HAS)
    for words in ("2001:db8::7", "network.ipv6 true", "AAAA", "nobody is served"):
        assert words in said
    assert "Docker Engine 28" not in said
    assert "Docker Engine 28 or newer (this is 20.10.24)" in judged(OPEN, HAS, version="20.10.24")
    assert "make pulumi" not in judged(OPEN, {}), "there is nothing to do"
    assert "make pulumi" not in judged({}, HAS), "an outage for what only this machine reaches"


def test_the_advice_begins_with_what_keeps_the_hosts_own_ipv6() -> None:
    said = judged(OPEN, {**HAS, "ipv6-learnt": "eth0.100"})
    first = "net.ipv6.conf.eth0/100.accept_ra=2"
    assert first in said, "sysctl takes a dot of a device's name for a divider"
    assert said.index(first) < said.index("network.ipv6 true"), "the one order locks out who is logged in by IPv6"
    assert "accept_ra" not in judged(OPEN, HAS)


def asking(said: list[str], **variables: str) -> Workspace:
    """A workspace that collects what it is told to say."""
    reporter = SimpleNamespace(say=said.append)
    made = SimpleNamespace(reporter=reporter, variables=variables, typed="make {}".format)
    return cast("Workspace", made)


def test_a_host_that_does_not_answer_is_not_taken_for_one_that_keeps_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.lifecycle.prepare.connect", lambda _: Engine())
    environment = environment_of("staging", dict(SIX))
    info = cast("Any", SimpleNamespace(version="28.5.2", docker_host="tcp://192.0.2.7:2376"))
    with pytest.raises(ProjectError, match="Nothing was replaced") as refused:
        prepare._tell_made_anew(asking([]), environment, info)
    told = str(refused.value)
    assert "ip -6 route show default" in told, "nobody knows what to look at"
    assert "IPV6_WAY=stays make up" in told, "nobody knows how to go on"
    prepare._tell_made_anew(asking([], IPV6_WAY="stays"), environment, info)
    monkeypatch.setattr(host_script, "words", lambda *_: {"asked": "yes", "ipv6-learnt": "eth0"})
    with pytest.raises(ProjectError, match="sysctl"):
        prepare._tell_made_anew(asking([], IPV6_WAY="stays"), environment, info)
    monkeypatch.setattr(host_script, "words", lambda *_: {"asked": "yes"})
    prepare._tell_made_anew(asking([]), environment, info)
    without = environment_of("staging", {})
    monkeypatch.setattr(host_script, "words", lambda *_: {})
    prepare._tell_made_anew(asking([]), without, info)


@pytest.mark.parametrize(
    ("values", "networks", "refused"),
    [
        (SIX, {"edge": {"EnableIPv6": False}}, True),
        (SIX, {}, True),
        (SIX, {"edge": {"EnableIPv6": True}}, False),
        ({}, {"edge": {"EnableIPv6": False}}, False),
    ],
    ids=["made anew", "new", "there", "not asked for"],
)
def test_an_up_that_would_cut_off_the_hosts_own_ipv6_is_refused_before_anything_is_replaced(
    monkeypatch: pytest.MonkeyPatch, values: Mapping[str, Any], networks: Mapping[str, Any], refused: bool
) -> None:
    engine = Engine(**networks)
    said: list[str] = []
    workspace = asking(said)
    info = cast("Any", SimpleNamespace(version="28.5.2", docker_host="unix:///nowhere"))
    monkeypatch.setattr("operations.lifecycle.prepare.connect", lambda _: engine)
    environment = environment_of("staging", dict(values))

    def tell(learnt: Mapping[str, str]) -> None:
        monkeypatch.setattr(host_script, "words", lambda *_: {"asked": "yes", **learnt})
        prepare._tell_made_anew(workspace, environment, info)

    if refused:
        with pytest.raises(ProjectError, match=r"Nothing was replaced.*sysctl"):
            tell({"ipv6-learnt": "eth0"})
        assert said == []
    else:
        tell({"ipv6-learnt": "eth0"})
    tell({})


def test_what_does_not_work_with_the_setting_fails() -> None:
    both = {**OPEN, **SIX}
    with pytest.raises(FailedError, match="needs Docker Engine 28"):
        judged(both, HAS, version="20.10.24")
    with pytest.raises(FailedError, match="no public IPv6 address"):
        judged(both, {}, there=True)
    with pytest.raises(FailedError, match="makes it anew"):
        judged(both, HAS, there=False)
    with pytest.raises(FailedError, match=r"net\.ipv6\.conf\.eth0\.accept_ra=2"):
        judged(both, {**HAS, "ipv6-learnt": "eth0"}, there=True)
    with pytest.raises(FailedError, match="no default route by IPv6"):
        judged(both, {"ipv6-address": ADDRESS}, there=True)
    with pytest.raises(FailedError, match=r"limits count all as one.*ip6tables"):
        ipv6.judge(environment_of("staging", both), "28.5.2", True, HAS, hides="have a kernel with ip6tables")
    assert "serves IPv4 and IPv6" in judged(both, HAS, there=True)
    assert "`make up" in judged(both, HAS)
    assert "on loopback" in judged(SIX, {}, there=True), "what is on loopback needs no address"


def test_a_port_on_ipv6_without_a_network_that_has_it_fails() -> None:
    values = {"ingress": {"bindAddress": "::", "bindReason": "a test"}}
    with pytest.raises(FailedError, match="count all as one"):
        judged(values, {})


NONE = "0" * 32


def route(to: str, prefix: str, by: str, flags: str, device: str) -> str:
    """A line of the kernel's table of routes."""
    return f"{to} {prefix} {NONE} 00 {by} 00000400 00000001 00000000 {flags} {device:>8}\n"


ADDRESSES = """\
00000000000000000000000000000001 01 80 10 80       lo
fd0000000000000000000000000000ff 03 40 00 80 br-0123
fe80000000000000000000000000abcd 02 40 20 80     eth0
{more}"""


@pytest.mark.parametrize(
    ("flags", "accepts", "more", "expected"),
    [
        ("00450003", "1", f"{ADDRESS} 02 40 00 00 eth0\n", {**HAS, "ipv6-learnt": "eth0"}),
        ("00450003", "2", f"{ADDRESS} 02 40 00 00 eth0\n", HAS),
        ("00450003", "0", f"{ADDRESS} 02 40 00 00 eth0\n", HAS),
        ("00000003", "1", f"{ADDRESS} 02 40 00 80 eth0\n", HAS),
        ("00000003", "1", "", {}),
    ],
    ids=["learnt", "told to go on", "another program learns it", "written by hand", "private addresses alone"],
)
def test_the_host_is_asked_for_its_address_and_how_it_knows_its_way_out(
    tmp_path: Path, flags: str, accepts: str, more: str, expected: Mapping[str, str]
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/if_inet6").write_text(ADDRESSES.format(more=more))
    routes = [
        route(NONE, "00", "fe800000000000000000000000000001", flags, "eth0"),
        route("fe80" + "0" * 28, "40", NONE, "00040001", "eth1"),
        route(NONE, "00", NONE, "00200200", "lo"),
    ]
    (tmp_path / "net/ipv6_route").write_text("".join(routes))
    for device in ("eth0", "eth1", "lo"):
        folder = tmp_path / "sys/net/ipv6/conf" / device
        folder.mkdir(parents=True)
        (folder / "accept_ra").write_text(f"{accepts}\n")
    script = ipv6.SCRIPT.replace("/proc/", f"{tmp_path}/")
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    assert {words[0]: words[1] for words in map(str.split, done.stdout.splitlines())} == {
        "ipv6-way": "eth0",
        "asked": "yes",
        **expected,
    }
    nothing = ipv6.SCRIPT.replace("/proc/", f"{tmp_path}/nothing/")
    done = subprocess.run(["sh"], input=nothing, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == "asked yes\n", "a kernel without IPv6 is one that answers"
    without_awk = subprocess.run(
        ["/bin/sh"], input=script, capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert without_awk.stdout == "", "whoever cannot look has seen nothing"
