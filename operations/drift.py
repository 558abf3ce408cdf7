"""Drift: where what runs differs from what the program declares.

Two comparisons, because neither sees all. Pulumi's own, a preview after a refresh: the program against its state, and
what the provider reads back. And ours: the inputs that the state keeps of each resource, which are what the program
gave it, against the engine. The provider reads neither a file's content nor most of what `docker run` can be told.

Nothing is listed here a second time: `stack.service` says what a container has, its inputs are read by
`operations.facts`, and so is the engine's answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shlex
import tarfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from operations.containers import execute, volume_names, without
from operations.data.volume_names import made_by_restores
from operations.engine import docker_command
from operations.facts import Facts, Mount, declared, found
from operations.lock import is_one as is_lock
from operations.old_images import is_note
from operations.recovery import CONTAINER, NETWORK, VOLUME, every_generated_secret
from operations.stack_file import ProjectError
from stack.config_files import CARRIER_MOUNT
from stack.monitoring import node_exporter
from stack.names import ENVIRONMENT_LABEL
from stack.settings import PROJECT, Environment

if TYPE_CHECKING:
    import docker

    from operations.project import Workspace

_IMAGE = "docker:index/remoteImage:RemoteImage"
_SECRET_MARK = "4dabf18193072939515e22adb298388d"  # noqa: S105 - the key by which Pulumi's state marks a secret
# Steps of a preview that change something; one that is replaced has others beside `replace`.
_CHANGES = frozenset({"create", "update", "replace", "delete", "import"})

NOTHING = "nothing"
SECRET = "a secret"  # noqa: S105 - what is shown in its place

# Of a field with many values: how one of them is called.
_ONE_OF = {
    "environment": "variable",
    "labels": "label",
    "networks": "network",
    "ports": "port",
    "mounts": "mount",
    "tmpfs": "tmpfs",
    "devices": "device",
    "ulimits": "ulimit",
    "sysctls": "sysctl",
    "log": "log",
    "health": "health check",
}
# Its name is what it is found by; its part is a label, and compared as one.
_LEFT_OUT = frozenset({"name", "part"})
_BYTES = frozenset({"memory", "memory swap", "memory reservation", "shm size"})
_MIB = 2**20


Step = tuple[str, ...]
"""Words after `docker` that make way for what is made anew."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One difference. `field` is empty where all of it is missing or should not be."""

    name: str
    """Of the container, network or volume on the engine; of what only Pulumi knows its name there."""
    field: str
    declared: str
    found: str
    repair: str
    """What to type."""
    steps: tuple[Step, ...] = ()
    """What of that comes before `up`."""

    @property
    def unknown(self) -> bool:
        """Whether nobody declared it at all: it may be an intruder's, or hold data, so a person looks first."""
        return not self.field and self.declared == NOTHING

    def as_json(self) -> dict[str, str]:
        """Return it with the keys of `samokoder drift --json`."""
        return {key: value for key, value in asdict(self).items() if key != "steps"}


@dataclass(frozen=True, kw_only=True)
class File:
    """A file's content, by its SHA-256, and its permissions."""

    digest: str
    mode: str


Files = Mapping[str, File]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What Pulumi's state says that the program gave to each resource on the engine. Secrets are in it, in plain."""

    containers: Mapping[str, Mapping[str, Any]]
    """Name -> inputs."""
    secret_environment: frozenset[str]
    """Containers with a secret in a variable."""
    networks: Mapping[str, Mapping[str, Any]]
    volumes: frozenset[str]
    image_ids: Mapping[str, str]
    files: Mapping[str, Files]
    """Volume -> path -> what a carrier has put there."""


@dataclass(frozen=True, kw_only=True)
class There:
    """What the engine has."""

    containers: Mapping[str, Facts]
    """Those of this environment, and those on its networks, in the network of a part or with a volume of it."""
    running: frozenset[str]
    image_of: Mapping[str, Mapping[str, Any]]
    """Container -> its image's configuration."""
    networks: Mapping[str, Mapping[str, Any]]
    volumes: frozenset[str]
    files: Mapping[str, Files] = field(default_factory=dict)
    """Volume of files -> what is in it."""
    inside: Mapping[str, str] = field(default_factory=dict)
    """Container -> the one whose network or processes it shares."""
    holds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Container that nobody declared -> the environment's volumes that it mounts, by name or by their folder."""


@dataclass(frozen=True, kw_only=True)
class Typed:
    """How a person repairs things in this environment."""

    docker: str
    up: str
    """`make up ENV=prod`"""

    def line(self, *steps: Step, up: bool = True) -> str:
        """Return the steps in one line to paste. up: and `up` after them, which notices what is gone."""
        return " && ".join([*(f"{self.docker} {shlex.join(step)}" for step in steps), *([self.up] if up else [])])


