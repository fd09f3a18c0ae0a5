"""Where the prints of local jobs go: under the cell, where a program's streams aren't its descriptors."""

from __future__ import annotations

import _thread
import codecs
import fcntl
import os
import select
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

#: Bytes that are passed on at once, and seconds for which the end of a begun line is waited for.
CHUNK_BYTES, LINE_SECONDS = 1 << 16, 0.1
#: Seconds in which all is to be shown that an ended bee has left.
PATIENCE_SECONDS = 10.0
NAMES = {1: "stdout", 2: "stderr"}


class Prints:
    """Shows what a child prints to ``fd`` (1 or 2): where this process prints, or nowhere if it can't.

    ``target`` is what `subprocess.Popen` takes. A notebook's kernel may have a stream of its own that doesn't lead to
    the descriptor: then a thread writes there, to `sys.stdout` or `sys.stderr` as it is at that moment; or always to
    the given ``stream``.
    """

    def __init__(self, fd: int, stream: Any = None) -> None:
        self._fd = fd
        self._stream = stream
        self._ours: int | None = None
        self._is_over = threading.Event()
        self.target: int | None = inherited(fd)
        if stream is not None or _leads_elsewhere(getattr(sys, NAMES[fd], None)):
            self._ours, self.target = os.pipe()

    def begin(self) -> None:
        """Begin to read, after the child was started or could not be: from now on it alone has the other end."""
        if self._ours is None:
            return
        assert self.target is not None  # noqa: S101 (see above)
        os.close(self.target)
        # A kernel shows a `threading.Thread`'s prints under the cell that has started it, and this one's under the
        # cell that is run.
        _thread.start_new_thread(self._pass_on, (self._ours,))

    def finish(self) -> None:
        """Wait, after the child's end, until all is shown that it has printed."""
        if self._ours is not None:
            self._is_over.wait(PATIENCE_SECONDS)

    def _pass_on(self, ours: int) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while text := _lines(ours):
                show(self._stream or getattr(sys, NAMES[self._fd], None), decoder.decode(text))
        finally:
            os.close(ours)
            self._is_over.set()


def inherited(fd: int) -> int | None:
    """Choose a child's stdout or stderr: ours, or nothing if it is closed, or its number is another file's by now."""
    try:
        return subprocess.DEVNULL if fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC else None
    except OSError:
        return subprocess.DEVNULL


def _leads_elsewhere(stream: object) -> bool:
    """Tell whether a stream takes text, and no descriptor is behind it."""
    if stream is None or getattr(stream, "closed", False):
        return False
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 (a stream of anybody's making)
        return callable(getattr(stream, "write", None))
    return False


def _lines(fd: int) -> bytes:
    """Read what is there, up to the end of a line if that comes soon; nothing at the end."""
    text = os.read(fd, CHUNK_BYTES)
    while text and not text.endswith((b"\n", b"\r")) and len(text) < CHUNK_BYTES:
        if not select.select([fd], [], [], LINE_SECONDS)[0] or not (more := os.read(fd, CHUNK_BYTES)):
            break
        text += more
    return text


def show(stream: Any, text: str) -> None:
    """Write to a stream of the program's."""
    with suppress(Exception):  # the user's stream: whatever it does, the child mustn't be held up
        stream.write(text)
        stream.flush()
