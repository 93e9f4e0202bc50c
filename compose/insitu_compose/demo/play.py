"""What the researcher of the demonstration does, once the federation runs."""

from __future__ import annotations

import json

import insitu
from insitu.client import Federation
from insitu_privacy.errors import InsituError, Span, underline

from insitu_compose.demo.exact import exact_rows
from insitu_compose.demo.questions import EXPLAINED, QUESTIONS, REFUSED, Question
from insitu_compose.demo.show import (
    Screen,
    Stages,
    show_budget,
    show_catalog,
    show_charges,
    show_explanation,
    show_result,
)
from insitu_compose.demo.sites import SITES
from insitu_compose.layout import Layout
from insitu_compose.programs import run


def play(screen: Screen, layout: Layout) -> None:
    """The whole visit: catalog, explanation, five questions, one repetition, one refusal, the budget, a ledger."""
    with insitu.connect(layout.profile) as federation:
        screen.title("What the researcher may ask: the catalog")
        show_catalog(screen, federation.catalog())
        screen.title("What a query would do, before anything is spent: explain")
        screen.sql(EXPLAINED)
        show_explanation(screen, federation.explain(EXPLAINED, epsilon=0.5))
        held = total = 0
        for number, question in enumerate(QUESTIONS, start=1):
            inside, intervals = _ask(screen, federation, number, question)
            held, total = held + inside, total + intervals
        screen.title("How good the answers were")
        screen.say(
            f"{held} of {total} intervals hold the exact value; 95% of them would on average. Only a demonstration "
            "can say this: it made up the hospitals and so has everyone's data. No researcher, no gateway and no "
            "single hospital can compute the exact column. An interval covers the noise; what contribution bounds "
            "cut off is not in it."
        )
        _repeat(screen, federation)
        _refused(screen, federation)
        screen.title("What is left of the budget, as each hospital's own ledger says")
        show_budget(screen, federation.budget())
    site = SITES[0]
    screen.title(f"What the custodian of {site.id} sees: insitu-node ledger")
    show_charges(screen, _charges(layout, site.id))


def _charges(layout: Layout, node: str) -> list[dict[str, object]]:
    facts = json.loads(run("insitu-node", "ledger", "--config", layout.node_config(node), "--format", "json"))  # noqa: TID251  our own programs' output
    charges: list[dict[str, object]] = facts["charges"]
    return charges


def _ask(screen: Screen, federation: Federation, number: int, question: Question) -> tuple[int, int]:
    screen.title(f"Question {number} of {len(QUESTIONS)}: {question.title}")
    screen.sql(question.sql)
    screen.say(question.note)
    with Stages(screen) as stages:
        result = federation.query(
            question.sql,
            epsilon=question.epsilon,
            delta=question.delta,
            max_rows_per_group=question.max_rows_per_group,
            max_groups=question.max_groups,
            progress=stages,
        )
        stages.finish(result)
    keys = tuple(index for index, column in enumerate(result.columns) if not column.noisy)
    return show_result(screen, result, exact_rows(question.sql, keys))


def _repeat(screen: Screen, federation: Federation) -> None:
    """The first question once more: each node hands out the release it stored, and charges nothing."""
    question = QUESTIONS[0]
    screen.title("The first question again")
    before = federation.budget()
    result = federation.query(question.sql, epsilon=question.epsilon, delta=question.delta)
    after = federation.budget()
    same = [line.epsilon_left for line in before.lines] == [line.epsilon_left for line in after.lines]
    screen.say(
        f"Every node gave the release that it had stored: {_yes(result.replayed)}. No node's budget changed: "
        f"{_yes(same)}."
    )


def _refused(screen: Screen, federation: Federation) -> None:
    """A query for one row per person: refused before anything is sent, and by every node if it were."""
    screen.title("What nobody is told: a row per person")
    try:
        federation.query(REFUSED, epsilon=1.0)
    except InsituError as error:
        screen.sql(REFUSED if error.span is None else _marked(REFUSED, error.span))
        screen.say(error.line())
        return
    raise AssertionError("a query for one row per person was answered")


def _marked(sql: str, span: Span) -> str:
    """The whole statement, with carets under the line that ``span`` starts in."""
    end = sql.find("\n", span.start)
    end = len(sql) if end < 0 else end
    return f"{sql[:end]}\n{underline(sql, span).splitlines()[1]}{sql[end:]}"


def _yes(fact: bool) -> str:
    return "yes" if fact else "NO"
