"""B1 to B6: whatever bytes come, a parser gives a value or an InsituError, within its time and its memory.

A short run: mutants of valid messages, every bomb, and every input that once was a fault. `make fuzz` is the long one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.bombs import bombs
from tests.fuzz.targets import Target, targets
from tests.fuzz.worker import Worker

FOUND = Path(__file__).parent / "found"
NAMES = sorted(targets())


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def bears(worker: Worker, target: Target, data: bytes | int) -> str:
    """The outcome, once it is known to be within the bounds."""
    ran = worker.run(target.name, data, target.seconds)
    if ran.seconds > target.seconds:  # once more: a child that was only just started has much to load
        ran = worker.run(target.name, data, target.seconds)
    assert not ran.defect, f"{target.name}: {ran.data}\n{ran.outcome}"
    assert ran.seconds <= target.seconds, f"{target.name}: {ran.seconds} s for {ran.data}"
    assert ran.megabytes <= target.megabytes, f"{target.name}: {ran.megabytes} MB for {ran.data}"
    return ran.outcome


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_what_the_target_reads(worker: Worker, name: str) -> None:
    target = targets()[name]
    outcomes = [bears(worker, target, seed) for seed in range(-len(target.seeds), 0)]
    if name not in ("profile", "invitation-file", "sql-plan"):  # these need more than the bytes
        assert set(outcomes) == {"read"}


@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_read_or_refused(worker: Worker, name: str) -> None:
    target = targets()[name]

    @settings(max_examples=target.examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(number=st.integers(0, 2**40))
    def run(number: int) -> None:
        bears(worker, target, number)

    run()


@pytest.mark.attacks("B3")
@pytest.mark.parametrize("name", NAMES)
def test_bombs_do_not_go_off(worker: Worker, name: str) -> None:
    for target, bomb, data in bombs():
        if target == name:
            outcome = bears(worker, targets()[name], data)
            assert outcome, bomb


@pytest.mark.attacks("B3")
@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_a_fault_is_none(worker: Worker, path: Path) -> None:
    bears(worker, targets()[path.parent.name], path.read_bytes())


@pytest.mark.parametrize(
    ("target", "data", "fault"),
    [
        ("_raises", b"", "ZeroDivisionError"),
        ("_hangs", b"", "it took more than"),
        ("_dies", b"", "it died with"),
        ("_eats", b"", "MemoryError"),
    ],
)
def test_the_worker_tells_faults(worker: Worker, target: str, data: bytes, fault: str) -> None:
    ran = worker.run(target, data, 0.1)
    assert ran.defect
    assert fault in ran.outcome
    assert worker.run("request", b"{}", 5).outcome == "INSITU-ACCESS-MALFORMED"
