"""Import of the data of a stack that Docker Compose made: its volumes are read and never written to.

Each old volume is copied into a new volume. A server of this stack's version then opens the copy in a container without
a network, so that data that it cannot open is refused while everything still runs. After that a restore (`restore.py`)
sets the present data aside, replaces it with the copy, gives it this stack's passwords and backs it up.

Each step that is done is noted in a file beside the state, and the same command resumes an interrupted import. The
import starts from its first step as long as no copy was put in place, and also when an old volume was written to since
it was copied, so that no write to the old stack is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from operations.data import backups
from operations.data.compose.actions import ImportActions
from operations.data.compose.import_on_engine import EngineImport
from operations.data.compose.plan import ImportPlan, planned, refuse_changed, refuse_while_used
from operations.data.compose.source import NAMES, OldServer, Source
from operations.data.restore.actions import Up
from operations.data.volume_names import IMPORTED
from operations.errors import ProjectError
from operations.workspace import stack_file
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment


@dataclass
class Import:
    """One import, which continues after the last step that is noted as done."""

    environment: Environment
    hands: ImportActions
    plan: ImportPlan
    path: Path
    say: Callable[[str], None]

    def copy_of(self, source: Source) -> str:
        """Return the name of the volume that a source is copied into."""
        return f"{self.environment.prefix}-{source.server}{IMPORTED}{self.plan.stamp}"

    def run(self) -> str:
        """Do the remaining steps; return what the person must know now. No data here changes before the first `put`."""
        # Data that was put in place is in use: putting it there again would replace what was written since.
        left = [each for each in self.plan.sources if f"put-{each.server}" not in self.plan.done]
        gone = [each.server for each in left if not self.hands.there(self.copy_of(each))]
        again = {f"{name}-{server}" for name in ("copy", "open") for server in gone}
        self.plan = replace(self.plan, done=tuple(key for key in self.plan.done if key not in again))
        steps = [(name, source) for name in ("copy", "open", "put") for source in self.plan.sources]
        for number, (name, source) in enumerate(steps, 1):
            key = f"{name}-{source.server}"
            if key not in self.plan.done:
                self.say(f"[{number}/{len(steps)}] {_TITLES[name].format(NAMES[source.server], source.volume)}")
                told = self._do(name, source)
                self._note(key, told)
        self.forget()
        return "\n".join(
            [*self.plan.told, f"The volumes of {self.plan.project} are as they were: keep them until you are sure."]
        )

    def finish(self, source: Source) -> None:
        """Put the copy of a source in place, and note that this is done."""
        self._note(f"put-{source.server}", self._do("put", source))

    def _note(self, key: str, told: str = "") -> None:
        said = dict.fromkeys((*self.plan.told, *([told] if told else [])))  # a copy that is made again says the same
        self.plan = replace(self.plan, done=tuple(dict.fromkeys((*self.plan.done, key))), told=tuple(said))
        self.plan.write(self.path)

    def forget(self) -> None:
        """Remove the copies and the file with the plan."""
        for source in self.plan.sources:
            self.hands.remove(self.copy_of(source))
        stack_file.remove(self.path)

    def after_failure(self) -> str:
        """Return what was changed, or what to do next."""
        opened = all(f"open-{source.server}" in self.plan.done for source in self.plan.sources)
        if opened or any(key.startswith("put-") for key in self.plan.done):
            return "Then this again."
        return "Nothing was changed, neither here nor in the old volumes."

    def _do(self, name: str, source: Source) -> str:
        if name == "copy":
            refuse_while_used(self.hands, self.plan.project, [source])
            self.hands.copy(source, self.copy_of(source))
            refuse_changed(self.hands, self.plan)
            return ""
        if name == "put" and not self.hands.replacing(self.copy_of(source)):
            refuse_changed(self.hands, self.plan)
        if name == "open":
            return self.hands.open(source, self.copy_of(source))
        # Noted before the restore's journal goes: put in place again, it would replace what was written since.
        return self.hands.put(self.copy_of(source), partial(self._note, f"put-{source.server}"))


_TITLES = {
    "copy": "Copy {}'s data out of {}",
    "open": "Can {} of this stack open the copy of {}?",
    "put": "Put {}'s copy in the place of what is here",
}


@contextmanager
def opened(workspace: Workspace, project: str, given: Mapping[OldServer, str], *, up: Up) -> Iterator[Import]:
    """Yield a planned import; `run_import` does it, or resumes an interrupted one. Planning changes nothing.

    up: for the restore that puts the copies in place. Raises ProjectError for what would not work.
    """
    environment, say = workspace.settings(), workspace.reporter.say
    path = workspace.folder / f"import.{workspace.name}.json"
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        hands = EngineImport(client, environment, workspace, up)
        yield Import(environment, hands, planned(environment, hands, project, given, say), path, say)
    finally:
        client.close()


def run_import(importing: Import) -> str:
    """Do the import, or resume an interrupted one; return what the person must know now.

    Raises ProjectError that also says what was changed.
    """
    with importing.hands.alone():
        if begun := ImportPlan.read(importing.path):
            importing = _after(replace(importing, plan=begun), importing.plan)
        importing.plan.write(importing.path)
        try:
            return importing.run()
        except ProjectError as error:
            raise ProjectError(f"{error}\n{importing.after_failure()}") from error
        except KeyboardInterrupt:
            importing.say("Cut off. The same command goes on")
            raise


def _after(before: Import, plan: ImportPlan) -> Import:
    """Finish an interrupted `put`, then return the import to resume or the new one, as the module's docstring says."""
    for source in before.plan.sources:
        # A restore that was cut off when it was noted here runs no step any more: it only forgets itself.
        if before.hands.replacing(before.copy_of(source)):
            before.say(f"Finishing what was cut off: {NAMES[source.server]}'s copy is put in its place")
            before.finish(source)
    before = replace(before, plan=_of_earlier_version(before.plan, plan, before.hands))
    if before.plan.same(plan) and any(key.startswith("put-") for key in before.plan.done):
        before.say(f"Going on with the import of {before.plan.project}: {', '.join(before.plan.done)} is done")
        return before
    before.forget()
    return replace(before, plan=plan)


def _of_earlier_version(begun: ImportPlan, plan: ImportPlan, hands: ImportActions) -> ImportPlan:
    """Return a plan of an earlier version with this version's digest for each old volume that is unchanged.

    The earlier version noted the newest time in a volume in place of a digest. Without this conversion every volume
    would seem changed, and a new import would replace data that is already in place and in use.
    """
    volumes = [each.volume for each in begun.sources]
    earlier = any(str(each.changed).isdecimal() for each in begun.sources)
    if not earlier or set(volumes) != {each.volume for each in plan.sources}:
        return begun
    now = hands.look(volumes)
    return replace(
        begun,
        sources=tuple(
            replace(each, changed=str(now[each.volume]["changed"]))
            if str(each.changed) == str(now[each.volume]["newest"])
            else each
            for each in begun.sources
        ),
    )
