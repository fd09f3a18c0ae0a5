"""When a bee ends and with which status, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from workerbee.bee.departure import Departure, Phase
from workerbee.orders import ExitStatus

WORKING, STOPPING, DRAINING, OVER = Phase.WORKING, Phase.STOPPING, Phase.DRAINING, Phase.OVER
#: A look at the phase: when (seconds), how many jobs were taken, and how many batches are held. Or a stop.
Step = tuple[float, int, int] | str


def played(steps: Sequence[Step], *, lifetime: float | None = None, max_jobs: int | None = None) -> list[Phase]:
    """The phases of a bee with 10 s of grace, started at 100."""
    departure = Departure(100.0, grace=10.0, lifetime=lifetime, max_jobs=max_jobs)
    return [phase_of(departure, step) for step in steps if not stopped(departure, step)]


def stopped(departure: Departure, step: Step) -> bool:
    if isinstance(step, str):
        departure.stop(float(step.split()[-1]), at_once="now" in step)
    return isinstance(step, str)


def phase_of(departure: Departure, step: Step) -> Phase:
    assert not isinstance(step, str)
    now, n_taken, n_held = step
    return departure.phase(now, n_taken=n_taken, n_held=n_held)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(101, 5, 1), (9999, 5, 0)], [WORKING, WORKING]),
        (["stop 101", (101, 0, 0), (102, 0, 1), (111, 0, 1), (111.1, 0, 1)], [STOPPING, DRAINING, DRAINING, OVER]),
        (["stop 101", "stop 102", (102, 0, 1)], [OVER]),
        (["now 101", (101, 0, 1)], [OVER]),
        ([(101, 0, 0), "stop 102", (103, 0, 1), "now 104", (104, 0, 1)], [WORKING, STOPPING, OVER]),
    ],
    ids=["nobody stops it", "grace", "twice", "at once", "the client is gone meanwhile"],
)
def test_stops(steps: Sequence[Step], expected: list[Phase]) -> None:
    """The first leaves what runs its grace, the second none; it is announced once."""
    assert played(steps) == expected


def test_the_end_of_a_lifetime_drains() -> None:
    steps = [(110, 0, 1), (120, 0, 1), (120.5, 0, 1), (130, 0, 1), (131, 0, 1)]
    assert played(steps, lifetime=20.0) == [WORKING, WORKING, STOPPING, DRAINING, OVER]


def test_so_many_jobs_are_all() -> None:
    """Once they are taken, and all of them done."""
    assert played([(101, 4, 0), (102, 5, 2), (103, 5, 0), (104, 5, 0)], max_jobs=5) == [
        WORKING,
        WORKING,
        STOPPING,
        DRAINING,
    ]


@pytest.mark.parametrize(
    ("steps", "reason", "now", "status"),
    [
        ([(101, 0, 0)], ExitStatus.OK, 101, ExitStatus.OK),
        (["stop 101", (101, 0, 0)], ExitStatus.OK, 101, ExitStatus.OK),
        ([(101, 5, 0)], ExitStatus.OK, 101, ExitStatus.TIME_IS_UP),
        ([(121, 0, 0)], ExitStatus.OK, 121, ExitStatus.TIME_IS_UP),
        (["stop 101", (121, 0, 0)], ExitStatus.OK, 121, ExitStatus.OK),
        ([(121, 0, 0)], ExitStatus.CANT_GO_ON, 121, ExitStatus.CANT_GO_ON),
        ([(101, 0, 0)], ExitStatus.NO_DATABASE, 119, ExitStatus.NO_DATABASE),
        ([(101, 0, 0)], ExitStatus.NO_DATABASE, 121, ExitStatus.TIME_IS_UP),
        ([(101, 5, 0)], ExitStatus.NO_DATABASE, 119, ExitStatus.NO_DATABASE),
    ],
)
def test_the_status_says_why(steps: Sequence[Step], reason: ExitStatus, now: float, status: ExitStatus) -> None:
    """That the time is up explains that nothing is left, and an outage that outlasts it; nothing else."""
    departure = Departure(100.0, grace=10.0, lifetime=20.0, max_jobs=5)
    for step in steps:
        if not stopped(departure, step):
            phase_of(departure, step)
    assert departure.status(reason, now) is status


@pytest.mark.parametrize(
    ("stops", "has_arrived", "until"),
    [([], True, 130), (["stop 101"], True, 111), (["stop 101"], False, 100), (["stop 101", "stop 102"], True, 100)],
)
def test_an_outage_is_waited_out_as_long_as_there_is_time(stops: list[str], has_arrived: bool, until: float) -> None:
    """What has ended is to be stored: hence the grace, unless nothing can have ended yet, or all goes back."""
    departure = Departure(100.0, grace=10.0, lifetime=20.0)
    for stop in stops:
        stopped(departure, stop)
    assert not departure.is_out_of_time(until, has_arrived=has_arrived) or until == 100
    assert departure.is_out_of_time(until + 0.1, has_arrived=has_arrived)
