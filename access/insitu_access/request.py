"""The request: what a researcher asks, signed over the exact bytes; a query, or a statement of the budget.

A request names its grant by id and by the SHA-256 of the grant's token, the dataset by digest, and the plan the
researcher's own planner made by digest: a node that would do anything else refuses. Numbered checks of
``open_request``:

  R1  it is a request token within its size limit (``jose`` J1 to J3)
  R2  one of the grant's researchers signed it (J4: INSITU-ACCESS-WRONG-KEY, J5)
  R3  its form is exact
  R4  it names this grant

Not here: what else admission checks (binding to the grant's token, time, node, dataset, plan), replay (the ledger).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from insitu_privacy.errors import AccessRefused
from insitu_privacy.plan import MechanismChoice, QueryParameters

from insitu_access import payload
from insitu_access.fits_json import fit_as_json, read_fit
from insitu_access.grant import Grant
from insitu_access.invariants import (
    check,
    check_delta,
    check_epsilon,
    check_moments,
    check_name,
    check_names,
    check_request_id,
    check_sha256,
    check_text,
)
from insitu_access.jose import refusing_malformed, sign, token_sha256, unverified, verify
from insitu_access.keys import SigningKey
from insitu_access.payload import Fields, Malformed

SQL_LIMIT = 256 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRequest:
    """One query: the SQL, its parameters, and what the researcher believes it means."""

    request_id: str
    """A random UUID in hex: a request sent twice is one request."""
    grant_id: str
    grant_sha256: str
    dataset: str
    dataset_digest: str
    sql: str
    dialect: str
    parameters: QueryParameters
    plan_digest: str
    nodes: tuple[str, ...]
    min_nodes: int
    issued_at: datetime
    deadline: datetime

    @property
    def day(self) -> date:
        """The day of its signature, UTC: what CURRENT_DATE means in its SQL."""
        return self.issued_at.astimezone(UTC).date()

    def __post_init__(self) -> None:
        _check_common(self)
        check_name(self.dataset, "dataset")
        check_sha256(self.dataset_digest, "dataset_digest")
        check_text(self.sql, "sql", SQL_LIMIT)
        check_name(self.dialect, "dialect")
        check_sha256(self.plan_digest, "plan_digest")
        check(1 <= self.min_nodes <= len(self.nodes), "min_nodes must be from 1 to the number of nodes")
        check_epsilon(self.parameters.epsilon, "epsilon")
        check_delta(self.parameters.delta, "delta")
        for bound in (self.parameters.max_rows_per_group, self.parameters.max_groups):
            check(bound is None or 1 <= bound < 2**53, "contribution bounds must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRequest:
    """Asks nodes what is left of the grant's budget. Spends nothing."""

    request_id: str
    grant_id: str
    grant_sha256: str
    nodes: tuple[str, ...]
    issued_at: datetime
    deadline: datetime

    def __post_init__(self) -> None:
        _check_common(self)


def seal_request(request: QueryRequest | BudgetRequest, key: SigningKey) -> str:
    """The request signed by the researcher."""
    with refusing_malformed("request"):
        return sign(payload.write(_as_json(request)), key, "insitu-request+jws")


def open_request(token: str, grant: Grant) -> QueryRequest | BudgetRequest:
    """The request that a researcher of ``grant`` signed.

    Raises AccessRefused: INSITU-ACCESS-MALFORMED (R1, R3, R4), -WRONG-KEY or -SIGNATURE (R2).
    """
    data = verify(
        token, grant.researchers, "insitu-request+jws", "request", stranger="INSITU-ACCESS-WRONG-KEY"
    )  # R1, R2
    request = read_request(data)  # R3
    if request.grant_id != grant.id:  # R4
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what="request", reason="it names another grant")
    return request


def peek_request(token: str) -> QueryRequest | BudgetRequest:
    """What a token says, UNVERIFIED: for the gateway's routing and never as a permission."""
    return read_request(unverified(token, "insitu-request+jws", "request"))


