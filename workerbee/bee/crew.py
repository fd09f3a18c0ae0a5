"""A bee's runners: they are given jobs, and their ends are collected, so that one bad job harms only itself.

The supervisor gives jobs (`give`), collects ends (`collect`), and asks how much more to claim (`appetite`).
Whenever it waits, for the database or for anything else, it waits in `serve`, which reads the runners' messages,
sends them jobs, watches their time limits and replaces dead ones: so one thread is enough. The jobs that a runner
holds are booked by number, so that a death is blamed on the job it was in, and the others go to the next runner.

This module needs neither the driver nor the store, so that a bee's runners get ready while the bee loads those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from uuid import uuid4

from workerbee.bee.backlog import Backlog, JobOfLot, place
from workerbee.bee.channel import Caller, GarbledError
from workerbee.bee.ears import Ears
from workerbee.bee.hiring import Hiring
from workerbee.bee.messages import Finished, Outdated, Recorded, Unusable, parse
from workerbee.bee.output import prefixed
from workerbee.bee.pace import MOST_IN_HAND, MOVED_SECONDS, SATED, Appetite, FunctionKey
from workerbee.bee.runner_process import IDLE_SECONDS, LEAVE_SECONDS, STUCK_SECONDS, RunnerProcess
from workerbee.bee.tasks import End, Lot, Task, lot_of
from workerbee.orders import Orders
from workerbee.wire.job import EndKind, Job, Jobset
from workerbee.wire.printed import NOTHING

#: A job fails for good when its runner has died so many times, or so many bees with it.
DEATHS = 3
#: Gets a stream, what was printed there, and by which runner.
PrintSink = Callable[[int, bytes, object], None]


def _nowhere(_stream: int, _text: bytes, _runner: object) -> None:
    """Forward nothing."""


class Crew:
    """The runners of a bee, or the ``caller`` of JobSet.run alone; ``forward`` gets what they print."""

    def __init__(
        self, orders: Orders, *, caller: Caller | None = None, program: bytes = b"", forward: PrintSink = _nowhere
    ) -> None:
        self.bee = uuid4()  # the identity of their bee, another with each start
        self._program = program
        self._max_tasks = orders.max_tasks_per_child
        self._forward, self._prefixes = forward, orders.prefix_output
        self._hiring = Hiring(orders, str(self.bee)[:8], caller)
        self.shelf = self._hiring.shelf
        self._ears = Ears()
        self.wake = self._ears.wake  # for other threads and signal handlers
        self._backlog = Backlog()
        self.pace = self._backlog.pace  # how long jobs take, for who claims them
        self._ends: list[End | Unusable] = []
        self._doomed: set[JobOfLot] = set()
        self._n_handed = 0
        self._runners: list[RunnerProcess] = []

    # What the supervisor's thread calls

    @property
    def broken(self) -> str | None:
        """The reason why runners can't be started; None if they can."""
        return self._hiring.broken

    @property
    def n_idle(self) -> int:
        """Count the runners that have nothing to do."""
        return max(0, self._hiring.n_wanted - self._backlog.n_ready - sum(1 for r in self._runners if r.in_hand))

    @property
    def is_empty(self) -> bool:
        """Tell whether no job is here any more, and every end has been collected."""
        return not (self._backlog.n_ready or self._ends or any(r.in_hand for r in self._runners))

    def forget(self, jobset: Jobset) -> None:
        """Forget what was learned of a jobset that is gone: another may get its number."""
        self._backlog.forget(jobset.number)

    def be_workers_of(self, program: bytes) -> None:
        """Have runners belong to this program from the next new function on."""
        self._program = program

    def give(self, lot: Lot, jobs: Iterable[Job]) -> None:
        """Have these started jobs run as soon as a runner is free."""
        self._backlog.give(lot, jobs)
        self._hand_out()

    def collect(self) -> list[End | Unusable]:
        """Take what has ended since the last call.

        Their durations count for `appetite` from now on, and not earlier: on a broken machine jobs fail fast, and
        this bee would claim more of them.
        """
        ends, self._ends = self._ends, []
        self._backlog.pace.judge()
        return ends

    def appetite(self) -> Appetite:
        """Say how much to claim now."""
        if self._is_waiting_too_long():
            return SATED  # otherwise it would claim again what it has just given back
        return self._backlog.appetite(self._hiring.n_wanted)

    def room_for(self, function: FunctionKey) -> int:
        """Count how many more jobs of this function to start, now that a runner has nothing to do."""
        return self._backlog.room_for(function, self._hiring.n_wanted)

    def recall(self, jobset: int) -> list[Task]:
        """Take out the jobs of this jobset that have not begun. None is claimed in advance until one has ended."""
        for runner in self._runners:
            if len(runner.in_hand) > 1:
                self._backlog.put_back(runner.take_back())
        return self._backlog.recall(jobset)

    def take_back(self, *, all_ready: bool) -> list[Task]:
        """Take out jobs that were sent to no runner: all, or those that have to wait longer than was thought."""
        if all_ready or self._is_waiting_too_long():
            return self._backlog.take_last(self._backlog.n_ready)
        return self._backlog.take_surplus(self._hiring.n_wanted)

    def running(self, seconds: float) -> list[Task]:
        """List the jobs that have been running for longer than this."""
        marks = [now for runner in self._runners if (now := runner.current()) is not None]
        return [task for _, task, since in marks if since > seconds]

    def runner_of(self, task: Task) -> RunnerProcess | None:
        """Find the runner that is in this job now."""
        current = ((runner, runner.current()) for runner in self._runners)
        return next((runner for runner, now in current if now is not None and place(now[1]) == place(task)), None)

    def stop(self, lot: Lot, job: int) -> None:
        """Don't begin this job, or stop it if it runs: its run has ended elsewhere."""
        self._doomed.add((lot, job))

    def tell_recorded(self) -> None:
        """Tell the caller's own runner that the end of its job is recorded."""
        for runner in self._runners:
            if runner.process is None:
                runner.tell(Recorded())
                runner.transmit(self._ears)

    def serve(self, timeout: float, fd: int, *, writing: bool = False, only: bool = False) -> bool:
        """Serve the runners until ``fd`` is ready, or for ``timeout`` seconds; see `Ears.wait`."""
        return self._ears.wait(timeout, fd, self._look_after, writing=writing, only=only)

    def dismiss(self) -> None:
        """End all runners: in order, as a pool's workers end, and after a while, or if they are in a job, at once."""
        for runner in self._runners:
            runner.dismiss(self._ears)
        deadline = time.monotonic() + LEAVE_SECONDS
        while (left := deadline - time.monotonic()) > 0 and any(runner.process for runner in self._runners):
            self._ears.wait(left, -1, lambda: IDLE_SECONDS, writing=False, only=False)
        for runner in list(self._runners):
            runner.kill(EndKind.STOPPED)
            self._part_with(runner)
            runner.close()
        self._hiring.dismiss()
        self._ears.close()

    # Looking after the runners

    def complete(self) -> None:
        """Start the runners that are missing, if it is time to."""
        while (runner := self._hiring.hire(self._runners)) is not None:
            self._welcome(runner)

    def _look_after(self) -> float:
        """Start, stop and feed runners where it is time to. Returns the seconds until it may be time again."""
        self.complete()
        self._stop_doomed()
        for runner in self._runners:
            self._enforce(runner)
        self._hand_out()
        seconds = self._hiring.seconds_to_next(self._runners)
        return min(seconds_to_next(self._runners), IDLE_SECONDS if seconds is None else seconds)

    def _welcome(self, runner: RunnerProcess) -> None:
        runner.tell_program(self._program)
        self._runners.append(runner)
        self._ears.watch(runner.channel.fileno(), partial(self._hear, runner))
        runner.output.forward = partial(self._print, runner)
        for stream, fd in runner.output.pipes.items():
            self._ears.watch(fd, partial(self._overhear, runner, stream))
        if runner.process is not None:
            self._ears.watch(runner.exit_fd, partial(self._bury, runner))

    def _enforce(self, runner: RunnerProcess) -> None:
        """Kill a runner whose job exceeds its time limit, and take back jobs that wait behind a long one."""
        if runner.channel.is_overdue and runner.killed is None:
            self._silence(runner, "half a message came")
        runner.see_off()
        if runner.is_reporting(self._ears, partial(self._hear, runner)) or (now := runner.current()) is None:
            return
        n, task, seconds = now
        if runner.is_over_time(task, seconds):
            runner.kill(EndKind.TIMEOUT, n)
        elif seconds > STUCK_SECONDS and len(runner.in_hand) > 1:
            self._backlog.put_back(runner.take_back())

    def _is_waiting_too_long(self) -> bool:
        """Tell whether no runner will be free soon for the jobs that wait here."""
        now = time.monotonic()
        marks = [r.mark.current() for r in self._runners if r.in_hand]
        return len(marks) >= self._hiring.n_wanted and all(n and now - since > 2 * STUCK_SECONDS for n, since in marks)

    def _stop_doomed(self) -> None:
        if not self._doomed:
            return
        for task in self._backlog.take_doomed(self._doomed):
            self._end(End(task, EndKind.STOPPED, "", b"", None, 0.0))
        in_hand = {place(task) for runner in self._runners for task in runner.in_hand.values()}
        self._doomed &= in_hand
        for runner in self._runners if self._doomed else ():
            if (now := runner.current()) is not None and place(now[1]) in self._doomed:
                runner.kill(EndKind.STOPPED, now[0])

    # Handing out

    def _hand_out(self) -> None:
        if not self._backlog.n_ready and (fullest := too_full(self._runners)) is not None:
            self._backlog.put_back(fullest.take_back())
        if self._backlog.n_ready:
            for runner in sorted(self._runners, key=lambda r: len(r.in_hand)):
                while self._backlog.n_ready and not runner.is_leaving and self._wants_more(runner):
                    self._hand(runner)
        for runner in self._runners:
            if runner.channel.has_unsent:
                runner.transmit(self._ears)

    def _wants_more(self, runner: RunnerProcess) -> bool:
        if not runner.in_hand:
            return True
        _, since = runner.mark.current()
        is_stuck = bool(since) and time.monotonic() - since > STUCK_SECONDS / 2
        return not is_stuck and self._backlog.may_follow(next(iter(runner.in_hand.values())), len(runner.in_hand))

    def _hand(self, runner: RunnerProcess) -> None:
        most = MOST_IN_HAND if self._max_tasks is None else self._max_tasks - runner.n_done - len(runner.in_hand)
        tasks = self._backlog.next_portion(len(self._runners), most)
        runner.hand(tasks, self._n_handed + 1, self._program)
        self._n_handed += len(tasks)
        if self._max_tasks is not None and runner.n_done + len(runner.in_hand) >= self._max_tasks:
            runner.quit()

    # Hearing the runners

    def _hear(self, runner: RunnerProcess) -> None:
        if runner not in self._runners:
            return
        if (arrived := runner.channel.arrived()) is not None:
            self._take_all(runner, arrived)
        elif runner.process is None:
            self._bury(runner)
        else:
            self._ears.unwatch(runner.channel.fileno())  # its process is ending, which `_bury` sees to

    def _take_all(self, runner: RunnerProcess, arrived: list[bytes | GarbledError]) -> None:
        """Take a runner's messages, up to the first that makes no sense."""
        for frame in arrived:
            if runner.complaint:
                return
            try:
                if isinstance(frame, GarbledError):
                    raise frame
                self._take(runner, parse(frame))
            except GarbledError as error:
                self._silence(runner, str(error))

    def _silence(self, runner: RunnerProcess, complaint: str) -> None:
        """Kill a runner whose channel can't be trusted any more: a job has written into it, or damaged the memory.

        It was one of the jobs that have begun and not ended. If there are several, each is run again alone.
        """
        runner.complaint = f"its channel made no sense any more ({complaint}): "
        begun = runner.begun()
        if len(begun) > 1:
            self._backlog.run_alone(runner.in_hand[n] for n in begun)
        runner.kill(EndKind.RECALLED if len(begun) > 1 else EndKind.DIED, begun[0] if len(begun) == 1 else 0)

    def _take(self, runner: RunnerProcess, message: list[Finished] | Unusable | Outdated) -> None:
        if isinstance(message, list):
            self._take_finished(runner, message)
        elif isinstance(message, Outdated):
            runner.quit()
        else:
            self._ends.append(message)
            for task in self._backlog.bar((message.jobset, message.function)):
                self._return(task)

    def _take_finished(self, runner: RunnerProcess, results: list[Finished]) -> None:
        ends = []
        for n, kind, codec, data, mac, duration, has_printed in results:
            if (task := runner.in_hand.pop(n, None)) is None:
                continue  # it was taken back before
            if kind is EndKind.RECALLED:
                self._return(task)
                continue
            printed = runner.output.of(n, has_failed=kind is not EndKind.COMPLETED) if has_printed else NOTHING
            runner.channel.keep(data)
            ends.append(End(task, kind, codec, data, mac, duration, "", printed))
        runner.n_done += len(ends)
        for lot, some in groupby(ends, lot_of):
            self._backlog.have_run(lot.function, *[end.duration for end in some])
        self._end(*ends)
        self._hiring.has_worked()
        if not runner.in_hand:
            runner.output.forget()

    def _return(self, task: Task) -> None:
        """Give a job that was sent and didn't begin to the next runner, or back if no runner here can run it."""
        if self._backlog.is_barred(task):
            self._end(End(task, EndKind.RECALLED, "", b"", None, 0.0))
        else:
            self._backlog.put_back([task])

    def _end(self, *ends: End) -> None:
        self._ends += ends
        self._backlog.end(*[end.task for end in ends])

    def _overhear(self, runner: RunnerProcess, stream: int) -> None:
        """Read what a runner has printed so far."""
        # If it is none of ours any more, its end was handled earlier in the same round.
        if runner in self._runners and runner.output.hear(stream):
            self._ears.unwatch(runner.output.pipes[stream])

    def _print(self, runner: RunnerProcess, stream: int, text: bytes, n: int) -> None:
        """Print what job ``n`` of this runner has printed."""
        task = runner.in_hand.get(n) if self._prefixes else None
        self._forward(stream, text if task is None else prefixed(text, task.job.id), runner)

    # Burying

    def _bury(self, runner: RunnerProcess) -> None:
        """Handle a runner's death: blame the job that it was in, and give its others to the next runner."""
        if runner not in self._runners:
            return
        self._take_all(runner, runner.channel.arrived() or [])
        printed = runner.output.of(runner.mark.last(), has_failed=True)
        how = runner.complaint + self._part_with(runner)
        reason, blamed, seconds = runner.blame()
        self._backlog.put_back(runner.take_all())
        if blamed is not None:
            self._end(End(blamed, reason, "", b"", None, seconds, how, printed))
        elif not runner.is_leaving and reason is EndKind.DIED:
            words = "".join(f"; {note}" for note in printed.notes()) or "; it had printed nothing"
            self._hiring.has_failed(f"runners die before they do anything; the last one {how}{words}")
        runner.close()

    def _part_with(self, runner: RunnerProcess) -> str:
        """Remove a dead runner. Returns what is known about its end."""
        self._runners.remove(runner)
        how = self._hiring.part(runner)
        for fd in (runner.channel.fileno(), runner.exit_fd, *runner.output.pipes.values()):
            self._ears.unwatch(fd)
        return how


def too_full(runners: list[RunnerProcess]) -> RunnerProcess | None:
    """Find the runner with the most jobs, if one that waits there had better be another's, who has none."""
    full = [runner for runner in waited_for(runners) if runner.is_slow()]
    return max(full, key=lambda runner: len(runner.in_hand), default=None)


def waited_for(runners: list[RunnerProcess]) -> list[RunnerProcess]:
    """List the runners in whose hands jobs wait behind another, if there is a runner with nothing to do."""
    if all(runner.in_hand or runner.is_leaving for runner in runners):
        return []
    return [runner for runner in runners if runner.has_waiting]


def seconds_to_next(runners: list[RunnerProcess]) -> float:
    """Give the seconds until any of these has to be looked at again, even if none reports anything."""
    if waited_for(runners):
        return MOVED_SECONDS
    return min((runner.seconds_to_next() for runner in runners), default=IDLE_SECONDS)
