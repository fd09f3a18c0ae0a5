"""``python -m tests.benchmarks.costs``: what many bees cost one PostgreSQL, and what much takes, to look at and to do.

One process issues, over a few connections, the very statements of bees for many incarnations. First each
kind of statement alone and as fast as it goes, with few and with all bees there: its rate, the server's
CPU time and WAL for one. From that follows what so many bees need. Then the traffic of that many idle
bees at its real pace, to check it.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import click
import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks import crowds, growth, looks, millions, report
from tests.benchmarks.results import Bar
from tests.servers import Server, server
from workerbee.bee import lookout
from workerbee.bee.hunger import MAX_PAUSE_SECONDS
from workerbee.store import BeeFacts, BeeStore, Catalogue, ClientStore, Connection, Scope, results_hint, schema
from workerbee.timing import BEAT_SECONDS, IDLE_BEAT_SECONDS, LEASE_SECONDS
from workerbee.wire.job import NO_FUNCTION, EndKind, Jobset, NewJob, Options, Outcome

#: Lengths of jobs (s) that bees are busy with; None: they have none.
_JOBS = (None, 60.0, 1.0)


class Cost(NamedTuple):
    """Of one statement: how many a second went through, the server's CPU seconds and WAL bytes for each."""

    per_s: float
    cpu_s: float
    wal_bytes: float


class Desk:
    """A connection, at which one incarnation after another says what it has to."""

    def __init__(self, dsn: str, jobset: Jobset) -> None:
        self.connection = Connection(dsn, application="workerbee costs")
        self._catalogue = Catalogue(self.connection)
        self._store = BeeStore(self.connection, jobset, uuid4(), "host")
        self._jobset = jobset

    def beat(self, bee: UUID) -> None:
        facts = BeeFacts(bee, self._jobset.number, "host", 1, "3.12", 1)
        self._catalogue.beat(facts, lease=600.0, resting=False)  # longer than any run of this

    def held_elsewhere(self, bee: UUID) -> None:
        self._catalogue.held_elsewhere(bee, self._jobset.number)

    def rescue(self, bee: UUID) -> None:
        self._as(bee).rescue(LEASE_SECONDS)

    def overtaken(self, bee: UUID) -> None:
        self._as(bee).overtaken([(1, 1)])

    def claim(self, bee: UUID) -> None:
        self._as(bee).claim(1, 1, Scope())

    def job(self, bee: UUID) -> None:
        """Claim one and complete it."""
        store = self._as(bee)
        for batch in store.claim(1, 1, Scope()):
            outcome = Outcome(batch.jobs[0].id, 1, EndKind.COMPLETED, "json", b"null", b"m" * 16, 1.0)
            store.complete([outcome], [batch], hint=results_hint([outcome]))

    def _as(self, bee: UUID) -> BeeStore:
        self._store._bee = str(bee)
        return self._store


