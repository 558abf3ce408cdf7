"""A table on a terminal: as columns where every word has room, else as one block for each row.

Nothing breaks within a word: what stands in a cell is copied from there, at 3 a.m. on 80 columns too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = str | Text
_BETWEEN = 2
_EDGES = 2
_FAR = 4
"""Column in which a value begins that has no room beside its heading."""


def show_table(
    console: Console,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    whole: Collection[str] = (),
) -> None:
    """Print a table. rows: as many cells as headings, the first one names the row. whole: columns kept in one line."""
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = widths_of(console.width, headings, texts, whole)
    if widths is None:
        _blocks(console, title, headings, texts)
        return
    table = Table(title=Text(title, style="italic") if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, width=width, overflow="fold")
    for row in texts:
        table.add_row(*row)
    console.print(table)


def widths_of(
    room: int, headings: Sequence[str], rows: Sequence[Sequence[Text]], whole: Collection[str]
) -> list[int] | None:
    """Return the width of each column; None where they have no room beside each other."""
    least, most = [], []
    for number, heading in enumerate(headings):
        cells = [Text(heading), *(row[number] for row in rows)]
        lines = [line for cell in cells for line in cell.plain.splitlines()]
        longest = max(Text(line).cell_len for line in lines)
        words = (Text(word).cell_len for line in lines for word in line.split())
        most.append(longest)
        least.append(longest if heading in whole else max(words, default=1))
    spare = room - sum(least) - _BETWEEN * (len(headings) - 1) - _EDGES
    if spare < 0:
        return None
    wanted = [more - less for less, more in zip(least, most, strict=True)]
    if sum(wanted) <= spare:
        return most
    return [less + spare * want // sum(wanted) for less, want in zip(least, wanted, strict=True)]


def _blocks(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    console.print(Text(title, style="italic"))
    indent = max(map(len, headings[1:])) + 3
    for name, *cells in rows:
        console.print()
        console.print(name)
        for heading, cell in zip(headings[1:], cells, strict=True):
            longest = max((Text(word).cell_len for word in cell.plain.split()), default=0)
            left = indent if longest <= console.width - indent else _FAR
            if left != indent:
                console.print(Text(f"  {heading}"))
            for number, line in enumerate(cell.wrap(console, max(1, console.width - left), overflow="fold")):
                line.rstrip()
                named = heading if not number and left == indent else ""
                console.print(Text(f"  {named}".ljust(left)) + line)
    console.print()
