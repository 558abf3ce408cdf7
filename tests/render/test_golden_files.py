from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

import pytest

from operations.lifecycle.render import files
from stack.spec.files import yaml_document
from stack.spec.secrets import secret_names
from tests import goldens
from tests.recording import CASES, case_environment

WHY = (
    "A rendered configuration file changed. Its volume gets another name and the part that mounts it is restarted. "
    "Secrets are shown by their names."
)


@cache
def files_of(case: str) -> Mapping[str, str]:
    """Render all files of a case, once for all tests."""
    return files(case_environment(case))


@pytest.mark.parametrize("case", ["staging", "prod"])
def test_every_configuration_file_is_as_it_was_reviewed(case: str) -> None:
    # Twenty thousand lines of JSON are reviewed by nobody: what a dashboard asks is in test_dashboards.py. A program's
    # source is reviewed where it is.
    rendered = files_of(case)
    kept = {n: text for n, text in rendered.items() if "/dashboards/samokoder-" not in n and not n.endswith(".py")}
    goldens.compare(f"render/{case}", kept, WHY)


@pytest.mark.parametrize("case", CASES)
def test_every_yaml_and_json_file_is_one(case: str) -> None:
    for name, text in files_of(case).items():
        if name.endswith((".yml", ".yaml")):
            assert isinstance(yaml_document(text), dict), f"{name} is no mapping"
        elif name.endswith(".json"):
            assert isinstance(json.loads(text), dict), f"{name} is no object"


@pytest.mark.parametrize("case", CASES)
def test_every_text_file_ends_with_a_line_and_has_no_trailing_blanks(case: str) -> None:
    for name, text in files_of(case).items():
        if name.endswith((".conf", ".yml", ".sql", ".sh", ".acl")):
            assert text.endswith("\n"), f"{name}: the last line of a file without its end is ignored by some programs"
            trailing = [line for line in text.splitlines() if line != line.rstrip()]
            assert not trailing, f"{name}: {trailing}"


@pytest.mark.parametrize("case", ["staging", "prod"])
def test_a_file_that_is_one_secret_shows_its_name(case: str) -> None:
    texts = files_of(case)
    names = {f"<{name}>" for name in secret_names(case_environment(case))}
    for shown in ("postgres/superuser_password", "grafana/admin_password", "api-1/secret_key", "api-1/redis_password"):
        assert texts[shown] in names


def test_the_files_of_a_part_that_is_not_available_are_rendered_all_the_same() -> None:
    with_it, without = files_of("staging"), files_of("without-grafana")
    assert with_it.keys() == without.keys()
    assert [name for name in without if name.startswith("grafana/dashboards/")]
