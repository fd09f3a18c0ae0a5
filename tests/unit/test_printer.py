"""What a bee and its jobs print, when nobody reads it in time."""

from __future__ import annotations

import os

import pytest

from workerbee.bee.output import Lines
from workerbee.bee.printer import Printer


def test_what_is_lost_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its place, and how much it was; what is read in time is whole."""
    monkeypatch.setattr(Printer, "LAG", 200_000)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # as one may be that we have inherited
    printer = Printer()
    for _ in range(5):
        printer.put(writer, b"x" * 100_000)
    printer.put(writer, b"lost")
    text = b""
    while text.count(b"x") < 200_000:
        text += os.read(reader, 1 << 16)
    while printer._n_printed < 200_000:
        pass
    printer.put(writer, b"more\n")
    printer.finish()
    os.close(writer)
    while chunk := os.read(reader, 1 << 16):
        text += chunk
    os.close(reader)
    head, note, rest = text.partition(b"\n[workerbee: 300004 bytes of output are missing here")
    assert head == b"x" * 200_000
    assert note
    assert rest.endswith(b"]\nmore\n")


def test_half_lines_never_meet() -> None:
    """Whoever prints next begins a new line, but goes on with one of its own; and each stream for itself."""
    pipes = [os.pipe(), os.pipe()]
    printer = Printer()
    (_, out), (_, err) = pipes
    for fd, text, who in [
        (out, b"a half", 1),
        (err, b"an error\n", 2),
        (out, b" line", 1),
        (out, b"another's", 2),
        (out, b" end\n", 2),
        (out, b"50 %\r", 1),
        (out, b"whole\n", 2),
        (out, b"the last", 1),
        (out, b"bee ends\n", None),
    ]:
        printer.put(fd, text, who)
    printer.finish()
    for _, writer in pipes:
        os.close(writer)
    said = [os.read(reader, 1000) for reader, _ in pipes]
    for reader, _ in pipes:
        os.close(reader)
    assert said == [b"a half line\nanother's end\n50 %\rwhole\nthe last\nbee ends\n", b"an error\n"]


def test_lines_are_given_out_whole() -> None:
    """A half line waits for its end, but not for ever."""
    lines = Lines()
    assert lines.whole(b"one\nha") == b"one\n"
    assert lines.whole(b"lf") == b""
    assert lines.whole(b" of it\n50 %\r60") == b"half of it\n50 %\r"
    assert lines.remaining() == b"60"
    assert len(lines.whole(b"x" * (Lines.MOST_BYTES + 1))) == Lines.MOST_BYTES + 1
    assert (lines.whole(b"y"), lines.whole(b""), lines.remaining()) == (b"", b"y", b"")
