"""cAdvisor: what each container uses, without `--privileged`."""

from __future__ import annotations

from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.service import HostPath, Publish, Scrape, ServiceSpec

PART = "cadvisor"
PORT = 8080
_HOST_RUN, _RUN = "/run", "/var/run"
"""Where the sockets are on the host and in the container: the engine's is looked for at the second."""


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
            # Where dockerd runs its own containerd, the default path is wrong and every series silently missing. Below
            # /var, where the host's /run is mounted: an image need not have a /run that leads there.
            f"--containerd={_RUN}{settings.containerd_socket.removeprefix(_HOST_RUN)}",
            "--store_container_labels=false",
            "--whitelisted_container_labels=samokoder.environment,samokoder.part",
            # Its default of one second is what people complain of: most of a core on a busy host.
            "--housekeeping_interval=15s",
            "--max_housekeeping_interval=30s",
            "--enable_metrics=cpu,memory,network,diskIO,oom_event",
        ),
        host_paths=(
            HostPath(host="/sys", container="/sys"),
            # Below /rootfs: where it finds a host's /proc it looks for the engine's folder there too.
            HostPath(host="/proc", container="/rootfs/proc"),
            HostPath(host=settings.data_root, container=f"/rootfs{settings.data_root}"),
            # A read-only mount of docker.sock is still root on the host for whoever breaks in: cAdvisor is the one
            # part that has it, on no network with the application's data, and it serves pages and metrics alone.
            HostPath(host=_HOST_RUN, container=_RUN),
        ),
        # Without the kernel's log container_oom_events_total stays 0 for ever and ContainerOomKilled is mute.
        devices=(HostPath(host="/dev/kmsg", container="/dev/kmsg"),) if settings.kernel_log else (),
        capabilities=("CAP_SYSLOG",) if settings.kernel_log else (),
        publish=Publish.of(settings, PORT, "/healthz"),
        health_command=health.wget(PORT, "/healthz"),
        networks=(NetworkName.PUBLISHED, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
    )
