"""What a row has of a large value that is in files in memory: which files, how long they are, and what is in them."""

from __future__ import annotations

import struct
from typing import NamedTuple

from workerbee.errors import ValueGoneError

#: The codecs that a value in a file may have, as `wire.codec` names them.
CODECS = ("pickle", "json", "json_call")
_ALIGNED = 64  # as NumPy aligns its arrays
_HEAD = struct.Struct("!16s16sQBI32sI")
_PART = struct.Struct("!?QQ")
_APART = struct.Struct("!IQ16sQQQQ")


class Reference(NamedTuple):
    """A value in a file: its directory and file by their tokens, and what it consists of.

    ``job`` is 0 if it is no result; the codec of what is behind the arrays is one of ``CODECS``. ``digest`` is of the
    parts that aren't data. Parts ``apart`` are in other files.
    """

    directory: bytes
    file: bytes
    job: int
    codec: int
    digest: bytes
    parts: tuple[Portion, ...]  # arrays, and what is behind them
    apart: tuple[Apart, ...] = ()

    def __bytes__(self) -> bytes:
        directory, file, job, codec, digest, parts, apart = self
        head = _HEAD.pack(directory, file, job, codec, len(parts), digest, len(apart))
        return b"".join((head, *[_PART.pack(*part) for part in parts], *[_APART.pack(*it) for it in apart]))

    @classmethod
    def parse(cls, data: bytes) -> Reference:
        """Read what a row has. Raises ValueGoneError for what is none."""
        try:
            directory, file, job, codec, n, digest, n_apart = _HEAD.unpack_from(data)
            end = _HEAD.size + n * _PART.size
            if n > n_apart and codec < len(CODECS) and len(data) == end + n_apart * _APART.size:
                parts = tuple(map(Portion._make, _PART.iter_unpack(data[_HEAD.size : end])))
                apart = tuple(map(Apart._make, _APART.iter_unpack(data[end:])))
                if all(it.part < n and parts[it.part].is_data for it in apart):
                    return cls(directory, file, job, codec, digest, parts, apart)
        except struct.error:
            pass
        raise ValueGoneError("its row has no reference")

    @property
    def name(self) -> str:
        """The file's."""
        return _result(self.job, self.file) if self.job else f"a{self.file.hex()}"

    @property
    def n_bytes(self) -> int:
        """Of the value."""
        return sum(part.size for part in self.parts)

    def places(self) -> list[slice]:
        """List the place in the file of each of the parts; an empty one of those that are apart."""
        places, at, apart = [], 0, {it.part for it in self.apart}
        for n, part in enumerate(self.parts):
            here = 0 if n in apart else part.size
            places.append(slice(at, at + here))
            at += -(-here // _ALIGNED) * _ALIGNED
        return places


class Portion(NamedTuple):
    """A part of a value; ``sum`` is that of data, of anything else 0."""

    is_data: bool
    size: int
    sum: int


class Apart(NamedTuple):
    """A part of a value in another file: that of an array, or if ``job`` isn't 0 that of this job's result.

    If the file has this number still, and was changed last at that time, its content was found to be right.
    """

    part: int
    job: int
    file: bytes
    file_size: int
    at: int = 0
    number: int = 0
    changed_at: int = 0  # in nanoseconds

    @property
    def name(self) -> str:
        """The file's."""
        return _result(self.job, self.file) if self.job else array_name(self.file)


def array_name(file: bytes) -> str:
    """Give the name of an array's own file."""
    return f"b{file.hex()}"


def _result(job: int, file: bytes) -> str:
    """Give the name of a result's file."""
    return f"r{job}-{file.hex()}"
