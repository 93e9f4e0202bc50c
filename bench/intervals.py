"""Whether intervals hold what they say: each acceptance question at ε = 1, its noise drawn anew in every run.

The questions stand in ``../shared`` and are not part of the product: without them this part is left out. Three sites,
statistics computed once; ``held`` has what is compared with what.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from insitu_privacy.errors import InsituError
from insitu_privacy.plan import PrivacyPlan, QueryParameters, Scope
from insitu_privacy.planner import plan_query
from insitu_privacy.postprocess import Postprocessor

from bench.held import Cells, Held, held
from bench.sites import omop_sites

QUESTIONS = Path(__file__).parents[2] / "shared" / "queries" / "acceptance.jsonl"
_PROCESSES = 2
_PARAMETERS = QueryParameters(
    epsilon=Fraction(1), delta=Fraction(1, 10**7), max_rows_per_group=200, max_groups=40
)  # bounds that bind nobody, as in the acceptance tests


def available() -> bool:
    """Whether the questions are there."""
    return QUESTIONS.exists()


def measure(runs: int, only: Sequence[str] = (), told: Callable[[str], None] = lambda _: None) -> list[Held]:
    """All noisy columns of all questions, or of those named."""
    found: list[Held] = []
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(_one, name, plan, exact, runs) for name, plan, exact in _planned(only)]
        for task in tasks:
            found += task.result()
            told(", ".join(dict.fromkeys(one.query for one in found)))
    return found


def _one(name: str, plan: PrivacyPlan, exact: Cells, runs: int) -> list[Held]:
    with Postprocessor(timeout_s=60) as post:
        return held(name, plan, exact, post, runs)


def _planned(only: Sequence[str]) -> Iterator[tuple[str, PrivacyPlan, Cells]]:
    with tempfile.TemporaryDirectory() as folder, omop_sites(Path(folder)) as sites:
        for line in QUESTIONS.read_text(encoding="utf-8").splitlines():
            question: dict[str, Any] = json.loads(line)
            if only and question["id"] not in only:
                continue
            try:
                plan = plan_query(
                    question["sql"],
                    dialect=question["dialect"],
                    dataset=sites.dataset,
                    parameters=_PARAMETERS,
                    scope=Scope(accounting="pure"),
                )
            except InsituError:  # counted by the part that is about what is planned
                continue
            yield question["id"], plan, sites.exact(plan)


def as_json(found: Sequence[Held]) -> dict[str, object]:
    """``intervals`` of results.json: by query and column."""
    return {
        query: {
            one.column: {
                "coverage": one.share,
                "runs": one.runs,
                "cells": one.cells,
                "without_interval": one.cells - one.bounded,
                "below": one.below,
                "above": one.above,
                "verdict": one.verdict or "as said",
            }
            for one in found
            if one.query == query
        }
        for query in dict.fromkeys(one.query for one in found)
    }
