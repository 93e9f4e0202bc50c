"""What the nodes say is spent and left of a grant. Their ledgers are the authority; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from insitu.result import NodeStatus

if TYPE_CHECKING:
    from insitu.verification import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One account: a dataset at a node."""

    node: str
    dataset: str
    epsilon_spent: Fraction
    epsilon_left: Fraction
    delta_spent: Fraction
    delta_left: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Every account of a grant at the nodes that answered; ``missing`` says who did not."""

    grant: str
    lines: tuple[BudgetLine, ...]
    missing: tuple[NodeStatus, ...]

    def least_left(self, dataset: str) -> BudgetLine | None:
        """The account of a dataset that has least epsilon left; None where no node told."""
        lines = [line for line in self.lines if line.dataset == dataset]
        return min(lines, key=lambda line: line.epsilon_left, default=None)

    def covers(self, dataset: str, epsilon: Mapping[str, Fraction], delta: Fraction) -> bool:
        """Whether the account of a dataset at each node has so much left, epsilon by node. Under zCDP a little more
        than that may be admitted."""
        lines = [line for line in self.lines if line.dataset == dataset and line.node in epsilon]
        return all(line.epsilon_left >= epsilon[line.node] and line.delta_left >= delta for line in lines)

    def to_json(self) -> dict[str, Any]:
        """The JSON document of the `budget` command."""
        return {
            "grant": self.grant,
            "nodes": [
                {
                    "id": line.node,
                    "dataset": line.dataset,
                    "epsilon_spent": float(line.epsilon_spent),
                    "epsilon_left": float(line.epsilon_left),
                    "delta_spent": float(line.delta_spent),
                    "delta_left": float(line.delta_left),
                }
                for line in self.lines
            ],
            "missing": [{"id": node.id, "status": node.status, "code": node.code} for node in self.missing],
        }

    def __str__(self) -> str:
        from insitu.output_facts import budget_text

        return budget_text(self)

    def __repr__(self) -> str:
        """What a notebook shows: the text, rather than the fields."""
        return str(self)


def budget_of(grant: str, answers: Sequence[Answer]) -> Budget:
    """The budget from verified answers."""
    from insitu_access.release import BudgetStatement

    lines = tuple(
        BudgetLine(
            node=answer.status.id,
            dataset=row.dataset,
            epsilon_spent=row.epsilon_spent,
            epsilon_left=row.epsilon_left,
            delta_spent=row.delta_spent,
            delta_left=row.delta_left,
        )
        for answer in answers
        if isinstance(answer.opened, BudgetStatement)
        for row in answer.opened.rows
    )
    return Budget(
        grant=grant,
        lines=lines,
        missing=tuple(answer.status for answer in answers if answer.status.status != "released"),
    )