def _remade(*containers: str, volume: str = "") -> tuple[Step, ...]:
    """Return what has `up` make containers anew. volume: with their files, which goes as well."""
    gone = (("stop", *containers), ("rm", *containers))
    return (*gone, ("volume", "rm", volume)) if volume else gone


def read(deployment: Mapping[str, Any]) -> Declared:
    """Read a deployment that was exported with its secrets in plain."""
    resources = [each for each in deployment.get("resources") or () if not each.get("delete")]

    def inputs_of(kind: str) -> Iterator[dict[str, Any]]:
        yield from (each.get("inputs") or {} for each in resources if each["type"] == kind)

    containers = {str(inputs["name"]): plain(inputs) for inputs in inputs_of(CONTAINER)}
    return Declared(
        containers=containers,
        secret_environment=frozenset(
            str(inputs["name"]) for inputs in inputs_of(CONTAINER) if _has_secret(inputs.get("envs"))
        ),
        networks={str(inputs["name"]): plain(inputs) for inputs in inputs_of(NETWORK)},
        volumes=frozenset(str(inputs["name"]) for inputs in inputs_of(VOLUME)),
        image_ids={
            str(each["inputs"]["name"]): str((each.get("outputs") or {}).get("imageId") or "")
            for each in resources
            if each["type"] == _IMAGE
        },
        files={
            str(inputs["volumes"][0]["volumeName"]): _uploaded(inputs["uploads"])
            for inputs in containers.values()
            if inputs.get("uploads")
        },
    )


def plain(node: Any) -> Any:
    """Return inputs of a state that was exported with its secrets, without the marks of the secrets."""
    if isinstance(node, dict):
        if _SECRET_MARK in node:
            return plain(json.loads(node["plaintext"]))
        return {key: plain(value) for key, value in node.items() if key != "__defaults"}
    return [plain(each) for each in node] if isinstance(node, list) else node


def _has_secret(node: Any) -> bool:
    if isinstance(node, dict):
        return _SECRET_MARK in node or any(map(_has_secret, node.values()))
    return isinstance(node, list) and any(map(_has_secret, node))


