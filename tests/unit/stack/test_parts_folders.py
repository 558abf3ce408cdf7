"""A part is a folder: what it is, its alert rules and its dashboard, or why it has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack import catalogue
from stack.monitoring.boards import Board
from stack.settings.environment import Environment
from tests.recording import case_environment

ROOT = Path(__file__).resolve().parents[3]
PARTS = sorted(path.parent.name for path in (ROOT / "stack/parts").glob("*/__init__.py"))
WITHOUT = {
    "alertmanager/dashboard": "its panels are on the dashboard of Prometheus, which hands it the alerts",
    "blackbox_exporter/dashboard": "its panels are on the dashboard of Prometheus, which asks it",
    "frontend/dashboard": "a frontend's image has no metrics in the contract; its requests are the ingress'",
    "frontend/rules": "a frontend's image has no metrics in the contract; it is probed, and its container watched",
    "grafana/dashboard": "it is scraped for TargetDown alone; overview.py is the first page that it shows",
    "grafana/rules": "it is probed and scraped as every part, and nothing depends on it",
    "ingress/dashboard": "its panels are on the dashboard of the API, whose requests it hands on",
    "log_collector/dashboard": "its panels are on the dashboard of Prometheus, beside those of the monitoring",
    "logs/dashboard": "its panels are on the dashboard of Prometheus, and its own pages show the lines",
    "node_exporter/dashboard": "the host's panels are on the dashboard of the containers",
    "worker/dashboard": "its jobs and the language models are on the first page, grafana/overview.py",
}


@pytest.fixture
def environment() -> Environment:
    return case_environment("staging")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["spec", "rules", "dashboard"])
def test_a_part_has_its_spec_rules_and_dashboard_or_says_why_not(part: str, kind: str) -> None:
    there = (ROOT / "stack/parts" / part / f"{kind}.py").is_file()
    assert there != (f"{part}/{kind}" in WITHOUT), f"stack/parts/{part}/{kind}.py: write it, or say in WITHOUT why not"


def test_every_module_of_rules_is_gathered(environment: Environment) -> None:
    groups = [group.name for group in catalogue.rule_groups(environment, catalogue.specs(environment))]
    modules = [path for path in (ROOT / "stack/parts").glob("*/*.py") if "\ndef group(" in path.read_text("utf-8")]
    assert len(groups) == len(set(groups)) == len(modules), "an alert that Prometheus does not have fires never"


def test_every_dashboard_is_gathered(environment: Environment) -> None:
    modules = [
        path for path in (ROOT / "stack/parts").glob("*/*.py") if f"-> {Board.__name__}:" in path.read_text("utf-8")
    ]
    assert len(catalogue.dashboard_texts(environment)) == len(modules), "nobody would see it"
