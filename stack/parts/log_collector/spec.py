"""What reads the log files of this environment's containers and sends their lines to VictoriaLogs.

The program is this folder's Python files, mounted into the Python image: no image of our own has to be built.
"""

from __future__ import annotations

from pathlib import Path

from stack.common.names import NetworkName
from stack.monitoring import access
from stack.parts.logs import spec as logs
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files
from stack.spec.secrets import LOGS_WEB
from stack.spec.service import DataVolume, HostPath, Scrape, ServiceSpec

PART = "log-collector"
PORT = 9190
_ROOT = Path(__file__).resolve().parents[3]
_CONTAINERS, _POSITIONS = "/containers", "/positions"
_PROGRAM = (
    "stack/common/names.py",
    *(f"stack/parts/log_collector/{name}.py" for name in ("__main__", "collector", "counts", "events", "log_files")),
)


def spec(environment: Environment) -> ServiceSpec:
    """Describe the collector."""
    settings = environment.settings.log_collector
    password = access.password_of(environment, LOGS_WEB)
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:LogCollector",
        image=environment.image("python"),
        # The engine's files are root's; it has no capability that makes root more, and mounts them read-only.
        user="0:0",
        settings=settings,
        entrypoint=("python",),
        command=(
            *("-m", "stack.parts.log_collector"),
            f"--environment={environment.name}",
            f"--folder={_CONTAINERS}",
            f"--positions={_POSITIONS}/positions.json",
            f"--store=http://{logs.PART}:{logs.PORT}",
            *((f"--user={access.USER}", f"--password={access.file_of(password)}") if password else ()),
            f"--port={PORT}",
            f"--buffer-mib={settings.buffer_mib}",
        ),
        environment={"PYTHONPATH": access.FOLDER, "PYTHONDONTWRITEBYTECODE": "1"},
        files=files(environment),
        # Positions are of use as long as the containers' files are, which `make down` removes too.
        scratch=DataVolume(name=PART, path=_POSITIONS),
        # Below the folder of each container is also what it was made with, its variables among it: see hardening.yaml.
        host_paths=(HostPath(host=f"{environment.settings.cadvisor.data_root}/containers", container=_CONTAINERS),),
        health_command=health.python(PORT, "/health"),
        networks=(NetworkName.MONITORING,),
        scrape=Scrape(port=PORT),
    )


def files(environment: Environment) -> Files:
    """Return the program, and the password of the store."""
    program = {name: (_ROOT / name).read_text(encoding="utf-8") for name in _PROGRAM}
    return {**program, **access.password_files(access.password_of(environment, LOGS_WEB))}
