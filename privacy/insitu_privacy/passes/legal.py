"""The legal rules of the dataset, checked on the releases of a query, before anything is spent. Pure.

D1  of the dataset's potential identifiers, no more are used in one query than it allows
D2  no column that is never to be released stands in a group key, or in what is summed or put in order

The SDK and every node plan, and so check, by themselves. Both rules are of one query as a whole: its releases count
together, for their results can be joined. What is not here: purposes (``insitu_privacy.purposes``, D3); what a project
may see in several queries, which its grant says by naming columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from insitu_privacy.errors import LegalRefused
from insitu_privacy.language import Phrase
from insitu_privacy.passes.reads import Asked, uses_of
from insitu_privacy.passes.spans import span_of
from insitu_privacy.rules import ColumnName, Rules


def check(rules: Rules, releases: Sequence[Asked], tree: exp.Expr) -> None:
    """Raises LegalRefused (INSITU-LEGAL-IDENTIFIERS, INSITU-LEGAL-NEVER-RELEASED). ``tree`` is what is underlined."""
    if not rules.identifiers and not rules.never_released:
        return
    uses = uses_of(releases, rules.never_released)
    crossed = rules.crossed(uses.reads)
    if len(crossed) > rules.at_most_identifiers:  # D1
        _, columns = list(crossed.items())[rules.at_most_identifiers]
        raise LegalRefused(
            "INSITU-LEGAL-IDENTIFIERS",
            span=span_of(_written(tree, columns[-1])),
            count=len(crossed),
            limit=rules.at_most_identifiers,
            what=_listed(crossed),
        )
    if shown := sorted((uses.in_keys | uses.in_values) & rules.never_released):  # D2
        raise LegalRefused(
            "INSITU-LEGAL-NEVER-RELEASED", span=span_of(_written(tree, shown[0])), name=".".join(shown[0])
        )


def _listed(crossed: dict[Phrase, tuple[ColumnName, ...]]) -> Phrase:
    """Identifiers in both languages, each with the columns by which it is used."""
    columns = [" + ".join(".".join(name) for name in names) for names in crossed.values()]
    return Phrase(
        *(
            "; ".join(f"{name.said(language)} ({by})" for name, by in zip(crossed, columns, strict=True))
            for language in ("en", "fr")
        )
    )


def _written(tree: exp.Expr, name: ColumnName) -> exp.Expr | None:
    """Where the query names a column first; None where it does not, as under a star."""
    places = [node for node in tree.find_all(exp.Column) if node.name == name[1] and "start" in node.this.meta]
    return min(places, key=lambda node: int(node.this.meta["start"]), default=None)
