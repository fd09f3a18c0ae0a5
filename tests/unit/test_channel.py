"""Frames between supervisor and runner, and the mark on which they agree what has begun."""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workerbee.bee import channel
from workerbee.bee.channel import Channel, GarbledError, Position

Pair = tuple[Channel, Channel]
MESSAGES = st.lists(st.binary(max_size=3000), max_size=8)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of one channel."""
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def frames(messages: list[bytes]) -> bytes:
    """What a channel makes of messages."""
    return b"".join(struct.pack("!Q", len(data)) + data for data in messages)


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in itertools.cycle(sizes):
        if not data:
            return
        yield data[:size]
        data = data[size:]


@given(MESSAGES, st.lists(st.integers(1, 50), min_size=1))
@settings(max_examples=100)
def test_frames_may_arrive_in_any_pieces(messages: list[bytes], sizes: list[int]) -> None:
    """However the bytes are cut, the same messages come out, in their order."""
    raw, sock = socket.socketpair()
    ours, got = Channel(sock), []
    for piece in pieces(frames(messages), sizes):
        raw.sendall(piece)
        got += ours.arrived() or []
    raw.close()
    ours.close()
    assert got == messages


@given(MESSAGES, st.lists(st.integers(1, 50), min_size=1))
@settings(max_examples=50)
def test_receiving_waits_for_the_rest(messages: list[bytes], sizes: list[int]) -> None:
    """The same for the side that waits, whose messages come while it does."""
    raw, sock = socket.socketpair()
    ours, got = Channel(sock), []

    def send() -> None:
        for piece in pieces(frames(messages), sizes):
            raw.sendall(piece)
        raw.close()

    thread = threading.Thread(target=send)
    thread.start()
    while (message := ours.receive()) is not None:
        got.append(message)
    thread.join()
    ours.close()
    assert got == messages


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 300_000, 5_000_000])
def test_messages_of_all_sizes_pass(pair: Pair, size: int) -> None:
    """Both ways of sending, and both ways of receiving."""
    message = os.urandom(size)
    ours, theirs = pair
    thread = threading.Thread(target=theirs.send, args=(b"", message[:7], message[7:]))
    thread.start()
    assert ours.receive() == message
    thread.join()
    theirs.queue(message[:70_000], message[70_000:])
    theirs.queue(b"then")
    got: list[Any] = []
    while len(got) < 2:
        theirs.send_some()
        got += ours.arrived() or []
    assert got == [message, b"then"]
    assert not theirs.has_unsent


def test_sending_some_does_not_wait(pair: Pair) -> None:
    """When the other end reads nothing, the rest stays queued."""
    ours, theirs = pair
    theirs.queue(bytes(10_000_000))
    theirs.send_some()
    assert theirs.has_unsent
    assert ours.arrived() == []


def test_the_other_ends_death_is_heard_after_its_last_words(pair: Pair) -> None:
    """What was sent before the end is still received, then None."""
    ours, theirs = pair
    theirs.send(b"last")
    theirs.socket.sendall(frames([b"cut"])[:-1])
    theirs.close()
    assert ours.receive() == b"last"
    assert ours.receive() is None
    assert ours.arrived() is None


def test_an_end_heard_without_waiting(pair: Pair) -> None:
    """The same for the side that doesn't block."""
    ours, theirs = pair
    theirs.send(b"last")
    theirs.close()
    assert ours.arrived() == [b"last"]
    assert ours.arrived() is None


def test_sending_to_the_dead_raises(pair: Pair) -> None:
    """Both ways of sending say that the other end is gone."""
    ours, theirs = pair
    theirs.close()
    with pytest.raises(OSError):
        ours.send(b"x")
    ours.queue(b"x")
    with pytest.raises(OSError):
        ours.send_some()


# The mark


@pytest.fixture
def mark() -> Iterator[Position]:
    made = Position.create()
    yield made
    made.close()


def test_a_mark_says_what_runs(mark: Position) -> None:
    """The number and the start of the job that the runner is in; none between jobs."""
    assert mark.current()[0] == 0
    assert mark.begin(7)
    number, since = mark.current()
    assert number == 7
    assert since > 0
    mark.between_jobs()
    assert mark.current() == (0, 0.0)