def request_sha256(token: str) -> str:
    """Hex SHA-256 of a request's token: what outcomes bind."""
    return token_sha256(token)


def read_request(data: bytes) -> QueryRequest | BudgetRequest:
    """R3: the request that payload bytes say, unverified. Raises INSITU-ACCESS-MALFORMED."""
    with refusing_malformed("request"), payload.read(data) as fields:
        kind = fields.text("kind")
        if kind == "query":
            return _read_query(fields)
        if kind == "budget":
            return _read_budget(fields)
        raise Malformed("kind must be query or budget")


def _check_common(request: QueryRequest | BudgetRequest) -> None:
    check_request_id(request.request_id)
    check_name(request.grant_id, "grant_id")
    check_sha256(request.grant_sha256, "grant_sha256")
    check_names(request.nodes, "nodes")
    check_moments((request.issued_at, request.deadline), "time of issue and deadline")


def _read_query(fields: Fields) -> QueryRequest:
    with fields.fields("parameters") as parameters:
        chosen = QueryParameters(
            epsilon=parameters.number("epsilon"),
            delta=parameters.number("delta"),
            mechanism=_read_mechanism(parameters.text("mechanism")),
            max_rows_per_group=parameters.optional_integer("max_rows_per_group"),
            max_groups=parameters.optional_integer("max_groups"),
            fits=parameters.optional_items("fits", read_fit) or (),
        )
    return QueryRequest(
        request_id=fields.text("request_id"),
        grant_id=fields.text("grant_id"),
        grant_sha256=fields.text("grant_sha256"),
        dataset=fields.text("dataset"),
        dataset_digest=fields.text("dataset_digest"),
        sql=fields.text("sql"),
        dialect=fields.text("dialect"),
        parameters=chosen,
        plan_digest=fields.text("plan_digest"),
        nodes=fields.texts("nodes"),
        min_nodes=fields.integer("min_nodes"),
        issued_at=fields.moment("issued_at"),
        deadline=fields.moment("deadline"),
    )


def _read_budget(fields: Fields) -> BudgetRequest:
    return BudgetRequest(
        request_id=fields.text("request_id"),
        grant_id=fields.text("grant_id"),
        grant_sha256=fields.text("grant_sha256"),
        nodes=fields.texts("nodes"),
        issued_at=fields.moment("issued_at"),
        deadline=fields.moment("deadline"),
    )


def _read_mechanism(text: str) -> MechanismChoice:
    if text == "auto":
        return "auto"
    if text == "laplace":
        return "laplace"
    if text == "gaussian":
        return "gaussian"
    raise Malformed("parameters.mechanism must be auto, laplace or gaussian")


def _as_json(request: QueryRequest | BudgetRequest) -> dict[str, object]:
    common: dict[str, object] = {
        "request_id": request.request_id,
        "grant_id": request.grant_id,
        "grant_sha256": request.grant_sha256,
        "nodes": list(request.nodes),
        "issued_at": payload.seconds_down(request.issued_at),
        "deadline": payload.seconds_up(request.deadline),
    }
    if isinstance(request, BudgetRequest):
        return common | {"kind": "budget"}
    return common | {
        "kind": "query",
        "dataset": request.dataset,
        "dataset_digest": request.dataset_digest,
        "sql": request.sql,
        "dialect": request.dialect,
        "parameters": _parameters_as_json(request.parameters),
        "plan_digest": request.plan_digest,
        "min_nodes": request.min_nodes,
    }


def _parameters_as_json(parameters: QueryParameters) -> dict[str, object]:
    return {
        "epsilon": str(parameters.epsilon),
        "delta": str(parameters.delta),
        "mechanism": parameters.mechanism,
        "max_rows_per_group": parameters.max_rows_per_group,
        "max_groups": parameters.max_groups,
        "fits": [fit_as_json(one) for one in parameters.fits] or None,
    }
