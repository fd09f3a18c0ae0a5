"""One runner as its bee sees it: a process, the channel to it, and what it holds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from workerbee import program
from workerbee.bee.channel import Caller, Channel, Position
from workerbee.bee.ears import Ears
from workerbee.bee.messages import BESIDE_BYTES, Become, Forget, Learn, Perform, Quit, Telling, order
from workerbee.bee.output import STREAMS, RunnerOutput
from workerbee.bee.pace import MOVED_SECONDS, FunctionKey
from workerbee.bee.shelf import Shelf
from workerbee.bee.stack import Stack
from workerbee.bee.tasks import Record, Records, Task
from workerbee.orders import Orders
from workerbee.wire import codec
from workerbee.wire.job import EndKind

#: An import and an initializer may take so many seconds, even if the job's timeout is shorter.
PREPARATION_SECONDS = 10.0
#: Jobs behind one that takes longer than this are given to other runners.
STUCK_SECONDS = 0.1
#: Seconds between looks at a runner that needn't be watched, as it reports its ends.
IDLE_SECONDS = 3600.0
#: A runner that was told to end, and has nothing in hand, is killed after so many seconds.
LEAVE_SECONDS = 2.0


class Launch(NamedTuple):
    """The start of a bee's runners: Python's flags, the seed of its hashes, and the runner's own arguments.

    ``largest`` is how many bytes a result may have, ``directories`` are in memory: those that go with the bee.
    """

    flags: tuple[str, ...]
    hash_seed: str
    arguments: tuple[str, ...]
    largest: int = codec.MAX_BYTES
    directories: tuple[str, ...] = ()

    @classmethod
    def ordered(cls, orders: Orders, bee: str, shelf: Shelf | None) -> Launch:
        """Give the start of the runners of the bee of this name, whose calls share what is on the ``shelf``."""
        directories = (*(("", "") if shelf is None else (shelf.path, shelf.further)), orders.memory)
        arguments = (bee, str(orders.max_payload), *directories, *orders.functions)
        return cls(
            tuple(orders.flags), orders.hash_seed, arguments, orders.max_payload, tuple(filter(None, directories))
        )

    def channel(self, sock: socket.socket) -> Channel:
        """Make the channel that leads to such a runner."""
        return Channel(sock, most=self.largest + BESIDE_BYTES)


class RunnerProcess:
    """One runner and the jobs that it has in hand.

    If it is the caller of JobSet.run, it has no ``process``.
    """

    def __init__(
        self,
        channel: Channel,
        mark: Position,
        process: subprocess.Popen[bytes] | None,
        number: int,
        output: RunnerOutput,
        stack: Stack | None = None,
    ) -> None:
        self.channel = channel
        self.mark = mark
        self.process = process
        self.number = number
        self.in_hand: dict[int, Task] = {}
        self._handed_at = 0.0
        self.functions = Records()
        self.started_at = time.monotonic()
        self.program = b""
        self.n_done = 0
        self.output = output
        self.stack = stack
        self.killed: tuple[EndKind, int] | None = None  # why, and in which job
        self._gone_by: float | None = None  # when it is killed, if it was told to end and has nothing in hand
        self.is_leaving = False
        self.complaint = ""  # what was wrong with its last message
        self.is_blocked = False  # its channel is full for the moment
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
        output = RunnerOutput(mark, {stream: fd for stream, (fd, _) in pipes.items()})
        return cls(launch.channel(ours), mark, process, number, output, stack)

    @classmethod
    def calling(cls, launch: Launch, caller: Caller) -> RunnerProcess:
        """Give the caller of JobSet.run. What it prints is shown at once: it may ask its user something."""
        mark = Position(caller.mark)
        output = RunnerOutput(mark, {1: caller.stdout, 2: caller.stderr}, most_held=0)
        return cls(launch.channel(caller.socket), mark, None, 1, output)

    # Told

    def is_reporting(self, ears: Ears, hear: Callable[[], None]) -> bool:
        """Tell whether a large result is under way. While there is no room for it, the runner waits and isn't heard."""
        if self.channel.is_held_up:
            ears.unwatch(self.channel.fileno())
            if self.channel.admits():
                ears.watch(self.channel.fileno(), hear)
        return self.channel.is_held_up or self.channel.is_admitted

    def tell(self, telling: Telling) -> None:
        """Queue a message, which `transmit` sends."""
        self.channel.queue(order(telling))

    def tell_program(self, program: bytes) -> None:
        """Tell it which program it belongs to; the caller of JobSet.run is the program itself."""
        if self.process is not None and self.program != program:
            self.tell(Become(program))
            self.program = program

    def make_known(self, function: FunctionKey, record: Record | None, program: bytes) -> None:
        """Send it the record of a function, if it needs one and hasn't got it; have it forget others to make room."""
        known = self.functions.get(function)
        if record is None or (known is not None and known.is_same(record)):
            return
        self.tell_program(program)
        is_fresh = self.started_at >= record.since
        self.tell(Learn(function[0], record.jobset, function[1], record.function, is_fresh))
        for forgotten in self.functions.keep(function, record):
            self.tell(Forget(*forgotten))

    def hand(self, tasks: list[Task], first: int, program: bytes) -> None:
        """Give it these jobs of one lot, numbered from ``first`` on."""
        lot = tasks[0].lot
        calls: list[tuple[Any, ...]] = []
        for n, task in enumerate(tasks, first):
            self.in_hand[n] = task
            job, run, codec, data, mac, n_attempts, _ = task.job
            calls.append((n, job, run, n_attempts + 1, codec, data, mac))
        self.make_known(lot.function, lot.record, program)
        self.tell(Perform(*lot.function, calls))
        self._handed_at = time.monotonic()

    def quit(self) -> None:
        """Tell it to end after the jobs that it has in hand."""
        self.tell(Quit())
        self.is_leaving = True

    def transmit(self, ears: Ears) -> None:
        """Send as many of the queued messages as fit; the ears wait for room for the others."""
        try:
            self.channel.send_some()
        except OSError:
            return  # it has died, which the ears will notice
        if self.is_blocked != self.channel.has_unsent:
            self.is_blocked = self.channel.has_unsent
            ears.watch_for_room(self.channel.fileno(), self.is_blocked)

    # In hand

    def current(self) -> tuple[int, Task, float] | None:
        """Give the number of the job that it is in or prepares, the job, and for how many seconds it has been."""
        n, since = self.mark.current()
        task = self.in_hand.get(n)
        return None if task is None else (n, task, time.monotonic() - since)

    def is_over_time(self, task: Task, seconds: float) -> bool:
        """Tell whether it has been in this job, or prepared it, for longer than it may."""
        limit = task.lot.timeout
        if limit is not None and self.mark.is_preparing:
            limit = max(limit, PREPARATION_SECONDS)
        return limit is not None and seconds > limit

    def seconds_to_next(self) -> float:
        """Give the seconds until it has to be looked at again, even if it reports nothing."""
        if self.is_leaving and not self.in_hand:
            return LEAVE_SECONDS / 2
        if len(self.in_hand) > 1 or any(task.lot.timeout for task in self.in_hand.values()):
            return STUCK_SECONDS / 2
        return 1.0 if self.channel.is_halfway else IDLE_SECONDS

    def begun(self) -> list[int]:
        """List the numbers of the jobs that it has begun, and whose end hasn't come."""
        return [n for n in self.in_hand if n <= self.mark.last()]

    @property
    def has_waiting(self) -> bool:
        """Tell whether a job waits in its hands behind another one, which it is in or has got just now."""
        if len(self.in_hand) < 2 or next(reversed(self.in_hand)) <= self.mark.last():
            return False
        return self.current() is not None or time.monotonic() < self._handed_at + STUCK_SECONDS

    def is_slow(self) -> bool:
        """Tell whether it is in a job that has taken so long that those behind had better be another's."""
        now = self.current()
        return now is not None and now[2] > MOVED_SECONDS

    def take_back(self) -> list[Task]:
        """Take back the jobs that it has not begun, in order."""
        last_begun = self.mark.take_back(max(self.in_hand))
        return [self.in_hand.pop(n) for n in sorted(n for n in self.in_hand if n > last_begun)]

    def take_all(self) -> list[Task]:
        """Take all jobs from a dead runner, in order."""
        return [self.in_hand.pop(n) for n in sorted(self.in_hand)]

    # Its end

    def see_off(self) -> None:
        """Kill it if it was told to end and doesn't, because a thread or an exit handler of a job keeps it."""
        if self.is_leaving and not self.in_hand:
            now = time.monotonic()
            self._gone_by = self._gone_by or now + LEAVE_SECONDS
            if now > self._gone_by:
                self.kill(EndKind.STOPPED)

    def dismiss(self, ears: Ears) -> None:
        """Have it end: in order if it has nothing in hand, so that it does what its jobs have left to the exit."""
        if self.in_hand:
            self.kill(EndKind.STOPPED)
        elif self.process is not None:
            self.quit()
            self.transmit(ears)

    def kill(self, because: EndKind, job: int = 0) -> None:
        """Kill the runner because of its job number ``job``, and all processes that its jobs have started."""
        if self.process is not None and self.killed is None:
            self.killed = (because, job)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def blame(self) -> tuple[EndKind, Task | None, float]:
        """Give the reason of its death, the job to blame, which is taken out, and the seconds that the job had run."""
        n, since = self.mark.last(), self.mark.current()[1]
        reason, meant = self.killed or (EndKind.ORPHANED if self.process is None else EndKind.DIED, n)
        # If a kill comes after the end of the job that it was meant for, the next job isn't blamed.
        task = self.in_hand.pop(meant, None) if meant == n or self.complaint else None
        return reason, task, time.monotonic() - since if since else 0.0

    def reap(self) -> str:
        """Wait for the dead process. Returns what is known about its end."""
        if self.process is None:
            return "ended by its caller"
        # It is waited for twice: between the two its number can be no other group's.
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # processes that its jobs left behind
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        return f"{how}, peak memory {usage.ru_maxrss / 1024:.0f} MB"

    def close(self) -> None:
        """Close the channel and the pipes, after the process was reaped."""
        self.channel.close()
        self.mark.close()
        self.output.close()
        if self.process is not None:
            if self.stack is not None:
                self.stack.close()
            os.close(self.exit_fd)


def _exit_fd(pid: int) -> int:
    """Open a descriptor that becomes readable when this child has ended. Not every kernel and Python has pidfds."""
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    ours, theirs = os.pipe()

    def wait() -> None:
        with suppress(ChildProcessError):  # it was waited for before
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(theirs)

    threading.Thread(target=wait, daemon=True).start()
    return ours
