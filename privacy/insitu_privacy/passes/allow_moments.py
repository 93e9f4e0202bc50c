"""The allowlist's functions of dates and timestamps. Weeks are those of ISO 8601, and moments have no time zone."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from sqlglot import exp

from insitu_privacy.dataset import ColumnType
from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes.allow import Allow, as_timestamp, date_literal
from insitu_privacy.passes.allow_arguments import check_arguments, not_listed
from insitu_privacy.passes.allow_elapsed import UNITS, elapsed, part_of_age, part_of_difference
from insitu_privacy.passes.spans import forbidden, refusal

Rule = Callable[[Allow, exp.Expr], Expression]
_MOMENTS: tuple[ColumnType, ...] = ("date", "timestamp")
_PARTS: Mapping[str, Op] = {
    **{op.name: op for op in (Op.YEAR, Op.QUARTER, Op.MONTH, Op.DAY, Op.HOUR, Op.MINUTE, Op.SECOND, Op.DOW, Op.ISODOW)},
    **{op.name: op for op in (Op.DOY, Op.WEEK, Op.EPOCH)},
    "ISOWEEK": Op.WEEK,
    "WEEKOFYEAR": Op.WEEK,
    "DAYOFYEAR": Op.DOY,
    "DAYOFWEEKISO": Op.ISODOW,
    "TIMETOUNIX": Op.EPOCH,
}
_SECONDS: Mapping[str, int] = {"SECOND": 1, "MINUTE": 60, "HOUR": 3_600}
_DAYS: Mapping[str, int] = {"DAY": 1, "WEEK": 7}
_MONTHS: Mapping[str, int] = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_MADE_INTERVALS: Mapping[str, str] = {f"TO_{unit}S": unit for unit in (*_SECONDS, *_DAYS, *_MONTHS)}
_SHIFT_LIMIT = 10**11
_CALENDAR = 4_000_000
"""Days, or months: more than there are."""
"""Longer than the calendar in every unit, and short enough to be multiplied."""
_WRAPPERS = (exp.TsOrDsToDate, exp.TimeStrToTime, exp.TsOrDsToTimestamp, exp.Paren)
_TO_OP: Mapping[str, Op] = {
    "YEAR": Op.TRUNC_YEAR, "YYYY": Op.TRUNC_YEAR, "QUARTER": Op.TRUNC_QUARTER, "MONTH": Op.TRUNC_MONTH,
    "MM": Op.TRUNC_MONTH, "WEEK": Op.TRUNC_WEEK, "ISOWEEK": Op.TRUNC_WEEK, "DAY": Op.TO_DATE,
}  # fmt: skip


def _integer(value: int) -> Literal:
    return Literal("integer", value)


def _moment(allow: Allow, node: exp.Expr) -> Expression:
    while isinstance(node, _WRAPPERS):
        node = node.this  # some dialects' readers put them around arguments
    lowered = allow.expression(node)
    if isinstance(lowered, Literal) and lowered.type == "text":
        lowered = date_literal(str(lowered.value), node)
    return allow.require(lowered, _MOMENTS, node)


def _timestamp(allow: Allow, value: Expression) -> Expression:
    return as_timestamp(value) if allow.type_of(value) == "date" else value


def _day(allow: Allow, value: Expression) -> Expression:
    return call(Op.TO_DATE, value) if allow.type_of(value) == "timestamp" else value


# -- parts and differences -------------------------------------------------------------------------------------------


def _part(name: str, value: Expression, node: exp.Expr) -> Expression:
    op = _PARTS.get(name.upper())
    if op is None:
        raise forbidden(node, f"the date part {name}", "Use YEAR, QUARTER, MONTH, DAY, DOW, HOUR, MINUTE or SECOND.")
    return call(op, value)


def _extract(allow: Allow, node: exp.Expr) -> Expression:
    inner = node.expression.unnest()
    if node.name.upper() == "EPOCH" and isinstance(inner, exp.Sub):
        return call(Op.SUB, *(call(Op.EPOCH, _moment(allow, end)) for end in (inner.this, inner.expression)))
    return _part_of_interval(allow, node.name, inner) or _part(node.name, _moment(allow, node.expression), node)


def _part_of_interval(allow: Allow, name: str, node: exp.Expr) -> Expression | None:
    """A part of AGE(end, start), or of the difference of two timestamps; None for a part of anything else."""
    if isinstance(node, exp.Anonymous) and node.name.upper() == "AGE" and len(node.expressions) == 2:
        end, start = (_moment(allow, one) for one in node.expressions)
        return part_of_age(allow, name.upper(), start, end)
    if not isinstance(node, exp.Sub) or _is_interval(node.expression):
        return None
    end, start = allow.expression(node.this), allow.expression(node.expression)
    if "timestamp" not in {allow.type_of(end), allow.type_of(start)} <= {*_MOMENTS}:
        return None
    return part_of_difference(allow, name.upper(), start, end)


def _named_part(allow: Allow, node: exp.Expr) -> Expression:
    return _part(type(node).__name__, _moment(allow, node.this), node)


def _date_diff(allow: Allow, node: exp.Expr) -> Expression:
    end, start = _moment(allow, node.this), _moment(allow, node.expression)
    unit = _unit(node, "DAY")
    if unit == "DAY":
        return call(Op.DAYS_BETWEEN, start, end)
    if node.args.get("date_part_boundary"):
        if unit in _SECONDS:
            return call(Op.UNITS_BETWEEN, start, end, _integer(_SECONDS[unit]))
        parts = {"YEAR": None, "QUARTER": Op.QUARTER, "MONTH": Op.MONTH}
        if unit in parts:
            return _boundaries(start, end, parts[unit], 12 // _MONTHS[unit])
    raise forbidden(node, f"a difference in {unit}", "Use days, or the difference of EXTRACT(YEAR FROM ...).")


def _elapsed(allow: Allow, node: exp.Expr) -> Expression:
    """TIMESTAMPDIFF: whole units, also of days."""
    unit = _unit(node, "DAY")
    if unit not in UNITS:
        raise forbidden(node, f"a difference in {unit}", "Use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR.")
    return elapsed(allow, _moment(allow, node.expression), _moment(allow, node.this), unit)


def _boundaries(start: Expression, end: Expression, part: Op | None, a_year: int) -> Expression:
    years = call(Op.SUB, call(Op.YEAR, end), call(Op.YEAR, start))
    if part is None:
        return years
    return call(Op.ADD, call(Op.MUL, years, _integer(a_year)), call(Op.SUB, call(part, end), call(part, start)))


def _unit(node: exp.Expr, default: str) -> str:
    unit = node.args.get("unit")
    return str(unit.name if unit else default).upper().rstrip("S")


# -- shifts ----------------------------------------------------------------------------------------------------------


def _shift(sign: int) -> Rule:
    """Moments plus or minus intervals, dates plus or minus days, and numbers plus or minus numbers."""

    def rule(allow: Allow, node: exp.Expr) -> Expression:
        left, right = node.this, node.expression
        if _is_interval(left) and sign > 0:
            left, right = right, left
        if _is_interval(right):
            amount, unit = _interval(allow, right.unnest())
            return _shifted(allow, _moment(allow, left), _signed(amount, sign), unit)
        a, b = allow.counted(left), allow.counted(right)
        if allow.type_of(a) in _MOMENTS:
            return _moments(allow, a, b, sign, node)
        numbers = tuple(allow.require(one, ("integer", "decimal"), part) for one, part in ((a, left), (b, right)))
        return Call(Op.ADD if sign > 0 else Op.SUB, numbers)

    return rule


def _is_interval(node: exp.Expr) -> bool:
    node = node.unnest()
    if isinstance(node, exp.Mul):
        return isinstance(node.this, exp.Interval) or isinstance(node.expression, exp.Interval)
    if isinstance(node, exp.Anonymous):
        return node.name.upper() in _MADE_INTERVALS and len(node.expressions) == 1
    return isinstance(node, (exp.Interval, exp.ToDays))


def _moments(allow: Allow, a: Expression, b: Expression, sign: int, node: exp.Expr) -> Expression:
    if allow.type_of(b) in _MOMENTS and sign < 0:
        return call(Op.DAYS_BETWEEN, b, a)
    if allow.type_of(a) == "date" and allow.type_of(b) == "integer":
        return _shifted(allow, a, _signed(b, sign), "DAY")
    hint = "Add a whole number of days to a date, or an INTERVAL."
    raise refusal("INSITU-SQL-TYPE", node, name="this arithmetic", type=allow.type_of(a), hint=hint)


def _signed(value: Expression, sign: int) -> Expression:
    if sign > 0:
        return value
    if isinstance(value, Literal) and isinstance(value.value, int):
        return _integer(-value.value)
    return call(Op.NEG, value)


def _times(amount: Expression, factor: int) -> Expression:
    """So many times as much, NULL where that is longer than the calendar."""
    if isinstance(amount, Literal) and isinstance(amount.value, int):
        return _integer(amount.value * factor)
    if factor == 1:
        return amount
    within = call(Op.AND, call(Op.GE, amount, _integer(-_SHIFT_LIMIT)), call(Op.LE, amount, _integer(_SHIFT_LIMIT)))
    return call(Op.MUL, call(Op.CASE, within, amount, Literal("integer", None)), _integer(factor))


def _shifted(allow: Allow, value: Expression, amount: Expression, unit: str) -> Expression:
    if unit in _SECONDS:
        return call(Op.ADD_SECONDS, _timestamp(allow, value), _times(amount, _SECONDS[unit]))
    day = _day(allow, value)
    if unit in _DAYS:
        days = _in_calendar(_times(amount, _DAYS[unit]))
        moved = call(Op.ADD_DAYS, day, days)
    else:
        moved = call(Op.ADD_MONTHS, day, _in_calendar(_times(amount, _MONTHS[unit])))
        days = call(Op.DAYS_BETWEEN, day, moved)
    return moved if day is value else call(Op.ADD_SECONDS, value, _times(days, 86_400))


def _in_calendar(count: Expression) -> Expression:
    """NULL for a literal that is longer than the calendar: databases fold constants even where CASE rules them out."""
    if isinstance(count, Literal) and isinstance(count.value, int) and abs(count.value) > _CALENDAR:
        return Literal("integer", None)
    return count


def _interval(allow: Allow, node: exp.Expr) -> tuple[Expression, str]:
    """How many, and of which unit."""
    if isinstance(node, exp.ToDays):
        return allow.require(allow.expression(node.this), ("integer",), node.this), "DAY"
    if isinstance(node, exp.Anonymous):
        (count,) = node.expressions
        return allow.require(allow.expression(count), ("integer",), count), _MADE_INTERVALS[node.name.upper()]
    if isinstance(node, exp.Mul):
        times, one = (
            (node.expression, node.this) if isinstance(node.this, exp.Interval) else (node.this, node.expression)
        )
        literal, unit = _interval(allow, one)
        if not isinstance(literal, Literal) or not isinstance(literal.value, int):
            raise forbidden(node, "this interval", "Multiply an interval of a literal number.")
        return _times(allow.require(allow.expression(times), ("integer",), times), literal.value), unit
    unit = _unit(node, "")
    if unit not in {**_SECONDS, **_DAYS, **_MONTHS} or node.this is None:
        raise forbidden(node, "this interval", "Use INTERVAL n SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR.")
    return _amount(allow, node.this), unit


def _amount(allow: Allow, node: exp.Expr) -> Expression:
    sign = -1 if isinstance(node, exp.Neg) else 1
    number = node.this if sign < 0 else node
    if not isinstance(number, exp.Literal):
        return allow.require(allow.expression(node), ("integer",), node)
    if not re.fullmatch(r"-?[0-9]{1,9}", number.name, re.ASCII):
        raise forbidden(node, "this interval", "Write a whole number of at most 9 digits.")
    return _integer(sign * int(number.name))


def _date_add(allow: Allow, node: exp.Expr) -> Expression:
    amount = node.expression
    if not isinstance(amount, exp.Interval):
        amount = exp.Interval(this=amount, unit=node.args.get("unit") or exp.var("DAY"))
    count, unit = _interval(allow, amount)
    sign = -1 if isinstance(node, (exp.DateSub, exp.TimestampSub, exp.DatetimeSub)) else 1
    return _shifted(allow, _moment(allow, node.this), _signed(count, sign), unit)


# -- making moments --------------------------------------------------------------------------------------------------


def _trunc(allow: Allow, node: exp.Expr) -> Expression:
    unit = str(node.args["unit"].name if node.args.get("unit") else "").upper()
    value = _moment(allow, node.this)
    if unit in _TO_OP:
        return _day(allow, value) if unit == "DAY" else call(_TO_OP[unit], value)
    if unit not in ("HOUR", "MINUTE"):
        raise forbidden(node, f"truncation to {unit or 'this'}", "Truncate to YEAR, QUARTER, MONTH, WEEK, DAY or HOUR.")
    clock = call(Op.MUL, call(Op.HOUR, value), _integer(3_600))
    if unit == "MINUTE":
        clock = call(Op.ADD, clock, call(Op.MUL, call(Op.MINUTE, value), _integer(60)))
    return call(Op.ADD_SECONDS, as_timestamp(_day(allow, value)), clock)


def _last_day(allow: Allow, node: exp.Expr) -> Expression:
    """The end of January, and so many months later."""
    value = _day(allow, _moment(allow, node.this))
    january = call(Op.ADD_DAYS, call(Op.TRUNC_YEAR, value), _integer(30))
    return call(Op.ADD_MONTHS, january, call(Op.SUB, call(Op.MONTH, value), _integer(1)))


def _from_parts(allow: Allow, node: exp.Expr) -> Expression:
    made = _made_date(allow, node, [node.args.get(name) for name in ("year", "month", "day")])
    if node.args.get("allow_overflow") and not _is_day(allow.folded(made)):
        raise forbidden(node, "a date whose month or day may be beyond the year or month", "Add an INTERVAL.")
    return made


def _is_day(value: Expression) -> bool:
    return isinstance(value, Literal) and value.value is not None


def _made_date(allow: Allow, node: exp.Expr, parts: list[exp.Expr | None]) -> Expression:
    numbers = [allow.require(allow.expression(part), ("integer",), part) for part in parts if part is not None]
    if len(numbers) != len(("year", "month", "day")):
        raise forbidden(node, "a date of other parts", "Give year, month and day.")
    return Call(Op.MAKE_DATE, tuple(numbers))


def _by_name(allow: Allow, node: exp.Expr) -> Expression:
    """Functions that a dialect's reader knows by name alone."""
    name, args = node.name.upper(), node.expressions
    if name == "MAKE_DATE":
        return _made_date(allow, node, args)
    if name in ("DATE_PART", "DATEPART") and len(args) > 1 and args[0].is_string:
        return _part_of_interval(allow, args[0].name, args[1].unnest()) or _part(
            args[0].name, _moment(allow, args[1]), node
        )
    raise not_listed(node)


