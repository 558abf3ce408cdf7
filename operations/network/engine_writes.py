"""What the engine of this machine does to its networks by its settings: packet filter rules, their largest packet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host.process_ids import live_process
from operations.network.filter_rules import FOUR
from stack.common.names import MTU_OPTION

if TYPE_CHECKING:
    import docker

SAFE_ENGINE = 28
"""From this version on the engine itself drops packets that come by a route, and writes rules for IPv6 by default."""
SETTINGS = Path("/etc/docker/daemon.json")
_PID = Path("/var/run/docker.pid")


def writes_rules(info: dict[str, Any], settings: str, command: Sequence[str], program: str = FOUR) -> bool:
    """Tell whether an engine writes rules with iptables, or with ip6tables.

    info: the engine's answer; settings: the text of daemon.json; command: the command line of dockerd.
    """
    # Docker 29 and newer say the driver.
    if (driver := str((info.get("FirewallBackend") or {}).get("Driver") or "")) and not driver.startswith("iptables"):
        return False
    if program == FOUR and driver:
        return True
    with contextlib.suppress(ValueError):
        said = json.loads(settings or "{}")
        # The engine's settings have the names of the programs.
        if isinstance(said, dict) and said.get(program) is False:
            return False
    if f"--{program}=false" in command:
        return False
    major = str(info.get("ServerVersion") or "").partition(".")[0]
    return program == FOUR or (major.isdigit() and int(major) >= SAFE_ENGINE)


def writes_here(client: docker.DockerClient, program: str = FOUR) -> bool:
    """Do what `writes_rules` does, for the engine of this machine."""
    return writes_rules(client.info(), _read(SETTINGS), _command(), program)


def gives_mtu(settings: str, command: Sequence[str]) -> bool:
    """Tell whether an engine gives new networks a packet of its owner's choice (Docker 24 and newer).

    settings, command: as of `writes_rules`.
    """
    if any(f"bridge={MTU_OPTION}=" in word for word in command):
        return True
    with contextlib.suppress(ValueError):
        match json.loads(settings or "{}"):
            case {"default-network-opts": {"bridge": {**options}}}:
                return MTU_OPTION in options
    return False


def gives_mtu_here() -> bool:
    """Do what `gives_mtu` does, for the engine of this machine."""
    return gives_mtu(_read(SETTINGS), _command())


def _read(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8")
    return ""


def _command() -> list[str]:
    process = live_process(_PID, "dockerd")
    return _read(Path(f"/proc/{process}/cmdline")).split("\0") if process else []
