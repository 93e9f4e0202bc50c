"""Prints the demonstration, for a researcher, a custodian and a security officer to read.

Only shapes text: what is computed, asked and known is decided elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from datetime import date
from types import TracebackType

from insitu.budget import Budget
from insitu.catalog import Catalog
from insitu.explain import Explanation
from insitu.result import Interval, Result
from insitu_privacy.dataset import Table as DatasetTable
from rich import box
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from insitu_compose.demo.exact import Key, Row, key_of

WIDTH = 110
_INDENT = 2
_LAST_STAGES = frozenset({"released", "refused", "absent", "failed"})


class Screen:
    """Standard output, at most ``WIDTH`` wide."""

    def __init__(self) -> None:
        probe = Console(highlight=False)
        self.console = Console(highlight=False, width=min(WIDTH, probe.width) if probe.is_terminal else WIDTH)

    def title(self, text: str) -> None:
        """Opens a section."""
        self.console.print()
        self.console.print(Text(text, style="bold"))

    def say(self, text: str, style: str = "") -> None:
        """One paragraph, folded and indented."""
        self._put(Text(text, style=style))

    def sql(self, sql: str) -> None:
        """A statement as it was written."""
        self._put(Syntax(sql, "sql", theme="ansi_light", background_color="default", word_wrap=True))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
        """A table; ``right`` are the columns aligned to the right."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, name in enumerate(header):
            table.add_column(Text(name), justify="right" if index in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._put(table)

    def _put(self, part: Text | Syntax | Table) -> None:
        padded = Padding(part, (0, 0, 0, _INDENT), expand=False)
        if self.console.is_terminal:
            self.console.print(padded)
            return
        with self.console.capture() as captured:
            self.console.print(padded)
        self.console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        self.console.file.flush()


class Stages:
    """Shows where a request is at each node while it runs, live on a terminal, and a line per node once it is through.

    The gateway tells a state, not every step: of a query that takes milliseconds only some stages are seen.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._began = time.monotonic()
        self._seen: dict[str, list[tuple[str, float]]] = {}
        self._live: Live | None = None

    def __enter__(self) -> Stages:
        if self._screen.console.is_terminal:
            self._live = Live(console=self._screen.console, transient=True, refresh_per_second=20)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, node: str, stage: str) -> None:
        steps = self._seen.setdefault(node, [])
        if steps and steps[-1][0] in {stage, *_LAST_STAGES}:
            return
        steps.append((stage, time.monotonic() - self._began))
        if stage in _LAST_STAGES:
            self._screen.say(self._line(node))
        if self._live is not None:
            running = [name for name, seen in self._seen.items() if seen[-1][0] not in _LAST_STAGES]
            self._live.update(Padding(Text("\n".join(self._line(name) for name in running)), (0, 0, 0, _INDENT)))

    def finish(self, result: Result) -> None:
        """The last stage of every node whose end was told by the result itself."""
        for node in result.nodes:
            self(node.id, node.status)

    def _line(self, node: str) -> str:
        steps = (f"{stage} {seconds * 1000:.0f} ms" for stage, seconds in self._seen[node])
        return f"{node + ':':<12}{', '.join(steps)}"


def show_catalog(screen: Screen, catalog: Catalog) -> None:
    """Who may be asked, and what about."""
    grant = catalog.grant
    screen.say(
        f"Federation {catalog.federation}, manifest version {catalog.manifest_version}. Grant for "
        f"“{grant.project}”: ε {float(grant.epsilon):g} and δ {float(grant.delta):g} at each node, until "
        f"{grant.expires_at:%Y-%m-%d}."
    )
    for node, (organisation, jurisdiction) in catalog.organisations.items():
        screen.say(f"{node + ':':<12}{organisation} ({jurisdiction})")
    for granted in catalog.datasets:
        tables = [table for table, _ in granted.granted()]
        screen.say(f"Dataset {granted.dataset.name}, version {granted.dataset.version}: {granted.dataset.title}.")
        rows = [_table_row(table) for table in tables if not table.public]
        screen.table(
            ["protected table", "columns", "privacy unit", "counts at most, of one person"], rows, frozenset({1})
        )
        public = ", ".join(table.name for table in tables if table.public)
        screen.say(f"Public tables, free to join: {public}.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _table_row(table: DatasetTable) -> list[str]:
    bounds = table.bounds
    limit = "" if bounds is None else f"{bounds.max_rows_per_group} rows in each of {bounds.max_groups} groups"
    return [table.name, str(len(table.columns)), ", ".join(table.unit), "1 row" if table.one_row_per_unit else limit]


def show_explanation(screen: Screen, explanation: Explanation) -> None:
    """What a query would release, how accurate it would be, what it would cost, and what a node would run."""
    facts = explanation.to_json()
    for release in facts["releases"]:
        keys, bounds = release["keys"], release["contribution_bounds"]
        public = keys["selection"] == "public"
        groups = f"each of {_count(keys['count'], 'group')} known in advance" if public else "groups above a threshold"
        rows = _count(bounds["max_rows_per_group"], "row")
        screen.say(
            f"Releases {_count(len(release['statistics']), 'integer statistic')} for {groups}; one person counts with "
            f"at most {rows} in at most {_count(bounds['max_groups'], 'group')}. "
            f"Noise: {release['mechanism']}, scale {release['scale']:g}."
        )
    expected = [
        f"{column['name']} ± {width:.3g}"
        for column, width in zip(facts["columns"], facts["expected_intervals"], strict=True)
        if width is not None
    ]
    cost, person = facts["cost"], facts["cost"]["person_level"]
    screen.say(f"Expected with {facts['level']:.0%} confidence, over all nodes: {'; '.join(expected)}.")
    screen.say(
        f"Costs ε {cost['epsilon']:g}, δ {cost['delta']:g} at each node; a person's own loss is at most "
        f"ε {person['epsilon']:g}, for no person is known to two nodes."
    )
    screen.say("Each DuckDB node would run, before adding the noise:")
    screen.sql(facts["node_sql"]["duckdb"])


def show_result(screen: Screen, result: Result, exact: Mapping[Key, Row]) -> tuple[int, int]:
    """The answer beside the exact one. Returns how many intervals hold the exact value, and how many there are."""
    keys = tuple(index for index, column in enumerate(result.columns) if not column.noisy)
    header, right = _header(result)
    rows, held, total = [], 0, 0
    for row, intervals in zip(result.rows, result.intervals, strict=True):
        truth = exact.get(key_of(row, keys))
        cells: list[str] = []
        for index, (cell, interval) in enumerate(zip(row, intervals, strict=True)):
            if index in keys:
                cells.append(_number(cell))
                continue
            true = None if truth is None else truth[index]
            inside = _inside(true, interval)
            held, total = held + (inside is True), total + (inside is not None)
            mark = "" if inside is not False else "  outside"
            cells += [_number(cell, interval), _range(interval), _number(true, interval) + mark]
        rows.append(cells)
    screen.table(header, rows, right)
    _say_where_rows_differ(screen, exact.keys(), {key_of(row, keys) for row in result.rows})
    for node in result.nodes:
        if node.status != "released":
            screen.say(f"Not in these sums: {node.id}, {node.status}, {node.code}.", style="bold")
    for warning in result.warnings:
        screen.say(f"Warning: {warning}")
    checked = (
        "every release's signature verified and the sums computed again here" if result.verified else "NOT verified"
    )
    screen.say(
        f"Cost ε {float(result.spent.epsilon):g}, δ {float(result.spent.delta):g} at each of "
        f"{sum(node.status == 'released' for node in result.nodes)} nodes; {checked}."
    )
    return held, total


def _say_where_rows_differ(screen: Screen, exact: Set[Key], private: Set[Key]) -> None:
    if exact != private:
        screen.say(
            f"{_count(len(private - exact), 'row')} of this answer and {_count(len(exact - private), 'row')} of the "
            "exact one are missing in the other: HAVING and LIMIT saw noisy counts."
        )


def _header(result: Result) -> tuple[list[str], frozenset[int]]:
    header: list[str] = []
    right: set[int] = set()
    for column in result.columns:
        if column.noisy:
            right |= {len(header), len(header) + 1, len(header) + 2}
            header += [column.name, f"{result.level:.0%} interval", "exact"]
        else:
            if column.type in ("integer", "decimal"):
                right.add(len(header))
            header.append(column.name)
    return header, frozenset(right)


def _inside(true: object, interval: Interval) -> bool | None:
    if interval is None:
        return None
    low, high = interval
    if isinstance(low, str) or isinstance(high, str):  # of dates: their texts are in their order
        return str(low) <= str(true) <= str(high) if isinstance(true, (date, str)) else None
    return low <= true <= high if isinstance(true, (int, float)) else None


def _digits(interval: Interval) -> int:
    """Decimals that the width of the interval makes meaningful."""
    width = 4.0 if interval is None else float(interval[1]) - float(interval[0])
    return 0 if width >= 4 else 1 if width >= 0.4 else 2


def _number(value: object, interval: Interval = None) -> str:
    if value is None:
        return "no row"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if interval is None:
        return f"{value:.0f}" if float(value).is_integer() else str(value)
    return f"{value:,.{_digits(interval)}f}"


def _range(interval: Interval) -> str:
    return "" if interval is None else f"{_number(interval[0], interval)} to {_number(interval[1], interval)}"


def show_budget(screen: Screen, budget: Budget) -> None:
    """What is left of the grant, as each node's own ledger says."""
    rows = [
        [
            line.node,
            line.dataset,
            f"{float(line.epsilon_spent):.4g}",
            f"{float(line.epsilon_left):.4g}",
            f"{float(line.delta_spent):.3g}",
            f"{float(line.delta_left):.3g}",
        ]
        for line in budget.lines
    ]
    header = ["node", "dataset", "ε spent", "ε left", "δ spent", "δ left"]
    screen.table(header, rows, frozenset({2, 3, 4, 5}))
    for node in budget.missing:
        screen.say(f"No answer: {node.id}, {node.status}, {node.code}.")


def show_charges(screen: Screen, charges: Sequence[Mapping[str, object]]) -> None:
    """A hospital's ledger: what its profile and each query cost, and nothing of what they said."""
    rows = [
        [
            str(number),
            "profile" if charge["profile"] else "query",
            str(charge["state"]),
            f"{charge['epsilon']:g}",
            f"{charge['delta']:g}",
            f"{charge['account_epsilon']:.4g}",
            f"{str(charge['plan'])[:16]}…",
        ]
        for number, charge in enumerate(charges, start=1)
    ]
    header = ["charge", "for", "state", "ε", "δ", "ε of its account spent", "plan"]
    screen.table(header, rows, frozenset({0, 3, 4, 5}))
