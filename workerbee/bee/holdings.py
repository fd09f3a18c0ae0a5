"""What a bee holds: claimed batches, until the end of each of their jobs is recorded or the job is given back.

Whatever the database has to be told of them is booked here first and struck off when it has been told, so
that an outage half way leaves nothing undone: the next round goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from workerbee.bee.crew import Crew, Held, Task
from workerbee.errors import WorkerbeeError
from workerbee.store import BeeStore, Scope, is_dropped, is_passing
from workerbee.wire.job import Batch, Job, Jobset

OnTrouble = Callable[[Jobset, Exception], None]

#: Seconds that a job has run before anybody asks whether it still has to.
LONG = 0.3


@dataclass
class Served:
    """A jobset that this bee serves: over its store, and of its functions those in scope.

    ``refusals`` says why functions are left to others, ``hopeless`` why nobody can run them: their calls fail.
    """

    store: BeeStore
    scope: Scope
    refusals: dict[int, str] = field(default_factory=dict)
    hopeless: dict[int, str] = field(default_factory=dict)

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


class Holdings:
    """The jobsets that a bee serves, by number, and the batches that it holds of them."""

    def __init__(self, crew: Crew, on_dropped: Callable[[Jobset], None], on_trouble: OnTrouble) -> None:
        self.served: dict[int, Served] = {}
        self._crew = crew
        self._on_dropped = on_dropped
        self._on_trouble = on_trouble
        self._held: dict[int, Held] = {}
        self._returning: deque[tuple[Held, list[Job], bool]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def of(self, number: int) -> list[Held]:
        """What is held of this jobset."""
        return [held for held in self._held.values() if held.jobset.number == number]

    def jobsets(self) -> set[int]:
        """The numbers of the jobsets of which something is held."""
        return {held.jobset.number for held in self._held.values()}

    @property
    def n_open(self) -> int:
        """Jobs whose end isn't recorded yet."""
        return sum(len(held.open) for held in self._held.values())

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
                self._on_trouble(served.store.jobset, error)
            else:
                raise

    def drop(self, number: int) -> None:
        """End the work on this jobset: it is gone, also if another has its number now."""
        if served := self._forget(number):
            self._on_dropped(served.store.jobset)

    def _forget(self, number: int) -> Served | None:
        for held in self.of(number):
            for job in held.open:
                self._crew.stop(held, job)
            held.open.clear()
            del self._held[held.batch.id]
        return self.served.pop(number, None)

    # Taking

    def take(self, jobset: Jobset, batch: Batch) -> Held:
        """Book a claimed batch."""
        held = self._held[batch.id] = Held(jobset, batch, {job.id: job for job in batch.jobs})
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
            if held.unstarted and self._crew.idle:
                with self.guard(held.jobset.number):
                    self._start(held, held.mark + self._crew.room_for((held.jobset.number, held.batch.function)))

    def _start(self, held: Held, n: int) -> None:
        held.mark, jobs = self.served[held.jobset.number].store.start(held.batch, n)
        mine, others = set(jobs[: held.mark]), set(jobs[held.mark :])
        ready = [job for job in held.unstarted if job.id in mine]
        for job in held.unstarted:
            if job.id not in mine and job.id not in others:
                held.open.pop(job.id, None)  # cancelled, or taken over
        held.unstarted = deque(job for job in held.unstarted if job.id in others)
        self._crew.give(held, ready)

    # Letting go

    def close(self, batches: Iterable[Batch]) -> None:
        """Nothing of these is open any more, and the database knows."""
        for batch in batches:
            self._held.pop(batch.id, None)

    def give_back(self, held: Held, jobs: Iterable[Job], *, untouched: bool) -> None:
        """Book jobs to be given back uncharged; ``untouched``: they have surely not run."""
        jobs = [job for job in jobs if job.id in held.open]
        if jobs:
            self._returning.append((held, jobs, untouched))

    def give_back_tasks(self, tasks: Iterable[Task]) -> None:
        """Book started jobs that no runner has got."""
        by_held: dict[Held, list[Job]] = {}
        for held, job in tasks:
            by_held.setdefault(held, []).append(job)
        for held, jobs in by_held.items():
            self.give_back(held, jobs, untouched=False)

    def give_back_unstarted(self, function: tuple[int, int] | None = None) -> None:
        """Book all that is unstarted, or what is unstarted of one (jobset, function)."""
        for held in self:
            if function in (None, (held.jobset.number, held.batch.function)):
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
                with self.guard(held.jobset.number):
                    self.served[held.jobset.number].store.release(held.batch, ids, untouched=untouched)
            for job in ids:
                held.open.pop(job, None)
            held.unstarted = deque(job for job in held.unstarted if job.id in held.open)
            self._returning.popleft()

    def reconcile(self) -> None:
        """After a cut connection: what was claimed without our knowing goes back, what was taken is dropped."""
        for number, served in list(self.served.items()):
            with self.guard(number):
                served.store.release_unknown(held.batch.claim for held in self)
                still = served.store.held_claims()
                for held in self.of(number):
                    if still.get(held.batch.id, (None,))[0] != held.batch.claim:
                        # What runs may still succeed first; what has not begun is no longer ours.
                        for job in held.unstarted:
                            held.open.pop(job.id, None)
                        held.unstarted.clear()

    def stop_overtaken(self) -> None:
        """Stop what has run here for a while, and in vain, because its run has ended elsewhere.

        Nothing of it is open any more, whenever it stops: a caller's own runner can't be made to.
        """
        by_jobset: dict[int, list[Task]] = {}
        for task in self._crew.running(LONG):
            by_jobset.setdefault(task.held.jobset.number, []).append(task)
        for number, tasks in by_jobset.items():
            if number not in self.served:
                continue  # dropped: it is being stopped
            with self.guard(number):
                ended = self.served[number].store.overtaken([(job.id, job.run) for _, job in tasks])
                for held, job in tasks:
                    if (job.id, job.run) in ended and job.id in held.open:
                        self._crew.stop(held, job.id)
                        del held.open[job.id]
