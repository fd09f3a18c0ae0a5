"""Results as they are mapped here: which of their arrays are still what their files have, so that calls can have them.

A mapping is private: what is written to it, by whoever has the array, changes no file. The kernel gives each page that
is written to a copy of its own, and tells which pages have none: https://docs.kernel.org/admin-guide/mm/pagemap.html
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple
from weakref import ref

from workerbee.directory import Content
from workerbee.reference import Apart, Portion, Reference

#: An array is noted if it has so many bytes: writing it anew takes longer than looking at its pages.
LEAST = 100_000
#: What the kernel says of a page: so many bytes, and these are flags in the last of them.
_PAGE_BYTES, _PRESENT, _SWAPPED, _OF_A_FILE = 8, 0x80, 0x40, 0x20


class Unchanged(NamedTuple):
    """An array of the result whose file has this ``name``: its place there, and its sum."""

    name: str
    where: Apart
    sum: int


class _Result(NamedTuple):
    """A result's mapping, and its arrays by their addresses."""

    mapping: ref[mmap.mmap]
    arrays: dict[int, tuple[Apart, Portion]]

    def has(self, address: int) -> bool:
        """Tell whether the array at this address is there, and nobody has written to it."""
        if self.mapping() is None or address not in self.arrays:
            return False
        return not _has_copies(address, self.arrays[address][1].size)


class Mapped:
    """Arrays of results, each as long as it is mapped; ``forgotten`` is told which results have none any more."""

    def __init__(self, forgotten: Callable[[str], None]) -> None:
        self._results: dict[str, _Result] = {}
        self._names: dict[int, str] = {}  # of the results, by the addresses of their arrays
        self._forgotten = forgotten

    def note(self, reference: Reference, content: Content) -> None:
        """Remember the large arrays of a result, in the place of those that another future's value had."""
        whole, stamp = content
        name, mapping = reference.name, whole.obj
        if not isinstance(mapping, mmap.mmap) or not _kernel_tells():
            return
        self.forget(name)
        arrays = {
            _address(whole[place]): (Apart(0, reference.job, reference.file, len(whole), place.start, *stamp), part)
            for part, place in zip(reference.parts, reference.places(), strict=True)
            if part.is_data and part.size >= LEAST
        }
        self._results[name] = _Result(ref(mapping, partial(self.forget, name)), arrays)
        self._names |= dict.fromkeys(arrays, name)

    def __contains__(self, name: object) -> bool:
        return name in self._results

    def find(self, array: memoryview) -> Unchanged | None:
        """Find an array of a result, if nobody has written to it."""
        address = _address(array) if len(array) >= LEAST else 0
        name = self._names.get(address, "")
        result = self._results.get(name)
        if result is None or not result.has(address):
            return None
        where, part = result.arrays[address]
        return Unchanged(name, where, part.sum) if len(array) == part.size else None

    def has_some_of(self, name: str) -> bool:
        """Tell whether any array of this result may still be found."""
        result = self._results.get(name)
        return result is not None and any(map(result.has, result.arrays))

    def forget(self, name: str, gone: ref[mmap.mmap] | None = None) -> None:
        """Look no more for the arrays of a result, as its mapping is ``gone``, if that is still its last one."""
        result = self._results.get(name)
        if result is None or (gone is not None and gone is not result.mapping):
            return
        if self._results.pop(name, None) is not result:
            return  # another thread was faster
        for address in result.arrays:
            if self._names.get(address) == name:  # else another one has been mapped there meanwhile
                del self._names[address]
        self._forgotten(name)


def _address(data: memoryview) -> int:
    """Say where in this process's memory some data is; 0 of what is empty or can't be written to."""
    import ctypes  # noqa: PLC0415 (whoever has large arrays has loaded it)

    return 0 if data.readonly or not data else ctypes.addressof(ctypes.c_char.from_buffer(data))


@lru_cache(1)
def _kernel_tells() -> bool:
    """Tell whether the kernel says that memory that was written to belongs to no file: some sandboxes say nothing."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[0] = 1
    return _has_copies(_address(memoryview(page)), mmap.PAGESIZE)


def _has_copies(address: int, size: int) -> bool:
    """Tell whether any page of some memory is a copy, or may be one."""
    first, last = address // mmap.PAGESIZE, (address + size - 1) // mmap.PAGESIZE
    length = _PAGE_BYTES * (last - first + 1)
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pages = os.pread(fd, length, _PAGE_BYTES * first)
        finally:
            os.close(fd)
    except OSError:
        return True
    flags = set(pages[_PAGE_BYTES - 1 :: _PAGE_BYTES])
    return len(pages) < length or any(it & _SWAPPED or it & (_PRESENT | _OF_A_FILE) == _PRESENT for it in flags)
