"""The async twin of ``client``: the same federation, each call in a worker thread.

    from insitu import aio

    async with await aio.connect() as fed:
        result = await fed.query("SELECT COUNT(*) AS n FROM person", epsilon=0.5)

A call that is cancelled is not waited for any more; what its nodes were asked goes on, and the same query again gets
the same releases and is charged once. ``progress`` is called from the worker thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from insitu import client
from insitu.budget import Budget
from insitu.catalog import Catalog
from insitu.explain import Explanation
from insitu.planning import Number
from insitu.progress import Progress, silent
from insitu.result import Result

if TYPE_CHECKING:
    from insitu_access.data_profile import NodeProfile


class Parameters(TypedDict, total=False):
    """The parameters of a query, as ``client.Federation.query`` has them."""

    epsilon: Number | None
    accuracy: str | None
    delta: Number | None
    dataset: str | None
    mechanism: str
    max_rows_per_group: int | None
    max_groups: int | None
    nodes: Sequence[str] | None
    min_nodes: int | None
    timeout: float
    dialect: str
    improve: Sequence[str]
    first_look: bool


async def connect(profile: str | Path | None = None) -> Federation:
    """The federation of a profile folder; None for the default profile."""
    return Federation(await asyncio.to_thread(client.connect, profile))


class Federation:
    """A connection to one federation, with one grant. Close it, or use it in an ``async with`` block."""

    def __init__(self, federation: client.Federation) -> None:
        self._federation = federation

    async def __aenter__(self) -> Federation:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; the profile stays."""
        await asyncio.to_thread(self._federation.close)

    async def catalog(self, dataset: str | None = None) -> Catalog:
        """What the grant lets this researcher ask about."""
        return await asyncio.to_thread(self._federation.catalog, dataset)

    async def profiles(self, dataset: str | None = None) -> Mapping[str, NodeProfile]:
        """By node of the grant, the profile that it has released of a dataset. Spends nothing."""
        return await asyncio.to_thread(self._federation.profiles, dataset)

    async def explain(self, sql: str, **parameters: Unpack[Parameters]) -> Explanation:
        """What the query would release, how accurate it would be and what it would cost. Spends nothing."""
        return await asyncio.to_thread(lambda: self._federation.explain(sql, **parameters))

    async def query(self, sql: str, *, progress: Progress = silent, **parameters: Unpack[Parameters]) -> Result:
        """Ask the nodes. Every release is verified before anything is returned; raises InsituError."""
        return await asyncio.to_thread(lambda: self._federation.query(sql, progress=progress, **parameters))

    async def budget(self, *, nodes: Sequence[str] | None = None, timeout: float = 60.0) -> Budget:  # noqa: ASYNC109
        """What each node says is spent and left of the grant."""
        return await asyncio.to_thread(lambda: self._federation.budget(nodes=nodes, timeout=timeout))
