"""What anybody may have written into the tables ends at most the job or the jobset that it stands in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from math import inf
from uuid import UUID, uuid4

import click.testing
import pytest
from psycopg2 import sql
from psycopg2.extensions import make_dsn

from tests import jobs
from tests.bees import Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.cli import main
from workerbee.dashboard.shown import ago
from workerbee.errors import SignatureError


@pytest.fixture
def client(lax: Database) -> Iterator[Callable[..., WorkerbeeExecutor]]:
    """Makes clients of new jobsets, numbered from 1."""
    made: list[WorkerbeeExecutor] = []

    def new(jobset_id: str) -> WorkerbeeExecutor:
        made.append(WorkerbeeExecutor(0, jobset_id=jobset_id, dsn=lax.dsn))
        return made[-1]

    yield new
    for executor in made:
        executor.shutdown(wait=False)


@pytest.fixture
def executor(client: Callable[..., WorkerbeeExecutor]) -> WorkerbeeExecutor:
    return client("rows")


def change(database: Database, update: str, number: int = 1) -> None:
    """Write into this jobset's tables, as anybody may who has the right to."""
    tables = {name: sql.Identifier("workerbee", f"{name}${number}") for name in ("job", "outcome", "function", "part")}
    shared = {name: sql.Identifier("workerbee", f"{name}$") for name in ("batch", "jobset")}
    named = {**tables, **shared, "number": sql.Literal(number)}
    database.execute(sql.SQL(update).format(**named))


def parts(**reference: object) -> str:
    """A reference to parts, of which some are wrong."""
    text = json.dumps({"token": str(UUID(int=7)), "n": 1, "codec": "json"} | reference)
    return f"codec = 'parts', input = NULL, payload = convert_to('{text}', 'UTF8')".replace("{", "{{").replace(
        "}", "}}"
    )


JOBS = {
    "neither input nor payload": "input = NULL, payload = NULL",
    "both": "payload = 'x', input = '1'",
    "a number": "input = '1e400'",
    "another codec": "codec = 'error'",
    "no codec": "codec = ''",
    "a codec of other letters": "codec = U&'\\2603' || chr(10)",
    "deep": "input = (repeat('[', 3000) || repeat(']', 3000))::json",
    "parts without a reference": "codec = 'parts', input = NULL, payload = NULL",
    "parts in no JSON": "codec = 'parts', input = NULL, payload = 'x'",
    "parts in a list": "codec = 'parts', input = NULL, payload = '[1]'",
    "parts of nothing": parts(n=10**12),
    "parts without end": parts(n=10**30),
    "parts of no token": parts(token="x"),
    "parts of a number for a token": parts(token=3),
    "parts of no number": parts(n="1"),
    "parts of no codec": parts(n=0, codec=None),
    "parts of parts": parts(n=0, codec="parts"),
    "a long signature": "mac = decode(repeat('00', 100000), 'hex')",
}


def test_a_job_that_makes_no_sense_fails_alone(lax: Database, executor: WorkerbeeExecutor) -> None:
    """With the reason; its neighbours are done, and by the same bee."""
    later = executor.with_options(run_at=4e9)
    bad = {kind: later.submit(jobs.double, {"kind": kind}) for kind in JOBS}
    good = [later.submit(jobs.double, n) for n in range(20)]
    executor.flush()
    for number, update in enumerate(JOBS.values(), 1):
        change(lax, f"UPDATE {{job}} SET {update} WHERE id = {number}")
    # Among the headers some that can't be: of no jobs, of unknown jobs and functions, with odd numbers.
    change(
        lax,
        "UPDATE {batch} SET due_at = NULL;"
        "INSERT INTO {batch} (jobset, function, run, priority, timeout, max_attempts, jobs) VALUES"
        " ({number}, 1, 1, 2147483647, NULL, NULL, '{{}}'), ({number}, 1, 1, 9, 'NaN', -5, '{{NULL}}'),"
        " ({number}, 77, -3, 9, 'Infinity', 0, '{{19, 77777}}')",
    )
    with Bee(lax.dsn) as bee:
        assert [future.result(20) for future in good] == [2 * n for n in range(20)], bee.output
        assert {kind: type(future.exception(20)) for kind, future in bad.items()} == dict.fromkeys(JOBS, SignatureError)
        assert bee.process.poll() is None
        assert "Traceback" not in bee.output


