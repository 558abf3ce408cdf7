"""VictoriaLogs: the store of the logs of all containers, with pages to search them."""

from __future__ import annotations

from stack.common.names import NetworkName
from stack.monitoring import access
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.secrets import LOGS_WEB
from stack.spec.service import DataVolume, Publish, Scrape, ServiceSpec

PART = "logs"
PORT = 9428
PAGE = "/select/vmui/"
FREE_MIB = 1024
"""What is left of the disk to the others at least: as much as PostgreSQL's max_wal_size."""
_RANDOM = "/proc/sys/kernel/random/uuid"
_VOLUME = "/var/tmp"  # noqa: S108 - a path in the container, where a volume lies


def spec(environment: Environment) -> ServiceSpec:
    """Describe VictoriaLogs."""
    settings = environment.settings.logs
    password = access.password_of(environment, LOGS_WEB)
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Logs",
        image=environment.image("logs"),
        user="65534:65534",
        settings=settings,
        entrypoint=("/victoria-logs-prod",),
        command=(
            f"-storageDataPath={_VOLUME}/logs",
            f"-httpListenAddr=:{PORT}",
            f"-retentionPeriod={settings.retention_time}",
            f"-retention.maxDiskSpaceUsageBytes={settings.retention_size}",
            # It keeps the last two days whatever they take: by default it stops at 10 MB, when nothing else can write.
            f"-storage.minFreeDiskSpaceBytes={free_mib(environment)}MiB",
            # The collector cuts lines so that they stay below this; the default is a quarter of it.
            "-insert.maxLineSizeBytes=1MiB",
            # By default its answers allow every web page that a person has open to read the logs.
            "-http.disableCORS",
            f"-memory.allowedBytes={settings.memory_mib // 3}MiB",
            # Nobody here detaches, copies or merges stored days: that takes a key, and each look finds another one.
            *(f"-{key}=file://{_RANDOM}" for key in ("partitionManageAuthKey", "forceMergeAuthKey")),
            *(_guard(password) if password else ()),
        ),
        # Go frees memory before it reaches this; otherwise it may keep twice what is in use.
        environment={"GOMEMLIMIT": f"{settings.memory_mib * 3 // 4}MiB"},
        files=access.password_files(password),
        # A new volume gets owner and mode of the folder that it is mounted on, and this image has only this one that
        # every user can write to: 1777, from Alpine's alpine-baselayout.
        data=DataVolume(name=PART, path=_VOLUME),
        # Its health answers without a password too, so it could not tell that the page has lost its own.
        publish=Publish.of(settings, PORT, "/"),
        # It asks for no password here.
        health_command=health.wget(PORT, "/health"),
        networks=(NetworkName.PUBLISHED, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        web_password=password,
        open_files=16384,
    )


def free_mib(environment: Environment) -> int:
    """Return how much of its disk it leaves to the others: PostgreSQL's log grows while the backup server is away."""
    own = environment.physical_backups and not environment.managed_database
    return FREE_MIB + (environment.settings.backup.max_slot_wal_mib if own else 0)


def _guard(password: str) -> tuple[str, str]:
    return f"-httpAuth.username={access.USER}", f"-httpAuth.password=file://{access.file_of(password)}"
