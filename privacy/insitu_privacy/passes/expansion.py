"""How large a query is once each WITH query stands wherever it is named: planning writes it out there.

B3: thirty WITH queries, each the union of the one before with itself, are two kilobytes and a thousand million tables.
They are counted without being written out. What is not here: the length of the text itself (``parse``).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp
from sqlglot.optimizer.scope import Scope

from insitu_privacy.passes.parse import SQL_WORDS
from insitu_privacy.passes.spans import refusal

EXPANDED_WORDS = 25 * SQL_WORDS
"""Nodes of the tree but literals. Cohort definitions that people publish come to 90,000."""


def check_expansion(scopes: Sequence[Scope]) -> None:
    """Raises SqlRefused where the query of these scopes, written out, is larger than ``EXPANDED_WORDS``."""
    sizes: dict[int, int] = {}
    for scope in scopes:  # what is named comes before what names it
        sizes[id(scope.expression)] = size = _own(scope) + sum(sizes.get(id(one), 0) for one in _inside(scope))
        if size > EXPANDED_WORDS:
            limit = f"{EXPANDED_WORDS} words, each WITH query counted where it is named"
            raise refusal("INSITU-SQL-TOO-LONG", scope.expression, limit=limit)


def _own(scope: Scope) -> int:
    return sum(not isinstance(node, exp.Literal) for node in scope.walk())


def _inside(scope: Scope) -> list[exp.Expr]:
    """The queries that a query reads, one as often as it does, and those that stand in its conditions."""
    read = [source.expression for _, source in scope.selected_sources.values() if isinstance(source, Scope)]
    return [*read, *(one.expression for one in (*scope.subquery_scopes, *scope.set_operation_scopes))]
