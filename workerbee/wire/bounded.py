"""Pickling that stops at a limit, and that leaves large buffers to others."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from workerbee.errors import PayloadTooLargeError

#: A piece of a pickle: what is only data is a memory view, what is executed is bytes.
Segment = memoryview | bytes
#: Bytes from which on a pickler writes a text by itself.
TEXT_BYTES = 1 << 16
#: The buffers that were taken out of the pickle that is being loaded.
taken_out: ContextVar[Iterator[Any] | None] = ContextVar("taken_out", default=None)


def loads(stream: Sequence[Segment], buffers: Iterable[Any] = ()) -> Any:
    """Load the value of a pickle (in parts) that is trusted, with the buffers that were taken out of it."""
    together = iter(buffers)
    token = taken_out.set(together)
    try:
        if len(stream) == 1:
            return pickle.loads(stream[0], buffers=together)  # noqa: S301 (see above)
        return pickle.load(_Joined(stream), buffers=together)  # noqa: S301
    finally:
        taken_out.reset(token)


class _Joined:
    """A file to unpickle from: parts one after the other, none of which is copied but into what is made of it."""

    def __init__(self, parts: Iterable[Segment]) -> None:
        self._left = deque(memoryview(part) for part in parts if part)

    def readinto(self, target: Any) -> int:
        into, n = memoryview(target), 0
        while n < len(into) and self._left:
            piece = self._left.popleft()
            some, rest = piece[: len(into) - n], piece[len(into) - n :]
            into[n : n + len(some)] = some
            n += len(some)
            if rest:
                self._left.appendleft(rest)
        return n

    def read(self, size: int) -> bytes:
        data = bytearray(size)
        return bytes(data[: self.readinto(data)])

    def readline(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (character := self.read(1)):
            line += character
        return line


class Bounded(io.BytesIO):
    """Takes at most so many bytes of the pickle of ``what``; the next one raises PayloadTooLargeError.

    ``arrays`` are what was taken out of it.
    """

    def __init__(self, what: str, most: int) -> None:
        super().__init__()
        self._what = what
        self.most = most
        self.arrays: list[memoryview] = []

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self.most:
            self.refuse()
        return super().write(data)

    def refuse(self) -> NoReturn:
        raise PayloadTooLargeError(self._what, None, self.most)

    def aside(self, _: pickle.PickleBuffer) -> bool:
        """Take a buffer out of the pickle that is made here; True: it stays. For `pickle.Pickler`."""
        return True

    def stream(self) -> list[Segment]:
        """Give the pickle, in parts."""
        return [self.getvalue()]


class Scattered(Bounded):
    """Keeps large buffers (``arrays``) and texts of a pickle as they are, from ``least`` bytes on: none is copied."""

    def __init__(self, what: str, most: int, least: int) -> None:
        super().__init__(what, most)
        self._least = least
        self._size = 0
        self._before: list[Segment] = []

    def aside(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # its items don't lie side by side
            return True
        if view.nbytes < self._least:
            return True
        self._count(view.nbytes)
        self.arrays.append(view)
        return False

    def write(self, data: Any) -> int:
        view = pickle.PickleBuffer(data).raw()  # its bytes, whatever an array has as items
        self._count(view.nbytes)
        # A pickler writes what is executed, whose large pieces begin with one of these codes, and else large texts.
        if view.nbytes < TEXT_BYTES or bytes(view[:1]) in (pickle.FRAME, pickle.PROTO):
            return io.BytesIO.write(self, data)
        self._before += [self.getvalue(), view]
        self.seek(0)
        self.truncate()
        return view.nbytes

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self.most:
            self.refuse()

    def stream(self) -> list[Segment]:
        return [*self._before, self.getvalue()]


class Hashing:
    """A file that digests what is written to it and keeps nothing; it may share the limit of a `Bounded` file."""

    def __init__(self, bound: Bounded | None) -> None:
        self._bound = bound
        self._size = 0
        self._state = hashlib.blake2b(digest_size=16)

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._size += size
        if self._bound is not None and self._size > self._bound.most:
            self._bound.refuse()
        self._state.update(data)
        return size

    def digest(self) -> bytes:
        return self._state.digest()
