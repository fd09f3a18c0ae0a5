"""One runner as its bee sees it: a process, the channel to it, what it prints, and what it holds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from workerbee import program
from workerbee.bee.channel import Channel, Mark

#: Bytes of what it printed last, for the report of a crash.
TAIL = 64 * 1024

Task = TypeVar("Task")


class Launch(NamedTuple):
    """How the runners of a bee are started: Python's flags, the seed of its hashes, and the runner's own arguments."""

    flags: tuple[str, ...]
    hash_seed: str
    arguments: tuple[str, ...]


class Record(NamedTuple):
    """The record of a function as runners get it, with its jobset's UUID, and when this bee got it."""

    jobset: str
    function: tuple[Any, ...]
    since: float

    @property
    def size(self) -> int:
        return len(self.function[4])


class Records:
    """The records that were used last, as far as there is room: so many, and so many bytes."""

    def __init__(self, most: int = 1000, size: int = 32_000_000) -> None:
        self._most = most
        self._room = size
        self._kept: OrderedDict[tuple[int, int], Record] = OrderedDict()

    def get(self, key: tuple[int, int]) -> Record | None:
        record = self._kept.get(key)
        if record is not None:
            self._kept.move_to_end(key)
        return record

    def keep(self, key: tuple[int, int], record: Record) -> list[tuple[int, int]]:
        """Keep a record, in the place of one of the same key; those that had to go for it."""
        if (former := self._kept.pop(key, None)) is not None:
            self._room += former.size
        self._kept[key] = record
        self._room -= record.size
        gone = []
        while len(self._kept) > self._most or (self._room < 0 and len(self._kept) > 1):
            oldest, let_go = self._kept.popitem(last=False)
            self._room += let_go.size
            gone.append(oldest)
        return gone


class RunnerProcess(Generic[Task]):
    """One runner and what it holds. ``process`` is None for the caller's own runner (JobSet.run)."""

    def __init__(self, channel: Channel, mark: Mark, process: subprocess.Popen[bytes] | None, number: int) -> None:
        self.channel = channel
        self.mark = mark
        self.process = process
        self.number = number
        self.in_hand: dict[int, Task] = {}
        self.functions = Records()
        self.started_at = time.monotonic()
        self.program = b""
        self.n_done = 0
        self.tail = bytearray()
        self.killed: tuple[str, int] | None = None  # why, and in which job
        self.leaving = False
        self.complaint = ""  # what it said that made no sense
        self.blocked = False  # its channel takes no more for the moment
        self.exit_fd = -1 if process is None else _exit_fd(process.pid)

    @classmethod
    def start(cls, launch: Launch, number: int) -> RunnerProcess[Task]:
        """Start a runner that is the bee's worker with that number."""
        mark = Mark.create()
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ends = (theirs.fileno(), mark.fd)
        process = subprocess.Popen(
            program.command("workerbee.bee.runner", os.getpid(), *ends, number, *launch.arguments, flags=launch.flags),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=ends,
            env=os.environ | {"PYTHONHASHSEED": launch.hash_seed},
            start_new_session=True,
        )
        theirs.close()
        for fd in (runner := cls(Channel(ours), mark, process, number)).outputs:
            os.set_blocking(fd, False)
        return runner

    @property
    def outputs(self) -> dict[int, int]:
        """Where it is heard printing, and whether it was to stdout (1) or stderr (2)."""
        process = self.process
        if process is None or process.stdout is None or process.stderr is None:
            return {}
        return {process.stdout.fileno(): 1, process.stderr.fileno(): 2}

    def heard(self, fd: int) -> bytes | None:
        """What one of the outputs holds, and no more, for it may never stop; b"" at its end, None for nothing."""
        try:
            text = os.read(fd, 1 << 16)
        except BlockingIOError:
            return None
        self.tail += text
        del self.tail[:-TAIL]
        return text

    def kill(self, because: str, job: int = 0) -> None:
        """Kill the runner, because of this job of its, and whatever the job has started."""
        if self.process is not None and self.killed is None:
            self.killed = (because, job)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def reap(self) -> str:
        """Wait for the dead process; what is known about its end."""
        if self.process is None:
            return "ended by its caller"
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what its job left behind
        return f"{how}, peak memory {usage.ru_maxrss / 1024:.0f} MB"

    def close(self) -> None:
        """Let go of what leads to it; it was reaped before."""
        self.channel.close()
        self.mark.close()
        if self.process is not None and self.process.stdout is not None and self.process.stderr is not None:
            self.process.stdout.close()
            self.process.stderr.close()
            os.close(self.exit_fd)


def _exit_fd(pid: int) -> int:
    """A descriptor that becomes readable when this child has ended. Not every kernel and Python has pidfds."""
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    ours, theirs = os.pipe()

    def wait() -> None:
        with suppress(ChildProcessError):  # it was waited for before
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(theirs)

    threading.Thread(target=wait, daemon=True).start()
    return ours
