"""The stage: a jobset that is quickly made anew, three actors with their steps, and a judge.

Whatever the order, at the end a last bee finishes what is left, and then: each job's run has one outcome,
which never changed; no batch is left; the counters are true; what was cancelled before it began never
began; and nothing began more often than failures, losses, copies and returns explain.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg2 import sql

from tests.store.hive import ANY, Hive, failure, success
from workerbee.store import ClientStore, Connection, Limits, schema
from workerbee.wire.job import Batch, Options

#: Jobs of the play; before them some that have long ended, so that it is known how long one takes.
ENDED, JOBS = (1, 2, 3), (4, 5, 6, 7)
Run = tuple[int, int]

RESET = """
DELETE FROM {batch} WHERE jobset = {number};
DELETE FROM {counter} WHERE jobset = {number};
DELETE FROM {outcome} WHERE job > 3;
DELETE FROM {attempt};
DELETE FROM {run};
UPDATE {bee} SET lease_until = now() + interval '1 hour', seen_at = now(), given_up_at = NULL,
                 served_since = now() - interval '1 hour', backend = NULL;
INSERT INTO {batch} (jobset, function, run, jobs) VALUES ({number}, 0, 1, '{{4,5,6}}'), ({number}, 0, 1, '{{7}}')
"""
AGE = """
UPDATE {batch} SET claimed_at = claimed_at - interval '9 s', marked_at = marked_at - interval '9 s'
 WHERE jobset = {number} AND claim IS NOT NULL