def test_what_was_taken_back_does_not_begin(mark: Position) -> None:
    """What has begun stays with the runner; the rest up to the last number doesn't begin; what comes later does."""
    assert mark.begin(3)
    assert mark.take_back(6) == 3
    assert not any(mark.begin(n) for n in (4, 5, 6))
    assert mark.begin(7)


def test_what_was_taken_back_stays_so(mark: Position) -> None:
    """Taking more back, while the runner is still to skip the earlier ones, gives it none of those."""
    assert mark.take_back(40) == 0
    assert not mark.begin(24)
    mark.take_back(41)
    assert not any(mark.begin(n) for n in range(24, 42))
    assert mark.begin(42)


def test_taking_back_less_gives_nothing_again(mark: Position) -> None:
    """The second time, the supervisor has only what began: what it took before is at other runners by now."""
    assert mark.begin(3)
    assert mark.take_back(6) == 3
    assert mark.take_back(3) == 3
    assert not any(mark.begin(n) for n in (4, 5, 6))
    assert mark.begin(7)


def test_a_resting_runner_has_begun_what_it_did(mark: Position) -> None:
    """Resting after a job, the runner has still begun it."""
    assert mark.begin(3)
    mark.between_jobs()
    assert mark.take_back(5) == 3
    assert not mark.begin(4)
    assert mark.begin(6)


RUNNER = """
import sys
from workerbee.bee.channel import Position
mark = Position(int(sys.argv[1]))
print(*[n for n in range(1, int(sys.argv[2]) + 1) if mark.begin(n)])
"""


@pytest.mark.parametrize("ahead", [1, 3, 40])
def test_runner_and_supervisor_agree(ahead: int) -> None:
    """In a race of two processes no job begins that was taken back, however the calls overlap."""
    n = 30_000
    mark = Position.create()
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(mark.fd), str(n)], pass_fds=[mark.fd], stdout=subprocess.PIPE, text=True
    )
    taken: set[int] = set()
    last = 0
    while last < n:
        before, last = last, max(last, min(n, mark.current()[0] + ahead))
        begun = mark.take_back(last)
        taken |= set(range(max(begun, before) + 1, last + 1))
    really = set(map(int, runner.communicate()[0].split()))
    mark.close()
    assert not really & taken
    assert really, "all was taken back before anything could begin: no race"


def test_the_mark_is_shared_memory() -> None:
    """The other process's words are seen without any message."""
    mark = Position.create()
    other = mmap.mmap(mark.fd, 32)
    mark.begin(5)
    assert int.from_bytes(other[:8], sys.byteorder) == 5
    other.close()
    mark.close()


@pytest.mark.parametrize("size", [101, 1 << 30, 1 << 63])
def test_what_is_too_long_is_not_waited_for(size: int) -> None:
    """What came before is heard, and nothing of what comes after."""
    raw, sock = socket.socketpair()
    ours = Channel(sock, most=100)
    raw.sendall(frames([b"before", bytes(100)]) + struct.pack("!Q", size) + bytes(1000))
    *before, error = ours.arrived() or []
    assert before == [b"before", bytes(100)]
    assert isinstance(error, GarbledError)
    raw.close()
    ours.close()


def test_half_a_frame_is_waited_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it comes at some pace; when nobody looked doesn't count."""
    ours, theirs = pair
    clock = itertools.count()
    now = [0.0]
    monkeypatch.setattr(channel.time, "monotonic", lambda: now[0] + next(clock) * 1e-9)
    drip = frames([bytes(5_000_000)])

    def hear(n: int) -> bool:
        nonlocal drip
        theirs.socket.sendall(drip[:n])
        drip = drip[n:]
        assert ours.arrived() == []
        return ours.is_overdue

    assert not hear(1)
    now[0] += 9
    assert not ours.is_overdue
    now[0] += 2
    assert ours.is_overdue, "it says nothing more"
    assert not hear(1), "but if it does, it was perhaps we who didn't look"
    for _ in range(4):
        now[0] += 2
        assert not hear(9)
    now[0] += 3
    assert hear(9), "a drop now and then is no message"


def test_a_mark_says_what_is_prepared(mark: Position) -> None:
    """Since when, and that it hasn't begun."""
    mark.prepare(7)
    number, since = mark.current()
    assert (number, mark.is_preparing) == (7, True)
    assert since > 0
    mark.begin(7)
    assert (mark.current()[0], mark.is_preparing) == (7, False)
