"""What is known of an environment, for commands that only read: they work even where its stack file has a mistake.

A person with a broken stack file at 3 a.m. must still see what runs. What the file would say then comes from Pulumi's
state and from the labels of the containers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from host.engine import DEFAULT_DOCKER_HOST, PING_TIMEOUT_SECONDS, connect
from operations.engine import containers
from operations.engine.part_status import PartStatus, expected_parts, part_statuses, statuses_of, unavailable_parts
from operations.errors import ProjectError
from operations.workspace import pulumi_state, stack_file
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.common.names import PROJECT
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.settings.types import http_url

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from operations.workspace.pulumi import PulumiRun

NO_PRODUCTION = "NO_PRODUCTION"
"""Environment variable: the name of the production that a person means to make none."""
_HOST = re.compile(r"(?:unix|ssh|tcp)://\S+")
_PROVIDER = ("secretsprovider", "encryptedkey")
_NO_SETTINGS = f"{PROJECT}:noSettings"
"""Key in a stack file that stands in for a broken one, so that the copy of it is not taken for that of a last run."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """An environment as far as it is known. Has the `name` and the `prefix` of `Environment`."""

    workspace: Workspace
    """Where the committed stack file cannot be read, this workspace has the copy of the last run in its place."""
    docker_host: str
    environment: Environment | None = None
    """None where the stack file has mistakes."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Each part that should run -> its address, empty where it publishes none."""
    unavailable: Sequence[str] = ()
    parts_known: bool = True
    """Whether nothing else should run: else a part without a container is not missed."""
    engine_known: bool = True
    """Whether it is on that engine: else it was looked for there because nothing names another one."""
    noted: bool = False
    """Whether parts and engine are those that this clone's last `up` has noted."""
    noted_host: str = ""
    """The engine of this clone's last `up`, where the stack file names another one, which may be a colleague's move."""

    @property
    def name(self) -> str:
        """The stack's name."""
        return self.workspace.name

    @property
    def prefix(self) -> str:
        """First part of every name on the engine."""
        return f"{PROJECT}-{self.name}"

    def client(self, *, timeout: float = PING_TIMEOUT_SECONDS) -> docker.DockerClient:
        """Connect to the engine. timeout: seconds for one answer. Raises EngineError when none comes.

        Raises ProjectError where nothing runs there and nobody knows whether that is its engine: nobody is to bring up
        a second one beside what runs.
        """
        client = connect(self.docker_host, timeout=timeout)
        if not self.engine_known and not containers.of_environment(client, self.name):
            client.close()
            raise ProjectError(
                f"On which engine {self.name} runs is not known: {self.workspace.committed_file.name} does not say it "
                f"in a valid way, and no `up` of this clone has noted it. Nothing of it is at {self.docker_host}. "
                f"`{self.workspace.typed('doctor')}` names the mistakes."
            )
        return client

    def deployment(self) -> dict[str, Any]:
        """Return Pulumi's state of the environment, secrets encrypted; empty where a folder has none.

        Pulumi is asked for one in a bucket. Raises ProjectError where the bucket has none.
        """
        return self._with_a_file().deployment() if was_made(self) else {}

    def opened(self) -> PulumiRun:
        """Return Pulumi with the stack, which is there. Raises ProjectError where there is none."""
        return self._with_a_file().open_made()

    def configured(self) -> Mapping[str, Any] | None:
        """Return key (`samokoder:api`) -> value in the stack file, unchecked, with encrypted values still encrypted.

        None where the file is no YAML and this clone has no copy of it.
        """
        workspace = self._with_a_file()
        return dict(workspace.document()["config"]) if workspace is self.workspace else None

    def _with_a_file(self) -> Workspace:
        """Return the workspace; where its stack file is no YAML, with a file that says no more than how to decrypt."""
        try:
            self.workspace.committed()
        except ProjectError:
            return _without_settings(self.workspace)
        return self.workspace


