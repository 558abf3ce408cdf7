"""Which series the rules and the dashboards read, found in their PromQL, so that no list has to be maintained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stack.catalogue import rule_groups
from stack.monitoring.alerts import Alert, Recording
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

_TEXT = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""")
# What is no series name: labels in a selector, labels after an operator, ranges, offsets, dashboard variables.
_NO_SERIES = re.compile(
    r"\{[^}]*\}|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\[[^\]]*\]|\boffset\s+\S+|\$\w+"
)
# A name that is not followed by a bracket, which would make it a function.
_NAME = re.compile(r"(?<![\w:.])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])")
_OPERATORS = frozenset({"and", "or", "unless", "bool", "inf", "nan", "by", "without", "group_left", "group_right"})

Readers = Mapping[str, Sequence[str]]
"""Name of a series -> the alerts, recording rules or panels that read it."""


def named(expression: str) -> frozenset[str]:
    """Return the names of the series that a PromQL expression reads."""
    bare = _NO_SERIES.sub(" ", _TEXT.sub(" ", expression.replace("${", "$").replace("\n", " ")))
    return frozenset(word for word in _NAME.findall(bare) if word.lower() not in _OPERATORS)


def of_rules(environment: Environment, parts: Sequence[ServiceSpec]) -> Readers:
    """Return the scraped series that the rules read, each with the names of the alerts and recording rules."""
    every = _rules(environment, parts)
    return _scraped(every, ((rule.name, rule.expression) for rule in every))


def of_dashboards(environment: Environment, parts: Sequence[ServiceSpec], texts: Iterable[str]) -> Readers:
    """Return the scraped series that the dashboards read, each with the titles of the panels. texts: their JSON."""
    return _scraped(_rules(environment, parts), (each for text in texts for each in _questions(json.loads(text), "")))


def _rules(environment: Environment, parts: Sequence[ServiceSpec]) -> list[Alert | Recording]:
    return [rule for group in rule_groups(environment, parts) for rule in group.rules]


def _scraped(every: Iterable[Alert | Recording], asked: Iterable[tuple[str, str]]) -> Readers:
    recorded = {rule.name for rule in every if isinstance(rule, Recording)}
    found: dict[str, dict[str, None]] = {}
    for reader, expression in asked:
        for name in named(expression) - recorded:
            found.setdefault(name, {})[reader] = None
    return {name: list(readers) for name, readers in sorted(found.items())}


def _questions(node: Any, title: str) -> Iterator[tuple[str, str]]:
    """Yield (title, expression) for each expression of a panel or an annotation in a dashboard's JSON."""
    if isinstance(node, Mapping):
        title = str(node.get("title") or node.get("name") or title)
        if isinstance(expression := node.get("expr"), str):
            yield title, expression
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _questions(each, title)
