"""Plan to SQL: one bounded statement for a node's database.

The statement returns one row per existing group: its keys, then one integer per statistic, such that removing one
privacy unit from all tables changes each integer by at most the statistic's ``linf``, in at most ``max_groups`` rows.
That holds whatever the data is, duplicated units, NULLs and NaN included; it never rests on data being as declared:

1. columns are read through guards (``dialects``), rows without a unit are dropped;
2. ``unit_rows``: values are clipped to integers |v| <= linf / m and summed per unit and varying keys. A key declared
   constant per unit is read as its least value there, so that a unit has one by construction;
3. a unit with n > m rows in a group counts m and its sums are scaled by m / n, truncated;
4. a unit in more than ``max_groups`` groups keeps those with the smallest keyed hash. Left out where keys are constant
   or where no more groups exist;
5. groups are summed exactly.

DESIGN.md section 4, Contribution bounding, has the rules; ``docs/privacy.md`` the argument.
"""

from __future__ import annotations

from collections.abc import Mapping

from insitu_privacy.dialects import DIALECTS, Dialect
from insitu_privacy.expressions import Call, ColumnRef, Expression, Op, columns_of, walk
from insitu_privacy.plan import KeyColumn, Release, Statistic
from insitu_privacy.relations import Scan
from insitu_privacy.shape import Shape, UnitPart, shape


def render(release: Release, *, dialect: str, tables: Mapping[str, str], cap_key: str) -> str:
    """The statement of a release in a dialect ("duckdb" or "postgres").

    ``tables`` maps dataset tables to the site's own: a table or view name, or a SELECT. ``cap_key`` is the node's
    secret for choosing groups; it does not change what is guaranteed.
    """
    return _Writer(release, DIALECTS[dialect], tables, cap_key).statement()


