"""How often intervals hold the noise-free value: noise drawn again and again on the same exact statistics of all nodes.

Noise, merging and post-processing are those of production. The value to hold is that of the same plan, with its
contribution bounds, from the exact statistics: what the answer would be without noise. The outermost WHERE, HAVING and
LIMIT are left out there, so that every row that noise lets through has a value to be held against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import product
from typing import Any

import sqlglot
from insitu_privacy.mechanisms import ExactCells, JsonKey, Row, privatize
from insitu_privacy.merge import merge
from insitu_privacy.plan import KeyValue, PrivacyPlan, Release, ReleasedValues, Tree
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.tree import grown
from sqlglot import exp

ALLOWED = (0.93, 0.97)
_TOO_FEW = 0.05
"""With fewer cells that have an interval, those few are where noise was largest, and say nothing of the rest."""
Cells = Sequence[Sequence[ExactCells]]
"""By node and release."""
Key = tuple[JsonKey, ...]
Keys = Sequence[Key]


@dataclass(slots=True, kw_only=True)
class Held:
    """One column of one query: noisy cells of all runs, how many have an interval, and where the value lay."""

    query: str
    column: str
    runs: int
    cells: int = 0
    bounded: int = 0
    inside: int = 0
    below: int = 0
    above: int = 0
    width: float = 0.0

    @property
    def share(self) -> float | None:
        """How many of the intervals held the value; None where there are none."""
        return self.inside / self.bounded if self.bounded else None

    @property
    def verdict(self) -> str:
        """Whether the share is within what is allowed."""
        if self.share is None or self.bounded < _TOO_FEW * self.cells:
            return "mostly without an interval"
        low, high = ALLOWED
        return "" if low <= self.share <= high else "too seldom" if self.share < low else "more often than said"


def held(name: str, plan: PrivacyPlan, exact: Cells, post: Postprocessor, runs: int) -> list[Held]:
    """Draws the noise ``runs`` times and counts, for each noisy column."""
    truth = _by_key(noise_free(plan, exact, post))
    found = {
        index: Held(query=name, column=column.name, runs=runs)
        for index, column in enumerate(plan.output)
        if column.noisy
    }
    for _ in range(runs):
        table = post.run(plan, merge(plan, [list(_released(plan, cells)) for cells in exact]))
        for key, (row, intervals) in _by_key(table).items():
            for index, count in found.items():
                if row[index] is not None and key in truth and truth[key][0][index] is not None:
                    _count(count, truth[key][0][index], intervals[index])
    return list(found.values())


def _count(count: Held, value: Any, interval: tuple[Any, Any] | None) -> None:
    count.cells += 1
    if interval is None:
        return
    low, high = interval
    slack = 1e-9 * max(1.0, abs(value)) if isinstance(value, float) else 0
    count.bounded += 1
    if isinstance(value, str):
        side = -1 if value < low else 1 if value > high else 0
    else:
        side = -1 if value < low - slack else 1 if value > high + slack else 0
        count.width += high - low
    count.below += side < 0
    count.above += side > 0
    count.inside += side == 0


def _by_key(table: ResultTable) -> dict[tuple[Any, ...], tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Rows and intervals by the columns that are not noisy; keys that do not tell rows apart are left out."""
    rows = [
        (tuple(value for value, column in zip(row, table.columns, strict=True) if not column.noisy), (row, intervals))
        for row, intervals in zip(table.rows, table.intervals, strict=True)
    ]
    times = Counter(key for key, _ in rows)
    return {key: row for key, row in rows if times[key] == 1}


def _released(plan: PrivacyPlan, cells: Sequence[ExactCells]) -> Iterator[ReleasedValues]:
    made: dict[str, ReleasedValues] = {}
    for release, one in zip(plan.releases, cells, strict=True):
        followed = made.get(release.tree.keys_of or "") if release.tree else None
        made[release.name] = privatize(release, one, None if followed is None else followed.keys)
        yield made[release.name]


# -- without noise -----------------------------------------------------------------------------------------------------


def noise_free(plan: PrivacyPlan, exact: Cells, post: Postprocessor) -> ResultTable:
    """The answer from the exact statistics: no noise, no threshold, no suppression, no outermost condition."""
    tree = sqlglot.parse_one(plan.postprocessing, dialect="duckdb")
    for clause in ("where", "having", "limit", "offset"):
        tree.set(clause, None)
    assert isinstance(tree, exp.Query)
    bare = replace(
        plan,
        postprocessing=tree.sql("duckdb"),
        releases=tuple(replace(release, suppress_below=0) for release in plan.releases),
    )
    merged = [
        replace(one, nodes=(one.answered,) * len(one.keys))
        for one in merge(bare, [list(_exactly(bare, cells)) for cells in exact])
    ]
    silent = replace(bare, output=tuple(replace(column, noisy=False) for column in bare.output))
    table = post.run(silent, merged)
    columns = zip(table.columns, plan.output, strict=True)
    return replace(table, columns=tuple(replace(column, noisy=planned.noisy) for column, planned in columns))


def _exactly(plan: PrivacyPlan, cells: Sequence[ExactCells]) -> Iterator[ReleasedValues]:
    keys: dict[str, Keys] = {}
    for release, one in zip(plan.releases, cells, strict=True):
        public = [tuple(map(_json, key)) for key in product(*(column.domain or () for column in release.keys))]
        if release.tree is None:
            found = {tuple(map(_json, row[: len(release.keys)])): row[len(release.keys) :] for row in one.rows}
            keys[release.name] = public if release.cells is not None else sorted(found, key=repr)
            nothing = (0,) * release.width
            table = [found.get(key, nothing) for key in keys[release.name]]
        else:
            keys[release.name] = keys[release.tree.keys_of] if release.tree.keys_of else public
            table = _trees(release, release.tree, one, keys[release.name])
        yield ReleasedValues(
            keys=None if release.cells is not None else tuple(keys[release.name]),
            statistics=tuple(tuple(int(row[index]) for row in table) for index in range(release.width)),
        )


def _trees(release: Release, tree: Tree, cells: ExactCells, keys: Keys) -> list[Row]:
    width = len(release.keys)
    leaves: dict[Key, list[tuple[int, int]]] = {}
    for row in cells.rows:
        leaves.setdefault(tuple(map(_json, row[:width])), []).append((int(row[width]), int(row[width + 1])))
    return [tuple(grown(tree.leaves, leaves.get(key, ()))) for key in keys]


def _json(value: KeyValue) -> JsonKey:
    return value.isoformat() if isinstance(value, (date, datetime)) else value
