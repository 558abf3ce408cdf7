"""What a part's real user has written is there after a restart and after SIGKILL. Redis: test_redis_keeps.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from operations.checks.doctor import set_aside
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.prometheus import spec as prometheus
from stack.settings.environment import Environment
from tests.render.conftest import Laboratory, output, wait_until
from tests.render.redis_part import described
from tests.render.test_postgres import APP, APP_SECRET, ask, ask_as, keep_roles

if TYPE_CHECKING:
    from docker.models.containers import Container

    from stack.spec.service import ServiceSpec

pytestmark = [pytest.mark.live, pytest.mark.long]

Fault = Callable[["Container"], None]


def restarted(container: Container) -> None:
    container.restart(timeout=60)


def killed(container: Container) -> None:
    container.kill()
    container.wait()
    container.start()


AT = f"--alertmanager.url=http://127.0.0.1:{alertmanager.PORT}"
FAULTS = pytest.mark.parametrize("fault", [restarted, killed])


def silenced(laboratory: Laboratory, environment: Environment) -> tuple[ServiceSpec, Container, str]:
    """Return an AlertManager with a silence that it has written to its disk, and the silence's name."""
    spec = described(environment, alertmanager.PART)
    container = laboratory.healthy_part(spec)
    code, made = output(container, "amtool", AT, "silence", "add", "--comment=known", "--author=me", "alertname=Known")
    assert code == 0, made
    # Every 30 s, and at its end: what it had not written when it was killed is gone.
    noted = ("grep", "-q", made.strip(), "/alertmanager/silences")
    wait_until(container, lambda: output(container, *noted)[0] == 0)
    return spec, container, made.strip()


@FAULTS
def test_a_silence_is_there_half_a_minute_after_it_was_made(
    laboratory: Laboratory, environment: Environment, fault: Fault
) -> None:
    spec, container, made = silenced(laboratory, environment)
    fault(container)
    wait_until(container, lambda: output(container, *spec.health_command)[0] == 0)
    said = output(container, "amtool", AT, "silence", "query", "-q")[1]
    assert made in said, "whoever silenced an alert is woken by it again"


def test_a_file_that_a_full_disk_has_cut_off_keeps_no_alertmanager_from_starting(
    laboratory: Laboratory, environment: Environment
) -> None:
    spec, container, _ = silenced(laboratory, environment)
    # As AlertManager itself does where the disk has room for the beginning alone; killed before it writes again.
    cut = "cd /alertmanager && head -c 20 silences > half && mv half silences && kill -9 $(pidof alertmanager)"
    output(container, "sh", "-c", cut)
    container.wait()
    container.start()
    wait_until(container, lambda: output(container, *spec.health_command)[0] == 0)
    code, said = output(container, "sh", "-c", set_aside.ASK, "sh", "/alertmanager")
    assert (code, said.split("\t")[-1].strip()) == (0, "damaged-silences")
    assert "All silences are gone" in container.logs().decode()


def test_a_block_that_a_power_cut_has_damaged_keeps_no_prometheus_from_starting(
    laboratory: Laboratory, environment: Environment
) -> None:
    spec = described(environment, prometheus.PART)
    container = laboratory.healthy_part(spec)
    text = "".join(f'known{{a="b"}} 1 {int(time.time()) - age}\n' for age in (40000, 39000)) + "# EOF\n"
    blocks = "promtool tsdb create-blocks-from openmetrics text /prometheus"
    into = f"cd /prometheus && printf '%s' '{text}' > text && {blocks}"
    code, said = output(container, "sh", "-c", into)
    assert code == 0, said
    output(container, "sh", "-c", "for block in /prometheus/01*; do : > $block/tombstones; done")
    killed(container)
    wait_until(container, lambda: output(container, *spec.health_command)[0] == 0)
    assert "tombstones header: invalid size" in container.logs().decode(), "what is missing from now on is not told"


