"""The way to the LLM: OpenAI-compatible HTTP, several providers in the order of their turn.

A call is retried where that may help; a provider that keeps failing is left alone for a while (circuit breaker);
then it is the next one's turn. Every token is accounted for.
"""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, NamedTuple

import httpx
import structlog
from pydantic import SecretStr

from samokoder import metrics
from samokoder.settings import LlmProvider, Settings

CONNECT_SECONDS: Final = 5.0
TRIES: Final = 3
#: The wait before another try is random, up to this and doubled each time: clients that failed together part.
BACKOFF_SECONDS: Final = 1.0
#: Who asks us to wait longer than this is asked no more.
PATIENCE_SECONDS: Final = 20.0
#: From a job's begin on; what is left of a job's time is for the database, to have the answer written.
ALL_SECONDS: Final = 270.0
OPEN_AFTER_FAILURES: Final = 5
OPEN_SECONDS: Final = 30.0
_WORTH_ANOTHER_TRY: Final = frozenset({"timeout", "connection", "rate_limited", "server_error"})

log = structlog.stdlib.get_logger(__name__)


class LlmError(Exception):
    """No provider gave an answer; says of each why not. Holds no key and nothing that a provider sent.

    again_seconds: after so long one may have an answer, which asked us to wait or is left alone; None: none will.
    """

    def __init__(self, why: str, again_seconds: float | None = None) -> None:
        super().__init__(why)
        self.again_seconds = again_seconds


class Answer(NamedTuple):
    """What a provider wrote, and what it cost."""

    text: str
    provider: str
    model: str
    tokens: int
    cost_usd: float


class _CallFailedError(Exception):
    def __init__(self, error_type: str, wait_seconds: float = 0) -> None:
        super().__init__(error_type)
        self.error_type, self.wait_seconds = error_type, wait_seconds


