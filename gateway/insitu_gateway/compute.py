"""Threads that plan, merge and post-process, so that the event loop never waits for any of it.

Plans are kept for a while, for researchers ask the same query again and again with other parameters of the request.
``warm`` does once, before anybody asks, what is slow the first time: imports, and DuckDB's first query. What goes
wrong here costs the result and never the request: researchers compute the result from the outcomes by themselves.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from insitu_access.request import QueryRequest
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.errors import AccessRefused
from insitu_privacy.plan import PrivacyPlan, QueryParameters, ReleasedValues, Scope

from insitu_gateway.results import Answer, build_result

if TYPE_CHECKING:
    from insitu_privacy.postprocess import Postprocessor

T = TypeVar("T")
_PLANS_KEPT = 256


class Compute:
    """A few threads, each with a post-processor of its own."""

    def __init__(self, workers: int, memory_limit_mb: int, timeout_s: float) -> None:
        self._memory = memory_limit_mb
        self._timeout = timeout_s
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="compute")
        self._own = threading.local()
        self._made: list[Postprocessor] = []
        self._plan = lru_cache(maxsize=_PLANS_KEPT)(_plan)

    async def plan(self, request: QueryRequest, dataset: Dataset, scope: Scope) -> PrivacyPlan:
        """The gateway's own plan. Raises Refused where there is none, or it is not the one that was signed."""
        wanted = (request.sql, request.dialect, request.parameters)
        plan = await self.run(lambda: self._plan(*wanted, _Planned(dataset, scope)))
        if plan.digest != request.plan_digest:
            raise AccessRefused("INSITU-ACCESS-PLAN")
        return plan

    async def result(self, request: QueryRequest, plan: PrivacyPlan, answers: Sequence[Answer]) -> bytes:
        """The result JSON."""
        return await self.run(lambda: build_result(request, plan, answers, self._postprocessor()))

    async def run(self, act: Callable[[], T]) -> T:
        """Run ``act`` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    async def warm(self) -> None:
        """Do now what is slow the first time."""
        await self.run(lambda: _rehearse(self._postprocessor()))
        # the garbage collector need not walk all that was imported again and again: each time nobody is served
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """End the threads; does not wait for what is still being computed."""
        gc.unfreeze()  # else what is never walked is never freed either, and native modules complain
        self._threads.shutdown(wait=False, cancel_futures=True)
        for postprocessor in self._made:
            postprocessor.close()

    def _postprocessor(self) -> Postprocessor:
        from insitu_privacy.postprocess import Postprocessor  # duckdb, numpy and pyarrow: not needed to connect

        if not hasattr(self._own, "postprocessor"):
            self._own.postprocessor = Postprocessor(self._memory, self._timeout)
            self._made.append(self._own.postprocessor)
        found: Postprocessor = self._own.postprocessor
        return found


class _Planned:
    """Dataset and scope as a cache key: by digest and by content."""

    def __init__(self, dataset: Dataset, scope: Scope) -> None:
        self.dataset, self.scope = dataset, scope
        tables = None if scope.tables is None else tuple(sorted((k, _sorted(v)) for k, v in scope.tables.items()))
        self._key = (dataset.digest, scope.accounting, tables)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Planned) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _sorted(columns: frozenset[str] | None) -> tuple[bool, tuple[str, ...]]:
    return columns is None, tuple(sorted(columns or ()))


def _plan(sql: str, dialect: str, parameters: QueryParameters, planned: _Planned) -> PrivacyPlan:
    from insitu_privacy.planner import plan_query  # sqlglot

    return plan_query(sql, dialect=dialect, dataset=planned.dataset, parameters=parameters, scope=planned.scope)


def _rehearse(postprocessor: Postprocessor) -> None:
    """Plan and answer one query over a dataset of its own."""
    from insitu_privacy.dataset_file import parse_dataset
    from insitu_privacy.merge import merge

    toml = b"""
    [dataset]
    name = "rehearsal"
    version = 1
    title = "Rehearsal"
    [tables.person]
    unit = "id"
    one_row_per_unit = true
    [tables.person.columns]
    id = { type = "integer" }
    sex = { type = "text", values = ["F", "M"] }
    """
    dataset = parse_dataset(DatasetBundle(toml=toml, files={}))
    parameters = QueryParameters(epsilon=Fraction(1), delta=Fraction(1, 10**6))
    sql = "SELECT sex, count(*) AS n FROM person GROUP BY sex"
    plan = _plan(sql, "duckdb", parameters, _Planned(dataset, Scope(accounting="zcdp")))
    width = len(plan.releases[0].statistics)
    values = ReleasedValues(keys=None, statistics=((100, 100),) * width)
    postprocessor.run(plan, merge(plan, [[values]]))
