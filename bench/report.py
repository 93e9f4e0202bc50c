"""The benchmark's tables for people and ``results.json`` for machines, from the same values."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.accuracy import PROFILE_EPSILON, Accuracy
from bench.coverage import Tried
from bench.gateway import NODES, RESEARCHERS, GatewayReport, RoundTrip, asked
from bench.held import Held
from bench.queries import Dialect
from bench.speed import Speed
from bench.timing import percentile

RESULTS = Path(__file__).parent / "results.json"
Json = dict[str, Any]
_ENGINES: Mapping[Dialect, str] = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}


def speed_table(speeds: Sequence[Speed], claims: int) -> Table:
    """One engine's queries; times in milliseconds."""
    table = Table(
        title=f"{_ENGINES[speeds[0].engine]}, {claims:,} claims: node time (statement and noise), warm medians"
    )
    table.add_column("query")
    table.add_column("")
    for name in ("plain ms", "hand-written ms", "node ms", "node / plain", "node / hand-written", "planning ms"):
        table.add_column(name, justify="right")
    for one in speeds:
        node = "refused" if one.refused else _ms(one.node)
        title = f"{one.query.title}: {one.refused}" if one.refused else one.query.title
        ratios = (_times(one.ratio), _times(one.ratio_to_handwritten))
        table.add_row(one.query.name, title, _ms(one.plain), _ms(one.handwritten), node, *ratios, _ms(one.planning))
    return table


def gateway_tables(report: GatewayReport) -> Iterable[Table]:
    """Round trips per query, then the totals beside the floor; times in milliseconds."""
    trips = Table(title=f"{len(NODES)} nodes, sequential round trips, medians")
    trips.add_column("query")
    for name in ("whole SDK call ms", "on the wire ms", "slowest node ms", "gateway overhead ms", "SDK overhead ms"):
        trips.add_column(name, justify="right")
    for query in asked():
        mine = [trip for trip in report.round_trips if trip.query is query]
        columns = (_sdk, _wire, _node, _overhead, _sdk_overhead)
        trips.add_row(query.name, *(_ms(statistics.median(map(column, mine))) for column in columns))
    yield trips
    totals = Table(title=f"{len(NODES)} nodes, all queries")
    for name in ("", "p50 ms", "p99 ms", f"queries a second, {RESEARCHERS} researchers"):
        totals.add_column(name, justify="right" if name else "left")
    all_trips = report.round_trips
    totals.add_row(
        "gateway overhead (wire - slowest node)",
        *_spread(map(_overhead, all_trips)),
        f"{report.queries_per_second:.1f}",
    )
    totals.add_row("SDK overhead (whole call - slowest node)", *_spread(map(_sdk_overhead, all_trips)), "")
    floor = report.floor
    totals.add_row("floor: bare gRPC", *_spread(floor.round_trips), f"{floor.queries_per_second:.1f}")
    totals.add_row("floor: gateway to nodes and back alone", *_spread(floor.fan_outs), "")
    yield totals


def speed_json(speeds: Sequence[Speed]) -> Json:
    """``speed.<engine>``: answered queries."""
    return {
        one.query.name: {
            "seconds": one.node,
            "plain_seconds": one.plain,
            "ratio": one.ratio,
            "handwritten_seconds": one.handwritten,
            "ratio_to_handwritten": one.ratio_to_handwritten,
            "planning_seconds": one.planning,
        }
        for one in speeds
        if one.refused is None
    }


def refused_json(speeds: Sequence[Speed]) -> Json:
    """``refused.<engine>``: the code of each query that the language has not got, and what it takes plainly."""
    return {one.query.name: {"code": one.refused, "plain_seconds": one.plain} for one in speeds if one.refused}


def gateway_json(report: GatewayReport) -> Json:
    """``gateway.<nodes>``."""
    overheads = sorted(map(_overhead, report.round_trips))
    whole = sorted(map(_sdk_overhead, report.round_trips))
    floor = report.floor
    return {
        "overhead_ms_p50": 1000 * percentile(overheads, 0.5),
        "overhead_ms_p99": 1000 * percentile(overheads, 0.99),
        "sdk_overhead_ms_p50": 1000 * percentile(whole, 0.5),
        "sdk_overhead_ms_p99": 1000 * percentile(whole, 0.99),
        "queries_per_second": report.queries_per_second,
        "floor_queries_per_second": floor.queries_per_second,
        "floor_ms_p50": 1000 * percentile(list(floor.round_trips), 0.5),
        "floor_fan_out_ms_p50": 1000 * percentile(list(floor.fan_outs), 0.5),
        "researchers": RESEARCHERS,
        "queries": {
            query.name: {
                "sdk_seconds": statistics.median(_sdk(trip) for trip in report.round_trips if trip.query is query),
                "wire_seconds": statistics.median(_wire(trip) for trip in report.round_trips if trip.query is query),
                "slowest_node_seconds": statistics.median(
                    _node(trip) for trip in report.round_trips if trip.query is query
                ),
            }
            for query in asked()
        },
    }


