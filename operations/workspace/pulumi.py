"""Pulumi, run on one stack: its commands, its state, and what an interrupted run has left."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host.progress import Reporter
from operations.clone import typed
from operations.engine.redaction import without
from operations.errors import ProjectError, PulumiFailedError
from operations.workspace import backend as places
from operations.workspace import pulumi_state, stack_file, state_room
from operations.workspace.backend import Backend
from operations.workspace.every_secret import known_secrets, without_secrets
from operations.workspace.pulumi_process import communicate, ends_with, follow, interruptible, sigint_not_ignored
from operations.workspace.stack_file import Document

if TYPE_CHECKING:
    import docker
CHANGE_PROVIDER = "change-secrets-provider"
CHANGES = frozenset({"up", "update", "destroy", "down", "dn", "refresh", "import", "watch", CHANGE_PROVIDER})
"""Commands of Pulumi that change what is on the engine, or the state, with their aliases."""
UPDATES = frozenset({"up", "update", "watch"})
"""Commands of Pulumi that make what is on the engine as the program has it."""
_RUNS_PROVIDERS = CHANGES | {"preview"}
_DIAGNOSTICS = "Diagnostics:"
"""The line after which Pulumi repeats all errors and warnings, at the end of a preview and of an update."""
_RESOURCES = "Resources:"
"""The line that ends them; in an error's own text a line is indented."""
_SAY_EVERY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class PulumiRun:
    """Pulumi, ready to be run on one stack."""

    stack: str
    """Name of the stack."""
    environment: str
    root: Path
    """The clone."""
    committed_folder: Path
    """Folder of the committed stack files."""
    stack_file: Path
    """The copy of the stack file that Pulumi works with."""
    reporter: Reporter
    program: str
    variables: Mapping[str, str]
    backend: Backend
    folder: Path
    """Folder of the project that Pulumi runs in."""

    def pulumi(
        self,
        *words: str,
        check: bool = True,
        capture: bool = False,
        show: Callable[[str], None] | None = None,
        given: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one Pulumi command on this stack. Its output goes where ours goes.

        capture: return both streams in the result in place of showing them. show: gets each line of both streams, the
        errors that Pulumi sums up without secrets.
        given: its standard input, for a secret, which must not be in a command line; its output is then captured.
        Raises PulumiFailedError when it fails and `check` is on, ProjectError where the disk is too full for an update
        or where the command would change a state that has been moved away since. An interruption reaches Pulumi, and
        this waits until Pulumi has noted what it has begun.
        """
        if CHANGES & set(words[:1]):
            self.refuse_moved()
        if UPDATES & set(words[:1]):
            state_room.refuse_full(self.backend, self.stack)
        piped = capture or show is not None or given is not None
        with sigint_not_ignored():
            process = subprocess.Popen(
                [self.program, *words],
                cwd=self.folder,
                env=dict(self.variables),
                text=True,
                stdin=subprocess.PIPE if given is not None else subprocess.DEVNULL if piped else None,
                stdout=subprocess.PIPE if piped else None,
                stderr=(subprocess.STDOUT if show else subprocess.PIPE) if piped else None,
                preexec_fn=partial(ends_with, os.getpid()),  # noqa: PLW1509 - two system calls alone
            )
        if show:
            out, err = self._followed(process, show)
        else:
            with interruptible(process):
                out, err = communicate(process, given)
        if check and process.returncode != 0:
            said = (err or out).strip() if capture else ""
            if said and words[0] in _RUNS_PROVIDERS:
                said = without_secrets(self, said)
            said = f":\n{said[-2000:]}" if capture else ""
            raise PulumiFailedError(f"`pulumi {' '.join(words[:2])}` failed{said}")
        return subprocess.CompletedProcess(list(words), process.returncode, out or "", err or "")

    def _followed(self, process: subprocess.Popen[str], show: Callable[[str], None]) -> tuple[str, str]:
        """Show the lines of a Pulumi as they come, and its errors together, without secrets; return both streams."""
        told: list[str] = []
        secrets: dict[str, str] = {}

        def tell() -> None:
            if told:
                secrets.update(known_secrets(self))
            for line in without(secrets, "\n".join(told)).splitlines():
                show(line)
            told.clear()

        def passed_on(line: str) -> None:
            # An `up` previews first, so an update of many minutes may follow the first warnings.
            if line.rstrip() == _RESOURCES:
                tell()
            if told or line.strip() == _DIAGNOSTICS:
                told.append(line)
            else:
                show(without(secrets, line))  # an error may contain a line that looks like the end of the errors

        try:
            with interruptible(process):
                return follow(process, passed_on)
        finally:
            tell()

    def in_clone(self) -> PulumiRun:
        """Return the same Pulumi, run on the committed stack file: for a person's own `pulumi config set`."""
        return replace(self, folder=self.root)

    def ensure_stack(self, document: Document, *, make: bool = True) -> None:
        """Write the stack file; make the stack if it does not exist, else take the salt from its state.

        make: False raises ProjectError for a stack that does not exist.
        """
        there = self._exists()
        if not there and not make:
            raise self._unmade()
        teams = stack_file.encryption_of(stack_file.committed(self.committed_folder, self.environment))
        self._write(document)
        if not there:
            words = ["stack", "init", self.stack, "--no-select"]
            if provider := document.get("secretsprovider"):
                words += ["--secrets-provider", str(provider)]
            there = self._made_meanwhile(words)
        if there and not teams and (salt := pulumi_state.salt(self.deployment())):
            # The salt in the copy may belong to a state that this clone had before.
            document = {**document, "encryptionsalt": salt}
        # Pulumi has put the salt of a new stack into the file.
        self._write(stack_file.encryption_of(stack_file.load(self.stack_file)) | document)

    def _made_meanwhile(self, words: Sequence[str]) -> bool:
        """Make the stack by these words; return whether another run has made it meanwhile."""
        try:
            self.pulumi(*words, capture=True)
        except PulumiFailedError as error:
            # Pulumi makes the stack before it asks the secrets provider, whose refusal must not be lost.
            taken = any(words in str(error) for words in ("already exists", "currently locked"))
            if not taken or self.stack not in self.stacks():
                raise
            return True
        return False

    def _write(self, document: Document) -> None:
        source = f"Pulumi.{self.environment}.yaml"
        stack_file.write(self.stack_file, stack_file.dump(document, source=source))

    def refuse_unmade(self) -> None:
        """Raise ProjectError where there is no such stack, or its state was moved away."""
        if not self._exists():
            raise self._unmade()

    def _unmade(self) -> ProjectError:
        return ProjectError(f"{self.stack} is not up: {typed(self.environment, 'up')}")

    def _exists(self) -> bool:
        stacks = self.stacks()
        self.refuse_moved(stacks)
        return self.stack in stacks

    def went_to(self, stacks: Sequence[str] | None = None) -> str | None:
        """Return where the state was moved to; None: it is here. stacks: those of this place, where they are known."""
        if self.backend.folder:
            return places.moved_to(self.backend) or None
        if places.MOVED_STACK not in (self.stacks() if stacks is None else stacks):
            return None
        return self.tags(places.MOVED_STACK).get(places.TO)

    def refuse_moved(self, stacks: Sequence[str] | None = None) -> None:
        """Raise ProjectError where the state was moved away, or is an unfinished copy. stacks: as for `went_to`."""
        stacks = self.stacks() if stacks is None else stacks
        if (to := self.went_to(stacks)) is not None:
            raise places.moved(self.backend, to)
        moves = self.backend.origin == places.MOVE
        if not moves and self.stack in stacks and (tag := self.tags().get(places.COPY_OF)):
            raise places.unfinished(self.backend, self.stack, tag, typed=partial(typed, self.environment))

    def tags(self, stack: str = "") -> dict[str, str]:
        """Return the tags of the stack by name. stack: another one than this."""
        if self.backend.folder:
            return pulumi_state.tags(self.backend.folder, stack or self.stack)
        words = ("--stack", stack) if stack else ()
        listed = self.pulumi("stack", "tag", "ls", "--json", *words, capture=True).stdout
        return {str(name): str(value) for name, value in json.loads(listed or "{}").items()}

    def stacks(self) -> list[str]:
        """Return the names of this project's stacks, sorted. Raises PulumiFailedError if the backend is not reached."""
        if self.backend.folder:
            return pulumi_state.stacks(self.backend.folder)
        listed = json.loads(self.pulumi("stack", "ls", "--json", capture=True).stdout)
        return sorted(stack["name"].rpartition("/")[2] for stack in listed)

    def encrypted_stacks(self) -> list[str]:
        """Return the stacks whose secrets a passphrase opens; in a folder, this stack even if that is not known yet."""
        own = self.stack
        of_folder = self.backend.folder is not None
        return [
            name for name in self.stacks() if pulumi_state.salt(self.deployment(name)) or (of_folder and name == own)
        ]

    def deployment(self, stack: str = "") -> dict[str, Any]:
        """Return the stack's state, its secrets encrypted. stack: another one than this."""
        if self.backend.folder:
            return pulumi_state.checkpoint(self.backend.folder, stack or self.stack) or {}
        words = ("--stack", stack) if stack else ()
        exported = json.loads(self.pulumi("stack", "export", *words, capture=True).stdout)
        return dict(exported.get("deployment") or {})

    def secrets(self, *, every: bool = False) -> dict[str, str]:
        """Return the generated secrets by name (`grafana-admin`), in plain text.

        every: by slot (`grafana-admin-b`), also those that are not in use any more or not yet.
        """
        found = pulumi_state.every_generated_secret if every else pulumi_state.generated_secrets
        return found(self.in_plain())

    def in_plain(self) -> dict[str, Any]:
        """Return the stack's state with its secrets in plain text: not to be written or shown."""
        exported = json.loads(self.pulumi("stack", "export", "--show-secrets", capture=True).stdout)
        return dict(exported.get("deployment") or {})

    def configuration(self) -> dict[str, dict[str, Any]]:
        """Return what is configured by key, each with its `value` in plain text and whether it is a `secret`."""
        shown = self.pulumi("config", "--show-secrets", "--json", capture=True).stdout
        return dict(json.loads(shown))

    def settle(self, connect: Callable[[], docker.DockerClient]) -> None:
        """Clean up after an interrupted run, so that the next command works.

        Waits for a Pulumi that still runs, releases the lock of one that has ended, and after an interruption refreshes
        the state from the engine. A lost data volume stays in the state, so that `up` can report it.
        connect: returns a client of the environment's engine. Raises ProjectError for a lock from another host.
        """
        stale = self._released()
        if not stale and not pulumi_state.was_interrupted(self.deployment()):
            return
        reporter = self.reporter
        reporter.say("An earlier run was cut off: asking the engine what there really is")
        before = self.deployment()
        if begun := pulumi_state.begun(before):
            from operations.engine import containers  # noqa: PLC0415 - the Docker SDK takes its time, and few runs need it here

            # This comes before the refresh, which forgets what was begun: after an interruption the next run finds it.
            client = connect()
            try:
                removed = containers.remove_begun(client, begun, pulumi_state.known_ids(before), reporter)
            finally:
                client.close()
            for name in removed:
                reporter.say(f"removed {name}: it was made, but not noted, before the run was cut off")
        # Data volumes are left out, because a refresh would remove a lost one from the state, and `up` could not tell.
        kept = [word for urn in pulumi_state.data_urns(before) for word in ("--exclude", urn)]
        with reporter.task("pulumi refresh"):
            self.pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", *kept, capture=True)

    def mend(self) -> None:
        """Make the state readable after a Pulumi that was killed while it wrote; do nothing while another one runs."""
        folder, name = self.backend.folder, self.stack
        if (
            folder
            and all(lock.is_stale() for lock in pulumi_state.locks(folder, name))
            and pulumi_state.mend(folder, name)
        ):
            self.reporter.say("An earlier run was killed while it wrote its state: mended")

    def _released(self) -> bool:
        """Wait for live locks and release stale ones; return whether there was a stale one."""
        if self.backend.folder is None:
            return False
        said = -_SAY_EVERY_SECONDS
        while found := pulumi_state.locks(self.backend.folder, self.stack):
            if all(lock.is_stale() for lock in found):
                self.reporter.say("Releasing the lock of a run that is gone (`pulumi cancel`)")
                self.mend()  # the run may have ended while we waited for it
                self.pulumi("cancel", "--yes", capture=True)
                return True
            other = next((lock for lock in found if not lock.is_here), None)
            if other:
                cancel = typed(self.environment, "pulumi ARGS='cancel --yes'")
                raise ProjectError(
                    f"The stack {self.stack!r} is locked since {other.since} by process {other.process} on "
                    f"{other.host}. Wait for it; if nobody runs there any more: {cancel}"
                )
            if time.monotonic() - said >= _SAY_EVERY_SECONDS:
                said = time.monotonic()
                live = next(lock for lock in found if not lock.is_stale())
                self.reporter.say(
                    f"Pulumi (process {live.process}, since {live.since}) is at this stack: waiting for it. "
                    f"Ctrl-C ends this wait; `kill -INT {live.process}` ends the other run."
                )
            time.sleep(0.5)
        return False
