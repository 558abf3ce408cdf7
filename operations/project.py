"""A clone's working state, and Pulumi run in it.

`Workspace` says which environment, where its state lies and what differs from the committed stack file; it is plain
data, so a test describes one of its own with other ports and another folder. `Workspace.open` gives a `PulumiRun`
with Pulumi and the stack ready; `Workspace.prepare` brings the engine and its images up as well.

Pulumi runs in the state folder, in a project whose `main` is the clone. So `stack init`, `config` and `stack rm`, which
all write the stack file of their project, write the git-ignored copy and never a committed file.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic.alias_generators import to_camel

from offline.progress import Reporter
from operations import backend as places
from operations import kept, origins, recovery, stack_file, state_room
from operations.backend import Backend
from operations.basics import CHANGES
from operations.basics import ROOT as ROOT  # noqa: PLC0414 - many import it from here
from operations.basics import PulumiFailedError as PulumiFailedError  # noqa: PLC0414 - many import it from here
from operations.basics import typed as typed  # noqa: PLC0414 - many import it from here
from operations.engine import (
    DEFAULT_DOCKER_HOST,
    PING_TIMEOUT_SECONDS,
    EngineInfo,
    cache_directory,
    connect,
    containerd_of_remote,
    ensure_engine,
)
from operations.origins import third_party_images, used_images
from operations.stack_file import Document, ProjectError
from stack.settings import Environment, Settings, key_of

if TYPE_CHECKING:
    import docker

_PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
_SAY_EVERY_SECONDS = 10.0
#: For the checks before the engine has said what its host has.
_ANY_HOST = {"memoryMib": 2**30, "cpus": 2**16}
_LOGINS_AT_ONCE = "8"
"""An sshd refuses at random from ten logins on that are not through yet (MaxStartups), and each request may be one."""
_STEPS_AT_ONCE = "64"
"""Most of an `up` waits for health, which needs no processor. Pulumi's default, four for each core, lets eight
containers that wait on two cores keep all others back."""
_TURN_SECONDS = 0.5


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
    def _machine_file(self) -> Path:
        return self.folder / f"machine.{self.name}.yaml"

    def committed(self) -> Document:
        """Return the committed stack file. Raises ProjectError when there is none."""
        return stack_file.committed(self.committed_folder, self.environment)

    def document(self) -> Document:
        """Return the stack file that Pulumi works with, from the committed one and what is known of this machine."""
        return stack_file.merged(
            self.committed(),
            machine=stack_file.load(self._machine_file),
            extra=self.extra_config,
            encryption=stack_file.encryption_of(stack_file.load(self.stack_file)),
        )

    def settings(self, *, on_this_machine: bool = True) -> Environment:
        """Read and check the settings. Raises InvalidSettingsError with every mistake at once.

        on_this_machine: with what earlier runs found out about this machine (images without a registry, its memory).
        Without it, limits are not checked against a host that an earlier run has noted: it may have grown since.
        """
        machine = stack_file.load(self._machine_file)
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
        from operations.tools import ensure_pulumi  # noqa: PLC0415 - httpx: `status` must stay fast

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
        run = PulumiRun(
            workspace=self,
            program=command.program,
            variables=command.variables,
            backend=backend,
            folder=self.folder,
        )
        return replace(run, variables={**run.variables, **self._passphrase(document, run)})

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
            from operations import old_images, registry  # noqa: PLC0415 - `status` must stay fast

            with contextlib.closing(connect(engine.docker_host, timeout=None)) as client:
                if note:
                    old_images.note(client, environment, self.reporter.say)
                if self.variables.get("OFFLINE") != "1":
                    registry.pull(client, used_images(environment), say=self.reporter.say)
        return self.open()

    def _note(self, machine: Document) -> None:
        stack_file.write(self._machine_file, stack_file.dump(machine, source="this machine and its engine"))

    def _tell_made_anew(self, environment: Environment, engine: EngineInfo) -> None:
        from operations.network import host_script, ipv6, replacement  # noqa: PLC0415 - `status` must stay fast

        if why := ipv6.refusal(environment, engine.version):
            raise ProjectError(f"Nothing was replaced: {why}")
        with contextlib.closing(connect(engine.docker_host)) as client:
            if replacement.gets_ipv6(environment, client) and (
                why := ipv6.forgets(host_script.words(engine.docker_host, ipv6.SCRIPT))
            ):
                raise ProjectError(f"Nothing was replaced: {why}")
            if said := replacement.told(environment, client):
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
        """The user's DOCKER_HOST, unless the configuration names an engine."""
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
                known = stack_file.load(self._machine_file).get(key_of("cadvisor")) or {}
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
            return recovery.checkpoint(backend.folder, self.name) or {}
        return self.open().deployment()

    def _built_here(self, environment: Environment, engine: EngineInfo) -> list[str]:
        """Return the names of the images that are built here: OFFLINE says so, or their registry does not answer."""
        from offline import registries  # noqa: PLC0415 - httpx: `status` must stay fast
        from operations.containers import has_images  # noqa: PLC0415 - as above

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
        from offline.images.ensure import ensure_images  # noqa: PLC0415 - httpx: `status` must stay fast
        from operations.tools import found_pulumi  # noqa: PLC0415 - as above

        known = (stack_file.load(self._machine_file).get(key_of("images"))) or {}
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


