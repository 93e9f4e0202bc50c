"""SQL text to privacy plan: ``analysis`` says what is asked, pass 9 adds the noise. One planner serves all parties.

Pure: the same text, dataset, parameters and scope give the same plan everywhere, byte for byte in its digest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from fractions import Fraction

from insitu_privacy.analysis import Analysis, analyse
from insitu_privacy.dataset import Dataset
from insitu_privacy.errors import AccessRefused, ParameterRefused, Refused, SqlRefused
from insitu_privacy.passes.lift import published
from insitu_privacy.passes.mechanisms import Demand, Noise, mechanisms
from insitu_privacy.passes.parse import SQL_DEPTH
from insitu_privacy.passes.spans import balanced
from insitu_privacy.plan import PrivacyPlan, PublicTable, QueryParameters, Release, Scope, composed
from insitu_privacy.result_kinds import result_kinds

# Nesting of SQL_DEPTH levels takes some 7,000 frames: whether a query is too deep may not depend on who plans it where.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))

EPSILON_RANGE = (Fraction(1, 10**9), Fraction(10**30))
DELTA_LEAST = Fraction(1, 10**30)
_SHOWN = 24


def plan_query(
    sql: str,
    *,
    dialect: str,
    dataset: Dataset,
    parameters: QueryParameters,
    scope: Scope,
    today: date | None = None,
) -> PrivacyPlan:
    """The plan of one query; ``today`` is the day that its CURRENT_DATE means, that of the request's signature (UTC).

    Raises SqlRefused, LegalRefused, ParameterRefused or AccessRefused, before anything is spent.
    """
    _check(parameters)
    try:
        analysis = analyse(sql, dialect=dialect, dataset=dataset, parameters=parameters, scope=scope, today=today)
    except RecursionError:
        raise SqlRefused("INSITU-SQL-TOO-DEEP", limit=SQL_DEPTH) from None
    except Refused as refused:
        if refused.span is not None:
            refused.span = balanced(sql, refused.span)
        raise
    plan = _with_noise(analysis, _noises(analysis, parameters, scope), dataset, max(dataset.min_units, scope.min_units))
    _check_results(plan, scope)
    return plan


def _noises(analysis: Analysis, parameters: QueryParameters, scope: Scope) -> list[Noise]:
    """The noise of each release. The releases of a query share epsilon as their weights say, and delta equally.

    Without weights of the request's own, each has an equal part.
    """
    count = len(analysis.releases)
    if not count:
        return []
    weights = [sum(one.weights) if parameters.fits else 1 for one in analysis.releases]
    shares = [
        replace(parameters, epsilon=parameters.epsilon * weight / sum(weights), delta=parameters.delta / count)
        for weight in weights
    ]
    return [
        mechanisms(
            Demand(
                measured=one.measured,
                values=one.measured_values,
                weights=one.weights,
                bounds=one.bounds,
                selects_keys=one.selects_keys,
                parameters=share,
                accounting=scope.accounting,
            )
        )
        for one, share in zip(analysis.releases, shares, strict=True)
    ]


def _check(parameters: QueryParameters) -> None:
    if not EPSILON_RANGE[0] <= parameters.epsilon <= EPSILON_RANGE[1]:
        raise ParameterRefused("INSITU-PARAM-EPSILON", value=_shown(parameters.epsilon))
    if parameters.delta != 0 and not DELTA_LEAST <= parameters.delta < 1:
        raise ParameterRefused("INSITU-PARAM-DELTA", value=_shown(parameters.delta))


def _shown(value: Fraction) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _published(name: str, dataset: Dataset) -> PublicTable:
    table = dataset.tables[name]
    assert table.source is not None
    columns = tuple((column.name, column.type) for column in table.columns.values())
    return PublicTable(name=published(name), columns=columns, source=table.source, content=dataset.files[table.source])


def _check_results(plan: PrivacyPlan, scope: Scope) -> None:
    refused = sorted(result_kinds(plan) - (scope.results if scope.results is not None else result_kinds(plan)))
    if refused:
        allowed = ", ".join(sorted(scope.results or ()))
        raise AccessRefused("INSITU-ACCESS-RESULTS", kind=", ".join(refused), known=allowed)


def _with_noise(analysis: Analysis, noises: Sequence[Noise], dataset: Dataset, min_units: int) -> PrivacyPlan:
    releases = tuple(
        Release(
            name=one.name,
            relation=one.relation,
            values=one.values,
            value_types=one.value_types,
            keys=one.keys,
            statistics=noise.statistics,
            bounds=one.bounds,
            mechanism=noise.mechanism,
            threshold=noise.threshold,
            tree=one.tree,
            suppress_below=min_units,
            one_row_per_unit=one.one_row_per_unit,
        )
        for one, noise in zip(analysis.releases, noises, strict=True)
    )
    return PrivacyPlan(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        releases=releases,
        loss=composed([noise.loss for noise in noises]),
        nodes_per_unit=dataset.nodes_per_unit,
        postprocessing=analysis.postprocessing,
        rows_are_cells=analysis.rows_are_cells,
        copies_sql=analysis.copies_sql,
        output=analysis.output,
        quantiles=analysis.quantiles,
        by_node=analysis.by_node,
        public=tuple(_published(name, dataset) for name in analysis.public),
    )