def _to_day(allow: Allow, node: exp.Expr) -> Expression:
    if node.this is None or node.expressions:
        raise forbidden(node, "a date with modifiers", "Add an INTERVAL.")
    value = allow.expression(node.this)
    if allow.type_of(value) == "text" and not isinstance(value, Literal):
        return call(Op.TEXT_TO_DATE, value)
    return _day(allow, _moment(allow, node.this))


# -- formats ---------------------------------------------------------------------------------------------------------

_DIRECTIVE = re.compile("%(.)|([^%])", re.DOTALL)
_SIGNS = re.compile("[^A-Za-z0-9\"'\\\\]|T")
"""What stands for itself in a format, whatever the dialect."""
_WIDTHS: Mapping[str, tuple[Op, int, int]] = {
    "Y": (Op.YEAR, 4, 4), "y": (Op.YEAR, 4, 2), "m": (Op.MONTH, 2, 2), "d": (Op.DAY, 2, 2), "j": (Op.DOY, 3, 3),
    "H": (Op.HOUR, 2, 2), "M": (Op.MINUTE, 2, 2), "S": (Op.SECOND, 2, 2),
}  # fmt: skip
"""What a directive shows, to how many digits it is filled up, and how many of the last are shown."""
_DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_CALLED: Mapping[str, tuple[Op, tuple[str, ...], int]] = {
    "A": (Op.DOW, _DAY_NAMES, 0), "a": (Op.DOW, tuple(name[:3] for name in _DAY_NAMES), 0),
    "B": (Op.MONTH, _MONTH_NAMES, 1), "b": (Op.MONTH, tuple(name[:3] for name in _MONTH_NAMES), 1),
}  # fmt: skip
"""Directives that show a name: of which part, the names, and the number of the first."""
_FORMAT_LIMIT = 50
_NAMED = re.compile('YYYY|YY|MM|DDD|DD|HH24|MI|SS|[^A-Za-z%"]')
_NAMES: Mapping[str, str] = {
    "YYYY": "%Y", "YY": "%y", "MM": "%m", "DDD": "%j", "DD": "%d", "HH24": "%H", "MI": "%M", "SS": "%S",
}  # fmt: skip


