"""What the host does at boot: whether it starts the engine, and whether it has the addresses of the ports by then."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from operations.checks.doctor.asked import EnvironmentAsked
from operations.errors import FailedError, NotConfiguredError, UnavailableError
from stack.settings.keys import key_of
from stack.settings.part import Published

_SERVICES_SOCKETS = {"/var/run/docker.sock", "/run/docker.sock"}
"""Where the engine listens that `docker.service` starts."""


def judge_start(asked: EnvironmentAsked) -> str:
    """Judge whether systemd starts the engine at boot."""
    path = urlsplit(asked.host).path
    if path.strip("/") and path not in _SERVICES_SOCKETS:
        raise UnavailableError(f"docker.service is not known to be the engine at {asked.host}")
    facts = asked.facts().values
    if "systemd" not in facts:
        raise UnavailableError("no systemd there: what starts the engine at boot is not known")
    state = facts.get("docker-at-boot", "")
    # `enabled-runtime` is forgotten at a reboot.
    if state in ("disabled", "enabled-runtime"):
        raise FailedError(
            f"docker.service is {state}: after a reboot no container runs until somebody types a docker command, if "
            "docker.socket is enabled, and else not at all. As root on the engine's host: `systemctl enable "
            "docker.service`"
        )
    if state != "enabled":
        raise UnavailableError(f"systemd says {state or 'nothing'} of docker.service: what starts it is not known")
    return "systemd starts docker.service at boot"


def judge_addresses(asked: EnvironmentAsked) -> str:
    """Judge whether the host has the addresses that ports are bound to, now and when the engine starts at boot."""
    wanted = _bound(asked)
    if not wanted:
        raise NotConfiguredError("every port is on loopback or on all addresses, which are there at boot")
    facts = asked.facts()
    if not facts.addresses:
        raise UnavailableError("the host does not say which addresses it has")
    told = ", ".join(f"{key} {address}" for key, address in wanted.items())
    late = {key: each for key, each in wanted.items() if facts.values.get(f"{_family(each)}/ip_nonlocal_bind") != "1"}
    if not late:
        return f"{told}: the host binds ports to addresses that it does not have yet (ip_nonlocal_bind)"
    lines = " ".join(sorted({f"{_family(address).replace('/', '.')}.ip_nonlocal_bind=1" for address in late.values()}))
    file = "/etc/sysctl.d/90-samokoder-bind.conf"
    cure = f"as root on the engine's host: `printf '%s\\n' {lines} > {file} && sysctl -p {file}`"
    if missing := [f"{key} is {address}" for key, address in late.items() if address not in facts.addresses]:
        raise FailedError(
            f"{', '.join(missing)}, and no interface of the host has it: the engine does not start the container "
            '("cannot assign requested address"). Write an address that `ip address` shows there, or 0.0.0.0. For one '
            f"that comes later or moves (a VPN's, a floating one), {cure}"
        )
    if facts.values.get("docker-waits") == "no":
        raise FailedError(
            f"{told}: the host has it now, but docker.service does not wait for the network at boot, and a container "
            "whose address is missing then is not started. `systemctl edit docker.service`, with `[Unit]`, "
            f"`Wants=network-online.target` and `After=network-online.target`; or {cure}"
        )
    return f"{told}: on an interface of the host. For one that comes after the network is up (a VPN's), {cure}"


def _bound(asked: EnvironmentAsked) -> dict[str, str]:
    """Return the addresses that may be missing, by the key that names each."""
    parts = asked.environment.running().items()
    found = {key_of(name, "bind_address"): part.bind_address for name, part in parts if isinstance(part, Published)}
    addresses = {key: ipaddress.ip_address(address) for key, address in found.items()}
    return {key: str(each) for key, each in addresses.items() if not (each.is_loopback or each.is_unspecified)}


def _family(address: str) -> str:
    """Return where the kernel's settings for a family of addresses are."""
    return f"net/ipv{ipaddress.ip_address(address).version}"
