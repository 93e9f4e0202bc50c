"""Outcomes as JSON and back, in the one strict way of ``payload``: the bytes that ``release`` signs.

Released values have a form of their own that ledgers store too. Not here: what values mean (``outcome``), signatures.
"""

from __future__ import annotations

from insitu_privacy.errors import Span
from insitu_privacy.plan import ReleasedValues

from insitu_access import payload
from insitu_access.jose import Typ, refusing_malformed
from insitu_access.outcome import BudgetRow, BudgetStatement, NodeRelease, Outcome, Refusal, check_values
from insitu_access.payload import Fields, JsonScalar, Malformed, as_items, as_text


def write_outcome(outcome: Outcome) -> bytes:
    """The payload bytes of an outcome."""
    if isinstance(outcome, NodeRelease):
        return payload.write(_release_as_json(outcome))
    if isinstance(outcome, Refusal):
        return payload.write(_refusal_as_json(outcome))
    return payload.write(_statement_as_json(outcome))


def read_outcome(data: bytes, typ: Typ) -> Outcome:
    """O3: the outcome that payload bytes say, unverified. Raises INSITU-ACCESS-MALFORMED."""
    with refusing_malformed("outcome"), payload.read(data) as fields:
        if typ == "insitu-release+jws":
            return _read_release(fields)
        if typ == "insitu-refusal+jws":
            return _read_refusal(fields)
        return _read_statement(fields)


def values_as_json(values: tuple[ReleasedValues, ...]) -> list[dict[str, object]]:
    """Released values as JSON; ledgers store them by the same form."""
    return [
        {
            "keys": None if each.keys is None else [list(key) for key in each.keys],
            "statistics": [list(statistic) for statistic in each.statistics],
        }
        for each in values
    ]


def read_values(value: object, path: str) -> tuple[ReleasedValues, ...]:
    """The inverse of ``values_as_json``. Raises Malformed."""
    values = as_items(value, path, _read_values)
    for released in values:
        check_values(released)
    return values


def _read_release(fields: Fields) -> NodeRelease:
    return NodeRelease(
        node=fields.text("node"),
        request_id=fields.text("request_id"),
        request_sha256=fields.text("request_sha256"),
        grant_id=fields.text("grant_id"),
        dataset=fields.text("dataset"),
        dataset_digest=fields.text("dataset_digest"),
        plan_digest=fields.text("plan_digest"),
        values=fields.items("values", _read_values),
        spent_epsilon=fields.number("spent_epsilon"),
        spent_delta=fields.number("spent_delta"),
        replayed=fields.flag("replayed"),
        issued_at=fields.moment("issued_at"),
    )


def _read_values(value: object, path: str) -> ReleasedValues:
    # types and shape are not checked here but once, by what takes the values: a release may hold millions
    with Fields(value, path) as fields:
        return ReleasedValues(
            keys=fields.optional_items("keys", lambda key, at: as_items(key, at, _read_scalar)),
            statistics=fields.items("statistics", _read_integers),
        )


def _read_scalar(value: object, path: str) -> JsonScalar:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return as_text(value, path)


def _read_integers(value: object, path: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise Malformed(f"{path} must be a list")
    return tuple(value)


def _read_refusal(fields: Fields) -> Refusal:
    return Refusal(
        node=fields.text("node"),
        request_id=fields.text("request_id"),
        request_sha256=fields.text("request_sha256"),
        code=fields.text("code"),
        text=fields.text("text"),
        remedy=fields.text("remedy"),
        span=_read_span(fields.optional_fields("span")),
        issued_at=fields.moment("issued_at"),
    )


def _read_span(fields: Fields | None) -> Span | None:
    if fields is None:
        return None
    with fields:
        return Span(start=fields.integer("start"), end=fields.integer("end"))


def _read_statement(fields: Fields) -> BudgetStatement:
    return BudgetStatement(
        node=fields.text("node"),
        request_id=fields.text("request_id"),
        request_sha256=fields.text("request_sha256"),
        grant_id=fields.text("grant_id"),
        rows=fields.items("rows", _read_row),
        issued_at=fields.moment("issued_at"),
    )


def _read_row(value: object, path: str) -> BudgetRow:
    with Fields(value, path) as fields:
        return BudgetRow(
            dataset=fields.text("dataset"),
            epsilon_spent=fields.number("epsilon_spent"),
            epsilon_left=fields.number("epsilon_left"),
            delta_spent=fields.number("delta_spent"),
            delta_left=fields.number("delta_left"),
        )


def _common_as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "node": outcome.node,
        "request_id": outcome.request_id,
        "request_sha256": outcome.request_sha256,
        "issued_at": payload.seconds_down(outcome.issued_at),
    }


def _release_as_json(release: NodeRelease) -> dict[str, object]:
    return _common_as_json(release) | {
        "grant_id": release.grant_id,
        "dataset": release.dataset,
        "dataset_digest": release.dataset_digest,
        "plan_digest": release.plan_digest,
        "values": values_as_json(release.values),
        "spent_epsilon": str(release.spent_epsilon),
        "spent_delta": str(release.spent_delta),
        "replayed": release.replayed,
    }


def _refusal_as_json(refusal: Refusal) -> dict[str, object]:
    span = None if refusal.span is None else {"start": refusal.span.start, "end": refusal.span.end}
    return _common_as_json(refusal) | {
        "code": refusal.code,
        "text": refusal.text,
        "remedy": refusal.remedy,
        "span": span,
    }


def _statement_as_json(statement: BudgetStatement) -> dict[str, object]:
    rows = [
        {
            "dataset": row.dataset,
            "epsilon_spent": str(row.epsilon_spent),
            "epsilon_left": str(row.epsilon_left),
            "delta_spent": str(row.delta_spent),
            "delta_left": str(row.delta_left),
        }
        for row in statement.rows
    ]
    return _common_as_json(statement) | {"grant_id": statement.grant_id, "rows": rows}
