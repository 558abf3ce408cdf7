"""Links to the logs: what the page of VictoriaLogs reads from them."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from stack.monitoring import log_links
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from tests.recording import case_environment


def query(link: str) -> str:
    return dict(parse_qsl(urlsplit(link).fragment.partition("?")[2]))["query"]


@pytest.mark.parametrize(
    ("service", "asked"),
    [
        ("postgres-exporter", '{environment="staging",part="postgres-exporter"}'),
        ("api", '{environment="staging",part="api"}'),
        ("api-2", '{environment="staging",part="api",replica="2"}'),
        ("host", '{environment="staging"}'),
        (blackbox_exporter.PUBLIC, '{environment="staging"}'),
        (blackbox_exporter.EXTERNAL, '{environment="staging"}'),
    ],
)
def test_an_alert_links_to_the_lines_of_its_part_or_of_all(service: str, asked: str) -> None:
    assert query(log_links.of_service(case_environment("staging"), service)) == asked


def test_an_alert_on_the_store_itself_links_to_no_page_that_is_down() -> None:
    assert log_links.of_service(case_environment("staging"), "logs") == ""


def test_a_dashboard_links_to_the_lines_of_its_parts() -> None:
    link = log_links.of_parts(case_environment("staging"), ["api", "ingress"], end="2026-11-23T10:00:00Z", length="3h")
    assert query(link) == '{environment="staging",part=~"api|ingress"}'


def test_a_template_knows_which_probes_are_of_no_part() -> None:
    # promtool fills the templates of the rules in tests/render.
    link = log_links.of_service(case_environment("staging"), "{{ $labels.service }}")
    assert f'"^({blackbox_exporter.PUBLIC}|{blackbox_exporter.EXTERNAL})$" ""' in link
