"""What a bee's own monotonic clock says of the server's."""

from __future__ import annotations

import pytest

from workerbee.bee.presence import ServerClock


@pytest.mark.parametrize(
    ("readings", "step"),
    [
        ([(10.0, 1000.0, 10.1)], 0.0),
        ([(10.0, 1000.0, 10.1), (18.0, 1008.05, 18.1)], 0.0),
        ([(10.0, 1000.0, 10.1), (11.0, 1003.0, 13.0)], 0.0),
        ([(10.0, 1000.0, 13.0), (14.0, 1001.0, 14.1)], 0.0),
        ([(10.0, 1000.0, 10.1), (11.0, 1001.4, 11.1)], 0.0),
        ([(10.0, 1000.0, 10.1), (11.0, 1006.0, 11.1)], 4.9),
        ([(10.0, 1000.0, 10.1), (11.0, -2599.0, 11.1)], -3599.9),
        ([(10.0, 1000.0, 10.1), (11.0, 1006.0, 11.1), (12.0, 1007.0, 12.1)], 0.0),
    ],
    ids=["first", "none", "slow answer", "slow before", "drift", "forward", "an hour back", "told once"],
)
def test_a_step_of_the_servers_clock(readings: list[tuple[float, float, float]], step: float) -> None:
    """It is one if no delay of an answer explains it, and is told once, by no more than it was."""
    clock = ServerClock()
    assert [clock.step(*reading) for reading in readings][-1] == pytest.approx(step)
