"""`JobSet` as scripts use it: the caller's own process runs the jobs, beside whoever else does."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from tests import jobs, servers
from tests.bees import PROJECT
from tests.faultproxy import FaultProxy
from tests.servers import Database, Server
from tests.waiting import eventually
from workerbee import JobFailedError, JobSet, UniqueInputDataConstraintError, WorkerbeeExecutor, catch_all_exceptions
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    InputDataError,
    JobsetExistsError,
    JobsetIdError,
    JobsetNotFoundError,
    UnsupportedDatabaseError,
)
from workerbee.store import schema

NewJobSet = Callable[..., JobSet]
OTHER_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@pytest.fixture
def new(database: Database) -> Iterator[NewJobSet]:
    """Makes JobSets of one database, set up unless ``setup=False``."""
    made = []

    def make(jobset_id: str = "work", *, setup: bool = True, **options: Any) -> JobSet:
        made.append(JobSet(jobset_id, **at(database), **options))
        if setup:
            made[-1].setup_jobset(ignore_existing_jobset=True)
        return made[-1]

    yield make
    for jobset in made:
        jobset.close()


def at(database: Database, port: int | None = None) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": str(port or database.server.port),
        "user": "postgres",
        "dbname": database.name,
    }


def rows(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    """What a person sees of the jobset ``work``."""
    return database.execute(f"SELECT {', '.join(columns)} FROM workerbee.work ORDER BY id")


# Ids


def test_an_id_names_a_jobset(new: NewJobSet, database: Database) -> None:
    """Digits, keywords and 48 letters too; the view of that name has the jobs."""
    for jobset_id in ["a", "2016", "_", "user", "a_result", "jobset", "texturemap_2016_08_24", "x" * 48]:
        new(jobset_id).add_job({"x": jobset_id})
        assert database.execute(f'SELECT input_data FROM workerbee."{jobset_id}"') == [({"x": jobset_id},)]


@pytest.mark.parametrize("jobset_id", ["", "Upper", "a b", "a'b", 'a"b', "a-b", "é", "a\n", "x" * 49, None, 7, b"a"])
def test_a_bad_id_is_refused(server: Server, jobset_id: Any) -> None:
    """Before anything is asked of the server."""
    with pytest.raises(JobsetIdError, match="can't name a jobset"):
        JobSet(jobset_id, host="127.0.0.1", port=server.port, user="postgres", dbname="nowhere")


# Setting up


def test_a_second_setup_is_refused(new: NewJobSet) -> None:
    """Unless the caller says that it may be there already."""
    jobset = new(setup=False)
    assert jobset.setup_jobset() is True
    with pytest.raises(JobsetExistsError, match="'work' exists already"):
        jobset.setup_jobset()
    assert jobset.setup_jobset(ignore_existing_jobset=True) is False


def test_one_of_many_racing_processes_creates_the_jobset(database: Database) -> None:
    """Each in a database that has nothing yet."""
    script = (
        "import json, sys\n"
        "from workerbee import JobSet\n"
        f"jobset = JobSet('work', **{at(database)!r})\n"
        "sys.stdin.readline()\n"
        "created = jobset.setup_jobset(ignore_existing_jobset=True)\n"
        "print('created' if created else 'found', file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for _ in range(8)
    ]
    with ThreadPoolExecutor(8) as pool:
        said = [err.strip() for _, err in pool.map(lambda racer: racer.communicate("go\n", timeout=60), racers)]
    assert Counter(said) == {"created": 1, "found": 7}


@pytest.mark.parametrize(
    "end",
    ["os._exit(9)", "os.kill(os.getpid(), 9)", "sys.exit()", "jobset.add_jobs([{'n': 1}, {'n': 1}])"],
    ids=["exit", "kill", "end", "duplicate"],
)
def test_who_comes_after_a_maker_that_added_nothing_takes_its_place(database: Database, end: str) -> None:
    """One of them does, adds the jobs, and all of them run; nobody takes the place of one that lives, or has added."""
    program = (
        "import os, sys\n"
        "from workerbee import JobSet\n"
        f"jobset = JobSet('work', **{at(database)!r})\n"
        "made = jobset.setup_jobset(ignore_existing_jobset=True)\n"
        "print('made' if made else 'found', file=sys.stderr, flush=True)\n"
    )
    life = program + "sys.stdin.readline()\nif made: jobset.add_jobs([{'n': 1}, {'n': 2}])\njobset.run(len)\n"

    def start(code: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-c", code]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, env=environment, text=True)

    first = start(program + end)
    assert (first.communicate(timeout=60)[1] or "").startswith("made")
    # The server may notice a moment later that its client is gone; until then the maker counts as living.
    eventually(lambda: not database.execute(OTHER_SESSIONS))
    later = [start(life) for _ in range(3)]
    said = [process.stderr.readline().strip() for process in later if process.stderr is not None]
    assert Counter(said) == {"made": 1, "found": 2}
    for process in later:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in later:
        process.communicate(timeout=60)
    assert [process.returncode for process in later] == [0, 0, 0]
    assert rows(database, "input_data", "status") == [({"n": 1}, "completed"), ({"n": 2}, "completed")]
    last = start(life)
    assert (last.communicate("go\n", timeout=60)[1]).startswith("found")


def test_a_setup_whose_answer_is_lost_has_created_the_jobset(database: Database) -> None:
    """The creator is told so, though its connection was cut at the COMMIT: else nobody would add the jobs."""
    with FaultProxy("127.0.0.1", database.server.port) as proxy:
        jobset = JobSet("work", **at(database, proxy.port))
        trap = proxy.cut_on(b"COMMIT", when="after")
        assert jobset.setup_jobset() is True
        assert trap.sprung.is_set()
        jobset.close()


# Adding


def test_a_repeated_input_adds_none_of_its_call(new: NewJobSet, database: Database) -> None:
    """Within the call and with what is there, by the whole input; the error names it."""
    jobset = new()
    jobset.add_job({"a": 1, "b": [2]})
    for inputs in ([{"x": 1}, {"x": 1}], [{"x": 2}, {"b": [2], "a": 1}]):
        with pytest.raises(UniqueInputDataConstraintError, match="equal to") as caught:
            jobset.add_jobs(inputs)
        assert caught.value.input_data == inputs[1]
    assert rows(database, "input_data") == [({"a": 1, "b": [2]},)]


def test_a_repeated_id_adds_none_of_its_call(new: NewJobSet, database: Database) -> None:
    """The key 'id' is unique by itself, whatever else the input says."""
    jobset = new()
    jobset.add_job({"id": 1, "data": "first"})
    for inputs in ([{"id": 7}, {"id": 7, "data": 2}], [{"id": 8}, {"id": 1, "data": "second"}]):
        with pytest.raises(UniqueInputDataConstraintError, match="same 'id'") as caught:
            jobset.add_jobs(inputs)
        assert caught.value.input_data == inputs[1]
    jobset.add_job({"id": "1"})
    assert rows(database, "input_data->'id'") == [(1,), ("1",)]


def test_ten_thousand_jobs_are_added_by_one_call(new: NewJobSet, database: Database) -> None:
    """All, or, with one that is there already, none."""
    jobset = new()
    jobset.add_jobs({"id": n, "x": n * n} for n in range(10_000))
    [(n, total)] = database.execute("SELECT count(*), sum((input_data->>'x')::bigint) FROM workerbee.work")
    assert (n, total) == (10_000, sum(n * n for n in range(10_000)))
    with pytest.raises(UniqueInputDataConstraintError):
        jobset.add_jobs({"id": n, "x": 0} for n in range(9_999, 20_000))
    assert database.execute("SELECT count(*) FROM workerbee.work") == [(10_000,)]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


BAD: dict[str, Any] = {
    "list": [1],
    "str": "text",
    "None": None,
    "NaN": {"x": float("nan")},
    "infinity": {"x": float("inf")},
    "bytes": {"x": b"bytes"},
    "NUL": {"x": "a\0b"},
    "surrogate": {"x": "\ud800"},
    "nested": {"x": nested(100_000)},
    "set": {"x": {1, 2}},
}


def test_input_that_json_cant_hold_is_refused(new: NewJobSet, database: Database) -> None:
    """By an error of the caller's, and none of that call's jobs is added."""
    jobset = new()
    for name, bad in BAD.items():
        with pytest.raises(InputDataError):
            jobset.add_jobs([{"fine": name}, bad])
    assert rows(database, "id") == []


def test_adding_to_a_missing_jobset_is_refused(new: NewJobSet) -> None:
    """The error says what there is."""
    new("other")
    with pytest.raises(JobsetNotFoundError, match="jobsets here: other"):
        new(setup=False).add_job({"x": 1})


# Running


def test_jobs_are_run_in_the_callers_process_and_their_dicts_are_stored(new: NewJobSet, database: Database) -> None:
    """In the order they were added; the table has input and output side by side, and when and how long."""
    jobset = new()
    jobset.add_jobs({"x": n} for n in range(50))
    seen: list[int] = []

    def function(input_data: dict[str, Any]) -> dict[str, Any] | None:
        seen.append(input_data["x"])
        return {"pid": os.getpid()} if input_data["x"] else None

    jobset.run(function)
    assert seen == list(range(50))
    stored = rows(
        database,
        "output_data",
        "n_claims",
        "n_failed_attempts",
        "status",
        "time_last_completed >= time_last_claimed AND job_duration >= interval '0'",
    )
    assert stored[0] == (None, 1, 0, "completed", True)
    assert stored[1:] == [({"pid": os.getpid()}, 1, 0, "completed", True)] * 49


def test_a_failed_attempt_comes_after_the_unclaimed_work(new: NewJobSet, database: Database) -> None:
    """JobFailedError: again, when the others have been run and the pause is over."""
    jobset = new()
    jobset.add_jobs({"x": n} for n in range(5))
    seen: list[int] = []

    def function(input_data: dict[str, Any]) -> None:
        seen.append(input_data["x"])
        if seen.count(1) == 1 and input_data["x"] == 1:
            raise JobFailedError

    jobset.run(function)
    assert seen == [0, 1, 2, 3, 4, 1]
    assert rows(database, "n_failed_attempts", "status")[1] == (1, "completed")


def test_three_attempts_mean_three_in_all(new: NewJobSet, database: Database) -> None:
    """max_n_retry_attempts=3; a job that never succeeds ends as failed, and the run ends without an error."""
    jobset = new()
    jobset.add_jobs([{"x": 0}, {"x": 1}])
    seen: list[int] = []

    @catch_all_exceptions
    def function(input_data: dict[str, Any]) -> None:
        seen.append(input_data["x"])
        if input_data["x"] == 0:
            raise OSError("no such luck")

    jobset.run(function, max_n_retry_attempts=3, max_failure_sleep=0.1)
    assert Counter(seen) == {0: 3, 1: 1}
    assert rows(database, "n_failed_attempts", "status") == [(3, "failed"), (0, "completed")]


def test_another_exception_is_recorded_and_raised_in_the_caller(new: NewJobSet, database: Database) -> None:
    """The very exception; its job has failed, and the others wait for the next run."""
    jobset = new()
    jobset.add_jobs({"x": n} for n in range(3))
    error = ZeroDivisionError("mine")

    def function(input_data: dict[str, Any]) -> None:
        if input_data["x"] == 1:
            raise error

    with pytest.raises(ZeroDivisionError) as caught:
        jobset.run(function)
    assert caught.value is error
    assert rows(database, "n_failed_attempts", "status") == [(0, "completed"), (1, "failed"), (0, "waiting")]
    jobset.run(lambda _: None)
    assert [status for (status,) in rows(database, "status")] == ["completed", "failed", "completed"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_gives_the_job_back(
    new: NewJobSet, database: Database, interruption: type[BaseException]
) -> None:
    """Uncharged: the next run does it as if nothing had been."""
    jobset = new()
    jobset.add_jobs([{"x": 0}, {"x": 1}])

    def function(input_data: dict[str, Any]) -> None:
        if input_data["x"] == 1:
            raise interruption

    with pytest.raises(interruption):
        jobset.run(function)
    assert rows(database, "n_failed_attempts", "status") == [(0, "completed"), (0, "waiting")]
    jobset.run(lambda _: None)
    assert rows(database, "n_claims", "n_failed_attempts", "status") == [(1, 0, "completed")] * 2


def test_a_result_that_json_cant_hold_is_raised_in_the_caller(new: NewJobSet, database: Database) -> None:
    """And its job has failed."""
    jobset = new()
    jobset.add_job({"x": 0})
    with pytest.raises(InputDataError, match="result"):
        jobset.run(lambda _: {"x": object()})
    assert rows(database, "output_data->>'type'", "status") == [("workerbee.errors.InputDataError", "failed")]


def test_a_missing_jobset_is_not_run(new: NewJobSet) -> None:
    """An error, at once."""
    with pytest.raises(JobsetNotFoundError, match="doesn't exist"):
        new(setup=False).run(print)


def test_a_jobset_without_jobs_is_not_waited_for_for_ever(new: NewJobSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the error says what is missing, jobs, and what to do where nobody is left to add them."""
    monkeypatch.setattr("workerbee.jobset.EMPTY_SECONDS", 0.1)
    with pytest.raises(JobsetNotFoundError, match=r"has had no job in 0\.1 s; add jobs.* run this program again"):
        new().run(print)


