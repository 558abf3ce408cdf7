from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl

import pytest
import yaml

from operations.lifecycle.render import files
from stack import catalogue
from stack.monitoring.alerts import Alert
from stack.monitoring.boards import replicas
from stack.parts.logs import spec as logs
from stack.parts.node_exporter.rules import DISKS
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.files import yaml_document
from tests import goldens
from tests.described import dashboard_texts as rendered
from tests.described import specs
from tests.recording import CASES, case_config, case_environment, environment_of, merged
from tests.render.conftest import Laboratory, output
from tests.render.known_alerts import every_alert

UIDS = {
    "samokoder-overview",
    "samokoder-golden-signals",
    "samokoder-postgres",
    "samokoder-redis",
    "samokoder-containers",
    "samokoder-monitoring",
    "samokoder-backups",
}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SEVERITIES = {"red": "critical", "orange": "warning", "blue": "info"}
FINE = {"green", "transparent"}
# What an alert's threshold is multiplied by to be in the unit of its panel: `percentunit` and `s`.
SCALES = {"percent": 1 / 100, "hours": 3600, "days": 86400}
# Settings of the alerts that are no line: an address, a factor of time, a condition beside the threshold, what is added
# to a schedule, and the two objectives with what counts as fast, which are in the questions.
NO_LINES = {
    "runbooks_url",
    "wait_factor",
    # So many requests in a window of its own: no panel has such a sum.
    "api_burn_requests",
    "projects_expected_above_requests_per_second",
    "backup_late_hours",
    "api_availability_percent",
    "api_fast_percent",
    "api_fast_seconds",
}

Json = dict[str, Any]


def dashboards(environment: Environment) -> dict[str, Json]:
    """Return the dashboards by their uid, as Grafana reads them."""
    return {uid: json.loads(text) for uid, text in rendered(environment).items()}


def everything_in(dashboard: Json) -> list[Json]:
    """Return the headings and the panels of a dashboard in their order, those in collapsed rows too."""
    return [each for shown in dashboard["panels"] for each in (shown, *shown.get("panels", ()))]


def panels_of(dashboard: Json) -> list[Json]:
    """Return the panels of a dashboard, without the headings of rows."""
    return [panel for panel in everything_in(dashboard) if panel["type"] != "row"]


def panels(environment: Environment) -> list[tuple[str, Json]]:
    """Return every panel with the uid of its dashboard, without the headings of rows."""
    return [(uid, panel) for uid, dashboard in dashboards(environment).items() for panel in panels_of(dashboard)]


def questions(
    environment: Environment, *, rate_interval: str = "1m", interval: str = "15s", range_: str = "1h"
) -> list[tuple[str, str, str]]:
    """Return (uid of the dashboard, title of the panel, PromQL) of every question, every variable filled in with All.

    rate_interval: at least four times the scrape interval, as Grafana makes it.
    """
    own = {"__rate_interval": rate_interval, "__interval": interval, "__range": range_}
    return [
        (uid, panel["title"], filled_in(target["expr"], own | everything(dashboard)))
        for uid, dashboard in dashboards(environment).items()
        for panel in panels_of(dashboard)
        for target in panel["targets"]
    ]


def everything(dashboard: Json) -> dict[str, str]:
    """Return what each variable of a dashboard is when all is chosen."""
    return {each["name"]: each["allValue"] for each in variables(dashboard)}


