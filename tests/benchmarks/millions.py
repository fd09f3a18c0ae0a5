"""What it takes to look at ten million jobs: each command's part of the server, and a second of ``workerbee top``.

``python -m tests.benchmarks.millions`` fills a server of its own (a minute or two) and says it; ``--keep`` leaves the
server there, to look at by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import click
from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.looks import typical
from tests.benchmarks.results import Bar, at_most
from tests.servers import Database, Server, server
from workerbee.cli.top.looking import Look
from workerbee.reading import Reader, Wanted, opened
from workerbee.standing import status_of
from workerbee.store import Catalogue, Connection, schema

#: Milliseconds that a look may take, up to so many jobs and beyond.
QUICK_MS, QUICK_JOBS, MOST_MS = 100, 2_000_000, 300
#: Of all jobs half have ended, and of those one in so many failed, for one of so many causes.
FAILED, CAUSES = 51, 20

_FILL = """
UPDATE workerbee."jobset$" SET created_at = now() - interval '1 day' WHERE number = {0};
INSERT INTO workerbee."function${0}" (digest, identity, name, codec, body, python, mac)
VALUES ('d', 'i', 'study:simulate', 'import', 'b', '3.12', 'm');
INSERT INTO workerbee."job${0}" (id, digest, function, codec, input)
SELECT n, int8send(n), 1, 'json', ('{{"temperature":' || n || '}}')::json FROM generate_series(1, {1}) n;
INSERT INTO workerbee."outcome${0}" (job, completed_at, run, status, duration, bee, codec, output, cause)
SELECT n, now() - interval '1 day' + n * (interval '1 day' / {2}), 1,
       (CASE WHEN n % {3} = 0 THEN 'failed' ELSE 'completed' END)::workerbee."status$", random() * random() * 10,
       md5((n % 8)::text)::uuid, CASE WHEN n % {3} = 0 THEN 'error' ELSE 'json' END,
       CASE WHEN n % {3} = 0
            THEN ('{{"type":"ValueError","message":"no luck with ' || n || ' of kind ' || chr((97 + n % {4})::integer)
                  || '","traceback":"  File \\"study.py\\", line ' || n % {4} || ', in simulate\\n"}}')::json
            ELSE ('{{"energy":' || n || '}}')::json END,
       CASE WHEN n % {3} = 0 THEN int8send(n % {4}) END
  FROM generate_series(1, {2}) n;
INSERT INTO workerbee."batch$" (jobset, function, run, jobs)
SELECT {0}, 1, 1, ARRAY(SELECT generate_series(n, LEAST(n + 499, {1}))) FROM generate_series({2} + 1, {1}, 500) n;
UPDATE workerbee."batch$" SET claim = md5(id::text)::uuid, bee = md5((id % 8)::text)::uuid, claimed_at = now(),
       started = 8 WHERE id IN (SELECT id FROM workerbee."batch$" WHERE jobset = {0} ORDER BY id LIMIT 8);
INSERT INTO workerbee."bee$" (incarnation, jobset, host, pid, python, runners, lease_until, version)
SELECT md5(n::text)::uuid, {0}, 'node-' || n, n, '3.12', 8, now() + interval '1 day', '1' FROM generate_series(0, 7) n;
INSERT INTO workerbee."service$" (jobset, bee, host)
SELECT {0}, md5(n::text)::uuid, 'node-' || n FROM generate_series(0, 7) n;
INSERT INTO workerbee."counter$" (jobset, writer, added, completed, failed)
SELECT {0}, md5('w' || n)::uuid, {1} / 9, ({2} - {2} / {3}) / 9, {2} / {3} / 9 FROM generate_series(1, 9) n;
INSERT INTO workerbee."history$" (jobset, minute, added, reopened, completed, failed, cancelled, retried, lost,
                                  speculative, late, bees, runners)
