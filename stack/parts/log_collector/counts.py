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
        self.values: Counter[str] = Counter(dict.fromkeys(("gaps", "cut_lines", "left_out_fields", "store_errors"), 0))
        self.held_bytes = 0
        """Bytes of files that the engine has removed and the store has not got."""
        self.caught_up = self.alive = time.monotonic()
        self.first_read = True
        """Until all that was there at the start is in the store."""
        self._shown: set[tuple[str, str]] = set()

    def known(self, part: str) -> None:
        """Show each series of a part, also where nothing is counted."""
        self.lines[part] += 0
        for kind in kinds(part):
            self.matches[part, kind] += 0

    def text(self) -> str:
        """Return all of it: each counter is 0 the first time, since Prometheus sees no increase in a first value.

        What a restart finds is counted within its first second: files that the engine has removed, a PANIC.
        """
        rows = [("lines_total", f'part="{part}"', count) for part, count in list(self.lines.items())]
        rows += [("matches_total", f'part="{part}",kind="{kind}"', n) for (part, kind), n in list(self.matches.items())]
        rows += [("dropped_lines_total", f'reason="{reason}"', count) for reason, count in self.dropped.items()]
        rows += [(f"{name}_total", "", count) for name, count in self.values.items()]
        rows += [("held_bytes", "", self.held_bytes)]
        rows += [("behind_seconds", "", round(time.monotonic() - self.caught_up))]
        rows += [("first_read", "", int(self.first_read))]
        lines, named = list[str](), set[str]()
        for name, labels, count in rows:
            counter = name.endswith("_total")
            if name not in named:
                named.add(name)
                lines.append(f"# TYPE log_collector_{name} {'counter' if counter else 'gauge'}")
            value = 0 if counter and (name, labels) not in self._shown else count
            self._shown.add((name, labels))
            lines.append(f"log_collector_{name}{{{labels}}} {value}" if labels else f"log_collector_{name} {value}")
        return "\n".join(lines) + "\n"