class Fleet:
    """Many bees on one jobset, as the server sees them."""

    def __init__(self, running: Server, connections: int) -> None:
        self._running = running
        with closing(Connection(running.dsn)) as connection:
            schema.ensure(connection)
            found = Catalogue(connection).create_jobset("costs", key=None, speculate=True)
        assert found is not None
        self._jobset = found
        self._desks = [Desk(running.dsn, found) for _ in range(connections)]
        self._job_ids = itertools.count(1)
        self.bees: list[UUID] = []

    def grow(self, n: int) -> None:
        """Have ``n`` bees in all, alive and idle."""
        self._running.execute('DELETE FROM workerbee."batch$"')
        new = [uuid4() for _ in range(n - len(self.bees))]
        self._share(new, Desk.beat)
        self.bees += new
        self._running.execute("VACUUM ANALYZE")

    def work(self) -> None:
        """Give each bee a job that it goes on having."""
        self.queue(len(self.bees))
        self._share(self.bees, Desk.claim)
        self._running.execute("VACUUM ANALYZE")

    def queue(self, n: int) -> None:
        with closing(Connection(self._running.dsn)) as connection:
            store = ClientStore(connection, self._jobset, uuid4())
            ids = list(itertools.islice(self._job_ids, n))
            for start in range(0, n, 1000):
                store.add([_job(i) for i in ids[start : start + 1000]], hint=False)

    def cost(self, say: Callable[[Desk, UUID], object], seconds: float) -> Cost:
        """What ``say`` costs when the bees say it one after the other as fast as it goes."""

        def run() -> int:
            end = time.monotonic() + seconds
            return self._share(itertools.takewhile(lambda _: time.monotonic() < end, itertools.cycle(self.bees)), say)

        return self._metered(run)

    def idle_traffic(self, seconds: float) -> tuple[float, Cost]:
        """Idle bees at their real pace: how much of what they have to say got through, and its cost."""
        n = len(self.bees)
        rates = _per_second(None, n)
        turns = itertools.cycle(self.bees)
        said = self._metered(lambda: self._share(zip(_paced(rates, n, seconds), turns, strict=False), _say))
        return said.per_s / (n * sum(rates.values())), said

    def close(self) -> None:
        for desk in self._desks:
            desk.connection.close()

    def _share(self, work: Iterable[Any], say: Callable[[Desk, Any], object]) -> int:
        """Each desk takes the next piece of work; how many there were."""
        lock = threading.Lock()
        pieces = iter(work)

        def serve(desk: Desk) -> int:
            for n in itertools.count():
                with lock:
                    piece = next(pieces, None)
                if piece is None:
                    return n
                say(desk, piece)
            raise AssertionError

        with ThreadPoolExecutor(len(self._desks)) as pool:
            return sum(pool.map(serve, self._desks))

    def _metered(self, run: Callable[[], int]) -> Cost:
        cpu, wal, began = self._cpu(), self._wal(), time.monotonic()
        n = run()
        elapsed = time.monotonic() - began
        return Cost(n / elapsed, (self._cpu() - cpu) / max(1, n), (self._wal() - wal) / max(1, n))

    def _cpu(self) -> float:
        postmaster = psutil.Process(self._running.pid)
        total = sum(postmaster.cpu_times()[:4])  # with those of the children that have ended
        for child in postmaster.children():
            with suppress(psutil.NoSuchProcess):
                total += sum(child.cpu_times()[:2])
        return float(total)

    def _wal(self) -> int:
        return int(self._running.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])


def _job(i: int) -> NewJob:
    return NewJob(i, NO_FUNCTION, Options(), "json", b'{"i": 1}', None, i.to_bytes(16, "big"))


def _per_second(job: float | None, bees: int) -> dict[str, float]:
    """What one of so many bees says: as `supervisor` has it."""
    if job is None:
        return {"held_elsewhere": 1 / IDLE_BEAT_SECONDS, "beat": 1 / IDLE_BEAT_SECONDS, "claim": 1 / MAX_PAUSE_SECONDS}
    look = 1 / max(job, lookout.pause(bees, sated=True))  # after a claim
    return {
        "beat": 1 / BEAT_SECONDS,
        "overtaken": 1 / BEAT_SECONDS,
        "job": 1 / job,
        "held_elsewhere": look,
        "rescue": look,
    }


def _say(desk: Desk, said: tuple[str, UUID]) -> None:
    kind, bee = said
    getattr(desk, kind)(bee)


def _paced(rates: dict[str, float], n: int, seconds: float) -> Iterator[str]:
    """The kinds of statement that ``n`` bees say, each at its moment, or at once if that is over."""
    moments = sorted((k / (rate * n), kind) for kind, rate in rates.items() for k in range(int(seconds * rate * n)))
    began = time.monotonic()
    for moment, kind in moments:
        now = time.monotonic() - began
        if now > seconds:
            return
        time.sleep(max(0.0, moment - now))
        yield kind


