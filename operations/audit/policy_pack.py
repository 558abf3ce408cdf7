"""The hardening gate as a policy pack: `pulumi preview --policy-pack policy` fails where it finds something.

The rules and the list of exceptions are those of `rules` and `exceptions`; this module only offers them to Pulumi.

Pulumi starts this as the plugin `pulumi-analyzer-policy-samokoder`, a script of this package, because the runtime that
`policy/PulumiPolicy.yaml` names is no language. With `runtime: python` Pulumi would ask the Python language host, and
the one that is built from Go modules (sdk 3.75) does not understand how a Pulumi of today names the program to run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from operations.audit.exceptions import Allowed, exceptions
from operations.audit.facts import declared
from operations.audit.rules import RULES, Rule, Seen, of_rule
from operations.workspace.pulumi_state import CONTAINER


def _plain(node: Any) -> Any:
    """Return the inputs as plain values, without what a preview cannot know, such as a new volume's name."""
    if isinstance(node, Mapping):
        return {key: value for key in node for value in _known(node, key)}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [value for index in range(len(node)) for value in _known(node, index)]
    return node


def _known(node: Any, key: Any) -> Iterator[Any]:
    with contextlib.suppress(UnknownValueError):
        yield _plain(node[key])


def validation(rule: Rule, allowed: Sequence[Allowed]) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    """Return a function that reports how a container breaks one rule, unless an exception allows that."""
    today = datetime.now(UTC).date()

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type != CONTAINER:
            return
        facts = declared(_plain(args.props), {})
        if facts.is_carrier:
            return
        for broken in of_rule(rule, Seen(facts=facts)):
            if not any(exception.allows(broken) and exception.expires >= today for exception in allowed):
                report(f"{broken.part} {broken.says}", None)

    return validate


def main() -> None:
    """Serve the policies to the Pulumi that started this process, until Pulumi ends it."""
    allowed = exceptions()
    PolicyPack(
        name="samokoder-hardening",
        enforcement_level=EnforcementLevel.MANDATORY,
        policies=[
            ResourceValidationPolicy(
                name=f"cis-{rule.number}", description=rule.title, validate=validation(rule, allowed)
            )
            for rule in RULES.values()
        ],
    )