def _directives(node: exp.Expr, names: Collection[str] = ()) -> list[tuple[str, str]]:
    """The format's parts: a directive's letter or nothing, and a sign of its own or nothing."""
    written = node.args.get("format")
    text = written.name if isinstance(written, exp.Literal) and written.is_string else ""
    if isinstance(node, exp.ToChar):
        found = _NAMED.findall(text.upper())
        text = "".join(_NAMES.get(name, name) for name in found) if "".join(found) == text.upper() else ""
    parts = _DIRECTIVE.findall(text)
    known = all(letter in _WIDTHS or letter in names if letter else _SIGNS.fullmatch(sign) for letter, sign in parts)
    if not parts or len(text) > _FORMAT_LIMIT or not known or text[-1] == "%":
        raise forbidden(node, "this format", "Use a literal of %Y %y %m %d %j %H %M %S and signs between them.")
    return parts


def _formatted(allow: Allow, node: exp.Expr) -> Expression:
    value = _moment(allow, node.this)
    parts: list[Expression] = []
    for letter, sign in _directives(node, _CALLED):
        if not letter:
            parts.append(Literal("text", sign))
            continue
        if letter in _CALLED:
            parts.append(_called(letter, value))
            continue
        op, digits, shown = _WIDTHS[letter]
        filled = call(Op.TO_TEXT, call(Op.ADD, call(op, value), _integer(10**digits)))
        parts.append(call(Op.SUBSTRING, filled, _integer(2 + digits - shown), _integer(shown)))
    return parts[0] if len(parts) == 1 else Call(Op.CONCAT, tuple(parts))


