"""Somebody types `docker start` while a restore works: no acknowledged write is out of reach afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from host.progress import Reporter
from operations.data.restore.on_engine import EngineRestore
from operations.data.restore.request import Server, Wanted
from operations.data.restore.steps import Restored
from operations.errors import ProjectError
from stack.common.names import PART_LABEL
from tests.restoring import ASKED, UNRELEASED, FakeEngine, environment, restoring

if TYPE_CHECKING:
    import docker

ROW = ", acknowledged meanwhile"


@dataclass
class StartedByHand(FakeEngine):
    """Somebody starts all parts during the slow calls with these numbers, and the application writes."""

    server: Server = "postgres"
    during: frozenset[int] = frozenset()
    slow: list[str] = field(default_factory=list)

    def _goes_on(self, what: str) -> None:
        self.slow.append(what)
        text = self.volumes[self.data_of(self.server)]
        if len(self.slow) in self.during and text != "half" and not text.startswith(UNRELEASED):
            self.up()
            self.volumes[self.data_of(self.server)] += ROW

    def program(self, *words: str, store: str, into: str = "", present: str = "", online: bool = False) -> None:
        super().program(*words, store=store, into=into, present=present, online=online)
        self._goes_on(words[0])

    def mend(self, way: str, into: str = "") -> dict[str, str]:
        report = super().mend(way, into)
        self._goes_on("mend")
        return report

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        super().copy(source, target, whole=whole)
        self._goes_on(f"copy to {target}")


def finished(engine: StartedByHand, path: Path, asked: Wanted) -> tuple[Restored, int]:
    """Run a restore, and again where it was refused; return what it says and how often it was refused."""
    for refused in range(4):
        try:
            return restoring(engine, path, asked).run(), refused
        except ProjectError as error:
            assert "Somebody has started" in str(error)  # noqa: PT017 - only the last try may go through
    pytest.fail("it is refused for ever")


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_what_is_written_to_a_server_that_somebody_starts_by_hand_is_kept(asked: Wanted, tmp_path: Path) -> None:
    for number in range(1, 30):
        for during in ({number}, {number, number + 1}):
            engine = StartedByHand(server=asked.server, during=frozenset(during))
            engine.volumes |= {asked.source: "of last week"} if asked.whole else {}
            done, _ = finished(engine, tmp_path / "restore.json", asked)
            written = len([each for each in during if each <= len(engine.slow)])
            data = engine.data_of(asked.server)
            kept = [engine.volumes[name] for name in (*done.set_aside, data)]
            there = max(text.count(ROW) for text in kept)
            put = f"copy to {data}"
            before_the_end = engine.slow.index(put) + 1
            expected = len([each for each in during if each < before_the_end])
            assert there >= expected, f"started during {[engine.slow[each - 1] for each in during]}: rows are nowhere"
            if asked.backup == "latest" and not asked.source and expected:
                assert ROW in engine.volumes[data], "`latest` lacks what was acknowledged"
        if written == 0:
            return
    pytest.fail("it has more slow calls than that")


def test_a_restore_gives_up_where_something_starts_the_server_again_and_again(tmp_path: Path) -> None:
    engine = StartedByHand(during=frozenset(range(100)))
    with pytest.raises(ProjectError, match="Start no part by hand"):
        restoring(engine, tmp_path / "restore.json", ASKED["a dump"]).run()
    assert "old rows" in engine.volumes["samokoder-staging-postgres-data"], "it replaced what is being written to"


def test_a_server_that_somebody_starts_while_its_data_is_looked_at_is_set_aside_again(tmp_path: Path) -> None:
    """The last look comes directly before the data is replaced."""

    class Looked(StartedByHand):
        begun = False

        def whole(self, volume: str, server: Server) -> bool:
            found = super().whole(volume, server)
            set_aside = any("-before-" in name for name in self.volumes)
            if set_aside and volume == self.data_of("postgres") and not self.begun and "postgres" not in self.running:
                self.begun = True
                self.up()
                self.volumes[volume] += ROW
            return found

    engine = Looked()
    done = restoring(engine, tmp_path / "restore.json", ASKED["a dump"]).run()
    assert engine.begun
    assert any(ROW in engine.volumes[name] for name in done.set_aside), "the row is nowhere"


def test_a_server_that_somebody_started_and_stopped_again_is_known_to_have_run() -> None:
    stopped: list[str] = []

    def container(part: str, status: str, started: str, after: str = "") -> SimpleNamespace:
        made = SimpleNamespace(id=part, labels={PART_LABEL: part}, status=status, stop=lambda **_: stopped.append(part))
        made.attrs = {"Config": {}, "State": {"StartedAt": started}}
        made.reload = lambda: made.attrs["State"].update(StartedAt=after or started)
        return made

    there = [container("postgres", "exited", "10:00"), container("api-1", "running", "10:00")]
    client = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: there))
    engine = EngineRestore(cast("docker.DockerClient", client), environment(), Reporter(), pytest.fail)
    assert engine.stop(["api", "postgres"]) == ("api",)
    there[1].status = "exited"
    assert engine.stop(["api", "postgres"]) == ()
    there[0] = container("postgres", "exited", "10:05")
    assert engine.stop(["api", "postgres"]) == ("postgres",), "its data was written to, and nobody would know"
    there[0] = container("postgres", "restarting", "10:05")
    assert engine.stop(["api", "postgres"]) == ("postgres",)
    there[0] = container("postgres", "restarting", "10:06", after="10:07")
    assert engine.stop(["postgres"]) == ("postgres",)
    there[0] = container("postgres", "exited", "10:07")
    assert engine.stop(["postgres"]) == (), "it was not somebody, but its own last start before it was stopped"
    assert stopped == ["api-1", "postgres", "postgres"]
