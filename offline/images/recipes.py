"""The recipe of each image: what goes in, and the contract of the official image that it keeps.

The images keep the official ones' contract (paths, entrypoint, user, volumes), so that one service spec serves both.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUITE = "bookworm"
"""The Debian release that the images are made of (PostgreSQL 15, Redis 7.0, Python 3.11)."""

PYTHON_VERSION = "3.11"
"""Python in the `python` image, and so the tags of its wheels."""

DEBIAN_BASE = "Debian base"
BUSYBOX_BASE = "BusyBox base"
"""What a person reads while the bases are made."""

ROOTFS = Path(__file__).parents[1] / "rootfs"
_CLONE = Path(__file__).parents[2]
REFERENCE_REQUIREMENTS = _CLONE / "reference_app" / "requirements.txt"
_BACKUP_REQUIREMENTS = _CLONE / "backup_image" / "requirements.txt"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOBODY = (65534, 65534)
# struct vfs_cap_data of linux/capability.h, little-endian: revision 2 with the effective flag, permitted (bit 10 is
# CAP_NET_BIND_SERVICE) and inheritable, each lower half first.
_CAP_NET_BIND_SERVICE_EP = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image: what goes in, and the official image's contract."""

    base: str
    """`debian`, `busybox`, another recipe's name, or empty for the two bases themselves."""
    version_command: tuple[str, ...] = ()
    """Prints the software's version; run in the image while it is made."""
    packages: tuple[str, ...] = ()
    """Debian packages, installed by `build.sh` of the recipe's folder in `rootfs/`."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """Path in the image -> `program/executable` of `offline.toolchain`."""
    folders: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Folders to make -> their user and group id."""
    wheels: bool = False
    """Lay locked wheels into /wheels: the reference application's, unless `requirements` names others."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    stop_signal: str = ""
    # Not in repr, which is in every image's key: a new kind of ingredient must not rebuild the images without it.
    file_capabilities: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Program of `programs` -> its capabilities, as the kernel keeps them (capabilities(7), vfs_cap_data)."""
    requirements: Path | None = field(default=None, repr=False)
    """The file that locks the wheels."""
    seconds: int = field(default=3, repr=False)
    """How long the image takes on two quiet cores beside two compilers, its programs built before: for what is said."""


