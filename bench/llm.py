"""How much more the LLM gateway gets done when it does not wait for one answer before it asks for the next.

The measured process is as the worker: its modules, its settings, its gateway. The local OpenAI-compatible server, which
answers every call after the same time, is in the process that started it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.llm_server import LlmServer

ROOT = Path(__file__).resolve().parents[1]
IN_FLIGHT = 32


@dataclass(frozen=True)
class Throughput:
    """Requests a second, one after the other and at `IN_FLIGHT` at a time; memory in MiB, before and at its most."""

    sequential: float
    asynchronous: float
    memory_before: float
    memory_most: float
    most_in_flight: int = 0

    @property
    def ratio(self) -> float:
        """Asynchronous over sequential throughput."""
        return self.asynchronous / self.sequential


def throughput(latency_seconds: float = 0.5, sequential: int = 20, asynchronous: int = 640) -> Throughput:
    """Ask as many times one after the other and then at the same time, at equal latency, in a process of its own."""
    with LlmServer(latency_seconds=latency_seconds).running() as server, tempfile.TemporaryDirectory() as folder:
        model = {"name": "openai", "base_url": server.url, "model": "bench", "prompt_usd": 1, "completion_usd": 1}
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "reference_app")]),
            "SECRETS_DIR": folder,
            "SAMOKODER_DATABASE_URL": f"postgresql+asyncpg://bench:{secrets.token_hex(16)}@127.0.0.1/bench",
            "REDIS_HOST": "127.0.0.1",
            "LLM_IN_FLIGHT": str(IN_FLIGHT),
            "LLM_PROVIDERS": json.dumps([model]),
            "LLM_TIMEOUT_SECONDS": str(60 + latency_seconds),
            **{name: secrets.token_urlsafe(64) for name in ("SECRET_KEY", "APP_SECRET_KEY")},
            **{name: secrets.token_hex(16) for name in ("REDIS_PASSWORD", "OPENAI_API_KEY")},
        }
        command = [sys.executable, "-m", "bench.llm", str(sequential), str(asynchronous)]
        done = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE)
        measured = Throughput(**json.loads(done.stdout))
        return dataclasses.replace(measured, most_in_flight=server.most_at_once)


async def _measure(sequential: int, asynchronous: int) -> Throughput:
    """Connect to nothing but the LLM server."""
    from samokoder.llm import Gateway  # noqa: PLC0415 - on the path of the measured process only
    from samokoder.worker.main import settings  # noqa: PLC0415 - refuses to be imported without settings

    gateway = Gateway(settings)
    try:
        await gateway.ask("be brief", "the first call makes the connection", time.monotonic())
        before = _memory("VmRSS")
        begun = time.perf_counter()
        for _ in range(sequential):
            await gateway.ask("be brief", "one after the other", time.monotonic())
        one_by_one = sequential / (time.perf_counter() - begun)
        begun = time.perf_counter()
        await asyncio.gather(*(gateway.ask("be brief", "together", time.monotonic()) for _ in range(asynchronous)))
        return Throughput(one_by_one, asynchronous / (time.perf_counter() - begun), before, _memory("VmHWM"))
    finally:
        await gateway.close()


def _memory(field: str) -> float:
    """Resident memory of this process in MiB: now (VmRSS), or at its most (VmHWM)."""
    (kibibytes,) = re.findall(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(kibibytes) / 1024


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(asyncio.run(_measure(*map(int, sys.argv[1:3]))))))
