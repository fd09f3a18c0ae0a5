"""Bees as processes of their own: many of them, idle ones, slow, frozen and killed ones."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tests.benchmarks.jobs import SLOWDOWN, noop, noted_sleep, outlived, sleep
from tests.benchmarks.ours.storage import database, position
from tests.benchmarks.timing import Figures, Place
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor

JOBSET = "bees"
SECONDS = 0.25
#: Of each of many bees before their rate is taken: jobs one by one, and in batches.
WARM, BATCH = 3, 1000


class LocalBees:
    """Bees of one runner each, on one jobset, which reach the server as bees on other machines do."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.bees: list[subprocess.Popen[bytes]] = []

    def start(self, n: int = 1, **environment: str) -> None:
        command = [sys.executable, "-m", "workerbee.bee", JOBSET, "--dsn", self._place.tcp, "--workers", "1"]
        for _ in range(n):
            self.bees.append(
                subprocess.Popen(
                    [*command, "--busywait"],
                    env=os.environ | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )

    def wait(self) -> None:
        """Return when all of them serve the jobset, and their runners have started too."""
        with database(self._place) as cursor:
            query = """SELECT count(*) FROM workerbee."bee$" WHERE lease_until > now()"""
            eventually(lambda: _number(cursor, query) >= len(self.bees), timeout=300, what="the bees")
        eventually(self._calm, timeout=300, what="their runners")

    def _calm(self) -> bool:
        """Whether they use less than a tenth of a CPU: Python starts at the whole of one."""
        before = self._cpu_seconds()
        time.sleep(0.5)
        return self._cpu_seconds() - before < 0.05 + 0.001 * len(self.bees)

    def _cpu_seconds(self) -> float:
        bees = [psutil.Process(bee.pid) for bee in self.bees]
        times = [process.cpu_times() for bee in bees for process in (bee, *bee.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    def end(self, pid: int) -> None:
        """Kill a bee; its runner dies with it."""
        [bee] = [bee for bee in self.bees if bee.pid == pid]
        bee.kill()
        bee.wait()
        self.bees.remove(bee)


@contextmanager
def hive(place: Place, n: int, **environment: str) -> Iterator[LocalBees]:
    """So many bees, up and serving."""
    started = LocalBees(place)
    try:
        started.start(n, **environment)
        started.wait()
        yield started
    finally:
        for bee in list(started.bees):
            started.end(bee.pid)


# Many


def queue(place: Place) -> Figures:
    """Jobs that are not due yet, in the database that the next ones get copies of."""
    ours = WorkerbeeExecutor(0, dsn=place.dsn, jobset_id=JOBSET)
    later = ours.with_options(run_at=time.time() + 1e6)
    for i in range(place.n):
        later.submit(noop, {"i": i})
    ours.flush()  # leaving it at that only detaches
    return {"queued": place.n}


def drain(place: Place, *, bees: int) -> Figures:
    """The rate at which so many bees do what was queued, released all at once when each is warm."""
    with hive(place, bees), database(place) as cursor:
        completed = 'SELECT COALESCE(sum(completed), 0) FROM workerbee."counter$"'
        _warm_up(place, bees, cursor)
        goal = place.n + _number(cursor, completed)
        began = time.perf_counter()
        _release(cursor)
        while _number(cursor, completed) < goal:
            time.sleep(0.02)
        return {"jobs_per_s": place.n / (time.perf_counter() - began)}


def _warm_up(place: Place, bees: int, cursor: Any) -> None:
    """Have each bee run jobs until its functions are loaded, its statements planned and its memory has grown."""
    query = f'SELECT count(*) FROM workerbee."counter$" WHERE completed >= {WARM}'
    with WorkerbeeExecutor(0, dsn=place.dsn, jobset_id=JOBSET) as ours:
        once = ours.with_options(unique=False, speculate=False)
        while _number(cursor, query) < bees:
            _all([once.submit(sleep, {"seconds": 0.3}) for _ in range(bees)])
        _all([once.submit(noop, {"i": i}) for i in range(bees * BATCH)])


def _release(cursor: Any) -> None:
    cursor.execute(
        """WITH released AS (UPDATE workerbee."batch$" SET due_at = NULL WHERE due_at IS NOT NULL RETURNING jobset)
           SELECT pg_notify('workerbee$work', (SELECT min(jobset)::text FROM released))"""
    )


# Idle


def idle(place: Place) -> Figures:
    """What ``n`` bees with nothing to do ask and write, a bee and second."""
    seconds = min(30, place.n)
    WorkerbeeExecutor(0, dsn=place.dsn, jobset_id=JOBSET).shutdown()
    with hive(place, place.n), database(place) as cursor:
        time.sleep(seconds)  # until they have settled, and told the server what they did before
        before, written, began = _activity(cursor), position(cursor), time.perf_counter()
        time.sleep(seconds)
        after = _activity(cursor)
        each = (time.perf_counter() - began) * place.n
        figures = {name: after[name] - before[name] for name in after}
        return {
            "queries_per_s": figures["commits"] / each,
            "beats_per_s": figures["beats"] / each,
            "wal_bytes_per_beat": (position(cursor) - written) / max(1, figures["beats"]),
            "other_writes": figures["others"],
        }


def _activity(cursor: Any) -> dict[str, int]:
    cursor.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    [commits] = cursor.fetchone()
    cursor.execute(
        """SELECT COALESCE(sum(n_tup_ins + n_tup_upd) FILTER (WHERE relname = 'bee$'), 0),
                  COALESCE(sum(n_tup_ins + n_tup_upd + n_tup_del) FILTER (WHERE relname <> 'bee$'), 0)
             FROM pg_stat_user_tables WHERE schemaname = 'workerbee'"""
    )
    beats, others = cursor.fetchone()
    return {"commits": commits, "beats": int(beats), "others": int(others)}


# Slow and frozen


def stragglers(place: Place, *, seed: int) -> Figures:
    """Four bees, of which one is ten times slower, and one is frozen at some moment: time over ideal, extra runs."""
    chance = random.Random(seed)
    runs = Path(place.directory, "runs")
    work = place.n * SECONDS
    ours = WorkerbeeExecutor(0, dsn=place.dsn, jobset_id=JOBSET)
    with ours, hive(place, 3) as others:
        others.start(**{SLOWDOWN: "10"})
        others.wait()
        _all([ours.submit(noop, {"i": i}) for i in range(100)])
        began = time.perf_counter()
        futures = [ours.submit(noted_sleep, {"i": i, "seconds": SECONDS, "runs": str(runs)}) for i in range(place.n)]
        time.sleep(chance.uniform(0.05, 0.4) * work / 3.1)
        _freeze(chance.choice(others.bees[:3]).pid)
        frozen = time.perf_counter() - began
        _all(futures)
        elapsed = time.perf_counter() - began
        ideal = frozen + (work - 3.1 * frozen) / 2.1
        extra = len(runs.read_text().splitlines()) - place.n
        return {"over_ideal": elapsed / ideal, "extra_runs": extra / place.n}


def _freeze(pid: int) -> None:
    bee = psutil.Process(pid)
    for process in [bee, *bee.children(recursive=True)]:
        process.send_signal(signal.SIGSTOP)


# Killed


def rescue(place: Place) -> Figures:
    """Seconds from a bee's kill to the start of its job elsewhere, with bees that have nothing else to do."""
    times = []
    chance = random.Random(1)
    executor = WorkerbeeExecutor(0, dsn=place.dsn, jobset_id=JOBSET)
    with executor, hive(place, 4) as others:
        once = executor.with_options(speculate=False)
        time.sleep(5)  # a bee may only judge others when it has itself been served for two leases
        for i in range(place.n):
            first = Path(place.directory, f"{i}")
            future = once.submit(outlived, {"path": str(first)})
            bee = eventually(partial(_parent, first), what="the job's first run")
            time.sleep(chance.uniform(0.2, 1.2))
            killed = time.monotonic()
            others.end(bee)
            times.append(future.result() - killed)
            others.start()
    times.sort()
    return {"p50_s": median(times), "p99_s": times[min(len(times) - 1, int(0.99 * len(times)))]}


def _parent(first: Path) -> int:
    """Whose child the job's first run is; 0 before it has said so."""
    said = first.read_text() if first.exists() else ""
    return int(said) if said.endswith("\n") else 0


def _all(futures: list[Future[Any]]) -> None:
    for future in futures:
        future.result()


def _number(cursor: Any, query: str) -> int:
    cursor.execute(query)
    return int(cursor.fetchone()[0])