def iso_text(value: Expression) -> Expression:
    """A date as 2020-01-31."""
    pieces = [_filled(call(op, value), digits) for op, digits in ((Op.YEAR, 4), (Op.MONTH, 2), (Op.DAY, 2))]
    dash = Literal("text", "-")
    return Call(Op.CONCAT, (pieces[0], dash, pieces[1], dash, pieces[2]))


def _filled(part: Expression, digits: int) -> Expression:
    filled = call(Op.TO_TEXT, call(Op.ADD, part, _integer(10**digits)))
    return call(Op.SUBSTRING, filled, _integer(2), _integer(digits))


def _called(letter: str, value: Expression) -> Expression:
    op, names, first = _CALLED[letter]
    part = call(op, value)
    branches: list[Expression] = []
    for number, name in enumerate(names, first):
        branches += [call(Op.EQ, part, _integer(number)), Literal("text", name)]
    return Call(Op.CASE, (*branches, Literal("text", None)))


def _day_name(allow: Allow, node: exp.Expr) -> Expression:
    return _called("a" if node.args.get("abbreviated") else "A", _moment(allow, node.this))


def _month_name(allow: Allow, node: exp.Expr) -> Expression:
    return _called("b" if node.args.get("abbreviated") else "B", _moment(allow, node.this))


