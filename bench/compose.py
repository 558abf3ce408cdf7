"""The containers of a running environment, started once more by Docker Compose: what a cold `up` is measured against.

The file is written from what the engine says of them, and from the order that their specs ask for. Data volumes and
networks are new; the volumes with files are those that `up` has filled, because Compose would mount a folder there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.models.containers import Container

from host.packages import install_packages
from host.progress import Reporter
from operations.audit.facts import ContainerFacts, found
from operations.data.compose.old_containers import PROJECT_LABEL
from operations.engine import containers
from operations.workspace.workspace import Workspace
from stack.catalogue import specs
from stack.common.names import PART_LABEL
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec, go_duration

SERVICE_LABEL = "com.docker.compose.service"
READY_SECONDS = 600.0
_NO_NETWORK = "none"
# By nature: its names are Compose's own, its volumes and networks are new and have other names.
_DIFFER = frozenset({"name", "part", "labels", "networks", "network_mode", "mounts"})


@dataclass(frozen=True, kw_only=True)
class ComposeUp:
    """How long it took until every container was healthy, in seconds, and what was done for it."""

    seconds: float
    how: str


def measure(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> ComposeUp:
    """Stop the environment's containers and time Docker Compose with the same ones; nothing of Compose's is left.

    Raises EngineError where there is no Docker Compose and none can be installed, RuntimeError where it fails.
    """
    program = _program(reporter)
    environment = workspace.settings()
    ours = {each.labels[PART_LABEL]: _facts(client, each) for each in containers.of_environment(client, workspace.name)}
    described = specs(environment)
    networks = client.networks.list(names=[environment.prefix])
    content = document(
        ours,
        after={spec.part: spec.after for spec in described},
        internal={str(each.name): bool(each.attrs["Internal"]) for each in networks},
        data=begin_empty(environment, described),
        start_interval=program[0] == "docker",
    )
    containers.stop(client, environment, environment.running(), reporter)
    project = f"{workspace.name}-compose"
    # In a folder that only we can read: an environment may have secrets in it.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "docker-compose.yml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        host = {**os.environ, "DOCKER_HOST": environment.settings.docker_host}

        def run(*words: str) -> str:
            command = [*program, "--project-name", project, "--file", str(file), *words]
            done = subprocess.run(command, env=host, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"`{' '.join([*program, *words])}` failed:\n{done.stderr.strip()[-2000:]}")
            return done.stdout

        waits = "--wait" in run("up", "--help")
        up = ("up", "--detach", *(["--wait"] if waits else []))
        name = f"{' '.join(program)} {run('version', '--short').strip()}"

        def listed() -> list[Container]:
            label = f"{PROJECT_LABEL}={project}"
            return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))

        try:
            with reporter.task(f"{name} with the same containers"):
                begun = time.monotonic()
                run(*up)
                wait_healthy(listed, len(ours))
                took = time.monotonic() - begun
            theirs = {each.labels[SERVICE_LABEL]: _facts(client, each) for each in listed()}
        finally:
            run("down", "--volumes")
    how = f"{name}: {' '.join(up)}" + ("" if waits else ", its health asked of the engine: it has no --wait")
    other = sorted({field for part, facts in ours.items() for field in differences(facts, theirs[part])})
    return ComposeUp(seconds=took, how=how + (f"; not the same: {', '.join(other)}" if other else ""))


def _program(reporter: Reporter) -> list[str]:
    """Return Docker's own plugin where there is one, else the older program, Debian's package where it is missing."""
    if shutil.which("docker"):
        plugin = ["docker", "compose"]
        if subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0:
            return plugin
    if not shutil.which("docker-compose"):
        install_packages(["docker-compose"], report=reporter.say)
    return ["docker-compose"]


def _facts(client: docker.DockerClient, container: Container) -> ContainerFacts:
    return found(container.attrs, client.images.get(str(container.attrs["Image"])).attrs.get("Config") or {})


def wait_healthy(listed: Callable[[], Sequence[Container]], count: int, seconds: float = READY_SECONDS) -> None:
    """Ask the engine until so many containers are there and healthy. Raises RuntimeError where one will not be."""
    end = time.monotonic() + seconds
    while True:
        states = {str(each.name): (each.attrs["State"].get("Health") or {}).get("Status") for each in listed()}
        if len(states) >= count and all(state == "healthy" for state in states.values()):
            return
        if time.monotonic() > end or "unhealthy" in states.values():
            ill = ", ".join(f"{name} is {state}" for name, state in states.items() if state != "healthy")
            raise RuntimeError(f"not every container got healthy: {ill or f'{len(states)} of {count} are there'}")
        time.sleep(0.2)


def differences(ours: ContainerFacts, theirs: ContainerFacts) -> list[str]:
    """Return what of a container is not as we have it, but for the names that cannot be the same."""
    names = (field.name for field in fields(ContainerFacts) if field.name not in _DIFFER)
    other = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    read_only = [{path: mount.read_only for path, mount in facts.mounts.items()} for facts in (ours, theirs)]
    return other if read_only[0] == read_only[1] else [*other, "mounts"]


def begin_empty(environment: Environment, described: Sequence[ServiceSpec]) -> set[str]:
    """Return the names of the volumes that a stack fills itself."""
    data = {environment.data_volume(spec.data.name, spec.data.adopt) for spec in described if spec.data}
    return data | {environment.scratch_volume(spec.scratch.name) for spec in described if spec.scratch}


def document(
    parts: Mapping[str, ContainerFacts],
    *,
    after: Mapping[str, Sequence[str]],
    internal: Mapping[str, bool],
    data: Collection[str],
    start_interval: bool = True,
) -> dict[str, Any]:
    """Return the compose file of containers by part. It has every secret that a container has in its environment.

    after: parts that are healthy before a part starts. internal: the environment's networks, and whether each is
    without a way out; another network is there already. data: names of the volumes that begin empty; another one is
    there already. start_interval: this Compose knows the start interval of health checks; the older program does not.
    """
    volumes = {mount.source for facts in parts.values() for mount in facts.mounts.values()}
    networks = {network for facts in parts.values() for network in facts.networks} - {_NO_NETWORK}
    return {
        "services": {
            part: _escaped(_service(facts, [each for each in after.get(part, ()) if each in parts], start_interval))
            for part, facts in parts.items()
        },
        "networks": {
            name: {"internal": internal[name]} if name in internal else {"external": True, "name": name}
            for name in sorted(networks)
        },
        "volumes": {
            name: {} if name in data else {"external": True, "name": name}
            for name in sorted(volumes)
            if not name.startswith("/")
        },
    }


def _service(facts: ContainerFacts, after: Sequence[str], start_interval: bool) -> dict[str, Any]:
    health = facts.health
    timed = ("interval", "timeout", "start period", *(["start interval"] if start_interval else []))
    log = dict(facts.log)
    service = {
        "image": facts.image,
        "entrypoint": list(facts.entrypoint),
        "command": list(facts.command),
        "environment": dict(facts.environment),
        "user": facts.user,
        "hostname": facts.hostname,
        "working_dir": facts.working_dir,
        **(
            {"network_mode": _NO_NETWORK}
            if _NO_NETWORK in facts.networks
            else {"networks": {name: {"aliases": list(aliases)} for name, aliases in facts.networks.items()}}
        ),
        "dns_search": list(facts.dns_search),
        "ports": [f"{address}:{port}" for port, addresses in facts.ports.items() for address in addresses],
        "volumes": [
            f"{mount.source}:{path}:{'ro' if mount.read_only else 'rw'}" for path, mount in facts.mounts.items()
        ],
        "tmpfs": [f"{path}:{options}" for path, options in facts.tmpfs.items()],
        "devices": [f"{host}:{inside.replace(' ', ':')}" for host, inside in facts.devices.items()],
        "read_only": facts.read_only,
        "init": facts.init,
        "cap_add": list(facts.capabilities_added),
        "cap_drop": list(facts.capabilities_dropped),
        "security_opt": list(facts.security_options),
        "mem_limit": facts.memory,
        "memswap_limit": facts.memory_swap,
        "cpus": facts.cpus,
        "shm_size": facts.shm_size,
        "ulimits": {
            name: dict(zip(("soft", "hard"), map(int, limit.split(":")), strict=True))
            for name, limit in facts.ulimits.items()
        },
        "logging": {"driver": log.pop("driver"), "options": log},
        "restart": facts.restart,
        "stop_signal": facts.stop_signal,
        "stop_grace_period": go_duration(facts.stop_timeout) if facts.stop_timeout else None,
        "healthcheck": {
            "test": list(health["test"]),
            **{key.replace(" ", "_"): go_duration(int(health[key])) for key in timed if health.get(key)},
            "retries": health["retries"],
        },
        "depends_on": {part: {"condition": "service_healthy"} for part in after},
    }
    # What is not there is left out: an empty value is a mistake for some keys.
    return {key: value for key, value in service.items() if value not in (None, "", [], {}, 0, False)}


def _escaped(value: Any) -> Any:
    """Double each dollar sign: Compose would put a variable of ours in its place."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else value
