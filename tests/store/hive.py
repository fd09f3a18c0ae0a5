"""One jobset with a client and bees, driven verb by verb: what the tests of the store are written in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

from psycopg2 import sql

from tests.waiting import eventually
from workerbee.store import BeeFacts, BeeStore, Catalogue, ClientStore, Connection, Limits, Scope, queries
from workerbee.wire.causes import cause_of_record
from workerbee.wire.job import Batch, EndKind, Jobset, NewJob, Options, Outcome

ANY = Scope()
#: The limits of a job that fails for good at once.
ONCE = Limits(1, 0.0, 0.0)
#: What a test's bees take for a lease when they judge others: the server must have run for two of them.
LEASE = 0.02
TABLES = ("jobset", "batch", "bee", "counter", "version", "departed", "service", "history", "tail")
SHARED = {name: sql.Identifier("workerbee", f"{name}$") for name in TABLES}


class Puppet(BeeStore):
    """A bee without a supervisor: a test says what it does, its heartbeats too, and it may judge others at once."""

    def __init__(self, hive: Hive, host: str, connection: Connection) -> None:
        self.incarnation = uuid4()
        self.host = host
        self.hive = hive
        super().__init__(connection, hive.jobset, self.incarnation, host)
        self.beat()
        hive.run(
            "UPDATE {bee} SET served_since = now() - interval '1 hour' WHERE incarnation = %(bee)s",
            bee=str(self.incarnation),
        )

    def beat(self, *, lease: float = 60.0) -> bool:
        """A heartbeat; whether others have taken this bee for dead meanwhile."""
        facts = BeeFacts(self.incarnation, self.jobset.number, self.host, 1, "3.11", 1)
        return Catalogue(self.connection).beat(facts, lease=lease, resting=False).given_up

    def lapse(self) -> None:
        """Be silent until the lease is over."""
        self.hive.run(
            "UPDATE {bee} SET lease_until = now() - interval '1 second', seen_at = now() - interval '3 seconds'"
            " WHERE incarnation = %(bee)s",
            bee=str(self.incarnation),
        )

    def take(self, n: int = 1, start: int | None = None, scope: Scope = ANY) -> Batch:
        """Claim from one header; all of it is started unless ``start`` says less."""
        [batch] = self.claim(n, n if start is None else start, scope)
        return batch

    def succeed(self, batch: Batch, *jobs: int, close: bool = True) -> None:
        """Record successes of these jobs (else of all), and close the batch."""
        ids = jobs or tuple(ids_of(batch))
        self.complete([success(j, batch.run) for j in ids], [batch] if close else [], hint=None)

    def miss(self, batch: Batch, job: int | None = None, *, kind: str = "failed", attempts: int = 3) -> str:
        """Record a failed attempt, without a pause before the next; the verdict."""
        outcome = failure(batch.jobs[0].id if job is None else job, batch.run, kind)
        return self.fail(batch, outcome, Limits(attempts, 0.0, 0.0), '{"type": "E"}')

    def save(self) -> list[str]:
        """Put back the work of bees that are gone."""
        return self.rescue(LEASE)


class Hive:
    """A new jobset, over a connection to a database that has the schema."""

    def __init__(self, connection: Connection, jobset_id: str | None = None, *, client: UUID | None = None) -> None:
        self.connection = connection
        self.catalogue = Catalogue(connection)
        name = None if client else jobset_id or f"t{uuid4().hex[:12]}"
        created = self.catalogue.create_jobset(name, key=None, speculate=True, client=client)
        assert created is not None
        self.jobset: Jobset = created
        self.client = ClientStore(connection, created, uuid4())
        self.names = SHARED | queries.identifiers(created.number, created.id, created.uuid)

    def run(self, query: str, **params: object) -> list[tuple[Any, ...]]:
        """One query, in which ``{batch}``, ``{outcome}``, ``{number}`` … are the shared tables and this jobset's."""
        return self.connection.run(sql.SQL(query).format(**self.names), params)

    def bee(self, host: str = "a", connection: Connection | None = None) -> Puppet:
        """A new incarnation."""
        return Puppet(self, host, connection or self.connection)

    def add(self, n: int = 1, **options: Any) -> list[int]:
        """Add ``n`` new jobs in one batch; their ids."""
        first = self.catalogue.reserve_jobs(self.jobset, n)
        assert first is not None
        ids = list(range(first, first + n))
        assert self.client.add([new_job(i, **options) for i in ids]) == set(ids)
        return ids

    # What is so

    def status(self, job: int) -> str:
        """As a person reads it."""
        [(status,)] = self.run("SELECT status FROM {view} WHERE id = %(job)s", job=job)
        return str(status)

    def outcome(self, job: int, run: int = 1) -> str | None:
        rows = self.run("SELECT status FROM {outcome} WHERE job = %(job)s AND run = %(run)s", job=job, run=run)
        return rows[0][0] if rows else None

    def attempts(self, job: int) -> list[str]:
        """The kinds of the recorded attempts, in order."""
        return [kind for (kind,) in self.run("SELECT kind FROM {attempt} WHERE job = %(job)s ORDER BY at", job=job)]

    def waiting(self) -> list[list[int]]:
        """The batches that can be claimed, now or later, in their order."""
        query = "SELECT jobs FROM {batch} WHERE jobset = {number} AND claim IS NULL ORDER BY priority DESC, place, id"
        return [jobs for (jobs,) in self.run(query)]

    def held(self) -> list[tuple[str, list[int], int]]:
        """(bee, jobs, started) of the claimed batches."""
        query = "SELECT bee::text, jobs, started FROM {batch} WHERE jobset = {number} AND claim IS NOT NULL ORDER BY id"
        return [(bee, jobs, started) for bee, jobs, started in self.run(query)]

    def age(self, batch: Batch, seconds: float) -> None:
        """Let this batch have been claimed, and its mark moved, so much earlier."""
        self.run(
            "UPDATE {batch} SET claimed_at = claimed_at - make_interval(secs => %(s)s),"
            " marked_at = marked_at - make_interval(secs => %(s)s) WHERE id = %(batch)s",
            s=seconds,
            batch=batch.id,
        )

    def make_due(self) -> None:
        """Let every pause be over."""
        self.run("UPDATE {batch} SET due_at = now() - interval '1 ms' WHERE jobset = {number} AND due_at IS NOT NULL")


