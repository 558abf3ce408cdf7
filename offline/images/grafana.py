"""Grafana, of which no package registry has an image or a program: somebody loads the official one."""

from __future__ import annotations

import re

import docker
import docker.types

NO_GRAFANA = "no package registry has Grafana; load the official image by `docker load --input FILE`"
_GRAFANA_REPOSITORIES = ("grafana/grafana", "grafana/grafana-oss", "grafana/grafana-enterprise")


def official_grafana(client: docker.DockerClient) -> str | None:
    """Return the newest Grafana image that the engine has under one of its official names."""
    found: list[tuple[int, str]] = []
    for image in client.api.images():
        references = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
        for reference in references:
            repository = re.sub(r"(@.*|:[^/]*)$", "", reference)
            if repository.removeprefix("docker.io/") in _GRAFANA_REPOSITORIES:
                found.append((int(image["Created"]), str(image["Id"])))
    return max(found)[1] if found else None
