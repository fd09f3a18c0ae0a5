"""Large values between a client and its own bee: files in memory, in a private directory that only they use.

A value's row then has a signed reference in its place: which file, how long it is, and what is in it. A file holds
the value's arrays as they are, to be mapped, and behind them its pickle or JSON. No path comes from a row: the
directory is one that this process knows, by its token, and the file's name is made here from numbers.

Who may write here is the user himself. So what would be *executed*, the pickle, is compared with a SHA-256 that the
signature covers; arrays, which are only data, with a CRC-32, against accidents: it costs a tenth of the time.

The client holds a shared flock on the directory. Whoever gets the exclusive one may remove it: the bee or its guard
after the client's death, or else the next client on this host.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import re
import secrets
import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, suppress
from pickle import PickleBuffer
from typing import Any, NamedTuple

from workerbee import guard, resources
from workerbee.errors import PayloadTooLargeError, ValueGoneError

#: The codec of a reference.
MEMORY = "memory"
#: What may be in its place, as `wire.codec` has them.
CODECS = ("pickle", "json", "json_call")
#: Bytes from which on a value, or an array in it, is worth a file; and those from which on it is worth a mapping.
LEAST, MAPPED = 32_768, 1_000_000
#: The part of what is free in memory that all values of a client may take, and seconds for which that is known.
SHARE, KNOWN_SECONDS = 0.5, 0.05
_CHUNK = 1 << 18  # written and summed up while it is in the processor's cache
_ALIGNED = 64  # as NumPy has its arrays
_HEAD = struct.Struct("!16s16sQBI32sI")
_SIZE = struct.Struct("!Q")
_NAME = re.compile(r"workerbee-[0-9]+-[0-9a-f]{32}")
_OURS = re.compile(r"r([0-9]+)-[0-9a-f]{32}")


class Reference(NamedTuple):
    """A value in a file: its directory and file by their tokens, and what it consists of.

    ``job`` is 0 if it is no result; the codec of what is behind the arrays is one of ``CODECS``.
    """

    directory: bytes
    file: bytes
    job: int
    codec: int
    sum: int
    digest: bytes
    sizes: tuple[int, ...]  # of the arrays, and of what is behind them

    def __bytes__(self) -> bytes:
        *facts, sizes = self
        return _HEAD.pack(*facts, len(sizes)) + b"".join(map(_SIZE.pack, sizes))

    @classmethod
    def parse(cls, data: bytes) -> Reference:
        """Read what a row has. Raises ValueGoneError for what is none."""
        try:
            directory, file, job, codec, total, digest, n = _HEAD.unpack_from(data)
            if n and codec < len(CODECS) and len(data) == _HEAD.size + n * _SIZE.size:
                sizes = tuple(size for (size,) in _SIZE.iter_unpack(data[_HEAD.size :]))
                return cls(directory, file, job, codec, total, digest, sizes)
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
        return sum(self.sizes)

    def places(self) -> list[slice]:
        """The place in the file of each of the sizes."""
        places, at = [], 0
        for size in self.sizes:
            places.append(slice(at, at + size))
            at += -(-size // _ALIGNED) * _ALIGNED
        return places


class Memory:
    """A directory for values in memory, as the client sees that has made it, or as one of its runners does."""

    def __init__(self, path: str, held: int | None = None) -> None:
        """``held``: a descriptor with the client's lock."""
        self.path = path
        self._token = bytes.fromhex(path[-32:])
        self._held = held
        self._client = os.getpid() if held is not None else None
        self._used: set[str] = set()  # the results that somebody here has, or is about to get
        self._left = 0.0
        self._known_until = 0.0
        _directories[self._token] = self

    @classmethod
    def make(cls) -> Memory | None:
        """A client's own; None where there is no place for it. What dead clients have left there is removed."""
        base = _base()
        with suppress(OSError):
            for name in filter(_NAME.fullmatch, os.listdir(base)):
                guard.remove_unused(f"{base}/{name}")
            for _ in range(3):
                path = f"{base}/workerbee-{os.geteuid()}-{secrets.token_hex(16)}"
                os.mkdir(path, 0o700)
                if (held := _hold(path)) is not None:  # else somebody has taken it for a dead client's
                    return cls(path, held)
        return None

    # Putting

    def put(self, codec: str, parts: Sequence[memoryview | bytes], job: int = 0) -> bytes | None:
        """Store a value, its arrays first; the reference to it. None if there is no room."""
        file, sizes = secrets.token_bytes(16), tuple(map(len, parts))
        draft = Reference(self._token, file, job, CODECS.index(codec), 0, hashlib.sha256(parts[-1]).digest(), sizes)
        if not self._has_room(draft.n_bytes):
            return None
        try:
            with self._opened(draft.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
                total = _write(fd, zip(parts, draft.places(), strict=True))
        except OSError:  # the memory is full, or the directory is gone
            self._remove(draft.name)
            return None
        return bytes(draft._replace(sum=total))

    def _has_room(self, size: int) -> bool:
        now = time.monotonic()
        if now > self._known_until:
            self._left, self._known_until = self._room(), now + KNOWN_SECONDS
        self._left -= size
        return self._left >= 0

    def _room(self) -> float:
        """Bytes that may be put here now."""
        used = 0
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # it has just been freed
                        used += entry.stat(follow_symlinks=False).st_size
            place = os.statvfs(self.path)
            free = min(place.f_bavail * place.f_frsize, resources.free_memory())
        except OSError:
            return 0.0
        return SHARE * (free + used) - used

    # Taking

    def take(self, reference: Reference) -> tuple[list[memoryview], bytes]:
        """The arrays of a value, writable and the caller's own, and what is behind them.

        Raises ValueGoneError if the file isn't there, or isn't what it was.
        """
        places = reference.places()
        try:
            with self._opened(reference.name, os.O_RDONLY | os.O_NONBLOCK) as fd:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                    raise ValueGoneError("its file is none of ours")
                if found.st_size != places[-1].stop:
                    raise ValueGoneError("its file has changed")
                whole = memoryview(_contents(fd, found.st_size))
        except OSError as error:
            raise ValueGoneError(f"its file can't be read ({error.strerror})") from None
        *arrays, rest = (whole[place] for place in places)
        behind = bytes(rest)
        if _sum_of(arrays) != reference.sum or hashlib.sha256(behind).digest() != reference.digest:
            raise ValueGoneError("its file has changed")
        return arrays, behind

    @contextmanager
    def _opened(self, name: str, flags: int) -> Any:
        """A file of the directory, whatever else has been put in the place of either."""
        # By its path each time: a job may close any descriptor, and its number is then another file's.
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            yield fd
        finally:
            os.close(fd)

    # What a client does

    def lent(self, reference: bytes) -> Lent:
        """Get what keeps a value's file as long as it is kept itself."""
        name = Reference.parse(reference).name
        self._used.add(name)
        return Lent(self, name)

    def free(self, name: str) -> None:
        """Nobody needs this file any more."""
        if os.getpid() == self._client:  # a forked child has our objects, and our files stay ours
            self._used.discard(name)
            self._remove(name)

    def tidy(self, is_awaited: Callable[[int], bool]) -> None:
        """Remove results that came too late, or that killed runners have begun: those of jobs that nobody awaits."""
        with suppress(OSError):
            for name in os.listdir(self.path):
                found = _OURS.fullmatch(name)
                if found and name not in self._used and not is_awaited(int(found[1])):
                    self._remove(name)

    def close(self) -> None:
        """The end of it all; who has a value keeps it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
            _directories.pop(self._token, None)
            guard.remove_unused(self.path)

    def disown(self) -> None:
        """In a forked child: our parent's death is to be seen, though we live on."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(f"{self.path}/{name}")


class Lender(NamedTuple):
    """Puts values where a client and its bee share memory: arguments, or with its number the result of a ``job``."""

    memory: Memory
    job: int = 0

    def lend(self, codec: str, parts: Sequence[memoryview | bytes]) -> bytes | None:
        """The reference that stands for a value in this codec, its arrays first; None if there is no room for it."""
        return self.memory.put(codec, parts, self.job)


class Arrays:
    """Takes large buffers out of the pickle of ``what``. Raises PayloadTooLargeError."""

    def __init__(self, what: str, most: int) -> None:
        self.taken: list[memoryview] = []
        self.size = 0
        self._what = what
        self._most = most

    def __call__(self, buffer: PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # its items don't lie side by side
            return True
        if view.nbytes < LEAST:
            return True
        self.size += view.nbytes
        if self.size > self._most:
            raise PayloadTooLargeError(self._what, None, self._most)
        self.taken.append(view)
        return False


class Lent:
    """A value's file, which goes when nobody keeps this any more."""

    __slots__ = ("_memory", "_name")

    def __init__(self, memory: Memory, name: str) -> None:
        self._memory = memory
        self._name = name

    def __del__(self) -> None:
        self._memory.free(self._name)


_directories: dict[bytes, Memory] = {}


def recall(data: bytes) -> tuple[str, list[memoryview], bytes]:
    """The codec of a value, its arrays, and what is behind them, by the reference of a row whose signature holds.

    Raises ValueGoneError.
    """
    reference = Reference.parse(data)
    memory = _directories.get(reference.directory)
    if memory is None:
        raise ValueGoneError("it was lent by another client to its own bee, in memory")
    return (CODECS[reference.codec], *memory.take(reference))


def _base() -> str:
    shared = "/dev/shm"  # noqa: S108 (the directory there is private)
    return shared if os.access(shared, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _hold(path: str) -> int | None:
    """A descriptor with a shared lock on this directory; None if it was removed meanwhile."""
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(held)):
            return held
    except OSError:
        pass
    os.close(held)
    return None


def _write(fd: int, parts: Iterable[tuple[memoryview | bytes, slice]]) -> int:
    """Write the arrays of a value, and what is behind them, where they belong; the arrays' sum. Raises OSError."""
    total = before = 0
    for part, place in parts:
        before, view = total, memoryview(part)
        for start in range(0, len(view), _CHUNK):
            chunk = view[start : start + _CHUNK]
            written = 0
            while written < len(chunk):
                written += os.pwrite(fd, chunk[written:], place.start + start + written)
            total = zlib.crc32(chunk, total)
    return before


def _sum_of(arrays: Iterable[memoryview]) -> int:
    total = 0
    for array in arrays:
        total = zlib.crc32(array, total)
    return total


def _contents(fd: int, size: int) -> mmap.mmap | bytearray:
    """A file's bytes, writable, and what is written is the caller's alone."""
    if size >= MAPPED:
        with suppress(OSError):  # a process may have so many mappings
            return mmap.mmap(fd, size, access=mmap.ACCESS_COPY)
    whole = bytearray(size)
    at = 0
    while at < size and (n := os.preadv(fd, [memoryview(whole)[at:]], at)):
        at += n
    return whole
