"""The picture of the architecture: each part, and which other parts it speaks to, all read from the specs.

A part speaks to another one where both are in a network and its variables, command or files name the other as a host.
Prometheus' jobs name every part; of those the picture has what is scraped and what is probed, as the specs say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.prometheus import spec as prometheus
from stack.spec.files import Template
from stack.spec.service import Scrape, ServiceSpec

# The forms in which a host is written: in an address, after a user, as an option, as a value of JSON.
_HOST = r"(?:(?<=//)|(?<=@)|(?<=-h )|(?<=\"host\": \")|(?<![\w.@/-])(?={name}:\d)){name}(?![\w-])"


def picture(specs: Sequence[ServiceSpec]) -> str:
    """Render the parts and their edges as a Mermaid flowchart."""
    rooms: dict[str, list[str]] = {}
    for spec in specs:
        rooms.setdefault(spec.component.split(":")[1], []).append(spec.part)
    lines = ["flowchart LR", "    person([you]) --> host[loopback of the host]"]
    for room, parts in rooms.items():
        lines += [f"    subgraph {room}", *(f"        {_node(part)}[{part}]" for part in parts), "    end"]
    lines += (f"    {edge}" for edge in _edges(specs))
    return "\n".join(lines) + "\n"


def _edges(specs: Sequence[ServiceSpec]) -> Iterator[str]:
    """Yield who reaches each part from outside, what it reaches itself, and what monitoring asks."""
    filled = {spec.scratch.name: spec.part for spec in specs if spec.scratch}
    for spec in specs:
        if spec.publish:
            yield f"host -- {spec.publish.host_port} --> {_node(spec.part)}"
        yield from (f"{_node(spec.part)} --> {_node(other)}" for other in spoken_to(spec, specs))
        read = [filled[each.name] for each in spec.reads if each.name in filled]
        yield from (f"{_node(spec.part)} -. reads .-> {_node(other)}" for other in read)
    scraped = [spec.part for spec in specs if isinstance(spec.scrape, Scrape)]
    probed = [spec.part for spec in specs if spec.publish]
    for who, does, parts in ((prometheus.PART, "scrapes", scraped), (blackbox_exporter.PART, "probes", probed)):
        others = " & ".join(_node(part) for part in parts if part != who)
        yield f"{_node(who)} -. {does} .-> {others}"


def spoken_to(spec: ServiceSpec, specs: Sequence[ServiceSpec]) -> list[str]:
    """Return the parts that a part's variables, command and files name as hosts."""
    text = "\n".join(_texts(spec))
    if spec.part == prometheus.PART:
        text = text.partition("scrape_configs:")[0]
    return [
        other.part
        for other in specs
        if other.part != spec.part and {*other.networks} & {*spec.networks} and _names(text, other.part, spec)
    ]


def _names(text: str, host: str, spec: ServiceSpec) -> bool:
    return host in spec.environment.values() or bool(re.search(_HOST.format(name=re.escape(host)), text))


def _texts(spec: ServiceSpec) -> Iterator[str]:
    """Yield the variables, command and files of a part, each secret replaced by its name."""
    told = (*spec.environment.values(), *spec.command, *spec.secret_environment.values(), *spec.files.values())
    yield from (each.render(*each.needs) if isinstance(each, Template) else each for each in told)


def _node(part: str) -> str:
    return part.replace("-", "_")
