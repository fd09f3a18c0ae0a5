"""A bee's runners: hands them jobs, collects how they end, and sees to it that one bad job harms only itself.

The supervisor gives jobs (`give`), collects ends (`collect`), and asks how much more is wanted
(`appetite`). Whenever it waits, for the database or for anything else, it waits in `serve`, where the
runners are heard, fed, timed and buried: so one thread is enough. What a runner holds is booked here by
number, so that a death is blamed on the job it was in and the rest goes to the next runner.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from workerbee.bee.channel import Channel, GarbledError, Mark
from workerbee.bee.guardian import Guardian
from workerbee.bee.messages import Finished, Outdated, Unusable, parse
from workerbee.bee.pace import HAND_SECONDS, MOST_HELD, SATED, Appetite, Key, Pace, portion
from workerbee.bee.runner_process import Launch, Record, Records, RunnerProcess
from workerbee.bee.tasks import End, Lot, Task
from workerbee.store import Wake
from workerbee.wire.job import Function, Job, Jobset

#: Seconds that an import and an initializer may take where the job's timeout is shorter.
PREPARATION = 10.0
#: Seconds after which the rest of a message won't come.
HALF_A_MESSAGE = 10.0
#: A job that takes longer than this is no reason for those behind it to wait.
STUCK = 0.1
#: Deaths of its runner that a job is allowed, and vanished bees.
DEATHS = 3


Message = list[Finished] | Unusable | Outdated


class Crew:
    """The runners of one bee."""

    def __init__(
        self,
        size: int,
        *,
        launch: Launch,
        program: bytes,
        max_tasks: int | None = None,
        own: tuple[socket.socket, int] | None = None,
        forward: Callable[[int, bytes], None],
    ) -> None:
        self._launch = launch
        self._program = program
        self._guardian = Guardian() if own is None else None
        self._size = 1 if own is not None else size
        self._max_tasks = max_tasks
        self._own = own
        self._forward = forward
        self._wake = Wake()
        self._ready: deque[Task] = deque()
        self._ends: list[End | Unusable] = []
        self._records = Records()
        self.pace = Pace()
        self._backlog: Counter[Key] = Counter()  # jobs that were given and haven't ended, by function
        self._wary = False  # what was taken ahead was called for by others
        self._doomed: set[tuple[Lot, int]] = set()
        self._alone: set[tuple[Lot, int]] = set()  # jobs that are run one by one
        self._barred: set[Key] = set()
        self._number = 0
        self._runners: list[RunnerProcess[Task]] = []
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}  # by descriptor
        self._early_deaths = 0
        self._restart_at = 0.0
        self.broken: str | None = None
        self._news = False
        self._watch(self._wake.fileno(), self._wake.clear)

    # What the supervisor's thread calls

    def know(self, jobset: Jobset, function: Function) -> Record:
        """Functions are sent to each runner once, ahead of the first job that needs them."""
        record = Record(str(jobset.uuid), tuple(function), time.monotonic())
        self._records.keep((jobset.number, function.number), record)
        return record

    def known(self, jobset: Jobset, function: int) -> Record | None:
        """The record of a function, if it is here still."""
        record = self._records.get((jobset.number, function))
        return record if record is not None and record.jobset == str(jobset.uuid) else None

    def forget(self, jobset: Jobset) -> None:
        """What runners made of the functions of a jobset that is gone: its number may come again."""
        self._barred = {key for key in self._barred if key[0] != jobset.number}

    def be_workers_of(self, program: bytes) -> None:
        """What runners are to be from the next new function on."""
        self._program = program

    def give(self, lot: Lot, jobs: Iterable[Job]) -> None:
        """Jobs that are started, to be run as soon as a runner is free."""
        tasks = [Task(lot, job) for job in jobs]
        if tasks:
            self._backlog[lot.function] += len(tasks)
            self._ready.extend(tasks)
        self._hand_out()

    def collect(self) -> list[End | Unusable]:
        """What has ended since the last call."""
        ends, self._ends = self._ends, []
        self.pace.judge()
        return ends

    def appetite(self) -> Appetite:
        """How much to claim now: some tenths of a second of work ahead of the runners, no more."""
        n_idle = self._size - self._backlog.total()
        if self._waiting_too_long():
            return SATED  # or what was just given back would be claimed again
        free = 0.0 if self._wary else self._size - self._load()
        if n_idle <= 0 and free < self._size / 2:
            return SATED
        runners = max(free, n_idle)
        jobs = max(0, n_idle) if self._wary else int(runners * MOST_HELD)
        return Appetite(jobs, runners, jobs)

    def room_for(self, function: Key) -> int:
        """How many more jobs of this function to start, now that some runner has nothing to do."""
        free = 0.0 if self._wary else self._size - self._load()
        return max(1, self._size - self._backlog.total(), int(free / self.pace.cost(function)))

    def _load(self) -> float:
        """How many runners the backlog keeps busy for the time that work is held."""
        return sum(n * self.pace.cost(function) for function, n in self._backlog.items())

    @property
    def n_idle(self) -> int:
        """Runners with nothing to do."""
        return max(0, self._size - len(self._ready) - sum(1 for r in self._runners if r.in_hand))

    @property
    def is_empty(self) -> bool:
        """Nothing is held here any more, and every end has been collected."""
        return not (self._ready or self._ends or any(r.in_hand for r in self._runners))

    def recall(self, jobset: int) -> list[Task]:
        """Jobs of this jobset that have not begun, from the runners' hands too. Until one ends, none is taken ahead."""
        self._wary = True
        for runner in self._runners:
            if len(runner.in_hand) > 1:
                self._take_from(runner)
        taken = [task for task in self._ready if task.lot.function[0] == jobset]
        self._ready = deque(task for task in self._ready if task.lot.function[0] != jobset)
        self._forget(taken)
        return taken

    def take_back(self, *, all_ready: bool) -> list[Task]:
        """Jobs that no runner has got: all of them, or those that have to wait longer here than was thought."""
        n = len(self._ready)
        if not all_ready and n and not self._waiting_too_long():
            # Jobs have become longer; the last ones are of more use elsewhere.
            n = int(n * max(0.0, 1 - 2 * self._size / load)) if (load := self._load()) > 0 else 0
        taken = [self._ready.pop() for _ in range(n)]
        self._forget(taken)
        return taken[::-1]

    def running(self, seconds: float) -> list[Task]:
        """The jobs that runners have been in for longer than this."""
        now = time.monotonic()
        marks = [(runner, *runner.mark.current()) for runner in self._runners]
        return [r.in_hand[n] for r, n, since in marks if n in r.in_hand and now - since > seconds]

    def stop(self, lot: Lot, job: int) -> None:
        """The job's run has ended elsewhere: don't begin it; if it runs, stop it."""
        self._doomed.add((lot, job))

    def settled(self) -> None:
        """Tell the caller's own runner that the end of its job is recorded."""
        for runner in self._runners:
            if runner.process is None:
                runner.channel.queue(("settled",))
                self._transmit(runner)

    # Waiting

    def wake(self) -> None:
        """End the wait in `serve`; for other threads and signal handlers."""
        self._wake.set()

    def serve(self, timeout: float, fd: int, *, writing: bool = False, only: bool = False) -> bool:
        """Serve the runners until ``fd`` is ready, or for ``timeout`` seconds; whether it is ready.

        Unless that is the ``only`` reason, news end the wait as well: a runner's message, a wake-up, also
        one that came while the readiness was the only reason.
        """
        deadline = time.monotonic() + timeout
        ready = False
        if fd >= 0:
            self._epoll.register(fd, select.EPOLLOUT if writing else select.EPOLLIN)
        try:
            while not ready and (only or not self._news):
                self._hire()
                self._stop_doomed()
                self._enforce()
                self._hand_out()
                left = deadline - time.monotonic()
                for heard, _ in self._epoll.poll(max(0.0, min(left, self._tick()))):
                    if heard == fd:
                        ready = True
                    elif heard in self._handlers:  # else a handler just before has ended it
                        self._handlers[heard]()
                        self._news = True
                if left <= 0:
                    break
        finally:
            if fd >= 0:
                with suppress(OSError):  # closed meanwhile
                    self._epoll.unregister(fd)
        self._news = self._news and only
        return ready

    def _tick(self) -> float:
        """Seconds until something has to be looked at again."""
        if len(self._runners) < self._size:
            return max(0.01, self._restart_at - time.monotonic())
        if any(len(r.in_hand) > 1 or any(t.lot.timeout for t in r.in_hand.values()) for r in self._runners):
            return STUCK / 2
        return 1.0 if any(r.channel.silent for r in self._runners) else 3600.0

    def _hire(self) -> None:
        while len(self._runners) < self._size and time.monotonic() >= self._restart_at:
            try:
                runner = self._start()
            except OSError as error:  # the system's or the user's processes, open files or memory are exhausted
                self._make_do(error)
                return
            self._runners.append(runner)
            self._watch(runner.channel.fileno(), partial(self._hear, runner))
            for fd in runner.outputs:
                self._watch(fd, partial(self._overhear, runner, fd))

    def _start(self) -> RunnerProcess[Task]:
        if self._own is not None:
            channel, mark = self._own
            return RunnerProcess(Channel(channel), Mark(mark), None, 1)
        free = set(range(1, self._size + 1)) - {runner.number for runner in self._runners}
        runner: RunnerProcess[Task] = RunnerProcess.start(self._launch, min(free))
        assert runner.process is not None  # noqa: S101
        assert self._guardian is not None  # noqa: S101
        self._guardian.watch(runner.process.pid)
        self._tell_program(runner)
        self._watch(runner.exit_fd, partial(self._bury, runner))
        return runner

    def _make_do(self, error: OSError) -> None:
        """No more runners can be started: go on with those that are there, or try again for a while."""
        if self._runners:
            logging.getLogger("workerbee").warning(
                "%d runners instead of %d, as no more can be started: %s", len(self._runners), self._size, error
            )
            self._size = len(self._runners)
        else:
            self._put_off(f"no runner can be started: {error}")

    def _put_off(self, reason: str) -> None:
        """Start the next runner later, and after five such failures none."""
        self._early_deaths += 1
        self._restart_at = time.monotonic() + min(30.0, 0.1 * 2**self._early_deaths)
        if self._early_deaths >= 5:
            self.broken = reason

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _hear(self, runner: RunnerProcess[Task]) -> None:
        if runner not in self._runners:
            return
        arrived = runner.channel.arrived()
        if arrived is None:
            if runner.process is None:
                self._bury(runner)
            else:
                self._unwatch(runner.channel.fileno())  # its process is dying: see _bury
            return
        self._take_all(runner, arrived)

    def _take_all(self, runner: RunnerProcess[Task], arrived: list[Any]) -> None:
        """Take what it has said, as far as that makes sense."""
        for message in arrived:
            if runner.complaint:
                return
            try:
                self._take(runner, parse(message))
            except GarbledError as error:
                self._silence(runner, str(error))

    def _silence(self, runner: RunnerProcess[Task], complaint: str) -> None:
        """A job has written into our channel, or spoilt the memory: what follows is worth nothing, and it is killed.

        It was one of those that have begun and whose end hasn't come. If they are many, they are run one by one.
        """
        runner.complaint = f"its channel made no sense any more ({complaint}): "
        begun = [n for n in runner.in_hand if n <= runner.mark.last()]
        if len(begun) > 1:
            self._alone.update((runner.in_hand[n].lot, runner.in_hand[n].job.id) for n in begun)
        runner.kill("garbled" if len(begun) > 1 else "died", begun[0] if len(begun) == 1 else 0)

    def _take(self, runner: RunnerProcess[Task], message: Message) -> None:
        if isinstance(message, list):
            self._done(runner, message)
            return
        if isinstance(message, Outdated):
            runner.channel.queue(("quit",))
            runner.leaving = True
            return
        self._barred.add((message.jobset, message.function))
        self._ends.append(message)
        for task in [t for t in self._ready if t.lot.function in self._barred]:
            self._ready.remove(task)
            self._return(task)

    def _done(self, runner: RunnerProcess[Task], results: list[Finished]) -> None:
        for n, kind, codec, data, mac, duration in results:
            task = runner.in_hand.pop(n, None)
            if task is None:
                continue  # it was taken back
            if kind == "recalled":
                self._return(task)
                continue
            runner.n_done += 1
            self._wary = False
            self.pace.learn(task.lot.function, duration)
            self._end(End(task, kind, codec, data, mac, duration))
        self._early_deaths = 0
        if not runner.in_hand:
            self._overhear_all(runner)
            runner.tail.clear()  # what was printed before is no evidence against the next job

    def _return(self, task: Task) -> None:
        """A job that was sent and didn't begin: to the next runner, or back if none here can run it."""
        if task.lot.function in self._barred:
            self._end(End(task, "recalled", "", b"", None, 0.0))
        else:
            self._ready.appendleft(task)

    def _end(self, end: End) -> None:
        self._ends.append(end)
        self._alone.discard((end.task.lot, end.task.job.id))
        self._forget([end.task])

    def _forget(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            key = task.lot.function
            self._backlog[key] -= 1
            if not self._backlog[key]:
                del self._backlog[key]

    def _overhear(self, runner: RunnerProcess[Task], fd: int) -> None:
        """Take what it has printed so far."""
        if runner not in self._runners:
            return  # its end was heard of at the same moment, and told first
        text = runner.heard(fd)
        if text:
            self._forward(runner.outputs[fd], text)
        elif text is not None:
            self._unwatch(fd)

    def _overhear_all(self, runner: RunnerProcess[Task]) -> None:
        for fd in runner.outputs:
            if fd in self._handlers:
                self._overhear(runner, fd)

    def _hand_out(self) -> None:
        if self._ready:
            for runner in sorted(self._runners, key=lambda r: len(r.in_hand)):
                if self._ready and not runner.leaving and self._wants_more(runner):
                    self._hand(runner)
        for runner in self._runners:
            if runner.channel.pending:
                self._transmit(runner)

    def _wants_more(self, runner: RunnerProcess[Task]) -> bool:
        if not runner.in_hand:
            return True
        task = next(iter(runner.in_hand.values()))
        if any(map(self._is_alone, (task, self._ready[0]))):
            return False
        pace = self.pace.seconds(task.lot.function)
        _, since = runner.mark.current()
        stuck = bool(since) and time.monotonic() - since > STUCK / 2
        return pace is not None and len(runner.in_hand) * pace < HAND_SECONDS / 2 and not stuck

    def _is_alone(self, task: Task) -> bool:
        return bool(self._alone) and (task.lot, task.job.id) in self._alone

    def _hand(self, runner: RunnerProcess[Task]) -> None:
        first = self._ready[0]
        key = first.lot.function
        n = portion(len(self._ready), len(self._runners), None if self._wary else self.pace.seconds(key))
        if self._max_tasks is not None:
            n = min(n, self._max_tasks - runner.n_done - len(runner.in_hand))
        calls: list[tuple[Any, ...]] = []
        while self._ready and len(calls) < n:
            task = self._ready[0]
            if task.lot.function != key or (calls and self._is_alone(task)):
                break
            self._ready.popleft()
            n = 1 if self._is_alone(task) else n
            self._number += 1
            runner.in_hand[self._number] = task
            job = task.job
            calls.append((self._number, job.id, job.run, job.attempts + 1, job.codec, job.data, job.mac))
        self._make_known(runner, key, first.lot.record)
        runner.channel.queue(("jobs", *key, calls))
        if self._max_tasks is not None and runner.n_done + len(runner.in_hand) >= self._max_tasks:
            runner.channel.queue(("quit",))
            runner.leaving = True

    def _make_known(self, runner: RunnerProcess[Task], key: tuple[int, int], record: Record | None) -> None:
        """Send a runner the record of a function that it is to run; to make room, it forgets others."""
        sent = runner.functions.get(key)
        if record is None or (sent is not None and sent.jobset == record.jobset):
            return
        self._tell_program(runner)
        fresh = runner.started_at >= record.since
        runner.channel.queue(("function", key[0], record.jobset, key[1], record.function, fresh))
        for jobset, function in runner.functions.keep(key, record):
            runner.channel.queue(("forget", jobset, function))

    def _tell_program(self, runner: RunnerProcess[Task]) -> None:
        if runner.process is not None and runner.program != self._program:
            runner.channel.queue(("program", self._program))
            runner.program = self._program

    def _transmit(self, runner: RunnerProcess[Task]) -> None:
        try:
            runner.channel.send_some()
        except OSError:
            return  # it is gone: its exit will be heard
        if runner.blocked != runner.channel.pending and runner.channel.fileno() in self._handlers:
            runner.blocked = runner.channel.pending
            events = select.EPOLLIN | (select.EPOLLOUT if runner.blocked else 0)
            self._epoll.modify(runner.channel.fileno(), events)

    def _enforce(self) -> None:
        """Kill what exceeds its time, and take back what waits behind a long job."""
        now = time.monotonic()
        for runner in self._runners:
            if runner.channel.silent > HALF_A_MESSAGE and runner.killed is None:
                self._silence(runner, "half a message came")
            n, since = runner.mark.current()
            task = runner.in_hand.get(n)
            if task is None:
                continue
            limit = task.lot.timeout
            if limit is not None and runner.mark.preparing:
                limit = max(limit, PREPARATION)
            if limit is not None and now - since > limit:
                runner.kill("timeout", n)
            elif now - since > STUCK and len(runner.in_hand) > 1:
                self._take_from(runner)

    def _take_from(self, runner: RunnerProcess[Task]) -> None:
        """What it has got and not begun is for whoever is free first."""
        last_begun = runner.mark.take_back(max(runner.in_hand))
        for number in sorted((k for k in runner.in_hand if k > last_begun), reverse=True):
            self._ready.appendleft(runner.in_hand.pop(number))

    def _waiting_too_long(self) -> bool:
        """No runner will be free soon for what is ready here."""
        now = time.monotonic()
        marks = [r.mark.current() for r in self._runners if r.in_hand]
        return len(marks) >= self._size and all(n and now - since > 2 * STUCK for n, since in marks)

    def _stop_doomed(self) -> None:
        if not self._doomed:
            return
        self._ready = deque(t for t in self._ready if not self._drop(t))
        for runner in self._runners:
            n, _ = runner.mark.current()
            for number, task in runner.in_hand.items():
                if number == n and (task.lot, task.job.id) in self._doomed:
                    runner.kill("stopped", n)
        self._doomed = {
            (t.lot, t.job.id) for r in self._runners for t in r.in_hand.values() if (t.lot, t.job.id) in self._doomed
        }

    def _drop(self, task: Task) -> bool:
        doomed = (task.lot, task.job.id) in self._doomed
        if doomed:
            self._end(End(task, "stopped", "", b"", None, 0.0))
        return doomed

    def _bury(self, runner: RunnerProcess[Task]) -> None:
        """A runner is dead: blame the job it was in, and give the others to the next one."""
        if runner not in self._runners:
            return
        self._hear_last_words(runner)
        n, since = runner.mark.last(), runner.mark.current()[1]
        how = runner.complaint + self._reap(runner)
        last_words = runner.tail.decode(errors="replace")
        how += f"; last output:\n{last_words}" if last_words else "; it had printed nothing"
        self._runners.remove(runner)
        self._unregister(runner)
        reason, meant = runner.killed or ("orphaned" if runner.process is None else "died", n)
        # A kill may come too late for the job it was meant for; the next one is not blamed then.
        blamed = runner.in_hand.pop(meant, None) if meant == n or runner.complaint else None
        for number in sorted(runner.in_hand, reverse=True):
            self._ready.appendleft(runner.in_hand.pop(number))
        if blamed is not None:
            duration = time.monotonic() - since if since else 0.0
            self._end(End(blamed, reason, "", b"", None, duration, how))
        elif not runner.leaving and reason == "died":
            self._put_off(f"runners die before they do anything; the last one {how}")
        if self._own is not None:
            self.broken = "the caller is gone"
            self._size = 0
        runner.close()

    def _reap(self, runner: RunnerProcess[Task]) -> str:
        if runner.process is not None and self._guardian is not None:
            self._guardian.forget(runner.process.pid)
        return runner.reap()

    def _hear_last_words(self, runner: RunnerProcess[Task]) -> None:
        self._take_all(runner, runner.channel.arrived() or [])
        self._overhear_all(runner)

    def _unregister(self, runner: RunnerProcess[Task]) -> None:
        for fd in (runner.channel.fileno(), runner.exit_fd, *runner.outputs):
            self._unwatch(fd)

    def dismiss(self) -> None:
        """End all runners."""
        for runner in list(self._runners):
            runner.kill("dismissed")
            self._runners.remove(runner)
            self._reap(runner)
            self._unregister(runner)
            runner.close()
        if self._guardian is not None:
            self._guardian.dismiss()
        self._epoll.close()
        self._wake.close()