@dataclass
class Breaker:
    """Opens after some failures in a row; then lets one call through every `open_seconds` until one is answered.

    Calls that were in flight together and fail together have met one fault, so they count as one failure.
    """

    open_seconds: float = OPEN_SECONDS
    failures: int = 0
    next_trial: float = 0.0
    counted_at: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for a trial now and then."""
        return self.failures >= OPEN_AFTER_FAILURES

    def lets_through(self) -> bool:
        """Whether a call may be made now."""
        if allowed := not self.is_open or time.monotonic() >= self.next_trial:
            self.next_trial = time.monotonic() + self.open_seconds  # of a trial, the others wait how it ends
        return allowed

    def record(self, *, answered: bool, begun: float) -> None:
        """Learn how a call ended. begun: when it was made, on the clock of `time.monotonic`."""
        if answered:
            self.failures = 0
        elif begun >= self.counted_at:
            self.failures += 1
            self.counted_at = time.monotonic()
        self.next_trial = time.monotonic() + self.open_seconds


def _told_to_wait(told: str) -> float:
    """Return the seconds of a Retry-After, an hour at most: it is a number or a date; 0 where it is neither."""
    for read in (float, lambda date: parsedate_to_datetime(date).timestamp() - time.time()):
        with contextlib.suppress(ValueError, OverflowError):
            return min(3600.0, max(0.0, read(told)))
    return 0.0


class _Provider:
    def __init__(self, settings: Settings, provider: LlmProvider, key: SecretStr, slots: asyncio.Semaphore) -> None:
        self.settings, self.names = provider, (provider.name, provider.model)
        self.breaker, self._slots, self._timeout = Breaker(), slots, settings.llm_timeout_seconds
        self.http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key.get_secret_value()}"},
            timeout=httpx.Timeout(self._timeout, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.llm_in_flight),
        )
        metrics.make_llm_series(*self.names)
        metrics.LLM_CIRCUIT_OPEN.labels(provider.name).set_function(lambda: self.breaker.is_open)

    async def ask(self, messages: list[dict[str, str]]) -> Answer:
        """Return the answer, after retries where they help. Raises _CallFailedError."""
        for number in range(TRIES):
            if not self.breaker.lets_through():
                break
            begun = time.monotonic()
            try:
                answer = await self._call(messages)
            except _CallFailedError as failed:
                # Whoever refuses our words (client_error) or asks us to wait is there and works.
                self.breaker.record(answered=failed.error_type in {"client_error", "rate_limited"}, begun=begun)
                wait = max(failed.wait_seconds, BACKOFF_SECONDS * 2**number * random.random())  # noqa: S311 - jitter
                patient = number + 1 < TRIES and wait <= PATIENCE_SECONDS
                again = patient and failed.error_type in _WORTH_ANOTHER_TRY and not self.breaker.is_open
                log.warning("LLM call failed", provider=self.settings.name, error=failed.error_type, again=again)
                if not again:
                    raise
                await asyncio.sleep(wait)
            else:
                self.breaker.record(answered=True, begun=begun)
                return answer
        raise _CallFailedError("circuit_open")

    async def _call(self, messages: list[dict[str, str]]) -> Answer:
        url = f"{self.settings.base_url.rstrip('/')}/chat/completions"
        in_flight = metrics.LLM_IN_FLIGHT.labels(self.settings.name)
        try:
            async with self._slots:
                with in_flight.track_inprogress(), metrics.LLM_SECONDS.labels(*self.names).time():
                    async with asyncio.timeout(self._timeout):  # httpx' own is for each piece of an answer
                        answer = await self.http.post(url, json={"model": self.settings.model, "messages": messages})
        except (httpx.TimeoutException, TimeoutError):
            raise _CallFailedError("timeout") from None
        except httpx.HTTPError:
            raise _CallFailedError("connection") from None
        if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise _CallFailedError("rate_limited", _told_to_wait(answer.headers.get("retry-after", "")))
        if answer.status_code != HTTPStatus.OK:
            raise _CallFailedError("server_error" if answer.is_server_error else "client_error")
        return self._read(answer)

    def _read(self, answer: httpx.Response) -> Answer:
        text, used = None, dict.fromkeys(("prompt", "completion"), 0)
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError):
            body = answer.json()
            used |= {kind: max(0, int(body["usage"][f"{kind}_tokens"])) for kind in used}
            text = body["choices"][0]["message"]["content"]
        cost = (used["prompt"] * self.settings.prompt_usd + used["completion"] * self.settings.completion_usd) / 1e6
        for kind, count in used.items():
            metrics.LLM_TOKENS.labels(*self.names, kind).inc(count)
        metrics.LLM_COST.labels(*self.names).inc(cost)
        if not isinstance(text, str) or not text.strip():
            raise _CallFailedError("bad_answer")  # it is paid for all the same
        return Answer(text, *self.names, sum(used.values()), cost)


class Gateway:
    """All providers that there is a key for."""

    def __init__(self, settings: Settings) -> None:
        slots = asyncio.Semaphore(settings.llm_in_flight)
        keys = {provider: getattr(settings, f"{provider.name}_api_key") for provider in settings.llm_providers}
        self.providers = [_Provider(settings, provider, key, slots) for provider, key in keys.items() if key]
        if not self.providers:
            metrics.make_llm_series("none", "none")

    async def ask(self, system: str, user: str, begun: float) -> Answer:
        """Return the first answer that a provider gives, within ALL_SECONDS. Raises LlmError.

        begun: when the job was, on the clock of `time.monotonic`. Its start may have waited for the database.
        """
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        failures, waits = list[str](), list[float]()
        limit = begun + ALL_SECONDS
        for provider in self.providers:
            asked = time.monotonic()
            try:
                async with asyncio.timeout(limit - asked):
                    answer = await provider.ask(messages)
            except (_CallFailedError, TimeoutError) as error:
                failed = error if isinstance(error, _CallFailedError) else _CallFailedError("timeout")
                if failed is not error:  # the limit of all providers, which the call itself has not seen
                    provider.breaker.record(answered=False, begun=asked)
                metrics.LLM_ERRORS.labels(provider.settings.name, failed.error_type).inc()
                failures.append(f"{provider.settings.name}: {failed}")
                if failed.error_type == "rate_limited":
                    waits.append(failed.wait_seconds)
                # Also one that was in flight when the breaker opened: it is as good as one that came a moment later.
                elif failed.error_type in _WORTH_ANOTHER_TRY | {"circuit_open"} and provider.breaker.is_open:
                    waits.append(max(0.0, provider.breaker.next_trial - time.monotonic()))
                answer = None
            metrics.LLM_REQUESTS.labels(*provider.names).inc()
            if answer:
                return answer
            if time.monotonic() >= limit:
                break
        # Twice as long at most, so that those who were sent away together do not come back together.
        again = min(waits) * (1 + random.random()) if waits else None  # noqa: S311 - jitter
        raise LlmError(f"no LLM answered ({', '.join(failures)})", again)

    async def close(self) -> None:
        """Give the connections back."""
        await asyncio.gather(*(provider.http.aclose() for provider in self.providers))
