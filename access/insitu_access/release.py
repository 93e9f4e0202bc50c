"""What a node answers, signed over the exact bytes: a release, a refusal, or a statement of the budget.

Each names its node and, by SHA-256, the very request it answers, so that a gateway can neither forge nor swap
answers. Only noisy integers travel. Numbered checks of ``open_outcome``; whichever fails, the error is
IntegrityFailed INSITU-VERIFY-RELEASE with the reason:

  O1  it is a release, refusal or statement token within its size limit (``jose`` J1 to J3)
  O2  a key of the node in the manifest signed it (J4, J5)
  O3  its form is exact: integers are integers below 2^63, every statistic has one value per cell
  O4  it names the node whose key signed it

Not here: whether it answers the caller's request and plan (the caller compares ``request_sha256`` and
``plan_digest``), whether the shape fits the plan (``insitu_privacy.merge``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from insitu_privacy.errors import AccessRefused, InsituError, IntegrityFailed

from insitu_access.jose import Typ, refusing_malformed, sign, unverified_typ, verify
from insitu_access.keys import SigningKey, VerifyingKey
from insitu_access.outcome import TEXT_LIMIT, BudgetRow, BudgetStatement, NodeRelease, Outcome, Refusal
from insitu_access.outcome_json import read_outcome, read_values, values_as_json, write_outcome

__all__ = [
    "BudgetRow",
    "BudgetStatement",
    "NodeRelease",
    "Outcome",
    "Refusal",
    "open_outcome",
    "outcome_typ",
    "read_outcome",
    "read_values",
    "refusal_of",
    "seal_outcome",
    "values_as_json",
]

TYP_OF: Mapping[type, Typ] = MappingProxyType(
    {
        NodeRelease: "insitu-release+jws",
        Refusal: "insitu-refusal+jws",
        BudgetStatement: "insitu-statement+jws",
    }
)


def refusal_of(error: InsituError, *, node: str, request_id: str, request_sha256: str, issued_at: datetime) -> Refusal:
    """The refusal that reports ``error``; overlong texts are cut."""
    return Refusal(
        node=node,
        request_id=request_id,
        request_sha256=request_sha256,
        code=error.code,
        text=_cut(error.text),
        remedy=_cut(error.remedy),
        span=error.span,
        issued_at=issued_at,
    )


def seal_outcome(outcome: Outcome, key: SigningKey) -> str:
    """The outcome signed by the node; the token's type follows its class."""
    with refusing_malformed("outcome"):
        return sign(write_outcome(outcome), key, TYP_OF[type(outcome)])


def open_outcome(token: str, node_key: VerifyingKey | Sequence[VerifyingKey], *, node: str) -> Outcome:
    """The outcome that ``node`` signed with ``node_key``, its key in the manifest, or one of several while it changes.

    Raises IntegrityFailed INSITU-VERIFY-RELEASE.
    """
    typ = outcome_typ(token)  # O1
    if typ is None:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it is not an outcome token")
    keys = [node_key] if isinstance(node_key, VerifyingKey) else node_key
    try:
        outcome = read_outcome(verify(token, keys, typ, "outcome"), typ)  # O2, O3
    except AccessRefused as error:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason=error.text) from error
    if outcome.node != node:  # O4
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it names another node")
    return outcome


def outcome_typ(token: str) -> Typ | None:
    """The outcome type that a token claims, unverified; None for anything else."""
    claimed = unverified_typ(token)
    return next((typ for typ in TYP_OF.values() if typ == claimed), None)


def _cut(text: str) -> str:
    # cut by bytes, and lone surrogates (SQL from a broken terminal) become "?"
    return text.encode(errors="replace")[:TEXT_LIMIT].decode(errors="ignore")
