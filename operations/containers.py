"""What the engine says of an environment's containers: their state, their logs, and what an interrupted run left.

Containers are found by the labels that `stack.service` gives them, so all of this works without Pulumi.
"""

from __future__ import annotations

import contextlib
import re
import struct
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import docker
import docker.errors
from docker.models.containers import Container
from requests.exceptions import RequestException

from offline.progress import Reporter
from operations.bound import Bound
from operations.project import typed
from operations.stack_file import ProjectError
from stack.monitoring import grafana, prometheus
from stack.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.settings import Environment, Published

NOT_AVAILABLE = "not available"
MISSING = "missing"

_NO_TAG = "<none>:<none>"
_DEFAULT_STOP_SECONDS = 30
_ENDS_SECONDS = 60
_OUT, _ERR = 1, 2
_HEAD = struct.Struct(">BxxxL")
Frame = tuple[int, bytes]
"""A piece of what a program says: 1 for its standard output or 2 for its standard error, and the text."""
_ENDED = frozenset({"created", "exited", "dead"})


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """One part as the engine sees it; `state` is `missing` without a container, `not available` where none can be."""

    part: str
    state: str
    health: str = ""
    image: str = ""
    url: str = ""
    uptime_seconds: int | None = None
    restarts: int = 0

    @property
    def ok(self) -> bool:
        """Whether it runs and its own health check passes."""
        return self.state == "running" and self.health == "healthy"

    @property
    def counts_as_failed(self) -> bool:
        """Whether the environment is not whole because of it; a part without an image here is told, not failed."""
        return not self.ok and self.state != NOT_AVAILABLE

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `samokoder status --json`."""
        return {**asdict(self), "ok": self.ok}


class Named(Protocol):
    """An environment's name, and the first part of all its names on the engine."""

    @property
    def name(self) -> str:
        """As in its stack file's name."""

    @property
    def prefix(self) -> str:
        """Such as `samokoder-staging`."""


def expected(environment: Environment) -> dict[str, str]:
    """Return the parts that the environment should run, each with its address, empty where it publishes none."""
    return {
        part: settings.url if isinstance(settings, Published) else ""
        for field, settings in environment.running().items()
        for part in environment.parts_of(field)
    }


def unavailable(environment: Environment) -> list[str]:
    """Return the parts whose image this host cannot get."""
    return [part for field in environment.settings.unavailable for part in environment.parts_of(field)]


def status(client: docker.DockerClient, environment: Environment) -> list[PartStatus]:
    """Return every part that the environment should run, those not available here, and any other container of it."""
    rows = status_of(client, environment.name, expected(environment), unavailable(environment))
    if _has_no_grafana(client, environment, rows):
        return [replace(row, state=NOT_AVAILABLE, url="") if row.part == grafana.PART else row for row in rows]
    return rows


def _has_no_grafana(client: docker.DockerClient, environment: Environment, rows: Sequence[PartStatus]) -> bool:
    """Tell whether there is no Grafana because no image of it can be had, in a clone that has noted nothing of it yet.

    Without a registry the images of others are made on the machine, and Grafana's cannot be.
    """
    if (grafana.PART, MISSING) not in {(row.part, row.state) for row in rows} or environment.settings.images.prometheus:
        return False
    of_prometheus = by_part(client, environment.name).get(prometheus.PART)
    if of_prometheus is None or not str(of_prometheus.attrs["Config"]["Image"]).startswith("sha256:"):
        return False
    from offline.images.grafana import official_grafana  # noqa: PLC0415 - httpx: `status` must stay fast

    return official_grafana(client) is None


def status_of(
    client: docker.DockerClient, name: str, parts: Mapping[str, str], missing: Collection[str]
) -> list[PartStatus]:
    """Return the same. parts: as `expected` returns them. missing: those that are not available."""
    found = by_part(client, name)
    tags = _tags(client)
    rows = []
    for part, url in parts.items():
        container = found.pop(part, None)
        there = container and status_of_container(part, container, url=url, tags=tags)
        rows.append(there or PartStatus(part=part, state=MISSING, url=url))
    for part in missing:
        found.pop(part, None)
        rows.append(PartStatus(part=part, state=NOT_AVAILABLE))
    rows += [status_of_container(part, container, tags=tags) for part, container in found.items()]
    return sorted(rows, key=lambda row: row.part)


