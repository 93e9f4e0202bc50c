"""The table of transitions, every pair of it, and what holds over all sequences of steps."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_gateway import execution as x
from insitu_proto.messages import Stage

STAGES: tuple[Stage, ...] = get_args(Stage)
STEPS: tuple[x.Step, ...] = get_args(x.Step)
ANSWERS = {"released": "released", "refused": "refused", "failed": "failed"}
EXPECTED: dict[str, dict[str, str]] = {
    "queued": {"sent": "sent", "away": "absent", "deadline": "absent", **ANSWERS},
    "lost": {"sent": "sent", "away": "absent", "deadline": "absent", **ANSWERS},
    "absent": {"sent": "sent", "deadline": "absent", **ANSWERS},
    "sent": {
        "sent": "sent",
        "admitted": "admitted",
        "reserved": "reserved",
        "executed": "executed",
        "lost": "lost",
        "deadline": "absent",
        **ANSWERS,
    },
    "admitted": {
        "sent": "sent",
        "reserved": "reserved",
        "executed": "executed",
        "lost": "lost",
        "deadline": "absent",
        **ANSWERS,
    },
    "reserved": {"sent": "sent", "executed": "executed", "lost": "lost", "deadline": "absent", **ANSWERS},
    "executed": {"sent": "sent", "lost": "lost", "deadline": "absent", **ANSWERS},
    "released": {},
    "refused": {},
    "failed": {},
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("step", STEPS)
def test_every_pair_of_stage_and_step(stage: Stage, step: x.Step) -> None:
    execution = x.Execution(stages={"a": stage, "b": "queued"})
    expected = EXPECTED[stage].get(step)
    if expected is None:
        with pytest.raises(x.ImpossibleStep):
            x.advance(execution, "a", step)
    else:
        after = x.advance(execution, "a", step)
        assert after.stages == {"a": expected, "b": "queued"}
        assert execution.stages["a"] == stage  # a new value, not a changed one


def test_every_stage_is_reached_and_none_that_goes_on_is_a_dead_end() -> None:
    assert {stage for (stage, _) in x.TRANSITIONS} == set(STAGES) - x.ANSWERED
    assert set(x.TRANSITIONS.values()) == set(STAGES) - {"queued"}
    for stage in set(STAGES) - x.ANSWERED:
        assert (stage, "deadline") in x.TRANSITIONS


def test_it_is_finished_when_all_have_answered_or_are_given_up() -> None:
    execution = x.begin(["a", "b", "c"])
    assert not execution.finished
    for node, steps in {"a": ("sent", "released"), "b": ("away",)}.items():
        for step in steps:
            execution = x.advance(execution, node, step)  # type: ignore[arg-type]
    assert not execution.finished
    assert execution.unanswered == ("b", "c")  # b may still come back
    execution = x.advance(execution, "c", "failed")
    assert execution.finished
    with pytest.raises(x.ImpossibleStep):  # too late
        x.advance(execution, "b", "sent")


def test_a_node_that_was_not_asked_has_no_step() -> None:
    with pytest.raises(x.ImpossibleStep):
        x.advance(x.begin(["a"]), "z", "sent")


def test_a_resumed_execution_knows_what_was_answered() -> None:
    execution = x.resume(["a", "b"], {"a": "refused"})
    assert execution.stages == {"a": "refused", "b": "lost"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(STEPS)), max_size=40))
def test_answers_stay_and_the_deadline_ends_everything(steps: list[tuple[str, x.Step]]) -> None:
    execution = x.begin("abc")
    for node, step in steps:
        before = execution
        try:
            execution = x.advance(execution, node, step)
        except x.ImpossibleStep:
            continue
        for other, stage in before.stages.items():
            assert other == node or execution.stages[other] == stage
            if stage in x.ANSWERED:
                assert execution.stages[other] == stage
    late = x.expire(execution)
    assert late.finished
    for node, stage in execution.stages.items():
        assert late.stages[node] == (stage if stage in x.ANSWERED else "absent")
