"""Links to lines of the logs, on VictoriaLogs' own page: a query and a time, in the part of the address after `#`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from stack.settings.environment import Environment

LAST_HOUR = "g0.range_input=1h&g0.relative_time=last_1_hour"
"""The time, in the names of the page. In a message AlertManager's template replaces it by the alert's own hour."""
_PAGE = "/select/vmui/#/"
_REPLICA = "^(.+)-([0-9]+)$"
_NO_PART = "^(public|external)$"
"""What the label `service` of a probe is, where it asks an address that is not a part's."""


def of_service(environment: Environment, service: str) -> str:
    """Return the link of an alert: lines of the part that it is about, or of all parts where it is about none.

    service: the alert's label, which may be a template of Prometheus; the link then is one too. Empty: there is no page
    of logs, or it is the one that is down.
    """
    if "logs" in environment.absent or service == "logs":
        return ""
    if service.startswith("{{"):
        value = service.removeprefix("{{").removesuffix("}}").strip()
        steps = ((_NO_PART, ""), (_REPLICA, '${1}",replica="${2}'), ("^(.+)$", ',part="${1}"'))
        replaced = "".join(f' | reReplaceAll "{old}" "{quote(new, safe="${}")}"' for old, new in steps)
        return _url(environment, LAST_HOUR, "@").replace(quote("@"), f"{{{{ {value}{replaced} }}}}")
    if replica := re.fullmatch(_REPLICA, service):
        return _url(environment, LAST_HOUR, f',part="{replica[1]}",replica="{replica[2]}"')
    names = {name.replace("_", "-") for name in environment.running()}
    return _url(environment, LAST_HOUR, f',part="{service}"' if service in names else "")


def of_parts(environment: Environment, parts: Sequence[str], *, end: str, length: str) -> str:
    """Return the link of a dashboard: lines of `parts`, of all without any; empty where there is no page of logs.

    end: a moment, or a variable of Grafana. length: of the time before it, such as 3h.
    """
    if "logs" in environment.absent:
        return ""
    chosen = f',part=~"{"|".join(parts)}"' if parts else ""
    return _url(environment, f"g0.range_input={length}&g0.relative_time=none&g0.end_input={end}", chosen)


def _url(environment: Environment, time: str, labels: str) -> str:
    query = quote(f'{{environment="{environment.name}"{labels}}}', safe="")
    return f"{environment.settings.logs.address}{_PAGE}?{time}&query={query}"