def of(workspace: Workspace) -> Known:
    """Return what is known, and report in one line that the stack file has mistakes, where it has any.

    Raises ProjectError where there is no such environment.
    """
    try:
        environment = workspace.settings()
    except InvalidSettingsError as error:
        count = "1 mistake" if len(error.mistakes) == 1 else f"{len(error.mistakes)} mistakes"
        what = f"{workspace.committed_file.name} has {count}"
    except ProjectError as error:
        if not workspace.committed_file.is_file():
            raise  # no such environment
        what = str(error).splitlines()[0].rstrip(":")
        workspace = _as_last_run(workspace) or workspace
    else:
        return Known(
            workspace=workspace,
            docker_host=environment.settings.docker_host,
            environment=environment,
            parts=expected_parts(environment),
            unavailable=unavailable_parts(environment),
        )
    found = _from_state(workspace)
    source = "this clone's last `up`" if found.noted else "the state"
    elsewhere = (
        f". The engine is {found.docker_host}, as the file says; this clone's last `up` was on {found.noted_host}"
        if found.noted_host
        else ""
    )
    workspace.reporter.say(
        f"{what} (`{workspace.typed('doctor')}` says what): what follows is what the engine and {source} say{elsewhere}"
    )
    return found


def note(workspace: Workspace) -> None:
    """Note what is about to be brought up: a state in a bucket is not asked for by who only reads."""
    environment = workspace.settings()
    about = {
        "dockerHost": environment.settings.docker_host,
        "production": environment.settings.production,
        "parts": {part: {"url": url} for part, url in expected_parts(environment).items()},
        "unavailable": list(environment.settings.unavailable),
    }
    stack_file.write(workspace.parts_file, stack_file.dump(about, source=workspace.committed_file.name))


def was_production(workspace: Workspace) -> bool:
    """Tell whether the last `up` was of a production, whatever the file says now.

    The state says it, because the `up` of every clone changes it. The note of this clone may be older, and is written
    before `up` has changed anything: it is taken only where the state is not there or cannot be read. Without a note
    the answer is False then.
    """
    try:
        return pulumi_state.is_production(workspace.deployment())
    except (ProjectError, OSError, ValueError, KeyError):
        return bool(_noted(workspace).get("production"))


def production_lost(workspace: Workspace, *, was: bool) -> str:
    """Return a sentence where the stack file calls a production no production any more; else nothing.

    was: whether the last `up` was of a production. Raises InvalidSettingsError.
    """
    if not was or workspace.settings(on_this_machine=False).settings.production:
        return ""
    return (
        f"{workspace.name} was brought up as production, and {workspace.committed_file.name} does not say "
        f"`{key_of('production')}: true` any more: an `up` would make it no production."
    )


def refuse_production_lost(workspace: Workspace, *, was: bool, words: str = "up") -> None:
    """Raise ProjectError where `up` would make a production none, unless NO_PRODUCTION names the environment.

    was: as for `production_lost`. words: what to type after `make` to mean it. Not --yes: a script that always types it
    has not read which line a merge dropped.
    """
    lost = production_lost(workspace, was=was)
    if lost and workspace.variables.get(NO_PRODUCTION) != workspace.name:
        raise ProjectError(
            f"{lost} Nothing was changed.\n"
            "Its volumes would lose what keeps them on delete, and no later change would be asked about.\n"
            f"To keep it production, write: {key_of('production')}: true\n"
            f"To mean it (--yes does not say it): {no_production(workspace, words)}"
        )


def no_production(workspace: Workspace, words: str = "up") -> str:
    """Return the command, as a person types it, that makes a production none. words: as for `typed`."""
    return f"{NO_PRODUCTION}={workspace.name} {workspace.typed(words)}"


def status(known: Known) -> list[PartStatus]:
    """Return the status of each part, as the engine reports it. Raises EngineError when it does not answer."""
    client = known.client()
    try:
        if known.environment:
            return part_statuses(client, known.environment)
        return statuses_of(client, known.name, known.parts, known.unavailable)
    finally:
        client.close()


def live_status(workspace: Workspace) -> list[PartStatus]:
    """Return the status of each part, as the engine reports it. Raises EngineError when it does not answer."""
    client = workspace.client()
    try:
        return part_statuses(client, workspace.settings())
    finally:
        client.close()


