"""Search the logs of all containers in VictoriaLogs, also of containers that are gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

import httpx

from operations.clone import typed
from operations.engine.log_lines import Line
from operations.errors import ProjectError
from stack.common.names import service_of
from stack.monitoring import access
from stack.settings.environment import Environment
from stack.settings.keys import key_of


def search(
    environment: Environment,
    url: str,
    words: str,
    *,
    part: str = "",
    since: float | None = None,
    limit: int,
    password: Callable[[], str],
    seconds: float = 30,
) -> list[Line]:
    """Return the newest lines in which all words are found, in the order of time.

    words: an expression of LogsQL; words are joined by `and`. part: `api` is all its replicas, `api-1` one of them.
    since: seconds since 1970. Raises ProjectError where the store is down, or does not understand the words.
    """
    if not limit:
        return []  # to the store 0 is no limit
    form = {"query": f"{_stream(environment, part)} ({words})", "limit": str(limit)}
    if since is not None:
        form["start"] = f"{since:.3f}"
    login = (access.USER, password()) if environment.basic_auth else None
    try:
        answer = httpx.post(f"{url}/select/logsql/query", data=form, auth=login, timeout=seconds, trust_env=False)
    except httpx.HTTPError as error:
        raise ProjectError(
            f"The store of the logs does not answer at {url} ({type(error).__name__}): "
            f"{typed(environment.name, 'logs PART=logs')} says why. The engine has the last lines of each container "
            f"all the same: {typed(environment.name, 'logs GREP=…')}"
        ) from None
    if answer.status_code == HTTPStatus.BAD_REQUEST:
        raise ProjectError(
            f"The store does not understand {words!r}: {answer.text.strip()[:300]}\n"
            """What is more than letters and digits goes in double quotes: SEARCH='"FATAL: the"'"""
        )
    if answer.status_code != HTTPStatus.OK:
        raise ProjectError(f"The store of the logs answers {answer.status_code}: {answer.text.strip()[:300]}")
    # `splitlines` also cuts at characters that JSON may have as they are, such as U+2028.
    rows = [json.loads(row) for row in answer.text.split("\n") if row]
    lines = [Line(part=_part(row), at=_all_digits(row.get("_time", "")), text=str(row.get("_msg", ""))) for row in rows]
    return sorted(lines, key=lambda line: line.at)


def off(environment: Environment) -> str:
    """Return why nothing can be searched in this environment; empty where it can."""
    if "logs" not in environment.absent:
        return ""
    return (
        f"The logs are not collected ({key_of('logs', 'enabled')} is false). The engine has the last lines of each "
        f"container: {typed(environment.name, 'logs GREP=…')}"
    )


def _stream(environment: Environment, part: str) -> str:
    labels = {"environment": environment.name}
    if part:
        service, replica = service_of(part)
        labels |= {"part": service} | ({"replica": replica} if replica else {})
    return "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"


def _all_digits(moment: str) -> str:
    """Return a moment with the zeros that VictoriaLogs leaves out: without them `01.5Z` sorts before `01Z`."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z" if moment else ""


def _part(row: dict[str, str]) -> str:
    return "-".join(filter(None, (row.get("part", ""), row.get("replica", ""))))
