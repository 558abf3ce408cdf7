"""Rotate a secret: `up` for each phase, so that what is in use is accepted at every moment.

The committed stack file has the last phase that is complete, and nothing else remembers a rotation: each phase is
written once its `up` has ended well. So whatever cuts a rotation off, the next run does the step that was under way
again, to the same generation, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic.alias_generators import to_camel

from operations.engine import containers, reach
from operations.engine.commands import frames
from operations.engine.redaction import without
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle.up import bring_up
from operations.workspace import lock, stack_file, stack_text
from operations.workspace.generations import ADMIN, Step, step_of, steps_in
from operations.workspace.known import Known, was_made
from operations.workspace.workspace import Workspace
from stack.app import postgres, postgres_roles, redis, redis_users
from stack.config_files import SALT
from stack.rotation import SLOTTED, label, slots_of
from stack.secrets import GENERATED, WEB_PASSWORDS, secret_names
from stack.settings import Environment, Phase, key_of

if TYPE_CHECKING:
    import httpx
    from docker.models.containers import Container

NEVER: Mapping[str, str] = {
    "app_secret_key": "the application's stored data is encrypted under it, and a new one could read none of it",
    "postgres_superuser": "only the keeper of the roles has it, and the database's volume since it was made",
    "redis_keeper": "only the keeper of Redis' users has it",
    "workspace_backup": "only the workspace and the backup server have it",
    "backup_encryption_key": "the off-site copies are encrypted under it, and a new one could read none of them",
    "grafana_secret_key": "Grafana's stored data is encrypted under it",
    SALT: "it opens nothing: it makes the names of volumes",
}
"""Generated secrets that are not rotated, and why."""
_OF_BACKUPS = frozenset({"postgres_backup", "redis_backup", "backup_encryption_key"})
DEFAULT_TOKEN_MINUTES = 720
"""The reference application's own TOKEN_MINUTES."""
GRAFANA_USER = "admin"
_SIGNS = "secret_key"
_OK, _UNAUTHORIZED = 200, 401


