"""Private directories in memory, with files that processes of one user map: of a client and its bee, or of a bee.

Whoever has made a directory holds a shared flock on it. Whoever gets the exclusive one may remove it: a bee, or its
guard, after the maker's death, or else the next one who makes a directory on this host.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import resource
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from workerbee import guard, resources
from workerbee.errors import ValueGoneError

if TYPE_CHECKING:
    from typing_extensions import Self

#: A file from so many bytes on is mapped.
MAPPED = 1_000_000
#: The share of the free memory that all files of a directory may take, and seconds for which that is remembered.
SHARE, KNOWN_SECONDS = 0.5, 0.15
#: The pause between two looks into a directory is so many times as long as a look: there may be thousands of files.
REST_FACTOR = 10
#: Bytes that a place in memory must have, used or free: a client and its bee need some hundred megabytes. Containers
#: usually have 64 MB.
LEAST_BYTES = 1_000_000_000
_MEMORY = "/dev/shm"  # noqa: S108 (the directories there are private)
_now = time.monotonic  # kept here, as a job may replace it
#: Older Pythons keep a descriptor open for each mapping.
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_NAME = re.compile(r"workerbee-[0-9]+-[0-9a-f]{32}")


class Content(NamedTuple):
    """A file's bytes, writable, and what is written is the caller's alone; ``stamp`` is another one once it changes."""

    data: memoryview
    stamp: tuple[int, int]


class SharedDirectory:
    """A directory, as the process sees it that has made it, or another one by its ``path``."""

    def __init__(self, path: str, held: int | None = None) -> None:
        """Take over ``held``, a descriptor with the maker's lock."""
        self.path = path
        # Elsewhere a lease may be granted although a file is mapped, unless the mapping has a descriptor (overlayfs).
        self._mapping = _UNTRACKED if path.startswith(f"{_MEMORY}/") else {}
        self._held = held
        self._left = 0.0
        self._known_until = 0.0

    @classmethod
    def make(cls) -> Self | None:
        """Make a directory; None if there is no place for it. Directories of dead processes are removed."""
        base = _base()
        with suppress(OSError):
            for name in filter(_NAME.fullmatch, os.listdir(base)):
                if guard.remove_unused(f"{base}/{name}"):
                    guard.remove_unused(beyond(name))
            return cls.make_at(f"{base}/workerbee-{os.geteuid()}-{secrets.token_hex(16)}")
        return None

    @classmethod
    def make_at(cls, path: str) -> Self:
        """Make a directory of this name, which nobody else uses. Raises OSError."""
        while True:
            os.mkdir(path, 0o700)
            if (held := _hold(path)) is not None:  # else another process has just removed it as a dead one's
                return cls(path, held)

    @contextmanager
    def opened(self, name: str, flags: int) -> Iterator[int]:
        """Open a file of the directory, and nothing else that was put in the place of either."""
        # The directory is opened by its path each time: a job may close any descriptor, and its number is reused.
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            yield fd
        finally:
            os.close(fd)

    def read(self, name: str, size: int) -> Content:
        """Map a file of this size. Raises ValueGoneError if it isn't there, or none of ours."""
        try:
            with self.opened(name, os.O_RDONLY | os.O_NONBLOCK) as fd:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
                    raise ValueGoneError("its file is none of ours")
                if found.st_size != size:
                    raise ValueGoneError("its file has changed")
                return Content(memoryview(_contents(fd, size, self._mapping)), (found.st_ino, found.st_mtime_ns))
        except OSError as error:
            raise ValueGoneError(f"its file can't be read ({error.strerror})") from None

    def has_room(self, size: int) -> bool:
        """Tell whether a file of this size may be written."""
        began = _now()
        if began > self._known_until:
            self._left, after = self._room(), _now()
            self._known_until = after + max(KNOWN_SECONDS, REST_FACTOR * (after - began))
        if size > self._left:
            return False
        self._left -= size
        return True

    def look_again(self) -> None:
        """Look how much may be written, as some was removed."""
        self._known_until = 0.0

    def _room(self) -> float:
        """Count the bytes that may be put here now."""
        try:
            used = sum(self._sizes().values())
            place = os.statvfs(self.path)
            free = min(place.f_bavail * place.f_frsize, resources.free_memory())
        except OSError:
            return 0.0
        return SHARE * (free + used) - used

    def _sizes(self) -> dict[str, int]:
        """List the files, and their sizes. Raises OSError if the directory is gone."""
        sizes = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # the file has just been removed
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        return sizes

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(OSError):
            os.unlink(f"{self.path}/{name}")

    def close(self) -> None:
        """Remove the directory, in the process that has made it; what somebody has mapped stays in memory."""
        if self._held is not None:
            self.disown()
            guard.remove_unused(self.path)

    def disown(self) -> None:
        """Let go of the lock in a forked child: others must see the parent's death although the child lives on."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def beyond(path: str) -> str:
    """Name the directory on a disk in which the one at ``path`` may go on, once memory is full."""
    return f"{_disk()}/{os.path.basename(path)}"


def _base() -> str:
    """Choose the place of all directories: in memory, or on a disk where there is little for files in memory."""
    with suppress(OSError):
        place = os.statvfs(_MEMORY)
        if os.access(_MEMORY, os.W_OK | os.X_OK) and place.f_blocks * place.f_frsize >= LEAST_BYTES:
            return _MEMORY
    return _disk()


def _disk() -> str:
    """Find the temporary directory; memory, if a container has none that can be written to."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return _MEMORY


def _hold(path: str) -> int | None:
    """Open a descriptor with a shared lock on this directory; None if it was removed meanwhile."""
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(held)):
            return held
    except OSError:
        pass
    os.close(held)
    return None


def _contents(fd: int, size: int, options: dict[str, Any]) -> mmap.mmap | bytearray:
    # Numbers of descriptors are given out from below: half of what may be open is left to others.
    if size >= MAPPED and (options or fd < resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2):
        with suppress(OSError):  # a process can have only so many mappings
            return mmap.mmap(fd, size, access=mmap.ACCESS_COPY, **options)
    whole = bytearray(size)
    at = 0
    while at < size and (n := os.preadv(fd, [memoryview(whole)[at:]], at)):
        at += n
    return whole