class _Writer:
    def __init__(self, release: Release, dialect: Dialect, tables: Mapping[str, str], cap_key: str) -> None:
        self._release = release
        self._dialect = dialect
        self._tables = tables
        self._cap_key = cap_key
        self._shape: Shape = shape(release)
        self._units = [f"u{index}" for index in range(len(self._shape.unit))]

    def statement(self) -> str:
        """WITH unit_rows, [parts], [capped] SELECT keys, sums GROUP BY keys."""
        stages = [f"unit_rows AS (\n{self._unit_rows()}\n)"]
        stages += [f"part_{i} AS (\n{self._part(part)}\n)" for i, part in enumerate(self._shape.parts)]
        source = "unit_rows"
        if self._needs_cap():
            stages.append(f"capped AS (\n{self._capped()}\n)")
            source = "capped"
        keys = [key.name for key in self._release.keys]
        columns = [*keys, *(f"{self._summed(s)} AS s{i}" for i, s in enumerate(self._release.statistics))]
        joins = "".join(
            f"\nJOIN part_{i} ON {self._on_unit(source, f'part_{i}')}" for i in range(len(self._shape.parts))
        )
        group = f"\nGROUP BY {', '.join(keys)}" if keys else ""
        return f"WITH {', '.join(stages)}\nSELECT {', '.join(columns)}\nFROM {source}{joins}{group}"

    # -- rows to units -----------------------------------------------------------------------------------------------

    def _unit_rows(self) -> str:
        varying = [key.name for key in self._shape.keys if not key.constant]
        constant = [key for key in self._shape.keys if key.constant]
        columns = [
            *self._units,
            *varying,
            *(f"{self._dialect.least_of(key.type, key.name)} AS {key.name}" for key in constant),
            *self._sums(),
        ]
        group = ", ".join([*self._units, *varying])
        return f"SELECT {', '.join(columns)}\nFROM (\n{self._rows()}\n) AS bounded_rows\nGROUP BY {group}"

    def _sums(self) -> list[str]:
        """Per unit and group: n rows, c<i> rows with value i, s<i> the sum of statistic i."""
        found: dict[str, str] = {}
        for index, statistic in enumerate(self._release.statistics):
            if statistic.value is None:
                if statistic.kind == "rows":
                    found["n"] = "COUNT(*) AS n"
                continue
            counted = f"v{index}" if statistic.kind == "sum" else f"x{statistic.value}"
            found[f"c_{counted}"] = f"COUNT({counted}) AS c_{counted}"
            if statistic.kind == "sum":
                found[f"s_{index}"] = f"SUM(v{index}) AS s_{index}"
        return list(found.values())

    def _rows(self) -> str:
        layout = self._shape
        columns = [f"{self._dialect.write(ref)} AS {name}" for ref, name in zip(layout.unit, self._units, strict=True)]
        columns += [f"{self._dialect.write(key.expression)} AS {key.name}" for key in layout.keys]
        for index, statistic in enumerate(self._release.statistics):
            if statistic.value is None:
                continue
            value = self._release.values[statistic.value]
            if statistic.kind == "sum":
                columns.append(f"{self._fixed_point(statistic, value)} AS v{index}")
            else:
                text = f"{self._dialect.write(value)} AS x{statistic.value}"
                columns += [] if text in columns else [text]
        source = f"FROM {self._scan(layout.first)}"
        for join in layout.joins:
            if join.kind == "left":
                source += f"\nLEFT JOIN {self._scan(join.scan)} ON {self._all(join.on)}"
            else:
                source += f"\nCROSS JOIN {self._scan(join.scan)}"
        return f"SELECT {', '.join(columns)}\n{source}{self._where(layout.where)}"

    def _where(self, terms: tuple[Expression, ...]) -> str:
        return f"\nWHERE {self._all(terms)}" if terms else ""

    def _all(self, terms: tuple[Expression, ...]) -> str:
        return " AND ".join(self._dialect.write(term) for term in terms) or "TRUE"

    def _fixed_point(self, statistic: Statistic, value: Expression) -> str:
        """``round((x - c) / g)``, clipped to what one row may add; NULL stays NULL."""
        text = self._dialect.write(value)
        most = statistic.linf // self._release.bounds.max_rows_per_group
        if statistic.granularity == 1 and statistic.center.denominator == 1 and self._is_integer(value):
            shifted = f"({text} - {self._dialect.number('integer', statistic.center)})" if statistic.center else text
            return self._clipped(shifted, str(most), f"(-{most})")
        centered = f"({text} - {self._dialect.number('decimal', statistic.center)})" if statistic.center else text
        scaled = (
            f"{centered} * {1 / statistic.granularity}"
            if statistic.granularity <= 1
            else f"{centered} / {statistic.granularity}"
        )
        rounded = f"FLOOR(CAST({scaled} AS {self._dialect.double}) + 0.5)"
        return f"CAST({self._clipped(rounded, str(most), f'(-{most})')} AS {self._dialect.bigint})"

    def _clipped(self, text: str, high: str, low: str) -> str:
        return f"CASE WHEN {text} > {high} THEN {high} WHEN {text} < {low} THEN {low} ELSE {text} END"

    def _is_integer(self, value: Expression) -> bool:
        return self._release.value_types[self._release.values.index(value)] == "integer"

    # -- scans -------------------------------------------------------------------------------------------------------

    def _scan(self, scan: Scan) -> str:
        quote = self._dialect.identifier
        raw = self._raw_columns(scan)
        columns = []
        for column in scan.columns:
            place = f"src.{quote(column.name)}" if not column.name.startswith("_unit_") else quote(column.name)
            text = place if column.name in raw else self._dialect.guard(column, place)
            columns.append(f"{text} AS {quote(column.name)}")
        present = " AND ".join(
            f"{quote(name) if name.startswith('_unit_') else 'src.' + quote(name)} IS NOT NULL" for name in scan.unit
        )
        where = f" WHERE {present}" if scan.unit else ""
        return f"(SELECT {', '.join(columns)} FROM {self._source(scan)}{where}) AS {quote(scan.alias)}"

    def _raw_columns(self, scan: Scan) -> set[str]:
        """Unit columns are read as they are unless an operation other than a comparison uses them."""
        worked = {
            column
            for expression in self._expressions()
            for node in walk(expression)
            if isinstance(node, Call) and node.op not in (Op.EQ, Op.IN, Op.IS_NULL, Op.AND, Op.OR, Op.NOT)
            for column in columns_of(node)
        }
        return {name for name in scan.unit if ColumnRef(scan.alias, name) not in worked}

    def _expressions(self) -> list[Expression]:
        relation = self._release.relation
        joined = [term for join in relation.joins for term in join.on]
        keys = [key.expression for key in self._release.keys]
        return [*relation.where, *joined, *keys, *self._release.values]

    def _source(self, scan: Scan) -> str:
        if not scan.unit_path:
            return f"{self._table(scan.table)} AS src"
        return f"{self._table(scan.table)} AS src JOIN {self._owners(scan)}"

    def _owners(self, scan: Scan) -> str:
        """Which units own an entity: distinct, so that a duplicated owner row does not multiply lines."""
        quote = self._dialect.identifier
        steps = scan.unit_path
        entity = ", ".join(f"t0.{quote(name)}" for name in steps[0].path.on)
        source = f"{self._table(steps[0].path.through)} AS t0"
        for index, step in enumerate(steps[1:], 1):
            on = " AND ".join(f"t{index - 1}.{quote(name)} = t{index}.{quote(name)}" for name in step.path.on)
            source += f" JOIN {self._table(step.path.through)} AS t{index} ON {on}"
        last = len(steps) - 1
        unit = ", ".join(f"t{last}.{quote(name)} AS {quote(f'_unit_{i}')}" for i, name in enumerate(steps[-1].unit))
        on = " AND ".join(f"src.{quote(name)} = owner.{quote(name)}" for name in steps[0].path.on)
        return f"(SELECT DISTINCT {entity}, {unit} FROM {source}) AS owner ON {on}"

    def _table(self, name: str) -> str:
        text = self._tables[name].strip().rstrip(";")
        return f"({text})" if text.upper().startswith(("SELECT", "WITH", "VALUES")) else text

    # -- units to groups ---------------------------------------------------------------------------------------------

    def _part(self, part: UnitPart) -> str:
        """One row per unit, whatever the data: each key is the least of the unit's."""
        units = [f"{self._dialect.write(ColumnRef(part.scan.alias, name))}" for name in part.scan.unit]
        columns = [f"{text} AS {name}" for text, name in zip(units, self._units, strict=True)]
        columns += [f"{self._least(key)} AS {key.name}" for key in part.keys]
        return (
            f"SELECT {', '.join(columns)}\nFROM {self._scan(part.scan)}{self._where(part.where)}"
            f"\nGROUP BY {', '.join(units)}"
        )

    def _least(self, key: KeyColumn) -> str:
        return self._dialect.least_of(key.type, self._dialect.write(key.expression))

    def _on_unit(self, a: str, b: str) -> str:
        return " AND ".join(f"{a}.{name} = {b}.{name}" for name in self._units)

    def _needs_cap(self) -> bool:
        varying = [key for key in self._shape.keys if not key.constant]
        if not varying:
            return False
        most = 1
        for key in varying:
            if key.domain is None:
                return True
            most *= len(key.domain)
        return most > self._release.bounds.max_groups

    def _capped(self) -> str:
        """The C groups of each unit with the smallest keyed hash: a choice that depends on this unit alone."""
        varying = [key.name for key in self._shape.keys if not key.constant]
        parts = [self._dialect.text(self._cap_key), *(self._dialect.as_text(n) for n in [*self._units, *varying])]
        text = " || '|' || ".join(parts)
        order = f"MD5({text}), {', '.join(varying)}"
        units = ", ".join(self._units)
        ranked = f"SELECT *, ROW_NUMBER() OVER (PARTITION BY {units} ORDER BY {order}) AS place FROM unit_rows"
        known = " AND ".join(text for key in self._shape.keys if (text := self._in_domain(key)))
        ranked += f" WHERE {known}" if known else ""
        return f"SELECT * FROM ({ranked}) AS ranked WHERE place <= {self._release.bounds.max_groups}"

    def _in_domain(self, key: KeyColumn) -> str:
        """Groups outside a public domain are never released, so they may not take the place of one that is."""
        if key.constant or key.domain is None:
            return ""
        listed = ", ".join(self._dialect.literal(key.type, value) for value in key.domain if value is not None)
        inside = f"{key.name} IN ({listed})" if listed else "FALSE"
        return f"({inside} OR {key.name} IS NULL)" if None in key.domain else inside

    def _summed(self, statistic: Statistic) -> str:
        index = self._release.statistics.index(statistic)
        most = self._release.bounds.max_rows_per_group
        if statistic.value is None:
            one = f"LEAST(n, {most})" if statistic.kind == "rows" else "1"
        elif statistic.kind == "rows":
            one = f"LEAST(c_x{statistic.value}, {most})"
        elif statistic.kind == "units":
            one = f"CASE WHEN c_x{statistic.value} > 0 THEN 1 ELSE 0 END"
        else:
            scaled = self._dialect.scaled(f"s_{index}", f"c_v{index}", most)
            one = f"CASE WHEN c_v{index} > {most} THEN {scaled} ELSE s_{index} END"
        return f"COALESCE(SUM({one}), 0)"
