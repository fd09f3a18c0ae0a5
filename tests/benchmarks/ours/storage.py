"""What the database's state does to our rate, and what our jobs do to the database."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql

from tests.benchmarks import timing
from tests.benchmarks.jobs import filled, noop
from tests.benchmarks.ours.executor import executor, fresh
from tests.benchmarks.timing import Figures, Place

# A job and its outcome, copied: as many finished jobs as are wanted, with other ids and digests.
_FILL = """
INSERT INTO {job} SELECT copy.* FROM {job} one CROSS JOIN generate_series(1, {n}) i CROSS JOIN LATERAL
    jsonb_populate_record(one, jsonb_build_object(
        'id', one.id + i, 'digest', substr(sha256(i::text::bytea), 1, octet_length(one.digest)))) copy;
INSERT INTO {outcome} SELECT copy.* FROM {outcome} one CROSS JOIN generate_series(1, {n}) i CROSS JOIN LATERAL
    jsonb_populate_record(one, jsonb_build_object('job', one.job + i)) copy;
UPDATE workerbee."jobset$" SET next_id = next_id + {n} WHERE number = {number};
UPDATE workerbee."counter$" SET added = added + {n} WHERE jobset = {number} AND added > 0;
UPDATE workerbee."counter$" SET completed = completed + {n} WHERE jobset = {number} AND completed > 0;
"""


def fill(place: Place) -> Figures:
    """A jobset ``full`` of a hundred times as many finished jobs as will be measured."""
    with executor(place, "full") as ours:
        ours.submit(noop, {"i": -1}).result()
    n = 100 * place.n
    with database(place) as cursor:
        cursor.execute("""SELECT number FROM workerbee."jobset$" WHERE id = 'full'""")
        [number] = cursor.fetchone()
        tables = {t: sql.Identifier("workerbee", f"{t}${number}") for t in ("job", "outcome")}
        cursor.execute(sql.SQL(_FILL).format(**tables, n=sql.Literal(n), number=sql.Literal(number)))
        for table in tables.values():  # else autovacuum would do it while we measure
            cursor.execute(sql.SQL("VACUUM ANALYZE {}").format(table))
    return {"finished": n}


def copied(place: Place) -> Figures:
    """MB/s of as many arrays into a table by COPY in its binary format, one transaction each."""
    array = filled(1.0).tobytes()
    part = len(array) // 32
    rows = [struct.pack("!hi", 1, part) + array[at : at + part] for at in range(0, len(array), part)]
    stream = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0) + b"".join(rows) + struct.pack("!h", -1)
    with database(place) as cursor:
        cursor.execute("CREATE TABLE copied (data bytea); ALTER TABLE copied ALTER data SET STORAGE EXTERNAL")
        began = time.perf_counter()
        for _ in range(place.n):
            cursor.copy_expert("COPY copied FROM STDIN (FORMAT binary)", io.BytesIO(stream), 1 << 18)
        return {"mb_per_s": place.n * len(array) / 1e6 / (time.perf_counter() - began)}


def into(place: Place, jobset_id: str | None = None, *, warm: int = 0) -> Figures:
    """The rate into this jobset, or into a new one, after ``warm`` times as many jobs as are measured.

    In a copy of a database no page is in memory. A jobset that really did so many jobs has its index there.
    """
    with executor(place, jobset_id or fresh()) as ours:
        return timing.rate(ours.submit, place.n, max(timing.WARM, warm * place.n))


def beside_snapshot(place: Place, begin: str | None = None) -> Figures:
    """The rate while another session keeps the snapshot that ``begin`` takes."""
    with closing(psycopg2.connect(place.dsn)) as other, other.cursor() as cursor:
        if begin is not None:
            other.set_session(isolation_level="REPEATABLE READ")
            cursor.execute(begin)
        return into(place)


def wal(place: Place, *, temporary: bool) -> Figures:
    """Bytes of WAL and dead rows a job, while jobs come as fast as they can; full-page images are off."""
    with database(place) as cursor, _without_page_images(cursor):
        with executor(place, None if temporary else fresh()) as ours:
            timing.rate(ours.submit, 10)
            dead = _dead(cursor)
            began = position(cursor)
            for future in [ours.submit(noop, {"i": i}) for i in range(place.n)]:
                future.result()
            written = position(cursor) - began
        # Only now have the sessions told what they did; the tables that a temporary jobset took along never change.
        return {"wal_bytes": written / place.n, "dead_rows": (_dead(cursor) - dead) / place.n}


@contextmanager
def database(place: Place) -> Iterator[Any]:
    """A cursor in autocommit mode."""
    with closing(psycopg2.connect(place.dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


@contextmanager
def _without_page_images(cursor: Any) -> Iterator[None]:
    cursor.execute("ALTER SYSTEM SET full_page_writes = off")
    cursor.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        cursor.execute("ALTER SYSTEM RESET full_page_writes")
        cursor.execute("SELECT pg_reload_conf()")


def position(cursor: Any) -> int:
    cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    return int(cursor.fetchone()[0])


def _dead(cursor: Any) -> int:
    cursor.execute("SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'workerbee'")
    return int(cursor.fetchone()[0])
