"""Ports for an environment beside others."""

from __future__ import annotations

from host.ports import free_ports


def test_nobody_in_one_process_gets_the_port_of_another() -> None:
    given = [port for _ in range(100) for port in free_ports(10)]
    assert len(set(given)) == len(given), "two parts of one environment would be refused, by chance"
