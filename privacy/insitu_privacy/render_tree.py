"""The statement of a tree of counts: rows of each group and leaf, where a unit's leaves add up to what may be counted.

As ``render``'s statement, with one more column, ``leaf``; what differs is stage by stage:

1. ``insitu_leaves``: rows with a value are counted per unit, varying keys and leaf;
2. ``insitu_rows``: beside each such count, n, the unit's rows in the group. A constant key is read as its least value
   over all of them, so that a unit's leaves stand in one group;
3. each counted row adds ``weight``; a unit with n > m rows has its leaves scaled by m / n, truncated, so that they add
   up to at most m * weight and a unit that is spread over many leaves is not lost;
4. the choice of at most C groups takes or leaves all leaves of a group.
"""

from __future__ import annotations

from insitu_privacy.render import Writer


class TreeWriter(Writer):
    """Writes the statement of a release that is a tree."""

    def statement(self) -> str:
        """WITH insitu_leaves, insitu_rows, [parts], [capped] SELECT keys, leaf, sum GROUP BY keys, leaf."""
        stages = [f"insitu_leaves AS (\n{self._leaves()}\n)", f"insitu_rows AS (\n{self._groups()}\n)"]
        stages += self.parts()
        source = "insitu_rows"
        if self.needs_cap():
            stages += self.capped("DENSE_RANK()")
            source = "insitu_capped"
        columns = ", ".join([*self.released_keys(), "leaf"])
        group = ", ".join([*(key.name for key in self.release.keys), "leaf"])
        return (
            f"WITH {', '.join(stages)}\nSELECT {columns}, COALESCE(SUM({self._weighted()}), 0) AS s0"
            f"\nFROM {source}{self.joined_parts(source)}\nGROUP BY {group}"
        )

    def _leaves(self) -> str:
        columns = [
            *self.units,
            *self.varying,
            "leaf",
            *(f"{self.dialect.least_of(key.type, key.name)} AS {key.name}" for key in self.constant),
            "COUNT(*) AS n_leaf",
        ]
        group = ", ".join([*self.units, *self.varying, "leaf"])
        rows = f"SELECT {', '.join([*self.key_columns(), self._leaf()])}\n{self.source_rows()}{self.dialect.fence}"
        return (
            f"SELECT {', '.join(columns)}\nFROM (\n{rows}\n) AS bounded_rows\nWHERE leaf IS NOT NULL\nGROUP BY {group}"
        )

    def _leaf(self) -> str:
        (statistic,), (value,) = self.release.statistics, self.release.values
        assert self.release.tree is not None
        text = self.sources.write(value)
        if statistic.granularity == 1 and self.is_integer(value):
            place = f"({text} - {self.dialect.number('integer', statistic.center)})" if statistic.center else text
        else:
            place = self.rounded(statistic, text)
        return f"CAST({self.clipped(place, str(self.release.tree.leaves - 1), '0')} AS INTEGER) AS leaf"

    def _groups(self) -> str:
        group = f"OVER (PARTITION BY {', '.join([*self.units, *self.varying])})"
        columns = [
            *self.units,
            *self.varying,
            "leaf",
            *(f"{self.dialect.least_of(key.type, key.name)} {group} AS {key.name}" for key in self.constant),
            "n_leaf",
            f"SUM(n_leaf) {group} AS n",
        ]
        return f"SELECT {', '.join(columns)}\nFROM insitu_leaves"

    def _weighted(self) -> str:
        assert self.release.tree is not None
        most, weight = self.release.bounds.max_rows_per_group, self.release.tree.weight
        scaled = self.dialect.scaled("n_leaf", "n", most * weight, reach=1)
        return f"CASE WHEN n > {most} THEN {scaled} ELSE n_leaf * {weight} END"
