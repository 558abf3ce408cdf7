"""Metrics of the contract that the team's own images exposed at the last good deploy, and which a version has lost.

They are noted in the state, beside the good commit, because the version that runs may be a bad one that stayed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from docker.errors import DockerException

from host.engine import connect
from host.errors import EngineError
from operations.checks.image import exposure
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.monitoring.metrics import Kind
from stack.parts.api.metrics import METRICS
from stack.settings.keys import key_of

TAGS = {kind: f"samokoder:good-metrics-{kind.value}" for kind in Kind}
"""Tags of a Pulumi stack: the metrics that the own image of each kind exposed at the last good deploy."""
_NONE = "none"


def written(names: Collection[str]) -> str:
    """Return names as the value of a tag: 8 digits of each SHA-256, because Pulumi Cloud allows 256 characters.

    names: at most 28.
    """
    return " ".join(sorted(map(short, names))) or _NONE


def read(value: str) -> frozenset[str]:
    """Return the metrics of a tag's value that the contract still requires."""
    words = set(value.split())
    return frozenset(metric.name for metric in METRICS if metric.required and short(metric.name) in words)


def own(config: Mapping[str, Any]) -> set[Kind]:
    """Return the kinds that run a team's own image: metrics of the reference application are not compared.

    config: what a commit has in the stack file of an environment, by key.
    """
    parts = {kind: config.get(key_of(kind.value)) for kind in Kind}
    return {kind for kind, part in parts.items() if isinstance(part, Mapping) and part.get("image")}


def shown(workspace: Workspace, kinds: Collection[Kind]) -> exposure.Shown:
    """Return the contract's metrics that the own images of these kinds expose now."""
    if not kinds:
        return exposure.Shown({}, {})
    try:
        environment = workspace.settings()
        with contextlib.closing(connect(workspace.engine().docker_host)) as client:
            found = exposure.shown(client, environment)
    except (ProjectError, EngineError, InvalidSettingsError, DockerException, OSError) as error:
        return exposure.Shown({}, dict.fromkeys(kinds, str(error)))
    return exposure.Shown({kind: each for kind, each in found.metrics.items() if kind in kinds}, found.unknown)


def before(workspace: Workspace, noted: Mapping[Kind, str], *, good_runs: bool) -> Mapping[Kind, frozenset[str]]:
    """Return the metrics that the good version exposed, by kind; a kind without noted metrics is left out.

    noted: the values of the tags. good_runs: whether the good version runs now; then its present metrics count too, as
    it may have imported more modules since.
    """
    values = {kind: read(value) for kind, value in noted.items() if value}
    now = shown(workspace, values).metrics if good_runs else {}
    return {kind: names | now.get(kind, frozenset()) for kind, names in values.items()}


def went_mute(
    workspace: Workspace,
    before: Mapping[Kind, frozenset[str]],
    now: exposure.Shown,
    *,
    kinds: Collection[Kind],
    say: Callable[[str], None],
) -> str:
    """Say which metrics the own images have lost; empty: none. Without them, alerts would be silent unnoticed."""
    faults = []
    for kind in sorted(kinds):
        if kind not in before or kind not in now.metrics:
            none = "of the version before no metrics are noted to compare with"
            say(f"{kind}: not judged by its metrics: {now.unknown.get(kind) or none}")
            continue
        environment, gone = workspace.settings(), exposure.gone(before[kind], now.metrics[kind])
        if gone.unseen:
            missing = exposure.not_exposed(environment, gone.unseen)
            look = workspace.typed("smoke")
            say(f"{kind}, which an earlier good version had, perhaps only later than now: {missing}. Look at: {look}")
        if gone.lost:
            forget = workspace.typed(f"pulumi ARGS='stack tag rm {TAGS[kind]}'")
            say(f"{kind}: to let it go without them on purpose, type `{forget}` and deploy again")
            faults.append(f"{kind}, which an earlier good version had: {exposure.not_exposed(environment, gone.lost)}")
    return "; ".join(faults)


def short(name: str) -> str:
    """Return the word that stands for a name in a tag's value."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
