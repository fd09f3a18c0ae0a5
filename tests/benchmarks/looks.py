"""What it takes to look at much: at results, at the view beside what waits, and at what bees are offered."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from statistics import median

import psycopg2

from tests.benchmarks.results import Bar, at_least, at_most
from tests.servers import Database, Server
from workerbee.reading import Chosen, Reading
from workerbee.store import Catalogue, Connection, schema
from workerbee.wire.job import Jobset
from workerbee.wire.signing import Key, Signer

#: Jobs in one COPY, and looks of which the median counts.
PORTION, LOOKS = 100_000, 9

_WAITING = """
INSERT INTO workerbee."job${0}" (id, digest, codec, input)
SELECT n, int8send(n), 'json', '{{"x": 1}}' FROM generate_series(1, {1}) n;
INSERT INTO workerbee."batch$" (jobset, function, run, jobs)
SELECT {0}, 0, 1, ARRAY(SELECT generate_series(n, LEAST(n + 199, {1}))) FROM generate_series(1, {1}, 200) n;
"""
_JOBSETS = """
INSERT INTO workerbee."jobset$" (id, uuid, speculate)
SELECT 'other_' || n, md5(n::text)::uuid, true FROM generate_series(1, {0}) n;
INSERT INTO workerbee."batch$" (jobset, function, run, jobs)
SELECT number, 0, 1, '{{1}}' FROM workerbee."jobset$" WHERE id LIKE 'other_%';
"""


def measure(running: Server, jobs: int, jobsets: int, say: Callable[[str], None]) -> list[Bar]:
    """The bars, with so many jobs to look at, and among so many jobsets."""
    say(f"results of {jobs:,} jobs")
    with _place(running) as (database, connection, jobset):
        rate = _results(database, connection, jobset, jobs)
    say(f"the view of {jobs:,} waiting jobs")
    with _place(running) as (database, connection, jobset):
        view = _view(database, jobset, jobs)
        say(f"offers of {jobsets:,} jobsets")
        offers = _offers(database, connection, jobsets)
    return [
        at_least(f"results() of {jobs:,} jobs", rate, 150_000, " rows/s"),
        at_most(f"the view, LIMIT 10, {jobs:,} waiting", 1e3 * view, 50, " ms"),
        at_most(f"a look at what is offered by {jobsets:,} jobsets", 1e3 * offers, 5, " ms"),
    ]


@contextmanager
def _place(running: Server) -> Iterator[tuple[Database, Connection, Jobset]]:
    """A new database with one jobset."""
    database = running.new_database()
    with closing(Connection(database.dsn)) as connection:
        schema.ensure(connection)
        jobset = Catalogue(connection).create_jobset("looks", key=None, speculate=True)
        assert jobset is not None
        yield database, connection, jobset
    database.drop()


def _results(database: Database, connection: Connection, jobset: Jobset, n: int) -> float:
    """Rows a second of `results`, over jobs whose input and output are small and signed."""
    signer = Signer(Key(b"k" * 32), jobset.uuid)
    with closing(psycopg2.connect(database.dsn)) as ours, ours, ours.cursor() as cursor:
        for start in range(1, n + 1, PORTION):
            ids = range(start, min(n + 1, start + PORTION))
            jobs = "".join(f'{i}\tjson\t{{"x":{i}}}\n' for i in ids)
            cursor.copy_expert(f'COPY workerbee."job${jobset.number}" (id, codec, input) FROM STDIN', io.StringIO(jobs))
            signed = ((i, signer.sign_end(i, 1, "json", b"%d" % i, is_value=True).hex()) for i in ids)
            ends = "".join(f"{i}\t1\tcompleted\t0.01\tjson\t{i}\t\\\\x{mac}\n" for i, mac in signed)
            columns = "(job, run, status, duration, codec, output, mac)"
            cursor.copy_expert(f'COPY workerbee."outcome${jobset.number}" {columns} FROM STDIN', io.StringIO(ends))
    database.execute("VACUUM ANALYZE")
    began = time.monotonic()
    read = sum(1 for _ in Reading(connection, jobset, signer).results(Chosen(None, 0, "all")))
    assert read == n
    return n / (time.monotonic() - began)


def _view(database: Database, jobset: Jobset, n: int) -> float:
    """Seconds of psql's ``SELECT * FROM jobset LIMIT 10``."""
    database.execute(_WAITING.format(jobset.number, n))
    database.execute("VACUUM ANALYZE")
    with closing(database.connect()) as psql, psql.cursor() as cursor:
        return typical(lambda: cursor.execute("SELECT * FROM workerbee.looks LIMIT 10"))


def _offers(database: Database, connection: Connection, n: int) -> float:
    """Seconds until a bee that serves all jobsets knows the first ones with work."""
    database.execute(_JOBSETS.format(n))
    database.execute("VACUUM ANALYZE")
    catalogue = Catalogue(connection)
    return typical(lambda: next(catalogue.offers()))


def typical(action: Callable[[], object]) -> float:
    """Seconds that a typical look takes."""
    took = []
    for _ in range(LOOKS):
        began = time.monotonic()
        action()
        took.append(time.monotonic() - began)
    return median(took)
