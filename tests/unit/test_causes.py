"""Failures of one cause are one group, whatever numbers their messages hold."""

from __future__ import annotations

import pytest

from workerbee.wire.causes import Cause, cause_of, cause_of_record

TRACE = """Traceback (most recent call last):
  File "/home/ada/study/model.py", line 7, in fit
    return step(x)
  File "/home/ada/study/solver.py", line 12, in step
    raise ValueError(x)
ValueError: 3
"""


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
    assert cause_of("ValueError", message, TRACE) == Cause("ValueError", folded, "solver.py:12 in step")


@pytest.mark.parametrize("trace", ["", "no frames here", '  File "cut off'])
def test_a_record_without_frames_has_a_cause_too(trace: str) -> None:
    """Its type and message are enough."""
    assert cause_of("ValueError", "x", trace).frame == ""


def test_another_place_is_another_cause() -> None:
    """The same message from another line isn't the same mistake."""
    here, there = (cause_of("E", "x", trace) for trace in (TRACE, TRACE.replace("line 12", "line 13")))
    assert here.digest != there.digest
    assert here.digest == cause_of("E", "x", TRACE.replace("/home/ada", "/srv")).digest


@pytest.mark.parametrize(
    "record", ["", "[]", "null", '{"type": 3}', '{"message": ["\\ud800"]}', b"\xff", "[" * 100_000]
)
def test_whatever_a_record_is_it_has_a_cause(record: str | bytes) -> None:
    """It may have been written by anybody."""
    assert len(cause_of_record(record).digest) == 8