def _tags(client: docker.DockerClient) -> dict[str, str]:
    """Return the tag of each image by its id: a local image is configured by its id, and its tag says what it is.

    The engine lists one whose tag has gone to another image as `<none>:<none>`.
    """
    found = {}
    for image in client.api.images():
        tags = [str(tag) for tag in image.get("RepoTags") or () if tag != _NO_TAG]
        if tags:
            found[str(image["Id"])] = tags[0]
    return found


def by_part(client: docker.DockerClient, name: str) -> dict[str, Container]:
    """Return all service containers of an environment by their parts."""
    return {container.labels.get(PART_LABEL, ""): container for container in of_environment(client, name)}


def of_environment(client: docker.DockerClient, name: str) -> list[Container]:
    """Return all service containers of an environment, running or not."""
    containers = client.containers.list(all=True, filters={"label": f"{ENVIRONMENT_LABEL}={name}"}, ignore_removed=True)
    return list(containers)


def names(client: docker.DockerClient) -> set[str]:
    """Return the names of all containers and networks on the engine."""
    listed = client.api.containers(all=True)  # without a question for each of them
    found = {str(name).lstrip("/") for container in listed for name in container.get("Names") or ()}
    return found | {str(network["Name"]) for network in client.api.networks()}


def ids(client: docker.DockerClient, name: str) -> dict[str, str]:
    """Return the id of each part's container in an environment: what a change has replaced shows in it."""
    return {container.labels[PART_LABEL]: str(container.id) for container in of_environment(client, name)}


def find(client: docker.DockerClient, environment: Named, part: str) -> Container:
    """Return the container of a part. Raises ProjectError with the parts that there are, or that it is not up."""
    found = by_part(client, environment.name)
    if part in found:
        return found[part]
    if not found:
        raise ProjectError(f"{environment.name} is not up: {typed(environment.name, 'up')}")
    there = ", ".join(sorted(found))
    raise ProjectError(f"{environment.name} has no container of the part {part!r}. There are: {there}.")


def replicas(client: docker.DockerClient, environment: Named, part: str) -> dict[str, Container]:
    """Return the container of a part, or those of all its replicas, by name. Raises ProjectError as `find` does."""
    found = {
        name: container
        for container in of_environment(client, environment.name)
        if re.fullmatch(rf"{re.escape(part)}-[0-9]+", name := container.labels.get(PART_LABEL, ""))
    }
    in_order = sorted(found, key=lambda name: (len(name), name))  # api-2 before api-10
    return {name: found[name] for name in in_order} or {part: find(client, environment, part)}


def status_of_container(
    part: str, container: Container, *, url: str = "", tags: Mapping[str, str] | None = None
) -> PartStatus:
    """Return how a part's container is. tags: of the engine's images, by their ids."""
    state = container.attrs["State"]
    image = str(container.attrs["Config"]["Image"])
    uptime = None
    if state["Running"]:
        # Docker writes nanoseconds, which Python's parser does not take before 3.11 and cuts after.
        started = datetime.fromisoformat(state["StartedAt"])
        uptime = max(0, round((datetime.now(tz=UTC) - started).total_seconds()))
    return PartStatus(
        part=part,
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", "none"),
        image=(tags or {}).get(image, image),
        url=url,
        uptime_seconds=uptime,
        restarts=int(container.attrs.get("RestartCount", 0)),
    )


def of_fields(client: docker.DockerClient, environment: Environment, fields: Collection[str]) -> list[Container]:
    """Return the containers of the parts that these fields of the settings describe; those that are not there, not."""
    parts = {part for name in fields for part in environment.parts_of(name)}
    return [each for each in of_environment(client, environment.name) if each.labels[PART_LABEL] in parts]


def stop(client: docker.DockerClient, environment: Environment, fields: Collection[str], reporter: Reporter) -> None:
    """Stop all containers of these parts at once, each within its own time, and wait until they have ended."""
    # Also one that restarts again and again, because its data is what is to be replaced.
    found = [each for each in of_fields(client, environment, fields) if each.status not in _ENDED]
    if not found:
        return
    names = ", ".join(each.labels[PART_LABEL] for each in found)
    with reporter.task(f"Stop {names}"), ThreadPoolExecutor() as pool:
        seconds = [each.attrs["Config"].get("StopTimeout") or _DEFAULT_STOP_SECONDS for each in found]
        list(pool.map(lambda each, limit: each.stop(timeout=limit), found, seconds))


