"""What is made of the words of a host about its uplink."""

from __future__ import annotations

import pytest

from operations import network_mtu
from operations.checks import FailedError, UnavailableError
from operations.network_mtu import Uplink
from tests.recording import environment_of

EDGE = "samokoder-staging-edge"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"uplink-mtu": "1400", "uplink-gateway": "010200C0"}, Uplink(mtu=1400, gateway="192.0.2.1")),
        ({"uplink-mtu": "1492", "uplink-gateway": "00000000"}, Uplink(mtu=1492, gateway="")),
        ({"uplink-mtu": "1400"}, Uplink(mtu=1400, gateway="")),
        ({"uplink-mtu": "0"}, None),
        ({"uplink-gateway": "010200C0"}, None),
        ({}, None),
    ],
)
def test_the_hosts_words_about_its_uplink_are_understood(said: dict[str, str], expected: Uplink | None) -> None:
    assert network_mtu.Uplink.parse(said) == expected


def test_of_an_engine_behind_tcp_nothing_is_said_about_this_machine() -> None:
    assert network_mtu.uplink("tcp://192.0.2.1:2376") is None, "the uplink of this machine is not the engine's"


def test_networks_that_send_more_than_the_uplink_takes_fail_with_what_to_type() -> None:
    way = Uplink(mtu=1400, gateway="")
    with pytest.raises(FailedError, match="1500") as error:
        network_mtu.judge(environment_of("staging", {}), {EDGE: 1500}, way)
    assert "network.mtu 1400" in str(error.value), "the line that puts it right"
    assert "nobody is served" in str(error.value), "what it takes"
    assert "1400" in network_mtu.judge(environment_of("staging", {}), {EDGE: 1400}, way)
    assert "1400" in network_mtu.judge(environment_of("staging", {}), {}, way), "before the first `up`"
    asked_for = environment_of("staging", {"network": {"mtu": 1500}})
    assert "1500" in network_mtu.judge(asked_for, {EDGE: 1500}, way), "somebody knows another way than the usual one"
    with pytest.raises(FailedError):
        network_mtu.judge(asked_for, {EDGE: 1450}, way)
    with pytest.raises(UnavailableError):
        network_mtu.judge(asked_for, {EDGE: 1500}, None)
