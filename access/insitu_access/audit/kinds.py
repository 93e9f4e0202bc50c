"""What an audit log may say: every kind of entry with its fields, exactly; nothing else can be written or is believed.

The vocabulary is closed so that no value of a database, no count, duration or message finds its way into a log by a
careless call: fields are identifiers, hashes, codes, exact losses and the words of requests and decisions. Free text
of a researcher or of a site (SQL) stands in an entry's detail, which a copy for others leaves out (``entry``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from insitu_access.invariants import check, check_line, check_sha256
from insitu_access.payload import Malformed, read_number

Check = Callable[[object, str], None]
ROLES = ("node", "gateway", "authority")


def _line(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise Malformed(f"{what} must be text")
    check_line(value, what)


def _sha256(value: object, what: str) -> None:
    _line(value, what)
    check_sha256(str(value), what)


def _number(value: object, what: str) -> None:
    check(isinstance(value, str) and read_number(value) is not None, f"{what} must be an exact number as text")


def _integer(value: object, what: str) -> None:
    check(type(value) is int and 0 <= value < 2**53, f"{what} must be a whole number")


def _flag(value: object, what: str) -> None:
    check(isinstance(value, bool), f"{what} must be true or false")


def _token(value: object, what: str) -> None:
    check(isinstance(value, str) and value.isascii() and len(value) <= 2**12, f"{what} must be a short token")


def _maybe(each: Check) -> Check:
    def optional(value: object, what: str) -> None:
        if value is not None:
            each(value, what)

    return optional


def _list(each: Check) -> Check:
    def items(value: object, what: str) -> None:
        if not isinstance(value, (list, tuple)):
            raise Malformed(f"{what} must be a list")
        for item in value:
            each(item, what)

    return items


def _table(each: Check) -> Check:
    def pairs(value: object, what: str) -> None:
        if not isinstance(value, Mapping):
            raise Malformed(f"{what} must be an object")
        for name, item in value.items():
            _line(name, what)
            each(item, what)

    return pairs


_REQUEST: Mapping[str, Check] = {"request_id": _line, "request_sha256": _sha256}
_LOSS: Mapping[str, Check] = {
    "epsilon": _number, "delta": _number, "rho": _number, "threshold_delta": _number, "pure": _maybe(_number),
}  # fmt: skip
_MANIFEST: Mapping[str, Check] = {"manifest_version": _integer, "manifest_sha256": _maybe(_sha256)}
_STARTED: Mapping[str, Check] = {"software": _line, "config_sha256": _sha256, "key": _line, **_MANIFEST}
_AGREED: Mapping[str, Check] = {"charges": _integer, "open_charges": _list(_integer)}

# the log itself
_OF_ALL: Mapping[str, Mapping[str, Check]] = {
    "log-begun": {"role": _line, "id": _line, "key": _line},
    "log-repaired": {"cut_bytes": _integer},
    "log-dropped": {"first": _integer, "previous": _sha256},
    "clock-set-back": {"before": _integer},
    "seal": {"jws": _token},
    "key-changed": {"former": _line, "key": _line},
    "exported": {"by": _line, "details": _flag},
    "administered": {"by": _line, "command": _line, "about": _table(_line)},
}
_OF_NODE: Mapping[str, Mapping[str, Check]] = {
    "node-started": {**_STARTED, "datasets": _table(_sha256), **_AGREED},
    "node-stopped": {},
    "manifest-accepted": {"version": _integer, "sha256": _sha256},
    "manifest-refused": {"code": _line, "sha256": _sha256},
    "gateway-refused": {"gateway": _line, "code": _line, "certificate_sha256": _sha256, "country": _maybe(_line)},
    "ledger-agreed": _AGREED,
    "request-received": {
        **_REQUEST, "grant_sha256": _sha256, "claimed_grant": _maybe(_line), "claimed_researcher": _maybe(_line),
    },
    "request-admitted": {
        **_REQUEST, "grant_id": _line, "grant_sha256": _sha256, "project": _line, "purpose": _line, "reference": _line,
        "researcher": _line, "dataset": _maybe(_line), "plan_digest": _maybe(_sha256),
    },
    "charge-reserved": {
        "charge": _integer, "request_id": _line, "grant_id": _line, "dataset": _line, "plan_digest": _sha256, **_LOSS,
        "grant_expires": _maybe(_integer), "derived": _flag,
    },
    "charge-resumed": {"charge": _integer, "request_id": _line},
    "charge-joined": {"charge": _integer, "request_id": _line},
    "sql-run": {"charge": _integer, "request_id": _line, "statements": _integer},
    "charge-settled": {"charge": _integer, "state": _line, "derived": _flag},
    "profile-made": {
        "charge": _integer, "dataset": _line, "dataset_digest": _sha256, "serial": _integer, "sha256": _sha256,
    },
    "answered": {
        **_REQUEST, "outcome": _line, "code": _maybe(_line), "outcome_sha256": _sha256, "replayed": _flag,
        "spent_epsilon": _maybe(_number), "spent_delta": _maybe(_number),
    },
}  # fmt: skip
_OF_GATEWAY: Mapping[str, Mapping[str, Check]] = {
    "gateway-started": _STARTED,
    "gateway-stopped": {},
    "manifest-changed": {"version": _integer, "sha256": _sha256},
    "node-connected": {"node": _line, "software": _maybe(_line), "manifest_version": _integer},
    "node-disconnected": {"node": _line},
    "request-accepted": {
        **_REQUEST, "grant_id": _line, "grant_sha256": _sha256, "owner": _line, "nodes": _list(_line), "resumed": _flag,
    },
    "request-refused": {"request_sha256": _sha256, "owner": _line, "code": _line},
    "task-sent": {"request_id": _line, "node": _line},
    "outcome-received": {"request_id": _line, "node": _line, "status": _line, "code": _maybe(_line),
                         "outcome_sha256": _sha256},
    "request-finished": {"request_id": _line, "outcomes": _table(_line), "result_sha256": _maybe(_sha256)},
    "result-delivered": {"request_id": _line, "owner": _line, "fetched": _flag},
}  # fmt: skip
_OF_AUTHORITY: Mapping[str, Mapping[str, Check]] = {
    "certified": {
        "role": _line, "id": _line, "key": _maybe(_table(_line)), "certificate_sha256": _sha256, "replaced": _flag,
        "former_until": _maybe(_integer),
    },
    "manifest-published": {
        "version": _integer, "sha256": _maybe(_sha256), "revoked": _list(_line), "suspended": _list(_line),
        "derived": _flag,
    },
    "grant-issued": {
        "grant_id": _line, "revision": _integer, "sha256": _sha256, "project": _line, "purpose": _maybe(_line),
        "reference": _maybe(_line), "researchers": _list(_line), "nodes": _list(_line), "datasets": _list(_line),
        "epsilon": _maybe(_number), "delta": _maybe(_number), "expires": _integer, "derived": _flag,
    },
    "grant-revoked": {"grant_id": _line, "derived": _flag},
    "grant-suspended": {"grant_id": _line, "suspended": _flag, "derived": _flag},
}  # fmt: skip

KINDS: Mapping[str, Mapping[str, Mapping[str, Check]]] = MappingProxyType(
    {
        "node": {**_OF_ALL, **_OF_NODE},
        "gateway": {**_OF_ALL, **_OF_GATEWAY},
        "authority": {**_OF_ALL, **_OF_AUTHORITY},
    }
)
"""By role: kind, and the check of each of its fields."""

DETAILS: Mapping[str, Mapping[str, Check]] = MappingProxyType(
    {"request-admitted": {"sql": _maybe(lambda v, w: check(isinstance(v, str), w)), "dialect": _maybe(_line)},
     "sql-run": {"statements": _list(lambda v, w: check(isinstance(v, str), w))}}
)  # fmt: skip
"""The kinds that have a detail, and its fields beside the salt."""


def check_entry(role: str, kind: str, fields: Mapping[str, object], detail: Mapping[str, object] | None) -> None:
    """Raise Malformed unless ``role`` may write exactly this."""
    known = KINDS[role].get(kind)
    if known is None:
        raise Malformed(f"{kind} is no kind of entry of a {role}")
    _check(kind, known, fields)
    if detail is not None:
        check(kind in DETAILS, f"{kind} has no detail")
        _check(f"detail of {kind}", {**DETAILS[kind], "salt": _line}, detail)


def _check(what: str, known: Mapping[str, Check], fields: Mapping[str, object]) -> None:
    check(known.keys() == fields.keys(), f"{what} must have exactly its fields")
    for name, value in fields.items():
        known[name](value, f"{what}.{name}")
