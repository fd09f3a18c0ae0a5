"""What hints say: written by bees, and by anybody else who can connect."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbee.store import parse_hint, results_hint
from workerbee.store.hints import MOST_BYTES, MOST_JOBS
from workerbee.wire.job import EndKind, Outcome, Stored

MAC = bytes(range(16))

GARBAGE = [
    "9" * 5000,
    f"1-{'9' * 5000}",
    f"{'9' * 5000}-1",
    "1-9999999999999999999",
    "-1",
    "5-1",
    "1--5",
    "\u0663",  # a digit, but not ours
    "\u00b2",
    "1\u20055",
    "0x10 1e3 1_000",
    "\ud800",
    "",
    "?",
    "\n" * 7000,
    f"1\n{'9' * 5000} 1 json 00 1",
    f"1\n1 {'9' * 5000} json 00 1",
    "1\n1 1 json zz 1",
    "1\n1 1 json 0 1",
    "1\n1 1 pickle 00 x",
    "1\n1 1 pickle 00 0",
    "1\n1 1 PICKLE 00 00",
    f"1\n1 1 {'x' * 5000} 00 00",
    "1\n1 1 json 00 \ud800",
    "1\n\u0661 1 json 00 1",
    "1\n-1 -1 json 00 1",
    " ".join(f"{n}-99999999999" for n in range(500)),
    "\0",
]


@pytest.mark.parametrize("hint", GARBAGE)
def test_garbage_is_left_out(hint: str) -> None:
    """Quickly, whatever it claims; what it may name are ids."""
    began = time.process_time()
    jobs, ends = parse_hint(hint)
    assert time.process_time() - began < 0.5
    assert len(jobs) <= MOST_JOBS
    assert all(0 <= job < 10**19 + MOST_JOBS for job in jobs)
    assert all(0 <= end.job < 10**19 and 0 <= end.run < 10**10 for end in ends)
    assert all(end.codec == "json" for end in ends)


#: Of what hints are made, and of what is nearly that.
PIECES = st.sampled_from(["1", "7-9", " ", "\n", "-", "json", "0f", "{}", "?", "\0", "\u0663", "\u00b2", "\ud800"])
IDS = st.sampled_from(["1", "23", "9" * 20, "\u00b2"])
ENDS = st.tuples(IDS, IDS, st.sampled_from(["json", "memory"]), st.sampled_from(["0f", "f", "0", "zz"]), PIECES)


@given(st.lists(PIECES | ENDS.map(lambda end: "\n" + " ".join(end)), max_size=30).map("".join))
def test_any_text_is_read(hint: str) -> None:
    """Nothing that anybody sends raises."""
    parse_hint(hint)


#: Results as a hint may carry them.
RESULTS = st.sampled_from([("json", b'"\xc3\xa4 \\n"'), ("pickle", b"\x80\x05K\x01.\n"), ("memory", bytes(range(200)))])


@given(st.sets(st.integers(1, 2**63 - 1) | st.integers(1, 500), min_size=1, max_size=200), RESULTS, st.booleans())
def test_what_was_written_is_read(jobs: set[int], result: tuple[str, bytes], signed: bool) -> None:
    """All jobs, unless they are too many, and small results with their signatures."""
    codec, data = result
    outcomes = [Outcome(job, 1, EndKind.COMPLETED, codec, data, MAC if signed else None, 0.1) for job in sorted(jobs)]
    hint = results_hint(outcomes)
    assert len(hint.encode()) < MOST_BYTES + 1
    named, ends = parse_hint(hint)
    assert hint == "?" or set(named) == jobs
    if signed and len(jobs) <= 8:
        assert ends == [Stored(o.job, 1, "completed", codec, data, MAC) for o in outcomes]


@pytest.mark.parametrize(("codec", "come"), [("json", [0, 1, 4]), ("pickle", [1, 2, 4])])
def test_a_large_result_does_not_come_along(codec: str, come: list[int]) -> None:
    """Small ones beside it do, as far as there is room."""
    data = [b"0" * n for n in (4000, 10, 3000, 3000, 10)]
    outcomes = [Outcome(job, 1, EndKind.COMPLETED, codec, it, MAC, 0.1) for job, it in enumerate(data)]
    hint = results_hint(outcomes)
    assert len(hint.encode()) < MOST_BYTES + 1
    jobs, ends = parse_hint(hint)
    assert jobs == [*range(5)]
    assert [end.job for end in ends] == come
