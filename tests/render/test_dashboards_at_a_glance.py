"""Whether a person sees how it is: each kind of what a real Grafana showed wrongly, in all dashboards."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
import yaml

from operations.lifecycle.render import files
from stack.monitoring.boards import replicas
from stack.settings.environment import Environment
from tests.recording import case_environment
from tests.render.conftest import Laboratory, output
from tests.render.test_dashboards import (
    Json,
    dashboards,
    everything_in,
    filled_in,
    panels,
    panels_of,
    questions,
    variables,
)

SCREEN = 20
"""Units of the grid that a screen of 900 pixels shows below Grafana's own bars."""
BAD = (
    "5xx",
    "critical",
    "dropped",
    "evicted",
    "failed",
    "failure",
    "invalid",
    "not queued",
    "not taken",
    "refused",
)
GREY = "#8e8e8e"


@cache
def shown(case: str = "staging") -> list[tuple[str, Json]]:
    """Every panel with the uid of its dashboard."""
    return panels(case_environment(case))


def of(kind: str) -> list[tuple[str, Json]]:
    """Every panel of a kind, with what it is called in a message."""
    found = [(f"{uid}: {panel['title']}", panel) for uid, panel in shown() if panel["type"] == kind]
    assert found, f"no dashboard has a {kind} any more"
    return found


def defaults(panel: Json) -> Json:
    found: Json = panel["fieldConfig"]["defaults"]
    return found


def test_a_band_of_states_has_the_colour_of_its_state() -> None:
    for name, panel in of("state-timeline"):
        assert defaults(panel)["mappings"], f"{name}: nobody says which state is good"
        assert defaults(panel)["color"]["mode"] != "thresholds", (
            f"{name} is always green: Grafana colours by thresholds before it looks at the text of a value"
        )


def test_all_bands_of_states_are_on_one_page_with_room_for_their_names() -> None:
    for name, panel in of("state-timeline"):
        assert panel["options"]["perPage"] == 0, f"{name} has a pager, which takes the room of two bands"
        for target in panel["targets"]:
            labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert len(labels) <= 1, f"{name}: names are cut on the left"
    for uid, title in (("samokoder-containers", "Health"), ("samokoder-overview", "Targets")):
        (panel,) = [each for dashboard, each in shown() if (dashboard, each["title"]) == (uid, title)]
        bands = len(case_environment("staging").running())
        assert panel["gridPos"]["h"] >= 2 + bands / 2, f"{uid}: the names of {bands} bands cover each other"


def test_containers_are_called_by_their_part_and_not_by_the_environment_too() -> None:
    for uid, panel in shown():
        for target in panel["targets"]:
            assert "{{name}}" not in target["legendFormat"] or "container_" not in target["expr"], (
                f"{uid}: {panel['title']}: the prefix of the environment takes the room of the name"
            )


def test_marks_of_alerts_are_hidden_until_asked_for_and_only_of_what_the_dashboard_shows() -> None:
    for uid, dashboard in dashboards(case_environment("staging")).items():
        marks = {each["name"]: each for each in dashboard["annotations"]["list"]}
        assert marks["Firing alerts"]["enable"] is False, f"{uid}: with some alerts every graph is solid red"
        assert marks["Deployments"]["enable"] is True, uid
        everything = 'alertname=~"' not in marks["Firing alerts"]["target"]["expr"]
        assert everything == (uid == "samokoder-overview"), f"{uid} marks alerts of other services"


@pytest.mark.parametrize("case", ["staging", "prod", "managed"])
def test_the_title_of_a_figure_has_room_on_a_small_screen(case: str) -> None:
    for uid, panel in shown(case):
        if panel["type"] == "stat":
            width = panel["gridPos"]["w"]
            assert width >= 6, f"{uid}: {panel['title']}: more than four in a line"
            assert len(panel["title"]) <= 4 * width, f"{uid}: {panel['title']} is cut: it has two icons beside it"


def test_a_limit_is_a_line_and_paints_no_area() -> None:
    lines = [panel["fieldConfig"]["defaults"]["custom"].get("thresholdsStyle") for _, panel in of("timeseries")]
    drawn = [line for line in lines if line]
    assert drawn, "no graph draws the line of its alert"
    assert {line["mode"] for line in drawn} == {"dashed"}, "an area makes a healthy stack orange"