def measure(
    bees: int, connections: int, seconds: float, looked_at: tuple[int, int], say: Callable[[str], None]
) -> dict[str, Any]:
    """The costs with few and with all bees, what follows, the check, and what much takes (`looks`, `crowds` …)."""
    found: dict[str, Any] = {"machine": report.machine(), "bees": bees, "costs": {}}
    place = server(fsync=True, strict=False, shared_buffers="128MB")
    with place as running, closing(Fleet(running, connections)) as fleet:
        found["versions"] = report.versions(running.execute("SHOW server_version")[0][0], ())
        for n in sorted({min(100, bees), bees}):
            say(f"{n} bees")
            fleet.grow(n)
            idle = {kind: fleet.cost(getattr(Desk, kind), seconds) for kind in _per_second(None, n)}
            say(f"{n} bees, idle, at their pace")
            share, check = fleet.idle_traffic(seconds)
            say(f"{n} bees, busy")
            fleet.work()
            said = ("held_elsewhere", "beat", "overtaken", "rescue")
            busy = {kind: fleet.cost(getattr(Desk, kind), seconds) for kind in said}
            fleet.queue(int(4000 * seconds))
            busy["job"] = fleet.cost(Desk.job, seconds)
            found["costs"][n] = {"idle": _plain(idle), "busy": _plain(busy)}
        found["check"] = {"got_through": share} | check._asdict()
        bars = looks.measure(running, *looked_at, say) + crowds.measure(running, looked_at[0], say)
        bars += growth.measure(running, looked_at[0], say)
        for times in (2, 10):
            bars += millions.measure(running, times * looked_at[0], say)
        found["looks"] = [bar._asdict() for bar in bars]
        found["needs"] = {_name(job): _needs(busy if job else idle, bees, job) for job in _JOBS}
    return found


def _plain(costs: dict[str, Cost]) -> dict[str, Any]:
    return {kind: cost._asdict() for kind, cost in costs.items()}


def _name(job: float | None) -> str:
    return "idle" if job is None else f"jobs of {job:g} s"


def _needs(costs: dict[str, Cost], bees: int, job: float | None) -> dict[str, float]:
    """Of one server, for so many bees: statements, CPU cores, and WAL a second."""
    rates = {kind: rate * bees for kind, rate in _per_second(job, bees).items()}
    return {
        "statements_per_s": sum(rates.values()),
        "cores": sum(rate * costs[kind].cpu_s for kind, rate in rates.items()),
        "wal_mb_per_s": sum(rate * costs[kind].wal_bytes for kind, rate in rates.items()) / 2**20,
    }


def show(found: dict[str, Any], console: Console) -> None:
    """The tables."""
    table = Table("bees", "", "statement", "per s", "CPU, µs", "WAL, B", title="One statement")
    for n, costs in found["costs"].items():
        for state, kinds in costs.items():
            for kind, cost in kinds.items():
                row = (cost["per_s"], 1e6 * cost["cpu_s"], cost["wal_bytes"])
                table.add_row(f"{n:,}", state, kind, *map(report.number, row))
    console.print(table)
    table = Table("", "statements/s", "cores", "WAL, MB/s", title=f"{found['bees']:,} bees")
    for job, needs in found["needs"].items():
        table.add_row(job, *map(report.number, needs.values()))
    console.print(table)
    check = found["check"]
    per_s = check["per_s"]
    console.print(
        f"idle bees at their pace: {check['got_through']:.0%} got through, {per_s:,.0f} statements/s, "
        f"{per_s * check['cpu_s']:.2f} cores, {per_s * check['wal_bytes'] / 2**20:.2f} MB of WAL a second"
    )
    for bar in found["looks"]:
        console.print(report.verdict(Bar(**bar)))


@click.command()
@click.option("--bees", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--connections", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True, help="For each statement.")
@click.option("--jobs", type=click.IntRange(10), default=1_000_000, show_default=True, help="To look at.")
@click.option("--jobsets", type=click.IntRange(1), default=11_000, show_default=True, help="To look at.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Where to store everything.")
def main(bees: int, connections: int, seconds: float, jobs: int, jobsets: int, json_file: Path | None) -> None:
    """What many bees cost one PostgreSQL."""
    console = Console(width=120)
    with console.status("…") as status:
        found = measure(bees, connections, seconds, (jobs, jobsets), status.update)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n")
    show(found, console)


if __name__ == "__main__":
    main()
