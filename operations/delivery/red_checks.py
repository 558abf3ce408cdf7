"""Which checks of the smoke test were red before a deploy: it has not made those faults, and going back mends none.

They are noted in the state, as they were while the good commit ran. Asked again while a bad version runs, the faults of
that version would pass for old ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from operations.delivery import good_metrics

TAG = "samokoder:red-checks"
"""Tag of a Pulumi stack: the checks that were red with the good commit when a deploy last began from it."""
_MOST = 28
"""So many fit into a tag's value; those beyond count as new, which is the careful side."""
_OFFSITE = "backup offsite"
# Only the API has replicas: "container api-2", "target api-2:8000".
_REPLICA = re.compile(r"(?<= )api-\d+(?=:|$)")


@dataclass(frozen=True, kw_only=True)
class SmokeReport:
    """What the report of a smoke test says."""

    asked: frozenset[str] = frozenset()
    """Names of all checks."""
    red: frozenset[str] = frozenset()
    """Names of those that failed."""


def reported(junit: Path) -> SmokeReport:
    """Read a smoke test's report. One that is not there, or was cut off, names no check: nothing could be asked."""
    try:
        # Our own program has written it.
        cases = list(ET.parse(junit).getroot().iter("testcase"))  # noqa: S314
    except (OSError, ET.ParseError):
        return SmokeReport()
    return SmokeReport(
        asked=frozenset(case.get("name", "") for case in cases),
        red=frozenset(case.get("name", "") for case in cases if case.find("failure") is not None),
    )


def written(report: SmokeReport) -> str:
    """Return the red checks of a report as the value of a tag.

    A check that is red for every replica is noted once more for the part, so that a replica more has no new fault.
    """
    green = {_of_part(name) for name in report.asked - report.red}
    parts = {_of_part(name) for name in report.red} - green
    # A bucket that takes no copies is red after half an hour, so it is no fault of the deploy that asks for it first.
    late = {_OFFSITE} if report.asked and _OFFSITE not in report.asked else set[str]()
    return good_metrics.written(sorted(late | report.red | parts)[:_MOST])


def split(red: Iterable[str], noted: str) -> tuple[list[str], list[str]]:
    """Return the red checks that are new and those that were red before. noted: the value of the tag."""
    new, old = list[str](), list[str]()
    for name in sorted(red):
        (old if _was_red(name, noted.split()) else new).append(name)
    return new, old


def _was_red(name: str, words: Collection[str]) -> bool:
    return any(good_metrics.short(each) in words for each in (name, _of_part(name)))


def _of_part(name: str) -> str:
    """Return the name of a check as it would be without replicas."""
    return _REPLICA.sub("api", name)