def filled_in(expression: str, values: Mapping[str, str]) -> str:
    """Return an expression with values in place of its variables; KeyError for one that there is not."""
    # `$1` is PromQL's own.
    return re.sub(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", lambda found: values[found[1] or found[2]], expression)


def variables(dashboard: Json) -> list[Json]:
    """Return the variables of a dashboard but the datasource."""
    return [each for each in dashboard["templating"]["list"] if each["type"] == "query"]


def runbooks(panel: Json) -> list[str]:
    """Return the names of the alerts whose pages a panel links to."""
    return [link["url"].rpartition("/")[2].removesuffix(".md") for link in panel["links"]]


def lines(panel: Json) -> list[tuple[float, str, bool]]:
    """Return (value, colour of what is beyond it, whether beyond is below) of each line of a panel."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    below = steps[0]["color"] not in FINE
    return [(step["value"], (before if below else step)["color"], below) for before, step in pairwise(steps)]


def alerts(environment: Environment) -> list[Alert]:
    return list(every_alert(environment, specs(environment)))


def changed(case: str = "staging", **settings: object) -> Environment:
    """Return an environment with other settings of the alerts."""
    stack, config = case_config(case)
    return environment_of(stack, merged(config, {"alerts": {alias(name): value for name, value in settings.items()}}))


def alias(name: str) -> str:
    return Alerts.model_fields[name].alias or name


@pytest.mark.parametrize("case", ["staging", "prod", "managed", "without-grafana"])
def test_every_dashboard_has_a_uid_of_its_own_that_is_its_file_s_name(case: str) -> None:
    environment = case_environment(case)
    found = dashboards(environment)
    assert {uid: dashboard["uid"] for uid, dashboard in found.items()} == {uid: uid for uid in UIDS}
    titles = [dashboard["title"] for dashboard in found.values()]
    assert len(set(titles)) == len(titles)
    mounted = [name for name in files(environment) if name.startswith("grafana/dashboards/")]
    assert sorted(mounted) == [f"grafana/dashboards/{uid}.json" for uid in sorted(UIDS)]


def test_the_same_settings_make_the_same_text() -> None:
    first, second = (catalogue.dashboard_texts(case_environment("staging")) for _ in range(2))
    assert first == second


def test_nothing_but_grafana_s_own_files_needs_the_sdk() -> None:
    asked = "import sys, stack.catalogue; sys.exit('grafana_foundation_sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0, "half a second in every command"


@pytest.mark.parametrize("case", CASES)
def test_every_panel_says_what_it_shows_and_in_which_unit(case: str) -> None:
    for uid, panel in panels(case_environment(case)):
        name = f"{uid}: {panel['title']}"
        assert panel["title"], f"{uid} has a panel without a title"
        assert panel["description"].endswith("."), f"{name}: nobody knows what it means"
        assert panel["fieldConfig"]["defaults"]["unit"], f"{name} has numbers without a unit"
        assert panel["targets"], f"{name} asks nothing"
        assert all(target["expr"] for target in panel["targets"]), f"{name} asks nothing"
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters), f"{name}: Grafana shows the answer to one of two with one letter"


def test_no_dashboard_has_two_panels_or_rows_with_one_title() -> None:
    for uid, dashboard in dashboards(case_environment("staging")).items():
        for row in (True, False):
            titles = [panel["title"] for panel in everything_in(dashboard) if (panel["type"] == "row") is row]
            assert len(set(titles)) == len(titles), uid


def test_every_graph_has_a_legend_and_a_name_for_each_of_its_lines() -> None:
    for uid, panel in panels(case_environment("staging")):
        if panel["type"] in ("timeseries", "state-timeline"):
            assert panel["options"]["legend"]["showLegend"], f"{uid}: {panel['title']}: the SDK hides legends"
            assert all(target["legendFormat"] for target in panel["targets"]), f"{uid}: {panel['title']}"
            assert all(target["range"] for target in panel["targets"]), f"{uid}: {panel['title']} is over time"
        else:
            assert all(target["instant"] for target in panel["targets"]), f"{uid}: {panel['title']} is of now"


@pytest.mark.parametrize("case", ["staging", "prod"])
def test_everything_is_asked_of_the_datasource_that_is_chosen_at_first_the_provisioned_one(case: str) -> None:
    environment = case_environment(case)
    provisioned = yaml_document(files(environment)["grafana/provisioning/datasources/samokoder.yml"])
    (source,) = provisioned["datasources"]
    for uid, dashboard in dashboards(environment).items():
        (variable,) = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
        assert (variable["name"], variable["query"]) == ("datasource", source["type"])
        assert variable["current"] == {"text": source["name"], "value": source["uid"]}
        asking = [
            *variables(dashboard),
            *dashboard["annotations"]["list"],
            *(each["target"] for each in dashboard["annotations"]["list"]),
            *panels_of(dashboard),
            *(target for panel in panels_of(dashboard) for target in panel["targets"]),
        ]
        assert [each for each in asking if each["datasource"] != SOURCE] == [], uid


def test_every_variable_has_an_all_that_is_any_value_and_is_used() -> None:
    for uid, dashboard in dashboards(case_environment("staging")).items():
        text = json.dumps(dashboard["panels"])
        for variable in variables(dashboard):
            name = f"{uid}: {variable['name']}"
            assert variable["multi"], name
            assert variable["includeAll"], name
            assert variable["allValue"] == ".+", f"{name}: a list of all answers grows too long for a question"
            assert variable["current"] == {"text": ["All"], "value": ["$__all"]}, name
            assert variable["query"]["query"] == variable["definition"], name
            assert f'=~\\"${variable["name"]}\\"' in text, f"{name} is chosen and changes nothing"
            assert (
                re.search(rf"\$\{{?{variable['name']}\b", text.replace(f'=~\\"${variable["name"]}\\"', "")) is None
            ), f"{name}: several chosen values are a regular expression"


def test_one_name_of_a_variable_means_the_same_on_every_dashboard() -> None:
    meanings: dict[str, set[str]] = {}
    for dashboard in dashboards(case_environment("staging")).values():
        for variable in variables(dashboard):
            meanings.setdefault(variable["name"], set()).add(variable["definition"])
    assert [name for name, definitions in meanings.items() if len(definitions) > 1] == [], (
        "links between dashboards take the chosen values along"
    )


@pytest.mark.parametrize("case", ["staging", "prod"])
def test_every_dashboard_is_read_only_fresh_and_linked_to_the_others(case: str) -> None:
    environment = case_environment(case)
    for uid, dashboard in dashboards(environment).items():
        assert dashboard["editable"] is False, uid
        assert dashboard["refresh"] == "30s", uid
        assert dashboard["time"]["to"] == "now", uid
        assert dashboard["tags"] == ["samokoder", environment.name], uid
        assert environment.name in dashboard["title"], f"{uid}: two environments look the same"
        assert dashboard["description"], uid
        link, lines = dashboard["links"]
        assert (link["type"], link["tags"]) == ("dashboards", ["samokoder"]), uid
        assert "placement" not in link, "a dropdown in the menu of controls is not shown at all"
        address, _, asked = lines["url"].partition("?")
        assert (lines["type"], address) == ("link", f"{environment.settings.logs.address}{logs.PAGE}#/"), uid
        said = dict(parse_qsl(asked))
        assert said.pop("query").startswith(f'{{environment="{environment.name}"'), uid
        assert said == {
            "g0.range_input": dashboard["time"]["from"].removeprefix("now-"),
            "g0.relative_time": "none",
            "g0.end_input": "${__to:date:iso}",
        }, uid


def test_the_dashboard_of_a_part_links_to_the_logs_of_parts_that_run() -> None:
    environment = case_environment("staging")
    names = {name.replace("_", "-") for name in environment.running()}
    found = {}
    for uid, dashboard in dashboards(environment).items():
        query = dict(parse_qsl(dashboard["links"][1]["url"].partition("?")[2]))["query"]
        found[uid] = re.findall(r'part=~"([^"]*)"', query)
    assert {uid for uid, parts in found.items() if not parts} == {"samokoder-overview", "samokoder-containers"}
    assert {part for parts in found.values() for each in parts for part in each.split("|")} <= names


def test_every_dashboard_marks_what_fired_and_what_was_deployed() -> None:
    for uid, dashboard in dashboards(case_environment("staging")).items():
        marks = {each["name"]: each for each in dashboard["annotations"]["list"]}
        assert marks.keys() == {"Firing alerts", "Deployments"}, uid
        assert marks["Firing alerts"]["target"]["expr"].startswith(
            'ALERTS{alertstate="firing",severity=~"critical|warning"'
        )
        assert marks["Deployments"]["useValueForTime"], f"{uid}: the series' value is the moment of the start"
        assert "1000 * " in marks["Deployments"]["target"]["expr"], f"{uid}: Grafana counts in milliseconds"
        assert all("placement" not in each for each in marks.values()), uid


def test_panels_stand_in_rows_on_the_grid_and_none_covers_another() -> None:
    for uid, dashboard in dashboards(case_environment("staging")).items():
        taken: dict[tuple[int, int], str] = {}
        assert dashboard["panels"][0]["type"] == "row", f"{uid} begins without a heading"
        for panel in opened(dashboard):
            place, title = panel["gridPos"], panel["title"]
            assert place["x"] + place["w"] <= 24, f"{uid}: {title} is beyond the edge"
            assert (panel["type"] == "row") == ((place["x"], place["w"], place["h"]) == (0, 24, 1)), f"{uid}: {title}"
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert (x, y) not in taken, f"{uid}: {title} covers {taken[(x, y)]}"
                    taken[(x, y)] = title
        height = max(y for _, y in taken) + 1
        assert len(taken) == 24 * height, f"{uid} has holes"
        identities = [panel["id"] for panel in everything_in(dashboard)]
        assert identities == list(range(1, len(identities) + 1)), "links to a panel are by its number"


def opened(dashboard: Json) -> Iterator[Json]:
    """Yield everything with the places that it has when every row is open: Grafana moves what is below one down."""
    moved = 0
    for shown in dashboard["panels"]:
        inside = shown.get("panels", [])
        for each in (shown, *inside):
            yield {**each, "gridPos": {**each["gridPos"], "y": each["gridPos"]["y"] + moved}}
        moved += sum(height for height in {each["gridPos"]["y"]: each["gridPos"]["h"] for each in inside}.values())


def test_the_containers_of_another_environment_are_not_shown() -> None:
    for uid, title, expression in questions(case_environment("staging")):
        for selector in re.findall(r"\bcontainer_[a-z_]+(\{[^}]*\})?", expression.replace("container_label", "")):
            assert 'name=~"samokoder-staging-' in selector, f"{uid}: {title}: {expression}"
            assert 'samokoder_environment="staging"' in selector, f"{uid}: {title}: {expression}"


def test_disks_are_those_that_the_rules_watch() -> None:
    for uid, title, expression in questions(case_environment("staging")):
        for selector in re.findall(r"\bnode_filesystem_[a-z_]+(\{[^}]*\})?", expression):
            assert DISKS in selector, f"{uid}: {title}: {expression}"


def test_a_rate_is_over_grafana_s_own_interval_or_over_minutes_that_have_a_meaning() -> None:
    for uid, title, expression in questions(case_environment("staging"), rate_interval="RATE"):
        for window in re.findall(r"\[([^\]]*)\]", re.sub(r'"[^"]*"', "", expression)):
            assert window == "RATE" or re.fullmatch(r"(5|10|15|30)m|[13]h", window), f"{uid}: {title}: {expression}"


def test_quantiles_are_of_the_sum_of_all_replicas() -> None:
    for uid, title, expression in questions(case_environment("staging")):
        for asked in re.findall(r"histogram_quantile\([\d.]+, (.{12})", expression):
            assert asked == "sum by (le, " or asked.startswith("sum by (le)"), f"{uid}: {title}: {expression}"


@pytest.mark.parametrize("name", sorted(Alerts.model_fields.keys() - NO_LINES))
def test_a_threshold_that_is_set_otherwise_is_drawn_otherwise(name: str) -> None:
    (value,) = Alerts.model_fields[name].examples or [None]
    assert isinstance(value, float)
    # What is not set up has no panel: the bucket is.
    case = "prod" if name == "backup_offsite_hours" else "staging"
    usual, other = (
        {(uid, panel["title"], line) for uid, panel in panels(environment) for line in lines(panel)}
        for environment in (case_environment(case), changed(case, **{name: value}))
    )
    scale = SCALES.get(name.rpartition("_")[2], 1)
    drawn = {round(line[0], 9) for _, _, line in other - usual}
    assert drawn == {round(value * scale, 9)}, f"no panel draws samokoder:alerts.{alias(name)}"
    assert len(other) == len(usual)


def test_what_is_too_old_for_a_schedule_is_drawn_where_its_alert_fires() -> None:
    weekly = environment_of("staging", {"backup": {"baseSchedule": "0 1 * * 6"}, "alerts": {"backupLateHours": 3}})
    drawn = {panel["title"]: [value / 3600 for value, _, _ in lines(panel)] for _, panel in panels(weekly)}
    assert drawn["Base backup: age"] == drawn["Base backup: time since"] == [7 * 24 + 3, 14 * 24 + 3]
    assert drawn["Dump: age"] == [24 + 3, 48 + 3]
    assert drawn["Copy of Redis: age"] == [1 + 3, 24], "an hour of missed copies wakes nobody at night"
    fires = {threshold for alert in alerts(weekly) for threshold in thresholds(alert.expression, below=False)}
    assert {171 * 3600, 339 * 3600, 27 * 3600, 51 * 3600, 4 * 3600, 24 * 3600} <= fires


def test_without_backups_nothing_is_watched_and_the_dashboard_says_so() -> None:
    environment = environment_of("staging", {"backup": {"enabled": False}})
    assert not [alert.name for alert in alerts(environment) if alert.dashboard == "samokoder-backups"]
    (panel,) = [panel for uid, panel in panels(environment) if uid == "samokoder-backups"]
    assert panel["fieldConfig"]["defaults"]["noValue"] == "none are made"
    assert not panel["links"]
    assert not variables(dashboards(environment)["samokoder-backups"]), "a choice that changes nothing"


def test_the_objectives_are_in_the_questions_of_the_burn_rates() -> None:
    usual, other = (
        {(title, expression) for _, title, expression in questions(environment)}
        for environment in (
            case_environment("staging"),
            changed(api_availability_percent=99.5, api_fast_percent=95.0),
        )
    )
    new = other - usual
    assert {title for title, _ in new} == {
        "Burn rate of the error budget",
        "Burn rate of the latency budget",
        "Error budget left",
    }
    assert {re.findall(r".+ / ([\d.]+)", expression)[0] for _, expression in new} == {"0.005", "0.05"}


@pytest.mark.parametrize("case", CASES)
def test_a_line_is_where_an_alert_that_the_panel_names_fires(case: str) -> None:
    environment = case_environment(case)
    # Counts of what there should be: an alert is of each one, and the line of how many are left.
    of_api = environment.settings.api.replicas
    counts = {
        "Containers": replicas(environment),
        "Replicas that answer": of_api,
        "Replicas with traffic": of_api,
    }
    known: dict[str, list[Alert]] = {}
    for alert in alerts(environment):
        known.setdefault(alert.name, []).append(alert)
    for uid, panel in panels(environment):
        for value, colour, below in lines(panel) if panel["links"] else []:
            if below and value == counts.get(panel["title"]):
                continue
            rules_of_it = [rule for name in runbooks(panel) for rule in known[name]]
            drawn = [
                rule
                for rule in rules_of_it
                if SEVERITIES[colour] == rule.severity and value in thresholds(rule.expression, below=below)
            ]
            assert drawn, (
                f"{uid}: {panel['title']} has a {colour} line at {value}, {'below' if below else 'above'} which none "
                f"of its alerts fires: {[(rule.severity, rule.expression) for rule in rules_of_it]}"
            )


def thresholds(expression: str, *, below: bool) -> set[float]:
    """Return what an expression compares with, products multiplied out and in each of their factors."""
    found = {0.0, 1.0}  # == 0, == 1, > 0: a state, and no threshold that could be set
    for compared in re.findall(rf"{'<' if below else '>'} ([\d.e]+(?: \* [\d.e]+)*)", expression):
        factors = [float(factor) for factor in compared.split(" * ")]
        product = 1.0
        for factor in factors:
            product *= factor
        found |= {product, *factors}
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_runbook_that_a_panel_names_is_of_an_alert(case: str) -> None:
    environment = case_environment(case)
    names = {alert.name for alert in alerts(environment)}
    base = environment.settings.alerts.runbooks_url
    for uid, panel in panels(environment):
        assert set(runbooks(panel)) <= names, f"{uid}: {panel['title']} is watched by an alert that there is not"
        assert {link["url"] for link in panel["links"]} == {f"{base}/{name}.md" for name in runbooks(panel)}
        assert all(
            link["title"] == f"Runbook: {name}" for link, name in zip(panel["links"], runbooks(panel), strict=True)
        )


@pytest.mark.parametrize("case", CASES)
def test_the_dashboard_that_an_alert_names_has_a_panel_that_names_the_alert(case: str) -> None:
    environment = case_environment(case)
    shown: dict[str, set[str]] = {uid: set() for uid in UIDS}
    for uid, panel in panels(environment):
        shown[uid] |= set(runbooks(panel))
    missing = {(alert.dashboard, alert.name) for alert in alerts(environment)} - {
        (uid, name) for uid, names in shown.items() for name in names
    }
    assert missing == set(), "whoever follows the link of a message finds nothing there"


@pytest.mark.live
def test_promtool_parses_every_question_of_every_dashboard(laboratory: Laboratory, environment: Environment) -> None:
    asked = sorted({expression for _, _, expression in questions(environment)} | set(marks(environment)))
    record = [{"record": f"asked:number_{number}", "expr": expression} for number, expression in enumerate(asked)]
    shell = laboratory.shell(
        environment.image("prometheus"),
        {"/test/asked.yml": yaml.safe_dump({"groups": [{"name": "dashboards", "rules": record}]}, width=1000)},
    )
    code, said = output(shell, "promtool", "check", "rules", "/test/asked.yml")
    assert code == 0, said
    assert f"{len(asked)} rules found" in said


def marks(environment: Environment) -> Iterator[str]:
    """Yield the PromQL of the annotations."""
    for dashboard in dashboards(environment).values():
        yield from (each["target"]["expr"] for each in dashboard["annotations"]["list"])


def test_what_the_dashboards_ask_is_as_it_was_reviewed() -> None:
    lines = [
        f"{uid} | {panel['title']} | {panel['fieldConfig']['defaults']['unit']} | {target['expr']}"
        for uid, panel in panels(case_environment("staging"))
        for target in panel.get("targets", ())
    ]
    goldens.compare("dashboards", {"staging.txt": "\n".join(lines) + "\n"}, "What a panel asks has changed.")
