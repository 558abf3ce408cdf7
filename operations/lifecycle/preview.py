"""What an `up` would change, for people and for programs (`samokoder preview --json`; docs/json.md has its form)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from operations.engine.redaction import without
from operations.errors import ProjectError
from operations.lifecycle import in_the_way
from operations.lifecycle.display import shown_by
from operations.lifecycle.prepare import prepare
from operations.lifecycle.up import refuse_undoing
from operations.workspace.every_secret import every_secret, without_secrets
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace

_CHANGES = ("create", "update", "replace", "delete")
_COLOUR = re.compile(r"<\{%.*?%\}>")


def show_preview(workspace: Workspace, *, interactive: bool, diff: bool = False) -> None:
    """Show what `up` would change. diff: with each field. Raises PulumiFailedError."""
    run = _prepared(workspace)
    show = shown_by(workspace, interactive=interactive)
    if show and diff:
        shown, secrets = show, every_secret(run)

        def show(line: str) -> None:
            shown(without(secrets, line))

    run.pulumi("preview", *(["--diff"] if diff else []), show=show)


def planned_changes(workspace: Workspace) -> dict[str, Any]:
    """Return what Pulumi says that an `up` would change; change nothing. Raises ProjectError where it gives no JSON."""
    run = _prepared(workspace)
    done = run.pulumi("preview", "--json", check=False, capture=True)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        said = without_secrets(run, (done.stderr or done.stdout).strip())
        raise ProjectError(f"`pulumi preview` failed:\n{said[-2000:]}") from None
    found = form(workspace.environment, answer, ok=done.returncode == 0)
    if found["errors"]:
        # All at once, because each look at the secrets asks Pulumi twice.
        found["errors"] = without_secrets(run, "\0".join(found["errors"])).split("\0")
    return found


def _prepared(workspace: Workspace) -> PulumiRun:
    """Return Pulumi, ready for a preview. Raises ProjectError where `up` would refuse."""
    run = prepare(workspace, images=False)
    refuse_undoing(workspace, run)
    in_the_way.refuse_missing_networks(workspace)
    return run


def form(environment: str, answer: Mapping[str, Any], *, ok: bool) -> dict[str, Any]:
    """Return the documented form of an answer of `pulumi preview --json`. No value of a field is in it.

    ok: whether the preview succeeded.
    """
    changes = [
        {"name": name, "type": kind, "change": step["op"], "fields": sorted(map(str, step.get("detailedDiff") or {}))}
        for step in answer.get("steps") or ()
        if step["op"] in _CHANGES
        for kind, name in [_named(step["urn"])]
    ]
    said = [each for each in answer.get("diagnostics") or () if each.get("severity") == "error"]
    return {
        "environment": environment,
        "ok": ok,
        "counts": {change: sum(each["change"] == change for each in changes) for change in _CHANGES},
        "changes": changes,
        "errors": [_COLOUR.sub("", str(each["message"])).strip() for each in said],
    }


def _named(urn: str) -> tuple[str, str]:
    """Return type and name of a resource: `docker:index/container:Container`, `api-1`."""
    *_, types, name = urn.split("::", 3)
    return types.rpartition("$")[2], name
