"""`samokoder open`, as it is typed; and the list of pages that a person opens first."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from operations.cli import common
from operations.cli.options import EnvironmentName
from operations.clone import typed
from operations.errors import ProjectError

if TYPE_CHECKING:
    from operations.workspace.known import Known

_FIRST = (
    ("dashboards", "grafana", ""),
    ("Samokoder", "ingress", ""),
    ("alerts", "prometheus", "/alerts"),
    ("silences", "alertmanager", ""),
    ("logs", "logs", "/select/vmui/"),
)
"""Name, part and path of each page, in the order in which a person opens them to see whether the stack is healthy."""
_WITHOUT_A_REGISTRY = (
    ("Samokoder", "ingress", ""),
    ("alerts, silences", "alertmanager", ""),
    ("logs", "logs", "/select/vmui/"),
)
"""The same on a host without Grafana's image: Prometheus may have no pages there, and AlertManager has one of ours."""


@dataclass(frozen=True)
class Page:
    """A page that a person opens."""

    name: str
    part: str
    address: str


def pages(parts: Mapping[str, str]) -> list[Page]:
    """Return the pages to open, in that order. parts: part -> its address; empty: the part has no address here."""
    first = _FIRST if parts.get("grafana") else _WITHOUT_A_REGISTRY
    return [Page(name, part, f"{parts[part]}{path}") for name, part, path in first if parts.get(part)]


def list_of_pages(env: str, parts: Mapping[str, str]) -> str:
    """Return the text that lists the pages, a line for each; empty where there is no page."""
    found = pages(parts)
    if not found:
        return ""
    width = max(len(page.name) for page in found)
    notes = {"grafana": f"  (admin; {typed(env, 'password NAME=grafana-admin')})"}
    return "\n".join(
        ["Open first:", *(f"  {page.name:{width}}  {page.address}{notes.get(page.part, '')}" for page in found)]
    )


def known_pages(known: Known) -> dict[str, str]:
    """Return part -> address, for each part whose image the engine's host can get."""
    return {part: url for part, url in known.parts.items() if part not in known.unavailable}


def open_page(env: EnvironmentName = "staging") -> None:
    """Print the address of the start page, and open it where there is a desktop and the engine is this machine's.

    That is Grafana's first page, which is the overview; where no Grafana can be had, the application's.
    """
    from operations.engine import reach  # noqa: PLC0415 - each command imports what it needs
    from operations.workspace import known  # noqa: PLC0415 - each command imports what it needs

    there = known.of(common.workspace_of(env))
    found = pages(known_pages(there))
    if not found:
        raise ProjectError(f"{env} has no page that is known here: {there.workspace.typed('status')}")
    first = found[0]
    (row,) = [each for each in known.status(there) if each.part == first.part]
    if not row.ok:
        raise ProjectError(f"{first.part} does not run well, and so has no page: {there.workspace.typed('status')}")
    typer.echo(first.address)
    if said := reach.elsewhere(there.docker_host, there.workspace.typed("tunnel")):
        # On this machine another environment may listen at the same address, and its page would open.
        typer.echo(said, err=True)
        return
    _show(first.address)


def _show(address: str) -> None:
    """Open an address in the desktop's browser, where there is one, and something listens at it on this machine."""
    from operations.engine import reach  # noqa: PLC0415

    opener = shutil.which("xdg-open")
    if not opener or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    to = urlsplit(address)
    if to.scheme == "http" and not reach.listens(to.hostname or "", to.port or 80):
        return
    quiet = subprocess.DEVNULL
    subprocess.Popen([opener, address], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
