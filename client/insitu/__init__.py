"""insitu: ask hospitals and insurers that keep their data, and get differentially private answers.

    import insitu

    fed = insitu.connect("~/.config/insitu/my-project")
    print(fed.explain("SELECT sex, COUNT(*) AS n FROM person GROUP BY sex", epsilon=0.5))
    result = fed.query("SELECT sex, COUNT(*) AS n FROM person GROUP BY sex", epsilon=0.5)

Importing this package is quick: what needs the network, the planner or DuckDB is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from insitu_privacy.errors import (
    AccessRefused,
    BudgetRefused,
    ConfigInvalid,
    ExecutionFailed,
    InsituError,
    IntegrityFailed,
    LegalRefused,
    ParameterRefused,
    Refused,
    RemoteError,
    SqlRefused,
    Unavailable,
)

if TYPE_CHECKING:
    from insitu.client import Federation, connect
    from insitu.explain import Explanation
    from insitu.result import Result
    from insitu.verification import NodesTooFew

__version__ = "0.1.0"
__all__ = [
    "AccessRefused",
    "BudgetRefused",
    "ConfigInvalid",
    "ExecutionFailed",
    "Explanation",
    "Federation",
    "InsituError",
    "IntegrityFailed",
    "LegalRefused",
    "NodesTooFew",
    "ParameterRefused",
    "Refused",
    "RemoteError",
    "Result",
    "SqlRefused",
    "Unavailable",
    "__version__",
    "connect",
]
_LATER = {
    "Explanation": "insitu.explain",
    "Federation": "insitu.client",
    "NodesTooFew": "insitu.verification",
    "Result": "insitu.result",
    "connect": "insitu.client",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'insitu' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value
