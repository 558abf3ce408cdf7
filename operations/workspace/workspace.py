"""A clone's working state, and Pulumi run in it.

`Workspace` says which environment, where its state lies and what differs from the committed stack file; it is plain
data, so a test describes one of its own with other ports and another folder. `Workspace.open` gives a `PulumiRun`
with Pulumi and the stack ready.

Pulumi runs in the state folder, in a project whose `main` is the clone. So `stack init`, `config` and `stack rm`, which
all write the stack file of their project, write the git-ignored copy and never a committed file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.alias_generators import to_camel

from host.cache import cache_directory
from host.daemon import ensure_engine
from host.engine import DEFAULT_DOCKER_HOST, PING_TIMEOUT_SECONDS, EngineInfo, connect, containerd_of_remote
from host.progress import Reporter
from operations.clone import ROOT, typed
from operations.engine.images import third_party_images, used_images
from operations.errors import ProjectError
from operations.workspace import backend as places
from operations.workspace import kept, origins, pulumi_state, stack_file, state_room
from operations.workspace.backend import Backend
from operations.workspace.pulumi import PulumiRun
from operations.workspace.stack_file import Document
from stack.settings import Environment, Settings, key_of

if TYPE_CHECKING:
    import docker

_PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
#: For the checks before the engine has said what its host has.
_ANY_HOST = {"memoryMib": 2**30, "cpus": 2**16}
_LOGINS_AT_ONCE = "8"
"""An sshd refuses at random from ten logins on that are not through yet (MaxStartups), and each request may be one."""
_STEPS_AT_ONCE = "64"
"""Most of an `up` waits for health, which needs no processor. Pulumi's default, four for each core, lets eight
containers that wait on two cores keep all others back."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One environment of one clone, as the `samokoder` command works with it."""

    environment: str = "staging"
    """Whose committed stack file, `Pulumi.<environment>.yaml`, is the base."""
    root: Path = ROOT
    """The clone."""
    home: Path | None = None
    """Folder of the working state; default `.samokoder` in the clone."""
    stack_files: Path | None = None
    """Folder of the committed stack files; default the clone."""
    stack: str = ""
    """Name of the Pulumi stack, and so of everything on the engine; default the environment's."""
    extra_config: Mapping[str, Any] = field(default_factory=dict)
    """Configuration that wins over the committed file: `{"samokoder:ingress": {"port": 18000}}`."""
    isolated: bool = False
    """Whether the user's own backend, passphrase and DOCKER_HOST are ignored, so that a test cannot reach them."""
    variables: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment that everything is run in."""
    cache: Path = field(default_factory=cache_directory)
    reporter: Reporter = field(default_factory=Reporter)

    @property
    def name(self) -> str:
        """The Pulumi stack's name."""
        return self.stack or self.environment

    @property
    def folder(self) -> Path:
        """Folder of the working state."""
        return self.home or self.root / ".samokoder"

    @property
    def stack_file(self) -> Path:
        """The copy of the stack file that Pulumi works with."""
        return self.folder / f"Pulumi.{self.name}.yaml"

    @property
    def committed_folder(self) -> Path:
        """The folder of the committed stack files of all environments."""
        return self.stack_files or self.root

    @property
    def committed_file(self) -> Path:
        """The committed stack file."""
        return self.committed_folder / f"Pulumi.{self.environment}.yaml"

    @property
    def machine_file(self) -> Path:
        """What earlier runs have found out about this machine and its engine."""
        return self.folder / f"machine.{self.name}.yaml"

    def committed(self) -> Document:
        """Return the committed stack file. Raises ProjectError when there is none."""
        return stack_file.committed(self.committed_folder, self.environment)

    def document(self) -> Document:
        """Return the stack file that Pulumi works with, from the committed one and what is known of this machine."""
        return stack_file.merged(
            self.committed(),
            machine=stack_file.load(self.machine_file),
            extra=self.extra_config,
            encryption=stack_file.encryption_of(stack_file.load(self.stack_file)),
        )

    def settings(self, *, on_this_machine: bool = True) -> Environment:
        """Read and check the settings. Raises InvalidSettingsError with every mistake at once.

        on_this_machine: with what earlier runs found out about this machine (images without a registry, its memory).
        Without it, limits are not checked against a host that an earlier run has noted: it may have grown since.
        """
        machine = stack_file.load(self.machine_file)
        if not on_this_machine:
            machine = {key_of("host"): _ANY_HOST} if key_of("host") in machine else {}
        return stack_file.read(self.name, stack_file.merged(self.committed(), machine=machine, extra=self.extra_config))

    def typed(self, words: str) -> str:
        """Return a command of `make` as a person types it for this environment."""
        return typed(self.environment, words)

    def client(self, *, timeout: float = PING_TIMEOUT_SECONDS) -> docker.DockerClient:
        """Connect to the environment's engine. timeout: seconds for one answer. Raises EngineError when none comes."""
        return connect(self.settings().settings.docker_host, timeout=timeout)

    def backend(self) -> Backend:
        """Return where the state is: the user's own choice where there is one, else a folder of this clone."""
        own = places.own(self.folder)
        return own if self.isolated else places.chosen(self.root, self.variables) or own

    def open(self) -> PulumiRun:
        """Return Pulumi with the stack ready, made where there is none. Neither engine nor images are needed for it.

        Raises ProjectError where the state has been moved away, or the passphrase of one that is there is missing.
        """
        run = self.connected()
        run.mend()
        run.ensure_stack(self.document())
        return run

    def open_copy(self) -> PulumiRun:
        """Return Pulumi on a copy that nobody can finish any more, to let it be used.

        Raises ProjectError where the state has left that place, or nothing is in the copy.
        """
        run = self.connected()
        if (to := run.went_to()) is not None:
            raise places.moved(run.backend, to)
        if not run.deployment().get("resources"):
            raise places.empty_copy(run.backend, self.name)
        return run

    def connected(self, backend: Backend | None = None) -> PulumiRun:
        """Return Pulumi as it is without any stack. backend: another one than this environment's.

        Raises ProjectError where the folder of somebody's choice is not there.
        """
        from operations.workspace.pulumi_cli import ensure_pulumi  # noqa: PLC0415 - httpx: `status` must stay fast

        document = self.document()
        backend = backend or self.backend()
        variables = {
            name: value for name, value in self.variables.items() if not (self.isolated and name in _PASSPHRASE)
        }
        if backend.url:
            variables[places.VARIABLE] = backend.url
        variables["PULUMI_STACK"] = self.name
        # The provider would take it before the engine that the program names.
        variables.pop("DOCKER_CONTEXT", None)
        by_ssh = str(document["config"].get(key_of("docker_host"))).startswith("ssh://")
        variables.setdefault("PULUMI_PARALLEL", _LOGINS_AT_ONCE if by_ssh else _STEPS_AT_ONCE)
        if backend.folder and not backend.folder.is_dir():
            if not (backend.may_be_made or backend.folder == places.own(self.folder).folder):
                raise ProjectError(f"{backend} is not there: is it mounted? Make the folder yourself for a new state.")
            backend.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ensure_pulumi(cache=self.cache, variables=variables, reporter=self.reporter)
        self._write_project()
        run = self.pulumi_by(command.program, command.variables, backend)
        return replace(run, variables={**run.variables, **self._passphrase(document, run)})

    def pulumi_by(self, program: str, variables: Mapping[str, str], backend: Backend) -> PulumiRun:
        """Return Pulumi as this program with these variables runs it on this environment's stack."""
        return PulumiRun(
            stack=self.name,
            environment=self.environment,
            root=self.root,
            committed_folder=self.committed_folder,
            stack_file=self.stack_file,
            reporter=self.reporter,
            program=program,
            variables=variables,
            backend=backend,
            folder=self.folder,
        )

    def prepare(self, *, images: bool = True, note: bool = False) -> PulumiRun:
        """Return Pulumi with the stack, the engine and what this machine adds ready: all that `up` needs.

        images: build what no registry can give here; without it only what is there is looked at, as a preview does.
        note: which images the engine lacks now, on the engine, for an `up` that removes them one day.
        Raises InvalidSettingsError before anything is installed or started, ProjectError where images of another origin
        would take the place of those that run.
        """
        self.settings(on_this_machine=False)
        if images:
            state_room.refuse_full(self.backend(), self.name)
        engine = self.engine()
        # Read with what this engine is, but without the images of an earlier run: they are looked for anew.
        machine = self._of_engine(engine, ask=images)
        environment = stack_file.read(
            self.name, stack_file.merged(self.committed(), machine=machine, extra=self.extra_config)
        )
        built_here = self._built_here(environment, engine)
        deployment = self._deployment()
        origins.refuse_others(
            environment,
            deployment,
            built_here=built_here,
            typed=self.variables.get("OFFLINE", ""),
            command=self.typed("up"),
        )
        if built_here:
            machine = stack_file.fill(machine, self._of_images(built_here, engine, build=images))
        self._note(machine)
        environment = self.settings()
        if volumes := kept.volumes(environment, deployment, file=self.committed_file.name):
            self._note({**machine, key_of("kept_volumes"): volumes})
            environment = self.settings()
        self._tell_made_anew(environment, engine)
        if images:
            from operations.engine import old_images, registry  # noqa: PLC0415 - `status` must stay fast

            with contextlib.closing(connect(engine.docker_host, timeout=None)) as client:
                if note:
                    old_images.note(client, environment, self.reporter.say)
                if self.variables.get("OFFLINE") != "1":
                    registry.pull(client, used_images(environment), say=self.reporter.say)
        return self.open()

    def _note(self, machine: Document) -> None:
        stack_file.write(self.machine_file, stack_file.dump(machine, source="this machine and its engine"))

    def _tell_made_anew(self, environment: Environment, engine: EngineInfo) -> None:
        from operations import host_said, ipv6, made_anew  # noqa: PLC0415 - `status` must stay fast

        if why := ipv6.refusal(environment, engine.version):
            raise ProjectError(f"Nothing was replaced: {why}")
        with contextlib.closing(connect(engine.docker_host)) as client:
            if made_anew.gets_ipv6(environment, client) and (
                why := ipv6.forgets(host_said.words(engine.docker_host, ipv6.SCRIPT))
            ):
                raise ProjectError(f"Nothing was replaced: {why}")
            if said := made_anew.told(environment, client):
                self.reporter.say(said)

    def engine(self) -> EngineInfo:
        """Return the environment's engine, brought up where there is none and that can be done without asking."""
        engine = ensure_engine(self.docker_host(), report=self.reporter.say, cache=self.cache)
        if engine.clocks_differ:
            self.reporter.say(engine.clocks_differ)
        return engine

    def docker_host(self) -> str:
        """Return where `up` looks for the engine. Raises InvalidSettingsError."""
        return self._users_docker_host() or self.settings(on_this_machine=False).settings.docker_host

    def _users_docker_host(self) -> str:
        """Return the user's DOCKER_HOST, unless the configuration names an engine."""
        configured = stack_file.merged(self.committed(), machine={}, extra=self.extra_config)["config"]
        if self.isolated or key_of("docker_host") in configured:
            return ""
        return self.variables.get("DOCKER_HOST", "")

    def _of_engine(self, engine: EngineInfo, *, ask: bool) -> Document:
        """What this machine adds to the configuration: facts about its engine.

        ask: find out what takes a container of its own; without it an earlier run's answer is taken.
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
                known = stack_file.load(self.machine_file).get(key_of("cadvisor")) or {}
                containerd = known.get("containerdSocket")
        found = {
            "containerdSocket": (containerd, usual.containerd_socket),
            "dataRoot": (engine.data_root, usual.data_root),
        }
        if other := {name: value for name, (value, default) in found.items() if value and value != default}:
            machine[key_of("cadvisor")] = other
        configured = stack_file.merged(self.committed(), machine={}, extra=self.extra_config)["config"]
        if key_of("host") not in configured and engine.memory_bytes and engine.cpus:
            machine[key_of("host")] = {"memoryMib": engine.memory_bytes // 2**20, "cpus": engine.cpus}
        return machine

    def _deployment(self) -> Document:
        """Return the stack's state, its secrets encrypted; empty where there is none yet."""
        backend = self.backend()
        if backend.folder:
            return pulumi_state.checkpoint(backend.folder, self.name) or {}
        return self.open().deployment()

    def _built_here(self, environment: Environment, engine: EngineInfo) -> list[str]:
        """Return the names of the images that are built here: OFFLINE says so, or their registry does not answer."""
        from offline import registries  # noqa: PLC0415 - httpx: `status` must stay fast
        from operations.engine.images import has_images  # noqa: PLC0415 - as above

        names = third_party_images(environment)
        match self.variables.get("OFFLINE"):
            case "1":
                self.reporter.say("OFFLINE=1: no container registry is asked")
                return names
            case "0":
                return []
        pinned = {name: environment.image(name) for name in names}  # type: ignore[arg-type]
        with contextlib.closing(connect(engine.docker_host)) as client:
            if has_images(client, pinned.values()):
                return []
        if not engine.docker_host.startswith("unix://"):
            self.reporter.say("Asking that host whether it reaches the container registries")
        lost = registries.unreachable(pinned, engine)
        for registry, images in lost.items():
            self.reporter.say(f"The registry {registry} cannot be reached; it has {', '.join(images)}")
        return [name for images in lost.values() for name in images]

    def _of_images(self, names: list[str], engine: EngineInfo, *, build: bool) -> Document:
        """What this machine adds for the images that are built here: their ids, and the parts without an image."""
        from offline.images import ensure_images  # noqa: PLC0415 - httpx: `status` must stay fast
        from operations.workspace.pulumi_cli import found_pulumi  # noqa: PLC0415 - as above

        known = (stack_file.load(self.machine_file).get(key_of("images"))) or {}
        wanted = names if build else [name for name in names if name == "grafana"]
        # It takes the longest of all that is built: beside the images, both cores are busy to the end.
        pulumi = build and found_pulumi(cache=self.cache, variables=self.variables, reporter=self.reporter) is None
        made = ensure_images(
            wanted, cache=self.cache, docker_host=engine.docker_host, progress=self.reporter, pulumi=pulumi
        )
        for name, reason in made.unavailable.items():
            self.reporter.say(f"{name}: not available here ({reason})")
        images = {to_camel(name): image for name, image in made.ids.items()}
        if not build:
            images = {name: known[name] for name in map(to_camel, names) if name in known} | images
            if missing := [name for name in names if to_camel(name) not in images and name not in made.unavailable]:
                self.reporter.say(f"Images that `{self.typed('up')}` will build: {', '.join(missing)}")
        machine: Document = {}
        if images:
            machine[key_of("images")] = images
        if made.unavailable:
            machine[key_of("unavailable")] = sorted(made.unavailable)
        return machine

    def _passphrase(self, document: Document, run: PulumiRun) -> dict[str, str]:
        """Return what names the passphrase, where the user's variables do not: this clone's, made with a new state."""
        if not self.isolated and (any(name in self.variables for name in _PASSPHRASE) or "secretsprovider" in document):
            return {}
        file = self.folder / "passphrase"
        if not file.is_file():
            teams = f"Put it into {file}, or into a file that {_PASSPHRASE[1]} names."
            if "encryptionsalt" in self.committed():
                raise ProjectError(
                    f"The secrets of Pulumi.{self.environment}.yaml are encrypted with your team's passphrase. {teams}"
                )
            if encrypted := run.encrypted_stacks():
                if run.backend.origin == places.OWN:
                    raise ProjectError(
                        f"The passphrase of this state is gone: {file} is not there. Put it back; without it the "
                        "state's secrets cannot be read."
                    )
                raise ProjectError(
                    f"The secrets of {', '.join(encrypted)} in {run.backend} are encrypted with your team's "
                    f"passphrase. {teams}"
                )
            stack_file.write(file, secrets.token_urlsafe(48))
            # A salt from before belongs to a passphrase that is gone.
            for copy in self.folder.glob("Pulumi.*.yaml"):
                copy.unlink()
        return {_PASSPHRASE[1]: str(file.absolute())}

    def _write_project(self) -> None:
        """Write the project that Pulumi runs in: the clone's own, with the clone as its program."""
        project = stack_file.load(self.root / "Pulumi.yaml")
        project["main"] = str(self.root)
        # The virtual environment is named relative to the clone; here it is first on PATH instead.
        project["runtime"] = {"name": "python", "options": {"toolchain": "pip"}}
        project.pop("backend", None)
        stack_file.write(self.folder / "Pulumi.yaml", stack_file.dump(project, source="Pulumi.yaml"))
