"""What supervisors and runners say comes through as it was said; what no runner says is known, and takes no memory."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbee.bee.channel import GarbledError
from workerbee.bee.messages import (
    CODECS,
    KINDS,
    MOST_ENDS,
    Become,
    CallMessage,
    Finished,
    Forget,
    Learn,
    Outdated,
    Perform,
    Quit,
    Recorded,
    Telling,
    Unusable,
    order,
    parse,
    report,
    told,
)
from workerbee.wire.job import LARGE_BYTES, EndKind

CALL = CallMessage(7, 1, 1, 1, "json", b"{}", b"mac")

ENDS = st.lists(
    st.builds(
        Finished,
        n=st.integers(0, 2**64 - 1),
        kind=st.sampled_from(KINDS),
        codec=st.sampled_from(CODECS),
        data=st.binary(max_size=99),
        mac=st.none() | st.binary(min_size=16, max_size=16),
        duration=st.floats(0, 1e300),
        printed=st.booleans(),
    ),
    max_size=9,
)
FUNCTIONS = st.builds(
    Unusable,
    jobset=st.integers(0, 2**31 - 1),
    function=st.integers(0, 2**31 - 1),
    reason=st.text(st.characters(exclude_categories=["Cs"])),
    error=st.none() | st.binary(),
)


@pytest.mark.parametrize(
    "telling",
    [
        Become(b"program"),
        Learn(1, "uuid", 3, (3, b"digest", "name"), is_fresh=False),
        Forget(1, 3),
        Perform(1, 3, [tuple(CALL)]),
        Recorded(),
        Quit(),
    ],
)
def test_what_a_supervisor_tells(telling: Telling) -> None:
    """Of the type that it was."""
    heard = told(order(telling))
    assert heard == telling
    assert type(heard) is type(telling)


@given(ENDS | FUNCTIONS | st.just(Outdated()))
def test_what_is_said_is_heard(said: list[Finished] | Unusable | Outdated) -> None:
    frame = b"".join(report(said))
    assert (parse(frame), type(parse(frame))) == (said, type(said))
    with pytest.raises(GarbledError):
        parse(frame + b"x") if not isinstance(said, Unusable) or said.error is None else parse(frame[:9])


def test_a_large_result_is_not_copied() -> None:
    """It is a view of what came; an error record is bytes, whatever its size."""
    value, record = bytes(LARGE_BYTES + 1), bytes(LARGE_BYTES + 2)
    said = [
        Finished(1, EndKind.COMPLETED, "pickle", value, None, 0.0),
        Finished(2, EndKind.ERROR, "error", record, None, 0.0),
    ]
    one, two = parse(b"".join(report(said)))
    assert (type(one.data), type(two.data)) == (memoryview, bytes)
    assert (one.data, two.data) == (value, record)


def end(kind: int = 0, codec: int = 1, seconds: float = 0.0, size: int = 0) -> bytes:
    return struct.pack("!QBBdQ?16s?", 1, kind, codec, seconds, size, False, b"", False)


ONE = b"D\0\0\0\1"
NONSENSE = {
    "nothing": b"",
    "an unknown word": b"hello",
    "too little": b"D",
    "too many": struct.pack("!cI", b"D", MOST_ENDS + 1) + bytes(44) * (MOST_ENDS + 1),
    "many that aren't there": b"D\0\0\xff\xff",
    "marshal that takes gigabytes": b"(\xff\xff\xff\x7f",
    "marshal without end": b"\xa9\x01" * 100_000,
    "an unknown end": ONE + end(kind=len(KINDS)),
    "an unknown codec": ONE + end(codec=len(CODECS)),
    "no duration": ONE + end(seconds=float("nan")),
    "a duration without end": ONE + end(seconds=float("inf")),
    "a negative duration": ONE + end(seconds=-1.0),
    "half an end": ONE + end()[:-1],
    "a result that isn't there": ONE + end(size=1 << 62),
    "a result that is cut": ONE + end(size=9) + b"12345678",
    "a result more": ONE + end() + b"1",
    "an odd function": b"Uxx",
    "a function for a reason that isn't there": b"U" + struct.pack("!iiI?", 1, 1, 1 << 31, False),
    "a function for no text": b"U" + struct.pack("!iiI?", 1, 1, 1, False) + b"\xff",
    "an error that isn't said to be there": b"U" + struct.pack("!iiI?", 1, 1, 0, False) + b"{}",
    "more than outdated": b"Oh",
}


@pytest.mark.parametrize("frame", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_known_for_what_it_is(frame: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(GarbledError):
        parse(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
