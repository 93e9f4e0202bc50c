"""The answer to a query: rows, their intervals, who answered, what it cost, and the evidence for all of it.

``to_json`` gives the document of the `query` command. Rows hold JSON scalars: dates and timestamps as ISO 8601
text, NULL and NaN as None; ``to_arrow`` gives them their own types. What is not here: how a result is checked
(``verification``) and how it is shown (``output``).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from insitu_privacy.dataset import ColumnType, DatasetBundle
from insitu_privacy.errors import ConfigInvalid

from insitu.clipped import Profiled

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from insitu.plot import Plot

Status = Literal["released", "refused", "absent", "failed"]
Cell = int | float | str | bool | None
Interval = tuple[float, float] | tuple[str, str] | None
"""Of numbers, numbers; of dates and timestamps, ISO 8601 texts as their cells are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the answer; ``noisy`` ones carry intervals."""

    name: str
    type: ColumnType
    noisy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What became of the request at one node; ``code`` is None where it released."""

    id: str
    status: Status
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Privacy loss charged at each node that released."""

    epsilon: Fraction
    delta: Fraction

    def __add__(self, other: Spent) -> Spent:
        return Spent(epsilon=self.epsilon + other.epsilon, delta=self.delta + other.delta)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"epsilon": float(self.epsilon), "delta": float(self.delta)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Cells below ``below`` by their noisy count are suppressed; ``rows`` are the places of the rows made of such."""

    below: int
    rows: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"below": self.below, "rows": list(self.rows)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstEvidence:
    """What was asked and answered before the query itself (``looking``)."""

    request: str
    outcomes: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"request": self.request, "outcomes": dict(self.outcomes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The signed documents that the result follows from: enough to check it again without any network."""

    manifest: str
    grant: str
    request: str
    outcomes: Mapping[str, str]
    """By node: what it signed, a release or a refusal."""
    bundle: DatasetBundle
    first: FirstEvidence | None = None
    """Of the first look, where there was one: under the same manifest and grant, of the same dataset."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the dataset's files in base64."""
        files = {name: base64.b64encode(content).decode() for name, content in self.bundle.files.items()}
        return {
            "manifest": self.manifest,
            "grant": self.grant,
            "request": self.request,
            "outcomes": dict(self.outcomes),
            "dataset": {"toml": base64.b64encode(self.bundle.toml).decode(), "files": files},
            "first_look": None if self.first is None else self.first.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to one query. ``rows`` and ``intervals`` are parallel to each other and to ``columns``."""

    query_id: str
    dataset: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    intervals: tuple[tuple[Interval, ...], ...]
    """Confidence interval of each noisy cell, at ``level``, over the noise of all nodes; None for other cells, and
    where noise sets no bounds to a value: ``warnings`` says where and why."""
    level: float
    nodes: tuple[NodeStatus, ...]
    clipping: tuple[float | None, ...]
    """Expected relative bias of each column by contribution bounds, where it is known."""
    spent: Spent
    replayed: bool
    """Whether every node gave a release that it had made, and charged, before."""
    verified: bool
    """Whether every release was verified and the rows were computed from them on this side."""
    warnings: tuple[str, ...]
    improved: tuple[str, ...] = ()
    """What was done to what was released, beyond adding it up (``insitu_privacy.improve``)."""
    suppression: Suppression | None = None
    """None where the dataset suppresses no cells."""
    first_look: Spent | None = None
    """The part of what was spent that went to a first look at the query's own rows; None where there was none."""
    profiled: Profiled | None = None
    """Which nodes have profiles, for what is not known of clipping; None of an answer that was computed again."""
    evidence: Evidence = field(repr=False)

    def to_json(self, *, evidence: bool = True) -> dict[str, Any]:
        """The JSON document of the `query` command."""
        document: dict[str, Any] = {
            "query_id": self.query_id,
            "dataset": self.dataset,
            "columns": [{"name": column.name, "type": column.type} for column in self.columns],
            "rows": [list(row) for row in self.rows],
            "intervals": [[None if cell is None else list(cell) for cell in row] for row in self.intervals],
            "level": self.level,
            "nodes": [{"id": node.id, "status": node.status, "code": node.code} for node in self.nodes],
            "clipping": list(self.clipping),
            "spent": self.spent.to_json(),
            "replayed": self.replayed,
            "verified": self.verified,
            "warnings": list(self.warnings),
            "improved": list(self.improved),
            "without_profile": None if self.profiled is None else list(self.profiled.without),
            "suppression": None if self.suppression is None else self.suppression.to_json(),
            "first_look": None if self.first_look is None else self.first_look.to_json(),
        }
        if evidence:
            document["evidence"] = self.evidence.to_json()
        return document

    def to_arrow(self, *, intervals: bool = False) -> pa.Table:
        """An Arrow table; with ``intervals``, also ``<name>_low`` and ``<name>_high`` of each noisy column, last.

        Those of dates and timestamps are of the column's type, others decimals.
        """
        import pyarrow as pa

        kinds = _arrow_types()
        arrays = [
            pa.array([_typed(row[i], column.type) for row in self.rows], type=kinds[column.type])
            for i, column in enumerate(self.columns)
        ]
        names = [column.name for column in self.columns]
        for i, column in enumerate(self.columns if intervals else ()):
            for end, suffix in enumerate(("low", "high") if column.noisy else ()):
                cells = [row[i] for row in self.intervals]
                ends = [None if cell is None else _typed(cell[end], column.type) for cell in cells]
                dated = column.type in ("date", "timestamp")
                arrays.append(pa.array(ends, type=kinds[column.type] if dated else pa.float64()))
                names.append(f"{column.name}_{suffix}")
        return pa.Table.from_arrays(arrays, names=names)

    def to_pandas(self) -> pd.DataFrame:
        """A pandas data frame; needs the ``pandas`` extra."""
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ConfigInvalid(
                "INSITU-CONFIG-USAGE", reason="pandas is not installed", hint="Run: pip install 'insitu[pandas]'."
            ) from error
        columns = {
            column.name: [_typed(row[i], column.type) for row in self.rows] for i, column in enumerate(self.columns)
        }
        frame = pd.DataFrame(columns)
        for column in self.columns:
            if column.type in ("date", "timestamp"):
                frame[column.name] = pd.to_datetime(frame[column.name])
        return frame

    def plot(self, column: str | None = None) -> Plot:
        """Lines over time, or bars, of one column with its intervals, as SVG; a notebook shows it by itself."""
        from insitu.plot import plot_result

        return plot_result(self, column)

    def __str__(self) -> str:
        from insitu.output import table_text

        return table_text(self)

    def __repr__(self) -> str:
        """What a notebook shows: the table, rather than the fields."""
        return str(self)


def _arrow_types() -> dict[ColumnType, Any]:
    import pyarrow as pa

    return {
        "integer": pa.int64(),
        "decimal": pa.float64(),
        "text": pa.string(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "boolean": pa.bool_(),
    }


def _typed(cell: Cell, kind: ColumnType) -> Any:
    if cell is None:
        return None
    if kind == "date":
        return date.fromisoformat(str(cell)[:10])
    if kind == "timestamp":
        moment = datetime.fromisoformat(str(cell))
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    if kind == "decimal" and isinstance(cell, (int, float)):
        return float(cell)
    return cell