@dataclass(frozen=True, kw_only=True)
class Row:
    """One generated secret: where it is, and how it is rotated or why it is not."""

    secret: str
    generation: int
    phase: Phase
    how: str
    rotates: bool


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """How far a rotation has come; as text, what the person must know now."""

    secret: str
    generation: int
    phase: Phase
    """Empty: it is over."""
    told: str
    until: datetime | None = None
    """When it can go on: the last token that the old key signed has expired then."""

    def __str__(self) -> str:
        """Say it."""
        return self.told

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `samokoder rotate --json`; no value of a secret is in it."""
        until = self.until.isoformat() if self.until else None
        return {"secret": self.secret, "generation": self.generation, "phase": self.phase, "goes_on_after": until}


def rows(environment: Environment) -> list[Row]:
    """Return every generated secret of an environment."""
    found = []
    for secret in secret_names(environment):
        if secret not in GENERATED or secret == SALT:
            continue
        found.append(_row(secret, step_of(environment, secret), refusal(environment, secret)))
    return found


def listed(there: Known) -> list[Row]:
    """Return every generated secret, by the state where the stack file has mistakes.

    Raises ProjectError where the state has none either.
    """
    if there.environment:
        return rows(there.environment)
    deployment = there.deployment() if was_made(there) else {}
    steps_there = ((secret, steps_in(deployment, secret)) for secret in sorted(GENERATED) if secret != SALT)
    found = [_row(secret, at[0], NEVER.get(secret, "")) for secret, at in steps_there if at]
    if not found:
        raise ProjectError(f"{there.name} is not up, and has no secrets yet: {there.workspace.typed('up')}")
    return found


def _row(secret: str, at: Step, why_not: str) -> Row:
    """Return one row. why_not: why it is not rotated; empty where it is."""
    phased = "no request is lost" if secret in SLOTTED else "one step: whoever asks with it may fail for seconds"
    how = f"never: {why_not}" if why_not else phased
    return Row(secret=label(secret), generation=at.generation, phase=at.phase, how=how, rotates=not why_not)


def refusal(environment: Environment, secret: str) -> str:
    """Say why a generated secret cannot be rotated in this environment; empty where it can be."""
    configured = GENERATED[secret].configured
    if configured in environment.configured_secrets:
        return f"it is configured ({key_of(configured)}): whoever issued it makes a new one"
    if secret not in secret_names(environment) and secret != "workspace_backup":  # noqa: S105 - a name
        if secret in WEB_PASSWORDS:
            return f"no password is asked for here ({key_of('basic_auth')})"
        if (secret in _OF_BACKUPS and not environment.settings.backup.enabled) or secret == "backup_encryption_key":  # noqa: S105 - a name
            return f"there are no such backups here ({key_of('backup')})"
        return "the server is a managed one, and its passwords are not ours"
    return NEVER.get(secret, "")


def steps(secret: str, generation: int, phase: Phase) -> list[Step]:
    """Return what is left to do: of the rotation that is under way, else of a new one."""
    if secret not in SLOTTED:
        return [Step(generation=generation + 1, phase="")]
    order: tuple[Phase, ...] = ("prepare", "overlap", "")
    # The phase that is written was completed; the one after it may have begun.
    left = order[order.index(phase) + 1 :] if phase else order
    target = generation if phase else generation + 1
    # Of Grafana's password there is no overlap: after "prepare" comes a call of its API, and nobody else has it.
    return [Step(generation=target, phase=each) for each in left if not (secret == ADMIN and each == "overlap")]


def rotate(
    workspace: Workspace, name: str, *, interactive: bool, retire_now: bool = False, grafana_url: str = ""
) -> Rotated:
    """Rotate a secret, or go on with a rotation that was cut off.

    name: as `rows` has it. interactive: as for `lifecycle.up`. retire_now: do not wait until the tokens that the last
    SECRET_KEY signed have expired. grafana_url: Grafana, where its published port is not reached from this machine.
    Raises ProjectError for a secret that is not rotated, with the reason, and where a login is not as it must be;
    PulumiFailedError where an `up` fails: what was accepted before it is accepted still.
    """
    secret = _known(workspace.settings(), name)
    with lock.held(workspace, "rotate") as locked:
        return _rotate(locked, secret, interactive=interactive, retire_now=retire_now, grafana_url=grafana_url)


def _rotate(workspace: Workspace, secret: str, *, interactive: bool, retire_now: bool, grafana_url: str) -> Rotated:
    environment = workspace.settings()
    before = workspace.open().secrets(every=True)
    if label(secret) not in before:
        raise ProjectError(f"{workspace.name} has no secrets yet: bring it up first.")
    written = step_of(environment, secret)
    generation, phase = written.generation, written.phase
    to_do = steps(secret, generation, phase)
    say = workspace.reporter.say
    say(f"{label(secret)}: " + (f"going on after {phase!r}" if phase else f"generation {generation + 1}"))
    for number, step in enumerate(to_do, 1):
        if waits(secret, step) and not retire_now and (until := tokens_last_until(workspace)) > datetime.now(UTC):
            return Rotated(
                secret=label(secret),
                generation=step.generation,
                phase="overlap",
                told=_wait_text(workspace, until),
                until=until,
            )
        say(f"[{number}/{len(to_do)}] {says(secret, step)}")
        try:
            bring_up(at(workspace, secret, step), interactive=interactive)
        except PulumiFailedError:
            say(f"{workspace.committed_file.name} is as it was. Put right what failed, then run this again.")
            raise
        if secret == ADMIN and step.phase == "prepare" and "grafana" not in environment.absent:
            _rotate_grafana(workspace, secret, step, grafana_url)
        text = write(workspace.committed_file.read_text(encoding="utf-8"), secret, step)
        mode = workspace.committed_file.stat().st_mode & 0o777
        stack_file.write(workspace.committed_file, text, mode=mode)
    return _done(workspace, secret, before, grafana_url)


def planned(workspace: Workspace, name: str) -> tuple[str, Step, list[Step]]:
    """Return a secret, where it is, and the steps that `rotate` would do. Raises ProjectError as `rotate` does."""
    environment = workspace.settings()
    secret = _known(environment, name)
    there = step_of(environment, secret)
    return secret, there, steps(secret, there.generation, there.phase)


def waits(secret: str, step: Step) -> bool:
    """Tell whether a step comes only when the tokens that the old key signed have expired."""
    return secret == _SIGNS and not step.phase


def at(workspace: Workspace, secret: str, step: Step) -> Workspace:
    """Return the same workspace at a step that its stack file does not say yet."""
    field = to_camel(secret)
    wanted: dict[str, Any] = {key_of("rotation"): {field: step.generation}}
    if secret in SLOTTED:
        wanted[key_of("rotating")] = {field: step.phase}
    return replace(workspace, extra_config=stack_file.fill(wanted, workspace.extra_config))


def write(text: str, secret: str, step: Step) -> str:
    """Return the text of a stack file with this step in it, all else as it was, comments and order too."""
    field = to_camel(secret)

    def change(config: Any) -> None:
        stack_text.section(config, "rotation")[field] = step.generation
        rotating = stack_text.section(config, "rotating")
        rotating.pop(field, None)
        if step.phase:
            rotating[field] = step.phase
        stack_text.drop_empty(config, "rotating")

    return stack_text.edited(text, change)


def tokens_last_until(workspace: Workspace) -> datetime:
    """Return when the last token that an API replica of before the last roll signed has expired, at the latest.

    The newest replica took the place of the last one that signed with the key before. One that was replaced later, by
    a deploy, makes it later than need be: nothing is stored that would tell.
    """
    client, environment = workspace.client(), workspace.settings()
    try:
        made = [
            datetime.fromisoformat(str(containers.find(client, environment, part).attrs["Created"]))
            for part in environment.parts_of("api")
        ]
    finally:
        client.close()
    minutes = environment.settings.api.environment.get("TOKEN_MINUTES", DEFAULT_TOKEN_MINUTES)
    try:
        return max(made) + timedelta(minutes=int(minutes))
    except ValueError:
        key = f"{key_of('api', 'environment')}.TOKEN_MINUTES"
        raise ProjectError(f"{key} is not a number of minutes: {minutes!r}") from None


def _known(environment: Environment, name: str) -> str:
    """Return the secret of this name. Raises ProjectError for one that is not rotated, or that there is not."""
    secret = name.lower().replace("-", "_")
    if secret not in GENERATED:
        can = ", ".join(row.secret for row in rows(environment) if row.rotates)
        raise ProjectError(f"There is no generated secret {name!r}. These can be rotated: {can}.")
    if why_not := refusal(environment, secret):
        raise ProjectError(f"{label(secret)} is not rotated: {why_not}.")
    return secret


def says(secret: str, step: Step) -> str:
    """Say what a step of a rotation does."""
    if secret not in SLOTTED:
        return f"generation {step.generation} takes the place of the one before"
    return {
        "prepare": f"prepare: generation {step.generation} is accepted beside the one in use",
        "overlap": f"overlap: generation {step.generation} is used, the one before is still accepted",
        "": f"generation {step.generation} alone is accepted",
    }[step.phase]


def _wait_text(workspace: Workspace, until: datetime) -> str:
    return (
        f"New tokens are signed by the new SECRET_KEY. Those that the one before has signed are good until "
        f"{until.astimezone().isoformat(timespec='minutes')}: run this again after that, and they are no longer. "
        f"--retire-now does it at once and logs their users out. Commit {workspace.committed_file.name} now."
    )


def _done(workspace: Workspace, secret: str, before: Mapping[str, str], grafana_url: str) -> Rotated:
    """Prove that the new value opens and the one before does not."""
    environment = workspace.settings()
    generation = step_of(environment, secret).generation
    after = workspace.open().secrets(every=True)
    now, last = label(secret), label(secret)
    if secret in SLOTTED:
        now, last = (label(slots_of(secret, each, "").in_use) for each in (generation, generation - 1))
    new, old = after[now], (after if now != last else before)[last]
    proof = ""
    if secret == ADMIN:
        if "grafana" in environment.absent:
            proof = " Grafana does not run here: the secret is renewed, and nothing was asked to take it."
        else:
            with _grafana(environment, grafana_url) as client:
                expect(secret, new=_grafana_login(client, new), old=_grafana_login(client, old))
            proof = " Grafana takes the new one and refuses the old one."
    elif secret in _SERVERS:
        engine = workspace.client()
        try:
            server = _SERVERS[secret]
            container = containers.find(engine, environment, server.part)
            answers = [server.login(container, environment, slot, value) for slot, value in ((now, new), (last, old))]
        finally:
            engine.close()
        if new != old:  # the same where an earlier run was cut off after its `up`
            expect(secret, new=answers[0], old=answers[1])
            proof = " The server takes the new one and refuses the old one."
    told = f"{label(secret)} is at generation {generation}.{proof} Commit {workspace.committed_file.name}."
    return Rotated(secret=label(secret), generation=generation, phase="", told=told)


Answer = Literal["in", "refused"]


def expect(secret: str, *, new: Answer, old: Answer) -> None:
    """Raise ProjectError unless the new value opens and the old one does not."""
    if new != "in":
        raise ProjectError(f"The server refuses the new {label(secret)}.")
    if old != "refused":
        raise ProjectError(f"The server still takes the old {label(secret)}.")


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A server that checks a password: in which part's container it is asked, and how."""

    part: str
    script: str
    user: str
    """Empty: the role that belongs to the slot."""
    taken: str
    """What is said after a login."""
    refused: tuple[str, ...]

    def login(self, container: Container, environment: Environment, slot: str, password: str) -> Answer:
        """Try a password. Raises ProjectError where the server cannot be asked."""
        user = self.user or postgres_roles.role_of(slot.replace("-", "_"))
        database = environment.settings.postgres.database
        said = _exec(container, ["sh", "-c", self.script, user, database], f"{password}\n")
        if any(text in said for text in self.refused):
            return "refused"
        if said.strip() == self.taken:
            return "in"
        raise ProjectError(f"{self.part} cannot ask its server: {without({'the password': password}, said)}")


