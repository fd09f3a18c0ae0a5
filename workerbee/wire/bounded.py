"""Pickling that stops at a limit, and that leaves large buffers to others."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

from workerbee.errors import PayloadTooLargeError

#: Takes a buffer out of the pickle that it is in, or says that it is to stay: as `pickle` has it.
Aside = Callable[[pickle.PickleBuffer], bool]
#: What was taken out of what is just being unpickled.
taken_out: ContextVar[Iterator[Any] | None] = ContextVar("taken_out", default=None)


def loads(data: bytes, buffers: Iterable[Any] = ()) -> Any:
    """The value of a pickle that is trusted, with the buffers that were taken out of it."""
    together = iter(buffers)
    token = taken_out.set(together)
    try:
        return pickle.loads(data, buffers=together)  # noqa: S301 (see above)
    finally:
        taken_out.reset(token)


class Bounded(io.BytesIO):
    """Takes at most so many bytes of the pickle of ``what``; the next one raises PayloadTooLargeError."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__()
        self._what = what
        self.most = most

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self.most:
            self.refuse()
        return super().write(data)

    def refuse(self) -> NoReturn:
        raise PayloadTooLargeError(self._what, None, self.most)


class Hashing:
    """A file that digests what is written to it and keeps nothing; the bound of another may hold for it too."""

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
