"""Grafana's admin password, which only Grafana's API can change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from operations.engine import reach
from operations.errors import ProjectError
from operations.rotation.servers import Answer
from operations.workspace.generations import RotationStep
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from stack.spec.rotation import label, slots_of

if TYPE_CHECKING:
    import httpx


GRAFANA_USER = "admin"
_OK, _UNAUTHORIZED = 200, 401


def rotate_grafana(workspace: Workspace, secret: str, step: RotationStep, url: str) -> None:
    """Change Grafana's admin password through its API: Grafana reads the password's file only with an empty volume."""
    values = workspace.open().secrets(every=True)
    slots = slots_of(secret, step.generation, step.phase)
    with open_grafana(workspace.settings(), url) as client:
        old, new = values[label(slots.in_use)], values[label(slots.other)]
        shown = workspace.typed("password NAME=grafana-admin")
        change_grafana_password(client, old=old, new=new, shown=shown)


def change_grafana_password(client: httpx.Client, *, old: str, new: str, shown: str) -> None:
    """Change the admin's password at the Grafana that `client` speaks to, unless it is changed already.

    Raises ProjectError where Grafana accepts neither password, or does not answer. Only two logins are tried, because
    Grafana locks a user out for five minutes after five failed logins. shown: the command that shows the old password.
    """
    if grafana_login(client, new) == "in":
        return
    if grafana_login(client, old) != "in":
        raise ProjectError(
            "Grafana takes neither the old admin password nor the new one: somebody changed it by hand. Set it to the "
            f"old one, then run this again: {shown}, and in Grafana's container "
            "`grafana cli admin reset-admin-password --password-from-stdin`."
        )
    answer = _ask(
        client,
        "PUT",
        "/api/user/password",
        auth=(GRAFANA_USER, old),
        json={"oldPassword": old, "newPassword": new, "confirmNew": new},
    )
    if answer.status_code != _OK:
        raise ProjectError(f"Grafana does not change its admin password: it answers {answer.status_code}.")


def grafana_login(client: httpx.Client, password: str) -> Answer:
    """Log in as the admin. Raises ProjectError where Grafana's answer is neither a success nor a refusal."""
    answer = _ask(client, "GET", "/api/user", auth=(GRAFANA_USER, password))
    if answer.status_code == _OK:
        return "in"
    if answer.status_code == _UNAUTHORIZED:
        return "refused"
    raise ProjectError(f"Grafana does not say who is logged in: it answers {answer.status_code}.")


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    import httpx  # noqa: PLC0415 - as below

    try:
        return client.request(method, path, **options)
    except httpx.TransportError as error:
        raise ProjectError(
            f"Grafana does not answer at {client.base_url} ({type(error).__name__}). If its port is not reached from "
            "here, name an address that is: --grafana-url"
        ) from None


@contextmanager
def open_grafana(environment: Environment, url: str) -> Iterator[httpx.Client]:
    """Yield a client of the environment's Grafana. url: its address, if its published port is not reached from here."""
    import httpx  # noqa: PLC0415 - only for Grafana

    with (
        reach.part(environment, environment.settings.grafana, url) as address,
        # A proxy from this machine's environment is not used, because it would connect to its own loopback.
        httpx.Client(base_url=address, timeout=10, trust_env=False) as client,
    ):
        yield client
