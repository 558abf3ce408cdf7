"""Which registry each image comes from, and which of them do not answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import docker
import httpx
import requests.exceptions

from host.engine import EngineInfo, connect
from host.errors import EngineError

TIMEOUT_SECONDS = 5.0
REMOTE_TIMEOUT_SECONDS = 15.0
DOCKER_HUB = "docker.io"

_SAYS = frozenset({200, 401, 429})
"""What `/v2/` answers: come in, log in first, not so often."""


def unreachable(references: Mapping[str, str], info: EngineInfo) -> dict[str, list[str]]:
    """Return each registry that does not answer, with the names of the images that come from it.

    references: name -> `[registry/]path:tag@digest`. With OFFLINE=1 that is every registry. A mirror of the engine
    counts for Docker Hub. Any other answer than a registry's counts as none: a filtered one refuses by place of origin
    (403, 451). Of another host that host is asked: what is reached from here says nothing of it.
    """
    images: dict[str, list[str]] = {}
    for name, reference in references.items():
        images.setdefault(registry_of(reference), []).append(name)
    if os.environ.get("OFFLINE") == "1":
        return images
    with ThreadPoolExecutor(max_workers=len(images) or 1) as pool:
        answers = pool.map(lambda registry: _reached(registry, references[images[registry][0]], info), images)
        return {registry: names for (registry, names), there in zip(images.items(), answers, strict=True) if not there}


def registry_of(reference: str) -> str:
    """Return the registry that an image comes from: the first part of its name, told from a folder by Docker's rule."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER_HUB


def question_to(address: str) -> str:
    """Return the address at which a registry says that it is one, from that of an index or a mirror.

    Docker's own index is a web page by now; what is pulled comes from another host.
    """
    parts = urlsplit(address)
    host = "registry-1.docker.io" if parts.hostname == "index.docker.io" else parts.netloc
    return f"{parts.scheme}://{host}/v2/"


def _reached(registry: str, reference: str, info: EngineInfo) -> bool:
    if not info.docker_host.startswith("unix://"):
        return _answers_over_there(info.docker_host, reference)
    if registry == DOCKER_HUB:
        return any(_answers(address) for address in (*info.registry_mirrors, info.index_address) if address)
    return _answers(f"https://{registry}/")


def _answers(address: str) -> bool:
    try:
        response = httpx.get(question_to(address), timeout=TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    return response.status_code in _SAYS


def _answers_over_there(docker_host: str, reference: str) -> bool:
    try:
        with contextlib.closing(connect(docker_host, timeout=REMOTE_TIMEOUT_SECONDS)) as client:
            client.images.get_registry_data(reference)
    except (EngineError, docker.errors.DockerException, requests.exceptions.RequestException):
        return False
    return True