def formatted_number(allow: Allow, node: exp.Expr) -> Expression | None:
    """The number that a moment is formatted to where the format has digits alone (``%Y%m%d``); None for other nodes."""
    node = node.unnest()
    if not isinstance(node, (exp.TimeToStr, exp.ToChar)):
        return None
    check_arguments(node)
    parts = _directives(node, _CALLED)
    if any(letter not in _WIDTHS for letter, _ in parts):
        return None
    value = _moment(allow, node.this)
    number: Expression = _integer(0)
    for place, (letter, _) in enumerate(parts):
        op, digits, shown = _WIDTHS[letter]
        part = call(op, value)
        if shown < digits:
            part = call(Op.MOD, part, _integer(10**shown))
        number = call(Op.ADD, call(Op.MUL, number, _integer(10**shown)), part) if place else part
    return number


def _parsed(allow: Allow, node: exp.Expr) -> Expression:
    """Text of a format in which every part has its place: NULL where it is of another length or has other signs."""
    value = allow.require(allow.expression(node.this), ("text",), node.this)
    parts = _directives(node)
    letters = [letter for letter, _ in parts if letter]
    clock = [letter for letter in "HMS" if letter in letters]
    if sorted(letters) != sorted(["Y", "m", "d", *clock]) or "".join(clock) not in ("", "HM", "HMS"):
        raise forbidden(node, "this format", "Use a literal of %Y, %m and %d, and of %H, %M and %S or none of these.")
    iso = call(Op.TEXT_TO_TIMESTAMP, _rearranged(value, parts, clock))
    pattern = "".join("_" * _WIDTHS[letter][2] if letter else sign for letter, sign in parts)
    if any(sign and sign in "%_\\" for _, sign in parts):
        raise forbidden(node, "this format", "Put other signs between the parts.")
    fitting = call(Op.CASE, call(Op.LIKE, value, Literal("text", pattern)), iso, Literal("timestamp", None))
    return call(Op.TO_DATE, fitting) if isinstance(node, exp.StrToDate) else fitting