def test_the_axis_of_a_graph_of_zeros_ends_where_it_means_something() -> None:
    for name, panel in of("timeseries"):
        top = defaults(panel)["custom"].get("axisSoftMax")
        steps = [step["value"] for step in defaults(panel)["thresholds"]["steps"] if step["value"] is not None]
        if defaults(panel)["unit"] == "percentunit":
            assert top is not None, f"{name}: its axis goes to 10,000 %"
            assert top <= 1, f"{name}: a share is at most all"
        elif steps:
            assert top is not None, f"{name}: its line is far below or above the graph"
            assert top >= max(steps), f"{name}: its line is above the graph"
        elif defaults(panel)["unit"] == "short":
            assert top is not None, f"{name}: a count of 0 is drawn on an axis to 100"


def test_a_graph_with_one_sample_shows_a_point() -> None:
    for name, panel in of("timeseries"):
        assert defaults(panel)["custom"]["showPoints"] == "auto", f"{name} is empty for the first minutes of a series"


def test_a_legend_has_room_for_its_names_and_the_largest_first() -> None:
    for name, panel in of("timeseries"):
        legend, place = panel["options"]["legend"], panel["gridPos"]
        assert (legend["sortBy"], legend["sortDesc"]) == ("Last *", True), f"{name}: zeros come first"
        many = len(panel["targets"]) > 3 or any("{{" in target["legendFormat"] for target in panel["targets"])
        if many:
            assert legend["placement"] == "right", f"{name}: below the graph is room for two of them"
            assert place["h"] >= 10, f"{name}: most of the names are hidden"
            assert place["w"] >= 12, f"{name}: nothing is left for the graph"


def test_a_figure_without_a_value_is_grey_and_says_so() -> None:
    for name, panel in of("stat"):
        special = [each["options"] for each in defaults(panel)["mappings"] if each["type"] == "special"]
        (nothing,) = special
        assert nothing["match"] == "null+nan", name
        assert nothing["result"]["color"] == GREY, f"{name}: Prometheus is away, and it looks well"
        assert nothing["result"]["text"], f"{name}: a grey nothing"


NEUTRAL = {
    # Young is neither well nor ill: a deployment restarts them, too.
    "Host is up for": "HostRebooted",
    "Running for": "PostgresRestarted or RedisRestarted",
    # None in an hour is ill only while there are requests, and at night it is not.
    "Projects in an hour": "NoProjectsCreated",
}
"""Figures with an alert and without a line."""


@pytest.mark.parametrize("case", ["staging", "prod", "managed", "frontend"])
def test_a_figure_that_an_alert_watches_is_not_green_whatever_it_shows(case: str) -> None:
    green = {
        panel["title"]
        for _, panel in shown(case)
        if panel["type"] == "stat" and panel["links"] and len(defaults(panel)["thresholds"]["steps"]) == 1
    }
    assert green <= NEUTRAL.keys(), f"green, however bad it is: {green - NEUTRAL.keys()}"


def test_a_replica_of_two_that_is_away_is_seen_and_so_is_a_host_where_nothing_is_healthy() -> None:
    steps = {
        panel["title"]: [(step["value"], step["color"]) for step in defaults(panel)["thresholds"]["steps"]]
        for _, panel in shown("prod")
        if panel["type"] == "stat"
    }
    for title in ("Replicas that answer", "Replicas with traffic"):
        assert steps[title] == [(None, "red"), (1, "orange"), (2, "green")], "1 of 2 looks well"
    assert steps["Containers"] == [(None, "red"), (replicas(case_environment("prod")), "green")]
    (asked,) = [expression for _, title, expression in questions(case_environment("prod")) if title == "Not healthy"]
    assert "!=" not in asked, "of nothing healthy there is no count: the answer is none, in grey, where all are ill"


def test_what_is_no_value_looks_the_same_in_bands() -> None:
    for name, panel in of("state-timeline"):
        assert defaults(panel)["color"].get("fixedColor") == GREY, f"{name}: a state without a text looks like one"


def test_the_table_of_what_fires_is_wide_and_sorted_and_coloured_and_never_empty() -> None:
    tables = {uid: panel for uid, panel in shown() if panel["title"] == "Firing alerts"}
    assert tables.keys() == dashboards(case_environment("staging")).keys(), "a dashboard does not say what fires"
    for uid, panel in tables.items():
        (target,) = panel["targets"]
        assert panel["gridPos"]["w"] >= 12, f"{uid}: the names are cut"
        assert target["expr"].startswith("sort_desc(3 * (count by (alertname, service)"), (
            f"{uid}: the worst is not first"
        )
        assert "vector(0)" in target["expr"], f"{uid}: an empty table says the same of a Prometheus that is away"
        assert 'severity=~"none"' not in target["expr"], f"{uid}: Watchdog always fires and means nothing here"
        (texts,) = defaults(panel)["mappings"]
        assert {value: each["color"] for value, each in texts["options"].items()} == {
            "3": "red",
            "2": "orange",
            "1": "blue",
            "0": "green",
        }, uid
        (override,) = panel["fieldConfig"]["overrides"]
        assert override["properties"][0]["id"] == "custom.cellOptions", f"{uid}: the colour of a text is not used"


