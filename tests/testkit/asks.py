"""Builders of ledger values for tests: small, readable, all defaults given."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from fractions import Fraction

from insitu_node.ledger import Ask
from insitu_privacy.accounting import Grantable
from insitu_privacy.plan import Loss, ReleasedValues

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def laplace_loss(epsilon: Fraction | int | str, threshold_delta: Fraction | int | str = 0) -> Loss:
    exact, delta = Fraction(epsilon), Fraction(threshold_delta)
    return Loss(epsilon=exact, delta=delta, rho=exact**2 / 2, threshold_delta=delta, pure=exact)


def gaussian_loss(rho: Fraction | int | str, threshold_delta: Fraction | int | str = 0) -> Loss:
    delta = Fraction(threshold_delta)
    return Loss(epsilon=Fraction(1), delta=Fraction(1, 10**7), rho=Fraction(rho), threshold_delta=delta, pure=None)


def grantable(epsilon: Fraction | int | str = 1, delta: str = "1e-6", accounting: str = "pure") -> Grantable:
    assert accounting in ("pure", "zcdp")
    return Grantable(
        epsilon=Fraction(epsilon), delta=Fraction(delta), accounting="pure" if accounting == "pure" else "zcdp"
    )


def ask(
    request_id: str,
    *,
    epsilon: Fraction | int | str = "1/10",
    plan: str | None = None,
    grant: str = "grant-1",
    dataset: str = "care",
    sha: str | None = None,
    loss: Loss | None = None,
    budget: Grantable | None = None,
) -> Ask:
    """A request of its own canonical query, unless ``plan`` names a shared one."""
    return Ask(
        request_id=request_id,
        request_sha256=sha or hashlib.sha256(request_id.encode()).hexdigest(),
        grant_id=grant,
        budget=budget or grantable(),
        dataset=dataset,
        plan_digest=plan or f"plan of {request_id}",
        loss=loss or laplace_loss(epsilon),
    )


def values(number: int) -> tuple[ReleasedValues, ...]:
    """Released values that can be told apart by ``number``."""
    return (
        ReleasedValues(keys=None, statistics=((number, -number), (2**62, 0))),
        ReleasedValues(keys=((None, True, 1.5, "é", 7),), statistics=((number,),)),
    )
