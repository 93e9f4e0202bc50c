"""Writes a document to standard output or to a file: table, JSON, CSV, Parquet, Arrow.

A noisy cell of a table reads ``1,312 ± 22``: the value, and how far its interval reaches at most; a date reads
``2020-01-05 (2020-01-03 to 2020-01-09)``; ``0.31 ± ?`` has noise and no bounded interval. CSV, Parquet and
Arrow have the query's columns first and then ``<name>_low`` and ``<name>_high`` of each noisy one. Progress and
warnings are not written here: standard output holds one document and nothing else.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from insitu_access.cli import printable
from insitu_access.files import write_file
from insitu_privacy.errors import ConfigInvalid

from insitu.clipped import clipping_said

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from insitu.result import Cell, Interval, Result

Format = Literal["table", "json", "csv", "parquet", "arrow"]
SUFFIXES: Mapping[str, Format] = {
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "table",
}
FACT_SUFFIXES: Mapping[str, Format] = {".json": "json", ".txt": "table"}
"""Of documents that are no tables of rows."""
_LARGE = 1e15
"""Numbers from here on are shown with an exponent."""
_PLAIN_WIDTH = 10_000
"""Where standard output is not a terminal, a table is as wide as it needs to be and no cell is folded."""


def choose_format(wanted: Format | None, target: Path | None, known: Mapping[str, Format] = SUFFIXES) -> Format:
    """The format asked for; else the one of ``known`` that the file's suffix names; without a suffix, a table.

    Raises ConfigInvalid for any other suffix: a file would be written that does not hold what its name says.
    """
    suffix = target.suffix.lower() if target else ""
    if wanted is not None or not suffix:
        return wanted or "table"
    if suffix not in known:
        hint = f"Known ones are {', '.join(known)}. Or say what to write with --format."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason="the suffix of the output file names no format", hint=hint)
    return known[suffix]


def check_target(form: Format, target: Path | None) -> None:
    """Raise ConfigInvalid where the document could not be written: better known before anything is spent."""
    if target is None:
        if form in ("parquet", "arrow") and sys.stdout.isatty():
            reason = f"{form} is binary and would be written to the terminal"
            raise ConfigInvalid("INSITU-CONFIG-USAGE", reason=reason, hint="Pass -o FILE.")
    elif target.is_dir():
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=target, reason="it is a folder")
    elif not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=target, reason="its folder does not exist or is not writable")


def write_result(result: Result, form: Format, target: Path | None) -> None:
    """Write the result in ``form``, to ``target`` or to standard output."""
    writers: Mapping[Format, Callable[[Result], bytes]] = {
        "table": lambda it: table_text(it).encode(),
        "json": lambda it: json_bytes(it.to_json()),
        "csv": _csv,
        "parquet": _parquet,
        "arrow": _arrow,
    }
    write_bytes(writers[form](result), target)


def write_bytes(content: bytes, target: Path | None) -> None:
    """Write one document; a file appears whole or not at all."""
    if target is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_file(target, content)


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """One JSON document with a final newline; NaN and infinities are a mistake and raise."""
    return (json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n").encode()


def rich_text(*parts: RenderableType) -> str:
    """Rich renderables as text: coloured and folded for a terminal, plain and unfolded elsewhere."""
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=False, width=_PLAIN_WIDTH)
    if sys.stdout.isatty():
        console = Console(file=io.StringIO(), force_terminal=True, width=Console().width)
    for part in parts:
        console.print(part, highlight=False)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def new_table() -> Table:
    """An empty table in the house style."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def table_text(result: Result) -> str:
    """The result as a table, and under it what it cost and who is missing."""
    from rich.text import Text

    table = new_table()
    for column in result.columns:
        numeric = column.noisy or column.type in ("integer", "decimal")
        table.add_column(Text(column.name), justify="right" if numeric else "left", overflow="fold")
    for row, intervals in zip(result.rows, result.intervals, strict=True):
        cells = zip(row, intervals, result.columns, strict=True)
        table.add_row(*(Text(cell_text(cell, interval, noisy=column.noisy)) for cell, interval, column in cells))
    return rich_text(table, Text(_footer(result)))


