"""The jobs that a crew has and hasn't done yet: which of them wait for a runner, and how many more it wants."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from workerbee.bee.pace import HAND_SECONDS, MOST_HELD, MOST_IN_HAND, SATED, Appetite, FunctionKey, Pace, portion
from workerbee.bee.tasks import Lot, Task
from workerbee.wire.job import Job

#: A job of a lot.
JobOfLot = tuple[Lot, int]


class Backlog:
    """Given jobs, until they end or are given back. A crew's ``size`` is its number of runners.

    After a `recall`, when somebody has wanted back what was taken ahead, none is taken ahead until a job has ended.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self._ready: deque[Task] = deque()  # no runner has got these
        self._n_jobs: Counter[FunctionKey] = Counter()  # of all, by function
        self._alone: set[JobOfLot] = set()
        self._barred: set[FunctionKey] = set()
        self._is_recalled = False

    @property
    def n_ready(self) -> int:
        """Jobs that no runner has got."""
        return len(self._ready)

    def give(self, lot: Lot, jobs: Iterable[Job]) -> None:
        """More jobs."""
        tasks = [Task(lot, job) for job in jobs]
        if tasks:
            self._n_jobs[lot.function] += len(tasks)
            self._ready.extend(tasks)

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Jobs that a runner has got and not begun: first of all for whoever is free next."""
        self._ready.extendleft(reversed(tasks))

    def has_run(self, task: Task, seconds: float) -> None:
        """A job has run for so long."""
        self._is_recalled = False
        self.pace.learn(task.lot.function, seconds)

    def end(self, task: Task) -> None:
        """A job has ended, or is given back."""
        function = task.lot.function
        self._n_jobs[function] -= 1
        if not self._n_jobs[function]:
            del self._n_jobs[function]
        if self._alone:
            self._alone.discard(place(task))

    # Handing out

    def next_portion(self, n_runners: int, most: int = MOST_IN_HAND) -> list[Task]:
        """The jobs, all of one function, that one message is to bring to one of so many runners, if there are any."""
        if not self._ready:
            return []
        function = self._ready[0].lot.function
        pace = None if self._is_recalled else self.pace.seconds(function)
        n = min(most, portion(len(self._ready), n_runners, pace))
        tasks: list[Task] = []
        while self._ready and len(tasks) < n:
            task = self._ready[0]
            if task.lot.function != function or (tasks and self._is_alone(task)):
                break
            tasks.append(self._ready.popleft())
            n = 1 if self._is_alone(task) else n
        return tasks

    def may_follow(self, task: Task, n_in_hand: int) -> bool:
        """Tell whether a runner with so many in hand, this job first, will be through soon, and may get more."""
        if self._is_alone(task) or self._is_alone(self._ready[0]):
            return False
        pace = self.pace.seconds(task.lot.function)
        return pace is not None and n_in_hand * pace < HAND_SECONDS / 2

    def run_alone(self, tasks: Iterable[Task]) -> None:
        """Have these run one by one: one of them spoils what its runner says."""
        self._alone.update(map(place, tasks))

    def _is_alone(self, task: Task) -> bool:
        return bool(self._alone) and place(task) in self._alone

    # Wanting more

    def appetite(self, size: int) -> Appetite:
        """Say how much to claim now: some tenths of a second of work ahead of the runners, no more."""
        n_idle, free = self._n_idle(size), self._free(size)
        if n_idle <= 0 and free < size / 2:
            return SATED
        runners = max(free, n_idle)
        jobs = max(0, n_idle) if self._is_recalled else int(runners * MOST_HELD)
        return Appetite(jobs, runners, jobs)

    def room_for(self, function: FunctionKey, size: int) -> int:
        """Count the jobs of this function to start besides, now that some runner has nothing to do."""
        return max(1, self._n_idle(size), int(self._free(size) / self.pace.cost(function)))

    def _n_idle(self, size: int) -> int:
        return size - self._n_jobs.total()

    def _free(self, size: int) -> float:
        """Say how many runners could be kept busy beside those that the backlog keeps so."""
        return 0.0 if self._is_recalled else size - self._load()

    def _load(self) -> float:
        """Say how many runners the backlog keeps busy for the time that work is held."""
        return sum(n * self.pace.cost(function) for function, n in self._n_jobs.items())

    # Giving back

    def take_surplus(self, size: int) -> list[Task]:
        """Give back what has to wait longer here than was thought, as jobs have become longer."""
        load = self._load() if self._ready else 0.0
        return self.take_last(int(len(self._ready) * max(0.0, 1 - 2 * size / load)) if load > 0 else 0)

    def take_last(self, n: int) -> list[Task]:
        """The last of those that no runner has got, so many, given back."""
        taken = [self._ready.pop() for _ in range(n)][::-1]
        for task in taken:
            self.end(task)
        return taken

    def recall(self, jobset: int) -> list[Task]:
        """Those of this jobset that no runner has got, given back."""
        self._is_recalled = True
        taken = self._take(lambda task: task.lot.function[0] == jobset)
        for task in taken:
            self.end(task)
        return taken

    def take_doomed(self, doomed: set[JobOfLot]) -> list[Task]:
        """Those of these jobs that no runner has got, and none is to get."""
        return self._take(lambda task: place(task) in doomed)

    def bar(self, function: FunctionKey) -> list[Task]:
        """No runner here can run this function: those of its jobs that none has got."""
        self._barred.add(function)
        return self._take(lambda task: task.lot.function == function)

    def is_barred(self, task: Task) -> bool:
        return task.lot.function in self._barred

    def forget(self, jobset: int) -> None:
        """The jobset is gone: its number may come again."""
        self._barred = {function for function in self._barred if function[0] != jobset}

    def _take(self, is_wanted: Callable[[Task], bool]) -> list[Task]:
        taken = [task for task in self._ready if is_wanted(task)]
        if taken:
            self._ready = deque(task for task in self._ready if not is_wanted(task))
        return taken


def place(task: Task) -> JobOfLot:
    return task.lot, task.job.id
