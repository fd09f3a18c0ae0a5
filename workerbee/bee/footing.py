"""What a runner needs of its process for its own work, put right where a job has spoiled it.

A job may leave anything behind: a closed stdout, an alarm that is still to ring, a working directory that is gone.
As in a pool's worker, what still works stays: a file as stdout, another directory.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from operator import is_
from typing import Any

#: Handlers that are the runner's, or its function's initializer's, and no job's. As plain numbers, and asked for
#: without making enums of the answers, as this is asked before and after any few jobs.
_SIGNALS = tuple(map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD)))
_handler_of = getattr(sys.modules.get("_signal"), "getsignal", signal.getsignal)
#: Below this number a job may close all descriptors.
_HIGH = 900
_NAMES = {1: "stdout", 2: "stderr"}


def out_of_the_way(fd: int) -> int:
    """Move a file to a high number, where a job that closes "everything" seldom gets to."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    floor = _HIGH if soft == resource.RLIM_INFINITY else max(3, min(_HIGH, soft - 32))
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)
    os.close(fd)
    return high


class Footing:
    """The streams, signals, directory and depth of this process; ``pipes`` are the other ends of its outputs."""

    def __init__(self, pipes: Iterable[int] = ()) -> None:
        self._spares = {fd: out_of_the_way(os.dup(fd)) for fd in _NAMES}
        self._streams: list[Any] = [sys.stdout, sys.stderr]
        self._encoding = sys.stdout.encoding
        _unbuffer_c()
        self._depth = sys.getrecursionlimit()
        self._handlers: list[Any] = []
        self._directory: str | None = None
        self._looked_at = select.poll()
        for fd, stream in zip(_NAMES, self._streams, strict=True):
            self._looked_at.register(fd, 0)  # which asks for nothing, and so tells only of what is closed or broken
            stream.reconfigure(line_buffering=True)
        for pipe in pipes:
            self._looked_at.register(pipe, select.POLLIN)

    @property
    def outputs(self) -> list[int]:
        """Find where a runner's stdout and stderr lead to, wherever a job has them lead."""
        return list(self._spares.values())

    def note(self) -> None:
        """Before the jobs of another function, and after its initializer: what is there now is to be there again."""
        self._handlers = [*map(_handler_of, _SIGNALS)]
        self._directory = _directory() or self._directory

    def after_job(self) -> None:
        """Ring no alarm of this job in the next one."""
        signal.alarm(0)

    def settle(self) -> bool:
        """Let the next job print; whether something that was printed stands in the pipes.

        Asked after each job, hence in so few steps.
        """
        out, err = self._streams
        try:
            out.flush()
            err.flush()
            has_ours = sys.stdout is out and sys.stderr is err
        except BaseException:  # noqa: BLE001 (the job's own)
            has_ours = False
        if not has_ours:
            self._repair_all()
        ready = self._looked_at.poll(0)
        if not ready:
            return False
        if any(fd in _NAMES for fd, _ in ready):
            self._repair_all()
        return any(fd not in _NAMES for fd, _ in ready)

    def after_jobs(self) -> None:
        """Undo what would harm another function's jobs."""
        if not all(map(is_, self._handlers, now := [*map(_handler_of, _SIGNALS)])):
            self._restore(now)
        if (directory := _directory()) is not None:
            self._directory = directory
        elif self._directory is not None:
            with suppress(OSError):
                os.chdir(self._directory)
        if sys.getrecursionlimit() < self._depth:
            sys.setrecursionlimit(self._depth)

    def _restore(self, now: list[Any]) -> None:
        for number, handler, there in zip(_SIGNALS, self._handlers, now, strict=False):
            if handler is not None and there is not handler:
                signal.signal(number, handler)

    def _repair_all(self) -> None:
        for fd, name in _NAMES.items():
            if not _is_open(fd) or not _works(getattr(sys, name, None)):
                self._repair(fd, name)
            for stream in (self._ours(fd), getattr(sys, name, None)):
                _flush(stream)

    def _repair(self, fd: int, name: str) -> None:
        if not _is_open(fd):
            os.dup2(self._spares[fd], fd)
        if not _works(self._ours(fd)):
            self._streams[fd - 1] = self._open(fd)
        if not _works(getattr(sys, name, None)):
            self._install(fd)

    def _ours(self, fd: int) -> Any:
        return self._streams[fd - 1]

    def _open(self, fd: int) -> Any:
        return open(fd, "w", buffering=1, encoding=self._encoding, errors="backslashreplace", closefd=False)

    def _install(self, fd: int) -> None:
        setattr(sys, _NAMES[fd], self._ours(fd))
        setattr(sys, f"__{_NAMES[fd]}__", self._ours(fd))


def _unbuffer_c() -> None:
    """Have C print to stdout at once, as it does to stderr: nobody knows when a job is through with half a line."""
    with suppress(AttributeError, ValueError, OSError):  # another C library, or none
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 2, ctypes.c_size_t(0))  # _IONBF


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _works(stream: Any) -> bool:
    """Tell whether something can be printed to whatever a job has put there."""
    try:
        return hasattr(stream, "write") and not getattr(stream, "closed", False)
    except Exception:  # noqa: BLE001
        return False


def _flush(stream: Any) -> None:
    try:  # noqa: SIM105
        stream.flush()
    except BaseException:  # noqa: BLE001, S110 (the job's own; and `suppress` takes longer)
        pass


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return None
