"""What `make bench` says of the LLM gateway, with fewer requests."""

from __future__ import annotations

import pytest

from bench.llm import IN_FLIGHT, throughput


@pytest.mark.timeout(300)
def test_asynchronous_calls_have_many_times_the_throughput_of_sequential_ones() -> None:
    measured = throughput(latency_seconds=0.3, sequential=5, asynchronous=96)
    assert measured.most_in_flight == IN_FLIGHT, "as many as allowed, and not one more"
    assert measured.ratio > 8, f"{measured}: 15 and more on a machine with nothing else to do"
    assert measured.sequential < 1 / 0.3, "the latency is the server's, and equal for both"
    assert 20 < measured.memory_before <= measured.memory_most < 256, f"MiB of a whole worker: {measured}"
