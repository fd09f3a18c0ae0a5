"""What a bee holds: claimed batches, until the end of each of their jobs is recorded or the job is given back.

Each thing that the database has to be told is booked here first, and removed when the database has been told. So an
outage in between loses nothing: the next round goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby

from workerbee.bee.crew import Crew
from workerbee.bee.pace import FunctionKey
from workerbee.bee.room import Room
from workerbee.bee.tails import Tails
from workerbee.bee.tasks import End, Lot, Record, Task, lot_of
from workerbee.errors import WorkerbeeError
from workerbee.store import UNREAD, BeeStore, Scope, ShowRequest, is_dropped, is_passing
from workerbee.wire import values
from workerbee.wire.job import LARGE_BYTES, Batch, Job, Jobset

OnTrouble = Callable[[Jobset, Exception], None]

#: A job that has run for so many seconds is asked about: whether its run has ended elsewhere. And the seconds between
#: two such questions.
LONG_SECONDS, ASK_SECONDS = 0.3, 0.5


@dataclass(eq=False)
class Served:
    """A jobset that this bee serves, with its store and the scope of the functions whose jobs it takes.

    ``refusals`` says why functions are left to others; ``hopeless`` why nobody can run them, so that their calls fail.
    """

    store: BeeStore
    scope: Scope
    refusals: dict[int, str] = field(default_factory=dict)
    hopeless: dict[int, str] = field(default_factory=dict)

    @property
    def jobset(self) -> Jobset:
        return self.store.jobset

    def refuse(self, function: int, reason: str) -> None:
        """Leave the function's jobs to others."""
        self.refusals[function] = reason
        self.scope = self.scope._replace(refused=(*self.scope.refused, function))

    def readmit_all(self) -> list[tuple[int, str]]:
        """Take jobs of the refused functions again. Returns which those are, and why they were refused."""
        readmitted = list(self.refusals.items())
        self.scope = self.scope._replace(refused=tuple(n for n in self.scope.refused if n not in self.refusals))
        self.refusals.clear()
        return readmitted


@dataclass(eq=False)
class Held(Lot):
    """A claimed batch while this bee works on it.

    ``open`` are the jobs whose end isn't recorded yet. The first ``mark`` jobs count as started for everybody; the
    ``unstarted`` ones behind them must not be run yet.
    """

    served: Served
    batch: Batch
    open: dict[int, Job]
    unstarted: deque[Job] = field(default_factory=deque)
    mark: int = 0
    #: Jobs whose numbers are now others', as the server has lost what it had acknowledged.
    gone: set[int] = field(default_factory=set)


def held_of(task: Task) -> Held:
    """Give the batch that a job came from. Runners get no other jobs."""
    held: Held = task.lot  # type: ignore[assignment]
    return held


