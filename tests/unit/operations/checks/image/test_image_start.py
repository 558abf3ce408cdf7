"""How often `check-image` starts an image, and how long it waits: an image of which the time is simulated.

On a real engine: tests/live/test_check_original.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations.checks.image import image_start
from operations.checks.image.image_start import Starting
from operations.checks.image.image_ways import STRICT, Way
from operations.checks.image.life import OK, Life
from stack.monitoring.metrics import Kind
from stack.spec.service import Scrape

# Of one start, and between two tries of arq to reach Redis.
START_SECONDS, TRIES_SECONDS, GIVES_UP_SECONDS = 3.0, 1.0, 8.0


def original(way: Way, *, login: bool) -> str:
    """What becomes of the owner's image when it is started so: ended, refused by Redis, or up."""
    read = way.secrets_in_environment and way.fernet and way.own_command
    if not read or not (way.unhardened or way.writable):
        return "ended"
    return "refused" if login else "up"


@dataclass
class Simulated(Starting):
    """Starts nothing, and looks at a clock that only its own waiting moves."""

    image: Callable[..., str] = original
    now: list[float] = field(default_factory=lambda: [0.0])
    started: list[Way] = field(default_factory=list)
    login: bool = True
    running: dict[int, tuple[Life, str]] = field(default_factory=dict)
    own_command = ("uvicorn", "original.main:app")  # no engine to ask

    def start(self, way: Way, changes: object = None, *, spec: object = None) -> Life:
        self.started.append(way)
        diff = [{"Path": "/app/config/config.json", "Kind": 1}]
        life = Life(cast("Any", SimpleNamespace(diff=lambda: diff)), began=self.now[0])
        self.running[id(life)] = (life, self.image(way, login=self.login))
        return life

    def is_running(self, life: Life) -> bool:
        if id(life) in self.running and self.running[id(life)][1] == "ended" and self.now[0] >= life.began + 1:
            life.exit_code = 1
        return life.exit_code is None

    def look(self, life: Life) -> None:
        fate = self.running[id(life)][1]
        late = self.now[0] - life.began
        if self.is_running(life) and fate == "refused" and late > GIVES_UP_SECONDS:
            life.exit_code = 1
        if self.is_running(life) and fate == "up" and late >= START_SECONDS:
            life.listens, life.health, life.ready, life.own_check = True, OK, OK, True

    def end(self, life: Life) -> None:
        self.running.pop(id(life), None)

    def let_in(self, everybody: bool) -> None:
        self.login = not everybody

    def refused(self) -> dict[str, int]:
        refused = [life for life, fate in self.running.values() if fate == "refused" and life.exit_code is None]
        count = sum(max(0, int((self.now[0] - life.began - START_SECONDS) / TRIES_SECONDS) + 1) for life in refused)
        return {"NOAUTH": count} if count > 0 else {}


def simulated(monkeypatch: pytest.MonkeyPatch, image: Callable[..., str]) -> Simulated:
    settings = SimpleNamespace(redis=SimpleNamespace(login="password"), api=SimpleNamespace(secrets_as="files"))
    environment = SimpleNamespace(settings=SimpleNamespace(**vars(settings), fernet=False), absent={})
    environment.settings.fernet = False
    spec = SimpleNamespace(secret_environment={}, scrape=Scrape(port=8000))
    given: Mapping[str, Any] = {
        **dict.fromkeys(("made", "values", "asker", "queue", "reporter", "migrations")),
        "environment": environment,
        "spec": spec,
        "kind": Kind.API,
        "timeout": 30.0,
        "image": image,
    }
    one = Simulated(**given)

    def sleep(seconds: float) -> None:
        one.now[0] += seconds

    monkeypatch.setattr(image_start, "time", SimpleNamespace(monotonic=lambda: one.now[0], sleep=sleep))

    def one_by_one(does: Callable[[Any], Any], each: Sequence[Any]) -> list[Any]:
        return [does(one) for one in each]

    monkeypatch.setattr(image_start, "at_once", one_by_one)
    return one


def test_the_owners_image_is_started_no_more_often_than_it_takes_to_know_its_faults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = simulated(monkeypatch, original)
    way, life, strict = one.first_life(cast("Any", SimpleNamespace(detail="")))
    assert way == Way(
        secrets_in_environment=True, own_command=True, fernet=True, without_login=True, writable=("/app/config",)
    )
    assert life.is_up(port=True)
    assert strict is not None
    # As the stack does; four ways; again the one that Redis refused; without each of four reliefs, and with folders.
    assert len(one.started) == 1 + 4 + 1 + 5, [each.easier for each in one.started]
    assert one.now[0] < 15, "each start and each wait is the owner's time"


def test_a_way_that_ended_by_itself_is_tried_again_where_the_one_that_ran_does_not_come_up_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def image(way: Way, *, login: bool) -> str:
        if way.fernet:
            return "hangs"
        return "ended" if login or not way.unhardened else "up"

    one = simulated(monkeypatch, image)
    way, life, _ = one.first_life(cast("Any", SimpleNamespace(detail="")))
    assert life.is_up(port=True), "it gives up at once where Redis refuses it, and would be called broken"
    assert way.without_login
    assert not way.fernet


def test_an_image_that_logs_in_late_is_waited_for_while_redis_refuses_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def image(way: Way, *, login: bool) -> str:
        if way == STRICT:
            return "ended"
        return "up" if way.secrets_in_environment else "refused" if login else "up"

    one = simulated(monkeypatch, image)
    way, life, _ = one.first_life(cast("Any", SimpleNamespace(detail="")))
    assert life.is_up(port=True)
    assert not way.without_login, "it would be let in without a password for nothing"
