"""A black-box audit: the same query, asked over and over on two databases that differ in one person.

The auditor sees what a researcher sees, and knows all but whether she is there. On half of the answers it picks the
event that tells the two databases apart best; on the other half it bounds the event's probabilities (Clopper and
Pearson 1934), hence epsilon from below: P(event) <= exp(epsilon) P'(event) + delta. An honest node stays below its
claim. And the audit has power: noise of half the claimed scale, or a threshold one too low, is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import insitu_privacy.mechanisms
import numpy as np
import pytest
from insitu_access.release import NodeRelease
from insitu_node.engines.base import Row
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_node.noise import Mechanisms
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.plan import MechanismChoice, PrivacyPlan, QueryParameters, Release, ReleasedValues, Scope
from insitu_privacy.planner import plan_query
from insitu_privacy.render import render
from scipy import stats

from tests.testkit.databases import new_duckdb
from tests.testkit.ledger_memory import MemoryLedger
from tests.testkit.node_world import BUNDLE, LIMITS, NodeWorld, care

ALPHA = 1e-3
"""Each of the two bounds fails as often; that both do in favour of a false alarm is rarer by two orders."""
HER = 7
pytestmark = pytest.mark.timeout(600)  # a whole node, thousands of times
PERSONS = "INSERT INTO person SELECT i, CASE WHEN i % 2 = 1 THEN 'F' ELSE 'M' END, 1960 + i FROM range({}) t(i)"
VISITS = "INSERT INTO visit SELECT i, i, DATE '2020-01-01', {} FROM range(40) t(i)"
SPREAD = "CASE WHEN i = 7 THEN 50000.0 WHEN i < 30 THEN 10.5 ELSE 20.5 END"
"""She alone has an amount of fifty thousand, which is a group of its own and the most that a sum takes."""
Outcome = Mapping[Any, int] | None
"""Released integers by key and statistic; None for an error."""
Change = Callable[[Release], Release]


@dataclass(frozen=True, kw_only=True)
class Question:
    sql: str
    mechanism: MechanismChoice = "laplace"
    epsilon: str = "1"
    delta: str = "0"

    @property
    def parameters(self) -> QueryParameters:
        return QueryParameters(
            epsilon=Fraction(self.epsilon),
            delta=Fraction(self.delta),
            mechanism=self.mechanism,
            max_rows_per_group=1,
            max_groups=1,
        )

    def plan(self) -> PrivacyPlan:
        scope = Scope(accounting="zcdp")
        return plan_query(self.sql, dialect="duckdb", dataset=care(), parameters=self.parameters, scope=scope)


COUNT = Question(sql="SELECT sex, COUNT(*) AS n FROM person GROUP BY sex")
SUM = Question(sql="SELECT SUM(amount) AS s FROM visit", mechanism="gaussian", epsilon="3", delta="1/10")
ALONE = Question(
    sql="SELECT FLOOR(amount) AS k, COUNT(DISTINCT person_id) AS n FROM visit GROUP BY 1", epsilon="2", delta="1/50"
)
MEDIAN = Question(sql="SELECT MEDIAN(birth_year) AS m FROM person WHERE birth_year >= 1960", epsilon="2")


def site(folder: Path, *, with_her: bool) -> DuckDBEngine:
    """A site; one person fewer is all her rows gone."""
    folder.mkdir()
    gone = (
        ()
        if with_her
        else (f"DELETE FROM person WHERE person_id = {HER}", f"DELETE FROM visit WHERE person_id = {HER}")
    )
    path = new_duckdb(
        folder / "site.duckdb",
        "CREATE TABLE person (person_id BIGINT, sex VARCHAR, birth_year INTEGER)",
        "CREATE TABLE visit (person_id BIGINT, visit_id BIGINT, day DATE, amount DOUBLE)",
        PERSONS.format(40),
        VISITS.format(SPREAD),
        *gone,
    )
    mapping = {"person": "person", "visit": "visit"}
    return DuckDBEngine(
        dataset=care(), bundle=BUNDLE, database=path, schema=None, mapping=mapping, base=folder, limits=LIMITS
    )


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("audit")
    engines = site(folder / "with", with_her=True), site(folder / "without", with_her=False)
    yield engines
    for engine in engines:
        engine.close()


def exact_rows(question: Question, engine: DuckDBEngine) -> list[Row]:
    (release,) = question.plan().releases
    text = render(release, dialect="duckdb", tables=engine.tables, cap_key="0" * 64)
    with engine.session() as session:
        return session.execute(text)


def as_it_is(release: Release) -> Release:
    return release


def at_half_the_scale(release: Release) -> Release:
    """Noise that is too small; all else as claimed."""
    return replace(release, statistics=tuple(replace(one, scale=one.scale / 2) for one in release.statistics))


def at_a_lower_threshold(release: Release) -> Release:
    """Groups shown one too early, as OpenDP 0.16.0 would by itself (``insitu_privacy.mechanisms``)."""
    assert release.threshold is not None
    return replace(release, threshold=replace(release.threshold, tau=release.threshold.tau - 1))


# -- what is seen ------------------------------------------------------------------------------------------------------


def outcome(release: Release, values: ReleasedValues) -> Outcome:
    keys = values.keys if values.keys is not None else list(product(*(key.domain or () for key in release.keys)))
    return {(key, place): row[at] for place, row in enumerate(values.statistics) for at, key in enumerate(keys)}


def drawn(question: Question, engine: DuckDBEngine, times: int, change: Change) -> list[Outcome]:
    """Answers of the mechanisms alone."""
    (release,) = question.plan().releases
    cells = ExactCells(tuple(exact_rows(question, engine)))
    changed = change(release)
    return [outcome(release, privatize(changed, cells)) for _ in range(times)]


@dataclass
class ChangedMechanisms(Mechanisms):
    """The production mechanisms at another scale than the plan claims."""

    change: Change = field(default=as_it_is)

    def draw(self, release: Release, rows: list[Row], before: Mapping[str, ReleasedValues]) -> ReleasedValues:
        return super().draw(self.change(release), rows, before)


def asked(question: Question, engine: DuckDBEngine, folder: Path, times: int, change: Change) -> list[Outcome]:
    """Answers of a whole node: signed requests in, signed outcomes out, errors among them.

    A ledger of its own for each request: with a common one, the first answer would be given again. The audit
    log is opened once: opening it reads the day's entries, which would soon be most of the time.
    """
    world = NodeWorld(folder=folder, noise=ChangedMechanisms(change=change), engine=engine)
    world.grant_with(epsilon=Fraction(10), delta=Fraction(1, 5))
    made = question.plan()
    log = world.log()
    answers = list[Outcome]()
    for _ in range(times):
        world.ledger = MemoryLedger()
        request = world.query(question.sql, parameters=question.parameters, plan_digest=made.digest)
        said = world.ask(world.cycle(log=log), request)
        answers.append(outcome(made.releases[0], said.values[0]) if isinstance(said, NodeRelease) else None)
    return answers


# -- what it says ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Auditor:
    """Knows both databases and the claimed law of the noise, hence the likelihood ratio of every answer."""

    release: Release
    exact: tuple[Outcome, Outcome]

    def score(self, seen: Outcome) -> float:
        """How much more likely an answer is with her; of an error or of a group that is shown, another event speaks."""
        total = 0.0
        for place, value in (seen or {}).items():
            here, there = ((one or {}).get(place, 0) for one in self.exact)
            if here != there:
                total += self._ratio(value, here, there, place[1])
        return total

    def _ratio(self, value: int, here: int, there: int, place: int) -> float:
        statistic = self.release.statistics[0 if self.release.tree is not None else place]
        scale = float(statistic.scale)
        if self.release.mechanism == "laplace":
            return (abs(value - there) - abs(value - here)) / scale
        return ((value - there) ** 2 - (value - here) ** 2) / (2 * scale**2)


def label(seen: Outcome) -> str:
    """What an answer is, beside its numbers: an error, or the groups that it shows."""
    return "error" if seen is None else repr(sorted({key for key, _ in seen}, key=repr))


Event = Callable[[tuple[str, float]], bool]


def events(seen: Sequence[tuple[str, float]]) -> list[Event]:
    """Candidates: each label and its absence; each way of an answer's score to be high, or low."""
    marks = sorted({one for one, _ in seen})
    found: list[Event] = [lambda one, mark=mark: one[0] == mark for mark in marks]  # type: ignore[misc]
    found += [lambda one, mark=mark: one[0] != mark for mark in marks]  # type: ignore[misc]
    for cut in sorted(set(np.quantile([score for _, score in seen], np.linspace(0.01, 0.99, 60)))):
        found += [lambda one, cut=cut: one[1] >= cut, lambda one, cut=cut: one[1] <= cut]  # type: ignore[misc]
    return found


