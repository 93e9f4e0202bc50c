"""The research questions of the demonstration: what painkillers do to the stomach, as the Book of OHDSI asks it.

Plain SQL, as a researcher would write it for one database. ``max_groups`` and ``max_rows_per_group`` are the
contribution bounds that the researcher chose where the dataset's own do not fit the question, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question and what is asked for it."""

    title: str
    sql: str
    epsilon: float
    delta: float = 0.0
    max_rows_per_group: int | None = None
    max_groups: int | None = None
    note: str = ""
    """Why these bounds, or how to read the answer."""


EXPLAINED = """\
SELECT CASE gender_concept_id WHEN 8532 THEN 'women' ELSE 'men' END AS sex, COUNT(*) AS persons
FROM person
GROUP BY 1
ORDER BY 1"""

REFUSED = """\
SELECT person_id, COUNT(*) AS conditions
FROM condition_occurrence
GROUP BY person_id"""

QUESTIONS = (
    Question(
        title="Who is in the federation: women and men by decade of birth?",
        sql="""\
SELECT CASE gender_concept_id WHEN 8532 THEN 'women' ELSE 'men' END AS sex,
       10 * FLOOR(year_of_birth / 10) AS born_in, COUNT(*) AS persons
FROM person
GROUP BY 1, 2
HAVING COUNT(*) >= 25
ORDER BY 1, 2""",
        epsilon=1.0,
        note="The cells are known in advance, empty ones too, so no delta is needed; HAVING runs on the noisy counts.",
    ),
    Question(
        title="How often are osteoarthritis, GI bleeding and peptic ulcer recorded, and in how many persons?",
        sql="""\
SELECT condition_concept_id, COUNT(*) AS records, COUNT(DISTINCT person_id) AS persons
FROM condition_occurrence
WHERE condition_concept_id IN (80180, 192671, 4027663)
GROUP BY condition_concept_id
ORDER BY persons DESC""",
        epsilon=1.0,
        max_rows_per_group=3,
        note="80180 osteoarthritis, 192671 gastrointestinal hemorrhage, 4027663 peptic ulcer. At most 3 records of one "
        "person count for one condition.",
    ),
    Question(
        title="How many persons were ever given diclofenac, in any product that holds it?",
        sql="""\
SELECT COUNT(DISTINCT de.person_id) AS persons
FROM drug_exposure de
JOIN concept_ancestor ca ON ca.descendant_concept_id = de.drug_concept_id
WHERE ca.ancestor_concept_id = 1124300""",
        epsilon=0.5,
        note="The products come from the public vocabulary: 1124300 is the ingredient diclofenac.",
    ),
    Question(
        title="For how many years are women and men observed?",
        sql="""\
SELECT CASE p.gender_concept_id WHEN 8532 THEN 'women' ELSE 'men' END AS sex, COUNT(*) AS periods,
       AVG(date_diff('day', op.observation_period_start_date, op.observation_period_end_date)) / 365.25 AS mean_years
FROM observation_period op
JOIN person p ON p.person_id = op.person_id
GROUP BY 1
ORDER BY 1""",
        epsilon=1.0,
        max_rows_per_group=1,
        note="The division by 365.25 runs on the noisy average and costs nothing.",
    ),
    Question(
        title="Which procedures were done on most persons?",
        sql="""\
SELECT c.concept_name AS procedure, COUNT(DISTINCT po.person_id) AS persons
FROM procedure_occurrence po
JOIN concept c ON c.concept_id = po.procedure_concept_id
GROUP BY c.concept_name
ORDER BY persons DESC
LIMIT 5""",
        epsilon=2.0,
        delta=1e-7,
        max_groups=10,
        note="Which procedures occur is private: a hospital names one only if its noisy number of persons is well "
        "above what one person could make it. That costs delta; a hospital that does not name a procedure is missing "
        "from its sum. One person counts for at most 10 procedures.",
    ),
)
