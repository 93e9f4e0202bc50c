"""Hypothesis strategies for signed objects: any value that the domain classes accept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from insitu_access.grant import Grant, GrantedDataset
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import DatasetEntry, GatewayEntry, Manifest, NodeEntry
from insitu_access.release import BudgetRow, BudgetStatement, NodeRelease, Refusal
from insitu_access.request import BudgetRequest, QueryRequest
from insitu_privacy.errors import Span
from insitu_privacy.plan import QueryParameters, ReleasedValues

quick = settings(deadline=None, max_examples=40)
"""No deadline: cores are shared by many tests, and what is tested is the code, not the machine."""

KEYS = [generate_signing_key().public() for _ in range(6)]

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
columns = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
shas = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
uuids = st.uuids().map(lambda value: value.hex)
lines = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=50)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
moments = st.integers(0, 4 * 10**9).map(lambda second: datetime.fromtimestamp(second, UTC))
spans_of_time = st.tuples(moments, st.integers(1, 10**9)).map(
    lambda pair: (pair[0], pair[0] + timedelta(seconds=pair[1]))
)
jurisdictions = st.sampled_from(["FR", "DE", "FR-BRE"])
epsilons = st.fractions(min_value=0, max_value=10**12).filter(lambda value: value > 0)
deltas = st.fractions(min_value=0, max_value=1).filter(lambda value: value < 1)
integers = st.integers(-(2**63) + 1, 2**63 - 1)


def unique_names(min_size: int = 1):
    return st.lists(names, min_size=min_size, max_size=4, unique_by=str.casefold).map(tuple)


@st.composite
def manifests(draw) -> Manifest:
    start, end = draw(spans_of_time)
    node_ids, gateway_ids, datasets = draw(unique_names(0)), draw(unique_names(0)), draw(unique_names(0))
    keys = draw(st.permutations(KEYS))
    return Manifest(
        federation=draw(names),
        version=draw(st.integers(1, 2**53 - 1)),
        issued_at=start,
        expires_at=end,
        authority_keys=tuple(draw(st.lists(st.sampled_from(KEYS), min_size=1, unique=True))),
        ca_pem=draw(texts),
        nodes=tuple(
            NodeEntry(id=each, organisation=draw(lines), jurisdiction=draw(jurisdictions), key=key)
            for each, key in zip(node_ids, keys, strict=False)
        ),
        gateways=tuple(
            GatewayEntry(id=each, address="[::1]:7443", operator=draw(lines), jurisdiction=draw(jurisdictions))
            for each in gateway_ids
        ),
        datasets=tuple(
            DatasetEntry(name=each, version=draw(st.integers(1, 99)), digest=draw(shas)) for each in datasets
        ),
        revoked_grants=frozenset(draw(st.lists(names, max_size=4))),
        jurisdictions=frozenset(draw(st.lists(st.sampled_from(["FR", "DE", "EU"]), max_size=3))),
    )


granted_tables = st.none() | st.dictionaries(
    columns, st.none() | st.frozensets(columns, min_size=1, max_size=3), min_size=1, max_size=3
)


@st.composite
def grants(draw) -> Grant:
    start, end = draw(spans_of_time)
    return Grant(
        id=draw(names),
        federation=draw(names),
        project=draw(lines),
        purpose=draw(lines),
        reference=draw(lines),
        researchers=tuple(draw(st.lists(st.sampled_from(KEYS), min_size=1, unique=True))),
        datasets=tuple(GrantedDataset(name=each, tables=draw(granted_tables)) for each in draw(unique_names())),
        nodes=draw(unique_names()),
        not_before=start,
        expires_at=end,
        epsilon=draw(epsilons),
        delta=draw(deltas),
        accounting=draw(st.sampled_from(["zcdp", "pure"])),
    )


parameters = st.builds(
    QueryParameters,
    epsilon=epsilons,
    delta=deltas,
    mechanism=st.sampled_from(["auto", "laplace", "gaussian"]),
    max_rows_per_group=st.none() | st.integers(1, 2**53 - 1),
    max_groups=st.none() | st.integers(1, 2**53 - 1),
)


@st.composite
def requests(draw) -> QueryRequest | BudgetRequest:
    start, end = draw(spans_of_time)
    common = {
        "request_id": draw(uuids), "grant_id": draw(names), "grant_sha256": draw(shas), "nodes": draw(unique_names()),
        "issued_at": start, "deadline": end,
    }  # fmt: skip
    if draw(st.booleans()):
        return BudgetRequest(**common)
    return QueryRequest(
        **common,
        dataset=draw(names),
        dataset_digest=draw(shas),
        sql=draw(texts),
        dialect=draw(st.sampled_from(["duckdb", "postgres", "oracle"])),
        parameters=draw(parameters),
        plan_digest=draw(shas),
        min_nodes=draw(st.integers(1, len(common["nodes"]))),
    )


scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts


@st.composite
def released_values(draw) -> ReleasedValues:
    cells = draw(st.integers(0, 5))
    width = draw(st.integers(1, 3))
    statistic = st.lists(integers, min_size=cells, max_size=cells).map(tuple)
    key = st.lists(scalars, min_size=width, max_size=width).map(tuple)
    told_apart = st.lists(key, min_size=cells, max_size=cells, unique_by=lambda parts: tuple(map(repr, parts)))
    keys = draw(st.none() | told_apart.map(tuple))
    return ReleasedValues(keys=keys, statistics=tuple(draw(st.lists(statistic, max_size=3))))


@st.composite
def outcomes(draw) -> NodeRelease | Refusal | BudgetStatement:
    common = {
        "node": draw(names), "request_id": draw(uuids), "request_sha256": draw(shas), "issued_at": draw(moments),
    }  # fmt: skip
    kind = draw(st.sampled_from(["release", "refusal", "statement"]))
    if kind == "refusal":
        span = draw(st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)).map(sorted))
        where = None if span is None else Span(start=span[0], end=span[1])
        return Refusal(**common, code="INSITU-SQL-SYNTAX", text=draw(texts), remedy=draw(texts), span=where)
    if kind == "statement":
        rows = (
            BudgetRow(
                dataset=each,
                epsilon_spent=draw(epsilons),
                epsilon_left=draw(epsilons),
                delta_spent=draw(deltas),
                delta_left=draw(deltas),
            )
            for each in draw(unique_names(0))
        )
        return BudgetStatement(**common, grant_id=draw(names), rows=tuple(rows))
    return NodeRelease(
        **common,
        grant_id=draw(names),
        dataset=draw(names),
        dataset_digest=draw(shas),
        plan_digest=draw(shas),
        values=tuple(draw(st.lists(released_values(), max_size=3))),
        spent_epsilon=draw(epsilons),
        spent_delta=draw(deltas),
        replayed=draw(st.booleans()),
    )
