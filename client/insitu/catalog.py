"""The catalog: what a grant lets a researcher ask about, with the public facts that planning uses.

Only granted tables and columns are listed. Everything here is the dataset's declaration, and nothing comes from data;
of profiles, which do, it says that they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from insitu_privacy.dataset import Bound, Column, Dataset, Scalar, Table
from insitu_privacy.errors import AccessRefused, ParameterRefused
from insitu_privacy.rules import Rules

if TYPE_CHECKING:
    from insitu_access.data_profile import NodeProfile
    from insitu_access.grant import Grant
    from insitu_access.manifest import DatasetEntry, Manifest

VALUES_SHOWN = 100
"""A finite domain with more values is given by their number alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedDataset:
    """A dataset, and what of it is granted: None for all tables, or for all columns of a table."""

    dataset: Dataset
    tables: Mapping[str, frozenset[str] | None] | None
    profiles: Mapping[str, NodeProfile]
    """By node of the grant; nodes without one are not in it."""

    def granted(self) -> list[tuple[Table, list[Column]]]:
        """The granted tables, each with its granted columns."""
        names = self.dataset.tables if self.tables is None else self.tables
        found = []
        for name in sorted(names):
            table = self.dataset.tables.get(name)
            if table is None:
                continue
            allowed = None if self.tables is None else self.tables[name]
            found.append((table, [one for one in table.columns.values() if allowed is None or one.name in allowed]))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What may be asked, of whom, for how much."""

    federation: str
    manifest_version: int
    grant: Grant
    organisations: Mapping[str, tuple[str, str]]
    """By node: organisation and jurisdiction."""
    datasets: tuple[GrantedDataset, ...]

    def to_json(self) -> dict[str, Any]:
        """The JSON document of the `catalog` command."""
        return {
            "federation": self.federation,
            "manifest_version": self.manifest_version,
            "grant": _grant(self.grant),
            "nodes": [
                {"id": node, "organisation": organisation, "jurisdiction": jurisdiction}
                for node, (organisation, jurisdiction) in self.organisations.items()
            ],
            "datasets": [_dataset(one) for one in self.datasets],
        }

    def __str__(self) -> str:
        from insitu.output_facts import catalog_text

        return catalog_text(self)

    def __repr__(self) -> str:
        """What a notebook shows: the text, rather than the fields."""
        return str(self)


def catalog_of(
    grant: Grant,
    manifest: Manifest,
    open_dataset: Callable[[DatasetEntry], Dataset],
    only: str | None = None,
    *,
    profiles: Callable[[DatasetEntry], Mapping[str, NodeProfile]],
) -> Catalog:
    """The catalog of a grant, or of one of its datasets."""
    known = [granted.name for granted in grant.datasets]
    if only is not None and only not in known:
        reason = f"the grant covers no dataset {only}"
        raise ParameterRefused("INSITU-PARAM-DATASET", reason=reason, known=", ".join(known))
    datasets = []
    for granted in grant.datasets:
        if only not in (None, granted.name):
            continue
        entry = manifest.dataset(granted.name)
        if entry is None:
            raise AccessRefused("INSITU-ACCESS-MANIFEST", reason=f"it has no dataset {granted.name}")
        opened = open_dataset(entry)
        datasets.append(GrantedDataset(dataset=opened, tables=granted.tables, profiles=profiles(entry)))
    listed = {node.id: (node.organisation, node.jurisdiction) for node in manifest.nodes}
    return Catalog(
        federation=manifest.federation,
        manifest_version=manifest.version,
        grant=grant,
        organisations={node: listed.get(node, ("", "")) for node in grant.nodes},
        datasets=tuple(datasets),
    )


def _grant(grant: Grant) -> dict[str, Any]:
    return {
        "id": grant.id,
        "project": grant.project,
        "purpose": grant.purpose,
        "reference": grant.reference,
        "not_before": grant.not_before.isoformat(),
        "expires_at": grant.expires_at.isoformat(),
        "epsilon": float(grant.epsilon),
        "delta": float(grant.delta),
        "accounting": grant.accounting,
    }


def _dataset(granted: GrantedDataset) -> dict[str, Any]:
    dataset = granted.dataset
    return {
        "name": dataset.name,
        "version": dataset.version,
        "title": dataset.title,
        "digest": dataset.digest,
        "nodes_per_unit": dataset.nodes_per_unit,
        "min_units": dataset.min_units,
        "rules": _rules(dataset.rules),
        "profiles": [_profile(one) for one in granted.profiles.values()],
        "tables": [_table(table, columns) for table, columns in granted.granted()],
    }


def _profile(made: NodeProfile) -> dict[str, Any]:
    return {
        "node": made.node,
        "serial": made.serial,
        "issued_at": made.issued_at.isoformat(),
        "epsilon": float(made.epsilon),
    }


def _rules(rules: Rules) -> dict[str, Any]:
    return {
        "at_most_identifiers": rules.at_most_identifiers if rules.identifiers else None,
        "identifiers": [
            {
                "name": one.name.english,
                "together": [sorted(".".join(name) for name in part) for part in one.parts],
                "finer_than": one.finer_than,
            }
            for one in rules.identifiers
        ],
        "never_released": sorted(".".join(name) for name in rules.never_released),
        "purposes": list(rules.purposes),
    }


def _table(table: Table, columns: list[Column]) -> dict[str, Any]:
    bounds = table.bounds
    path = table.unit_path
    return {
        "name": table.name,
        "public": table.public,
        "unit": list(table.unit),
        "unit_path": None if path is None else {"through": path.through, "on": list(path.on)},
        "entity_keys": [list(key) for key in table.entity_keys],
        "key": list(table.key),
        "one_row_per_unit": table.one_row_per_unit,
        "max_rows_per_group": None if bounds is None else bounds.max_rows_per_group,
        "max_groups": None if bounds is None else bounds.max_groups,
        "columns": [_column(column) for column in columns],
    }


def _column(column: Column) -> dict[str, Any]:
    values = column.values
    short = values is not None and len(values) <= VALUES_SHOWN
    return {
        "name": column.name,
        "type": column.type,
        "nullable": column.nullable,
        "values": [scalar(value) for value in values] if values is not None and short else None,
        "values_count": None if values is None else len(values),
        "min": None if column.minimum is None else scalar(column.minimum),
        "max": None if column.maximum is None else scalar(column.maximum),
        "constant_per_unit": column.constant_per_unit,
        "references": ", ".join(map(".".join, column.references)) or None,
    }


def scalar(value: Scalar | Bound) -> int | float | str | bool:
    """A public value as a JSON scalar."""
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    return value