def cell_text(cell: Cell, interval: Interval, *, noisy: bool = False) -> str:
    """``1,312 ± 22``; exact numbers as they are; ``1312 ± ?`` where noise has no interval; NULL as ``∅``.

    Dates as ``2020-01-05 (2020-01-03 to 2020-01-09)``.
    """
    if cell is None:
        return "∅"
    if isinstance(cell, (bool, str)):
        return _worded(one_line(str(cell)), interval, noisy=noisy)
    if interval is None:
        return f"{cell:.3g} ± ?" if noisy else one_line(str(cell))
    low, high = float(interval[0]), float(interval[1])
    reach = max(high - cell, cell - low, 0)
    if not math.isfinite(reach):
        return f"{cell:.6g} ± ∞"
    if max(abs(cell), reach) >= _LARGE:
        return f"{cell:.6g} ± {reach:.2g}"
    digits = _digits(reach, whole=isinstance(cell, int))
    return f"{cell:,.{digits}f} ± {reach:,.{digits}f}"


def _worded(cell: str, interval: Interval, *, noisy: bool) -> str:
    if interval is None:
        return f"{cell} ± ?" if noisy else cell
    return f"{cell} ({interval[0]} to {interval[1]})"


def one_line(text: str) -> str:
    """``text`` without what could break a line or rewrite a terminal: group keys come from somebody's database."""
    return printable(text.replace("\n", "\ufffd"))


def _digits(reach: float, *, whole: bool) -> int:
    """Decimals that show two significant digits of the uncertainty, and none of a whole number's."""
    if whole and float(reach).is_integer():
        return 0
    if reach <= 0:
        return 6
    return min(12, max(0, 1 - math.floor(math.log10(reach))))


def _footer(result: Result) -> str:
    released = [node.id for node in result.nodes if node.status == "released"]
    spent = f"ε {float(result.spent.epsilon):g}, δ {float(result.spent.delta):g} at each"
    again = ", a release made before: nothing new is charged" if result.replayed else ""
    lines = [f"{len(released)} of {len(result.nodes)} nodes ({', '.join(released)}); {spent}{again}"]
    missing = [node for node in result.nodes if node.status != "released"]
    lines += [f"missing: {node.id} {node.status} {node.code or ''}" for node in missing]
    if result.first_look is not None:
        look = float(result.first_look.epsilon)
        lines.append(f"ε {look:g} of it went to a first look" if look else "its first look was had before, for nothing")
    if result.improved:
        lines.append(f"improved, at no cost: {', '.join(result.improved)}")
    noisy = [(one.name, cut) for one, cut in zip(result.columns, result.clipping, strict=True) if one.noisy]
    lines += [line for line in (clipping_said(noisy, result.profiled), _suppressed(result)) if line]
    checked = "every release verified" if result.verified else "NOT verified"
    lines = [one_line(line) for line in lines]
    return "\n".join([*lines, f"± is the {result.level:.0%} interval over the noise of all nodes; {checked}"])


def _suppressed(result: Result) -> str:
    """What ``∅`` means where it stands for suppressed cells; others are NULL."""
    hidden = set(() if result.suppression is None else result.suppression.rows)
    noisy = [index for index, column in enumerate(result.columns) if column.noisy]
    empty = {place for place, row in enumerate(result.rows) if any(row[index] is None for index in noisy)}
    if result.suppression is None or not hidden & empty:
        return ""
    said = f"∅ in {len(hidden & empty)} row(s): suppressed, below {result.suppression.below} by the noisy count"
    return f"{said}; ∅ in others: no value" if empty - hidden else said


def _csv(result: Result) -> bytes:
    import csv

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    noisy = [i for i, column in enumerate(result.columns) if column.noisy]
    ends = [f"{result.columns[i].name}_{end}" for i in noisy for end in ("low", "high")]
    writer.writerow([*(column.name for column in result.columns), *ends])
    for row, intervals in zip(result.rows, result.intervals, strict=True):
        reach = [end for i in noisy for end in (intervals[i] or (None, None))]
        writer.writerow([*(_csv_cell(cell) for cell in row), *("" if end is None else end for end in reach)])
    return stream.getvalue().encode()


def _csv_cell(cell: Cell) -> str | int | float:
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else cell


def _parquet(result: Result) -> bytes:
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(result.to_arrow(intervals=True), stream)
    return stream.getvalue()


def _arrow(result: Result) -> bytes:
    import pyarrow as pa

    stream = io.BytesIO()
    table = result.to_arrow(intervals=True)
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()