# The password comes by standard input: neither the command nor the container's configuration ever has it.
_PSQL = f"""\
umask 077
IFS= read -r password
file=/tmp/login.$$
trap 'rm -f "$file"' EXIT
printf '%s:%s:*:%s:%s\\n' {postgres.PART} {postgres.PORT} "$0" "$password" > "$file"
PGPASSFILE=$file psql --host={postgres.PART} --port={postgres.PORT} --username="$0" --dbname="$1" --no-password \\
    --no-psqlrc --tuples-only --no-align --command="SELECT 'in'" 2>&1
"""
_REDIS_CLI = f"""\
IFS= read -r REDISCLI_AUTH
export REDISCLI_AUTH
redis-cli -h {redis.PART} -p {redis.PORT} --user "$0" ping 2>&1
"""


def _postgres(user: str) -> _Server:
    refused = ("password authentication failed", "is not permitted to log in")
    return _Server(part=postgres_roles.PART, script=_PSQL, user=user, taken="in", refused=refused)


def _redis(user: str) -> _Server:
    return _Server(part=redis_users.PART, script=_REDIS_CLI, user=user, taken="PONG", refused=("WRONGPASS",))


_SERVERS: Mapping[str, _Server] = {
    "postgres_app": _postgres(""),
    "postgres_exporter": _postgres(postgres.EXPORTER_ROLE),
    "postgres_backup": _postgres(postgres.BACKUP_ROLE),
    "redis_app": _redis(redis.APP_USER),
    "redis_exporter": _redis(redis.EXPORTER_USER),
    "redis_backup": _redis(redis.BACKUP_USER),
}


