"""Keys of a terminal one by one, and the terminal as it was afterwards."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What a terminal sends for the arrows and enter.
SEQUENCES = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\r": "enter", "\n": "enter"}


@contextmanager
def keyboard() -> Iterator[Callable[[float], list[str]]]:
    """Keys one by one, and the terminal as it was at whatever end; gives what waits for keys or a new size."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    os.set_blocking(ours, False)
    handlers = {s: signal.signal(s, _end) for s in (signal.SIGTERM, signal.SIGHUP)}
    handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
    wakeup = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        tty.setcbreak(fd)
        yield lambda seconds: _keys(fd, ours, seconds)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(ours)
        os.close(theirs)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _keys(fd: int, woken: int, seconds: float) -> list[str]:
    """The keys that were pressed, waiting for one so long; none if the window has changed."""
    ready, _, _ = select.select([fd, woken], [], [], max(0.0, seconds))
    if woken in ready:
        os.read(woken, 1000)
    if fd not in ready:
        return []
    text = os.read(fd, 1000).decode("utf-8", "replace")
    if not text:  # the terminal is gone
        raise SystemExit(128 + signal.SIGHUP)
    return split_keys(text)


def split_keys(text: str) -> list[str]:
    """The keys in what a terminal has sent, by name where it is one of ours."""
    keys = []
    while text:
        name = next((sequence for sequence in SEQUENCES if text.startswith(sequence)), text[0])
        if name == "\x1b" and text[1:2] in ("[", "O"):  # a key that we don't know
            end = next((n for n, c in enumerate(text[2:], 3) if c.isalpha() or c == "~"), len(text))
            text = text[end:]
            continue
        keys.append(SEQUENCES.get(name, name))
        text = text[len(name) :]
    return keys
