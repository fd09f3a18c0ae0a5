"""Large values that aren't in their row: it has a reference to where they were put, in a codec of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from workerbee import blobs, memory
from workerbee.blobs import BLOB
from workerbee.memory import MEMORY
from workerbee.reference import Reference

#: The codecs of references.
CODECS = frozenset({MEMORY, BLOB})


class Lender(Protocol):
    """Puts large values elsewhere. Its references have their own ``codec``.

    Values of ``least`` bytes or more are put there; arrays of ``apart`` bytes or more stand apart from their pickle.
    """

    @property
    def codec(self) -> str: ...
    @property
    def least(self) -> int: ...
    @property
    def apart(self) -> int: ...
    def lend(self, codec: str, parts: Sequence[memoryview | bytes]) -> bytes | None:
        """Store the parts of a value, arrays first, and give its reference; None if there is no room for it."""


class Lending(Protocol):
    """A place to which large values are lent."""

    def lender(self, job: int = 0, run: int = 0) -> Lender:
        """Make what lends the result of a job's run, or arguments."""


def recall(codec: str, reference: bytes) -> tuple[str, list[memoryview | bytes]]:
    """Fetch the codec of a value and its parts, arrays first, by a reference whose signature holds.

    Raises ValueGoneError, LostValueError, LargeValuesError.
    """
    return memory.recall(reference) if codec == MEMORY else blobs.recall(reference)


def length(codec: str, data: bytes) -> int:
    """Give the bytes of a value, wherever they are."""
    if codec == MEMORY:
        return Reference.parse(data).n_bytes
    return blobs.Whereabouts.parse(data).size if codec == BLOB else len(data)