def least_epsilon(event: Event, one: Sequence[Any], other: Sequence[Any], delta: float) -> float:
    """The lower bound on epsilon by an event that is more likely in ``one``."""
    hits, misses = sum(map(event, one)), sum(map(event, other))
    low = stats.beta.ppf(ALPHA, hits, len(one) - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - ALPHA, misses + 1, len(other) - misses) if misses < len(other) else 1.0
    return math.log((low - delta) / high) if low > delta else 0.0


def audited(question: Question, with_her: Sequence[Outcome], without_her: Sequence[Outcome], exact: Any) -> float:
    """The lower bound on epsilon: event and direction chosen on one half, tested on the other."""
    auditor = Auditor(question.plan().releases[0], exact)
    sides = [[(label(seen), auditor.score(seen)) for seen in side] for side in (with_her, without_her)]
    first, second = ([side[half::2] for side in sides] for half in (0, 1))
    delta = float(Fraction(question.delta))
    choices = [(event, way) for event in events(first[0] + first[1]) for way in (1, -1)]
    event, way = max(choices, key=lambda choice: least_epsilon(choice[0], *first[:: choice[1]], delta))
    return least_epsilon(event, *second[::way], delta)


def exact_outcomes(question: Question, neighbours: Sequence[DuckDBEngine]) -> tuple[Outcome, Outcome]:
    """Both databases without noise, as one who knows everybody else's rows would compute them."""
    (release,) = question.plan().releases
    still = replace(
        release,
        statistics=tuple(replace(one, scale=Fraction(1, 10**9)) for one in release.statistics),
        threshold=None if release.threshold is None else replace(release.threshold, tau=0),
    )
    one, other = (
        outcome(release, privatize(still, ExactCells(tuple(exact_rows(question, engine))))) for engine in neighbours
    )
    return one, other


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check that would refuse to run noise that does not pay for the claim."""
    monkeypatch.setattr(insitu_privacy.mechanisms, "check_claims", lambda _: None)


def bound_of(question: Question, neighbours: Any, times: int, change: Change, monkeypatch: pytest.MonkeyPatch) -> float:
    with monkeypatch.context() as patched:
        patched.setattr(insitu_privacy.mechanisms, "check_claims", lambda _: None)
        exact = exact_outcomes(question, neighbours)
    assert exact[0] != exact[1], "the two databases differ in what is asked"
    return audited(question, *(drawn(question, engine, times, change) for engine in neighbours), exact)


AUDITS = {
    "laplace count": (COUNT, 3000, at_half_the_scale),
    "gaussian sum": (SUM, 3000, at_half_the_scale),
    "a person alone in a group": (ALONE, 2000, at_a_lower_threshold),
    "quantile tree": (MEDIAN, 1200, at_half_the_scale),
}


@pytest.mark.parametrize("name", AUDITS)
def test_what_is_released_tells_less_of_her_than_is_claimed(
    neighbours: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, times, _ = AUDITS[name]
    assert bound_of(question, neighbours, times, as_it_is, monkeypatch) <= float(Fraction(question.epsilon))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", AUDITS)
def test_the_audit_finds_noise_that_does_not_pay_for_the_claim(
    neighbours: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, times, broken = AUDITS[name]
    times = 32_000 if name == "gaussian sum" else times  # whose claim is loose: half the scale exceeds it by little
    assert bound_of(question, neighbours, times, broken, monkeypatch) > float(Fraction(question.epsilon))


@pytest.mark.parametrize("question", [COUNT, ALONE], ids=["laplace count", "a person alone in a group"])
def test_a_whole_node_tells_less_of_her_than_is_claimed(
    neighbours: Any, question: Question, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(insitu_privacy.mechanisms, "check_claims", lambda _: None)
        exact = exact_outcomes(question, neighbours)
    seen = [asked(question, engine, tmp_path, 300, as_it_is) for engine in neighbours]
    assert None not in seen[0] + seen[1], "every request was answered"
    assert len({repr(one) for one in seen[0]}) > 1, "each answer has noise of its own"
    assert audited(question, *seen, exact) <= float(Fraction(question.epsilon))


@pytest.mark.usefixtures("unchecked")
def test_the_audit_finds_a_whole_node_with_half_the_noise(neighbours: Any, tmp_path: Path) -> None:
    exact = exact_outcomes(COUNT, neighbours)
    seen = [asked(COUNT, engine, tmp_path, 400, at_half_the_scale) for engine in neighbours]
    assert audited(COUNT, *seen, exact) > float(Fraction(COUNT.epsilon))


def test_a_node_that_errs_for_her_alone_is_found() -> None:
    """Errors are events like any other: here one that tells her in every tenth answer."""
    answer: Outcome = {((), 0): 0}
    with_her = [None if place % 20 < 2 else answer for place in range(4000)]
    assert audited(COUNT, with_her, [answer] * 4000, (answer, answer)) > float(Fraction(COUNT.epsilon))
