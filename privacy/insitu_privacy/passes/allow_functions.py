"""The allowlist's functions of numbers, dates and text, and its casts.

Dialects name the same function differently; sqlglot's parser gives them one syntax node each, which stands here once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.dataset import ColumnType
from insitu_privacy.domains import INTEGER_LIMIT
from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes.allow import Allow, date_literal
from insitu_privacy.passes.spans import forbidden, refusal

Rule = Callable[[Allow, exp.Expr], Expression]
_MOMENTS: tuple[ColumnType, ...] = ("date", "timestamp")
_PARTS: Mapping[str, Op] = {"YEAR": Op.YEAR, "QUARTER": Op.QUARTER, "MONTH": Op.MONTH, "DAY": Op.DAY}
_DAYS_LIMIT = 200_000
_ROUND_DIGITS = 9
_TEXT_LIMIT = 10_000
_BUCKETS_LIMIT = 10_000


# -- numbers ---------------------------------------------------------------------------------------------------------


def _numeric(op: Op) -> Rule:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        (value,) = allow.numbers(node.this)
        if op in (Op.FLOOR, Op.CEIL) and allow.type_of(value) == "integer":
            return value
        return call(op, value)

    return rule


def _round(allow: Allow, node: exp.Expr) -> Expression:
    (value,) = allow.numbers(node.this)
    if allow.type_of(value) == "integer":
        return value
    if node.args.get("decimals") is None:
        return call(Op.ROUND, value)
    digits = _whole(node.args["decimals"], 0, _ROUND_DIGITS)
    unit = Literal("decimal", Fraction(10**digits))
    return call(Op.DIV, call(Op.ROUND, call(Op.MUL, value, unit)), unit)


def _whole(node: exp.Expr, low: int, high: int) -> int:
    negative = isinstance(node, exp.Neg)
    text = node.this.name if negative else node.name
    number = int(text) * (-1 if negative else 1) if text.isdigit() else None
    if number is None or not low <= number <= high:
        raise forbidden(node, "this argument", f"Write a whole number from {low} to {high}.")
    return number


def _width_bucket(allow: Allow, node: exp.Expr) -> Expression:
    (value,) = allow.numbers(node.this)
    ends = [allow.expression(node.args[name]) for name in ("min_value", "max_value")]
    parts = _whole(node.args["num_buckets"], 1, _BUCKETS_LIMIT)
    numbers = [
        Fraction(one.value) for one in ends if isinstance(one, Literal) and isinstance(one.value, (int, Fraction))
    ]
    if len(numbers) < len(ends) or numbers[0] >= numbers[1]:
        raise forbidden(node, "these bounds of buckets", "Write literal numbers, the lower one first.")
    low, high = (Literal("decimal", number) for number in numbers)
    return call(Op.BUCKET, value, low, high, Literal("integer", parts))


def _extreme(op: Op) -> Rule:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        return Call(op, tuple(allow.carried(node.this, *node.expressions)))

    return rule


def _nullif(allow: Allow, node: exp.Expr) -> Expression:
    return Call(Op.NULLIF, tuple(allow.carried(node.this, node.expression)))


# -- dates -----------------------------------------------------------------------------------------------------------


def _moment(allow: Allow, node: exp.Expr) -> Expression:
    while isinstance(node, (exp.TsOrDsToDate, exp.TimeStrToTime, exp.TsOrDsToTimestamp)):
        node = node.this  # wrappers that some dialects' readers put around arguments
    lowered = allow.expression(node)
    if isinstance(lowered, Literal) and lowered.type == "text":
        lowered = date_literal(str(lowered.value), node)
    return allow.require(lowered, _MOMENTS, node)


def _part(name: str, value: Expression, node: exp.Expr) -> Expression:
    op = _PARTS.get(name.upper())
    if op is None:
        raise forbidden(node, f"the date part {name}", "Use YEAR, QUARTER, MONTH or DAY.")
    return call(op, value)


def _extract(allow: Allow, node: exp.Expr) -> Expression:
    return _part(node.name, _moment(allow, node.expression), node)


def _named_part(allow: Allow, node: exp.Expr) -> Expression:
    return _part(type(node).__name__, _moment(allow, node.this), node)


def _date_diff(allow: Allow, node: exp.Expr) -> Expression:
    end, start = _moment(allow, node.this), _moment(allow, node.expression)
    unit = str(node.args["unit"].name if node.args.get("unit") else "DAY").upper().rstrip("S")
    if unit == "DAY":
        return call(Op.DAYS_BETWEEN, start, end)
    years = call(Op.SUB, call(Op.YEAR, end), call(Op.YEAR, start))
    if unit == "YEAR" and node.args.get("date_part_boundary"):
        return years
    if unit == "MONTH" and node.args.get("date_part_boundary"):
        months = call(Op.SUB, call(Op.MONTH, end), call(Op.MONTH, start))
        return call(Op.ADD, call(Op.MUL, years, Literal("integer", 12)), months)
    raise forbidden(node, f"a difference in {unit}", "Use days, or the difference of EXTRACT(YEAR FROM ...).")


def _shift(sign: int) -> Rule:
    """Dates plus or minus days, and numbers plus or minus numbers."""

    def rule(allow: Allow, node: exp.Expr) -> Expression:
        left, right = node.this, node.expression
        if isinstance(left, (exp.Interval, exp.ToDays)) and sign > 0:
            left, right = right, left
        if isinstance(right, exp.Interval):
            return _add_interval(allow, left, right, sign, node)
        if isinstance(right, exp.ToDays):
            return _checked_shift(allow, _moment(allow, left), _days_of(allow, right.this, sign), node)
        a, b = allow.expression(left), allow.expression(right)
        if allow.type_of(a) in _MOMENTS:
            return _moments(allow, a, b, sign, node)
        numbers = tuple(allow.require(one, ("integer", "decimal"), part) for one, part in ((a, left), (b, right)))
        return Call(Op.ADD if sign > 0 else Op.SUB, numbers)

    return rule


def _moments(allow: Allow, a: Expression, b: Expression, sign: int, node: exp.Expr) -> Expression:
    if allow.type_of(b) in _MOMENTS and sign < 0:
        return call(Op.DAYS_BETWEEN, b, a)
    if allow.type_of(b) == "integer":
        return _checked_shift(allow, a, b if sign > 0 else _negated(b), node)
    raise refusal("INSITU-SQL-TYPE", node, name="this arithmetic", type="a date", hint="Add a whole number of days.")


def _negated(value: Expression) -> Expression:
    if isinstance(value, Literal) and isinstance(value.value, int):
        return Literal("integer", -value.value)
    return call(Op.NEG, value)


def _days_of(allow: Allow, node: exp.Expr, sign: int) -> Expression:
    days = allow.require(allow.expression(node), ("integer",), node)
    return days if sign > 0 else _negated(days)


def _add_interval(allow: Allow, value: exp.Expr, interval: exp.Interval, sign: int, node: exp.Expr) -> Expression:
    number, unit = _interval(interval)
    if unit in ("DAY", "WEEK"):
        return _checked_shift(
            allow, _moment(allow, value), Literal("integer", sign * number * (7 if unit == "WEEK" else 1)), node
        )
    months = Literal("integer", sign * number * (12 if unit == "YEAR" else 1))
    return _checked_shift(allow, _moment(allow, value), months, node, op=Op.ADD_MONTHS)


def _checked_shift(
    allow: Allow, value: Expression, amount: Expression, node: exp.Expr, op: Op = Op.ADD_DAYS
) -> Expression:
    literal = amount.value if isinstance(amount, Literal) else 0
    if allow.type_of(value) != "date" or not isinstance(literal, int) or abs(literal) > _DAYS_LIMIT:
        raise refusal("INSITU-SQL-TYPE", node, name="adding days", type="this", hint="CAST to DATE; add fewer days.")
    shifted = call(op, value, amount)
    if not allow.bounded(shifted):
        raise refusal("INSITU-SQL-UNBOUNDED", node, name="this date", hint="declared min and max in the dataset")
    return shifted


def _interval(node: exp.Interval) -> tuple[int, str]:
    unit = str(node.args["unit"].name if node.args.get("unit") else "").upper().rstrip("S")
    number = node.this
    sign = -1 if isinstance(number, exp.Neg) else 1
    text = (number.this if sign < 0 else number).name if number is not None else ""
    if unit not in ("DAY", "WEEK", "MONTH", "YEAR") or not re.fullmatch(r"-?[0-9]{1,6}", text, re.ASCII):
        raise forbidden(node, "this interval", "Use INTERVAL n DAY, WEEK, MONTH or YEAR.")
    return sign * int(text), unit


def _date_add(allow: Allow, node: exp.Expr) -> Expression:
    sign = -1 if isinstance(node, exp.DateSub) else 1
    amount = node.expression
    if not isinstance(amount, exp.Interval):
        amount = exp.Interval(this=amount, unit=node.args.get("unit") or exp.var("DAY"))
    return _add_interval(allow, node.this, amount, sign, node)


def _trunc(allow: Allow, node: exp.Expr) -> Expression:
    unit = str(node.args["unit"].name if node.args.get("unit") else "").upper()
    value = _moment(allow, node.this)
    if unit in ("YEAR", "YYYY"):
        return call(Op.TRUNC_YEAR, value)
    if unit in ("MONTH", "MM"):
        return call(Op.TRUNC_MONTH, value)
    raise forbidden(node, f"truncation to {unit or 'this'}", "Truncate to YEAR or MONTH.")


# -- text ------------------------------------------------------------------------------------------------------------


def _text(op: Op) -> Rule:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        return call(op, allow.require(allow.expression(node.this), ("text",), node.this))

    return rule


def _substring(allow: Allow, node: exp.Expr) -> Expression:
    value = allow.require(allow.expression(node.this), ("text",), node.this)
    if isinstance(node, exp.Left):
        start, length = 1, _whole(node.expression, 0, _TEXT_LIMIT)
    else:
        start = _whole(node.args["start"], 1, _TEXT_LIMIT)
        length = _whole(node.args["length"], 0, _TEXT_LIMIT) if node.args.get("length") else _TEXT_LIMIT
    return call(Op.SUBSTRING, value, Literal("integer", start), Literal("integer", length))


def _concat(allow: Allow, node: exp.Expr) -> Expression:
    parts = node.expressions if isinstance(node, exp.Concat) else [node.this, node.expression]
    lowered = [allow.require(allow.expression(part), ("text",), part) for part in parts]
    if isinstance(node, exp.Concat) and node.args.get("coalesce"):
        lowered = [call(Op.COALESCE, item, Literal("text", "")) for item in lowered]
    return Call(Op.CONCAT, tuple(lowered))


# -- casts -----------------------------------------------------------------------------------------------------------

_T = exp.DataType.Type
_INTEGER_TYPES = {_T.INT, _T.BIGINT, _T.SMALLINT, _T.TINYINT}
_TIMESTAMP_TYPES = {_T.TIMESTAMP, _T.TIMESTAMPNTZ, _T.DATETIME}
_DECIMAL_TYPES = {_T.DOUBLE, _T.FLOAT, _T.DECIMAL}
_TEXT_TYPES = {_T.TEXT, _T.VARCHAR, _T.CHAR, _T.NVARCHAR}


def _cast(allow: Allow, node: exp.Expr) -> Expression:
    value, target = allow.expression(node.this), node.args["to"].this
    kind = allow.type_of(value)
    if node.args["to"].expressions and not isinstance(value, Literal):
        hint = "Leave the length or precision out; ROUND and SUBSTRING say what it would do."
        raise refusal("INSITU-SQL-NOT-TOTAL", node, name=f"CAST to {node.args['to'].sql()}", hint=hint)
    if isinstance(value, Literal) and kind == "text" and target in {_T.DATE} | _TIMESTAMP_TYPES:
        return date_literal(str(value.value), node)
    if target in _DECIMAL_TYPES and kind in ("integer", "decimal"):
        return call(Op.TO_DECIMAL, value) if kind == "integer" else value
    if target in _INTEGER_TYPES and kind == "decimal" and allow.bounded(value):
        interval = allow.facts_of(value).interval
        if interval is not None and max(abs(interval[0]), abs(interval[1])) < INTEGER_LIMIT:
            return call(Op.TO_WHOLE, value)
    if target in _TEXT_TYPES and kind == "integer":
        return call(Op.TO_TEXT, value)
    if target in _INTEGER_TYPES and kind == "boolean":
        return call(Op.TO_INTEGER, value)
    if target is _T.DATE and kind == "timestamp":
        return call(Op.TO_DATE, value)
    same = {"integer": _INTEGER_TYPES, "text": _TEXT_TYPES, "date": {_T.DATE}, "timestamp": _TIMESTAMP_TYPES}
    if target in same.get(kind, set()):
        return value
    hint = "Use FLOOR or ROUND for whole numbers; compare columns in the types the dataset gives them."
    raise refusal("INSITU-SQL-NOT-TOTAL", node, name=f"CAST of {kind} to {target.value}", hint=hint)


RULES: Mapping[type[exp.Expr], Rule] = {
    exp.Add: _shift(1),
    exp.Sub: _shift(-1),
    exp.Abs: _numeric(Op.ABS),
    exp.Floor: _numeric(Op.FLOOR),
    exp.Ceil: _numeric(Op.CEIL),
    exp.Round: _round,
    exp.WidthBucket: _width_bucket,
    exp.Least: _extreme(Op.LEAST),
    exp.Greatest: _extreme(Op.GREATEST),
    exp.Coalesce: _extreme(Op.COALESCE),
    exp.Nullif: _nullif,
    exp.Extract: _extract,
    exp.Year: _named_part,
    exp.Quarter: _named_part,
    exp.Month: _named_part,
    exp.Day: _named_part,
    exp.DateDiff: _date_diff,
    exp.DateAdd: _date_add,
    exp.DateSub: _date_add,
    exp.TimestampTrunc: _trunc,
    exp.DateTrunc: _trunc,
    exp.Lower: _text(Op.LOWER),
    exp.Upper: _text(Op.UPPER),
    exp.Length: _text(Op.LENGTH),
    exp.Substring: _substring,
    exp.Left: _substring,
    exp.DPipe: _concat,
    exp.Concat: _concat,
    exp.Cast: _cast,
    exp.TryCast: _cast,
}
