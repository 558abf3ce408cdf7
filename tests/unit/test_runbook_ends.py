"""A runbook promises no earlier end of its alert than the rule allows, which keeps firing for minutes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from operations.clone import ROOT
from stack.catalogue import rule_document, specs
from stack.settings.types import seconds
from tests.recording import case_environment

RUNBOOKS = ROOT / "docs" / "runbooks"
SEEN_SECONDS = 30
"""Until it is seen that the condition is over: a scrape and an evaluation."""
UNITS = {"s": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
END = re.compile(r"(?:\balert|14\.4x|^It)\b.*?\b(?:ends?|is over)\b", re.DOTALL)
DURATION = re.compile(rf"\b(a|an|\d+)\s+({'|'.join(UNITS)})\b")


def kept_seconds() -> dict[str, float]:
    """How long each alert goes on at most after its condition is over, by its name."""
    found: dict[str, float] = {}
    for case in ("staging", "managed", "prod"):
        environment = case_environment(case)
        for group in rule_document(environment, specs(environment))["groups"]:
            for rule in group["rules"]:
                if name := rule.get("alert"):
                    found[name] = max(found.get(name, 0), seconds(rule.get("keep_firing_for", "0s")))
    return found


KEPT = kept_seconds()


def promised(text: str) -> Iterator[float]:
    """Yield the seconds after which the alert ends, by what a page says after "Worked when"."""
    for sentence in re.split(r"(?<=[.;:])\s+", text.partition("**Worked when:**")[2]):
        if not (end := END.search(sentence)):
            continue
        if re.search(r"\bat once\b|\bimmediately\b", sentence):
            yield 0
        # "Within 30 s the alert ends" says it before.
        for number, unit in DURATION.findall(sentence[end.end() :]) or DURATION.findall(sentence):
            yield (1 if number in {"a", "an"} else int(number)) * UNITS[unit]


@pytest.mark.parametrize("name", [name for name, kept in KEPT.items() if kept])
def test_a_runbook_promises_no_earlier_end_than_its_alert_can_have(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    early = [each for each in promised(text) if each < KEPT[name] + SEEN_SECONDS]
    assert not early, f"{name} goes on for {KEPT[name]:g} s: at night somebody would mend again what is mended"


BY_NO_TIME = {
    "BackupShrank",
    "BackupStampAhead",
    "PostgresCacheHitRatioLow",
    "PostgresCollationOutdated",
    "PostgresDatabaseGrowingFast",
    "RedisFileReadWithErrors",
}
"""Alerts that look back over hours, or end by an event: their pages say which in place of minutes."""


def test_every_other_runbook_names_a_time_that_is_read_here() -> None:
    pages = {name: (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8") for name, kept in KEPT.items() if kept}
    unread = {name for name, text in pages.items() if not list(promised(text))}
    assert unread == BY_NO_TIME, "the sentence has a form that is not read here, so it could promise 30 seconds"


@pytest.mark.parametrize(
    ("said", "times"),
    [
        ("The alert ends within\n30 s, and\nat once with another.", [0, 30]),
        ("The alert is over in 30 s.", [30]),
        ("Within 30 s the alert ends.", [30]),
        ("It ends within 30 s.", [30]),
        ("The alert ends immediately.", [0]),
        ("The alert ends within 9 min.", [540]),
        ("no request fails for 5 min. The alert ends within 9 min.", [540]),
    ],
)
def test_the_end_is_read_in_whatever_order_it_is_said(said: str, times: list[float]) -> None:
    assert list(promised(f"**Worked when:** it runs. {said}")) == times
