"""The things in its process that a runner needs, and their repair after a job has changed them.

A job may leave behind a closed stdout, a pending alarm, a working directory that is gone. As in a pool's worker, a
change that still works stays: a file as stdout, another directory.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from operator import is_
from typing import Any

#: Signals whose handlers only the runner and the function's initializer may set, and no job. They are plain numbers,
#: and are asked for without making enums, as that is done before and after every few jobs.
_SIGNALS = tuple(map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD)))
_alarm = signal.alarm  # kept here, as a job may replace it
_handler_of = getattr(sys.modules.get("_signal"), "getsignal", signal.getsignal)
#: Descriptors from this number on are seldom closed by a job that closes "everything".
_HIGH = 900
_NAMES = {1: "stdout", 2: "stderr"}


def out_of_the_way(fd: int) -> int:
    """Move a file to a high number, which a job that closes "everything" seldom reaches."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    floor = _HIGH if soft == resource.RLIM_INFINITY else max(3, min(_HIGH, soft - 32))
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)
    os.close(fd)
    return high


class Footing:
    """The streams, signal handlers, directory and recursion limit of a runner; ``pipes`` are those it prints to."""

    def __init__(self, pipes: Iterable[int] = ()) -> None:
        self._spares = {fd: out_of_the_way(os.dup(fd)) for fd in _NAMES}
        self._streams: list[Any] = [sys.stdout, sys.stderr]
        self._encoding = sys.stdout.encoding
        _unbuffer_c()
        self._depth = sys.getrecursionlimit()
        self._most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._handlers: list[Any] = []
        self._traces: tuple[Any, Any] = (None, None)
        self._directory: str | None = None
        self._looked_at = select.poll()
        for fd, stream in zip(_NAMES, self._streams, strict=True):
            self._looked_at.register(fd, 0)  # no events are asked for, so only closed or broken pipes are reported
            stream.reconfigure(line_buffering=True)
        for pipe in pipes:
            self._looked_at.register(pipe, select.POLLIN)

    @property
    def outputs(self) -> list[int]:
        """The runner's own stdout and stderr, wherever a job has redirected these to."""
        return list(self._spares.values())

    def note(self) -> None:
        """Remember the state to return to: before the jobs of another function, and after its initializer."""
        self._handlers = [*map(_handler_of, _SIGNALS)]
        self._traces = threading.gettrace(), threading.getprofile()
        self._directory = _directory() or self._directory

    def after_job(self) -> None:
        """Cancel this job's alarm, which would ring in the next one."""
        _alarm(0)

    def settle(self) -> bool:
        """Flush what was printed, and make sure that the next job can print. Returns whether the pipes hold anything.

        This is called after each job, hence in so few steps.
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
        try:
            ready = self._looked_at.poll(0)
        except OSError:
            return self._settle_with_few_files()
        if not ready:
            return False
        if broken := {fd for fd, _ in ready} & _NAMES.keys():
            self._repair_all(broken)
        return any(fd not in _NAMES for fd, _ in ready)

    def _settle_with_few_files(self) -> bool:
        """Do without `poll`, which refuses where a job has allowed fewer open files than are looked at.

        They are allowed again, as far as that can be undone, and what is in the pipes is to be counted.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = {n for n in (self._most_files, hard) if n != resource.RLIM_INFINITY} or {hard}
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(most), hard))
        self._repair_all()
        return True

    def after_jobs(self) -> None:
        """Undo changes that would harm another function's jobs."""
        if not all(map(is_, self._handlers, now := [*map(_handler_of, _SIGNALS)])):
            self._restore(now)
        if (directory := _directory()) is not None:
            self._directory = directory
        elif self._directory is not None:
            with suppress(OSError):
                os.chdir(self._directory)
        if sys.getrecursionlimit() < self._depth:
            sys.setrecursionlimit(self._depth)
        trace, profile = self._traces
        if threading.gettrace() is not trace:
            threading.settrace(trace)
        if threading.getprofile() is not profile:
            threading.setprofile(profile)

    def _restore(self, now: list[Any]) -> None:
        for number, handler, there in zip(_SIGNALS, self._handlers, now, strict=False):
            if handler is not None and there is not handler:
                signal.signal(number, handler)

    def _repair_all(self, broken: Collection[int] = ()) -> None:
        """Repair what is closed, can't be printed to, or, as ``broken``, leads to nobody any more."""
        for fd, name in _NAMES.items():
            if fd in broken or not _is_open(fd):
                os.dup2(self._spares[fd], fd)
            if not _works(getattr(sys, name, None)):
                self._repair(fd, name)
            for stream in (self._ours(fd), getattr(sys, name, None)):
                _flush(stream)

    def _repair(self, fd: int, name: str) -> None:
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
    """Have C write to stdout at once, as it does to stderr: what stays in its buffer would appear in a later job."""
    with suppress(AttributeError, ValueError, OSError):  # there is another C library
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 2, ctypes.c_size_t(0))  # _IONBF


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _works(stream: Any) -> bool:
    """Tell whether one can print to the object that a job has put in the place of a stream."""
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
