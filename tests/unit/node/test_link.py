"""What a node decides about its stream, with time and chance handed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from insitu_node.link import Backoff, Liveness, Outbox, hold_s
from insitu_proto.messages import Outcome, Task

chances = st.floats(min_value=0, max_value=1, exclude_max=True)


def task(request_id: str) -> Task:
    return Task(request_id=request_id, request_jws="r", grant_jwt="g")


def outcome(request_id: str) -> Outcome:
    return Outcome(request_id=request_id, outcome_jws="o")


@given(st.integers(0, 10_000), chances)
def test_backoff_stays_within_its_bounds(failures: int, chance: float) -> None:
    assert 0 <= Backoff().delay(failures, chance) <= 30


def test_backoff_doubles() -> None:
    assert [Backoff(first_s=1, longest_s=5).delay(n, 0.5) for n in range(4)] == [0.5, 1, 2, 2.5]


def test_a_silent_gateway_is_dead_after_three_beats() -> None:
    alive = Liveness(heartbeat_s=2, heard_at=10)
    assert not alive.is_dead(16)
    assert alive.is_dead(16.1)
    assert not alive.heard(16).is_dead(22)


def test_a_task_runs_once_and_its_outcome_is_kept_until_taken() -> None:
    outbox = Outbox(2)
    assert outbox.take(task("a")) == "run"
    assert outbox.take(task("a")) == "running"
    outbox.done(outcome("a"))
    assert outbox.take(task("a")) == outcome("a")
    assert outbox.unconfirmed() == (outcome("a"),)
    outbox.taken("a")
    outbox.taken("a")
    assert outbox.unconfirmed() == ()
    assert outbox.take(task("a")) == "run"


def test_more_than_the_room_is_busy() -> None:
    outbox = Outbox(1)
    assert outbox.take(task("a")) == "run"
    assert outbox.take(task("b")) == "busy"
    outbox.dropped("a")
    assert outbox.take(task("b")) == "run"


def test_the_outbox_is_bounded_and_lets_the_oldest_go() -> None:
    outbox = Outbox(1)
    for number in range(1030):
        outbox.done(outcome(str(number)))
    assert len(outbox.unconfirmed()) == 1024
    assert outbox.unconfirmed()[0].request_id == "6"


@given(st.floats(0, 1000), st.sampled_from([0.5, 1.0, 4.0]))
def test_held_answers_leave_on_the_schedule(elapsed: float, every: float) -> None:
    held = hold_s(elapsed, every)
    assert 0 <= held <= every
    beats = (elapsed + held) / every
    assert abs(beats - round(beats)) < 1e-6


def test_without_a_schedule_nothing_is_held() -> None:
    assert hold_s(3.3, 0) == 0
