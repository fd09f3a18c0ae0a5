"""The jobs that a crew has and hasn't done yet. It knows which wait for a runner, and how many more are wanted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from workerbee.bee.pace import (
    FOLLOWED_SECONDS,
    HAND_SECONDS,
    MOST_HELD,
    MOST_IN_HAND,
    SATED,
    Appetite,
    FunctionKey,
    Pace,
    portion,
)
from workerbee.bee.tasks import Lot, Task
from workerbee.resources import Few
from workerbee.wire.job import Job

#: A job, named by its lot and its id.
JobOfLot = tuple[Lot, int]


class Backlog:
    """Keeps a crew's jobs until they end or are given back. A crew's ``size`` is its number of runners.

    After a `recall`, when somebody has asked for waiting jobs back, no job is taken in advance until one has ended.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self._ready: deque[Task] = deque()  # sent to no runner yet
        self._n_jobs: Counter[FunctionKey] = Counter()  # jobs that have neither ended nor been given back, by function
        self._alone: set[JobOfLot] = set()
        self._barred: Few[FunctionKey] = Few()  # if one is forgotten here, a runner bars it again
        self._is_recalled = False

    @property
    def n_ready(self) -> int:
        """Count the jobs that were sent to no runner."""
        return len(self._ready)

    def give(self, lot: Lot, jobs: Iterable[Job]) -> None:
        """Add jobs."""
        tasks = [Task(lot, job) for job in jobs]
        if tasks:
            self._n_jobs[lot.function] += len(tasks)
            self._ready.extend(tasks)

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Put jobs that a runner got and didn't begin at the front, for the next runner that is free."""
        self._ready.extendleft(reversed(tasks))

    def have_run(self, function: FunctionKey, *seconds: float) -> None:
        """Note how many seconds each of some jobs of this function has run, in the order of their ends."""
        self._is_recalled = False
        self.pace.learn(function, *seconds)

    def end(self, *tasks: Task) -> None:
        """Forget jobs, which have ended or are given back."""
        for function, n in Counter([task.lot.function for task in tasks]).items():
            self._n_jobs[function] -= n
            if not self._n_jobs[function]:
                del self._n_jobs[function]
        if self._alone:
            self._alone.difference_update(map(place, tasks))

    # Handing out

    def next_portion(self, n_runners: int, most: int = MOST_IN_HAND) -> list[Task]:
        """Take jobs of one function, at most ``most``, that one message brings to one of ``n_runners`` runners."""
        if not self._ready:
            return []
        first = self._ready[0]
        function = first.lot.function
        pace = None if self._is_recalled else self.pace.seconds(function)
        n = min(most, portion(len(self._ready), n_runners, pace))
        tasks = [self._ready.popleft()]
        if self._is_alone(first):
            return tasks
        while self._ready and len(tasks) < n:
            task = self._ready[0]
            if task.lot.function != function or self._is_alone(task):
                break
            tasks.append(self._ready.popleft())
        return tasks

    def may_follow(self, task: Task, n_in_hand: int) -> bool:
        """Tell whether a runner with so many jobs in hand, this one first, will soon be free, and may get more."""
        if self._is_alone(task) or self._is_alone(self._ready[0]):
            return False
        pace = self.pace.seconds(task.lot.function)
        most = FOLLOWED_SECONDS if n_in_hand == 1 else HAND_SECONDS / 2
        return pace is not None and n_in_hand * pace < most

    def run_alone(self, tasks: Iterable[Task]) -> None:
        """Have each of these sent alone: one of them damages its runner's messages, and it isn't known which."""
        self._alone.update(map(place, tasks))

    def _is_alone(self, task: Task) -> bool:
        return bool(self._alone) and place(task) in self._alone

    # Wanting more

    def appetite(self, size: int) -> Appetite:
        """Say how much to claim now: enough to keep the runners busy for some tenths of a second."""
        n_idle, free = self._n_idle(size), self._free(size)
        if n_idle <= 0 and free < size / 2:
            return SATED
        runners = max(free, n_idle)
        jobs = max(0, n_idle) if self._is_recalled else int(runners * MOST_HELD)
        return Appetite(jobs, runners, jobs)

    def room_for(self, function: FunctionKey, size: int) -> int:
        """Count how many more jobs of this function to start, now that a runner has nothing to do."""
        return max(1, self._n_idle(size), int(self._free(size) / self.pace.cost(function)))

    def _n_idle(self, size: int) -> int:
        return size - self._n_jobs.total()

    def _free(self, size: int) -> float:
        """Count the runners, in fractions too, for which the backlog has no work."""
        return 0.0 if self._is_recalled else size - self._load()

    def _load(self) -> float:
        """Count the runners, in fractions too, for which the backlog has work."""
        return sum(n * self.pace.cost(function) for function, n in self._n_jobs.items())

    # Giving back

    def take_surplus(self, size: int) -> list[Task]:
        """Take out the jobs that have to wait longer than was thought, because jobs turned out longer."""
        load = self._load() if self._ready else 0.0
        return self.take_last(int(len(self._ready) * max(0.0, 1 - 2 * size / load)) if load > 0 else 0)

    def take_last(self, n: int) -> list[Task]:
        """Take out the last ``n`` of the jobs that were sent to no runner."""
        taken = [self._ready.pop() for _ in range(n)][::-1]
        self.end(*taken)
        return taken

    def recall(self, jobset: int) -> list[Task]:
        """Take out the jobs of this jobset that were sent to no runner."""
        self._is_recalled = True
        taken = self._take(lambda task: task.lot.function[0] == jobset)
        self.end(*taken)
        return taken

    def take_doomed(self, doomed: set[JobOfLot]) -> list[Task]:
        """Take out those of these jobs that were sent to no runner: they needn't run any more."""
        return self._take(lambda task: place(task) in doomed)

    def bar(self, function: FunctionKey) -> list[Task]:
        """Note that no runner here can run this function, and take out those of its jobs that were sent to none."""
        self._barred.add(function)
        return self._take(lambda task: task.lot.function == function)

    def is_barred(self, task: Task) -> bool:
        return task.lot.function in self._barred

    def forget(self, jobset: int) -> None:
        """Forget what was known of a jobset that is gone: another may get its number."""
        self._barred -= {function for function in self._barred if function[0] == jobset}

    def _take(self, is_wanted: Callable[[Task], bool]) -> list[Task]:
        taken = [task for task in self._ready if is_wanted(task)]
        if taken:
            self._ready = deque(task for task in self._ready if not is_wanted(task))
        return taken


def place(task: Task) -> JobOfLot:
    return task.lot, task.job.id
