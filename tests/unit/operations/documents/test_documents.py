from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from operations.documents import architecture, generate
from stack.common.names import PROJECT
from stack.common.secret_rules import CONFIGURED_SECRETS
from stack.settings.reading import read_environment
from stack.settings.tree import Settings
from tests.described import specs
from tests.recording import ROOT, case_environment, wire_config


def schema() -> dict[str, dict[str, Any]]:
    config = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    assert isinstance(config, dict)
    return config


def test_the_generated_parts_of_the_documents_are_current() -> None:
    generated = generate.generated()
    assert {path.name for path in generated} == {
        "Pulumi.yaml",
        "README.md",
        "README.ru.md",
        "architecture.md",
        "licences.md",
        "security.md",
        "settings.md",
        "monitoring.md",
        "metrics.md",
    }
    stale = [path.name for path, text in generated.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run `make docs`: {stale}"


def test_pulumis_schema_has_every_setting_and_every_secret() -> None:
    names = [to_camel(name) for name in Settings.model_fields] + list(CONFIGURED_SECRETS)
    assert list(schema()) == [f"{PROJECT}:{name}" for name in names]
    assert all(entry["description"] and entry["type"] for entry in schema().values())


def test_pulumis_defaults_give_the_same_settings_as_no_configuration() -> None:
    defaults = {key: entry["default"] for key, entry in schema().items()}
    environment = read_environment("staging", wire_config(defaults))
    assert environment == read_environment("staging", {}), "Pulumi hands its defaults over as if somebody had set them"


def test_the_settings_have_a_row_for_every_key_down_to_the_last() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for key in (
        "api.health.retries",
        "alertmanager.telegram.chatId",
        "images.redis",
        "postgres.adoptVolume",
        "production",
    ):
        assert f"| `{PROJECT}:{key}` |" in page
    for secret in CONFIGURED_SECRETS:
        assert f"| `{PROJECT}:{secret}` |" in page


def test_the_picture_of_the_architecture_has_every_part_and_what_it_speaks_to() -> None:
    parts = specs(case_environment("staging"))
    picture = architecture.picture(parts)
    for spec in parts:
        assert f"[{spec.part}]" in picture
    edges = {(spec.part, other) for spec in parts for other in architecture.spoken_to(spec, parts)}
    assert {
        *(("api-1", "postgres"), ("api-1", "redis"), ("worker", "redis"), ("ingress", "api-2"), ("backup", "postgres")),
        *(("postgres-roles", "postgres"), ("redis-users", "redis"), ("grafana", "prometheus")),
        ("prometheus", "alertmanager"),
    } <= edges, "an edge that is not drawn is not looked at when the part is changed"
    assert not [edge for edge in edges if edge[0] in {"postgres", "redis", "node-exporter", "drill"}]


def test_a_document_without_its_marks_is_an_error_and_not_left_stale() -> None:
    with pytest.raises(ValueError, match="there are no lines"):
        generate._put("nothing", "settings", "text", "<!-- {} -->")


def test_every_link_of_the_documents_to_a_file_here_leads_somewhere() -> None:
    links = [
        (page, target.partition("#")[0])
        for page in [
            ROOT / "README.md",
            ROOT / "README.ru.md",
            ROOT / "CONTRIBUTING.md",
            ROOT / "SECURITY.md",
            *sorted((ROOT / "docs").rglob("*.md")),
            ROOT / "reference_app" / "README.md",
        ]
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in target
    ]
    assert any(target == "docs/offline.md" for _, target in links), "the expression no longer finds links"
    broken = [f"{page.name}: {target}" for page, target in links if target and not (page.parent / target).exists()]
    assert not broken


def shape(page: str) -> dict[str, list[str]]:
    """What a translation must share with its original, in order: what can be typed, links, headings, rows of tables."""
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        "blocks of code": re.findall(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE),
        "what can be typed": re.findall(r"`[^`\n]+`", prose),
        "links": [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if not target.startswith(("#", "README"))],
        "headings": [heading.group() for heading in re.finditer(r"^#+ ", prose, re.MULTILINE)],
        "paragraphs, items and rows": [re.match(r"[-|]?", each).group() for each in _pieces(prose)],  # type: ignore[union-attr]
    }


def _pieces(prose: str) -> list[str]:
    """Paragraphs, items of lists and rows of tables."""
    return re.split(r"\n\n+|\n(?=[-|])", prose.strip())


def test_the_russian_readme_says_what_the_english_one_says() -> None:
    english, russian = shape("README.md"), shape("README.ru.md")
    for what, original in english.items():
        if what == "what can be typed":  # a sentence's order is its language's
            assert sorted(original) == sorted(russian[what]), "a command or a key that only one of the two has"
        else:
            assert original == russian[what], f"{what} differ: change both pages"


def test_the_page_of_settings_begins_with_the_twenty_that_people_set() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    first, every = (
        page.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in ("What people set", "All settings")
    )
    keys = re.findall(r"^\| `samokoder:(.*?)` ", first, re.MULTILINE)
    assert page.index("## What people set") < page.index("## All settings"), (
        "nobody reads three hundred rows for a domain"
    )
    assert len(keys) == len(set(keys)) == 20
    assert {"ingress.domain", "api.image", "alertmanager.telegram.chatId", "backup.offsite.bucket"} <= set(keys)
    assert set(first.splitlines()[4:]) <= set(every.splitlines()), "each is also in its place"


def test_the_list_of_decisions_has_each_with_its_title() -> None:
    folder = ROOT / "docs" / "adr"
    titles = {page.name: page.read_text(encoding="utf-8").splitlines()[0] for page in sorted(folder.glob("0*.md"))}
    listed = re.findall(
        r"^\| \[(\d+)\]\(([\w.-]+)\) \| (.+) \|$", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: f"# {number}. {title}" for number, name, title in listed} == titles, "who asks why looks here first"
    assert [name for _, name, _ in listed] == sorted(titles)