"""


LATEST = """
SELECT j.id, COALESCE(max(r.run), 1) FROM {job} j LEFT JOIN {run} r ON r.job = j.id WHERE j.id > 3 GROUP BY j.id
"""


@dataclass
class Memory:
    """What has been seen: what began how often and in which batch, what was given back, what must never begin."""

    begun: Counter[Run] = field(default_factory=Counter)
    begun_in: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    open_in: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    returned: Counter[Run] = field(default_factory=Counter)
    never: set[Run] = field(default_factory=set)

    def begin(self, batch: Batch, jobs: list[int]) -> None:
        for job in jobs:
            run = (job, batch.run)
            assert run not in self.never, f"job {job} begins after it was cancelled unbegun"
            self.begun[run] += 1
            self.begun_in[batch.id].add(job)
            self.open_in[batch.id].append(job)


class Actor:
    """A bee, and now and then a client, that takes one step after the other."""

    def __init__(self, stage: Stage, host: str, connection: Connection) -> None:
        self.stage = stage
        self.bee = stage.hive.bee(host, connection)
        self.client = ClientStore(connection, stage.hive.jobset, self.bee.incarnation)
        self._latest = sql.SQL(LATEST).format(**stage.hive.names)
        self.batches: list[Batch] = []

    def play(self, step: str) -> None:
        getattr(self, step)()

    # Steps of a bee

    def claim(self) -> None:
        for batch in self.bee.claim(2, 1, ANY):
            self.batches.append(batch)
            self.stage.memory.begin(batch, [j.id for j in batch.jobs[: batch.started]])

    def start(self) -> None:
        for batch in self.batches:
            marked = self.stage.memory.begun_in[batch.id]
            started, jobs = self.bee.start(batch, len(marked) + 1)
            self.stage.memory.begin(batch, [j for j in jobs[:started] if j not in marked])

    def complete(self) -> None:
        batch, job = self._next()
        if batch is not None:
            self.stage.memory.open_in[batch.id].remove(job)
            closed = [] if self.stage.memory.open_in[batch.id] or not self._all_begun(batch) else [batch]
            self.bee.complete([success(job, batch.run, 0.001)], closed, hint=None)

    def fail(self) -> None:
        self._fail(3)

    def fail_for_good(self) -> None:
        self._fail(1)

    def _fail(self, attempts: int) -> None:
        batch, job = self._next()
        if batch is not None:
            self.stage.memory.open_in[batch.id].remove(job)
            self.bee.fail(batch, failure(job, batch.run), Limits(attempts, 0.0, 0.0), "{}")

    def release(self) -> None:
        for batch in self.batches:
            ids = [job.id for job in batch.jobs]
            self.stage.memory.returned.update((job, batch.run) for job in ids)
            self.bee.release(batch, ids, untouched=False)
        self.batches.clear()

    def rescue(self) -> None:
        self.bee.save()

    def speculate(self) -> None:
        for batch in self.bee.speculate(ANY):
            self.batches.append(batch)
            self.stage.memory.begin(batch, [j.id for j in batch.jobs])

    def take_over(self) -> None:
        self.bee.take_over(ANY)

    def age(self) -> None:
        self.stage.hive.run(AGE)

    def fall_silent(self) -> None:
        self.bee.lapse()

    def come_back(self) -> None:
        if self.bee.beat():
            self.bee.came_back()

    # Steps of a client

    def cancel(self) -> None:
        self._cancel(JOBS)

    def cancel_one(self) -> None:
        self._cancel(JOBS[1:2])

    def _cancel(self, jobs: tuple[int, ...]) -> None:
        asked = [run for run in self.latest() if run[0] in jobs]
        done = self.client.cancel_waiting(asked)
        self.stage.memory.never.update(run for run in asked if run[0] in done)

    def stop(self) -> None:
        self.client.cancel_running([run for run in self.latest() if run[0] in JOBS[:2]])

    def reopen(self) -> None:
        self.client.reopen(self.latest(), Options())

    def latest(self) -> list[Run]:
        """The jobs, with their latest runs."""
        return [(job, run) for job, run in self.bee.connection.run(self._latest)]

    # What an actor knows

    def _next(self) -> tuple[Batch | None, int]:
        """The first job that this actor has begun and not ended."""
        return next(((b, job) for b in self.batches for job in self.stage.memory.open_in[b.id]), (None, 0))

    def _all_begun(self, batch: Batch) -> bool:
        started, jobs = self.bee.start(batch, 0)
        return started == len(jobs)


class Stage:
    """One jobset with three actors. `reset` makes it new, `judge` ends a play."""

    def __init__(self, dsn: str) -> None:
        self.connections = [Connection(dsn) for _ in range(4)]
        schema.ensure(self.connections[0])
        self.hive = Hive(self.connections[0])
        self.hive.add(len(ENDED) + len(JOBS))
        self.last = self.hive.bee("last")
        for job in ENDED:
            self.last.complete([success(job, duration=0.001)], [], hint=None)
        self.actors = [Actor(self, host, c) for host, c in zip("xyz", self.connections[1:], strict=True)]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def reset(self) -> None:
        self.hive.run(RESET)
        self.memory = Memory()
        self.stored: dict[Run, tuple[Any, ...]] = {}
        for actor in self.actors:
            actor.batches.clear()

    # What happens

    def look(self) -> None:
        """What is recorded stays as it is."""
        rows = self.hive.run("SELECT job, run, status::text, bee::text, completed_at FROM {outcome} WHERE job > 3")
        now = {(job, run): tuple(rest) for job, run, *rest in rows}
        assert {run: now.get(run) for run in self.stored} == self.stored, "an outcome has changed"
        self.stored = now

    # The end

    def judge(self) -> None:
        """Finish what is left, and see that nothing is lost, doubled or miscounted."""
        self.look()
        for actor in self.actors:
            actor.bee.lapse()
        self.last.save()
        for _ in range(30):
            self.hive.make_due()
            batches = self.last.claim(8, 8, ANY)
            if not batches:
                break
            for batch in batches:
                self.memory.begin(batch, [job.id for job in batch.jobs])
                self.last.complete([success(j.id, batch.run, 0.001) for j in batch.jobs], [batch], hint=None)
        self.look()
        left = self.hive.run("SELECT jobs, claim IS NOT NULL FROM {batch} WHERE jobset = {number}")
        assert not left, f"batches are left: {left}"
        missing = [run for run in self.actors[0].latest() if run not in self.stored]
        assert not missing, f"runs without an outcome: {missing}"
        self._judge_begun()
        self._judge_counts()

    def _judge_begun(self) -> None:
        explained = Counter(
            {
                (job, run): n
                for job, run, n in self.hive.run("SELECT job, run, count(*) FROM {attempt} GROUP BY job, run")
            }
        )
        for run, n in self.memory.begun.items():
            most = 1 + explained[run] + self.memory.returned[run]
            assert n <= most, f"run {run} began {n} times, and {most} are explained"

    def _judge_counts(self) -> None:
        counts = self.hive.catalogue.counts(self.hive.jobset.number)
        truth = Counter(status for status, *_ in self.stored.values())
        assert (counts.completed, counts.failed, counts.cancelled) == (
            truth["completed"],
            truth["failed"],
            truth["cancelled"],
        )
        kinds = dict(self.hive.run("SELECT kind, count(*) FROM {attempt} GROUP BY kind"))
        assert (counts.lost, counts.speculative, counts.late) == tuple(
            kinds.get(k, 0) for k in ("lost", "copy", "late")
        )
        assert counts.reopened == len(self.hive.run("SELECT job FROM {run}"))


@contextmanager
def stage(dsn: str) -> Iterator[Stage]:
    """A stage over a database, closed at the end."""
    built = Stage(dsn)
    try:
        yield built
    finally:
        built.close()


# Orders of steps

SCRIPTS: dict[str, tuple[str, ...]] = {
    "two workers": (
        "claim start complete start fail claim start complete",
        "claim start fail start complete release claim complete",
    ),
    "a zombie and its rescuer": (
        "claim start fall_silent complete start fail come_back complete",
        "rescue claim start fail rescue claim complete complete",
    ),
    "a worker and a client": (
        "claim start complete start fail claim start complete",
        "cancel_one stop reopen cancel reopen stop cancel_one reopen",
    ),
    "a slow bee and a thief": (
        "claim age start complete start age start complete",
        "take_over claim start complete take_over claim start complete",
    ),
    "two copies": (
        "claim start age fail_for_good complete claim release complete",
        "age speculate fail_for_good speculate complete claim fail release",
    ),
    "a frozen bee and its helpers": (
        "claim start age fall_silent fail come_back start complete",
        "age speculate take_over rescue complete claim cancel_one fail",
    ),
}
#: Scripts of three: each has 1,680 orders.
TRIOS: dict[str, tuple[str, ...]] = {
    "a worker, who cancels, who submits again": ("claim start complete", "stop cancel stop", "reopen reopen claim"),
    "a worker, who cancels one, a second worker": (
        "claim start complete",
        "cancel_one reopen stop",
        "claim start fail",
    ),
    "a zombie, a rescuer, a client": ("claim fall_silent complete", "rescue claim complete", "stop reopen cancel"),
    "two rescuers of one, and a client": ("rescue claim complete", "rescue claim fail", "cancel_one stop reopen"),
    "a giver, a taker, a client": ("claim release claim", "claim start complete", "cancel reopen stop"),
    "two clients and a worker": ("cancel reopen stop", "stop reopen cancel_one", "claim start complete"),
}


def orders(*scripts: str) -> Iterator[list[tuple[int, str]]]:
    """Every order of the steps of these scripts that keeps each one's own."""
    steps = [script.split() for script in scripts]
    yield from _orders(steps, [0] * len(steps))


def _orders(steps: list[list[str]], done: list[int]) -> Iterator[list[tuple[int, str]]]:
    if all(n == len(script) for script, n in zip(steps, done, strict=True)):
        yield []
    for actor, (script, n) in enumerate(zip(steps, done, strict=True)):
        if n < len(script):
            after = [*done[:actor], n + 1, *done[actor + 1 :]]
            for rest in _orders(steps, after):
                yield [(actor, script[n]), *rest]


def play(stage: Stage, order: list[tuple[int, str]]) -> None:
    """Play one order to its end; an AssertionError tells the order."""
    stage.reset()
    try:
        for actor, step in order:
            stage.actors[actor].play(step)
            stage.look()
        stage.judge()
    except AssertionError as error:
        story = " ".join(f"{'xyz'[actor]}.{step}" for actor, step in order)
        raise AssertionError(f"{error}\n  in the order {story}") from error
