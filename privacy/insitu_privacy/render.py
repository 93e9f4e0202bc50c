"""Plan to SQL: one bounded statement for a node's database (P1, P2).

The statement returns one row per existing group: its keys, then one integer per statistic, such that removing one
privacy unit from all tables changes each integer by at most the statistic's ``linf``, in at most ``max_groups`` rows.
That holds whatever the data is, duplicated units, NULLs and NaN included; it never rests on data being as declared:

1. columns are read through guards (``dialects``), rows without a unit are dropped;
2. ``insitu_rows``: values are clipped to integers |v| <= linf / m and summed per unit and varying keys. A key declared
   constant per unit is read as its least value there, so that a unit has one by construction;
3. a unit with n > m rows in a group counts m and its sums are scaled by m / n, truncated; and a sum that may still be
   more than ``linf`` is cut there;
4. a unit in more than ``max_groups`` groups keeps those with the smallest keyed hash. Left out where keys are constant
   or where no more groups exist; and units in no more groups, the most by far, are neither hashed nor ranked;
5. groups are summed exactly.

DESIGN.md section 4, Contribution bounding, has the rules; ``docs/privacy.md`` the argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from insitu_privacy.dataset import Column
from insitu_privacy.dialect import Dialect
from insitu_privacy.dialects import DIALECTS
from insitu_privacy.expressions import ColumnRef, Expression, columns_of
from insitu_privacy.plan import KeyColumn, Release, Statistic, cell_count
from insitu_privacy.relations import Scan
from insitu_privacy.shape import Shape, UnitPart, shape
from insitu_privacy.sources import Sources


def render(release: Release, *, dialect: str, tables: Mapping[str, str], cap_key: str) -> str:
    """The statement of a release in a dialect ("duckdb" or "postgres").

    ``tables`` maps dataset tables to the site's own: a table or view name, or a SELECT. ``cap_key`` is the node's
    secret for choosing groups; it does not change what is guaranteed.
    """
    if release.tree is None:
        return Writer(release, DIALECTS[dialect], tables, cap_key).statement()
    from insitu_privacy.render_tree import TreeWriter

    return TreeWriter(release, DIALECTS[dialect], tables, cap_key).statement()


class Writer:
    """Writes the statement of a release of statistics."""

    def __init__(self, release: Release, dialect: Dialect, tables: Mapping[str, str], cap_key: str) -> None:
        self.release = release
        self.dialect = dialect
        output = [*(key.expression for key in release.keys), *release.values]
        self._counted = self._columns_counted()
        self.sources = Sources(
            release.relation, output, dialect, tables, coded=self._columns_coded(), counted=self._counted.values()
        )
        self._cap_key = cap_key
        self._shape: Shape = shape(release)
        self.units = [f"u{index}" for index in range(len(self._shape.unit))]
        self.varying = [key.name for key in self._shape.keys if not key.constant]
        self.constant = [key for key in self._shape.keys if key.constant]

    def statement(self) -> str:
        """WITH insitu_rows, [parts], [capped] SELECT keys, sums GROUP BY keys. One stage alone stands in its FROM."""
        rows = self._insitu_rows()
        stages = [f"insitu_rows AS (\n{rows}\n)", *self.parts()]
        source = "insitu_rows"
        if self.needs_cap():
            stages += self.capped("ROW_NUMBER()")
            source = "insitu_capped"
        columns = [
            *self.released_keys(),
            *(f"{self._summed(s)} AS s{i}" for i, s in enumerate(self.release.statistics)),
        ]
        group = f"\nGROUP BY {', '.join(key.name for key in self.release.keys)}" if self.release.keys else ""
        if len(stages) == 1:
            return f"SELECT {', '.join(columns)}\nFROM (\n{rows}\n) AS insitu_rows{group}"
        return f"WITH {', '.join(stages)}\nSELECT {', '.join(columns)}\nFROM {source}{self.joined_parts(source)}{group}"

    def released_keys(self) -> list[str]:
        """The keys as they leave: a number that stood for a text is that text again."""
        texts = ((key, self._text_of(key)) for key in self.release.keys)
        return [text if text == key.name else f"{text} AS {key.name}" for key, text in texts]

    def _text_of(self, key: KeyColumn) -> str:
        return self.dialect.decoded(key.name, key.domain or ()) if self._is_coded(key) else key.name

    # -- rows to units -----------------------------------------------------------------------------------------------

    def _insitu_rows(self) -> str:
        columns = [
            *self.units,
            *self.varying,
            *(f"{self.dialect.least_of(key.type, key.name)} AS {key.name}" for key in self.constant),
            *self._sums(),
        ]
        if not self.release.values and not self._shape.keys:
            # rows are only counted: DuckDB takes as long to bind one more derived table as to read a small one
            units = [self.sources.write(ref) for ref in self._shape.unit]
            columns = [*self.key_columns(), *self._sums()]
            return f"SELECT {', '.join(columns)}\n{self.source_rows()}\nGROUP BY {', '.join(units)}"
        group = ", ".join([*self.units, *self.varying])
        return f"SELECT {', '.join(columns)}\nFROM (\n{self._rows()}\n) AS bounded_rows\nGROUP BY {group}"

    def _sums(self) -> list[str]:
        """Per unit and group: n rows, c<i> of them with value i, d<i> such values, s_<i> the sum of statistic i."""
        found: dict[str, str] = {}
        for index, statistic in enumerate(self.release.statistics):
            value = statistic.value
            if value is None:
                if statistic.kind == "rows":
                    found["n"] = "COUNT(*) AS n"
            elif statistic.kind == "entities":
                found[f"d{value}"] = f"COUNT(DISTINCT x{value}) AS d{value}"
            else:
                found[f"c{value}"] = f"COUNT({self._present(value)}) AS c{value}"
                if statistic.kind == "sum":
                    found[f"s_{index}"] = f"SUM(v{index}) AS s_{index}"
        return list(found.values())

    def _present(self, value: int) -> str:
        """A column of the rows that is NULL where a value is: what is summed of it, if anything is."""
        if value in self._counted:
            return f"p{value}"
        summed = (i for i, one in enumerate(self.release.statistics) if one.kind == "sum" and one.value == value)
        first = next(summed, None)
        return f"x{value}" if first is None else f"v{first}"

    def _columns_counted(self) -> Mapping[int, ColumnRef]:
        """Summed values that are columns of a table, where an engine would compute anew what it sums to count it."""
        summed = {one.value for one in self.release.statistics if one.kind == "sum" and one.value is not None}
        found = [(index, self._column(self.release.values[index])) for index in sorted(summed)]
        columns = {index: column for index, column in found if column is not None}
        return columns if self.dialect.fence and len(columns) == len(summed) else {}

    def _rows(self) -> str:
        columns = self.key_columns()
        for index, statistic in enumerate(self.release.statistics):
            if statistic.value is None:
                continue
            value = self.release.values[statistic.value]
            if statistic.kind == "sum":
                columns.append(f"{self._fixed_point(statistic, value)} AS v{index}")
            elif statistic.kind == "entities" or self._present(statistic.value).startswith("x"):
                text = f"{self.sources.write(value)} AS x{statistic.value}"
                columns += [] if text in columns else [text]
        columns += [f"{self.sources.presence(column)} AS p{index}" for index, column in self._counted.items()]
        summed = any(one.kind == "sum" for one in self.release.statistics)
        fence = self.dialect.fence if summed and not self._counted else ""
        return f"SELECT {', '.join(columns)}\n{self.source_rows()}{fence}"

    def key_columns(self) -> list[str]:
        """The unit and the keys of a row."""
        layout = self._shape
        units = [f"{self.sources.write(ref)} AS {name}" for ref, name in zip(layout.unit, self.units, strict=True)]
        return units + [f"{self._key(key)} AS {key.name}" for key in layout.keys]

    def _key(self, key: KeyColumn) -> str:
        """A key's expression; as a small number that stands for its text where an engine has such: it groups faster."""
        text = self.sources.write(key.expression)
        return self.dialect.coded(text, key.domain or ()) if self._is_coded(key) else text

    def _is_coded(self, key: KeyColumn) -> bool:
        """Whether nothing is lost by reading what is outside the key's domain as NULL."""
        if not self.dialect.codes(key.type, key.domain):
            return False
        return None not in (key.domain or ()) or self._is_guard(key)

    def _is_guard(self, key: KeyColumn) -> bool:
        """Whether the key is a column that is read within this very domain."""
        column, domain = self._declared(key.expression), key.domain or ()
        return column is not None and column.values is not None and {*column.values} == {*domain} - {None}

    def _columns_coded(self) -> frozenset[ColumnRef]:
        """Columns that are read as such keys and nowhere else: what guards them is the reading."""
        keys = {key.expression for key in self.release.keys if isinstance(key.expression, ColumnRef)}
        if not keys:
            return frozenset()
        relation = self.release.relation
        read = [*relation.where, *(term for join in relation.joins for term in join.on), *self.release.values]
        read += [key.expression for key in self.release.keys if not (self._is_coded(key) and self._is_guard(key))]
        elsewhere = {column for one in read for column in columns_of(one)}
        return frozenset(key for key in keys if key not in elsewhere)

    def _column(self, value: Expression) -> ColumnRef | None:
        """The value as a column of a table, if it is one."""
        return value if isinstance(value, ColumnRef) and self._declared(value) is not None else None

    def _declared(self, value: Expression) -> Column | None:
        """The declaration of the column that a value is, if it is one that its table's scan guards: units are not."""
        if not isinstance(value, ColumnRef):
            return None
        source = next(one for one in self.release.relation.sources if one.alias == value.scan)
        if not isinstance(source, Scan) or value.column in source.unit:
            return None
        return next(one for one in source.columns if one.name == value.column)

    def source_rows(self) -> str:
        """FROM and WHERE of the rows that are summed per unit."""
        return self.sources.rows(self._shape.first, self._shape.joins, self._shape.where)

    def _fixed_point(self, statistic: Statistic, value: Expression) -> str:
        """``round((x - c) / g)``, clipped to what one row may add; NULL stays NULL."""
        text = self.sources.write(value)
        most = statistic.most
        if statistic.granularity == 1 and statistic.center.denominator == 1 and self.is_integer(value):
            shifted = f"({text} - {self.dialect.number('integer', statistic.center)})" if statistic.center else text
            return f"CAST({self.clipped(shifted, str(most), f'(-{most})')} AS {self.dialect.whole(most)})"
        if self._is_clipped_by_guard(statistic, value):
            return f"CAST({self.rounded(statistic, text)} AS {self.dialect.whole(most)})"
        rounded = self.rounded(statistic, text)
        return f"CAST({self.clipped(rounded, str(most), f'(-{most})')} AS {self.dialect.whole(most)})"

    def rounded(self, statistic: Statistic, text: str) -> str:
        """``round((x - c) / g)``."""
        number = f"CAST({text} AS {self.dialect.double})"
        centered = f"({number} - {self.dialect.number('decimal', statistic.center)})" if statistic.center else number
        return f"FLOOR({self.dialect.scaled_by(centered, statistic.granularity)} + 0.5)"

    def _is_clipped_by_guard(self, statistic: Statistic, value: Expression) -> bool:
        """Whether the guard that reads the column has clipped already: its bounds are on the grid and within linf."""
        column = self._declared(value)
        if column is None:
            return False
        most = statistic.most
        ends = (column.minimum, column.maximum)
        if not all(isinstance(end, Fraction) for end in ends):
            return False
        steps = [(Fraction(end) - statistic.center) / statistic.granularity for end in ends]  # type: ignore[arg-type]
        return all(step.denominator == 1 and abs(step) <= most for step in steps)

    def clipped(self, text: str, high: str, low: str) -> str:
        """A number within bounds; NULL stays NULL."""
        return f"CASE WHEN {text} > {high} THEN {high} WHEN {text} < {low} THEN {low} ELSE {text} END"

    def is_integer(self, value: Expression) -> bool:
        """Whether a value expression is whole."""
        return self.release.value_types[self.release.values.index(value)] == "integer"

    # -- units to groups ---------------------------------------------------------------------------------------------

    def parts(self) -> list[str]:
        """The stages of what is joined to units."""
        return [f"insitu_part_{i} AS (\n{self._part(part)}\n)" for i, part in enumerate(self._shape.parts)]

    def joined_parts(self, source: str) -> str:
        """The joins of those stages to ``source``."""
        return "".join(
            f"\nJOIN insitu_part_{i} ON {self._on_unit(source, f'insitu_part_{i}')}"
            for i in range(len(self._shape.parts))
        )

    def _part(self, part: UnitPart) -> str:
        """One row per unit, whatever the data: each key is the least of the unit's."""
        units = [f"{self.sources.write(ColumnRef(part.scan.alias, name))}" for name in part.scan.unit]
        columns = [f"{text} AS {name}" for text, name in zip(units, self.units, strict=True)]
        columns += [f"{self._least(key)} AS {key.name}" for key in part.keys]
        rows = self.sources.rows(part.scan, (), part.where)
        return f"SELECT {', '.join(columns)}\n{rows}\nGROUP BY {', '.join(units)}"

    def _least(self, key: KeyColumn) -> str:
        return self.dialect.least_of(key.type, self._key(key))

    def _on_unit(self, a: str, b: str) -> str:
        return " AND ".join(f"{a}.{name} = {b}.{name}" for name in self.units)

    def needs_cap(self) -> bool:
        """Whether a unit may be in more groups than are kept."""
        most = cell_count([key for key in self._shape.keys if not key.constant])
        return most is None or most > self.release.bounds.max_groups

    def capped(self, place: str) -> list[str]:
        """The stages that choose the C groups of each unit with the smallest keyed hash: a choice that depends on this
        unit alone. ``place`` numbers a unit's groups.

        Only units with more rows than C are ranked: no other is in more groups.
        """
        most, units = self.release.bounds.max_groups, ", ".join(self.units)
        known = " AND ".join(text for key in self._shape.keys if (text := self._in_domain(key)))
        over = f"SELECT {units} FROM insitu_rows{f' WHERE {known}' if known else ''} GROUP BY {units}"
        ranked = f"{place} OVER (PARTITION BY {units} ORDER BY {self._hash()}, {', '.join(self.varying)})"
        exceeds = f"EXISTS (SELECT 1 FROM insitu_over WHERE {self._on_unit('insitu_over', 'insitu_rows')})"
        inside = f"FROM insitu_rows WHERE {known} AND" if known else "FROM insitu_rows WHERE"
        return [
            f"insitu_over AS (\n{over} HAVING COUNT(*) > {most}\n)",
            f"insitu_capped AS (\nSELECT insitu_rows.*, 1 AS place {inside} NOT {exceeds}\nUNION ALL\n"
            f"SELECT * FROM (SELECT insitu_rows.*, {ranked} AS place {inside} {exceeds}) AS ranked\n"
            f"WHERE place <= {most}\n)",
        ]

    def _hash(self) -> str:
        """The keyed hash of a unit's group."""
        # -0.0 and 0.0 are one group: which of the two stands for it may be another person's row
        one = {
            key.name: f"({key.name} + 0.0)" if key.type == "decimal" else self._text_of(key) for key in self._shape.keys
        }
        parts = [self.dialect.as_text(one.get(name, name)) for name in [*self.units, *self.varying]]
        return self.dialect.hashed(" || '|' || ".join([self.dialect.text(self._cap_key), *parts]))

    def _in_domain(self, key: KeyColumn) -> str:
        """Groups outside a public domain are never released, so they may not take the place of one that is."""
        if key.constant or key.domain is None:
            return ""
        if self._is_coded(key):
            return "" if None in key.domain else f"{key.name} IS NOT NULL"
        listed = ", ".join(self.dialect.literal(key.type, value) for value in key.domain if value is not None)
        inside = f"{key.name} IN ({listed})" if listed else "FALSE"
        return f"({inside} OR {key.name} IS NULL)" if None in key.domain else inside

    def _summed(self, statistic: Statistic) -> str:
        index, value = self.release.statistics.index(statistic), statistic.value
        most = self.release.bounds.max_rows_per_group
        if value is None:
            one = f"LEAST(n, {most})" if statistic.kind == "rows" else "1"
        elif statistic.kind == "rows":
            one = f"LEAST(c{value}, {most})"
        elif statistic.kind == "entities":
            one = f"LEAST(d{value}, {most})"
        elif statistic.kind == "units":
            one = f"CASE WHEN c{value} > 0 THEN 1 ELSE 0 END"
        else:
            total, count = f"s_{index}", f"c{value}"
            scaled = self.dialect.scaled(total, count, most, reach=statistic.most)
            one = f"CASE WHEN {count} > {most} THEN {scaled} ELSE CAST({total} AS {self.dialect.bigint}) END"
            if statistic.linf < most * statistic.most:
                one = f"LEAST(GREATEST(COALESCE({one}, 0), (-{statistic.linf})), {statistic.linf})"
        return f"COALESCE(SUM({one}), 0)"
