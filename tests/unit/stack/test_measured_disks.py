"""The disks that hold our data are measured, also where the engine's folder is one of its own."""

from __future__ import annotations

import re

import pytest

from stack.parts.node_exporter import spec as node_exporter
from tests.recording import environment_of


@pytest.mark.parametrize(
    ("mounted", "data_root", "left_out"),
    [
        ("/", "/var/lib/docker", False),
        ("/var/lib/docker", "/var/lib/docker", False),
        ("/var/lib/containerd", "/var/lib/docker", False),
        ("/var/lib/docker-data", "/var/lib/docker", False),
        ("/var/lib/docker/overlay2/1f/merged", "/var/lib/docker", True),
        ("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs", "/var/lib/docker", True),
        ("/srv/docker.d", "/srv/docker.d", False),
        ("/srv/docker.d/volumes/x", "/srv/docker.d", True),
        ("/srv/dockerXd/x", "/srv/docker.d", False),
        ("/proc/sys", "/var/lib/docker", True),
        ("/run", "/var/lib/docker", True),
        ("/runner", "/var/lib/docker", False),
    ],
)
def test_the_disk_of_the_engine_is_measured_and_what_is_mounted_below_it_is_not(
    mounted: str, data_root: str, *, left_out: bool
) -> None:
    environment = environment_of("staging", {"cadvisor": {"dataRoot": data_root}})
    (option,) = [word for word in node_exporter.spec(environment).command if "mount-points-exclude" in word]
    assert bool(re.search(option.partition("=")[2], mounted)) is left_out, (
        "a disk for /var/lib/docker would fill up without any alert"
    )
