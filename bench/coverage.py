"""How much of real health SQL is planned: every query of the collection whose schema has a contract (``contracts``).

The collection stands in ``../shared`` and is not part of the product: without it this part is left out. A query counts
that a person's privacy allows (its ``dp_verdict``), and it is covered when it is planned. What is refused is counted by
code, so that each refusal is named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

from insitu_privacy.errors import InsituError
from insitu_privacy.plan import QueryParameters, Scope
from insitu_privacy.planner import plan_query

from bench import contracts

COLLECTION = Path(__file__).parents[2] / "shared" / "queries"
COUNTED = ("yes", "yes_minmax_as_quantile", "two_stage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One query of the collection: its refusal's code and text, None where it was planned."""

    id: str
    collection: str
    code: str | None
    text: str


def available() -> bool:
    """Whether the collection is there."""
    return (COLLECTION / "health.jsonl").exists()


def measure() -> list[Tried]:
    """Plans every query that counts."""
    schemas = json.loads((COLLECTION / "schemas.json").read_text(encoding="utf-8"))
    datasets = {name: contracts.dataset(name, schema) for name, schema in schemas.items()}
    return [_tried(query, datasets) for query in _queries() if query["schema"] in datasets]


def _queries() -> Iterator[dict[str, Any]]:
    for line in (COLLECTION / "health.jsonl").read_text(encoding="utf-8").splitlines():
        query: dict[str, Any] = json.loads(line)
        if query["dp_verdict"] in COUNTED:
            yield query


def _tried(query: dict[str, Any], datasets: dict[str, Any]) -> Tried:
    parameters = QueryParameters(epsilon=Fraction(1), delta=Fraction(1, 10**6))
    code, text = None, ""
    try:
        plan_query(
            query["sql"],
            dialect=query["dialect"],
            dataset=datasets[query["schema"]],
            parameters=parameters,
            scope=Scope(accounting="zcdp"),
            today=date(2025, 1, 1),
        )
    except InsituError as error:
        code, text = error.code, error.text
    return Tried(id=query["id"], collection=query["collection"], code=code, text=text)


def as_json(tried: list[Tried]) -> dict[str, object]:
    """``coverage`` of results.json."""
    collections = sorted({one.collection for one in tried})
    return {
        "share": sum(one.code is None for one in tried) / len(tried),
        "queries": len(tried),
        "by_collection": {name: _share([one for one in tried if one.collection == name]) for name in collections},
        "refusals": dict(Counter(one.code for one in tried if one.code is not None).most_common()),
    }


def _share(tried: list[Tried]) -> dict[str, float]:
    return {"share": sum(one.code is None for one in tried) / len(tried), "queries": len(tried)}