def ids_of(batch: Batch) -> list[int]:
    return [job.id for job in batch.jobs]


def runs_of(batch: Batch) -> list[tuple[int, int]]:
    return [(job.id, job.run) for job in batch.jobs]


def new_job(number: int, function: int = 0, digest: bytes | None = None, key: bytes | None = None, **o: Any) -> NewJob:
    """A job without a digest is never taken for another one."""
    return NewJob(number, function, Options(**o), "json", b'{"n": %d}' % number, None, digest, key)


def success(job: int, run: int = 1, duration: float = 0.01) -> Outcome:
    return Outcome(job, run, EndKind.COMPLETED, "json", b'{"done": %d}' % job, None, duration)


def failure(job: int, run: int = 1, kind: str = "failed") -> Outcome:
    return Outcome(job, run, EndKind(kind), EndKind.ERROR, b'{"type": "E"}', None, 0.01)


def until_waiting(action: Callable[[], object], other: Connection, *, what: str, then: Connection) -> None:
    """Run ``action`` in a thread until it waits for a lock, as ``other`` sees; then commit what ``then`` is at."""
    thread = threading.Thread(target=action)
    thread.start()
    until_blocked(1, other, what=what)
    then.run("COMMIT")
    thread.join(30)
    assert not thread.is_alive(), f"{what}: it never ended"


def until_blocked(n: int, other: Connection, *, what: str = "statements that wait for locks") -> None:
    """Wait until ``n`` sessions wait for locks, as ``other`` sees."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    eventually(lambda: len(other.run(waiting)) >= n, what=what)


def fail_for_good(bee: Puppet, job: int, message: str = "no luck") -> None:
    """Claim this job, which must be the front of what waits, and have it fail at once."""
    batch = bee.take()
    assert batch.jobs[0].id == job
    record = f'{{"type": "ValueError", "message": "{message}", "traceback": "  File a.py, line 1", "pickle": "x"}}'
    outcome = Outcome(job, batch.run, EndKind.ERROR, "error", record.encode(), None, 0.25)
    cause = cause_of_record(record).digest
    assert bee.fail(batch, outcome, ONCE, '{"type": "ValueError"}', cause) == "failed"


def make_study(connection: Connection, name: str, host: str, n: int) -> Hive:
    """Make a jobset of ``n`` jobs that took a minute, two that failed for one cause, one that runs, one that waits."""
    hive = Hive(connection, name)
    bee = hive.bee(host)
    for job in hive.add(n):
        bee.complete([success(job, duration=60.0)], [bee.take()], hint=None)
    for job in hive.add(2):
        fail_for_good(bee, job, f"unlucky {job}")
    hive.add()
    bee.take()
    hive.add()
    return hive
