"""cAdvisor: what each container uses, without `--privileged`."""

from __future__ import annotations

from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.service import HostPath, Publish, Scrape, ServiceSpec

PART = "cadvisor"
PORT = 8080
_HOST_RUN, _RUN = "/run", "/var/run"
"""Folder of the sockets on the host and in the container; cAdvisor expects the engine's socket in /var/run."""


def spec(environment: Environment) -> ServiceSpec:
    """Describe cAdvisor."""
    settings = environment.settings.cadvisor
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Cadvisor",
        image=environment.image("cadvisor"),
        user="0:0",
        settings=settings,
        entrypoint=("/usr/bin/cadvisor",),
        command=(
            "--logtostderr",
            f"--port={PORT}",
            "--docker_only=true",
            # If dockerd runs its own containerd, the default path is wrong and all series are silently missing. The
            # path starts with /var/run, where the host's /run is mounted, because the image's /run may not lead there.
            f"--containerd={_RUN}{settings.containerd_socket.removeprefix(_HOST_RUN)}",
            "--store_container_labels=false",
            "--whitelisted_container_labels=samokoder.environment,samokoder.part",
            # The default of one second uses most of a core on a busy host.
            "--housekeeping_interval=15s",
            "--max_housekeeping_interval=30s",
            "--enable_metrics=cpu,memory,network,diskIO,oom_event",
        ),
        host_paths=(
            HostPath(host="/sys", container="/sys"),
            # Under /rootfs: if cAdvisor finds the host's /proc there, it looks for the engine's folder there too.
            HostPath(host="/proc", container="/rootfs/proc"),
            HostPath(host=settings.data_root, container=f"/rootfs{settings.data_root}"),
            # Even a read-only mount of docker.sock gives an intruder root on the host. So only cAdvisor has it: it is
            # on no network with the application's data, and serves only pages and metrics.
            HostPath(host=_HOST_RUN, container=_RUN),
        ),
        # Without the kernel's log, container_oom_events_total stays 0 and ContainerOomKilled never fires.
        devices=(HostPath(host="/dev/kmsg", container="/dev/kmsg"),) if settings.kernel_log else (),
        capabilities=("CAP_SYSLOG",) if settings.kernel_log else (),
        publish=Publish.of(settings, PORT, "/healthz"),
        health_command=health.wget(PORT, "/healthz"),
        networks=(NetworkName.PUBLISHED, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        may_lack={r"container_fs_.*": "not every kernel counts the input and output of control groups"},
    )