def _uploaded(uploads: Sequence[Mapping[str, Any]]) -> Files:
    return {
        str(upload["file"]).removeprefix(f"{CARRIER_MOUNT}/"): File(
            digest=_digest(str(upload["content"]).encode()), mode=str(upload["permissions"]).lstrip("0")
        )
        for upload in uploads
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def compare(wanted: Declared, there: There, environment: Environment, typed: Typed) -> list[Finding]:
    """Return every difference between what is declared and what is there, by name."""
    findings = [
        *_networks(wanted, there, typed),
        *_volumes(wanted, there, typed),
        *_containers(wanted, there, typed),
        *_files(wanted, there, typed),
        *_strangers(wanted, there, environment, typed),
    ]
    return sorted(findings, key=lambda each: (each.name, each.field))


def _networks(wanted: Declared, there: There, typed: Typed) -> Iterator[Finding]:
    for name, inputs in wanted.networks.items():
        network = there.networks.get(name)
        if network is None:
            yield _missing(name, "a network", typed.up)
            continue
        kept = (("driver", "Driver", "bridge"), ("internal", "Internal", False), ("ipv6", "EnableIPv6", False))
        for key, what, default in kept:
            if (declared := inputs.get(key, default)) != (is_now := network.get(what, default)):
                # Nobody can change it on the engine: it was made anew under the name.
                steps = (("rm", "--force", *sorted(_users(name, wanted))), ("network", "rm", name))
                yield Finding(
                    name=name,
                    field=key,
                    declared=_text(declared),
                    found=_text(is_now),
                    repair=typed.line(*steps),
                    steps=steps,
                )


def _users(network: str, wanted: Declared) -> Iterator[str]:
    for name, inputs in wanted.containers.items():
        if any(each["name"] == network for each in inputs.get("networksAdvanced") or ()):
            yield name


def _volumes(wanted: Declared, there: There, typed: Typed) -> Iterator[Finding]:
    # The engine does not let go of a volume that a container has, so what a part's files are in goes with its carrier.
    yield from (_missing(name, "a volume", typed.up) for name in wanted.volumes - there.volumes)


def _containers(wanted: Declared, there: There, typed: Typed) -> Iterator[Finding]:
    for name, inputs in wanted.containers.items():
        facts = there.containers.get(name)
        if facts is None:
            yield _missing(name, "a container", typed.up)
            continue
        image_id = wanted.image_ids.get(str(inputs["image"])) or str(inputs["image"])
        known = image_id if image_id.startswith("sha256:") else ""
        should = declared(inputs, there.image_of[name], known or facts.image_id)
        hidden = name in wanted.secret_environment
        yield from _differences(should, facts, typed, hidden=hidden)
        if inputs.get("mustRun", True) and name not in there.running:
            yield Finding(name=name, field="state", declared="running", found="stopped", repair=typed.up)
        if should.is_carrier and name in there.running:
            steps = _remade(name)
            yield Finding(
                name=name,
                field="state",
                declared="never started",
                found="running",
                repair=typed.line(*steps),
                steps=steps,
            )


def _differences(should: Facts, facts: Facts, typed: Typed, *, hidden: bool) -> Iterator[Finding]:
    """Yield where one container differs. hidden: its variables' values are not shown."""
    wanted, there = dict(_flat(should)), dict(_flat(facts))
    for label in sorted(wanted.keys() | there.keys()):
        before, now = wanted.get(label), there.get(label)
        if before == now:
            continue
        steps = _remade(facts.name)
        if more := label.startswith("network ") and before is None:
            steps = (("network", "disconnect", label.partition(" ")[2], facts.name),)
        declared_text, found_text = (
            _shown(label, before, hidden=hidden),
            _shown(label, now, hidden=hidden or not before),
        )
        yield Finding(
            name=facts.name,
            field=label,
            declared=declared_text,
            found=found_text,
            repair=typed.line(*steps, up=not more),
            steps=steps,
        )


def _flat(facts: Facts) -> Iterator[tuple[str, Any]]:
    """Yield each value of a container with what it is called: `variable LANG`, `memory`."""
    for each in fields(facts):
        value = getattr(facts, each.name)
        if each.name in _LEFT_OUT:
            continue
        if one := _ONE_OF.get(each.name):
            yield from ((f"{one} {key}", inner) for key, inner in value.items())
        else:
            yield each.name.replace("_", " "), value


def _shown(label: str, value: Any, *, hidden: bool) -> str:
    """Return a value for a person. hidden: it is a variable's, and may be a secret that somebody has typed."""
    if value is None:
        return NOTHING
    if hidden and label.startswith("variable "):
        return SECRET
    return f"{value / _MIB:g} MiB" if label in _BYTES and value > 0 else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mount):
        return f"{value.source} ({'read-only' if value.read_only else 'writable'})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return shlex.join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _files(wanted: Declared, there: There, typed: Typed) -> Iterator[Finding]:
    for volume, files in wanted.files.items():
        found_there = there.files.get(volume)
        if found_there is None:
            continue  # without the volume or anybody who has it: that is told as missing
        users = [
            name
            for name, inputs in wanted.containers.items()
            if any(each.get("volumeName") == volume for each in inputs.get("volumes") or ())
        ]
        # Its service first, its carrier after it.
        users.sort(key=lambda name: name == volume)
        steps = _remade(*users, volume=volume)
        for path in sorted(files.keys() | found_there.keys()):
            before, now = files.get(path), found_there.get(path)
            if before != now:
                texts = [_file_text(each, before, now) for each in (before, now)]
                yield Finding(
                    name=users[0],
                    field=f"file {path}",
                    declared=texts[0],
                    found=texts[1],
                    repair=typed.line(*steps),
                    steps=steps,
                )


def _file_text(file: File | None, before: File | None, now: File | None) -> str:
    if file is None:
        return NOTHING
    if before and now and before.digest == now.digest:
        return f"mode {file.mode}"
    # Not its content: many are secrets. The digest of a secret of the stack's length tells nothing of it.
    return f"SHA-256 {file.digest[:16]}…"


def _strangers(wanted: Declared, there: There, environment: Environment, typed: Typed) -> Iterator[Finding]:
    prefix = f"{environment.prefix}-"
    for name, facts in there.containers.items():
        if name in wanted.containers:
            continue
        networks = sorted(facts.networks.keys() & wanted.networks.keys())
        ours = facts.labels.get(ENVIRONMENT_LABEL) == environment.name or name.startswith(prefix)
        volumes = there.holds.get(name, ())
        disconnect = " && ".join(f"{typed.docker} network disconnect {network} {name}" for network in networks)
        parts = [*networks, *([f"the inside of {there.inside[name]}"] if name in there.inside else ())]
        where = (f" on {', '.join(parts)}" if parts else "") + (f" with {', '.join(volumes)}" if volumes else "")
        yield Finding(
            name=name,
            field="",
            declared=NOTHING,
            found=f"a container{where}",
            # Who is in a part's network or has its secrets is not parted from them but by its end.
            repair=f"{typed.docker} rm --force {name}" if ours or volumes or name in there.inside else disconnect,
        )
    for name in there.networks.keys() - wanted.networks.keys():
        repair = f"{typed.docker} network rm {name}"
        yield Finding(name=name, field="", declared=NOTHING, found="a network", repair=repair)
    for name in there.volumes - wanted.volumes:
        # Who looks first loses nothing.
        repair = f"{typed.docker} volume inspect {name}; {typed.docker} volume rm {name}"
        yield Finding(name=name, field="", declared=NOTHING, found="a volume", repair=repair)