RECIPES: dict[str, Recipe] = {
    "postgres": Recipe(
        base="debian",
        seconds=40,
        packages=("postgresql-15", "locales"),
        version_command=("postgres", "--version"),
        entrypoint=("docker-entrypoint.sh",),
        command=("postgres",),
        env={
            "PATH": f"/usr/lib/postgresql/15/bin:{SEARCH_PATH}",
            "PGDATA": "/var/lib/postgresql/data",
            "LANG": "en_US.utf8",
            "PG_MAJOR": "15",
        },
        volumes=("/var/lib/postgresql/data",),
        ports=(5432,),
        stop_signal="SIGINT",
    ),
    "redis": Recipe(
        base="debian",
        seconds=13,
        packages=("redis-server", "redis-tools"),
        version_command=("redis-server", "--version"),
        entrypoint=("docker-entrypoint.sh",),
        command=("redis-server",),
        workdir="/data",
        volumes=("/data",),
        ports=(6379,),
    ),
    "python": Recipe(
        base="debian",
        seconds=50,
        packages=("python3", "python3-venv", "python3-pip"),
        wheels=True,
        version_command=("python", "--version"),
        command=("python3",),
        env={
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
            "PIP_ROOT_USER_ACTION": "ignore",
        },
    ),
    # What `backup_image/` stands on: PostgreSQL's own image with what its Dockerfile would get from Debian and PyPI.
    "backup": Recipe(
        base="postgres",
        seconds=35,
        packages=("python3", "python3-venv", "redis-server", "restic", "ca-certificates", "file"),
        wheels=True,
        requirements=_BACKUP_REQUIREMENTS,
        version_command=("postgres", "--version"),
        entrypoint=("docker-entrypoint.sh",),
        command=("postgres",),
        env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"},
        volumes=("/var/lib/postgresql/data",),
        ports=(5432,),
        stop_signal="SIGINT",
    ),
    "prometheus": Recipe(
        base="busybox",
        programs={"/bin/prometheus": "prometheus/prometheus", "/bin/promtool": "prometheus/promtool"},
        version_command=("/bin/prometheus", "--version"),
        folders={"/etc/prometheus": _NOBODY, "/prometheus": _NOBODY},
        entrypoint=("/bin/prometheus",),
        command=("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"),
        user="nobody",
        workdir="/prometheus",
        volumes=("/prometheus",),
        ports=(9090,),
    ),
    "alertmanager": Recipe(
        base="busybox",
        programs={"/bin/alertmanager": "alertmanager/alertmanager", "/bin/amtool": "alertmanager/amtool"},
        version_command=("/bin/alertmanager", "--version"),
        folders={"/etc/alertmanager": _NOBODY, "/alertmanager": _NOBODY},
        entrypoint=("/bin/alertmanager",),
        command=("--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"),
        user="nobody",
        workdir="/alertmanager",
        volumes=("/alertmanager",),
        ports=(9093,),
    ),
    "node_exporter": Recipe(
        base="busybox",
        programs={"/bin/node_exporter": "node_exporter/node_exporter"},
        version_command=("/bin/node_exporter", "--version"),
        entrypoint=("/bin/node_exporter",),
        user="nobody",
        ports=(9100,),
    ),
    "postgres_exporter": Recipe(
        base="busybox",
        programs={"/bin/postgres_exporter": "postgres_exporter/postgres_exporter"},
        version_command=("/bin/postgres_exporter", "--version"),
        entrypoint=("/bin/postgres_exporter",),
        user="nobody",
        ports=(9187,),
    ),
    "redis_exporter": Recipe(
        base="busybox",
        programs={"/redis_exporter": "redis_exporter/redis_exporter"},
        version_command=("/redis_exporter", "--version"),
        entrypoint=("/redis_exporter",),
        user="59000:59000",
        ports=(9121,),
    ),
    "blackbox_exporter": Recipe(
        base="busybox",
        programs={"/bin/blackbox_exporter": "blackbox_exporter/blackbox_exporter"},
        version_command=("/bin/blackbox_exporter", "--version"),
        # Empty: the official image has a sample configuration there, but the stack mounts its own.
        folders={"/etc/blackbox_exporter": (0, 0)},
        entrypoint=("/bin/blackbox_exporter",),
        command=("--config.file=/etc/blackbox_exporter/config.yml",),
        # The official image names no user and so is root's; an HTTP probe needs nothing that only root may do.
        user="nobody",
        ports=(9115,),
    ),
    "caddy": Recipe(
        base="busybox",
        programs={"/usr/bin/caddy": "caddy/caddy"},
        # The official image's `setcap cap_net_bind_service=+ep`, kept because it is a demand as well: without the
        # capability in the container's bounding set, the kernel refuses to start such a file (EPERM).
        file_capabilities={"/usr/bin/caddy": _CAP_NET_BIND_SERVICE_EP},
        version_command=("caddy", "version"),
        # Empty: the official image has a sample configuration and a page there, but the stack mounts its own.
        folders=dict.fromkeys(("/etc/caddy", "/config", "/config/caddy", "/data", "/data/caddy", "/srv"), (0, 0)),
        command=("caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"),
        workdir="/srv",
        env={"XDG_CONFIG_HOME": "/config", "XDG_DATA_HOME": "/data"},
        ports=(80, 443, 2019),
    ),
    "logs": Recipe(
        base="busybox",
        programs={"/victoria-logs-prod": "victoria_logs/victoria-logs-prod"},
        version_command=("/victoria-logs-prod", "-version"),
        entrypoint=("/victoria-logs-prod",),
        ports=(9428,),
    ),
    "cadvisor": Recipe(
        base="busybox",
        programs={"/usr/bin/cadvisor": "cadvisor/cadvisor"},
        version_command=("/usr/bin/cadvisor", "--version"),
        entrypoint=("/usr/bin/cadvisor", "-logtostderr"),
        ports=(8080,),
    ),
}
"""Every image that can be made from packages. Grafana is none of them: no package registry has it."""

NAMES: tuple[str, ...] = (*RECIPES, "grafana")


def programs_of(name: str) -> set[str]:
    """Return the programs of `offline.toolchain` that an image holds."""
    return {source.partition("/")[0] for source in RECIPES[name].programs.values()} if name in RECIPES else set()


def files_of(recipe: Recipe, programs: Mapping[str, Path]) -> dict[str, Path]:
    """Return path in the image -> executable."""
    return {
        path: programs[source.partition("/")[0]] / source.partition("/")[2] for path, source in recipe.programs.items()
    }