def test_bad_is_red_on_every_dashboard() -> None:
    seen = set()
    for name, panel in of("timeseries"):
        colours = {
            each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"]
            for each in panel["fieldConfig"]["overrides"]
        }
        for target in panel["targets"]:
            for word in BAD:
                if target["legendFormat"] == word or target["legendFormat"].endswith(f" {word}"):
                    seen.add(word)
                    assert colours.get(target["refId"]) == "red", f"{name}: {word} has a colour by chance"
            labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert not {"code", "severity"} & set(labels), f"{name}: colours by order and not by meaning"
    assert {"failed", "failure", "5xx"} <= seen


@pytest.mark.parametrize("case", ["staging", "prod"])
def test_a_panel_says_when_a_choice_of_its_row_does_not_reach_it(case: str) -> None:
    for uid, dashboard in dashboards(case_environment(case)).items():
        for row in rows_of(dashboard):
            for choice in variables(dashboard):
                asked = f'"${choice["name"]}"'
                reached = {
                    panel["title"]: all(asked in target["expr"] for target in panel["targets"])
                    for panel in row
                    if panel["type"] != "table"
                }
                if not any(asked in target["expr"] for panel in row for target in panel["targets"]):
                    continue
                for panel in row:
                    said = f"The choice of {choice['label']} does not change" in panel["description"]
                    assert panel["type"] == "table" or said != reached[panel["title"]], (
                        f"{uid}: {panel['title']}: half of the row changes, and half does not, unsaid"
                    )


def rows_of(dashboard: Json) -> list[list[Json]]:
    """Return the panels of each row."""
    rows: list[list[Json]] = []
    for each in everything_in(dashboard):
        if each["type"] == "row":
            rows.append([])
        else:
            rows[-1].append(each)
    return rows


@pytest.mark.parametrize("case", ["staging", "prod", "managed", "frontend"])
def test_the_first_screen_is_a_summary_and_all_else_is_collapsed(case: str) -> None:
    for uid, dashboard in dashboards(case_environment(case)).items():
        first, *others = [each for each in dashboard["panels"] if each["type"] == "row"]
        assert not first.get("collapsed"), f"{uid}: a person sees nothing at first"
        assert others, f"{uid} has no details"
        assert all(row["collapsed"] and row["panels"] for row in others), (
            f"{uid}: a heading that hides nothing, or is open"
        )
        summary = [each for each in dashboard["panels"] if each["type"] != "row"]
        assert {each["type"] for each in summary} >= {"stat", "table"}, f"{uid}: is it well, and if not, where?"
        end = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in summary)
        assert end <= SCREEN + 1, f"{uid}: the summary is higher than a screen: {end}"


def test_units_are_those_that_people_use() -> None:
    for uid, panel in shown():
        name, unit = f"{uid}: {panel['title']}", defaults(panel)["unit"]
        assert unit not in ("cps", "d"), f"{name}: c/s, and 0.0116 day"
        for target in panel["targets"]:
            if unit == "short" and "increase(" in target["expr"]:
                assert "round(" in target["expr"], f"{name}: 57.03 projects"
            assert unit != "none" or "cpu_seconds" not in target["expr"] or "load" in target["expr"], f"{name}: 0.00045"


def test_a_share_does_not_go_far_below_zero() -> None:
    for title in ("Error budget left", "Smaller than usual"):
        (panel,) = [each for _, each in shown() if each["title"] == title]
        assert all(target["expr"].startswith("clamp_min(") for target in panel["targets"]), f"{title}: -4,451 %"


def test_what_is_not_set_up_is_left_out_or_says_so() -> None:
    titles = {panel["title"] for _, panel in shown()}
    assert not titles & {"Off-site: time since", "Off-site: last try", "Notifications", "Duration of sending"}
    assert {"Off-site: time since", "Off-site: last try", "Notifications"} <= {
        panel["title"] for _, panel in shown("prod")
    }
    for uid, panel in shown():
        asked = " ".join(target["expr"] for target in panel["targets"])
        if "samokoder_llm_" in asked and "or vector(0)" not in asked:
            assert defaults(panel)["noValue"] == "no calls", f"{uid}: {panel['title']}: No data, as if it were broken"
        if 'provider=~"$provider"' in asked:
            assert 'provider!="none"' in asked, f"{uid}: {panel['title']} names a provider that there is not"


