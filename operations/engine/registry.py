"""Pull images from registries that need a login, with the logins that `docker login` has saved on this machine.

Pulumi's provider does not know these logins, and a login in its configuration would be stored in the state. So such an
image is pulled before Pulumi needs it, and Pulumi finds it on the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
from docker.auth import AuthConfig, load_config, resolve_repository_name
from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from operations.errors import ProjectError
from stack.common.references import ImageReferenceError, parse_reference

_AT_ONCE = 4
"""Pulls in parallel; an engine downloads three layers at a time by default."""


def pull(client: docker.DockerClient, references: Iterable[str], *, say: Callable[[str], None]) -> None:
    """Pull the images that the engine lacks and this machine has a login for. Raises ProjectError if a pull fails."""

    def one(reference: str, login: dict[str, Any]) -> None:
        if _is_there(client, reference):
            return
        say(f"Pulling {_short(reference)}, as {login.get('Username') or login.get('username') or 'this machine'}")
        try:
            client.images.pull(reference, auth_config=login)
        except (DockerException, RequestException) as error:
            raise ProjectError(f"{_short(reference)} cannot be pulled: {_why(error)}") from None

    logins = _logged_in(load_config(), references, say)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(one, logins.keys(), logins.values()))


def refused(client: docker.DockerClient, references: Iterable[str]) -> list[str]:
    """Return the images that the engine lacks and whose registry refuses this machine's login, each with the reason.

    An image whose registry does not answer is not returned, because the later pull reports that.
    """
    logins, found = load_config(), []
    for reference in references:
        if not parse_reference(reference).repository or _is_there(client, reference):
            continue
        try:
            client.images.get_registry_data(reference, auth_config=_login(logins, reference) or {})
        except APIError as error:
            if _is_refusal(error):
                found.append(f"{_short(reference)}: {_why(error)}")
        except (DockerException, RequestException):
            continue
    return found


def pinned(client: docker.DockerClient, reference: str) -> str:
    """Return a reference with the digest that its tag has in the registry now; one with a digest is returned as it is.

    An image that came from no registry is returned as its id. Raises ProjectError where it has neither.

    containerd's image store, the default of Docker 29, notes a registry's digest for what was built here too. There an
    image of the engine may be a build of today or last week's pull, so nothing but the registry's answer is taken; and
    of Docker Hub only one that is the same image, because a stranger may have that name there.
    """
    try:
        parsed = parse_reference(reference)
    except ImageReferenceError as error:
        raise ProjectError(f"This cannot be deployed: {error}.") from None
    if parsed.is_pinned:
        return reference
    here, digests = "", list[str]()
    with contextlib.suppress(ImageNotFound):
        image = client.images.get(reference)
        here, digests = str(image.id), [str(each).partition("@")[2] for each in image.attrs.get("RepoDigests") or ()]
        if not digests:
            return here
    by_id = f"by the id of the one that the engine has, {here}" if here else "by its id where it is on the engine alone"
    try:
        data = client.images.get_registry_data(reference, auth_config=_login(load_config(), reference) or {})
    except (DockerException, RequestException) as error:
        raise ProjectError(
            f"The registry does not say which digest {reference} has: {_why(error)}. Is it there, and are you logged "
            f"in (`docker login {_registry(reference)}`)? Else name it with its digest, {reference}@sha256:…, or "
            f"{by_id}."
        ) from None
    found = f"{reference}@{data.id}"
    if here and not parsed.registry and data.id not in digests and _has_containerds_store(client):
        raise ProjectError(
            f"Docker Hub has another {reference} than the engine: a newer one, or a stranger's with the name of what "
            f"was built here. Name the one of Docker Hub, {found}, or the one that the engine has, {here}."
        )
    return found


def _logged_in(logins: AuthConfig, references: Iterable[str], say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    found = {}
    for reference in references:
        if not parse_reference(reference).repository:
            continue  # a local image's id
        try:
            if login := _login(logins, reference):
                found[reference] = login
        except DockerException as error:
            say(f"The login of {_registry(reference)} cannot be read: {_why(error)}")
    return found


def _login(logins: AuthConfig, reference: str) -> dict[str, Any] | None:
    login: dict[str, Any] | None = logins.resolve_authconfig(_registry(reference))
    return login


def _registry(reference: str) -> str:
    name: str = resolve_repository_name(parse_reference(reference).repository)[0]
    return name


def _is_there(client: docker.DockerClient, reference: str) -> bool:
    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def _is_refusal(error: APIError) -> bool:
    # The engine passes the registry's answer on with a status of its own, most often 500.
    words = ("unauthorized", "denied", "no basic auth", "authentication required", "forbidden")
    return error.status_code in {401, 403} or any(word in str(error.explanation).lower() for word in words)


def _has_containerds_store(client: docker.DockerClient) -> bool:
    return any("io.containerd.snapshotter" in str(value) for _, value in client.info().get("DriverStatus") or ())


def _short(reference: str) -> str:
    return reference.partition("@")[0]


def _why(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)[-500:]
