"""What a bee holds: claimed batches, until the end of each of their jobs is recorded or the job is given back.

Whatever the database has to be told of them is booked here first and struck off when it has been told, so
that an outage half way leaves nothing undone: the next round goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from workerbee.bee.crew import Crew
from workerbee.bee.pace import FunctionKey
from workerbee.bee.tails import Tails
from workerbee.bee.tasks import End, Lot, Record, Task
from workerbee.errors import WorkerbeeError
from workerbee.store import BeeStore, Scope, ShowRequest, is_dropped, is_passing
from workerbee.wire.job import Batch, Job, Jobset

OnTrouble = Callable[[Jobset, Exception], None]

#: Jobsets of which a bee keeps its queries and what else it needs.
MOST_SERVED = 200
#: Seconds that a job has run before anybody asks whether it still has to, and between two such questions.
LONG_SECONDS, ASK_SECONDS = 0.3, 0.5


@dataclass(eq=False)
class Served:
    """A jobset that this bee serves: over its store, and of its functions those in scope.

    ``refusals`` says why functions are left to others, ``hopeless`` why nobody can run them: their calls fail.
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
        """Take the jobs of all functions that were refused: which, and why they were."""
        readmitted = list(self.refusals.items())
        self.scope = self.scope._replace(refused=tuple(n for n in self.scope.refused if n not in self.refusals))
        self.refusals.clear()
        return readmitted


@dataclass(eq=False)
class Held(Lot):
    """A claimed batch while this bee works on it.

    ``open`` are the jobs whose end isn't recorded yet. The first ``mark`` jobs are agreed to be started; the
    ``unstarted`` ones beyond it aren't ours to run yet.
    """

    served: Served
    batch: Batch
    open: dict[int, Job]
    unstarted: deque[Job] = field(default_factory=deque)
    mark: int = 0


def held_of(task: Task) -> Held:
    """The batch that a job came from: all that runners get is held here, or was."""
    held: Held = task.lot  # type: ignore[assignment]
    return held