SELECT {0}, date_trunc('minute', now()) - interval '1 day' + n * interval '1 minute', {1}, 0,
       ({2} - {2} / {3})::bigint * n / 1440, ({2} / {3})::bigint * n / 1440, 0, 0, 0, 0, 0, 8, 64
  FROM generate_series(0, 1439) n;
"""


def large_server() -> AbstractContextManager[Server]:
    """A server that is soon filled with millions of jobs."""
    return server(fsync=False, strict=False, shared_buffers="512MB", autovacuum="off", max_wal_size="4GB")


@contextmanager
def filled(running: Server, jobs: int) -> Iterator[Database]:
    """A database with the jobset ``millions``: half of so many jobs have ended."""
    database = running.new_database()
    with closing(Connection(database.dsn)) as connection:
        schema.ensure(connection)
        jobset = Catalogue(connection).create_jobset("millions", key=None, speculate=True)
    assert jobset is not None
    ended = jobs // 2 // FAILED * FAILED + FAILED * (jobs // 2 % FAILED > 0)
    database.execute(_FILL.format(jobset.number, jobs, ended, FAILED, CAUSES))
    database.execute("VACUUM ANALYZE")
    yield database
    database.drop()


def measure(running: Server, jobs: int, say: Callable[[str], None]) -> list[Bar]:
    """The bars: what a command takes once it is connected, and the share of a second that ``top`` takes."""
    say(f"looking at {jobs:,} jobs")
    most = QUICK_MS if jobs <= QUICK_JOBS else MOST_MS
    with filled(running, jobs) as database, opened(database.dsn) as reader:
        bars = [at_most(f"{name} of {jobs:,} jobs", 1e3 * look(action), most, " ms") for name, action in asked(reader)]
        look_again = Look(reader, "millions")
        look_again.refreshed()
        return [*bars, at_most(f"a second of top with {jobs:,} jobs", 1e3 * look(look_again.refreshed), 20, " ms")]


def asked(reader: Reader) -> Iterator[tuple[str, Callable[[], object]]]:
    """What the commands ask for, by their names."""
    [row] = reader.jobsets(1, jobset_id="millions")
    jobset = reader.of(row.jobset)
    waits = Wanted(("waiting",))
    yield "status", reader.jobsets
    yield "status JOBSET", lambda: (status_of(reader.connection, row.jobset), jobset.causes(5))
    yield "jobs list", lambda: jobset.jobs(0, 50)
    yield "jobs list, the last page", lambda: jobset.jobs(row.counts.added - 60, 50)
    for status in ("waiting", "running", "failed", "cancelled", "retrying"):
        yield f"jobs list --status {status}", lambda status=status: jobset.jobs(0, 50, Wanted((status,)))
    yield "jobs list --status waiting, further on", lambda: jobset.jobs(row.counts.added - 1000, 50, waits)
    yield "jobs list --function", lambda: jobset.jobs(0, 50, Wanted(function="study:simulate"))
    yield "jobs list --function, of none", lambda: jobset.jobs(0, 50, Wanted(function="study:other"))
    yield "jobs list --host", lambda: jobset.jobs(0, 50, Wanted(host="node-3"))
    yield "jobs show", lambda: (jobset.jobs_of([FAILED]), jobset.life(FAILED))
    yield "failures", jobset.causes
    yield "bees", lambda: reader.bees(row.jobset)


def look(action: Callable[[], object]) -> float:
    """The seconds of a typical look, of which the first one, which reads from disk, is none."""
    action()
    return typical(action)


@click.command()
@click.option("--jobs", type=click.IntRange(1000), default=10_000_000, show_default=True)
@click.option("--keep", is_flag=True, help="Say where the server is, and wait for enter before it goes.")
def main(jobs: int, *, keep: bool) -> None:
    """What it takes to look at many jobs."""
    console = Console(width=120)
    with large_server() as running:
        for bar in measure(running, jobs, console.print):
            console.print(report.verdict(bar))
        if keep:
            with filled(running, jobs) as database:
                click.prompt(database.dsn, default="", show_default=False)


if __name__ == "__main__":
    main()
