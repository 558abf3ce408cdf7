"""What the official images need that those built here do not show."""

from __future__ import annotations

import contextlib

import pytest

from host.engine import connect
from operations.engine.volumes import volume_sizes
from stack.common.names import PROJECT
from stack.parts.cadvisor import spec as cadvisor
from stack.parts.grafana import spec as grafana
from stack.settings.environment import Environment
from stack.settings.reading import read_environment
from tests.fake_engine import FakeEngine, engine_at
from tests.recording import wire_config


def staging(**values: object) -> Environment:
    return read_environment("staging", wire_config({f"{PROJECT}:{name}": value for name, value in values.items()}))


def test_grafana_has_memory_for_itself_and_its_one_datasource() -> None:
    described = grafana.spec(staging())
    assert described.settings.memory_mib >= 512, "the kernel kills Grafana 13.2, and `make up` ends after minutes"
    off = described.environment["GF_PLUGINS_DISABLE_PLUGINS"].split(",")
    assert {"loki", "tempo", "mysql", "grafana-postgresql-datasource"} <= set(off), (
        "each bundled datasource is a process of its own, used or not"
    )
    assert grafana.DATASOURCE not in off, "every panel would be empty"
    assert described.environment["GF_SERVER_ENABLE_GZIP"] == "false", "compressing costs memory, over loopback"
    assert described.environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true", (
        "it would replace the bundled Prometheus plugin on a read-only root: healthy, and every panel empty"
    )
    assert described.environment["GF_PLUGINS_PREINSTALL_AUTO_UPDATE"] == "false", "the same, at a later start"


@pytest.mark.parametrize("folder", ["/var/lib/docker", "/srv/docker", "/var/snap/docker/common/var-lib-docker"])
def test_cadvisor_reads_the_engines_folder_where_it_is(folder: str) -> None:
    mounts = {mount.container: mount.host for mount in cadvisor.spec(staging(cadvisor={"dataRoot": folder})).host_paths}
    assert mounts[f"/rootfs{folder}"] == folder, "it would see no container, and ContainerMissing fire for every part"
    assert [path for path in mounts if path.startswith("/rootfs/")] == ["/rootfs/proc", f"/rootfs{folder}"]


@pytest.mark.parametrize("api", ["1.41", "1.53"])
def test_the_sizes_of_volumes_are_told_by_engines_old_and_new(api: str) -> None:
    fake = FakeEngine(api_version=api, volumes={"samokoder-staging-postgres-data": 4096, "other": 0})
    with engine_at(fake) as host, contextlib.closing(connect(host)) as client:
        assert client.api.api_version == api, "the client speaks as the engine does"
        sizes = volume_sizes(client)
    assert sizes == fake.volumes, "`destroy-data` would not say how much is about to be lost"
