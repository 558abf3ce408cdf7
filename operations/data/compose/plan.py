"""The plan of an import with the steps that are done, and the checks before anything is copied."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operations.clone import typed
from operations.data.compose.actions import ImportActions
from operations.data.compose.source import NAMES, SERVERS, OldServer, Source
from operations.data.restore.journal import unreadable
from operations.data.volume_names import STAMP
from operations.errors import ProjectError
from operations.workspace import stack_file
from stack.settings.environment import Environment
from stack.settings.keys import key_of

_DOCUMENT = "docs/migrating-from-compose.md"


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What an import would do, and the steps that are done."""

    project: str
    sources: tuple[Source, ...]
    stamp: str
    """When it was planned; part of the names of the volumes that the import makes."""
    done: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """What the person must know at the end."""

    @classmethod
    def read(cls, path: Path) -> ImportPlan | None:
        """Return the plan of an unfinished import; None: there is none. Raises ProjectError for an unreadable one."""
        try:
            text = stack_file.written(path)
            if text is None:
                return None
            raw = json.loads(text)
            sources = tuple(Source(**source) for source in raw["sources"])
            return cls(**raw | {"sources": sources, "done": tuple(raw["done"]), "told": tuple(raw["told"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise unreadable(path, "import", error) from None

    def write(self, path: Path) -> None:
        """Write the plan to a file."""
        stack_file.write(path, json.dumps(asdict(self), indent=2))

    def same(self, other: ImportPlan) -> bool:
        """Tell whether another plan is of the same volumes, and nothing was written to them between the two plans."""
        return {(each.volume, each.changed) for each in self.sources} == {
            (each.volume, each.changed) for each in other.sources
        }


def planned(
    environment: Environment,
    hands: ImportActions,
    project: str,
    given: Mapping[OldServer, str],
    say: Callable[[str], None],
) -> ImportPlan:
    """Return the plan of an import; planning only reads. given: volumes to use in place of those that are found.

    Raises ProjectError for what would not work.
    """
    if "backup" in environment.absent:
        raise ProjectError(
            f"What is imported is put into its place by the backup server, which {environment.name} does not have: "
            f"set {key_of('backup', 'enabled')}: true and `{typed(environment.name, 'up')}`, then this."
        )
    shared = "" if "workspace" in environment.absent else given.get("workspace") or hands.shared(project)
    volumes = list(dict.fromkeys([*hands.volumes(project), *given.values(), *([shared] if shared else [])]))
    if not volumes:
        raise ProjectError(
            f"Docker Compose has made no volume here for a project {project!r}. There are: "
            f"{', '.join(hands.projects()) or 'none'}. A volume that is not Compose's is named by itself: "
            "--postgres-volume, --redis-volume."
        )
    found = hands.look(volumes)
    sources = []
    for server in SERVERS:
        volume = shared if server == "workspace" else _volume_of(server, found, given)
        if server == "workspace" and server in environment.absent:
            continue
        if not volume:
            say(f"{NAMES[server]}: no volume of {project} has its data")
        elif server in environment.absent:
            say(f"{NAMES[server]} is a managed one here: bring {volume} there by a dump ({_DOCUMENT})")
        else:
            sources.append(_source(server, volume, found[volume], hands))
    if not sources:
        raise ProjectError(f"Nothing in the volumes of {project} can be imported: {', '.join(volumes)}.")
    refuse_while_used(hands, project, sources)
    needed, free = 2 * sum(source.bytes for source in sources), min(source.free for source in sources)
    if free < needed:
        raise ProjectError(
            f"The engine's disk has {free / 2**20:.0f} MiB free, and this needs {needed / 2**20:.0f}: the old volumes "
            "stay as they are."
        )
    return ImportPlan(project=project, sources=tuple(sources), stamp=f"{datetime.now(UTC):{STAMP}}")


def _volume_of(server: OldServer, found: Mapping[str, Mapping[str, Any]], given: Mapping[OldServer, str]) -> str:
    if server in given:
        if found[given[server]]["kind"] != server:
            raise ProjectError(f"There is no data of {NAMES[server]} in the volume {given[server]}.")
        return given[server]
    fitting = [volume for volume, each in sorted(found.items()) if each["kind"] == server]
    if len(fitting) > 1:
        raise ProjectError(
            f"More than one volume has {NAMES[server]}'s data: {', '.join(fitting)}. Name the one: "
            f"--{server}-volume {fitting[0]}"
        )
    return fitting[0] if fitting else ""


def _source(server: OldServer, volume: str, found: Mapping[str, Any], hands: ImportActions) -> Source:
    if server == "postgres":
        _refuse_cluster(volume, found, hands.major())
    return Source(
        server=server,
        volume=volume,
        folder=str(found.get("folder", ".")),
        bytes=int(found["bytes"]),
        changed=str(found["changed"]),
        free=int(found["free"]),
        appendonly=bool(found.get("appendonly")),
    )


def _refuse_cluster(volume: str, found: Mapping[str, Any], major: str) -> None:
    """Raise ProjectError for a data folder that this stack's PostgreSQL would not start on."""
    if found["others"]:
        folders = ", ".join([found["folder"], *found["others"]])
        raise ProjectError(f"{volume} has more than one PostgreSQL in it ({folders}): bring the right one by a dump.")
    if found["version"] != major:
        raise ProjectError(
            f"{volume} was written by PostgreSQL {found['version']}, and this stack's is {major}: another major "
            f"version cannot read its files. Bring it by a dump ({_DOCUMENT})."
        )
    if found["elsewhere"]:
        raise ProjectError(
            f"Parts of this PostgreSQL are outside of {volume}: {', '.join(found['elsewhere'])}. Bring it by a dump "
            f"({_DOCUMENT})."
        )
    if found["standby"]:
        raise ProjectError(f"{volume} is a standby's: import the volume of the primary, or promote it first.")


def refuse_while_used(hands: ImportActions, project: str, sources: Sequence[Source]) -> None:
    """Raise ProjectError while a running container mounts a volume: a copy would mix states of different moments."""
    users = {name for source in sources for name in hands.users(source.volume)}
    if users:
        raise ProjectError(
            f"In use by {', '.join(sorted(users))}: stop the old stack first, so that nothing is written that would be "
            f"left behind: docker compose --project-name {project} stop"
        )


def refuse_changed(hands: ImportActions, plan: ImportPlan) -> None:
    """Raise ProjectError where the old stack runs again, or an old volume was written to since the plan was made."""
    refuse_while_used(hands, plan.project, plan.sources)
    now = hands.look([source.volume for source in plan.sources])
    if changed := [each.volume for each in plan.sources if str(now[each.volume]["changed"]) != each.changed]:
        raise ProjectError(
            f"Written to since this import began: {', '.join(changed)}. What was written would be left behind. Stop "
            f"the old stack, then this again, which copies it anew: docker compose --project-name {plan.project} stop"
        )