class Holdings:
    """The jobsets that a bee serves, by number, and the batches that it holds of them."""

    def __init__(self, crew: Crew, on_dropped: Callable[[Jobset], None], on_trouble: OnTrouble) -> None:
        self.served: dict[int, Served] = {}
        self._crew = crew
        self._on_dropped = on_dropped
        self._on_trouble = on_trouble
        self._held: dict[int, Held] = {}  # by the id of the batch
        self._returning: deque[tuple[Held, list[Job], bool]] = deque()
        self._large: set[Held] = set()  # of these some calls are
        self._lacking = 0  # bytes of a call that didn't fit
        self._room = Room()  # for calls
        self._ask_at = 0.0
        self._tails = Tails()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def of(self, number: int) -> list[Held]:
        """Give the batches that are held of this jobset."""
        return [held for held in self._held.values() if held.function[0] == number]

    def jobsets(self) -> set[int]:
        """Give the numbers of the jobsets of which batches are held."""
        return {held.function[0] for held in self._held.values()}

    def has_unstarted(self) -> bool:
        """Tell whether there are jobs that are claimed and not started."""
        return any(held.unstarted for held in self._held.values())

    # Jobsets

    @contextmanager
    def guard(self, number: int) -> Iterator[None]:
        """Stop serving this one jobset if the block finds that its tables are gone, or hold what makes no sense."""
        try:
            yield
        except Exception as error:
            if is_dropped(error):
                self.drop(number)
            elif is_passing(error) or isinstance(error, (OSError, WorkerbeeError)):
                raise  # the fault is the server's, or a bug of ours
            elif served := self._forget(number):
                with suppress(Exception):
                    served.store.release_unknown(())
                self._on_trouble(served.jobset, error)
            else:
                raise

    def each_served(self) -> Iterator[Served]:
        """Give each jobset that is served, to be used under its `guard`."""
        yield from list(self.served.values())

    def still_serves(self, held: Held) -> bool:
        """Tell whether the jobset of a batch is still served. Another may have got its number."""
        return self.served.get(held.function[0]) is held.served

    def drop(self, number: int) -> None:
        """Stop serving this jobset, which is gone, and forget what is held of it."""
        if served := self._forget(number):
            self._on_dropped(served.jobset)

    def make_room(self, most: int) -> None:
        """Forget all but so many of the jobsets of which nothing is held, those that were served long ago first."""
        busy = self.jobsets() | {held.function[0] for held, *_ in self._returning}
        unused = [
            n for n, served in self.served.items() if n not in busy and not served.refusals and not served.hopeless
        ]
        for number in unused[: max(0, len(self.served) - most)]:
            del self.served[number]

    def _forget(self, number: int) -> Served | None:
        for held in self.of(number):
            for job in held.open:
                self._crew.stop(held, job)
            held.open.clear()
            held.unstarted.clear()
            del self._held[held.batch.id]
        return self.served.pop(number, None)

    # Taking

    def take(self, served: Served, batch: Batch, record: Record | None) -> Held:
        """Book a claimed batch of a function with this record."""
        function = served.jobset.number, batch.function
        held = Held(function, batch.timeout, record, served, batch, {job.id: job for job in batch.jobs})
        self._held[batch.id] = held
        shares = record is not None and record.shared
        if shares or any(len(job.data) > LARGE_BYTES or values.taken(job.codec) for job in batch.jobs):
            self._large.add(held)
        return held

    @property
    def is_full(self) -> bool:
        """Tell whether there is no room for more calls, as far as their bytes are known."""
        return (bool(self._large) or self._lacking > 0) and not self._has_room()

    def _has_room(self) -> bool:
        self._weigh()
        has_room = self._room.fits(self._lacking or 1)
        if has_room:
            self._lacking = 0
        return has_room

    def _weigh(self) -> None:
        self._large = {held for held in self._large if held.open}
        calls = sum(len(job.data) for held in self._large for job in held.open.values())
        self._room.held = calls + sum(taken.size for taken in self.shared())

    def shared(self) -> set[values.TakenArray]:
        """Give the arrays that the calls held here, and their functions, share."""
        held = [held for held in self._large if held.open]
        shared = {taken for it in held if it.record is not None for taken in it.record.shared}
        return shared.union(taken for it in held for job in it.open.values() for taken in values.taken(job.codec))

    def scales(self) -> Callable[[int], bool]:
        """Make a function that tells of one large call of a claim after the other, by its bytes, whether it fits in."""
        self._weigh()

        def fits(size: int) -> bool:
            if self._lacking or not self._room.fits(size):
                self._lacking = self._lacking or size
                return False
            self._room.held += size
            return True

        return fits

    def begin(self, held: Held, *, without: set[int]) -> None:
        """Give the crew the started jobs of a batch, ``without`` some; the others wait for `start_more`."""
        batch = held.batch
        held.mark = batch.started
        if self._lacking:
            unread = [job for job in batch.jobs if job.codec == UNREAD and job.id not in without]
            self.give_back(held, unread, untouched=False)
            without = without.union(job.id for job in unread)
        held.unstarted.extend(job for job in batch.jobs[batch.started :] if job.id not in without)
        self._crew.give(held, [job for job in batch.jobs[: batch.started] if job.id not in without])

    def start_more(self) -> None:
        """Start more jobs of the held batches, by moving their marks, if a runner has nothing to do."""
        for held in self:
            if held.unstarted and self._crew.n_idle:
                with self.guard(held.function[0]):
                    self._start(held, held.mark + self._crew.room_for(held.function))

    def _start(self, held: Held, n: int) -> None:
        held.mark, jobs = held.served.store.start(held.batch, n)
        mine, others = set(jobs[: held.mark]), set(jobs[held.mark :])
        ready = [job for job in held.unstarted if job.id in mine]
        for job in held.unstarted:
            if job.id not in mine and job.id not in others:
                held.open.pop(job.id, None)  # it was cancelled, or another bee has taken it over
        held.unstarted = deque(job for job in held.unstarted if job.id in others)
        self._crew.give(held, ready)

    # Striking off

    def emptied_by(self, number: int, ends: Iterable[End]) -> list[Held]:
        """Give the batches of this jobset in which nothing is open once these ends are recorded."""
        ended: dict[Lot, set[int]] = {}
        for lot, some in groupby(ends, lot_of):
            ended.setdefault(lot, set()).update([end.task.job.id for end in some])
        return [held for held in self.of(number) if held.open.keys() <= ended.get(held, set())]

    def strike_off(self, *tasks: Task) -> bool:
        """Remove jobs whose ends are recorded, or of no interest. Returns whether any was open."""
        were_open = [held_of(task).open.pop(task.job.id, None) for task in tasks]
        return any(were_open)

    def close(self, batches: Iterable[Held]) -> None:
        """Forget batches in which nothing is open any more, as the database knows."""
        for held in batches:
            self._held.pop(held.batch.id, None)

    # Letting go

    def give_back(self, held: Held, jobs: Iterable[Job], *, untouched: bool) -> None:
        """Book jobs to be given back without being charged for an attempt; ``untouched``: they have surely not run."""
        jobs = [job for job in jobs if job.id in held.open]
        if jobs:
            self._returning.append((held, jobs, untouched))

    def give_back_tasks(self, tasks: Iterable[Task]) -> None:
        """Book started jobs that no runner has begun."""
        by_held: dict[Held, list[Job]] = {}
        for task in tasks:
            by_held.setdefault(held_of(task), []).append(task.job)
        for held, jobs in by_held.items():
            self.give_back(held, jobs, untouched=False)

    def give_back_unstarted(self, function: FunctionKey | None = None) -> None:
        """Book all unstarted jobs, or those of one function."""
        for held in self:
            if function in (None, held.function):
                self.give_back(held, held.unstarted, untouched=True)

    def give_back_all(self) -> None:
        """Book all open jobs."""
        for held in self:
            self.give_back(held, held.open.values(), untouched=False)

    def return_booked(self) -> None:
        """Give back the jobs that were booked."""
        while self._returning:
            held, jobs, untouched = self._returning[0]
            ids = [job.id for job in jobs if job.id in held.open]
            if ids:
                with self.guard(held.function[0]):
                    held.served.store.release(held.batch, ids, untouched=untouched)
            for job in ids:
                held.open.pop(job, None)
            held.unstarted = deque(job for job in held.unstarted if job.id in held.open)
            self._returning.popleft()

    def reconcile(self) -> None:
        """Compare with the database after a cut: give back claims that we didn't hear of, drop what was taken."""
        for served in self.each_served():
            number = served.jobset.number
            with self.guard(number):
                self._disown(served)
                served.store.release_unknown(held.batch.claim for held in self)
                still = served.store.held_claims()
                for held in self.of(number):
                    claim, jobs = still.get(held.batch.id, (None, []))
                    if claim != held.batch.claim:
                        # A job that runs may still be the first to succeed; one that has not begun must not be run.
                        for job in held.unstarted:
                            held.open.pop(job.id, None)
                        held.unstarted.clear()
                    elif ended := [job for job in jobs if job not in held.open]:
                        # If the server has lost their ends, they wait again; else they are just let go.
                        served.store.release(held.batch, ended, untouched=False)

    def _disown(self, served: Served) -> None:
        """Stop what is no longer the job that was claimed, and record nothing of it."""
        for held in self.of(served.jobset.number):
            known = served.store.signatures(job.id for job in held.batch.jobs)
            held.gone |= {job.id for job in held.batch.jobs if not (job.id in known and known[job.id].may_be(job))}
            for job in held.gone & held.open.keys():
                del held.open[job]
                self._crew.stop(held, job)
            held.unstarted = deque(job for job in held.unstarted if job.id in held.open)

    def come_back(self) -> None:
        """Take back the losses that others noted while they took this bee for dead."""
        for served in self.each_served():
            with self.guard(served.jobset.number):
                served.store.came_back()

    def stop_overtaken(self, now: float) -> None:
        """Stop long jobs whose run has ended elsewhere, which is asked now and then.

        The same question tells which jobs' output somebody wants to see. A stopped job counts as not open at once, even
        if it runs on: the runner that is the caller of JobSet.run can't be stopped.
        """
        if now < self._ask_at:
            return
        self._ask_at = now + ASK_SECONDS
        by_served: dict[Served, list[Task]] = {}
        for task in self._crew.running(LONG_SECONDS):
            if self.still_serves(held_of(task)):  # otherwise it is being stopped already
                by_served.setdefault(held_of(task).served, []).append(task)
        for served, tasks in by_served.items():
            with self.guard(served.jobset.number):
                ended, asked = served.store.overtaken([(job.id, job.run) for _, job in tasks])
                for task in tasks:
                    if (task.job.id, task.job.run) in ended and self.strike_off(task):
                        self._crew.stop(task.lot, task.job.id)
                self._show(served, tasks, asked)

    def _show(self, served: Served, tasks: list[Task], asked: list[ShowRequest]) -> None:
        """Show what somebody has asked to see of these jobs."""
        by_job = {task.job.id: task for task in tasks}
        running = [(what, by_job[what.job], self._crew.runner_of(by_job[what.job])) for what in asked]
        self._tails.show(served.store, [(what, task, runner) for what, task, runner in running if runner is not None])
