"""What a program prints that runs jobs itself (`JobSet.run`) goes by its bee, which keeps it with the jobs."""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from workerbee import logs
from workerbee.client.prints import CHUNK_BYTES, NAMES, Prints, inherited, show

#: Descriptors are the process's: of two runs at once, in different threads, the first one leads them.
_LEADING = threading.Lock()
#: How long the rest is waited for: a process that a job has left behind may keep the pipes open.
REST_SECONDS = 0.2


class Capture:
    """Leads stdout and stderr into pipes that the bee reads, from `begin` to `end`.

    The bee has to be started in between, as it prints where this process does: ``prints`` are for it, and ``pipes``.
    ``outputs`` are the pipes' other ends.
    """

    def __init__(self) -> None:
        self._led = [_Led(fd, name) for fd, name in NAMES.items()]
        self.prints = tuple(led.prints for led in self._led)
        self.pipes = [led.pipe for led in self._led]
        self.outputs = [led.output for led in self._led]
        self._unread = select.poll()
        for pipe in self.pipes:
            self._unread.register(pipe, select.POLLIN)
        self._flush_c = getattr(ctypes.CDLL(None), "fflush", lambda _: None)
        self._is_leading = self._is_over = False
        self._closing = threading.Lock()

    def begin(self) -> None:
        """Lead what is printed from now on into the pipes."""
        if _LEADING.acquire(blocking=False):
            self._flush()
            for led in self._led:
                led.begin()
            logs.keep_apart(self._led[0].shown)
            self._is_leading = True

    def settle(self) -> bool:
        """Flush what was printed. Returns whether the pipes hold anything."""
        self._flush()
        return bool(self._unread.poll(0))

    def end(self) -> None:
        """Lead stdout and stderr to where they were: no job is run any more."""
        self._flush()
        if self._is_leading:
            self._is_leading = False
            logs.keep_apart(None)
            for led in self._led:
                led.restore()
            _LEADING.release()
        with self._closing:
            self._is_over = True
            for output in self.outputs:
                os.close(output)

    def show_rest(self) -> None:
        """Show what the bee, which has ended, hasn't read, and whatever is still to come.

        A job may be in the midst of a long text, and a process that a job has left behind may go on printing.
        """
        with self._closing, Path(os.devnull).open("wb") as nowhere:
            # A runner that goes on without its bee has nothing to divide.
            for output in () if self._is_over else self.outputs:
                os.dup2(nowhere.fileno(), output)
        for led in self._led:
            led.showing.start()

    def finish(self) -> None:
        """Wait until the rest is shown, if nobody prints there any more."""
        for led in self._led:
            if led.showing.is_alive():
                led.showing.join(REST_SECONDS)

    def _flush(self) -> None:
        for name in NAMES.values():
            with suppress(Exception):  # the job's own
                getattr(sys, name).flush()
        self._flush_c(None)


class _Led:
    """One of the streams: as a descriptor, and as Python's stream if that doesn't lead to the descriptor."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd, self._name = fd, name
        self.pipe, self.output = os.pipe()
        os.set_blocking(self.pipe, False)
        self._apart = _apart(fd, getattr(sys, name, None))
        self.prints = Prints(fd, self._apart)
        self.showing = threading.Thread(target=self._show_rest, daemon=True)
        self._saved = -1
        self._ours: Any = None
        self.shown: Any = self._apart  # where it is read; None: nowhere

    def begin(self) -> None:
        if inherited(self._fd) is None:
            self._saved = os.dup(self._fd)
            os.dup2(self.output, self._fd)
            self.shown = self._apart or _text_to(self._saved)
        if self._apart is not None:
            self._ours = _text_to(os.dup(self.output))
            setattr(sys, self._name, self._ours)

    def restore(self) -> None:
        if self._saved >= 0:
            os.dup2(self._saved, self._fd)
        if self._apart is not None and getattr(sys, self._name, None) is self._ours:
            setattr(sys, self._name, self._apart)
        self._ours = None

    def _show_rest(self) -> None:
        os.set_blocking(self.pipe, True)
        while text := os.read(self.pipe, CHUNK_BYTES):
            show(self.shown, text.decode(errors="replace"))
        os.close(self.pipe)
        self.shown = None


def _apart(fd: int, stream: Any) -> Any:
    """Give a stream back if what is written there doesn't come to the descriptor, as in a notebook."""
    if not callable(getattr(stream, "write", None)) or getattr(stream, "closed", False):
        return None
    try:
        return None if stream.fileno() == fd else stream
    except Exception:  # noqa: BLE001 (a stream of anybody's making)
        return stream


def _text_to(fd: int) -> Any:
    """Make a stream that writes to the descriptor line by line. It ends with the last who keeps it, as a logger may."""
    options: Any = {"buffering": 1, "encoding": "utf-8", "errors": "backslashreplace", "closefd": False}
    stream = open(fd, "w", **options)  # noqa: SIM115 (it lives on)
    weakref.finalize(stream, os.close, fd)
    return stream