def test_busywait_goes_on_after_the_end_of_the_jobs(new: NewJobSet) -> None:
    """What is added later is run by the same call."""
    jobset = new()
    jobset.add_job({"x": 0})
    seen: list[int] = []

    def function(input_data: dict[str, Any]) -> None:
        seen.append(input_data["x"])
        if input_data["x"] == 1:
            raise KeyboardInterrupt

    def add_later() -> None:
        eventually(lambda: seen)
        new().add_job({"x": 1})

    thread = threading.Thread(target=add_later)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        jobset.run(function, busywait=True, max_busywait_sleep=0.2)
    thread.join()
    assert seen == [0, 1]


def test_idle_workers_repeat_slow_jobs(new: NewJobSet, database: Database, tmp_path: Path) -> None:
    """A job that hangs on one machine is done by another, which else would have nothing to do."""
    jobset = new()
    jobset.add_jobs({"x": n} for n in range(12))
    record, gate = tmp_path / "record", tmp_path / "gate"
    script = (
        "from tests import jobs\n"
        "from workerbee import JobSet\n"
        f"JobSet('work', **{at(database)!r}).run(lambda data: jobs.gated({str(record)!r}, data['x'], {str(gate)!r}))\n"
    )
    slow = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    eventually(lambda: jobs.noted(record))
    jobset.run(lambda _: None)
    assert rows(database, "n_failed_attempts", "status") == [(0, "completed")] * 12
    gate.touch()
    assert slow.wait(30) == 0


