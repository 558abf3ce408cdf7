"""Restore: replace the content of a data volume, and set the earlier content aside.

No command except `destroy-data` removes a volume that was set aside. The data volume itself stays, because Pulumi
protects it and knows its name. The replacement is checked, and made complete in a new volume, before any data changes;
a request that fails the check is refused before anything is stopped. Each step that is done is noted in a file beside
the state, and each step can be repeated. `journal.py` says when an interrupted restore is resumed and when a new one
begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from operations.data import volume_names
from operations.data.restore import on_engine
from operations.data.restore.actions import Up
from operations.data.restore.journal import FETCH, Journal, journal_path, of_earlier_version
from operations.data.restore.request import Mend, Wanted, refuse_request, wanted
from operations.data.restore.steps import Restore, Restored, refuse_incomplete
from operations.data.volume_names import RESTORED
from operations.errors import ProjectError
from operations.workspace import lock
from operations.workspace.workspace import Workspace


def restore(workspace: Workspace, *, up: Up, to: str = "", backup: str = "", source: str = "") -> Restored:
    """Restore, or resume an interrupted restore.

    up: `lifecycle.up`, called where a data volume was lost. to, backup, source: as in `Wanted`; all empty: resume.
    Raises ProjectError for a request that cannot be met, before anything is stopped or changed.
    """
    return _restore(workspace, wanted(workspace.settings(), to=to, backup=backup, source=source), up, importing=False)


def put_imported(workspace: Workspace, source: str, up: Up, noted: Callable[[], None]) -> Restored:
    """Put an import's copy in place, or resume that. Only an import calls this. Raises as `restore` does.

    noted: notes in the import's plan that it is done.
    """
    return _restore(workspace, wanted(workspace.settings(), source=source), up, importing=True, noted=noted)


def mend(workspace: Workspace, way: Mend, up: Up) -> Restored:
    """Mend Redis' present data and put it back. Only a repair calls this. Raises as `restore` does."""
    return _restore(workspace, Wanted(mend=way), up, importing=False)


def _restore(
    workspace: Workspace, asked: Wanted, up: Up, *, importing: bool, noted: Callable[[], None] = lambda: None
) -> Restored:
    environment = workspace.settings()
    path = journal_path(workspace)
    say = workspace.reporter.say
    with lock.held(workspace, "restore") as locked, on_engine.engine_of(environment, locked, up) as hands:
        lock.keep_from_prune(hands.client, locked)
        before = of_earlier_version(environment, path)
        journal = before.after_words(asked, environment.name) if before else None
        if journal and journal.imports and not importing:
            again = journal.again(environment.name)
            raise ProjectError(f"An import has begun this ({journal.wanted}). It goes on by {again}.")
        if journal and before and journal.wanted.whole and journal.wanted != before.wanted:
            refuse_incomplete(hands, journal.wanted.source, journal.wanted.server)
        if journal is None:
            there = [name for name in volume_names.made_by_restores(hands.client, environment) if RESTORED not in name]
            refuse_request(environment, asked, there, importing=importing)
            journal = Journal(wanted=asked, stamp=hands.stamp())
            if before:
                # Its journal stays until ours takes its place, with what is still to be done of it.
                Restore(environment, hands, before, path, say).remove_made()
                journal = replace(journal, stopped=before.stopped, foreign=before.owes_password)
        else:
            say(f"Going on with: {journal.wanted}")
            if FETCH in journal.done and not journal.touched:
                fetch = workspace.typed("restore FROM=offsite")
                say(f"The off-site copy of {journal.stamp} stays; a new one is fetched by: {fetch}")
        journal.write(path)
        restoring = Restore(environment, hands, journal, path, say, noted)
        try:
            return restoring.run()
        except ProjectError as error:
            after = restoring.after_failure()
            left = restoring.journal
            if not left.done and not left.stopped and not left.owes_password:
                restoring.forget()
            raise ProjectError(f"{error}\n{after}") from error
        except KeyboardInterrupt:
            say(f"Cut off. It goes on: {workspace.typed('restore')}")
            raise


def planned(workspace: Workspace, asked: Wanted, hands: on_engine.EngineRestore) -> Restore:
    """Return the restore that a request would begin or resume. Raises ProjectError as `restore` does."""
    environment, path = workspace.settings(), journal_path(workspace)
    before = of_earlier_version(environment, path)
    journal = before.after_words(asked, environment.name) if before else None
    if journal and journal.imports:
        raise ProjectError(
            f"An import has begun this ({journal.wanted}). It goes on by {journal.again(environment.name)}."
        )
    if journal is None:
        there = [name for name in volume_names.made_by_restores(hands.client, environment) if RESTORED not in name]
        refuse_request(environment, asked, there, importing=False)
        journal = Journal(wanted=asked, stamp=hands.stamp())
    return Restore(environment, hands, journal, path, workspace.reporter.say)
