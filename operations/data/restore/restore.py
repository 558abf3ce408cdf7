"""Restore: the content of a data volume is replaced, and what was in it is set aside in a volume that nobody removes.

The volume itself stays: Pulumi protects it and knows its name. What comes in its place is made first, complete, in a
volume of its own; so whatever cannot be restored is refused before anything is stopped. Each step that is done is
noted in a file beside the state, and each can be done twice. What goes on after a restore that was cut off, and what
begins anew, says `journal.py`.
"""

from __future__ import annotations

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

    up: brings the environment up where a data volume was lost: `lifecycle.up`. to, backup, source: as in `Wanted`. All
    empty: go on. Raises ProjectError for what cannot be done, before anything
    is stopped or changed.
    """
    return _restore(workspace, wanted(workspace.settings(), to=to, backup=backup, source=source), up, importing=False)


def put_imported(workspace: Workspace, source: str, up: Up) -> Restored:
    """Put what an import has copied in place, or go on with that: an import alone does. Raises as `restore` does."""
    return _restore(workspace, wanted(workspace.settings(), source=source), up, importing=True)


def mend(workspace: Workspace, way: Mend, up: Up) -> Restored:
    """Put Redis' own data back, mended: a repair alone does. Raises as `restore` does."""
    return _restore(workspace, Wanted(mend=way), up, importing=False)


def _restore(workspace: Workspace, asked: Wanted, up: Up, *, importing: bool) -> Restored:
    environment = workspace.settings()
    path = journal_path(workspace)
    say = workspace.reporter.say
    with lock.held(workspace, "restore") as locked, on_engine.engine_of(environment, locked, up) as hands:
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
        restoring = Restore(environment, hands, journal, path, say)
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
    """Return the restore that these words would begin or go on with. Raises ProjectError as `restore` does."""
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
