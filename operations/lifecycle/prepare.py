"""Get ready what an `up` needs: the engine, the images, and what this machine adds to the configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from host.engine import DEFAULT_DOCKER_HOST, EngineInfo, connect, containerd_of_remote
from offline import registries
from offline.images.ensure import ensure_images
from operations.engine import old_images, registry
from operations.engine.images import has_images, third_party_images, used_images
from operations.errors import ProjectError
from operations.network import host_script, ipv6, mtu, replacement
from operations.workspace import kept, origins, pulumi_state, stack_file, state_room
from operations.workspace.pulumi import PulumiRun
from operations.workspace.pulumi_cli import found_pulumi
from operations.workspace.stack_file import Document
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.settings.tree import Settings


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Pulumi, ready for `up`, and what the images and the data volumes in the state were judged by."""

    run: PulumiRun
    facts: Document
    """What this machine adds, without images that are built here."""
    built_here: Sequence[str]
    machine: Document
    """What this machine adds, with those images, without data volumes that are kept."""
    kept_volumes: Mapping[str, str]


def prepare(workspace: Workspace, *, images: bool = True) -> PulumiRun:
    """Return Pulumi, ready for `up`. images, errors: as for `prepared`."""
    return prepared(workspace, images=images).run


def prepared(workspace: Workspace, *, images: bool = True, note: bool = False) -> Prepared:
    """Prepare the stack, the engine and what this machine adds to the configuration.

    images: build the images that no registry can give here; without it only existing images are used, as in a preview.
    note: note on the engine which images it lacks now, so that a later `up` may remove them.
    Raises InvalidSettingsError before anything is installed or started, ProjectError where images of another origin
    would replace those that run, or where the stack does not run on this kind of engine.
    """
    workspace.settings(on_this_machine=False)
    if images:
        state_room.refuse_full(workspace.backend(), workspace.name)
    engine = workspace.engine()
    deployment, tags = _state(workspace)
    if why := engine.other_users:
        if not (pulumi_state.known_names(deployment) or pulumi_state.data_volumes(deployment)):
            raise ProjectError(f"Nothing was changed: {why}")
        # An environment that an earlier version brought up there can still be changed.
        workspace.reporter.say(f"Warning: {why}. First: {workspace.typed('backup')}, and a copy on another machine")
    # The settings are read with the facts of this engine, but without the images of an earlier run, which may be gone.
    facts = _of_engine(workspace, engine, ask=images)
    environment = _read(workspace, facts)
    if largest := _of_networks(environment, engine):
        facts = stack_file.fill(facts, largest)
        # Settings that do not go with it are refused before any image is built, and before a file says it.
        environment = _read(workspace, facts)
    machine = facts
    built_here = _built_here(workspace, environment, engine)
    origins.refuse_others(
        environment,
        deployment,
        tags,
        built_here=built_here,
        typed=workspace.variables.get("OFFLINE", ""),
        command=workspace.typed("up"),
    )
    if built_here:
        machine = stack_file.fill(machine, _of_images(workspace, built_here, engine, build=images))
    _note(workspace, machine, {})
    environment = workspace.settings()
    if volumes := kept.volumes(environment, deployment, file=workspace.committed_file.name):
        _note(workspace, machine, volumes)
        environment = workspace.settings()
    _tell_made_anew(workspace, environment, engine)
    if images:
        with contextlib.closing(connect(engine.docker_host, timeout=None)) as client:
            if note:
                old_images.note(client, environment, workspace.reporter.say)
            if workspace.variables.get("OFFLINE") != "1":
                registry.pull(client, used_images(environment), say=workspace.reporter.say)
    return Prepared(run=workspace.open(), facts=facts, built_here=built_here, machine=machine, kept_volumes=volumes)


def refuse_changed(workspace: Workspace, by: Prepared) -> None:
    """Raise ProjectError where another run has changed the stack's images or data volumes since `prepared`.

    The caller holds the environment's lock, which `prepared` did not while it built images for minutes. by: its answer.
    It is noted again, and given to Pulumi, because a run in the same clone may have written another one meanwhile.
    """
    deployment, tags = _state(workspace)
    again = f"{workspace.name} was changed by another run meanwhile, so nothing was changed. Run it again"
    try:
        origins.refuse_others(
            _read(workspace, by.facts),
            deployment,
            tags,
            built_here=by.built_here,
            typed=workspace.variables.get("OFFLINE", ""),
            command=workspace.typed("up"),
        )
        volumes = kept.volumes(_read(workspace, by.machine), deployment, file=workspace.committed_file.name)
    except ProjectError as error:
        raise ProjectError(f"{again}:\n{error}") from None
    if volumes != by.kept_volumes:
        raise ProjectError(f"{again}: it has other data volumes than before")
    _note(workspace, by.machine, volumes)
    by.run.ensure_stack(workspace.document())


def _read(workspace: Workspace, machine: Document) -> Environment:
    document = stack_file.merged(workspace.committed(), machine=machine, extra=workspace.extra_config)
    return stack_file.read(workspace.name, document)


def _note(workspace: Workspace, machine: Document, kept_volumes: Mapping[str, str]) -> None:
    machine = {**machine, **({key_of("kept_volumes"): dict(kept_volumes)} if kept_volumes else {})}
    stack_file.write(workspace.machine_file, stack_file.dump(machine, source="this machine and its engine"))