class Holdings:
    """The jobsets that a bee serves, by number, and the batches that it holds of them."""

    def __init__(self, crew: Crew, on_dropped: Callable[[Jobset], None], on_trouble: OnTrouble) -> None:
        self.served: dict[int, Served] = {}
        self._crew = crew
        self._on_dropped = on_dropped
        self._on_trouble = on_trouble
        self._held: dict[int, Held] = {}  # by the batch's id
        self._returning: deque[tuple[Held, list[Job], bool]] = deque()
        self._ask_at = 0.0
        self._tails = Tails()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def of(self, number: int) -> list[Held]:
        """Give what is held of this jobset."""
        return [held for held in self._held.values() if held.function[0] == number]

    def jobsets(self) -> set[int]:
        """The numbers of the jobsets of which something is held."""
        return {held.function[0] for held in self._held.values()}

    def has_unstarted(self) -> bool:
        """Tell whether there are jobs that aren't ours to run yet."""
        return any(held.unstarted for held in self._held.values())

    # Jobsets

    @contextmanager
    def guard(self, number: int) -> Iterator[None]:
        """Ends the work on this jobset, and on no other, if its tables are gone, or if what it holds makes no sense."""
        try:
            yield
        except Exception as error:
            if is_dropped(error):
                self.drop(number)
            elif is_passing(error) or isinstance(error, (OSError, WorkerbeeError)):
                raise  # the trouble is the server's, or our own
            elif served := self._forget(number):
                with suppress(Exception):
                    served.store.release_unknown(())
                self._on_trouble(served.jobset, error)
            else:
                raise

    def each_served(self) -> Iterator[Served]:
        """Every jobset that is served, each to be used under its `guard`."""
        yield from list(self.served.values())

    def still_serves(self, held: Held) -> bool:
        """Tell whether the jobset of a batch is still there. Another may have its number now."""
        return self.served.get(held.function[0]) is held.served

    def drop(self, number: int) -> None:
        """End the work on this jobset: it is gone, also if another has its number now."""
        if served := self._forget(number):
            self._on_dropped(served.jobset)

    def make_room(self) -> None:
        """Forget the jobsets that were served longest ago and of which nothing is held: a bee may meet thousands."""
        busy = self.jobsets() | {held.function[0] for held, *_ in self._returning}
        idle = [n for n, served in self.served.items() if n not in busy and not served.refusals and not served.hopeless]
        for number in idle[: max(0, len(self.served) - MOST_SERVED)]:
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
        return held

    def begin(self, held: Held, *, without: set[int]) -> None:
        """Give the crew what is started of a batch, ``without`` some; the rest waits for `start_more`."""
        batch = held.batch
        held.mark = batch.started
        held.unstarted.extend(job for job in batch.jobs[batch.started :] if job.id not in without)
        self._crew.give(held, [job for job in batch.jobs[: batch.started] if job.id not in without])

    def start_more(self) -> None:
        """Move the mark of batches while a runner has nothing to do."""
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
                held.open.pop(job.id, None)  # cancelled, or taken over
        held.unstarted = deque(job for job in held.unstarted if job.id in others)
        self._crew.give(held, ready)

    # Striking off

    def emptied_by(self, number: int, ends: Iterable[End]) -> list[Held]:
        """The batches of this jobset in which nothing is open once these ends are recorded."""
        ended: dict[Lot, set[int]] = {}
        for (lot, job), *_ in ends:
            ended.setdefault(lot, set()).add(job.id)
        return [held for held in self.of(number) if held.open.keys() <= ended.get(held, set())]

    def strike_off(self, task: Task) -> bool:
        """The job's end is recorded, or of no interest; whether it was open."""
        return held_of(task).open.pop(task.job.id, None) is not None

    def close(self, batches: Iterable[Held]) -> None:
        """Nothing of these is open any more, and the database knows."""
        for held in batches:
            self._held.pop(held.batch.id, None)

    # Letting go

    def give_back(self, held: Held, jobs: Iterable[Job], *, untouched: bool) -> None:
        """Book jobs to be given back uncharged; ``untouched``: they have surely not run."""
        jobs = [job for job in jobs if job.id in held.open]
        if jobs:
            self._returning.append((held, jobs, untouched))

    def give_back_tasks(self, tasks: Iterable[Task]) -> None:
        """Book started jobs that no runner has got."""
        by_held: dict[Held, list[Job]] = {}
        for task in tasks:
            by_held.setdefault(held_of(task), []).append(task.job)
        for held, jobs in by_held.items():
            self.give_back(held, jobs, untouched=False)

    def give_back_unstarted(self, function: FunctionKey | None = None) -> None:
        """Book all that is unstarted, or what is unstarted of one function."""
        for held in self:
            if function in (None, held.function):
                self.give_back(held, held.unstarted, untouched=True)

    def give_back_all(self) -> None:
        """Book all that is open."""
        for held in self:
            self.give_back(held, held.open.values(), untouched=False)

    def return_booked(self) -> None:
        """Give back what was booked."""
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
        """After a cut connection: what was claimed without our knowing goes back, what was taken is dropped."""
        for served in self.each_served():
            number = served.jobset.number
            with self.guard(number):
                served.store.release_unknown(held.batch.claim for held in self)
                still = served.store.held_claims()
                for held in self.of(number):
                    if still.get(held.batch.id, (None,))[0] != held.batch.claim:
                        # What runs may still succeed first; what has not begun is no longer ours.
                        for job in held.unstarted:
                            held.open.pop(job.id, None)
                        held.unstarted.clear()

    def come_back(self) -> None:
        """Others have taken this bee for dead: what they noted as lost is not."""
        for served in self.each_served():
            with self.guard(served.jobset.number):
                served.store.came_back()

    def stop_overtaken(self, now: float) -> None:
        """Stop what has run here for a while, and in vain, because its run has ended elsewhere: asked now and then.

        It is asked as well what of it is to be shown. Nothing of it is open any more, whenever it stops: a caller's own
        runner can't be made to.
        """
        if now < self._ask_at:
            return
        self._ask_at = now + ASK_SECONDS
        by_served: dict[Served, list[Task]] = {}
        for task in self._crew.running(LONG_SECONDS):
            if self.still_serves(held_of(task)):  # else it is being stopped
                by_served.setdefault(held_of(task).served, []).append(task)
        for served, tasks in by_served.items():
            with self.guard(served.jobset.number):
                ended, asked = served.store.overtaken([(job.id, job.run) for _, job in tasks])
                for task in tasks:
                    if (task.job.id, task.job.run) in ended and self.strike_off(task):
                        self._crew.stop(task.lot, task.job.id)
                self._show(served, tasks, asked)

    def _show(self, served: Served, tasks: list[Task], asked: list[ShowRequest]) -> None:
        """Show what is asked for of these jobs."""
        by_job = {task.job.id: task for task in tasks}
        running = [(what, by_job[what.job], self._crew.runner_of(by_job[what.job])) for what in asked]
        self._tails.show(served.store, [(what, task, runner) for what, task, runner in running if runner is not None])
