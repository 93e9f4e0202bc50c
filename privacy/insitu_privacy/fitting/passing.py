"""Groups of private keys: how large they are taken to be, and what a threshold is expected to let through.

Nobody knows how large the groups of a private key are before they are released. They are taken to fall off as 1/k, as
codes and names do (Zipf's law), each wrong by a factor of about two. A group that a threshold hides is an answer lost;
so bounds that raise the threshold are weighed by what they hide, in shares of all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from insitu_privacy.plan import MechanismChoice

_STEEPNESS = 2.5
"""Of how likely a group passes by its expected size in thresholds: at half of one, 15%; at two, 85%."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under which a release is measured."""

    epsilon: float
    rho: float
    """What epsilon and delta buy of Gaussian noise; 0 where there can be none."""
    delta: float
    """Of key selection; 0 where no keys are selected."""
    nodes: int
    mechanism: MechanismChoice

    @property
    def laplace(self) -> bool:
        """Whether Laplace noise may be used."""
        return self.mechanism != "gaussian" or not self.rho

    @property
    def gaussian(self) -> bool:
        """Whether Gaussian noise may be used."""
        return self.mechanism != "laplace" and bool(self.rho)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """What is expected above a threshold."""

    lost: float
    """The share of all rows in groups that stay below it."""
    size: float
    """The share of all rows in a typical group above it."""


def importance_of(sensitivities: Sequence[float], selects: int | None, terms: Terms, groups: int) -> list[float]:
    """Sensitivities as budget is split by them: what selects keys counts by the threshold that it makes.

    ``selects`` is that statistic's place. A threshold is so many deviations of its noise high (``passes.mechanisms``).
    """
    found = list(sensitivities)
    if selects is not None:
        found[selects] *= _log(terms, groups)
    return found


def threshold(importance: Sequence[float], selects: int, terms: Terms, groups: int) -> float:
    """About the threshold of key selection where budget is split by ``importance``: units at one node."""
    found = []
    if terms.laplace:
        parts = [one ** (2 / 3) for one in importance]
        found.append(groups * sum(parts) / parts[selects] / terms.epsilon * _log(terms, groups))
    if terms.gaussian:
        share = terms.rho * importance[selects] / sum(importance)
        found.append(math.sqrt(groups / (2 * share)) * math.sqrt(2 * _log(terms, groups)))
    return 1.0 + float(min(found))


def _log(terms: Terms, groups: int) -> float:
    return max(1.0, math.log(groups / (2 * max(terms.delta, 1e-300))))


def passing(cells: int, units: float, tau: float) -> Passing:
    """What passes of so many groups that hold ``units`` at one node, each unit as often as it is in a group."""
    sizes = 1 / np.arange(1, cells + 1)
    sizes /= sizes.sum()
    passes = 1 / (1 + (tau / np.maximum(units * sizes, 1e-9)) ** _STEEPNESS)
    weight = float(sizes @ passes)
    return Passing(lost=1 - weight, size=math.sqrt(weight / float((passes / sizes).sum())))