def test_a_killed_script_loses_nothing(new: NewJobSet, database: Database, tmp_path: Path) -> None:
    """Its running job is run by another script, and its bee doesn't outlive it."""
    jobset = new()
    jobset.add_jobs({"x": n} for n in range(3))
    record = tmp_path / "record"
    victim = slow_script(database, record)
    eventually(lambda: jobs.noted(record))
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    jobset.run(lambda _: None)
    assert rows(database, "status") == [("completed",)] * 3


def test_no_bee_outlives_a_script_that_is_killed_in_an_outage(
    new: NewJobSet, database: Database, tmp_path: Path
) -> None:
    """It can't tell the database, and doesn't wait for it an hour."""
    new().add_job({"x": 0})
    record = tmp_path / "record"
    with FaultProxy("127.0.0.1", database.server.port) as proxy:
        victim = slow_script(database, record, proxy.port)
        eventually(lambda: jobs.noted(record))
        [bee] = psutil.Process(victim.pid).children()
        proxy.refuse()
        proxy.cut()
        victim.kill()
        victim.wait()
        eventually(lambda: not bee.is_running() or bee.status() == psutil.STATUS_ZOMBIE, timeout=60)


def slow_script(database: Database, record: Path, port: int | None = None) -> subprocess.Popen[bytes]:
    """A process that runs the jobset's jobs, and never comes to the end of one."""
    script = (
        "from tests import jobs\n"
        "from workerbee import JobSet\n"
        f"JobSet('work', **{at(database, port)!r}).run(lambda data: jobs.slowly({str(record)!r}, data['x'], 1000))\n"
    )
    return subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(PROJECT)})