def without(secrets: Mapping[str, str], text: str) -> str:
    """Return `text` with each secret's name in place of its value."""
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        if value:
            text = text.replace(value, f"<{name}>")
    return text


def remove_begun(
    client: docker.DockerClient, begun: Mapping[str, Collection[str]], known: Collection[str], reporter: Reporter
) -> list[str]:
    """Remove the containers and networks that an interrupted run had begun to make, and return their names.

    A run that was killed between a creation and the note of it leaves them, and the next one would end in "name
    already in use". Nothing else goes: what this state does not know may be another state's, and running. Volumes stay:
    creating one that is there is no error, and they hold the data.
    begun: as `recovery.begun` has it. known: ids of the containers and networks in Pulumi's state.
    """
    removed = []
    named = [f"^/?{re.escape(name)}$" for name in begun]
    for container in client.containers.list(all=True, filters={"name": named}, ignore_removed=True):
        name = str(container.name)
        if name not in begun or container.id in known:
            continue
        if not _is_of_run(container, begun[name], known):
            reporter.say(f"{name} is not the one that the run had begun to make, so it stays")
            continue
        _stop_gently(container, reporter)
        container.remove(force=True)
        removed.append(name)
    for network in client.networks.list():
        if network.name not in begun or network.id in known:
            continue
        network.reload()
        if network.attrs.get("Containers"):
            reporter.say(f"the network {network.name} ({network.short_id}) has containers on it, so it stays")
            continue
        network.remove()
        removed.append(str(network.name))
    return removed


def _is_of_run(container: Container, volumes: Collection[str], known: Collection[str]) -> bool:
    """Tell whether a container is the one that the run of a state had begun to make, and not another state's.

    volumes: what that one mounts; the names of those with files are random. known: ids of the state's networks.
    """
    if volumes:
        return set(volumes) <= {mount.get("Name") for mount in container.attrs["Mounts"]}
    networks = {each["NetworkID"] for each in container.attrs["NetworkSettings"]["Networks"].values()} - {""}
    # What was never started may be on none yet, and serves nobody.
    return networks <= set(known) if networks else container.status == "created"


def stopped(client: docker.DockerClient, environment: str, known: Collection[str]) -> list[Container]:
    """Return the containers of parts that do not run. known: ids in Pulumi's state.

    Not one that restarts again and again: that one is sick, and `up` has to say so.
    """
    return [each for each in of_environment(client, environment) if each.status in _ENDED and each.id in known]


def _stop_gently(container: Container, reporter: Reporter) -> None:
    """Let a first start come to its end (a database that is being initialised), then stop it as it asks to be."""
    said = time.monotonic()
    while _is_starting(container):
        if time.monotonic() - said > 2:  # noqa: PLR2004 - seconds; nothing is silent for longer
            said = time.monotonic()
            reporter.say(f"{container.name} is still starting, waiting for it")
        time.sleep(0.2)
        container.reload()
    if container.attrs["State"]["Running"]:
        seconds = container.attrs["Config"].get("StopTimeout") or _DEFAULT_STOP_SECONDS
        container.stop(timeout=seconds)


def _is_starting(container: Container) -> bool:
    state = container.attrs["State"]
    health = (state.get("Health") or {}).get("Status")
    # One that restarts again and again stays `starting` for ever.
    return bool(state["Running"]) and health == "starting" and not container.attrs.get("RestartCount")


def execute(
    container: Container, command: Sequence[str], *, bound: Bound | None = None, **options: Any
) -> tuple[int, bytes]:
    """Run a command in a container to its end; return its exit status and all that it says.

    options: of the SDK's `exec_create`. Its `exec_run` may have no status (see `exec_status`) and no output (`frames`).
    Raises BoundError where the bound is reached; the command runs on then, for the engine can end none.
    """
    status, said = _execute(container, command, options, bound)
    return status, b"".join(text for _, text in said)


