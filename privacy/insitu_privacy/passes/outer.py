"""What post-processing may hold: SQL over noisy values, which runs where no raw data is and costs nothing.

It runs in a locked-down DuckDB (``postprocess``), for strangers too, so functions are on a list here as well.
"""

from __future__ import annotations

from sqlglot import exp

from insitu_privacy.passes import allow_functions, allow_operators
from insitu_privacy.passes.allow_arguments import not_listed
from insitu_privacy.passes.nodes import every, nodes
from insitu_privacy.passes.spans import forbidden, refusal

SCALARS = (
    frozenset(allow_operators.RULES)
    | frozenset(allow_functions.RULES)
    | {
        exp.Alias, exp.Identifier, exp.Ordered, exp.DataType, exp.DataTypeParam, exp.Var, exp.Interval, exp.Sqrt,
        exp.Ln, exp.Exp, exp.Pow, exp.ToDays, exp.Log, exp.Tuple, exp.Order, exp.WindowSpec, exp.Having, exp.Sign,
    }
)  # fmt: skip
"""Scalar syntax over the columns of released relations."""

AGGREGATES = frozenset({
    exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Median, exp.Stddev, exp.StddevSamp, exp.StddevPop,
    exp.Variance, exp.VariancePop, exp.Distinct, exp.Star, exp.Filter, exp.CountIf,
})  # fmt: skip
_WINDOWS = frozenset({
    exp.RowNumber, exp.Rank, exp.DenseRank, exp.PercentRank, exp.CumeDist, exp.Ntile, exp.Lag, exp.Lead,
    exp.FirstValue, exp.LastValue, exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Median, exp.Stddev,
    exp.StddevSamp, exp.StddevPop, exp.Variance, exp.VariancePop, exp.NthValue,
})  # fmt: skip
_RELATIONAL = frozenset({
    exp.Select, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Limit, exp.Offset, exp.Subquery,
    exp.Table, exp.TableAlias, exp.With, exp.CTE, exp.Union, exp.Intersect, exp.Except, exp.Exists, exp.Window,
    exp.Distinct,
})  # fmt: skip


def check_window(node: exp.Window) -> None:
    """Refuses window functions that are not listed."""
    if type(node.this) not in _WINDOWS:
        name = node.this.sql_name() if isinstance(node.this, exp.Func) else node.this.key
        raise refusal("INSITU-SQL-FORBIDDEN-FUNCTION", node, name=str(name).lower())


def check(tree: exp.Expr) -> None:
    """Refuses what may not stand in a SELECT over noisy results."""
    for node in nodes(tree):
        if isinstance(node, exp.Window):
            check_window(node)
            continue
        known = SCALARS | AGGREGATES | _RELATIONAL | _WINDOWS
        if type(node) not in known:
            raise not_listed(node)
        if isinstance(node, exp.With) and node.args.get("recursive"):
            raise forbidden(node, "WITH RECURSIVE", "Write the steps as queries of their own.")


TEXT_LIMIT = 10_000
"""Characters of a text that is put together above releases: it could double from one derived table to the next."""


def make_total(tree: exp.Query) -> None:
    """Makes whole division by zero NULL, and text short, in place: one cell may not take the whole answer with it."""
    for node in reversed(every(tree, exp.IntDiv, exp.Mod, exp.DPipe, exp.Concat, exp.ConcatWs)):
        if isinstance(node, (exp.IntDiv, exp.Mod)):
            divisor = node.expression
            divisor.replace(exp.Nullif(this=exp.paren(divisor.copy()), expression=exp.Literal.number(0)))
        else:
            node.replace(exp.Left(this=node.copy(), expression=exp.Literal.number(TEXT_LIMIT)))
