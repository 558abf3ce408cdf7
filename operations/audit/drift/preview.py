"""What Pulumi itself would change, read from its preview."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from operations.audit.drift.difference import Difference, Typed

# Steps of a preview that change something. A replaced resource has other steps beside `replace`, which are ignored.
_CHANGES = frozenset({"create", "update", "replace", "delete", "import"})


def read_preview(steps: Sequence[Mapping[str, Any]], known: Collection[str], typed: Typed) -> list[Difference]:
    """Return what Pulumi would change. known: names that our own comparison has reported, in more detail."""
    findings = []
    for step in steps:
        kind = str(step["urn"]).split("::")[2].rpartition("$")[2]
        if step["op"] not in _CHANGES or kind.startswith(("pulumi:", "samokoder:")):
            continue
        states = [step.get(state) or {} for state in ("newState", "oldState")]
        names = [str((state.get("inputs") or {}).get("name") or "") for state in states]
        name = next(filter(None, names), str(step["urn"]).rpartition("::")[2])
        if name in known:
            continue
        reasons = sorted({*(step.get("diffReasons") or ()), *(step.get("replaceReasons") or ())})
        changed = f": {', '.join(map(str, reasons))}" if reasons else ""
        findings.append(
            Difference(
                name=name,
                field=kind.rpartition(":")[2],
                declared=f"the program has it otherwise{changed}",
                found=f"what was deployed; `up` would {step['op']} it",
                repair=typed.up,
            )
        )
    return list(dict.fromkeys(findings))