def _exec(container: Container, command: Sequence[str], text: str) -> str:
    """Run a command in a container with `text` on its standard input; return all that it says."""
    api = cast("Any", container.client).api
    made = api.exec_create(container.id, list(command), stdin=True)
    stream = api.exec_start(made["Id"], socket=True)
    # The SDK gives a reader over the socket, which leaves it open; over SSH one object is both.
    connection = getattr(stream, "_sock", stream)
    try:
        connection.sendall(text.encode())
        return b"".join(data for _, data in frames(stream)).decode(errors="replace")
    finally:
        stream.close()
        connection.close()


def _rotate_grafana(workspace: Workspace, secret: str, step: Step, url: str) -> None:
    """Hand Grafana its new admin password: it reads the file only into an empty volume."""
    values = workspace.open().secrets(every=True)
    slots = slots_of(secret, step.generation, step.phase)
    with _grafana(workspace.settings(), url) as client:
        old, new = values[label(slots.in_use)], values[label(slots.other)]
        shown = workspace.typed("password NAME=grafana-admin")
        change_grafana_password(client, old=old, new=new, shown=shown)


def change_grafana_password(client: httpx.Client, *, old: str, new: str, shown: str) -> None:
    """Change the admin's password at the Grafana that `client` speaks to; nothing where it is changed already.

    Raises ProjectError where neither password is taken, or Grafana does not answer. Not more than two logins are
    tried: Grafana locks a user out for five minutes after five that fail. shown: the command that shows the old one.
    """
    if _grafana_login(client, new) == "in":
        return
    if _grafana_login(client, old) != "in":
        raise ProjectError(
            "Grafana takes neither the old admin password nor the new one: somebody changed it by hand. Set it to the "
            f"old one, then run this again: {shown}, and in Grafana's container "
            "`grafana cli admin reset-admin-password --password-from-stdin`."
        )
    answer = _ask(
        client,
        "PUT",
        "/api/user/password",
        auth=(GRAFANA_USER, old),
        json={"oldPassword": old, "newPassword": new, "confirmNew": new},
    )
    if answer.status_code != _OK:
        raise ProjectError(f"Grafana does not change its admin password: it answers {answer.status_code}.")


def _grafana_login(client: httpx.Client, password: str) -> Answer:
    answer = _ask(client, "GET", "/api/user", auth=(GRAFANA_USER, password))
    if answer.status_code == _OK:
        return "in"
    if answer.status_code == _UNAUTHORIZED:
        return "refused"
    raise ProjectError(f"Grafana does not say who is logged in: it answers {answer.status_code}.")


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    import httpx  # noqa: PLC0415 - as below

    try:
        return client.request(method, path, **options)
    except httpx.TransportError as error:
        raise ProjectError(
            f"Grafana does not answer at {client.base_url} ({type(error).__name__}). If its port is not reached from "
            "here, name an address that is: --grafana-url"
        ) from None


@contextmanager
def _grafana(environment: Environment, url: str) -> Iterator[httpx.Client]:
    import httpx  # noqa: PLC0415 - only for Grafana

    with (
        reach.part(environment, environment.settings.grafana, url) as address,
        # No proxy of this machine's environment: it would answer for its own loopback.
        httpx.Client(base_url=address, timeout=10, trust_env=False) as client,
    ):
        yield client