def _missing(name: str, what: str, repair: str) -> Finding:
    return Finding(name=name, field="", declared=what, found=NOTHING, repair=repair)


def of_preview(steps: Sequence[Mapping[str, Any]], known: Collection[str], typed: Typed) -> list[Finding]:
    """Return what Pulumi would change. known: names of which more has been said already."""
    findings = []
    for step in steps:
        kind = str(step["urn"]).split("::")[2].rpartition("$")[2]
        if step["op"] not in _CHANGES or kind.startswith(("pulumi:", "samokoder:")):
            continue
        states = [step.get(state) or {} for state in ("newState", "oldState")]
        names = [str((state.get("inputs") or {}).get("name") or "") for state in states]
        name = next(filter(None, names), str(step["urn"]).rpartition("::")[2])
        if name in known:
            continue
        reasons = sorted({*(step.get("diffReasons") or ()), *(step.get("replaceReasons") or ())})
        changed = f": {', '.join(map(str, reasons))}" if reasons else ""
        findings.append(
            Finding(
                name=name,
                field=kind.rpartition(":")[2],
                declared=f"the program has it otherwise{changed}",
                found=f"what was deployed; `up` would {step['op']} it",
                repair=typed.up,
            )
        )
    return list(dict.fromkeys(findings))


def look(client: docker.DockerClient, wanted: Declared, environment: Environment, say: Callable[[str], None]) -> There:
    """Ask the engine for all that is declared or belongs to this environment. say: gets the name of each container."""
    names, prefix = wanted.containers, f"{environment.prefix}-"
    everything = client.containers.list(all=True, ignore_removed=True)
    # An environment whose name begins with this one's is somebody else's.
    environments = {each.labels.get(ENVIRONMENT_LABEL, "") for each in everything} - {environment.name}
    others = tuple(f"{PROJECT}-{each}-" for each in environments if each.startswith(f"{environment.name}-"))

    def ours(name: str) -> bool:
        return name.startswith(prefix) and not name.startswith(others)

    by_id = {str(each.attrs["Id"]): str(each.name) for each in everything}
    volumes = wanted.volumes | wanted.files.keys()
    inside: dict[str, str] = {}
    holds: dict[str, Sequence[str]] = {}
    images: dict[str, Mapping[str, Any]] = {}
    containers: dict[str, Facts] = {}
    image_of: dict[str, Mapping[str, Any]] = {}
    running: set[str] = set()
    files: dict[str, Files] = {}
    for container in everything:
        name, attributes = str(container.name), container.attrs
        of_networks = (attributes["NetworkSettings"].get("Networks") or {}).keys()
        label = container.labels.get(ENVIRONMENT_LABEL)
        belongs = name in names or label == environment.name or (not label and ours(name))
        host = next((each for each in _hosts(attributes, by_id) if each in names), "")
        mounted = sorted(_mounted(attributes) & volumes)
        if not (belongs or of_networks & wanted.networks.keys() or host or mounted):
            continue
        if name not in names:
            holds[name] = mounted
            if host:
                inside[name] = host
        say(name)
        if (image := str(attributes["Image"])) not in images:
            images[image] = client.images.get(image).attrs.get("Config") or {}
        containers[name], image_of[name] = found(attributes, images[image]), images[image]
        if attributes["State"]["Running"]:
            running.add(name)
        for path, mount in containers[name].mounts.items():
            # Each volume once, where its own service sees it; by the carrier where the service is not there.
            service = mount.source != name
            if name in names and mount.source in wanted.files and (service or mount.source not in files):
                files[mount.source] = _contents(container.get_archive(path)[0])
    aside = made_by_restores(client, environment)
    return There(
        containers=containers,
        running=frozenset(running),
        image_of=image_of,
        networks={
            str(each.name): each.attrs
            for each in client.networks.list()
            if each.name in wanted.networks or ours(str(each.name))
        },
        volumes=frozenset(
            each
            for each in volume_names(client)
            if each in wanted.volumes
            or (
                ours(each)
                and each not in aside
                and not any(is_(each, environment.prefix) for is_ in (is_lock, is_note))
            )
        ),
        files=files,
        inside=inside,
        holds=holds,
    )


