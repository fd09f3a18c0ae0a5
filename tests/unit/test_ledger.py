"""Who waits for what, as ranges of jobs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workerbee.client.futures import JobFuture
from workerbee.client.ledger import STRIDE_JOBS, Ledger
from workerbee.wire.job import Stored

JOBS = st.sets(st.integers(1, 2000), max_size=300) | st.builds(
    lambda first, n, gaps: set(range(first, first + n)) - gaps,
    st.integers(1, 100),
    st.integers(0, 4 * STRIDE_JOBS),
    st.sets(st.integers(1, 4 * STRIDE_JOBS), max_size=5),
)


def booked(ledger: Ledger, job: int, run: int) -> JobFuture:
    future = JobFuture(lambda _: True)
    future.job, future.run = job, run
    ledger.expect([future])
    return future


def runs_of(ledger: Ledger) -> set[tuple[int, int]]:
    ranges = ledger.ranges()
    assert ranges == sorted(ranges)
    runs = [(job, run) for first, last, run in ranges for job in range(first, last + 1)]
    assert len(runs) == len(set(runs))
    return set(runs)


@given(JOBS, JOBS)
def test_ranges_are_what_is_waited_for(first: set[int], later: set[int]) -> None:
    """No more and no less, first runs and later ones."""
    ledger = Ledger()
    futures = [booked(ledger, job, 1) for job in first] + [booked(ledger, job, 3) for job in later]
    expected = {(job, 1) for job in first} | {(job, 3) for job in later}
    assert runs_of(ledger) == expected
    gone, left = futures[::2], futures[1::2]
    for future in gone[::2]:
        ledger.forget([future])
    ledger.take(Stored(f.stored_job, f.run or 0, "completed", "json", b"1", None) for f in gone[1::2])
    assert runs_of(ledger) == {(f.stored_job, f.run) for f in left}
    ledger.move([(future, future.stored_job, 4) for future in left])
    assert runs_of(ledger) == {(f.stored_job, 4) for f in left}


def test_a_million_side_by_side_are_one_range() -> None:
    """So that asking for them costs nothing."""
    ledger = Ledger()
    for job in range(1, 10 * STRIDE_JOBS + 8):
        booked(ledger, job, 1)
    assert ledger.ranges() == [(1, 10 * STRIDE_JOBS + 7, 1)]