def _rearranged(value: Expression, parts: list[tuple[str, str]], clock: list[str]) -> Expression:
    places, start = {}, 1
    for letter, _ in parts:
        width = _WIDTHS[letter][2] if letter else 1
        places[letter] = call(Op.SUBSTRING, value, _integer(start), _integer(width))
        start += width
    before = {"Y": "", "m": "-", "d": "-", "H": " ", "M": ":", "S": ":"}
    pieces = [(Literal("text", before[letter]), places[letter]) for letter in ("Y", "m", "d", *clock)]
    return Call(Op.CONCAT, tuple(one for pair in pieces for one in pair))


RULES: Mapping[type[exp.Expr], Rule] = {
    exp.Add: _shift(1),
    exp.Sub: _shift(-1),
    exp.Extract: _extract,
    **dict.fromkeys(
        (exp.Year, exp.Quarter, exp.Month, exp.Day, exp.Hour, exp.Minute, exp.Second, exp.Week, exp.WeekOfYear),
        _named_part,
    ),
    **dict.fromkeys((exp.DayOfWeekIso, exp.DayOfYear, exp.TimeToUnix), _named_part),
    exp.DateDiff: _date_diff,
    exp.DatetimeDiff: _date_diff,
    **dict.fromkeys((exp.DateAdd, exp.DateSub, exp.TsOrDsAdd, exp.TimestampAdd, exp.TimestampSub), _date_add),
    **dict.fromkeys((exp.DatetimeAdd, exp.DatetimeSub), _date_add),
    exp.TimestampTrunc: _trunc,
    exp.DateTrunc: _trunc,
    exp.LastDay: _last_day,
    exp.TsOrDsToDate: _to_day,
    exp.Date: _to_day,
    exp.TimeToStr: _formatted,
}

RAW: Mapping[type[exp.Expr], Rule] = {
    exp.DateFromParts: _from_parts,
    exp.ToChar: _formatted,
    exp.StrToTime: _parsed,
    exp.StrToDate: _parsed,
    exp.Anonymous: _by_name,
    exp.TimestampDiff: _elapsed,
    exp.Dayname: _day_name,
    exp.Monthname: _month_name,
}
