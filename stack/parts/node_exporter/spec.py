"""node_exporter: memory, CPU and disks of the host."""

from __future__ import annotations

import re

from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.service import HostPath, Publish, Scrape, ServiceSpec

PART = "node-exporter"
PORT = 9100
TEXTFILES = "/textfiles"
"""A tmpfs for metrics that other programs write, such as `samokoder drift`; it is lost with the container."""
DRIFT_FINDINGS = "stack_drift_findings"
DRIFT_CHECKED = "stack_drift_checked_timestamp_seconds"


def unmeasured(data_root: str) -> str:
    """Return the regular expression of mount points that are not measured. data_root: the engine's folder.

    Below that folder and containerd's there are layers and volumes, which repeat the same disk for each container. The
    folder itself may be a separate disk with all data, so it is measured.
    """
    folders = sorted({"/var/lib/docker", "/var/lib/containerd", data_root.rstrip("/")})
    return f"^/(dev|proc|run|sys)($|/)|^({'|'.join(map(re.escape, folders))})/"


def spec(environment: Environment) -> ServiceSpec:
    """Describe the exporter."""
    settings = environment.settings.node_exporter
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:NodeExporter",
        image=environment.image("node_exporter"),
        user="65534:65534",
        settings=settings,
        entrypoint=("/bin/node_exporter",),
        command=(
            f"--web.listen-address=:{PORT}",
            "--path.rootfs=/host",
            "--path.procfs=/host/proc",
            "--path.sysfs=/host/sys",
            f"--collector.textfile.directory={TEXTFILES}",
            f"--collector.filesystem.mount-points-exclude={unmeasured(environment.settings.cadvisor.data_root)}",
            # Outside the host's network namespace these would measure the exporter's own.
            "--no-collector.netdev",
            "--no-collector.netclass",
            "--no-collector.netstat",
            "--no-collector.sockstat",
            "--no-collector.arp",
        ),
        host_paths=(
            # Without a propagation option the engine mounts a path that contains its data root as `rslave`, so disks
            # that are mounted later are measured too. If the host's root is not a shared mount, they are not.
            HostPath(host="/", container="/host"),
        ),
        tmpfs={TEXTFILES: "rw,noexec,nosuid,nodev,size=1m"},
        publish=Publish.of(settings, PORT),
        health_command=health.wget(PORT, "/"),
        networks=(NetworkName.PUBLISHED, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        may_lack={
            r"stack_drift_.*": "nobody has compared yet what runs with what is declared",
            "node_disk_io_time_seconds_total": "not every host counts its disks",
        },
    )