def test_a_jobset_in_which_nothing_works_is_left_alone(lax: Database, client: Callable[..., WorkerbeeExecutor]) -> None:
    """By a bee that serves them all, and says why; one that serves no other ends."""
    closed, fine = client("closed"), client("fine")
    closed.submit(jobs.double, 1)
    closed.flush()
    role = f"bee_{uuid4().hex[:8]}"
    lax.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA workerbee TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA workerbee TO {role};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA workerbee TO {role};"
        f'REVOKE ALL ON workerbee."job$1" FROM {role}'
    )
    dsn = make_dsn(lax.dsn, user=role)
    try:
        with Bee(dsn) as bee, Bee(dsn, "closed") as ends:
            assert fine.submit(jobs.double, 1).result(20) == 2, bee.output
            bee.says("closed is left alone: permission denied", 10)
            assert fine.submit(jobs.double, 2).result(20) == 4
            assert ends.process.wait(20) == 70, ends.output
            assert "closed is left alone: permission denied" in ends.output
    finally:
        lax.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_right_that_is_revoked_meanwhile(
    lax: Database, client: Callable[..., WorkerbeeExecutor], caplog: pytest.LogCaptureFixture
) -> None:
    """A bee leaves that jobset alone and says what it lacks; a client says so and waits, and goes on when it may."""
    role = f"user_{uuid4().hex[:8]}"
    dsn = make_dsn(lax.dsn, user=role)
    one, fine = client("one"), client("fine")
    lax.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA workerbee TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA workerbee TO {role};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA workerbee TO {role}"
    )
    tables = 'workerbee."outcome$1", workerbee."job$2"'
    theirs = WorkerbeeExecutor(0, jobset_id="fine", dsn=dsn)
    try:
        with Bee(dsn) as bee:
            assert [one.submit(jobs.double, 1).result(20), theirs.submit(jobs.double, 1).result(20)] == [2, 2]
            lax.execute(f"REVOKE INSERT ON {tables} FROM {role}")
            left = one.submit(jobs.double, 2)
            bee.says(r'one is left alone: .*; this user lacks INSERT on workerbee."outcome\$1"\n')
            assert fine.submit(jobs.double, 2).result(20) == 4
            future = theirs.submit(jobs.double, 3)
            eventually(lambda: "permission denied for table job$2; trying again" in caplog.text)
            lax.execute(f"GRANT INSERT ON {tables} TO {role}")
            assert future.result(20) == 6
            assert left.result(20) == 4, bee.output
    finally:
        theirs.shutdown(wait=False)
        lax.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'; "
            f"DROP OWNED BY {role}; DROP ROLE {role}"
        )