def _tell_made_anew(workspace: Workspace, environment: Environment, engine: EngineInfo) -> None:
    if why := ipv6.refusal(environment, engine.version):
        raise ProjectError(f"Nothing was replaced: {why}")
    with contextlib.closing(connect(engine.docker_host)) as client:
        if replacement.gets_ipv6(environment, client):
            said = host_script.words(engine.docker_host, ipv6.SCRIPT)
            why = ipv6.forgets(said)
            if workspace.variables.get(ipv6.KEPT) != "stays":
                why = why or ipv6.unasked(said, engine.docker_host, workspace.typed("up"))
            if why:
                raise ProjectError(f"Nothing was replaced: {why}")
        if told := replacement.replacement_notice(environment, client):
            workspace.reporter.say(told)


def _of_engine(workspace: Workspace, engine: EngineInfo, *, ask: bool) -> Document:
    """Return what this machine adds to the configuration: facts about its engine.

    ask: find out what needs a container to find out; without it the answer of an earlier run is used.
    """
    machine: Document = {}
    if engine.docker_host != DEFAULT_DOCKER_HOST:
        machine[key_of("docker_host")] = engine.docker_host
    if engine.knows_start_interval:
        machine[key_of("start_interval")] = True
    usual = Settings.model_fields["cadvisor"].get_default(call_default_factory=True)
    containerd = engine.containerd_socket
    if containerd is None and not engine.docker_host.startswith("unix://"):
        if ask:
            with contextlib.closing(connect(engine.docker_host)) as client:
                containerd = containerd_of_remote(client)
        else:
            known = stack_file.load(workspace.machine_file).get(key_of("cadvisor")) or {}
            containerd = known.get("containerdSocket")
    found = {
        "containerdSocket": (containerd, usual.containerd_socket),
        "dataRoot": (engine.data_root, usual.data_root),
    }
    if other := {name: value for name, (value, default) in found.items() if value and value != default}:
        machine[key_of("cadvisor")] = other
    configured = stack_file.merged(workspace.committed(), machine={}, extra=workspace.extra_config)["config"]
    if key_of("host") not in configured and engine.memory_bytes and engine.cpus:
        machine[key_of("host")] = {"memoryMib": engine.memory_bytes // 2**20, "cpus": engine.cpus}
    return machine


def _of_networks(environment: Environment, engine: EngineInfo) -> Document:
    """Return the largest packet of networks that `up` makes, where it is neither set nor the engine's own."""
    with contextlib.closing(connect(engine.docker_host)) as client:
        largest = mtu.of_new(environment, client)
    return {key_of("network"): {"uplinkMtu": largest}} if largest else {}


def _state(workspace: Workspace) -> tuple[Document, Callable[[], Mapping[str, str]]]:
    """Return the stack's state, its secrets encrypted, and what asks for its tags; both empty where there is none yet.

    Of a bucket Pulumi is asked for the tags, which takes a second.
    """
    folder = workspace.backend().folder
    if folder:
        deployment = pulumi_state.checkpoint(folder, workspace.name) or {}
        return deployment, lambda: pulumi_state.tags(folder, workspace.name)
    run = workspace.open()
    return run.deployment(), run.tags


def _built_here(workspace: Workspace, environment: Environment, engine: EngineInfo) -> list[str]:
    """Return the names of the images to build here, because OFFLINE says so or their registry does not answer."""
    names = third_party_images(environment)
    match workspace.variables.get("OFFLINE"):
        case "1":
            workspace.reporter.say("OFFLINE=1: no container registry is asked")
            return names
        case "0":
            return []
    pinned = {name: environment.image(name) for name in names}
    with contextlib.closing(connect(engine.docker_host)) as client:
        if has_images(client, pinned.values()):
            return []
    if not engine.docker_host.startswith("unix://"):
        workspace.reporter.say("Asking that host whether it reaches the container registries")
    lost = registries.unreachable(pinned, engine)
    for registry_name, images in lost.items():
        workspace.reporter.say(f"The registry {registry_name} cannot be reached; it has {', '.join(images)}")
    return [name for images in lost.values() for name in images]


def _of_images(workspace: Workspace, names: list[str], engine: EngineInfo, *, build: bool) -> Document:
    """Return what this machine adds for the images that are built here: their ids, and the parts without an image."""
    known = (stack_file.load(workspace.machine_file).get(key_of("images"))) or {}
    wanted = names if build else [name for name in names if name == "grafana"]
    # Pulumi takes the longest to build: built beside the images, it keeps both cores busy to the end.
    pulumi = (
        build
        and found_pulumi(cache=workspace.cache, variables=workspace.variables, reporter=workspace.reporter) is None
    )
    made = ensure_images(
        wanted, cache=workspace.cache, docker_host=engine.docker_host, progress=workspace.reporter, pulumi=pulumi
    )
    for name, reason in made.unavailable.items():
        workspace.reporter.say(f"{name}: not available here ({reason})")
    images = {to_camel(name): image for name, image in made.ids.items()}
    if not build:
        images = {name: known[name] for name in map(to_camel, names) if name in known} | images
        if missing := [name for name in names if to_camel(name) not in images and name not in made.unavailable]:
            workspace.reporter.say(f"Images that `{workspace.typed('up')}` will build: {', '.join(missing)}")
    machine: Document = {}
    if images:
        machine[key_of("images")] = images
    if made.unavailable:
        machine[key_of("unavailable")] = sorted(made.unavailable)
    return machine
