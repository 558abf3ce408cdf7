from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from stack.common.references import ImageReferenceError, parse_reference, short_name
from stack.images import IMAGES, Image
from stack.settings.images import Images

ROOT = Path(__file__).resolve().parents[3]
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("postgres:15.19-bookworm", "postgres", "15.19-bookworm", None),
        (f"prom/prometheus:v3.13.4@{DIGEST}", "prom/prometheus", "v3.13.4", DIGEST),
        (f"ghcr.io/google/cadvisor@{DIGEST}", "ghcr.io/google/cadvisor", None, DIGEST),
        ("localhost:5000/api:1", "localhost:5000/api", "1", None),
        ("localhost/api:1", "localhost/api", "1", None),
        ("registry:5000/team/my__api-x.y:_1", "registry:5000/team/my__api-x.y", "_1", None),
        (f"Registry.example.org:5000/a/b/c:1@{DIGEST}", "Registry.example.org:5000/a/b/c", "1", DIGEST),
        (DIGEST, "", None, DIGEST),
    ],
)
def test_a_reference_is_taken_apart_as_docker_does_it(
    text: str, repository: str, tag: str | None, digest: str | None
) -> None:
    reference = parse_reference(text)
    assert (reference.repository, reference.tag, reference.digest) == (repository, tag, digest), (
        "a port is no tag, a registry is no part of a tag, and a local image id has neither"
    )


@pytest.mark.parametrize(
    ("text", "pinned"),
    [(f"redis:7@{DIGEST}", True), (f"redis@{DIGEST}", True), (DIGEST, True), ("redis:7.4.11", False)],
)
def test_only_a_digest_or_a_local_id_pins_an_image(text: str, pinned: bool) -> None:
    assert parse_reference(text).is_pinned is pinned, "a tag alone can be moved to another content"


@pytest.mark.parametrize(
    ("text", "problem", "instead"),
    [
        ("", "one word", "name:tag@sha256:"),
        ("redis:7 ", "white space", "name:tag@sha256:"),
        ("redis:7\n", "white space", "name:tag@sha256:"),
        ("https://ghcr.io/google/cadvisor:v1", "not a web address", "registry.example.org/"),
        ("redis", "neither a tag nor a digest", "redis:<version>@sha256:"),
        ("localhost:5000/redis", "neither a tag nor a digest", "localhost:5000/redis:<version>"),
        ("redis:", "a tag has 1 to 128", "redis:<version>"),
        ("redis:.7", "does not start with", "redis:<version>"),
        ("localhost:5000/team/redis:7/8", "a name has lower-case", "name:tag"),
        ("redis:" + "7" * 129, "1 to 128", "redis:<version>"),
        ("redis:größe", "letters, digits", "redis:<version>"),
        ("Redis:7", "lower-case", "name:tag"),
        ("team//redis:7", "lower-case", "name:tag"),
        ("/redis:7", "lower-case", "name:tag"),
        ("-redis:7", "lower-case", "name:tag"),
        ("my___redis:7", "between them", "name:tag"),
        ("exa_mple.org/redis:7", "host name", "registry.example.org:5000/"),
        ("example.org:http/redis:7", "host name", "registry.example.org:5000/"),
        ("a" * 256 + ":1", "at most 255", "shorter"),
        ("redis:7@", "starts with sha256:", "sha256:<64"),
        ("redis:7@sha512:" + "0" * 128, "starts with sha256:", "sha256:<64"),
        ("redis:7@sha256:<64 hex digits>", "white space", "name:tag"),
        ("redis:7@sha256:abc", "here are 3 characters", "imagetools inspect"),
        ("redis:7@" + DIGEST.upper(), "starts with sha256:", "sha256:<64"),
        ("redis:7@sha256:" + "A" * 64, "out of 0-9 and a-f", "imagetools inspect"),
        (f"redis:7@{DIGEST}@{DIGEST}", "64 digits", "imagetools inspect"),
        ("sha256:abc", "here are 3 characters", "imagetools inspect"),
        ("0" * 64, "names its algorithm", "sha256:<the 64"),
    ],
)
def test_what_is_no_reference_is_refused_with_what_to_write_instead(text: str, problem: str, instead: str) -> None:
    with pytest.raises(ImageReferenceError) as caught:
        parse_reference(text)
    assert problem in caught.value.problem, "the person who wrote it must read what is wrong with it"
    assert instead in caught.value.instead, "and what to write in its place"
    assert str(caught.value) == f"{caught.value.problem}; write {caught.value.instead}"


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2hunter2@registry.example.org/api:1",
        "me:hunter2hunter2@registry.example.org/api:1",
        "me:hunter2!hunter2@registry.example.org/api:1",
    ],
)
def test_a_password_in_a_reference_is_not_repeated_in_the_error(text: str) -> None:
    with pytest.raises(ImageReferenceError) as caught:
        parse_reference(text)
    assert "hunter2" not in str(caught.value), "the error ends up in logs of CI"


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("redis:7.4.2@sha256:" + "a" * 64, "redis:7.4.2"),
        ("registry.example.org:5000/api:1.4", "registry.example.org:5000/api:1.4"),
        ("sha256:0123456789abcdef" + "0" * 48, "0123456789ab"),
    ],
)
def test_a_table_shows_of_an_image_what_people_read(image: str, shown: str) -> None:
    assert short_name(image) == shown, "64 digits would fold every row"


