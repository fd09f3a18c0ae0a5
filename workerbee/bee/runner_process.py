"""One runner as its bee sees it: a process, the channel to it, and what it holds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from workerbee import program
from workerbee.bee.channel import Channel, Position
from workerbee.bee.ears import Ears
from workerbee.bee.messages import BESIDE_BYTES, Become, Forget, Learn, Quit, Telling, order
from workerbee.bee.output import STREAMS, RunnerOutput
from workerbee.bee.pace import FunctionKey
from workerbee.bee.stack import Stack
from workerbee.bee.tasks import Record, Records, Task
from workerbee.wire import codec
from workerbee.wire.job import EndKind

#: Seconds that an import and an initializer may take where the job's timeout is shorter.
PREPARATION_SECONDS = 10.0
#: A job that takes longer than this is no reason for those behind it to wait.
STUCK_SECONDS = 0.1
#: Seconds between looks at a runner that says by itself when it is through.
IDLE_SECONDS = 3600.0
#: Seconds in which a runner that is to end, and has done all that it had, is to be gone.
LEAVE_SECONDS = 2.0


class Launch(NamedTuple):
    """The start of a bee's runners: Python's flags, the seed of its hashes, and the runner's own arguments.

    ``largest`` is how many bytes a result may have, ``memory`` the directory that the bee shares with its client.
    """

    flags: tuple[str, ...]
    hash_seed: str
    arguments: tuple[str, ...]
    largest: int = codec.MAX_BYTES
    memory: str = ""

    def channel(self, sock: socket.socket) -> Channel:
        """Make the channel that leads to such a runner."""
        return Channel(sock, most=self.largest + BESIDE_BYTES)


class RunnerProcess:
    """One runner and what it holds.

    The caller's own (JobSet.run) has no ``process`` here and no ``pipes``; else these are what it prints to, by stream.
    """

    def __init__(
        self,
        channel: Channel,
        mark: Position,
        process: subprocess.Popen[bytes] | None,
        number: int,
        pipes: dict[int, int] | None = None,
        stack: Stack | None = None,
    ) -> None:
        self.channel = channel
        self.mark = mark
        self.process = process
        self.number = number
        self.in_hand: dict[int, Task] = {}
        self.functions = Records()
        self.started_at = time.monotonic()
        self.program = b""
        self.n_done = 0
        self.output = RunnerOutput(mark, pipes or {})
        self.stack = stack
        self.killed: tuple[EndKind, int] | None = None  # why, and in which job
        self._gone_by: float | None = None  # when it is to be gone, once all is done that it had in hand
        self.is_leaving = False
        self.complaint = ""  # what it said that made no sense
        self.is_blocked = False  # its channel takes no more for the moment
        self.exit_fd = -1 if process is None else _exit_fd(process.pid)

    @classmethod
    def start(cls, launch: Launch, number: int) -> RunnerProcess:
        """Start a runner that is the bee's worker with that number."""
        mark = Position.create()
        pipes, stack = {stream: os.pipe() for stream in STREAMS}, Stack()
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ends = (theirs.fileno(), mark.fd, *(fd for fd, _ in pipes.values()), stack.fd)
        try:
            process = subprocess.Popen(
                program.command(
                    "workerbee.bee.runner", os.getpid(), *ends, number, *launch.arguments, flags=launch.flags
                ),
                stdin=subprocess.DEVNULL,
                stdout=pipes[1][1],
                stderr=pipes[2][1],
                pass_fds=ends,
                env=os.environ | {"PYTHONHASHSEED": launch.hash_seed},
                start_new_session=True,
            )
        except OSError:
            stack.close()
            for fd, _ in pipes.values():
                os.close(fd)
            raise
        finally:
            theirs.close()
            for _, its_end in pipes.values():
                os.close(its_end)
        for fd, _ in pipes.values():
            os.set_blocking(fd, False)
        its_ends = {stream: fd for stream, (fd, _) in pipes.items()}
        return cls(launch.channel(ours), mark, process, number, its_ends, stack)

    # Told

    def tell(self, telling: Telling) -> None:
        """Have it hear this, as soon as it is `transmit`ted."""
        self.channel.queue(order(telling))

    def tell_program(self, program: bytes) -> None:
        """Tell it of which program it is a worker; JobSet.run's own runner is the program itself."""
        if self.process is not None and self.program != program:
            self.tell(Become(program))
            self.program = program

    def make_known(self, function: FunctionKey, record: Record | None, program: bytes) -> None:
        """Send the record of a function that it is to run, if it needs one; to make room, it forgets others."""
        known = self.functions.get(function)
        if record is None or (known is not None and known.jobset == record.jobset):
            return
        self.tell_program(program)
        is_fresh = self.started_at >= record.since
        self.tell(Learn(function[0], record.jobset, function[1], record.function, is_fresh))
        for forgotten in self.functions.keep(function, record):
            self.tell(Forget(*forgotten))

    def quit(self) -> None:
        """It is to end after what it has in hand."""
        self.tell(Quit())
        self.is_leaving = True

    def transmit(self, ears: Ears) -> None:
        """Send what fits of all that; the ears hear when there is room for more."""
        try:
            self.channel.send_some()
        except OSError:
            return  # it is gone: its exit will be heard
        if self.is_blocked != self.channel.pending:
            self.is_blocked = self.channel.pending
            ears.watch_for_room(self.channel.fileno(), self.is_blocked)

    # In hand

    def current(self) -> tuple[int, Task, float] | None:
        """The job that it is in or prepares, by its number here, and for how many seconds."""
        n, since = self.mark.current()
        task = self.in_hand.get(n)
        return None if task is None else (n, task, time.monotonic() - since)

    def is_over_time(self, task: Task, seconds: float) -> bool:
        """Tell whether it may not be in this job, or prepare it, for so long."""
        limit = task.lot.timeout
        if limit is not None and self.mark.is_preparing:
            limit = max(limit, PREPARATION_SECONDS)
        return limit is not None and seconds > limit

    def seconds_to_next(self) -> float:
        """Until it has to be looked at again, whatever it does."""
        if self.is_leaving and not self.in_hand:
            return LEAVE_SECONDS / 2
        if len(self.in_hand) > 1 or any(task.lot.timeout for task in self.in_hand.values()):
            return STUCK_SECONDS / 2
        return 1.0 if self.channel.is_halfway else IDLE_SECONDS

    def begun(self) -> list[int]:
        """The numbers of the jobs that it has begun, and whose end hasn't come."""
        return [n for n in self.in_hand if n <= self.mark.last()]

    def take_back(self) -> list[Task]:
        """Take what it has got and not begun, in its order."""
        last_begun = self.mark.take_back(max(self.in_hand))
        return [self.in_hand.pop(n) for n in sorted(n for n in self.in_hand if n > last_begun)]

    def take_all(self) -> list[Task]:
        """Take what a dead runner has left, in its order."""
        return [self.in_hand.pop(n) for n in sorted(self.in_hand)]

    # Its end

    def see_off(self) -> None:
        """Kill it if it was to end and doesn't: a thread that a job has left behind keeps it, or an exit handler."""
        if self.is_leaving and not self.in_hand:
            now = time.monotonic()
            self._gone_by = self._gone_by or now + LEAVE_SECONDS
            if now > self._gone_by:
                self.kill(EndKind.STOPPED)

    def kill(self, because: EndKind, job: int = 0) -> None:
        """Kill the runner, because of this job of its, and whatever the job has started."""
        if self.process is not None and self.killed is None:
            self.killed = (because, job)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def blame(self) -> tuple[EndKind, Task | None, float]:
        """Why it is dead, the job that is to blame, which leaves its hands, and for how many seconds it was in that."""
        n, since = self.mark.last(), self.mark.current()[1]
        reason, meant = self.killed or (EndKind.ORPHANED if self.process is None else EndKind.DIED, n)
        # A kill may come too late for the job it was meant for; the next one is not blamed then.
        task = self.in_hand.pop(meant, None) if meant == n or self.complaint else None
        return reason, task, time.monotonic() - since if since else 0.0

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
        if self.process is not None:
            self.output.close()
            if self.stack is not None:
                self.stack.close()
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