def _mounted(attributes: Mapping[str, Any]) -> set[str]:
    """Return the names of the volumes that a container mounts, also by their folder on the host."""
    mounts = [(str(mount.get("Name") or ""), str(mount.get("Source") or "")) for mount in attributes["Mounts"]]
    folders = (re.search(r"/volumes/([^/]+)(/|$)", source) for _, source in mounts)
    return {name for name, _ in mounts if name} | {folder[1] for folder in folders if folder}


def _hosts(attributes: Mapping[str, Any], by_id: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of the containers whose network, processes or memory this one shares.

    It has written each by its id, the beginning of that, or the name. by_id: names of all containers.
    """
    for mode in ("NetworkMode", "PidMode", "IpcMode"):
        kind, _, host = str(attributes["HostConfig"].get(mode) or "").partition(":")
        if kind == "container" and host:
            yield from (name for each, name in by_id.items() if each.startswith(host) or name == host)


def _contents(chunks: Iterator[bytes]) -> Files:
    """Read the files of a folder from the engine's archive of it."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        for member in archive.getmembers():
            if member.isfile() and (content := archive.extractfile(member)):
                path = member.name.partition("/")[2]
                files[path] = File(digest=_digest(content.read()), mode=f"{member.mode & 0o7777:o}")
    return files


def drift(workspace: Workspace) -> list[Finding]:
    """Compare, and note for Prometheus what came of it.

    Raises ProjectError where nothing is up, PulumiFailedError where Pulumi's own comparison fails.
    """
    run = workspace.prepare(images=False)
    environment, reporter = workspace.settings(), workspace.reporter
    deployment = run.in_plain()
    wanted = read(deployment)
    if not wanted.containers:
        raise ProjectError(f"{workspace.name} is not up: {workspace.typed('up')}")
    typed = Typed(docker=docker_command(environment.settings.docker_host), up=workspace.typed("up"))
    client = workspace.client()
    try:
        with reporter.task("Comparing what runs with what is declared") as task:

            def say(name: str) -> None:
                task.detail = name

            findings = compare(wanted, look(client, wanted, environment, say), environment, typed)
        with reporter.task("Asking Pulumi what it would change"):
            said = run.pulumi("preview", "--refresh", "--json", capture=True).stdout
        steps = json.loads(said[said.index("{") :])["steps"]
        findings += of_preview(steps, {each.name for each in findings}, typed)
        secrets = every_generated_secret(deployment)
        findings = [replace(each, **_hidden(secrets, each.as_json())) for each in findings]
        if not _note(client, environment, len(findings)):
            reporter.say("node-exporter does not run: Prometheus is not told of this comparison")
        return findings
    finally:
        client.close()


def _hidden(secrets: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, Any]:
    return {key: without(secrets, text) for key, text in texts.items()}


def exposition(findings: int, now: float) -> str:
    """Return the two series that Prometheus gets, in its text format. now: seconds since 1970."""
    return (
        f"# HELP {node_exporter.DRIFT_FINDINGS} Differences that the last comparison found.\n"
        f"# TYPE {node_exporter.DRIFT_FINDINGS} gauge\n"
        f"{node_exporter.DRIFT_FINDINGS} {findings}\n"
        f"# HELP {node_exporter.DRIFT_CHECKED} When `samokoder drift` came to its end.\n"
        f"# TYPE {node_exporter.DRIFT_CHECKED} gauge\n"
        f"{node_exporter.DRIFT_CHECKED} {now:.0f}\n"
    )


def _note(client: docker.DockerClient, environment: Environment, findings: int) -> bool:
    """Write the series into node-exporter's folder; return whether that could be done.

    By a command in the container: on an engine that is reached over ssh there is no other way to a file, and the
    engine's own archive interface refuses a container with a read-only root.
    """
    import docker.errors  # noqa: PLC0415 - the SDK takes its time

    name = f"{environment.prefix}-{node_exporter.PART}"
    # Whole or not at all: node_exporter reads the folder at any moment, and only files that end in .prom.
    script = 'printf %s "$1" > "$2.new" && mv "$2.new" "$2"'
    words = ["sh", "-c", script, "sh", exposition(findings, time.time()), f"{node_exporter.TEXTFILES}/drift.prom"]
    with contextlib.suppress(docker.errors.APIError):
        return execute(client.containers.get(name), words)[0] == 0
    return False