def test_chunks_of_zeros_keep_no_prometheus_from_starting(laboratory: Laboratory, environment: Environment) -> None:
    spec = described(environment, prometheus.PART)
    container = laboratory.healthy_part(spec)
    # What a power cut leaves of a file that was not synced, and of the next one, which has its first 8 bytes.
    head = "head -c 4096 /dev/zero > 000001 && printf '\\001\\060\\274\\221\\001\\000\\000\\000' > 000002"
    left = "mkdir ../tmp_dbro_sandbox4711"
    code, said = output(container, "sh", "-c", f"cd /prometheus/chunks_head && {head} && {left}")
    assert code == 0, said
    killed(container)
    wait_until(container, lambda: output(container, *spec.health_command)[0] == 0)
    code, said = output(container, "sh", "-c", set_aside.ASK, "sh", "/prometheus")
    assert (code, said.split("\t")[-1].strip()) == (0, "damaged-chunks_head")
    assert output(container, "ls", "/prometheus/tmp_dbro_sandbox4711")[0] != 0, "they would grow with each start"


@FAULTS
def test_what_prometheus_has_just_collected_is_there(
    laboratory: Laboratory, environment: Environment, fault: Fault
) -> None:
    spec = described(environment, prometheus.PART)
    container = laboratory.healthy_part(spec)
    at = f"http://127.0.0.1:{prometheus.PORT}"

    def ask(moment: float) -> tuple[int, str]:
        query = "count_over_time(up{job='prometheus'}[10m])"
        return output(container, "promtool", "query", "instant", "-o", "json", f"--time={moment:.0f}", at, query)

    def samples(moment: float) -> list[str]:
        code, said = ask(moment)
        assert code == 0, said
        return [each["value"][1] for each in json.loads(said)]

    wait_until(container, lambda: ask(time.time())[0] == 0 and bool(samples(time.time())))
    moment = time.time()
    before = samples(moment)
    fault(container)
    # It is healthy before it has read its write-ahead log, and answers no question until then.
    wait_until(container, lambda: ask(moment)[0] == 0)
    assert samples(moment) == before, "the head block, up to two hours, is in its write-ahead log"


WRITES = """
CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000);
CREATE UNLOGGED TABLE fleeting (n int); INSERT INTO fleeting SELECT generate_series(1, 1000);
CREATE SEQUENCE numbers; SELECT nextval('numbers') FROM generate_series(1, 5);
SELECT lo_from_bytea(4711, 'large');
CREATE EXTENSION pg_trgm;
"""
SEES = """
SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM fleeting), nextval('numbers') > 5,
 convert_from(lo_get(4711), 'UTF8'), (SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm')
"""


@FAULTS
def test_all_that_the_application_can_make_in_postgresql_is_there_but_for_unlogged_rows_after_a_crash(
    laboratory: Laboratory, environment: Environment, fault: Fault
) -> None:
    spec = described(environment, "postgres")
    server = laboratory.healthy_part(spec)
    keep_roles(laboratory, environment).remove(force=True)

    def app(sql: str) -> tuple[int, str]:
        return ask_as(server, APP, APP_SECRET, sql)

    code, said = app(WRITES)
    assert code == 0, said
    for refused, why in (
        ("CREATE DATABASE another", "permission denied"),
        ("BEGIN; PREPARE TRANSACTION 'waits'", "prepared transactions are disabled"),
    ):
        code, said = app(refused)
        assert code != 0, refused
        assert why in said, "what it cannot make cannot be lost"
    ask(server, "CREATE DATABASE another")
    ask(server, "CREATE TABLE there AS SELECT 1 AS n", database="another")
    fault(server)
    wait_until(server, lambda: output(server, *spec.health_command)[0] == 0)
    unlogged = 1000 if fault is restarted else 0
    assert app(SEES) == (0, f"1000|{unlogged}|t|large|1")
    assert ask(server, "SELECT n FROM there", database="another") == "1"
    server.remove(force=True, v=True)
