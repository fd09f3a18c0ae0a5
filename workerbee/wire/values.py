"""Large arrays of calls and functions, each stored once a jobset however many have it: by a digest of what is in it.

Behind the codec of such a call, or of a function's record, stands ``;values=``, and which arrays were taken out of its
pickle, in their order. The codec is signed, and so is by their digests what is in them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID
from weakref import WeakValueDictionary

_MARK = ";values="
#: An array of so many bytes or more is taken out.
LEAST = 1_000_000
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
        if value is None or value.data != array:
            value = self._known[seen] = Value(array)
        return value


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
