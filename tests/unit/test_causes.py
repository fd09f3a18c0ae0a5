"""Failures of one cause are one group, whatever numbers their messages hold."""

from __future__ import annotations

import pytest

from workerbee.causes import Cause, cause_of, grouped
from workerbee.store import FailureRow

TRACE = """Traceback (most recent call last):
  File "/home/ada/study/model.py", line 7, in fit
    return step(x)
  File "/home/ada/study/solver.py", line 12, in step
    raise ValueError(x)
ValueError: 3
"""


def failure(job: int, message: str, *, kind: str = "ValueError", trace: str = TRACE, at: float = 0.0) -> FailureRow:
    return FailureRow(job, "model:fit", kind, message, trace, at)


@pytest.mark.parametrize(
    ("message", "folded"),
    [
        ("unlucky 13", "unlucky #"),
        ("1.5e-3 > 2", "# > #"),
        ("<Model object at 0x7f00a1b2>", "<Model object at #>"),
        ("no row 6f1c0f52-93a0-4a42-8a6e-0a5c1f6b7d11", "no row #"),
        ("first line 1\nsecond line", "first line #"),
        ("  indented", "indented"),
        ("", ""),
        ("nothing varies", "nothing varies"),
    ],
)
def test_what_varies_is_folded(message: str, folded: str) -> None:
    """Numbers, addresses and UUIDs of a message's first line."""
    assert cause_of(failure(1, message)) == Cause("ValueError", folded, "solver.py:12 in step")


@pytest.mark.parametrize("trace", ["", "no frames here", '  File "cut off'])
def test_a_record_without_frames_has_a_cause_too(trace: str) -> None:
    """Its type and message are enough."""
    assert cause_of(failure(1, "x", trace=trace)).frame == ""


def test_groups_come_by_their_size() -> None:
    """Each with its jobs, its functions, and when it was seen first and last."""
    failures = [
        failure(9, "rare", kind="KeyError", at=5.0),
        failure(8, "unlucky 8", at=4.0),
        failure(7, "unlucky 7", at=6.0),
    ]
    often, rare = grouped(failures)
    assert (often.jobs, often.functions, often.first_at, often.last_at) == ([8, 7], ["model:fit"], 4.0, 6.0)
    assert rare.cause.type == "KeyError"


def test_another_place_is_another_cause() -> None:
    """The same message from another line isn't the same mistake."""
    assert len(grouped([failure(1, "x"), failure(2, "x", trace=TRACE.replace("line 12", "line 13"))])) == 2