@pytest.mark.parametrize("hosts", [1, 3])
def test_a_script_that_is_preempted_again_and_again(
    new: NewJobSet, database: Database, tmp_path: Path, hosts: int
) -> None:
    """Its job isn't to blame, unless it was in three hosts' scripts when they ended."""
    jobset = new()
    jobset.add_job({"x": 0})
    record = tmp_path / "record"
    for n in range(3):
        victim = slow_script(database, record)
        eventually(lambda n=n: len(jobs.noted(record)) > n)  # type: ignore[misc]
        victim.terminate()
        victim.wait()
        eventually(lambda: database.execute('SELECT count(*) FROM workerbee."bee$" WHERE runners > 0') == [(0,)])
    assert database.execute('SELECT sum(lost)::int, sum(retried)::int FROM workerbee."counter$"') == [(3, 0)]
    if hosts > 1:
        database.execute("""UPDATE workerbee."attempt$1" SET host = 'h' || ctid::text""")
    jobset.run(lambda _: None)
    assert rows(database, "status", "n_failed_attempts") == [("completed" if hosts == 1 else "failed", 0)]


def test_the_death_of_its_bee_ends_a_run(new: NewJobSet, database: Database) -> None:
    """A named error, rather than waiting for ever."""
    jobset = new()
    jobset.add_job({"x": 0})

    def function(_: dict[str, Any]) -> None:
        [(pid,)] = database.execute('SELECT pid FROM workerbee."bee$" WHERE runners > 0')
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(BrokenWorkerbeeError):
        jobset.run(function)


