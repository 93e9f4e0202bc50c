"""A derived body, and what is known of its columns: whose rows they are, their facts, the entity keys among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from insitu_privacy.dataset import ContributionBounds
from insitu_privacy.expressions import ColumnRef, Expression
from insitu_privacy.facts import Facts
from insitu_privacy.passes.inputs import EntityKey, Input
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.relations import Body, Derived


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A body, and what is known of its columns."""

    body: Body
    columns: Mapping[str, Facts]
    """By name in the plan, in order."""
    sure: Mapping[str, Facts]
    """The same without what conditions add: a database may evaluate an outer condition before an inner one."""
    names: Mapping[str, str]
    """Names in the plan by names in the query."""
    width: int
    """How many columns the unit has; 0 for public ones."""
    unit: tuple[frozenset[str], ...]
    entities: Mapping[EntityKey, tuple[tuple[str, ...], ...]]
    bounds: ContributionBounds | None
    one_row_per_unit: bool
    tainted: frozenset[str]
    """Columns that were computed from identifying ones."""
    loose: int
    """How many public tables in it are joined on no equality."""

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Under which the body gives the unit."""
        return tuple(f"_unit_{index}" for index in range(self.width))

    def as_input(self, alias: str, name: str) -> Input:
        """The body as a source."""
        derived = Derived(
            alias=alias,
            body=self.body,
            public=not self.width,
            unit=self.unit_names,
            one_row_per_unit=self.one_row_per_unit,
        )
        constant = self.one_row_per_unit
        facts, sure = (
            {name: replace(known, constant=known.constant or constant) for name, known in columns.items()}
            | dict.fromkeys(self.unit_names, Facts(type="text", nullable=False, constant=True))
            for columns in (self.columns, self.sure)
        )
        unit = tuple(names | {own} for names, own in zip(self.unit, self.unit_names, strict=True))
        return Input(
            source=derived,
            facts=facts,
            sure=sure,
            unit=unit,
            entities=self.entities,
            bounds=ContributionBounds(max_rows_per_group=1, max_groups=1) if constant else self.bounds,
            names=self.names,
            name=name,
            tainted=self.tainted,
            loose=self.loose,
        )


def one_row_each(unit: tuple[frozenset[str], ...], columns: Mapping[str, Facts]) -> bool:
    """Whether distinct rows are one per unit: each column is the unit's, or the same on all of its rows."""
    own = frozenset().union(*unit)
    return bool(unit) and all(name in own or known.constant for name, known in columns.items())


def entities_of(
    tracked: Tracked, places: Mapping[Expression, list[str]]
) -> dict[EntityKey, tuple[tuple[str, ...], ...]]:
    found: dict[EntityKey, list[tuple[str, ...]]] = {}
    for item in tracked.inputs.values():
        for key, ways in item.entities.items():
            for way in ways:
                names = [places.get(ColumnRef(item.alias, name)) for name in way]
                if all(names):
                    found.setdefault(key, []).append(tuple(name[0] for name in names if name))
    return {key: tuple(ways) for key, ways in found.items()}


def bounds_of(tracked: Tracked) -> ContributionBounds | None:
    """The largest default bounds of the protected sources; None where one declares none."""
    every = [item.bounds for item in tracked.inputs.values() if item.unit]
    declared = [bounds for bounds in every if bounds is not None]
    if not declared or len(declared) < len(every):
        return None
    return ContributionBounds(
        max_rows_per_group=max(bounds.max_rows_per_group for bounds in declared),
        max_groups=max(bounds.max_groups for bounds in declared),
    )


def unit_places(tracked: Tracked, places: Mapping[Expression, list[str]]) -> tuple[frozenset[str], ...]:
    items = [i for i in tracked.inputs.values() if i.unit and i.alias not in tracked.relation.outer]
    return tuple(
        frozenset(own for i in items for name in i.unit[index] for own in places.get(ColumnRef(i.alias, name), ()))
        for index in range(len(tracked.relation.unit))
    )