def execute_apart(
    container: Container, command: Sequence[str], *, bound: Bound | None = None
) -> tuple[int, bytes, bytes]:
    """Run a command as `execute` does; return its exit status, its standard output and its standard error."""
    status, said = _execute(container, command, {}, bound)
    out, err = (b"".join(text for number, text in said if number == wanted) for wanted in (_OUT, _ERR))
    return status, out, err


def _execute(
    container: Container, command: Sequence[str], options: Mapping[str, Any], bound: Bound | None
) -> tuple[int, list[Frame]]:
    api = cast("docker.DockerClient", container.client).api
    session = api.exec_create(container.id, list(command), **options)["Id"]
    stream: Any = api.exec_start(session, socket=True)
    try:
        said = list(frames(stream, bound))
    finally:
        stream._response.close()  # noqa: SLF001 - there is no other way to it
    return exec_status(api, session, bound), said


def frames(stream: Any, bound: Bound | None = None) -> Iterator[Frame]:
    """Yield what a program says to a socket of the SDK (`exec_start`, `attach_socket`), until it closes its output.

    Not as the SDK does: it reads the socket below the buffer by which it has read the head of the answer. What has come
    together with that head, all that a quick command says, is lost then, and the status is 0.
    Raises BoundError.
    """
    socket = getattr(stream, "_sock", stream)
    reader = stream._response.raw._fp.fp  # noqa: SLF001 - there is no other way to it
    socket.settimeout(bound.left() if bound else None)  # a program may be silent for long
    try:
        while len(head := reader.read(_HEAD.size)) == _HEAD.size:
            number, size = _HEAD.unpack(head)
            if bound:
                bound.take(size)
            yield number, reader.read(size)
            if bound:
                socket.settimeout(bound.left())
    except TimeoutError:
        if bound is None:
            raise
        raise bound.late() from None


def exec_status(api: docker.APIClient, session: str, bound: Bound | None = None) -> int:
    """Return the exit status of a command in a container whose output has ended.

    The engine ends the output when the command closes it, and knows the status a moment later: until then it says null,
    which would be taken for a success or a failure. Raises ProjectError where the command does not end at all.
    """
    end = time.monotonic() + _ENDS_SECONDS
    while (status := api.exec_inspect(session)["ExitCode"]) is None:
        if bound:
            bound.left()
        if time.monotonic() > end:
            raise ProjectError(f"a command in a container has closed its output and still runs after {_ENDS_SECONDS} s")
        time.sleep(0.05)
    return int(status)


def remove_labelled(client: docker.DockerClient, label: str) -> None:
    """Remove every container with a label (`name=value`), what runs too, and its nameless volumes."""
    for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        container.remove(force=True, v=True)


def volume_names(client: docker.DockerClient) -> set[str]:
    """Return the names of all volumes on the engine: one that is only mounted would be made."""
    return {str(volume.name) for volume in client.volumes.list()}


def remove_volumes(client: docker.DockerClient, names: Sequence[str]) -> list[str]:
    """Remove those of the named volumes that are still there, and return them."""
    removed = []
    for name in names:
        with contextlib.suppress(docker.errors.NotFound):
            client.volumes.get(name).remove()
            removed.append(name)
    return removed


def volume_sizes(client: docker.DockerClient) -> dict[str, int]:
    """Return the bytes in each volume; nothing where the engine cannot say it in its time."""
    with contextlib.suppress(docker.errors.APIError, RequestException):
        # From API 1.53 on the volumes have another place, and are counted one by one only when asked for.
        place = f"{client.api.base_url}/v{client.api.api_version}/system/df"
        answer = client.api.get(place, params={"type": "volume", "verbose": "1"}, timeout=client.api.timeout)
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        volumes = said.get("Volumes") or (said.get("VolumeUsage") or {}).get("Items") or []
        sizes = {str(each["Name"]): int((each.get("UsageData") or {}).get("Size", -1)) for each in volumes}
        return {name: size for name, size in sizes.items() if size >= 0}
    return {}


def has_images(client: docker.DockerClient, references: Collection[str]) -> bool:
    """Tell whether the engine has all these images already, so that it need not ask a registry."""
    try:
        for reference in references:
            client.images.get(reference)
    except docker.errors.ImageNotFound:
        return False
    return True
