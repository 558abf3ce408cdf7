"""What the collector counts, as Prometheus reads it."""

from __future__ import annotations

import time
from collections import Counter

from stack.parts.log_collector.events import kinds


class LogCounts:
    """Counters and gauges. The main thread writes them, the thread of the web server reads them."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.matches: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[str] = Counter(dict.fromkeys(("buffer", "unreadable", "refused"), 0))
        self.values: Counter[str] = Counter(dict.fromkeys(("gaps", "cut_lines", "store_errors"), 0))
        self.held_bytes = 0
        """Bytes of files that the engine has removed and the store has not got."""
        self.caught_up = self.alive = time.monotonic()

    def known(self, part: str) -> None:
        """Let each series of a part begin with 0, so that Prometheus sees the first increase."""
        self.lines[part] += 0
        for kind in kinds(part):
            self.matches[part, kind] += 0

    def text(self) -> str:
        """Return all of it."""
        rows = [("lines_total", f'part="{part}"', count) for part, count in list(self.lines.items())]
        rows += [("matches_total", f'part="{part}",kind="{kind}"', n) for (part, kind), n in list(self.matches.items())]
        rows += [("dropped_lines_total", f'reason="{reason}"', count) for reason, count in self.dropped.items()]
        rows += [(f"{name}_total", "", count) for name, count in self.values.items()]
        rows += [("held_bytes", "", self.held_bytes)]
        rows += [("behind_seconds", "", round(time.monotonic() - self.caught_up))]
        lines, named = list[str](), set[str]()
        for name, labels, value in rows:
            if name not in named:
                named.add(name)
                lines.append(f"# TYPE log_collector_{name} {'counter' if name.endswith('_total') else 'gauge'}")
            lines.append(f"log_collector_{name}{{{labels}}} {value}" if labels else f"log_collector_{name} {value}")
        return "\n".join(lines) + "\n"
