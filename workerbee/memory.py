"""Large values between a client and its own bee: files in memory, in a private directory that only they use.

A value's row then has a signed reference in its place: which file, how long it is, and what is in it. A file holds
the value's arrays as they are, to be mapped, and behind them its pickle or JSON. No path comes from a row: the
directory is one that this process knows, by its token, and the file's name is made here from numbers.

Who may write here is the user himself. So what would be *executed*, a pickle without the large texts in it, is
compared with a SHA-256 that the signature covers; arrays and texts, which are only data, with a CRC-32, against
accidents: it costs half of the time.

Pages of memory that nobody has used yet cost more than what is written to them. So arguments that are freed, and that
nobody has open or mapped any more, as a lease tells, are written again while others are under way.

A large array of a call has a file of its own, which other calls with an equal array share as long as any of them is
under way. What looks the same at a glance is compared byte by byte: whoever has the array may have changed it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from workerbee import resources
from workerbee.directory import MAPPED, SharedDirectory
from workerbee.errors import ValueGoneError
from workerbee.wire.values import glance, known_equal, note_equal

#: The codec of a reference.
MEMORY = "memory"
#: The codecs that a value in a file may have, as `wire.codec` names them.
CODECS = ("pickle", "json", "json_call")
#: A value, or an array, from so many bytes on is put into a file.
LEAST = 8_192
#: Bytes of freed arguments that are kept at most, while others are under way, to be written again.
SPARE_BYTES = 64_000_000
_CHUNK = 1 << 18  # so that a piece is summed while it is in the processor's cache
_ALIGNED = 64  # as NumPy aligns its arrays
_HEAD = struct.Struct("!16s16sQBI32sII")
_SIZE = struct.Struct("!?Q")
_APART = struct.Struct("!I16sI")
_OURS = re.compile(r"r([0-9]+)-[0-9a-f]{32}")


class Reference(NamedTuple):
    """A value in a file: its directory and file by their tokens, and what it consists of.

    ``job`` is 0 if it is no result; the codec of what is behind the arrays is one of ``CODECS``. ``sum`` is of the
    parts that are data, ``digest`` of the others. Parts ``apart`` are in files of their own.
    """

    directory: bytes
    file: bytes
    job: int
    codec: int
    sum: int
    digest: bytes
    parts: tuple[tuple[bool, int], ...]  # whether it is data, and its size: of arrays, and of what is behind them
    apart: tuple[Apart, ...] = ()

    def __bytes__(self) -> bytes:
        *facts, parts, apart = self
        sizes = [_SIZE.pack(*part) for part in parts]
        return b"".join((_HEAD.pack(*facts, len(parts), len(apart)), *sizes, *[_APART.pack(*it) for it in apart]))

    @classmethod
    def parse(cls, data: bytes) -> Reference:
        """Read what a row has. Raises ValueGoneError for what is none."""
        try:
            directory, file, job, codec, total, digest, n, n_apart = _HEAD.unpack_from(data)
            end = _HEAD.size + n * _SIZE.size
            if n > n_apart and codec < len(CODECS) and len(data) == end + n_apart * _APART.size:
                parts = tuple(_SIZE.iter_unpack(data[_HEAD.size : end]))
                apart = tuple(map(Apart._make, _APART.iter_unpack(data[end:])))
                if all(it.part < n and parts[it.part][0] for it in apart):
                    return cls(directory, file, job, codec, total, digest, parts, apart)
        except struct.error:
            pass
        raise ValueGoneError("its row has no reference")

    @property
    def name(self) -> str:
        """The file's."""
        return f"r{self.job}-{self.file.hex()}" if self.job else f"a{self.file.hex()}"

    @property
    def n_bytes(self) -> int:
        """Of the value."""
        return sum(size for _, size in self.parts)

    def places(self) -> list[slice]:
        """List the place in the file of each of the parts; an empty one of those that are apart."""
        places, at, apart = [], 0, {it.part for it in self.apart}
        for n, (_, size) in enumerate(self.parts):
            here = 0 if n in apart else size
            places.append(slice(at, at + here))
            at += -(-here // _ALIGNED) * _ALIGNED
        return places


class Apart(NamedTuple):
    """A part of a value that has a file of its own, by the file's token, and the sum of its bytes."""

    part: int
    file: bytes
    sum: int


class Memory(SharedDirectory):
    """A directory for values in memory, as the client sees that has made it, or as one of its runners does."""

    def __init__(self, path: str, held: int | None = None) -> None:
        super().__init__(path, held)
        self._token = bytes.fromhex(path[-32:])
        self._client = os.getpid() if held is not None else None
        self._used: set[str] = set()  # names of the results that somebody here has, or is about to get
        self._spare: dict[str, int] = {}  # files that may be written again, and their sizes
        #: Arrays in files of their own, by what a glance shows of them; and those that were put for which call.
        self._shared: WeakValueDictionary[tuple[int, int], Shared] = WeakValueDictionary()
        self._put_for: dict[str, list[Shared]] = {}
        self._seen: resources.Few[tuple[Any, ...]] = resources.Few()  # shared files whose sums were found to be right
        _directories[self._token] = self

    # Putting

    def lender(self, job: int = 0, run: int = 0) -> MemoryLender:
        """Make what puts arguments, or the result of a job, here."""
        return MemoryLender(self, job)

    def put(self, codec: str, parts: Sequence[memoryview | bytes], job: int = 0) -> bytes | None:
        """Store a value, its arrays first; the reference to it. None if there is no room.

        Parts that are data are memory views, those that will be executed are bytes.
        """
        kinds = tuple((isinstance(part, memoryview), len(part)) for part in parts)
        large = [n for n, (is_data, size) in enumerate(kinds) if is_data and size >= MAPPED and not job]
        shared = {n: found for n in large if (found := self._share(memoryview(parts[n]))) is not None}
        apart = tuple(Apart(n, found.file, found.sum) for n, found in shared.items())
        file, digest = secrets.token_bytes(16), _digest_of(parts)
        draft = Reference(self._token, file, job, CODECS.index(codec), 0, digest, kinds, apart)
        here = [part[:0] if n in shared else part for n, part in enumerate(parts)]
        total = self._write(draft.name, here, draft.places())
        if total is None:
            return None
        if shared:
            self._put_for[draft.name] = list(shared.values())
        return bytes(draft._replace(sum=total))

    def _share(self, array: memoryview) -> Shared | None:
        """Find the file of an equal array of a call, or make one; None if there is no room."""
        seen = glance(array)
        found = self._shared.get(seen)
        if found is None or not (known_equal(array, found) or self._is_like(found, array)):
            file = secrets.token_bytes(16)
            total = self._write(_name_of(file), [array], [slice(0, len(array))])
            found = None if total is None else Shared(self, file, total)
            if found is not None:
                self._shared[seen] = found
        if found is not None:
            note_equal(array, found)
        return found

    def _is_like(self, shared: Shared, array: memoryview) -> bool:
        there = bytearray(_CHUNK)
        try:
            with self.opened(_name_of(shared.file), os.O_RDONLY) as fd:
                for start in range(0, len(array), _CHUNK):
                    piece = array[start : start + _CHUNK]
                    del there[len(piece) :]
                    if os.preadv(fd, [there], start) != len(piece) or there != piece:
                        return False
        except OSError:
            return False
        return True

    def _write(self, name: str, parts: Sequence[memoryview | bytes], places: Sequence[slice]) -> int | None:
        """Write a file; the sum of what is data in it. None if there is no room, or the directory is gone."""
        size = places[-1].stop
        if not self.has_room(size):
            return None
        made = 0 if self._has_used_again(name, size) else os.O_CREAT | os.O_EXCL
        try:
            with self.opened(name, os.O_WRONLY | made) as fd:
                total = _write(fd, zip(parts, places, strict=True))
                os.ftruncate(fd, size)
        except OSError:
            self.remove(name)
            return None
        return total

    def _has_used_again(self, name: str, size: int) -> bool:
        """Give a file that was freed the name of a new one, if there is one that isn't much too large."""
        for spare, spared in list(self._spare.items()):
            if spared < 2 * size and self._spare.pop(spare, 0):
                with suppress(OSError):
                    os.rename(f"{self.path}/{spare}", f"{self.path}/{name}")
                    return True
        return False

    # Taking

    def take(self, reference: Reference) -> list[memoryview | bytes]:
        """Take out the parts of a value: its arrays, writable and the caller's own, and what is behind them.

        Raises ValueGoneError if a file isn't there, or isn't what it was.
        """
        places = reference.places()
        whole, _ = self.read(reference.name, places[-1].stop)
        kinds = (is_data for is_data, _ in reference.parts)
        # What is executed is copied, and then looked at: whatever the file becomes meanwhile.
        parts = [whole[place] if is_data else bytes(whole[place]) for is_data, place in zip(kinds, places, strict=True)]
        if _sum_of(parts) != reference.sum or _digest_of(parts) != reference.digest:
            raise ValueGoneError("its file has changed")
        for part, file, total in reference.apart:
            data, stamp = self.read(_name_of(file), reference.parts[part][1])
            if (file, total, stamp) not in self._seen and zlib.crc32(data) != total:
                raise ValueGoneError("its file has changed")
            self._seen.add((file, total, stamp))
            parts[part] = data
        return parts

    # What a client does

    def lent(self, reference: bytes) -> Lent:
        """Make an object that keeps a value's file until the object is collected."""
        name = Reference.parse(reference).name
        self._used.add(name)
        return Lent(self, name, self._put_for.pop(name, ()))

    def free(self, name: str) -> None:
        """Remove a file that nobody needs any more."""
        if os.getpid() == self._client:  # a forked child has copies of our objects, but the files stay ours
            self._used.discard(name)
            if name.startswith("r") or not self._spared(name):
                self.remove(name)

    def _spared(self, name: str) -> bool:
        """Keep a file's pages for other arguments, unless somebody here or elsewhere may still look at them."""
        spare = f"s{secrets.token_hex(16)}"
        try:
            size = os.stat(f"{self.path}/{name}", follow_symlinks=False).st_size
            if size < MAPPED or sum(self._spare.values()) + size > SPARE_BYTES:
                return False
            os.rename(f"{self.path}/{name}", f"{self.path}/{spare}")  # so that nobody opens it any more
            with self.opened(spare, os.O_RDWR) as fd:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # refused if it is open or mapped anywhere else
        except OSError:
            self.remove(spare)
            return False
        self._spare[spare] = size
        return True

    def tidy(self, is_awaited: Callable[[int], bool]) -> None:
        """Remove results of jobs that nobody awaits: they came too late, or a killed runner has left them."""
        with suppress(OSError):
            for name in os.listdir(self.path):
                found = _OURS.fullmatch(name)
                if found and name not in self._used and not is_awaited(int(found[1])):
                    self.remove(name)

    def remove_spare(self) -> None:
        """Remove the files that are kept only to be written again. Call it when nothing is under way."""
        while self._spare:
            self.remove(self._spare.popitem()[0])

    def close(self) -> None:
        super().close()
        _directories.pop(self._token, None)


class MemoryLender:
    """Puts values where a client and its bee share memory: arguments, or the result of ``job`` if that isn't 0."""

    __slots__ = ("_job", "_memory")
    codec, least, apart = MEMORY, LEAST, LEAST

    def __init__(self, memory: Memory, job: int = 0) -> None:
        self._memory = memory
        self._job = job

    def lend(self, codec: str, parts: Sequence[memoryview | bytes]) -> bytes | None:
        """Put the parts of a value here, arrays first, and give its reference; None if there is no room for it."""
        return self._memory.put(codec, parts, self._job)


class Lent:
    """A value's file, which is removed when this object is collected; ``shared`` are arrays of it that others share."""

    __slots__ = ("__weakref__", "_memory", "_name", "_shared")

    def __init__(self, memory: Memory, name: str, shared: Iterable[Shared] = ()) -> None:
        self._memory = memory
        self._name = name
        self._shared = shared

    def __del__(self) -> None:
        self._memory.free(self._name)


class Shared(Lent):
    """The file of an array that calls share."""

    __slots__ = ("file", "sum")

    def __init__(self, memory: Memory, file: bytes, total: int) -> None:
        super().__init__(memory, _name_of(file))
        self.file = file
        self.sum = total


_directories: dict[bytes, Memory] = {}


def recall(data: bytes) -> tuple[str, list[memoryview | bytes]]:
    """Fetch the codec of a value and its parts, by the reference of a row whose signature holds.

    Raises ValueGoneError.
    """
    reference = Reference.parse(data)
    memory = _directories.get(reference.directory)
    if memory is None:
        raise ValueGoneError("it was lent by another client to its own bee, in memory")
    return CODECS[reference.codec], memory.take(reference)


def _write(fd: int, parts: Iterable[tuple[memoryview | bytes, slice]]) -> int:
    """Write the parts of a value where they belong; the sum of what is data. Raises OSError."""
    total = 0
    for part, place in parts:
        is_data, view = isinstance(part, memoryview), memoryview(part)
        for start in range(0, len(view), _CHUNK):
            chunk = view[start : start + _CHUNK]
            written = 0
            while written < len(chunk):
                written += os.pwrite(fd, chunk[written:], place.start + start + written)
            total = zlib.crc32(chunk, total) if is_data else total
    return total


def _name_of(file: bytes) -> str:
    """Give the name of an array's own file."""
    return f"b{file.hex()}"


def _sum_of(parts: Iterable[memoryview | bytes]) -> int:
    total = 0
    for part in parts:
        total = zlib.crc32(part, total) if isinstance(part, memoryview) else total
    return total


def _digest_of(parts: Iterable[memoryview | bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
    return digest.digest()
