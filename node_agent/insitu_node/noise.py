"""The mechanisms behind the cycle's interface. Importing OpenDP takes a moment: ``warm_up`` does it in advance."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from insitu_privacy.accounting import zcdp_epsilon
from insitu_privacy.plan import Release, ReleasedValues

from insitu_node.engines.base import Row


class Mechanisms:
    """Noise by ``insitu_privacy.mechanisms``."""

    def check(self, release: Release) -> None:
        from insitu_privacy.mechanisms import check_claims

        check_claims(release)

    def draw(self, release: Release, rows: list[Row], before: Mapping[str, ReleasedValues]) -> ReleasedValues:
        from insitu_privacy.mechanisms import ExactCells, privatize

        followed = before.get(release.tree.keys_of) if release.tree and release.tree.keys_of else None
        return privatize(release, ExactCells(tuple(rows)), None if followed is None else followed.keys)


def warm_up() -> None:
    """Loads OpenDP and the filter's conversion."""
    import insitu_privacy.mechanisms  # noqa: F401

    zcdp_epsilon(Fraction(1), Fraction(1, 10**6))
