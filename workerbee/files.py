"""The files of one folder: in this machine's file system, as far as that is one, or wherever fsspec leads."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from workerbee.errors import LargeValuesError

#: Stands for a folder where there is none, as in an object store; and says to people what it is.
MARK = "jobset.json"


class Files(Protocol):
    """The files of one folder. Whatever goes wrong is an Exception; a file that isn't there is None where it can be."""

    def make(self) -> None: ...
    def is_there(self) -> bool: ...
    def write(self, name: str, parts: Iterable[memoryview | bytes]) -> None: ...
    def rename(self, name: str, target: str) -> None: ...
    def read(self, name: str, size: int) -> bytearray | None:
        """Read a file; None if it isn't there, or isn't of this size."""

    def length(self, name: str) -> int | None: ...
    def key(self, name: str) -> object:
        """Give a value that is another one when the file is another one; None if it isn't there."""

    def ages(self) -> Iterator[tuple[str, float]]:
        """List the names of all files, and for how many seconds they have been as they are."""

    def size(self) -> int: ...
    def touch(self, name: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def discard(self) -> bool:
        """Remove the folder itself; False if it isn't empty."""


def files_of(url: str) -> Files:
    """Give the files of the folder with this URL."""
    if url.startswith("file://"):
        return Local(url.removeprefix("file://"))
    return Remote(url)


class Local:
    """A folder of this machine's file system, as far as that is one."""

    def __init__(self, path: str) -> None:
        self._path = path

    def make(self) -> None:
        with suppress(FileExistsError):
            os.mkdir(self._path)  # and not its parents: they are mounted, or they are missing

    def is_there(self) -> bool:
        return os.path.isdir(self._path)

    def write(self, name: str, parts: Iterable[memoryview | bytes]) -> None:
        with self._opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            with open(fd, "wb", closefd=False) as file:
                file.writelines(parts)
            os.fsync(fd)

    def rename(self, name: str, target: str) -> None:
        with self._entered() as folder:
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def read(self, name: str, size: int) -> bytearray | None:
        try:
            with self._opened(name, os.O_RDONLY | os.O_NONBLOCK) as fd:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    return None
                with open(fd, "rb", buffering=0, closefd=False) as file:
                    return _contents(file, size)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # a link or a socket is no file of ours
                raise
            return None

    def length(self, name: str) -> int | None:
        found = self._stat(name)
        return None if found is None or not stat.S_ISREG(found.st_mode) else found.st_size

    def key(self, name: str) -> object:
        found = self._stat(name)
        return None if found is None else (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _stat(self, name: str) -> os.stat_result | None:
        with suppress(FileNotFoundError), self._entered() as folder:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        return None

    def ages(self) -> Iterator[tuple[str, float]]:
        now = time.time()
        with os.scandir(self._path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    yield entry.name, now - entry.stat(follow_symlinks=False).st_mtime

    def size(self) -> int:
        with os.scandir(self._path) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)

    def touch(self, name: str) -> None:
        with self._entered() as folder:
            os.utime(name, dir_fd=folder, follow_symlinks=False)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), self._entered() as folder:
            os.unlink(name, dir_fd=folder)

    def discard(self) -> bool:
        with suppress(OSError):
            os.rmdir(self._path)
        return not self.is_there()

    @contextmanager
    def _entered(self) -> Iterator[int]:
        """Open the folder, and nothing that was put in its place."""
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        with self._entered() as folder:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
        try:
            yield fd
        finally:
            os.close(fd)


def _contents(file: Any, size: int) -> bytearray | None:
    """Read an open file; None if it has become shorter."""
    whole = bytearray(size)
    view, n = memoryview(whole), 0
    while n < size and (some := file.readinto(view[n:])):
        n += some
    return whole if n == size else None


class Remote:
    """As `blobs` wants a folder's files. What has gone wrong is raised as fsspec and its packages have it."""

    def __init__(self, url: str) -> None:
        """Raises LargeValuesError where fsspec isn't there, or the package that it needs for this URL."""
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 (an extra)
        except ImportError:
            advice = 'only a file:// URL needs no package: pip install "workerbee-executor[fsspec]"'
            raise LargeValuesError(url, advice) from None
        try:
            self._fs, self._path = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise LargeValuesError(url, f"fsspec can't open it ({error})") from error

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def make(self) -> None:
        self._fs.makedirs(self._path, exist_ok=True)

    def is_there(self) -> bool:
        return self.length(MARK) is not None

    def write(self, name: str, parts: Iterable[memoryview | bytes]) -> None:
        with self._fs.open(self._at(name), "wb") as file:
            for part in parts:
                file.write(part)

    def rename(self, name: str, target: str) -> None:
        self._fs.mv(self._at(name), self._at(target))
        if not self.is_there():  # an object store would have made the folder anew after it was dropped
            self.remove(target)
            raise FileNotFoundError(errno.ENOENT, "it isn't there", self._path)

    def read(self, name: str, size: int) -> bytearray | None:
        try:
            if self.length(name) != size:
                return None
            with self._fs.open(self._at(name), "rb") as file:
                return _contents(file, size)
        except FileNotFoundError:
            return None

    def length(self, name: str) -> int | None:
        found = self._info(name)
        return None if found is None or found["type"] != "file" else int(found["size"])

    def key(self, name: str) -> object:
        return None if self._info(name) is None else self._fs.ukey(self._at(name))

    def _info(self, name: str) -> dict[str, Any] | None:
        self._fs.invalidate_cache(self._path)  # others write here too
        try:
            found: dict[str, Any] = self._fs.info(self._at(name))
        except FileNotFoundError:
            return None
        return found

    def ages(self) -> Iterator[tuple[str, float]]:
        for entry in self._entries():
            age = 0.0
            with suppress(NotImplementedError):  # then nothing is old
                age = time.time() - self._fs.modified(entry["name"]).timestamp()
            yield entry["name"].rpartition("/")[2], age

    def size(self) -> int:
        return sum(int(entry["size"] or 0) for entry in self._entries())

    def _entries(self) -> list[dict[str, Any]]:
        self._fs.invalidate_cache(self._path)
        entries: list[dict[str, Any]] = self._fs.ls(self._path, detail=True)
        return entries

    def touch(self, name: str) -> None:
        data = self._fs.cat_file(self._at(name))
        self.write(name, [data])

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def discard(self) -> bool:
        with suppress(OSError):
            if not self._entries():
                self._fs.rmdir(self._path)
        self._fs.invalidate_cache(self._path)
        return not self._fs.exists(self._path)