def accuracy_table(measured: Sequence[Accuracy], claims: int) -> Table:
    """Each query at each epsilon; shares of the truth."""
    title = f"{claims:,} claims: error against the unclipped truth, median over groups of the worst column"
    table = Table(title=f"{title}; bounds from profiles at epsilon {float(PROFILE_EPSILON):g}")
    for name in ("query", "", "nodes", "epsilon", "total error", "noise", "bias", "released", "column", "bounds"):
        table.add_column(name, justify="left" if name in ("query", "", "column", "bounds") else "right")
    for one in measured:
        shares = [f"{share:.2%}" for share in (one.total_error, one.noise, one.bias)]
        table.add_row(
            one.query.name,
            one.query.title,
            str(one.nodes),
            f"{float(one.epsilon):g}",
            *shares,
            f"{one.released:.0%}",
            one.column,
            one.bounds,
        )
    return table


def accuracy_json(measured: Sequence[Accuracy]) -> Json:
    """``accuracy.<query>``: epsilon 1 on one node, and beside it every other measurement."""
    found: Json = {}
    for one in measured:
        figures = {"total_error": one.total_error, "noise": one.noise, "bias": one.bias, "released": one.released}
        place = found.setdefault(one.query.name, {})
        place.setdefault("all", {})[f"{float(one.epsilon):g}, {one.nodes} node(s)"] = figures
        if one.epsilon == 1 and one.nodes == 1:
            place |= figures | {"column": one.column, "bounds": one.bounds}
    return found


def coverage_tables(tried: Sequence[Tried]) -> list[Table]:
    """What is planned of the query collection, by source, and what the rest is refused for."""
    shares = Table(title="Queries of the collection that are planned")
    for name in ("source", "queries", "planned"):
        shares.add_column(name, justify="left" if name == "source" else "right")
    for collection in [*sorted({one.collection for one in tried}), "all"]:
        own = [one for one in tried if collection in (one.collection, "all")]
        planned = sum(one.code is None for one in own)
        shares.add_row(collection, str(len(own)), f"{100 * planned / len(own):.0f}%")
    reasons = Table(title="What the others are refused for")
    for name in ("code", "what", "queries"):
        reasons.add_column(name, justify="right" if name == "queries" else "left")
    for (code, text), number in Counter((one.code, one.text) for one in tried if one.code).most_common(20):
        reasons.add_row(code, text[:90], str(number))
    return [shares, reasons]


def intervals_table(measured: Sequence[Held]) -> Table:
    """How often the intervals of each column held the noise-free value."""
    table = Table(
        title=f"95% intervals at ε = 1 over three sites, {max((one.runs for one in measured), default=0)} runs"
    )
    for name in ("query", "column", "cells", "no interval", "held", "or none", "value below", "value above", ""):
        table.add_column(name, justify="left" if name in ("query", "column", "") else "right")
    for one in measured:
        table.add_row(
            one.query,
            one.column,
            f"{one.cells:,}",
            _percent(one.cells - one.bounded, one.cells),
            _percent(one.inside, one.bounded),
            _percent(one.inside + one.cells - one.bounded, one.cells),
            _percent(one.below, one.bounded),
            _percent(one.above, one.bounded),
            one.verdict,
        )
    return table


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else ""


def machine_json() -> Json:
    """What the numbers were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
    }


def write(results: Json) -> None:
    """Writes ``results.json``. Parts that were not measured this time stay as they were."""
    old: Json = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in ("speed", "refused", "gateway", "coverage", "intervals"):
        results[part] = old.get(part, {}) | results.get(part, {})
    RESULTS.write_text(json.dumps(old | results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def show(console: Console, tables: Iterable[Table]) -> None:
    """Prints tables."""
    for table in tables:
        console.print(table)
        console.print()


def _sdk(trip: RoundTrip) -> float:
    return trip.sdk


def _wire(trip: RoundTrip) -> float:
    return trip.wire


def _node(trip: RoundTrip) -> float:
    return trip.slowest_node


def _overhead(trip: RoundTrip) -> float:
    return trip.wire - trip.slowest_node


def _sdk_overhead(trip: RoundTrip) -> float:
    return trip.sdk - trip.slowest_node


def _spread(times: Iterable[float]) -> tuple[str, str]:
    found = list(times)
    return _ms(percentile(found, 0.5)), _ms(percentile(found, 0.99))


def _ms(value: float | None) -> str:
    return "" if value is None else f"{1000 * value:,.1f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"x{value:.2f}"
