"""What the smoke test does as a user: it makes an account and a project with a job, and removes all of it.

The job is a `write_skeleton`: it goes through queue, worker and database, and asks no LLM, so it costs nothing.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from operations.errors import FailedError, UnavailableError

_OK, _CREATED, _NO_CONTENT, _CONFLICT, _TOO_MANY = 200, 201, 204, 409, 429
_ADDRESS_OF_NOBODY = "smoke.invalid"  # RFC 2606: no mail can ever be sent there
MARK = "x-samokoder-smoke"
"""Key at `POST /projects` of an application's OpenAPI document: it allows the smoke test to send these requests."""
LIMITED = "the limit of requests from here is used up"
_LIMITED_SECONDS = 60.0
"""How long the reference application's limits look back, for an answer that does not say when to ask again."""
_OVER = ("done", "failed")
# The reference application lets a client look 50 times a minute, and five more turns may follow a failed one in that.
_LOOKS_APART = (0.3, 0.5, 0.7, 1.0)


class LateError(FailedError):
    """A job was not done in time."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """The results for the account and for the job: one that failed hides no failure of the other."""

    account: Callable[[], str]
    """Returns a sentence on the account that was removed. Raises FailedError, UnavailableError or httpx.HTTPError."""
    job: Callable[[], str]
    """Returns a sentence on the finished job. Raises these, or LateError."""


def somebody() -> Mapping[str, str]:
    """Return a random e-mail address and password, for a new account."""
    return {"email": f"{secrets.token_hex(8)}@{_ADDRESS_OF_NOBODY}", "password": secrets.token_urlsafe(24)}


def good(answer: httpx.Response, what: str, *statuses: int) -> httpx.Response:
    """Return an answer with one of these statuses, 200 without any. Raises FailedError, or UnavailableError for 429."""
    if answer.status_code == _TOO_MANY:
        after = answer.headers.get("retry-after", "60")
        raise UnavailableError(f"{LIMITED}; again in {after} s")
    if answer.status_code not in (statuses or (_OK,)):
        raise FailedError(f"{what} answers {answer.status_code}: {' '.join(answer.text.split())[:200]}")
    return answer


def limited_seconds(why: str) -> float | None:
    """Return the seconds until a request is let in again, by what a check says; None: it met no limit of requests."""
    if not why.startswith(LIMITED):
        return None
    after = re.search(r"again in (\d+) s", why)
    return float(after[1]) if after else _LIMITED_SECONDS


def need_mark(client: httpx.Client, public: str) -> None:
    """Raise UnavailableError unless a team's own application says, with `MARK`, that the smoke test may use it."""
    try:
        answer = client.get(f"{public}/openapi.json")
        marked = answer.status_code == _OK and answer.json()["paths"]["/projects"]["post"][MARK] is True
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        marked = False
    if not marked:
        raise UnavailableError(
            "not asked: of a team's own image no request is known that writes, since its /openapi.json does not say "
            f"{MARK} at POST /projects; the contract has /health, which is asked as a page"
        )


def write_and_read(
    client: httpx.Client, public: str, credentials: Mapping[str, str], *, seconds: float, work: bool = True
) -> Said:
    """Make an account, log in, read the account with the token, have a job done, and remove the account with its data.

    credentials: from `somebody`; the account may exist, from a turn that could not remove it. seconds: how long the job
    may take. work: whether there is a worker for the job.
    """
    made = client.post(f"{public}/auth/register", json=credentials)
    if made.status_code != _CONFLICT:
        good(made, "POST /auth/register", _CREATED)
    token = good(client.post(f"{public}/auth/login", json=credentials), "POST /auth/login").json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    try:
        _need_known(client, public, headers, credentials["email"])
        job = _kept(lambda: _job(client, public, headers, seconds)) if work else _kept(lambda: "")
    except BaseException:
        # What fails now would hide what has failed first.
        with contextlib.suppress(httpx.HTTPError):
            client.delete(f"{public}/auth/me", headers=headers)
        raise
    return Said(account=_kept(lambda: _removed(client, public, headers)), job=job)


def _kept(ask: Callable[[], str]) -> Callable[[], str]:
    """Call `ask` now; return a function that later returns its answer, or raises its error."""
    try:
        said = ask()
    except (FailedError, UnavailableError, httpx.HTTPError) as error:
        failure = error

        def fail() -> str:
            raise failure

        return fail
    return lambda: said


def _need_known(client: httpx.Client, public: str, headers: Mapping[str, str], email: str) -> None:
    me = good(client.get(f"{public}/auth/me", headers=headers), "GET /auth/me").json()
    if me["email"] != email:
        raise FailedError("GET /auth/me knows the token as somebody else's")


def _removed(client: httpx.Client, public: str, headers: Mapping[str, str]) -> str:
    good(client.delete(f"{public}/auth/me", headers=headers), "DELETE /auth/me", _NO_CONTENT)
    return "an account was made, known by its token, and removed with all that was its"


def _job(client: httpx.Client, public: str, headers: Mapping[str, str], seconds: float) -> str:
    """Have the worker write a file for a project, and wait for it."""
    began, wanted = time.monotonic(), {"name": "smoke test", "job": {"name": "write_skeleton"}}
    answer = client.post(f"{public}/projects", headers=headers, json=wanted)
    job: dict[str, Any] = good(answer, "POST /projects", _CREATED).json()["job"]
    looks = 0
    while job["state"] not in _OVER:
        if time.monotonic() - began > seconds:
            raise LateError(f"the worker has not done a job within {seconds:g} s: it is {job['state']}")
        time.sleep(_LOOKS_APART[min(looks, len(_LOOKS_APART) - 1)])
        looks += 1
        path = f"/jobs/{job['id']}"
        job = good(client.get(f"{public}{path}", headers=headers), f"GET {path}").json()
    if job["state"] == "failed":
        raise FailedError(f"the worker has ended a job as failed: {job['result']}")
    return f"the worker has done a job within {time.monotonic() - began:.1f} s"
