"""Large arrays of calls and functions, each stored once a jobset however many have it: by a digest of what is in it.

Behind the codec of such a call, or of a function's record, stands ``;values=``, and which arrays were taken out of its
pickle, in their order. The codec is signed, and so is by their digests what is in them.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakValueDictionary, ref

_MARK = ";values="
#: An array of so many bytes or more is taken out.
LEAST = 1_000_000
_STEADY = 1_000  # arrays that are known to stay as they are, the latest
_GLANCES, _GLANCE = 16, 4096  # pieces of an array, and bytes of each, that tell it from most others


class TakenArray(NamedTuple):
    """An array that was taken out, by its SHA-256 and its size."""

    sha256: bytes
    size: int

    @property
    def token(self) -> UUID:
        """The name under which it is stored."""
        return UUID(bytes=self.sha256[:16])


class Value:
    """A copy of an array, as its owner may change it meanwhile."""

    __slots__ = ("__weakref__", "data", "taken")

    def __init__(self, array: memoryview) -> None:
        self.data = bytearray(array)  # which is compared faster than anything else
        self.taken = TakenArray(hashlib.sha256(self.data).digest(), len(array))


class Values:
    """The arrays of a client's calls that aren't stored yet."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[int, int], Value] = WeakValueDictionary()

    def of(self, array: memoryview) -> Value:
        """Copy an array, unless there is an equal copy already; it may have changed since it was given last."""
        seen = glance(array)
        value = self._known.get(seen)
        if value is None or not (known_equal(array, value) or value.data == array):
            value = self._known[seen] = Value(array)
        note_equal(array, value)
        return value


class Steady:
    """NumPy's arrays that somebody says stay as they are, each with the copy that it was found to be equal to.

    An array is known by the one that owns its memory, and by its place there.
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int, int], tuple[ref[Any], ref[Any]]] = {}

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have no array compared in the block that was compared, or copied, in such a block before."""
        token = _steady.set(self)
        try:
            yield
        finally:
            _steady.reset(token)

    def note(self, array: memoryview, copy: object) -> None:
        """Remember that an array and a copy are equal."""
        if (owner := _owner(array)) is not None:
            self._copies[_place(array, owner)] = ref(owner), ref(copy)
            if len(self._copies) > _STEADY:
                del self._copies[next(iter(self._copies))]

    def knows(self, array: memoryview, copy: object) -> bool:
        """Tell whether an array was equal to this copy; not if its memory has become another array's."""
        if (owner := _owner(array)) is None:
            return False
        whose, which = self._copies.get(_place(array, owner), (None, None))
        return whose is not None and which is not None and whose() is owner and which() is copy


_steady: ContextVar[Steady | None] = ContextVar("_steady", default=None)


def known_equal(array: memoryview, copy: object) -> bool:
    """Tell whether an array needn't be compared with a copy of it, as it stays as it is."""
    steady = _steady.get()
    return steady is not None and steady.knows(array, copy)


def note_equal(array: memoryview, copy: object) -> None:
    """Have an array that stays as it is known as equal to a copy."""
    if (steady := _steady.get()) is not None:
        steady.note(array, copy)


def _owner(array: memoryview) -> Any:
    """Find NumPy's array that owns the memory of this one; None for what isn't NumPy's."""
    numpy = sys.modules.get("numpy")
    found = array.obj
    if numpy is None or not isinstance(found, numpy.ndarray):
        return None
    while isinstance(found.base, numpy.ndarray):
        found = found.base
    return found


def _place(array: memoryview, owner: Any) -> tuple[int, int, int]:
    found: Any = array.obj
    return id(owner), found.__array_interface__["data"][0], len(array)


def glance(array: memoryview) -> tuple[int, int]:
    """Give what is seen of an array at a glance: its size, and the sum of some pieces."""
    total, step = 0, max(1, len(array) // _GLANCES)
    for start in range(0, len(array), step):
        total = zlib.crc32(array[start : start + _GLANCE], total)
    return len(array), total


def without(codec: str, values: Iterable[Value]) -> str:
    """Name the codec of a pickle from which these were taken."""
    return f"{codec}{_MARK}{','.join(f'{v.taken.sha256.hex()}:{v.taken.size}' for v in values)}"


@lru_cache(10_000)
def kind(codec: str) -> str:
    """Give the codec itself."""
    return codec.partition(_MARK)[0]


@lru_cache(10_000)
def taken(codec: str) -> tuple[TakenArray, ...]:
    """List what was taken out of a pickle with this codec; nothing if the codec makes no sense."""
    written = codec.partition(_MARK)[2].partition(";")[0]
    try:
        return tuple(TakenArray(bytes.fromhex(it[:64]), int(it[65:])) for it in written.split(",") if it)
    except ValueError:
        return ()