# Logging


def test_the_default_logger_prints_to_stdout(new: NewJobSet, capsys: pytest.CaptureFixture[str]) -> None:
    """Only when a JobSet is made; and once, however many are."""
    new()
    new()
    assert capsys.readouterr().out.count("created the jobset work") == 1


def test_a_logger_is_found_by_its_name(new: NewJobSet, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says goes where its owner sends it, and nowhere else."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("of_my_own")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    jobset = new(logger_name="of_my_own")
    jobset.add_job({"x": 1})
    assert "added 1 job to work" in heard
    assert capsys.readouterr().out == ""


# Servers that won't do


@pytest.mark.parametrize("options", [{"port": 5432}, {"user": "somebody", "password": "x"}])
def test_how_to_reach_a_server_that_nobody_names(options: dict[str, Any]) -> None:
    """Is asked back, rather than left aside for the embedded one."""
    for make in (partial(JobSet, "work"), partial(WorkerbeeExecutor, 0)):
        with pytest.raises(ValueError, match="of which server"):
            make(**options)


def test_an_unreachable_server_is_an_error_at_once(database: Database) -> None:
    """The constructor doesn't wait as a run would: the address may be wrong."""
    with pytest.raises(DatabaseUnavailableError, match="can't connect to PostgreSQL"):
        JobSet("work", **at(database, servers.free_port()))


def test_a_missing_database_is_an_error_at_once(database: Database) -> None:
    """It says which one."""
    with pytest.raises(DatabaseUnavailableError, match='database "nowhere" does not exist'):
        JobSet("work", **{**at(database), "dbname": "nowhere"})


def test_a_wrong_password_is_an_error_at_once_and_isnt_shown(run_directory: Path) -> None:
    """Neither in the error nor in the log."""
    with servers.server() as guarded:
        guarded.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        [(hba,)] = guarded.execute("SHOW hba_file")
        Path(hba).write_text("local all all trust\nhost all locked 127.0.0.1/32 scram-sha-256\n")
        connection = psycopg2.connect(guarded.socket_dsn)
        connection.autocommit = True
        connection.cursor().execute("SELECT pg_reload_conf()")
        connection.close()
        with pytest.raises(DatabaseUnavailableError, match="password authentication failed") as caught:
            JobSet("work", host="127.0.0.1", port=guarded.port, user="locked", password="wr0ng", dbname="test")
        assert "wr0ng" not in str(caught.value)


def test_a_newer_schema_is_refused(new: NewJobSet, database: Database) -> None:
    """By a program that doesn't know it, which is told to upgrade; nothing is changed."""
    new()
    database.execute('INSERT INTO workerbee."version$" (number) VALUES (999)')
    with pytest.raises(UnsupportedDatabaseError, match="is version 999"):
        new("other")
    assert json.dumps(rows(database, "id")) == "[]"


def test_an_old_server_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is created in it."""
    monkeypatch.setattr(schema, "OLDEST_SERVER", 990000)
    with pytest.raises(UnsupportedDatabaseError, match="needs 12 or newer"):
        JobSet("work", **at(database))
    assert database.execute("SELECT FROM pg_namespace WHERE nspname = 'workerbee'") == []


def test_the_end_of_the_server_is_waited_out(run_directory: Path) -> None:
    """A run that is under way goes on when the server is back."""
    with servers.server() as mortal:
        jobset = JobSet("work", host="127.0.0.1", port=mortal.port, user="postgres", dbname="test")
        jobset.setup_jobset()
        jobset.add_jobs({"x": n} for n in range(3))

        seen: list[int] = []

        def function(input_data: dict[str, Any]) -> dict[str, Any]:
            seen.append(input_data["x"])
            if seen == [0, 1]:  # its claim may be undone by the crash, so that it is run again
                restart(mortal)
            return input_data

        jobset.run(function)
        jobset.close()
        assert mortal.execute("SELECT output_data->>'x', n_failed_attempts FROM workerbee.work ORDER BY id") == [
            (str(n), 0) for n in range(3)
        ]


def restart(server: Server) -> None:
    server.stop("immediate")
    server.start()