def test_bees_and_counters_that_make_no_sense_stop_nobody(lax: Database, executor: WorkerbeeExecutor) -> None:
    """Neither a bee that notes the history, nor who looks at it, though sums and times are beyond all that there is."""
    counts = "(jobset, writer, added, completed, failed, reopened, revived)"
    facts = "(incarnation, host, pid, python, runners, version, launch, lease_until, seen_at, started_at, ends_at)"
    theirs = "'h', -1, '', 2147483647, '', 'l', 'infinity'::timestamptz, at, at, at"
    executor.submit(jobs.double, 1)
    executor.flush()
    lax.execute(
        f'INSERT INTO workerbee."counter$" {counts} SELECT 1, md5(n::text)::uuid, x, x, x, x, -x'
        "  FROM generate_series(1, 2) n, (VALUES (9223372036854775807)) v (x);"
        f'INSERT INTO workerbee."bee$" {facts} SELECT md5(at::text || n)::uuid, {theirs}'
        "  FROM generate_series(1, 2) n, (VALUES ('infinity'::timestamptz), ('-infinity'), ('294000-1-1')) v (at);"
        'INSERT INTO workerbee."tail$" (jobset, job, asked_by, asked_until, pushed_at)'
        " VALUES (1, 1, '', now(), now());"
        "UPDATE workerbee.\"jobset$\" SET created_at = '-infinity'"
    )
    with Bee(lax.dsn, "rows", "--busywait") as bee:
        assert executor.submit(jobs.double, 2).result(20) == 4, bee.output
        eventually(lambda: lax.execute('SELECT FROM workerbee."history$"'), what="a note of the history")
        bee.terminate()
        assert bee.wait() == 0, bee.output
    assert executor.events().added > 0
    assert executor.progress().completed > 0
    for command in ("status", "bees --json", "status rows --json", "report rows -o -", "jobs logs rows 1"):
        result = click.testing.CliRunner().invoke(main, [*command.split(), "--dsn", lax.dsn], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert ago(inf).endswith(" ago")


def test_outcomes_that_make_no_sense_stop_nobody(lax: Database, executor: WorkerbeeExecutor) -> None:
    """Neither who looks for stragglers, nor who waits for these."""
    held = executor.submit(jobs.gated, os.devnull, 1, "/nowhere")
    futures = [executor.submit(jobs.double, n) for n in range(5)]
    executor.flush()
    change(
        lax,
        "INSERT INTO {outcome} (job, run, status, codec, output, duration) VALUES"
        " (2, 1, 'failed', NULL, NULL, 'NaN'), (3, 1, 'failed', 'error', '[1]', 'Infinity'),"
        " (4, 1, 'completed', NULL, NULL, -1), (5, 1, 'completed', 'parts', NULL, 3e38),"
        " (6, 1, 'cancelled', 'x', '1', 0),"
        " (901, 1, 'completed', 'json', '1', 'NaN'), (902, 1, 'completed', 'json', '1', 'Infinity'),"
        " (903, 1, 'completed', 'json', '1', 3e38);"
        "INSERT INTO {job} (id, function, codec) SELECT i, 1, '' FROM generate_series(904, 914) i;"
        "INSERT INTO {outcome} (job, run, status, duration)"
        " SELECT i, 1, 'completed', 0.01 FROM generate_series(904, 914) i;"
        "INSERT INTO {job} (id, function, codec) VALUES (901, 1, ''), (902, 1, ''), (903, 1, '')",
    )
    ends = [future.exception(20) if not future.cancelled() else None for future in futures if wait([future], 20)]
    assert [type(end).__name__ for end in ends] == [
        "RemoteError",
        "RemoteError",
        "SignatureError",
        "SignatureError",
        "NoneType",
    ]
    with Bee(lax.dsn) as holder, Bee(lax.dsn) as bee:
        eventually(held.running)
        executor.submit(jobs.double, 9).result(20)  # not later, as both runners are soon at the job that is held
        eventually(
            lambda: lax.execute("UPDATE workerbee.\"batch$\" SET claimed_at = now() - interval '1 hour' RETURNING 1")
        )
        eventually(lambda: lax.execute('SELECT FROM workerbee."batch$" WHERE copy_of IS NOT NULL'), 20, "a copy")
        assert (holder.process.poll(), bee.process.poll()) == (None, None), holder.output + bee.output


def test_what_a_bee_that_never_was_holds_stops_no_jobset(lax: Database, executor: WorkerbeeExecutor) -> None:
    """Headers of no jobs are put back with the others, and others' calls go on."""
    executor.submit(jobs.double, 1)
    executor.flush()
    change(
        lax,
        "INSERT INTO {batch} (jobset, function, run, bee, claim, started, jobs) VALUES"
        " ({number}, 1, 1, gen_random_uuid(), gen_random_uuid(), 1, '{{NULL, NULL}}'),"
        " ({number}, 1, 1, gen_random_uuid(), gen_random_uuid(), 1, '{{1, 77}}'),"
        " ({number}, 1, 1, NULL, gen_random_uuid(), 1, '{{NULL, 1}}')",
    )
    report = click.testing.CliRunner().invoke(main, ["report", "rows", "-o", "-", "--dsn", lax.dsn])
    assert report.exit_code == 0, report.output
    with Bee(lax.dsn, "rows", "--busywait") as bee:
        eventually(lambda: not lax.execute('SELECT FROM workerbee."batch$" WHERE jobs[1] IS NULL'), 20, "a rescue")
        assert executor.submit(jobs.double, 2).result(20) == 4, bee.output
        assert "left alone" not in bee.output


def test_long_words_are_said_in_short(lax: Database, executor: WorkerbeeExecutor) -> None:
    """Who paused a jobset, and why; and what can't steer a terminal, neither from there nor from a function's name."""
    executor.submit(jobs.double, 1)
    executor.flush()
    long = "repeat(E'\\x1b[31m\\n0123456789', 20000)"
    change(lax, f"UPDATE {{jobset}} SET paused_at = now(), paused_by = {long}, paused_why = {long}")
    said = click.testing.CliRunner().invoke(main, ["status", "rows", "--dsn", lax.dsn]).output
    assert "0123456789" in said
    assert len(said) < 2000
    with Bee(lax.dsn, "rows") as bee:
        bee.says("waiting until it is resumed")
        change(lax, f"UPDATE {{function}} SET name = {long}; UPDATE {{jobset}} SET paused_at = NULL")
        bee.wait()
        bee.says("what remains in rows is not for this bee: the jobs of .*0123456789")
        assert len(bee.output) < 4000
        assert "\x1b" not in bee.output


@pytest.mark.parametrize("header", ["started = 5", "started = -2147483648", "copy_of = 7", "bee = gen_random_uuid()"])
def test_what_waits_is_cancelled_whatever_else_its_header_says(
    lax: Database, executor: WorkerbeeExecutor, header: str
) -> None:
    """So nobody waits for it at the end."""
    future = executor.submit(jobs.double, 1)
    executor.flush()
    change(lax, f"UPDATE {{batch}} SET {header}")
    assert future.cancel()
    assert lax.execute('SELECT FROM workerbee."batch$"') == []


def test_a_retry_passes_over_runs_that_can_not_be(lax: Database, executor: WorkerbeeExecutor) -> None:
    """And runs what has failed."""
    futures = [executor.submit(divmod, n, 0) for n in range(5)]
    with Bee(lax.dsn, "rows", "--busywait") as bee:
        assert {type(future.exception(20)) for future in futures} == {ZeroDivisionError}, bee.output
        change(
            lax,
            "INSERT INTO {outcome} (job, run, status) VALUES"
            " (1, 0, 'failed'), (2, -1, 'cancelled'), (3, 2147483647, 'failed'), (4, -2147483648, 'failed')",
        )
        again = executor.retry()
        assert {type(future.exception(20)) for future in again} == {ZeroDivisionError}, bee.output
        assert len(again) >= 4


OUTCOMES = {
    "another value": "output = '99'",
    "nothing": "output = NULL",
    "deep": "output = (repeat('[', 3000) || repeat(']', 3000))::json",
    "a long number": "output = repeat('9', 6000)::json",
    "another job's signature": "mac = (SELECT mac FROM {outcome} WHERE job = 1)",
    "no such signature": "mac = 'x'",
    "a long signature": "mac = decode(repeat('00', 100000), 'hex')",
    "a pickle": "codec = 'pickle', output = NULL, payload = 'x'",
    "no codec": "codec = NULL",
    "failed": "status = 'failed'",
    "cancelled": "status = 'cancelled'",
    "parts of nothing": parts(n=10**12).replace("input", "output"),
}


def test_results_of_rows_that_make_no_sense_are_errors(lax: Database, client: Callable[..., WorkerbeeExecutor]) -> None:
    """Each by itself: what stands around it in a page is what it was, and so is the order."""
    executor, n = client("read"), 60
    executor.map(jobs.double, range(n))
    executor.flush()
    with Bee(lax.dsn, "read") as bee:
        assert bee.process.wait(30) == 0, bee.output
    whole = list(executor.results())
    assert whole == [
        {"job_id": i + 1, "status": "completed", "args": [i], "kwargs": {}, "result": 2 * i} for i in range(n)
    ]
    for number, update in enumerate(JOBS.values(), 2):
        change(lax, f"UPDATE {{job}} SET {update} WHERE id = {number}")
    rows = list(executor.results())
    assert [(row["job_id"], row["result"]) for row in rows] == [(i + 1, 2 * i) for i in range(n)]
    assert rows[len(JOBS) + 1 :] == whole[len(JOBS) + 1 :]
    first = n - len(OUTCOMES) + 1
    for number, update in enumerate(OUTCOMES.values(), first):
        change(lax, f"UPDATE {{outcome}} SET {update} WHERE job = {number}")
    assert list(executor.results())[: first - 1] == rows[: first - 1]
    ends = {row["job_id"]: row for row in executor.results(on_error="return")}
    for number, kind in enumerate(OUTCOMES, first):
        assert ("error" in ends[number], "result" in ends[number]) == (True, False), kind
    change(lax, "UPDATE {outcome} SET mac = NULL WHERE job < 10")
    assert list(executor.results())[: first - 1] == rows[: first - 1]  # what is plain JSON needs no signature
