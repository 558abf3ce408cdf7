"""Which old images an environment may remove; tests/live/test_old_images.py removes real ones."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from operations.engine import old_images
from operations.engine.old_images import LABEL, NOTED, is_note
from tests.recording import environment_of

REGISTRY = "registry.example.org/api"


def reference(number: int, tag: str) -> str:
    return f"{REGISTRY}:{tag}@sha256:{number:064x}"


class Engine:
    """An engine that has every image it is asked for, and notes of two environments."""

    def __init__(self, notes: dict[str, list[str]]) -> None:
        self.removed: list[str] = []
        self.noted: set[str] = set()
        self.images = SimpleNamespace(get=lambda name: SimpleNamespace(attrs=self._image(name)))
        self.api = SimpleNamespace(
            containers=lambda **_: [], remove_image=lambda name, **_: self.removed.append(name.rpartition(":")[2])
        )
        volumes = [
            SimpleNamespace(name=name, remove=lambda: None, attrs={"Labels": {LABEL: name, NOTED: self._note(noted)}})
            for name, noted in notes.items()
        ]
        self.volumes = SimpleNamespace(list=lambda **_: volumes, create=self._create)

    def _create(self, _name: str, labels: dict[str, str]) -> None:
        self.noted = {each["reference"] for each in json.loads(labels[NOTED])}

    def _image(self, name: str) -> dict[str, Any]:
        digest = name.partition("@")[2]
        return {"Id": f"id of {digest}", "RepoTags": [], "RepoDigests": [f"{REGISTRY}@{digest}"], "Size": 1}

    def _note(self, noted: list[str]) -> str:
        return json.dumps([{"name": "api", "reference": each, "brought": True} for each in noted])


@pytest.mark.parametrize("tag", ["main", "1.4.1"])
def test_an_image_that_another_environment_goes_back_to_stays_whatever_its_tag_there(tag: str) -> None:
    run = [reference(number, "main") for number in range(1, 7)]
    engine = Engine({"staging": run[:-1], "prod": [reference(1, tag)]})
    environment = environment_of("staging", {"api": {"image": run[-1]}})
    old_images.tidy(engine, environment, lambda _: None)  # type: ignore[arg-type]
    assert engine.removed == [f"{number:064x}" for number in (2, 3)], "production cannot go back to number 1"


def test_what_runs_is_noted_also_where_all_images_stay() -> None:
    engine = Engine({})
    environment = environment_of("prod", {"api": {"image": reference(1, "main")}, "keepImages": 0})
    old_images.note(engine, environment, lambda _: None)  # type: ignore[arg-type]
    assert reference(1, "main") in engine.noted, "staging, which brought it, removes what production goes back to"


def test_the_note_is_known_by_its_name() -> None:
    assert is_note("samokoder-staging-images-01764460800000000000", "samokoder-staging")
    assert not is_note("samokoder-staging-images-data", "samokoder-staging"), "a stranger's volume is told by drift"
    assert not is_note("samokoder-prod-images-01764460800000000000", "samokoder-staging")
