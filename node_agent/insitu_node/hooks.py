"""Named places in a query's life where tests may kill the process. Off, unless two variables of the environment agree.

``INSITU_TEST_CRASH_AT=<place>`` with ``INSITU_ALLOW_TEST_HOOKS=1`` makes the process kill itself (SIGKILL) on reaching
that place; ``insitu-node run`` says so in its log when it starts. The places are those of ``PLACES``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from insitu_privacy.errors import ConfigInvalid

Place = Literal[
    "before-reserve",
    "after-reserve",
    "after-execute",
    "after-noise",
    "before-commit",
    "after-commit",
    "after-seal",
    "after-audit",
]
PLACES: tuple[Place, ...] = get_args(Place)

Hook = Callable[[Place], None]


def no_hook(_: Place) -> None:
    """What production runs with."""


def hook_from(environment: Mapping[str, str]) -> Hook:
    """The hook that the environment asks for. Raises ConfigInvalid where it names no place, or is not allowed to."""
    wanted = environment.get("INSITU_TEST_CRASH_AT")
    if wanted is None:
        return no_hook
    if environment.get("INSITU_ALLOW_TEST_HOOKS") != "1" or wanted not in PLACES:
        raise ConfigInvalid(
            "INSITU-CONFIG-USAGE",
            reason="INSITU_TEST_CRASH_AT is set, but test hooks are not allowed or it names no known place",
            hint="Unset it.",
        )

    def crash(place: Place) -> None:
        if place == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash
