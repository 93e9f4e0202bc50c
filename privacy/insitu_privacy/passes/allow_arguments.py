"""Which arguments of a syntax node are read, and refusals of what is not on the allowlist."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.plan import NODE_ID

_COMMON = {"this", "expression", "expressions"}
_READ: Mapping[type[exp.Expr], set[str]] = {
    exp.Literal: {"is_string"},
    exp.Column: {"table"},
    exp.Div: {"typed", "safe"},
    exp.Between: {"low", "high"},
    exp.Case: {"ifs", "default"},
    exp.If: {"true", "false"},
    exp.In: {"query", "unnest", "field"},
    exp.Round: {"decimals"},
    exp.WidthBucket: {"min_value", "max_value", "num_buckets"},
    exp.DateDiff: {"unit", "date_part_boundary"},
    exp.DatetimeDiff: {"unit", "date_part_boundary"},
    exp.TimestampDiff: {"unit"},
    exp.Dayname: {"abbreviated"},
    exp.Monthname: {"abbreviated"},
    exp.DateAdd: {"unit"},
    exp.DateSub: {"unit"},
    exp.TimestampTrunc: {"unit"},
    exp.DateTrunc: {"unit"},
    exp.Substring: {"start", "length"},
    exp.Least: {"ignore_nulls"},
    exp.Greatest: {"ignore_nulls"},
    exp.Coalesce: {"is_nvl", "is_null"},
    exp.DPipe: {"safe"},
    exp.Concat: {"safe", "coalesce"},
    exp.Cast: {"to"},
    exp.TryCast: {"to", "safe"},
    exp.Is: {"negate"},
    exp.Like: {"negate"},
    exp.ILike: {"negate"},
    exp.RegexpLike: {"flag"},
    exp.RegexpILike: {"flag"},
    exp.Trim: {"position"},
    exp.Replace: {"replacement"},
    exp.StrPosition: {"substr"},
    exp.Pad: {"fill_pattern", "is_left"},
    exp.ConcatWs: {"safe", "coalesce"},
    exp.Left: {"negative_length_returns_empty"},
    exp.Right: {"negative_length_returns_empty"},
    exp.SplitPart: {"delimiter", "part_index", "part_index_zero_as_one", "empty_delimiter_returns_whole"},
    exp.TimeToStr: {"format"},
    exp.ToChar: {"format"},
    exp.StrToTime: {"format"},
    exp.StrToDate: {"format", "default_year"},
    exp.TsOrDsToDate: {"safe"},
    exp.TsOrDsAdd: {"unit", "return_type"},
    exp.TimestampAdd: {"unit"},
    exp.TimestampSub: {"unit"},
    exp.DatetimeAdd: {"unit"},
    exp.DatetimeSub: {"unit"},
    exp.DateFromParts: {"year", "month", "day", "allow_overflow"},
    exp.Trunc: {"decimals"},
    exp.Count: {"big_int"},
    exp.Quantile: {"quantile"},
    exp.ApproxQuantile: {"quantile"},
}
"""Arguments that the rules read, beside the common ones: one that nobody reads would change the question unseen."""


def check_arguments(node: exp.Expr) -> None:
    """Refuses an argument that no rule reads."""
    known = _COMMON | _READ.get(type(node), set())
    for name, value in node.args.items():
        if value and name not in known:
            where = value if isinstance(value, exp.Expr) else node
            raise forbidden(where, f"{name.rstrip('_').upper()} of {node.key.upper()}", "Leave it out.")


_NOW_NAMES = {"NOW", "SYSDATE", "GETDATE", "LOCALTIMESTAMP", "CLOCK_TIMESTAMP", "STATEMENT_TIMESTAMP"}
_NOW = (exp.CurrentDate, exp.CurrentTimestamp, exp.CurrentDatetime, exp.CurrentTime, exp.Localtimestamp)


def not_listed(node: exp.Expr) -> Exception:
    if isinstance(node, _NOW) or (isinstance(node, exp.Anonymous) and node.name.upper() in _NOW_NAMES):
        hint = "Use CURRENT_DATE, which is the day of the request, or write the day as a literal, DATE '2020-01-31'."
        return forbidden(node, "the time of now", hint)
    if isinstance(node, (exp.Anonymous, exp.Func)) and not isinstance(node, (exp.Exists, exp.Cast, exp.Case, exp.If)):
        name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
        return refusal("INSITU-SQL-FORBIDDEN-FUNCTION", node, name=str(name).lower())
    if isinstance(node, (exp.Subquery, exp.Select, exp.Exists)):
        return forbidden(node, "a subquery here", "Write the condition as a join or as a query of its own.")
    if isinstance(node, exp.Window):
        return forbidden(node, "a window function", "Use GROUP BY.")
    if isinstance(node, exp.Placeholder) and node.name == NODE_ID:
        return forbidden(node, "node_id in this place", "Group by it on the outermost SELECT over persons' rows.")
    if isinstance(node, exp.Star):
        return refusal("INSITU-SQL-ROW-OUTPUT", node)
    return forbidden(node, node.key.upper(), "See docs/sql.md for what may be written.")
