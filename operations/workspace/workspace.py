"""A clone's working state, and Pulumi run in it.

`Workspace` says which environment, where its state is and what differs from the committed stack file. It is plain data,
so that a test can describe an environment with other ports and another folder. `Workspace.open` returns a `PulumiRun`
with Pulumi and the stack ready.

Pulumi runs in the state folder, in a project whose `main` is the clone. So `stack init`, `config` and `stack rm`, which
all write the stack file of their project, write the git-ignored copy and never a committed file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host.cache import cache_directory
from host.daemon import ensure_engine
from host.engine import PING_TIMEOUT_SECONDS, EngineInfo, connect
from host.file_lock import exclusive
from host.progress import Reporter
from operations.clone import ROOT, typed
from operations.errors import ProjectError
from operations.workspace import backend as places
from operations.workspace import pulumi_state, stack_file
from operations.workspace.backend import Backend
from operations.workspace.pulumi import PulumiRun
from operations.workspace.stack_file import Document
from stack.settings.environment import Environment
from stack.settings.keys import key_of

if TYPE_CHECKING:
    import docker

_PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
#: Used in checks before the memory and processors of the engine's host are known.
_ANY_HOST = {"memoryMib": 2**30, "cpus": 2**16}
_LOGINS_AT_ONCE = "8"
"""With ten unfinished logins an sshd begins to refuse others at random (MaxStartups); each request may be a login."""
_STEPS_AT_ONCE = "64"
"""An `up` mostly waits for health, which needs no processor. With Pulumi's default, four steps for each core, eight
waiting containers on two cores would block all other steps."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One environment of one clone, as the `samokoder` command works with it."""

    environment: str = "staging"
    """The environment whose committed stack file, `Pulumi.<environment>.yaml`, is the base."""
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
    incomplete: bool = False
    """Whether its settings may still lack what an `up` needs: for commands that help to write them."""
    isolated: bool = False
    """Whether the user's own backend, passphrase and DOCKER_HOST are ignored, so that a test cannot reach them."""
    variables: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Environment variables of everything that is run."""
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

    @property
    def parts_file(self) -> Path:
        """What the last `up` of this clone was to bring up, and on which engine: for who has no other way to know."""
        return self.folder / f"parts.{self.name}.yaml"

    def committed(self) -> Document:
        """Return the committed stack file. Raises ProjectError when there is none."""
        return stack_file.committed(self.committed_folder, self.environment)

    def document(self) -> Document:
        """Return the stack file that Pulumi works with, from the committed one and what is known of this machine."""
        return stack_file.merged(
            self.committed(),
            machine=stack_file.noted(self.machine_file),
            extra=self.extra_config,
            encryption=stack_file.encryption_of(stack_file.load(self.stack_file)),
        )

    def settings(self, *, on_this_machine: bool = True) -> Environment:
        """Read and check the settings. Raises InvalidSettingsError with every mistake at once.

        on_this_machine: with what earlier runs found out about this machine (images without a registry, its memory).
        Without it, limits are not checked against the host that an earlier run has noted, because it may be larger now.
        """
        machine = stack_file.noted(self.machine_file)
        if not on_this_machine:
            machine = {key_of("host"): _ANY_HOST} if key_of("host") in machine else {}
        document = stack_file.merged(self.committed(), machine=machine, extra=self.extra_config)
        return stack_file.read(self.name, document, incomplete=self.incomplete)

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

    def open(self, *, make: bool = True) -> PulumiRun:
        """Return Pulumi with the stack ready. This needs no engine and no images.

        make: make a stack that does not exist. Raises ProjectError where the state has been moved away, where the
        passphrase of an existing state is missing, and for a missing stack without `make`.
        """
        run = self.connected(make=make)
        run.mend()
        run.ensure_stack(self.document(), make=make)
        return run

    def open_copy(self) -> PulumiRun:
        """Return Pulumi on an unfinished copy whose old place is lost, so that the copy can be made usable.

        Raises ProjectError where the state was moved away from that place, or the copy is empty.
        """
        run = self.connected()
        if (to := run.went_to()) is not None:
            raise places.moved(run.backend, to)
        if not run.deployment().get("resources"):
            raise places.empty_copy(run.backend, self.name)
        return run

    def open_made(self) -> PulumiRun:
        """Return Pulumi with a stack that is there. Raises ProjectError where there is none.

        For who only reads: the first state is made by who asks before whether it is one person's or a team's.
        """
        self._refuse_unmade()
        return self.open(make=False)

    def deployment(self) -> dict[str, Any]:
        """Return the stack's state, its secrets encrypted; write nothing, neither in the clone nor in the state.

        Raises ProjectError where there is no such stack, or its state has been moved away.
        """
        self._refuse_unmade()
        backend = self.backend()
        if backend.folder:
            return pulumi_state.checkpoint(backend.folder, self.name) or {}
        # The project of the working state may not be there yet, and the commands that read need no more than the clone.
        run = self._without_passphrase(self.document(), backend).in_clone()
        run.refuse_unmade()
        return run.deployment()

    def _refuse_unmade(self) -> None:
        """Raise ProjectError where the state is in a folder, and has no such stack."""
        folder = self.backend().folder
        if folder and self.name not in pulumi_state.stacks(folder):
            raise ProjectError(f"{self.name} is not up: {self.typed('up')}")

    def connected(self, backend: Backend | None = None, *, make: bool = True) -> PulumiRun:
        """Return Pulumi without making a stack or writing its stack file. backend: another one than this environment's.

        make: make the passphrase of a first state. Raises ProjectError where a chosen folder does not exist, and where
        there is no state yet without `make`.
        """
        document = self.document()
        run = self._without_passphrase(document, backend or self.backend())
        self._write_project()
        return replace(run, variables={**run.variables, **self._passphrase(document, run, make=make)})

    def _without_passphrase(self, document: Document, backend: Backend) -> PulumiRun:
        """Return Pulumi for commands that open no secret. Raises ProjectError where a chosen folder does not exist."""
        from operations.workspace.pulumi_cli import ensure_pulumi  # noqa: PLC0415 - httpx: `status` must stay fast

        variables = {
            name: value for name, value in self.variables.items() if not (self.isolated and name in _PASSPHRASE)
        }
        if backend.url:
            variables[places.VARIABLE] = backend.url
        variables["PULUMI_STACK"] = self.name
        # The provider would use the context's engine, and not the engine that the program names.
        variables.pop("DOCKER_CONTEXT", None)
        by_ssh = str(document["config"].get(key_of("docker_host"))).startswith("ssh://")
        variables.setdefault("PULUMI_PARALLEL", _LOGINS_AT_ONCE if by_ssh else _STEPS_AT_ONCE)
        if backend.folder and not backend.folder.is_dir():
            if not (backend.may_be_made or backend.folder == places.own(self.folder).folder):
                raise ProjectError(f"{backend} is not there: is it mounted? Make the folder yourself for a new state.")
            backend.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ensure_pulumi(cache=self.cache, variables=variables, reporter=self.reporter)
        return self.pulumi_by(command.program, command.variables, backend)

    def pulumi_by(self, program: str, variables: Mapping[str, str], backend: Backend) -> PulumiRun:
        """Return a `PulumiRun` of this program with these variables on this environment's stack."""
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

    def engine(self) -> EngineInfo:
        """Return the environment's engine; start or install it if it is missing and that needs no question."""
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

    def _passphrase(self, document: Document, run: PulumiRun, *, make: bool) -> dict[str, str]:
        """Return the variable that names the file of this clone's passphrase, which `make` makes with a new state.

        Empty where the user's variables name a passphrase, or the stack file names a secrets provider.
        """
        if not self.isolated and (any(name in self.variables for name in _PASSPHRASE) or "secretsprovider" in document):
            return {}
        file = self.folder / "passphrase"
        if not file.is_file():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Of two first runs at once, the second would replace the passphrase that the first has encrypted with.
            with exclusive(self.folder / "passphrase.lock", what="passphrase", report=self.reporter.say):
                if not file.is_file():
                    self._make_passphrase(file, run, make=make)
        return {_PASSPHRASE[1]: str(file.absolute())}

    def _make_passphrase(self, file: Path, run: PulumiRun, *, make: bool) -> None:
        """Make the passphrase of a first state. Raises ProjectError where the state is not a first one."""
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
        if not make:
            run.refuse_unmade()
        # A salt from before belongs to a passphrase that is gone. It goes first: once the passphrase is there, another
        # run may write a copy by it.
        for copy in self.folder.glob("Pulumi.*.yaml"):
            copy.unlink(missing_ok=True)
        stack_file.write(file, secrets.token_urlsafe(48))

    def _write_project(self) -> None:
        """Write the project that Pulumi runs in: the clone's own, with the clone as its program."""
        project = stack_file.load(self.root / "Pulumi.yaml")
        project["main"] = str(self.root)
        # The virtual environment is named relative to the clone; here it is first on PATH instead.
        project["runtime"] = {"name": "python", "options": {"toolchain": "pip"}}
        project.pop("backend", None)
        stack_file.write(self.folder / "Pulumi.yaml", stack_file.dump(project, source="Pulumi.yaml"))
