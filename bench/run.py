"""``make bench``: the benchmarks side by side with the plain database, as tables and in ``bench/results.json``.

    python -m bench.run [--quick] [--only PART] [--engine duckdb|postgres] [--runs 1000]

Parts: speed, gateway, coverage, accuracy, intervals.

The data is made on the first run. What is not measured in a run stays in ``results.json`` as it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import data
from bench.queries import DIALECTS, Dialect

ROOT = Path(__file__).parent / ".data"


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description="Measures insitu beside the plain database and a hand-written pushdown.",
        epilog="Example: python -m bench.run --quick --only speed --engine duckdb",
    )
    parser.add_argument(
        "--quick", action="store_true", help="100,000 claims and fewer rounds; results.json is left alone"
    )
    parts = ["speed", "gateway", "coverage", "accuracy", "intervals"]
    parser.add_argument("--only", choices=parts, help="one part")
    parser.add_argument("--engine", choices=DIALECTS, help="one engine of the speed part")
    parser.add_argument(
        "--runs", type=int, help="how often the intervals part draws the noise: 1,000 where it is asked for, else 100"
    )
    return parser.parse_args(given)


def main(given: Sequence[str]) -> None:
    """Runs what was asked for."""
    options = _arguments(given)
    from bench import report

    console = Console(width=max(140, Console().width))
    results: report.Json = {"machine": report.machine_json()}
    busy = os.getloadavg()[0]
    if busy > 0.5:
        console.print(f"[yellow]The machine is busy (load {busy:.1f}): absolute times will be too long.[/yellow]\n")
    if options.only in (None, "coverage"):
        results |= _coverage(console)
    if options.only in (None, "speed"):
        size = data.QUICK if options.quick else data.FULL
        engines: tuple[Dialect, ...] = (options.engine,) if options.engine else DIALECTS
        results |= _speed(console, engines, size)
    if options.only in (None, "gateway"):
        results |= _gateway(console, rounds=5 if options.quick else 40)
    if options.only in (None, "accuracy"):
        results |= _accuracy(console, data.QUICK if options.quick else data.FULL, picture=not options.quick)
    if options.only in (None, "intervals"):
        results |= _intervals(console, options.runs or (1000 if options.only else 20 if options.quick else 100))
    if not options.quick:
        report.write(results)
        console.print(f"written to {report.RESULTS}")


def _speed(console: Console, engines: Sequence[Dialect], size: data.Size) -> dict[str, object]:
    from bench import report, speed

    measured = {}
    for engine in engines:
        with console.status(f"{engine}: {size.claims:,} claims"):
            measured[engine] = list(speed.measure(engine, size, ROOT))
        report.show(console, [report.speed_table(measured[engine], size.claims)])
    return {
        "speed": {engine: report.speed_json(found) for engine, found in measured.items()},
        "refused": {engine: report.refused_json(found) for engine, found in measured.items()},
    }


def _accuracy(console: Console, size: data.Size, *, picture: bool) -> dict[str, object]:
    from bench import accuracy, report
    from bench.picture import PICTURE, accuracy_svg

    with console.status(f"answers beside the truth: {size.claims:,} claims"):
        measured = list(accuracy.measure(size, ROOT))
    report.show(console, [report.accuracy_table(measured, size.claims)])
    if picture:
        PICTURE.write_text(accuracy_svg(measured), encoding="utf-8")
        console.print(f"written to {PICTURE}\n")
    return {"accuracy": report.accuracy_json(measured)}


def _coverage(console: Console) -> dict[str, object]:
    from bench import coverage, report

    if not coverage.available():
        console.print("coverage is left out: ../shared/queries is not there\n")
        return {}
    tried = coverage.measure()
    report.show(console, report.coverage_tables(tried))
    return {"coverage": coverage.as_json(tried)}


def _intervals(console: Console, runs: int) -> dict[str, object]:
    from bench import intervals, report

    if not intervals.available():
        console.print("intervals are left out: ../shared/queries is not there\n")
        return {}
    with console.status(f"intervals, {runs:,} runs") as status:
        measured = intervals.measure(runs, told=lambda done: status.update(f"intervals, {runs:,} runs: {done}"))
    report.show(console, [report.intervals_table(measured)])
    return {"intervals": intervals.as_json(measured)}


def _gateway(console: Console, rounds: int) -> dict[str, object]:
    from bench import gateway, report

    with console.status("a federation of three nodes"):
        measured = gateway.measure(ROOT, rounds=rounds)
    report.show(console, report.gateway_tables(measured))
    return {"gateway": {str(len(gateway.NODES)): report.gateway_json(measured)}}


if __name__ == "__main__":
    main(sys.argv[1:])
