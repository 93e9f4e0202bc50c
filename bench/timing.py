"""Takes the time of several ways to answer one question, turn by turn, so that a busy machine slows them all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

Action = Callable[[], object]
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 31


def medians(actions: Mapping[str, Action], *, budget_s: float) -> dict[str, float]:
    """Median seconds of each action over interleaved rounds, after one round that is not counted (warm).

    As many rounds as fit ``budget_s``, between 5 and 31.
    """
    taken: dict[str, list[float]] = {name: [] for name in actions}
    once = sum(seconds(action) for action in actions.values())
    rounds = max(_LEAST_ROUNDS, min(_MOST_ROUNDS, int(budget_s / max(once, 1e-9))))
    gc.collect()
    for _ in range(rounds):
        for name, action in actions.items():
            taken[name].append(seconds(action))
    return {name: statistics.median(times) for name, times in taken.items()}


def seconds(action: Action) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def percentile(times: list[float], share: float) -> float:
    """The smallest of ``times`` that at least ``share`` of them do not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