@dataclass(frozen=True, kw_only=True)
class PulumiRun:
    """Pulumi, ready to be run on one stack."""

    workspace: Workspace
    program: str
    variables: Mapping[str, str]
    backend: Backend
    folder: Path
    """Folder of the project that it runs in."""

    def pulumi(
        self,
        *words: str,
        check: bool = True,
        capture: bool = False,
        show: Callable[[str], None] | None = None,
        given: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one Pulumi command on this stack, its output going where ours goes.

        capture: return both streams in the result in place of showing them. show: gets each line of both streams.
        given: its standard input, for a secret, which no command line may have; its output is captured.
        Raises PulumiFailedError when it fails and `check` is on, ProjectError where it would change a state that has
        been moved away since this was opened. An interruption reaches Pulumi, which is waited for: it notes what it has
        begun.
        """
        if CHANGES & set(words[:1]):
            self.refuse_moved()
        if {"up", "update"} & set(words[:1]):
            state_room.refuse_full(self.backend, self.workspace.name)
        piped = capture or show is not None or given is not None
        with _sigint_not_ignored():
            process = subprocess.Popen(
                [self.program, *words],
                cwd=self.folder,
                env=dict(self.variables),
                text=True,
                stdin=subprocess.PIPE if given is not None else subprocess.DEVNULL if piped else None,
                stdout=subprocess.PIPE if piped else None,
                stderr=(subprocess.STDOUT if show else subprocess.PIPE) if piped else None,
                preexec_fn=partial(_ends_with, os.getpid()),  # noqa: PLW1509 - two system calls alone
            )
        with _interruptible(process):
            out, err = _follow(process, show) if show else _communicate(process, given)
        if check and process.returncode != 0:
            said = f":\n{(err or out).strip()[-2000:]}" if capture else ""
            raise PulumiFailedError(f"`pulumi {' '.join(words[:2])}` failed{said}")
        return subprocess.CompletedProcess(list(words), process.returncode, out or "", err or "")

    def in_clone(self) -> PulumiRun:
        """Return the same, run on the committed stack file: for a person's own `pulumi config set`."""
        return replace(self, folder=self.workspace.root)

    def ensure_stack(self, document: Document) -> None:
        """Write the stack file; make the stack where there is none, or find the salt of one that is there."""
        workspace = self.workspace
        teams = stack_file.encryption_of(workspace.committed())
        self._write(document)
        if not self._exists():
            words = ["stack", "init", workspace.name, "--no-select"]
            if provider := document.get("secretsprovider"):
                words += ["--secrets-provider", str(provider)]
            self.pulumi(*words, capture=True)
        elif not teams and (salt := recovery.salt(self.deployment())):
            # That of the copy may be of a state that this clone had before.
            document = {**document, "encryptionsalt": salt}
        # Pulumi has put the salt of a new stack into the file.
        self._write(stack_file.encryption_of(stack_file.load(workspace.stack_file)) | document)

    def _write(self, document: Document) -> None:
        source = f"Pulumi.{self.workspace.environment}.yaml"
        stack_file.write(self.workspace.stack_file, stack_file.dump(document, source=source))

    def _exists(self) -> bool:
        stacks = self.stacks()
        self.refuse_moved(stacks)
        return self.workspace.name in stacks

    def went_to(self, stacks: Sequence[str] | None = None) -> str | None:
        """Return where the state was moved to; None: it is here. stacks: those of this place, where they are known."""
        if self.backend.folder:
            return places.moved_to(self.backend) or None
        if places.MOVED_STACK not in (self.stacks() if stacks is None else stacks):
            return None
        return self.tags(places.MOVED_STACK).get(places.TO)

    def refuse_moved(self, stacks: Sequence[str] | None = None) -> None:
        """Raise ProjectError where the state has left this place, or has not come to it whole. stacks: as above."""
        stacks = self.stacks() if stacks is None else stacks
        if (to := self.went_to(stacks)) is not None:
            raise places.moved(self.backend, to)
        moves = self.backend.origin == places.MOVE
        if not moves and self.workspace.name in stacks and (tag := self.tags().get(places.COPY_OF)):
            raise places.unfinished(self.backend, self.workspace.name, tag, typed=self.workspace.typed)

    def tags(self, stack: str = "") -> dict[str, str]:
        """Return the tags of the stack by name. stack: another one than this."""
        if self.backend.folder:
            return recovery.tags(self.backend.folder, stack or self.workspace.name)
        words = ("--stack", stack) if stack else ()
        listed = self.pulumi("stack", "tag", "ls", "--json", *words, capture=True).stdout
        return {str(name): str(value) for name, value in json.loads(listed or "{}").items()}

    def stacks(self) -> list[str]:
        """Return the names of this project's stacks, sorted. Raises PulumiFailedError where it is not reached."""
        if self.backend.folder:
            return recovery.stacks(self.backend.folder)
        listed = json.loads(self.pulumi("stack", "ls", "--json", capture=True).stdout)
        return sorted(stack["name"].rpartition("/")[2] for stack in listed)

    def encrypted_stacks(self) -> list[str]:
        """Return the stacks whose secrets a passphrase opens, and this one also where that is not known yet."""
        own = self.workspace.name
        of_folder = self.backend.folder is not None
        return [name for name in self.stacks() if recovery.salt(self.deployment(name)) or (of_folder and name == own)]

    def deployment(self, stack: str = "") -> dict[str, Any]:
        """Return the stack's state, its secrets encrypted. stack: another one than this."""
        if self.backend.folder:
            return recovery.checkpoint(self.backend.folder, stack or self.workspace.name) or {}
        words = ("--stack", stack) if stack else ()
        exported = json.loads(self.pulumi("stack", "export", *words, capture=True).stdout)
        return dict(exported.get("deployment") or {})

    def secrets(self, *, every: bool = False) -> dict[str, str]:
        """Return the generated secrets by name (`grafana-admin`), in plain text.

        every: by slot (`grafana-admin-b`), also those that are not in use any more or not yet.
        """
        found = recovery.every_generated_secret if every else recovery.generated_secrets
        return found(self.in_plain())

    def in_plain(self) -> dict[str, Any]:
        """Return the stack's state with its secrets in plain text: not to be written or shown."""
        exported = json.loads(self.pulumi("stack", "export", "--show-secrets", capture=True).stdout)
        return dict(exported.get("deployment") or {})

    def configuration(self) -> dict[str, dict[str, Any]]:
        """Return what is configured by key, each with its `value` in plain text and whether it is a `secret`."""
        shown = self.pulumi("config", "--show-secrets", "--json", capture=True).stdout
        return dict(json.loads(shown))

    def settle(self) -> None:
        """Put an interrupted run right, so that the next command can go on.

        Waits for a process that is still at it, releases the lock of one that is gone, and after an interruption asks
        the engine what there really is; a data volume that is lost stays in the state, for `up` to tell. Raises
        ProjectError for a lock from another host.
        """
        stale = self._released()
        if not stale and not recovery.was_interrupted(self.deployment()):
            return
        reporter = self.workspace.reporter
        reporter.say("An earlier run was cut off: asking the engine what there really is")
        before = self.deployment()
        if begun := recovery.begun(before):
            from operations import containers  # noqa: PLC0415 - the Docker SDK takes its time, and few runs need it here

            # Before the refresh, which forgets what was begun: cut off in between, the next run finds it still.
            client = self.workspace.client()
            try:
                removed = containers.remove_begun(client, begun, recovery.known_ids(before), reporter)
            finally:
                client.close()
            for name in removed:
                reporter.say(f"removed {name}: it was made, but not noted, before the run was cut off")
        # But for the data volumes: the state would forget one that is lost, and with it that there ever was one.
        kept = [word for urn in recovery.data_urns(before) for word in ("--exclude", urn)]
        with reporter.task("pulumi refresh"):
            self.pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", *kept, capture=True)

    def mend(self) -> None:
        """Make the state readable again after a Pulumi that was killed while it wrote; nothing where one is at it."""
        folder, name = self.backend.folder, self.workspace.name
        if folder and all(lock.is_stale() for lock in recovery.locks(folder, name)) and recovery.mend(folder, name):
            self.workspace.reporter.say("An earlier run was killed while it wrote its state: mended")

    def _released(self) -> bool:
        """Wait for live locks and release stale ones; return whether there was a stale one."""
        if self.backend.folder is None:
            return False
        said = -_SAY_EVERY_SECONDS
        while found := recovery.locks(self.backend.folder, self.workspace.name):
            if all(lock.is_stale() for lock in found):
                self.workspace.reporter.say("Releasing the lock of a run that is gone (`pulumi cancel`)")
                self.mend()  # the run may have ended while we waited for it
                self.pulumi("cancel", "--yes", capture=True)
                return True
            other = next((lock for lock in found if not lock.is_here), None)
            if other:
                cancel = self.workspace.typed("pulumi ARGS='cancel --yes'")
                raise ProjectError(
                    f"The stack {self.workspace.name!r} is locked since {other.since} by process {other.process} on "
                    f"{other.host}. Wait for it; if nobody runs there any more: {cancel}"
                )
            if time.monotonic() - said >= _SAY_EVERY_SECONDS:
                said = time.monotonic()
                live = next(lock for lock in found if not lock.is_stale())
                self.workspace.reporter.say(
                    f"Pulumi (process {live.process}, since {live.since}) is at this stack: waiting for it. "
                    f"Ctrl-C ends this wait; `kill -INT {live.process}` ends the other run."
                )
            time.sleep(0.5)
        return False


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _ends_with(parent: int) -> None:
    """Have this process asked to end, as by Ctrl-C, when the one that started it dies: it would change on, unlocked."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before this was asked for
            os._exit(1)


@contextlib.contextmanager
def _sigint_not_ignored() -> Iterator[None]:
    """Let a process that is started see SIGINT where we were told to ignore it, as `nohup make up &` is by the shell.

    Pulumi asks its plugins to end by a SIGINT and kills them five seconds later: each command would take those longer.
    """
    ignored = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    )
    if ignored:
        signal.signal(signal.SIGINT, lambda *_: None)  # a handler is no longer one after exec; to ignore is inherited
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _interruptible(process: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for the process whatever happens to us, and hand on what it does not see itself.

    A Ctrl-C at a terminal reaches Pulumi too, and a second one would cut it off in the middle of an operation; a
    SIGTERM reaches us alone.
    """
    terminated = False

    def hand_on(_signal: int, _frame: object) -> None:
        nonlocal terminated
        terminated = True
        process.send_signal(signal.SIGINT)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, hand_on) if in_main_thread else None
    try:
        yield
    finally:
        _wait(process)
        if process.stdout:
            process.stdout.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    if terminated:
        raise SystemExit(128 + signal.SIGTERM)


def _communicate(process: subprocess.Popen[str], given: str | None = None) -> tuple[str, str]:
    """Give the process its standard input, wait for it, and return what it printed where that is captured.

    In short turns: a signal that comes just before a blocking call is seen only when that call returns.
    """
    stdin, process.stdin = process.stdin, None
    if stdin:
        # Beside that: `communicate` forgets in its second turn what did not fit into the pipe in the first.
        threading.Thread(target=_give, args=(stdin, given or ""), daemon=True).start()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_TURN_SECONDS)


def _give(stdin: IO[str], text: str) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:
        stdin.write(text)


def _wait(process: subprocess.Popen[str]) -> None:
    """Wait for the process, in short turns as above."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_TURN_SECONDS)
            return


def _follow(process: subprocess.Popen[str], show: Callable[[str], None]) -> tuple[str, str]:
    """Wait for the process and show its lines as they come; return them all."""
    lines: list[str] = []

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            show(line.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    _wait(process)
    reader.join()
    return "".join(lines), ""
