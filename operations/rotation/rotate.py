"""Rotate a secret: run `up` for each phase, so that the servers accept the value in use at every moment.

Only the committed stack file stores the progress of a rotation: each phase is written when its `up` has succeeded. So
after any interruption the next run repeats the step that was under way, with the same generation, and continues; where
somebody else's `up` has gone back in this rotation meanwhile, it continues from what the state has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic.alias_generators import to_camel

from operations.engine import containers
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle.up import Agree, bring_up
from operations.rotation.grafana import grafana_login, open_grafana, rotate_grafana
from operations.rotation.plan import at, going_on, known_secret, left, no_secrets, says, waits
from operations.rotation.servers import SERVERS, Answer
from operations.workspace import lock, stack_file, stack_text
from operations.workspace.generations import ADMIN, RotationStep, step_of, steps_in
from operations.workspace.workspace import Workspace
from stack.settings.keys import key_of
from stack.settings.rotation import Phase
from stack.spec.rotation import SLOTTED, label, slots_of

DEFAULT_TOKEN_MINUTES = 720
"""The reference application's own TOKEN_MINUTES."""


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """The progress of a rotation; `str()` of it is the message for the person."""

    secret: str
    generation: int
    phase: Phase
    """Empty: the rotation is finished."""
    told: str
    until: datetime | None = None
    """When the rotation can continue, because the last token that the old key signed has expired."""

    def __str__(self) -> str:
        """Return the message for the person."""
        return self.told

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `samokoder rotate --json`; no value of a secret is in it."""
        until = self.until.isoformat() if self.until else None
        return {"secret": self.secret, "generation": self.generation, "phase": self.phase, "goes_on_after": until}


def rotate(
    workspace: Workspace,
    name: str,
    *,
    interactive: bool,
    retire_now: bool = False,
    grafana_url: str = "",
    agree: Agree | None = None,
) -> Rotated:
    """Rotate a secret, or resume an interrupted rotation.

    name: as `rows` has it. interactive: as for `lifecycle.up`. retire_now: do not wait until the tokens that the last
    SECRET_KEY signed have expired. grafana_url: Grafana's address, if this machine cannot reach its published port.
    agree: called once the preview of the first step was shown; it raises where the person says no.
    Raises ProjectError for a secret that is not rotated, with the reason, and where a server refuses the new value or
    accepts the old one; PulumiFailedError where an `up` fails: the values that were accepted before are still accepted.
    """
    secret = known_secret(workspace.settings(), name)
    with lock.held(workspace, "rotate") as locked:
        return _rotate(
            locked, secret, interactive=interactive, retire_now=retire_now, grafana_url=grafana_url, agree=agree
        )


def _rotate(
    workspace: Workspace,
    secret: str,
    *,
    interactive: bool,
    retire_now: bool,
    grafana_url: str,
    agree: Agree | None,
) -> Rotated:
    environment = workspace.settings()
    run = workspace.open_made()
    before = run.secrets(every=True)
    if label(secret) not in before:
        raise no_secrets(workspace)
    written = step_of(environment, secret)
    to_do = left(secret, written, steps_in(run.deployment(), secret))
    # Each step is written once the stack runs it, so a file that cannot say it is refused before the first one.
    for step in to_do:
        _written(workspace, secret, step)
    say = workspace.reporter.say
    say(f"{label(secret)}: {going_on(secret, written, to_do)}")
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
        stepped, hand_over = at(workspace, secret, step), None
        if secret == ADMIN and not step.phase and "grafana" not in environment.absent:
            # Before each such step, because a person may have written the phase before it.
            hand_over = partial(rotate_grafana, stepped, secret, replace(step, phase="prepare"), grafana_url)
        try:
            # What else lies in the stack file is deployed by the first step, and by no later one.
            asked = agree if number == 1 else None
            bring_up(stepped, interactive=interactive, agree=asked, make_way=hand_over)
        except PulumiFailedError:
            say(f"{workspace.committed_file.name} is as it was. Put right what failed, then run this again.")
            raise
        text = _written(workspace, secret, step)
        mode = workspace.committed_file.stat().st_mode & 0o777
        stack_file.write(workspace.committed_file, text, mode=mode)
    return _done(workspace, secret, before, grafana_url)


def _written(workspace: Workspace, secret: str, step: RotationStep) -> str:
    file = workspace.committed_file
    return write(file.read_text(encoding="utf-8"), secret, step, name=file.name)


def write(text: str, secret: str, step: RotationStep, *, name: str = "The stack file") -> str:
    """Return the text of a stack file with this step in it, all else as it was, comments and order too. name: its."""
    field = to_camel(secret)

    def change(config: Any) -> None:
        stack_text.section(config, "rotation")[field] = step.generation
        rotating = stack_text.section(config, "rotating")
        rotating.pop(field, None)
        if step.phase:
            rotating[field] = step.phase
        stack_text.drop_empty(config, "rotating")

    return stack_text.edited(text, change, name=name)


def tokens_last_until(workspace: Workspace) -> datetime:
    """Return when the last token that the old key signed has expired, at the latest.

    The newest API replica replaced the last replica that signed with the old key. If a deploy has replaced a replica
    since, the returned time is later than necessary, because nothing stores when the key was changed.
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


def _wait_text(workspace: Workspace, until: datetime) -> str:
    return (
        f"New tokens are signed by the new SECRET_KEY. Those that the one before has signed are good until "
        f"{until.astimezone().isoformat(timespec='minutes')}: run this again after that, and they are no longer. "
        f"--retire-now does it at once and logs their users out. Commit {workspace.committed_file.name} now."
    )


def _done(workspace: Workspace, secret: str, before: Mapping[str, str], grafana_url: str) -> Rotated:
    """Prove that the server accepts the new value and refuses the old one; return the result."""
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
            with open_grafana(environment, grafana_url) as client:
                expect(secret, new=grafana_login(client, new), old=grafana_login(client, old))
            proof = " Grafana takes the new one and refuses the old one."
    elif secret in SERVERS:
        engine = workspace.client()
        try:
            server = SERVERS[secret]
            container = containers.find(engine, environment, server.part)
            answers = [server.login(container, environment, slot, value) for slot, value in ((now, new), (last, old))]
        finally:
            engine.close()
        if new != old:  # they are the same where an earlier run was interrupted after its `up`
            expect(secret, new=answers[0], old=answers[1])
            proof = " The server takes the new one and refuses the old one."
    told = f"{label(secret)} is at generation {generation}.{proof} Commit {workspace.committed_file.name}."
    return Rotated(secret=label(secret), generation=generation, phase="", told=told)


def expect(secret: str, *, new: Answer, old: Answer) -> None:
    """Raise ProjectError unless the new value opens and the old one does not."""
    if new != "in":
        raise ProjectError(f"The server refuses the new {label(secret)}.")
    if old != "refused":
        raise ProjectError(f"The server still takes the old {label(secret)}.")
