"""Perturbed copies of a whole answer's relations, for intervals of SQL over whole releases (``postprocess``)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from insitu_privacy.bootstrap import WHOLE_COPIES, Copies, number_of_whole
from insitu_privacy.improve import Improving
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.released import Released

COPIED_ROWS = 1_000_000
"""Rows of an answer's copies at once. Where they are more, the answer has no intervals."""


class Copied:
    """Perturbed copies of all relations of a plan, improved as the answer is."""

    def __init__(
        self, plan: PrivacyPlan, relations: Sequence[Released], rows: int, improving: Improving | None
    ) -> None:
        self.names = [one.name for one in relations]
        self._improving = improving if improving is not None and improving.fits else None
        # each copy is fitted by itself
        self.number = number_of_whole(relations, rows) if self._improving is None else WHOLE_COPIES
        self.at_once = max(1, COPIED_ROWS // max([1, *(len(one.keys) for one in relations)]))
        raw = relations if improving is None else improving.raw
        self._copies = [Copies(plan, one, self.number) for one in raw]

    def tables(self, first: int, last: int) -> dict[str, pa.Table]:
        """The copies from ``first`` up to but not including ``last``, by relation."""
        if self._improving is None:
            return {name: one.table(first, last) for name, one in zip(self.names, self._copies, strict=True)}
        fitted = [
            self._improving.fit_copies([one.table(copy, copy + 1) for one in self._copies])
            for copy in range(first, last)
        ]
        return {name: pa.concat_tables([each[place] for each in fitted]) for place, name in enumerate(self.names)}
