"""What is said of the log of Redis' last start. Its lines are those of Redis 7.0.15 and 7.4."""

from __future__ import annotations

import pytest

from operations.data.repair import redis_log
from operations.errors import FailedError, UnavailableError

START = "7:C 29 Nov 2026 07:01:15.010 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo\n"
READ = "7:M 29 Nov 2026 07:01:15.017 * DB loaded from append only file: 0.001 seconds\n"
READY = "7:M 29 Nov 2026 07:01:15.017 * Ready to accept connections\n"
REFUSED = (
    "7:M 29 Nov 2026 07:01:15.016 # == CRITICAL == This server is sending an error to its AOF-loading-client: '-NOPERM "
    "ACLs rules changed between the moment the transaction was accumulated and the EXEC call.' after processing the "
    "command 'exec'\n"
)
CUT = "7:M 29 Nov 2026 07:01:15.016 # !!! Warning: short read while loading the AOF file appendonly.aof.1.incr.aof!!!\n"
REVERTED = (
    "7:M 29 Nov 2026 07:01:15.016 # Revert incomplete MULTI/EXEC transaction in AOF file appendonly.aof.1.incr.aof\n"
)


def test_a_file_that_was_read_whole_is_said_to_be() -> None:
    assert "read all" in redis_log.judge(START + READ + READY)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (REFUSED * 8, r"refused commands.*\(8 lines\)"),
        (CUT, "was cut off"),
        (REVERTED + CUT, "within a transaction.*cut off"),
    ],
)
def test_a_file_that_was_read_with_errors_is_told_with_what_was_lost(lines: str, why: str) -> None:
    with pytest.raises(FailedError, match=why):
        redis_log.judge(START + lines + READ + READY)


def test_only_the_last_start_counts() -> None:
    assert redis_log.judge(START + REFUSED + READY + START + READ + READY)


def test_a_log_without_the_whole_start_says_nothing() -> None:
    for log in ("", READY, START, START + READ + READY + START):
        with pytest.raises(UnavailableError):
            redis_log.judge(log)