def test_names_of_rule_groups_are_without_the_file() -> None:
    (panel,) = [each for _, each in shown() if each["title"] == "Duration of the rules"]
    (target,) = panel["targets"]
    assert '"rule_group", ".+;(.+)"' in filled_in(target["expr"], {})


def test_backups_are_looked_at_over_days_wherever_one_comes_from() -> None:
    for uid, dashboard in dashboards(case_environment("staging")).items():
        assert dashboard["links"][0]["keepTime"] is (uid != "samokoder-backups"), uid
    backups = dashboards(case_environment("staging"))["samokoder-backups"]
    assert backups["time"]["from"] == "now-2d", "of seven days a fresh stack shows nothing for a quarter of an hour"


def test_the_first_page_after_login_is_the_overview_under_that_name() -> None:
    environment = case_environment("staging")
    assert "samokoder-overview.json" in environment_of_grafana()["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert dashboards(environment)["samokoder-overview"]["title"] == "Overview (staging)"


def environment_of_grafana() -> dict[str, str]:
    from stack.parts.grafana import spec as grafana  # noqa: PLC0415

    return dict(grafana.spec(case_environment("staging")).environment)


def test_every_folder_of_provisioning_is_there() -> None:
    provisioned = files(case_environment("staging"))
    for folder in ("plugins", "alerting"):
        (name,) = [each for each in provisioned if each.startswith(f"grafana/provisioning/{folder}/")]
        assert yaml.safe_load(provisioned[name]) == {"apiVersion": 1}, "Grafana logs an error at each start without it"


def test_the_home_dashboard_is_a_file_that_is_mounted() -> None:
    path = environment_of_grafana()["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    name = path.removeprefix("/etc/samokoder/")
    text = files(case_environment("staging"))[f"grafana/{name}"]
    assert panels_of(json.loads(text)), "the page would be Grafana's own, with an error"


def series(labels: str, values: str) -> dict[str, str]:
    return {"series": labels, "values": values}


def told(expression: str, *expected: tuple[str, float]) -> dict[str, Any]:
    samples = [{"labels": labels, "value": value} for labels, value in expected]
    return {"expr": expression, "eval_time": "5m", "exp_samples": samples}


@pytest.mark.live
def test_what_fires_and_what_statements_are_called_is_what_prometheus_makes_of_it(
    laboratory: Laboratory, environment: Environment
) -> None:
    asked = {(uid, title): expression for uid, title, expression in questions(environment)}
    fires = asked["samokoder-overview", "Firing alerts"]
    statements = asked["samokoder-postgres", "Calls of statements"]
    named = 'pg_stat_statements_calls_total{instance="e",datname="d",queryid="%s"}'
    alert = 'ALERTS{alertname="%s",alertstate="%s",severity="%s",service="x"}'
    tests = [
        {
            "input_series": [series(alert % ("Watchdog", "firing", "none"), "1x40")],
            "promql_expr_test": [told(fires, ('{alertname="nothing fires"}', 0))],
        },
        {
            "input_series": [
                series(alert % ("A", "firing", "warning"), "1x40"),
                series(alert % ("B", "firing", "warning"), "1x40"),
                series(alert % ("B", "firing", "critical"), "1x40"),
                series(alert % ("C", "pending", "critical"), "1x40"),
            ],
            "promql_expr_test": [
                told(fires, ('{alertname="B",service="x"}', 3), ('{alertname="A",service="x"}', 2)),
            ],
        },
        {
            "input_series": [
                series(named % "1", "0+15x40"),
                series(named % "2", "0+15x40"),
                series('pg_statement_named{instance="e",queryid="1",statement="SELECT $1"}', "1x40"),
            ],
            "promql_expr_test": [
                told(
                    f"round({statements})",
                    ('{datname="d",queryid="1",statement="SELECT $1"}', 1),
                    ('{datname="d",queryid="2",statement="2"}', 1),
                )
            ],
        },
    ]
    document = {"evaluation_interval": "15s", "tests": [{"interval": "15s", **each} for each in tests]}
    text = yaml.safe_dump(document, width=10_000)
    shell = laboratory.shell(environment.image("prometheus"), {"/test/dashboards.yml": text})
    code, said = output(shell, "promtool", "test", "rules", "/test/dashboards.yml")
    assert code == 0, said
