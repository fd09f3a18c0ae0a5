"""Large values between a client and its own bee: files in memory, in a private directory that only they use.

A value's row then has a signed reference in its place: which file, how long it is, and what is in it. A file holds
the value's arrays as they are, to be mapped, and behind them its pickle or JSON. No path comes from a row: the
directory is one that this process knows, by its token, and the file's name is made here from numbers.

Who may write here is the user himself. So what would be *executed*, a pickle without the large texts in it, is
compared with a SHA-256 that the signature covers; arrays and texts, which are only data, with a sum by XXH3, which
finds accidents, and takes a thirtieth of the time.

Files that are freed are written again (`spares`).

A large array of a call has a file of its own, which other calls with an equal array share as long as any of them is
under way. What looks the same at a glance is compared byte by byte: whoever has the array may have changed it. An array
that came in a result, and to which nobody has written since, isn't stored anew: the call says in which result it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from xxhash import xxh3_64, xxh3_64_intdigest

from workerbee import resources
from workerbee.directory import MAPPED, SharedDirectory
from workerbee.errors import ValueGoneError
from workerbee.mapped import Mapped
from workerbee.reference import CODECS, Apart, Portion, Reference, array_name
from workerbee.spares import Spares
from workerbee.wire.values import glance, known_equal, note_equal

#: The codec of a reference.
MEMORY = "memory"
#: A value, or an array, from so many bytes on is put into a file.
LEAST = 8_192
#: Seconds in which somebody may still begin to await the result of a job that has just ended (its retry, say).
YOUNG_SECONDS = 2.0
_OURS = re.compile(r"r([0-9]+)-[0-9a-f]{32}")
_CHUNK = 1 << 18  # so that a piece is summed while it is in the processor's cache


class Memory(SharedDirectory):
    """A directory for values in memory, as the client sees that has made it, or as one of its runners does."""

    def __init__(self, path: str, held: int | None = None) -> None:
        super().__init__(path, held)
        self._token = bytes.fromhex(path[-32:])
        self._client = os.getpid() if held is not None else None
        self._used: set[str] = set()  # names of the results that somebody here has, or is about to get
        self._lent: WeakValueDictionary[str, Lent] = WeakValueDictionary()  # what keeps files, by their names
        self._mapped = Mapped(self._let_go)  # arrays of results, for calls to come
        self._kept: dict[str, Lent] = {}  # results whose files stay for these alone
        self._remembered: list[Lent] = []  # results that the same calls are to have, too
        self.spares = Spares(self, keeps=held is not None)
        #: Arrays in files of their own, by what a glance shows of them; and those that were put for which call.
        self._shared: WeakValueDictionary[tuple[int, int], Shared] = WeakValueDictionary()
        self._put_for: dict[str, list[Lent]] = {}
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
        apart = {} if job else {n: found for n, part in enumerate(parts) if (found := self._apart(part)) is not None}
        draft = Reference(
            directory=self._token,
            file=secrets.token_bytes(16),
            job=job,
            codec=CODECS.index(codec),
            digest=_digest_of(parts),
            parts=tuple(Portion(isinstance(part, memoryview), len(part), 0) for part in parts),
            apart=tuple(found.where._replace(part=n) for n, found in apart.items()),
        )
        here = [part[:0] if n in apart else part for n, part in enumerate(parts)]
        sums = self._write(draft.name, here, draft.places())
        if sums is None:
            return None
        if apart:
            self._put_for[draft.name] = [found.lent for found in apart.values()]
        sums = [apart[n].sum if n in apart else total for n, total in enumerate(sums)]
        summed = tuple(part._replace(sum=total) for part, total in zip(draft.parts, sums, strict=True))
        return bytes(draft._replace(parts=summed))

    def _apart(self, part: memoryview | bytes) -> Elsewhere | None:
        """Find or make another file for a part of a call; None if it isn't large, or there is no room."""
        if not isinstance(part, memoryview):
            return None
        found = self._mapped.find(part)
        if found is not None and (lent := self._lent.get(found.name)) is not None:
            return Elsewhere(lent, found.where, found.sum)
        shared = self._share(part) if len(part) >= MAPPED else None
        return None if shared is None else Elsewhere(shared, Apart(0, 0, shared.file, len(part)), shared.sum)

    def _share(self, array: memoryview) -> Shared | None:
        """Find the file of an equal array of a call, or make one; None if there is no room."""
        seen = glance(array)
        found = self._shared.get(seen)
        if found is None or not (known_equal(array, found) or self._is_like(found, array)):
            file = secrets.token_bytes(16)
            sums = self._write(array_name(file), [array], [slice(0, len(array))])
            found = None if sums is None else Shared(self, file, sums[0])
            if found is not None:
                self._shared[seen] = found
        if found is not None:
            note_equal(array, found)
        return found

    def _is_like(self, shared: Shared, array: memoryview) -> bool:
        there = bytearray(_CHUNK)
        try:
            with self.opened(array_name(shared.file), os.O_RDONLY) as fd:
                for start in range(0, len(array), _CHUNK):
                    piece = array[start : start + _CHUNK]
                    del there[len(piece) :]
                    if os.preadv(fd, [there], start) != len(piece) or there != piece:
                        return False
        except OSError:
            return False
        return True

    def _write(self, name: str, parts: Sequence[memoryview | bytes], places: Sequence[slice]) -> list[int] | None:
        """Write a file; the sums of its parts. None if there is no room, or the directory is gone."""
        size = places[-1].stop
        if not self.has_room(size) and not (self._make_room() and self.has_room(size)):
            return None
        made = 0 if self.spares.become(name, size) else os.O_CREAT | os.O_EXCL
        try:
            with self.opened(name, os.O_WRONLY | os.O_NONBLOCK | made) as fd:
                sums = [_write(fd, part, place.start) for part, place in zip(parts, places, strict=True)]
                os.ftruncate(fd, size)
        except OSError:
            self.remove(name)
            return None
        except BaseException:  # an interrupt, say, of whoever submits
            self.remove(name)
            raise
        return sums

    # Taking

    def take(self, reference: Reference) -> list[memoryview | bytes]:
        """Take out the parts of a value: its arrays, writable and the caller's own, and what is behind them.

        Raises ValueGoneError if a file isn't there, or isn't what it was.
        """
        places = reference.places()
        content = self.read(reference.name, places[-1].stop)
        whole = content.data
        # What is executed is copied, and then looked at: whatever the file becomes meanwhile.
        both = list(zip(reference.parts, places, strict=True))
        parts = [whole[place] if part.is_data else bytes(whole[place]) for part, place in both]
        if _digest_of(parts) != reference.digest:
            raise ValueGoneError("its file has changed")
        apart = dict(self._take_apart(reference))
        for n, (part, place) in enumerate(both):
            if n in apart:
                parts[n] = apart[n]
            elif part.is_data and xxh3_64_intdigest(whole[place]) != part.sum:
                raise ValueGoneError("its file has changed")
        if reference.name in self._lent:
            self._mapped.note(reference, content)
        return parts

    def _take_apart(self, reference: Reference) -> Iterator[tuple[int, memoryview]]:
        """Map the parts that are in other files, by their numbers. Each has its own memory, also if one comes twice."""
        read = cache(lambda name, size, _: self.read(name, size))  # once for all arrays of a result
        times = Counter[tuple[str, int]]()
        for it in reference.apart:
            part = reference.parts[it.part]
            whole, stamp = read(it.name, it.file_size, times[it.name, it.at])
            times[it.name, it.at] += 1
            data = whole[it.at : it.at + part.size]
            if stamp != (it.number, it.changed_at) and (it.file, it.at, part.sum, stamp) not in self._seen:
                if xxh3_64_intdigest(data) != part.sum:
                    raise ValueGoneError("its file has changed")
                self._seen.add((it.file, it.at, part.sum, stamp))
            yield it.part, data

    # What a client does

    def lent(self, reference: bytes) -> Lent:
        """Make an object that keeps a value's file until the object is collected."""
        name = Reference.parse(reference).name
        self._used.add(name)
        lent = self._lent.get(name)  # of another future of the same job
        if lent is None:
            lent = self._lent[name] = Lent(self, name, self._put_for.pop(name, ()))
        return lent

    def remember(self, lent: Lent) -> None:
        """Keep a value's file until the end."""
        self._remembered.append(lent)

    def free(self, name: str) -> None:
        """Remove a file that nobody needs any more."""
        # A forked child has copies of our objects, but the files stay ours.
        if os.getpid() != self._client or self._held is None:
            return
        if self._mapped.has_some_of(name):
            self._kept[name] = self._lent[name] = Lent(self, name)
            if name in self._mapped:
                return
            self._kept.pop(name, None)  # another thread has unmapped it meanwhile
        self._used.discard(name)
        if not self.spares.keep(name):
            self.remove(name)

    def _let_go(self, name: str) -> None:
        """Keep the file of a result no longer, as far as calls to come are concerned."""
        self._kept.pop(name, None)

    def _make_room(self) -> bool:
        """Remove the files that are kept for what is to come. False if there is none."""
        kept = list(self._kept)
        for name in kept:
            self._mapped.forget(name)
            self._kept.pop(name, None)
        has_spares = self.spares.remove()
        self.look_again()
        return bool(kept) or has_spares

    def tidy(self, is_awaited: Callable[[int], bool]) -> None:
        """Remove results of jobs that nobody awaits: they came too late, or a killed runner has left them."""
        before = time.time() - YOUNG_SECONDS
        with suppress(OSError):
            for name in os.listdir(self.path):
                found = _OURS.fullmatch(name)
                if found and name not in self._used and not is_awaited(int(found[1])) and self._is_older(name, before):
                    self.remove(name)

    def _is_older(self, name: str, moment: float) -> bool:
        try:
            return os.stat(f"{self.path}/{name}", follow_symlinks=False).st_mtime < moment
        except FileNotFoundError:
            return False

    def close(self) -> None:
        super().close()
        self._remembered.clear()
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

    def __init__(self, memory: Memory, name: str, shared: Iterable[Lent] = ()) -> None:
        self._memory = memory
        self._name = name
        self._shared = shared

    def __del__(self) -> None:
        self._memory.free(self._name)


class Shared(Lent):
    """The file of an array that calls share."""

    __slots__ = ("file", "sum")

    def __init__(self, memory: Memory, file: bytes, total: int) -> None:
        super().__init__(memory, array_name(file))
        self.file = file
        self.sum = total


class Elsewhere(NamedTuple):
    """An array in another file: what keeps it, where it is, and its sum."""

    lent: Lent
    where: Apart
    sum: int


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


def _write(fd: int, part: memoryview | bytes, at: int) -> int:
    """Write a part of a value where it belongs; the sum of data, of anything else 0. Raises OSError."""
    total, is_data, view = xxh3_64(), isinstance(part, memoryview), memoryview(part)
    for start in range(0, len(view), _CHUNK):
        chunk = view[start : start + _CHUNK]
        written = 0
        while written < len(chunk):
            written += os.pwrite(fd, chunk[written:], at + start + written)
        if is_data:
            total.update(chunk)
    return total.intdigest() if is_data else 0


def _digest_of(parts: Iterable[memoryview | bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
    return digest.digest()