def test_every_image_can_be_replaced_by_a_setting() -> None:
    assert set(Images.model_fields) == {*IMAGES, "backup"}, "without a registry `make up` names a local image there"


@pytest.mark.parametrize("part", IMAGES)
def test_every_image_of_the_catalogue_has_a_version_and_a_digest(part: str) -> None:
    reference = parse_reference(IMAGES[part].reference)
    assert reference.digest is not None, f"{part} could become another image from one day to the next"
    assert reference.tag is not None, f"nobody can read the version of {part} from its digest"
    assert re.search(r"\d+\.\d+", reference.tag), f"{reference.tag} moves with every release of {part}"
    assert reference.repository, f"{part} cannot be pulled by an id that exists on one engine only"


def test_every_digest_belongs_to_one_image() -> None:
    digests = [parse_reference(image.reference).digest for image in IMAGES.values()]
    assert len(set(digests)) == len(digests), "a digest was pasted to the wrong image"


def test_the_catalogue_cannot_be_changed_while_the_program_runs() -> None:
    with pytest.raises(TypeError):
        IMAGES["redis"] = Image(name="x", licence="MIT", reference="x:1")  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        IMAGES["redis"].reference = "x:1"  # type: ignore[misc]


def test_no_other_file_of_the_program_has_a_digest() -> None:
    literal = re.compile(r"@sha256:[0-9a-f]{64}")
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "stack").rglob("*.py") if literal.search(file.read_text())}
    assert files == {"stack/images.py"}, "an image in a second place is one that Renovate forgets"


def _rows_of_the_document() -> dict[str, list[str]]:
    """The five-column rows of `docs/images.md`, by their first cell, without the outer backticks."""
    lines = (ROOT / "docs" / "images.md").read_text().splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row for row in rows if len(row) == 5}


@pytest.mark.parametrize("part", IMAGES)
def test_the_document_has_each_image_as_it_is_pinned_with_sources_of_two_owners(part: str) -> None:
    reference = parse_reference(IMAGES[part].reference)
    _, name, digest, *sources = _rows_of_the_document()[part]
    assert (name, digest) == (f"{reference.repository}:{reference.tag}", reference.digest), (
        f"docs/images.md is out of date on {part}"
    )
    owners = {re.match(r"([\w.-]+)/[\w.-]+:", source) for source in sources}
    assert None not in owners, "a source is written as owner/repository: path"
    assert len({owner[1] for owner in owners if owner}) == 2, "two files of one owner are one source"
