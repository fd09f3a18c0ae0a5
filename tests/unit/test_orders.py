"""What a client and its bee say to each other arrives as it was said."""

from __future__ import annotations

import pytest

from workerbee.orders import (
    BeeEvent,
    BeWorkersOf,
    Broken,
    Drain,
    Dropped,
    Empty,
    Ended,
    ExitStatus,
    InitializerFailed,
    Log,
    Order,
    Orders,
    Start,
    from_line,
    to_line,
)

EVERYTHING = Orders(
    "dbname=x password='\"\n'",
    jobset_id="a",
    number=3,
    workers=2,
    functions=("m:f", "m:g"),
    lifetime=0.5,
    max_jobs=7,
    reconnect_timeout=None,
    flags=("-I",),
    hash_seed="0",
)


@pytest.mark.parametrize(
    "message",
    [
        Start(EVERYTHING, b"\x80\x00program"),
        Start(Orders("dbname=x"), b""),
        BeWorkersOf(b"\xff\n"),
        Drain(),
        Log(30, "two\nlines ü"),
        InitializerFailed('{"type": "E"}'),
        Broken("so"),
        Dropped(),
        Empty(),
        Ended(ExitStatus.TIME_IS_UP),
    ],
)
def test_each_message_is_one_line(message: Order | BeeEvent) -> None:
    """Of the type that it was."""
    line = to_line(message)
    assert line.count(b"\n") == 1
    read = from_line(line)
    assert read == message
    assert type(read) is type(message)


@pytest.mark.parametrize("cut", [to_line(Log(30, "x"))[:-3], b"\n"])
def test_half_a_line_is_no_message(cut: bytes) -> None:
    """The other end was killed while it said it."""
    with pytest.raises(ValueError):
        from_line(cut)


def test_the_exit_statuses_are_for_ever() -> None:
    """Scripts and schedulers go by them."""
    assert {status.name: int(status) for status in ExitStatus} == {
        "OK": 0,
        "USAGE": 2,
        "NO_DATABASE": 69,
        "CANT_GO_ON": 70,
        "TIME_IS_UP": 75,
    }