def containers_of(client: docker.DockerClient, known: Known, part: str) -> dict[str, Container]:
    """Return the containers of a part and all its replicas, by name. part: empty for all of the environment.

    Raises ProjectError where there is none.
    """
    if part:
        return containers.replicas(client, known, part)
    found = containers.by_part(client, known.name)
    if not found:
        raise ProjectError(f"{known.name} is not up: {known.workspace.typed('up')}")
    return dict(sorted(found.items()))


def addresses(known: Known) -> list[str]:
    """Return the addresses of the parts' pages on the engine's host: as declared, else as the containers publish."""
    if any(known.parts.values()):
        return sorted(filter(None, known.parts.values()))
    client = known.client()
    try:
        found = containers.of_environment(client, known.name)
    finally:
        client.close()
    bindings = (each for one in found for each in (one.attrs["HostConfig"].get("PortBindings") or {}).values())
    return sorted(http_url(str(each["HostIp"]), int(each["HostPort"])) for ports in bindings for each in ports or ())


def was_made(known: Known) -> bool:
    """Tell whether the environment has a state; True where only Pulumi could tell."""
    folder = known.workspace.backend().folder
    return folder is None or pulumi_state.checkpoint(folder, known.name) is not None


def _as_last_run(workspace: Workspace) -> Workspace | None:
    """Return the workspace with the stack file of its last run, as the committed one is no YAML; None: no such file."""
    try:
        there = stack_file.load(workspace.stack_file)
    except ProjectError:
        return None
    if not there or _NO_SETTINGS in (there.get("config") or {}):
        return None
    return replace(workspace, environment=workspace.name, stack_files=workspace.folder)


def _without_settings(workspace: Workspace) -> Workspace:
    """Return the workspace with a stack file without settings: Pulumi takes the passphrase's salt from the state.

    Another secrets provider is read from the lines of the broken file, because the state is read by it.
    """
    text = workspace.committed_file.read_text(encoding="utf-8", errors="replace")
    line = r"""^%s: *["']?([^\s"']+)["']? *(?:#.*)?$"""
    found = {key: set(re.findall(line % key, text, re.MULTILINE)) for key in _PROVIDER}
    document = {key: values.pop() for key, values in found.items() if len(values) == 1}
    folder = workspace.folder / "unread"
    text = stack_file.dump({**document, "config": {_NO_SETTINGS: True}}, source="the state")
    stack_file.write(folder / workspace.committed_file.name, text)
    return replace(workspace, stack_files=folder)


def _from_state(workspace: Workspace) -> Known:
    try:
        folder = workspace.backend().folder
    except ProjectError:  # two places are named, so the state is not read, but the engine is
        folder = None
    try:
        there = pulumi_state.checkpoint(folder, workspace.name) if folder else None
    except PermissionError:  # the folder is another user's, so neither the state nor a note of this clone is read
        folder = there = None
    said = pulumi_state.outputs(there or {})
    if noted := not said.get("parts"):  # in a bucket, or the first `up` has not come to its end
        said = _noted(workspace)
    never = folder is not None and there is None
    try:
        machine = stack_file.load(workspace.machine_file)  # an earlier run may have noted the engine there
        config = stack_file.merged(workspace.committed(), machine=machine, extra=workspace.extra_config)["config"]
        configured = config.get(key_of("docker_host"), DEFAULT_DOCKER_HOST)
        named = _valid(stack_file.merged(workspace.committed(), machine={})["config"].get(key_of("docker_host")))
    except ProjectError:
        configured = named = None
    last = _valid(said.get("dockerHost"))
    # The note is of this clone alone: the file may have come from a colleague, who has moved it to another server.
    host = (named if noted else None) or last or _valid(configured)
    return Known(
        workspace=workspace,
        docker_host=host or DEFAULT_DOCKER_HOST,
        parts={str(part): str(about.get("url") or "") for part, about in (said.get("parts") or {}).items()},
        unavailable=[str(field).replace("_", "-") for field in said.get("unavailable") or ()],
        parts_known=bool(said.get("parts")) or never,
        engine_known=host is not None or never,
        noted=noted and bool(said),
        noted_host=last if last and host != last else "",
    )


def _valid(host: Any) -> str | None:
    return str(host) if host and _HOST.fullmatch(str(host)) else None


def _noted(workspace: Workspace) -> dict[str, Any]:
    try:
        return stack_file.load(workspace.parts_file)
    except ProjectError:
        return {}
