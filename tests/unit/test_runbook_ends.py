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
        if end := re.search(r"\bends?\b", sentence):
            if "alert" not in sentence and "14.4x" not in sentence:
                continue
            if "at once" in sentence:
                yield 0
            for number, unit in DURATION.findall(sentence[end.end() :]):
                yield (1 if number in {"a", "an"} else int(number)) * UNITS[unit]


@pytest.mark.parametrize("name", [name for name, kept in KEPT.items() if kept])
def test_a_runbook_promises_no_earlier_end_than_its_alert_can_have(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    early = [each for each in promised(text) if each < KEPT[name] + SEEN_SECONDS]
    assert not early, f"{name} goes on for {KEPT[name]:g} s: at night somebody would mend again what is mended"


def test_most_runbooks_name_a_time_that_is_read_here() -> None:
    texts = [(RUNBOOKS / f"{name}.md").read_text(encoding="utf-8") for name in KEPT]
    assert sum(any(promised(text)) for text in texts) > len(texts) * 0.8, "the sentence has another form now"
    assert list(promised("**Worked when:** it runs. The alert ends within\n30 s, and\nat once with another.")) == [
        0,
        30,
    ]
