"""The database goes away, in every way that it can, and comes back: bees and clients go on as if nothing had been."""

from __future__ import annotations

import logging
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import psutil
import pytest
from psycopg2 import extensions
from typing_extensions import Self

from tests import jobs, servers
from tests.bees import Bee
from tests.faultproxy import FaultProxy
from tests.poolers import pgbouncer
from tests.servers import Database, Server
from tests.waiting import eventually
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.bee import service
from workerbee.bee.crew import Crew
from workerbee.bee.supervisor import Supervisor
from workerbee.errors import DatabaseUnavailableError
from workerbee.orders import Orders
from workerbee.store import BeeStore, Connection, schema
from workerbee.wire.job import EndKind, Outcome

N = 200


@pytest.fixture(scope="module")
def mortal(run_directory: Path) -> Iterator[Server]:
    """A server that these tests stop and kill."""
    with servers.server() as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as made:
        yield made


class Line:
    """Work on a database by way of ``dsn``: a bee (by way of ``bees``, if given), a client, and what the jobs note."""

    def __init__(self, database: Database, dsn: str, record: Path, stack: ExitStack, bees: str | None = None) -> None:
        self.database = database
        self.record = record
        self.executor = WorkerbeeExecutor(0, jobset_id="work", dsn=dsn)
        stack.callback(self.executor.shutdown, wait=False)
        self.bee = stack.enter_context(Bee(bees or dsn, "work", "--busywait"))
        self.bee.says("serves work")

    def submit(self, n: int = N, seconds: float = 0.005) -> list[Future[Any]]:
        calls = self.executor.with_options(speculate=False)
        return [calls.submit(jobs.slowly, str(self.record), key, seconds) for key in range(n)]

    def is_right(self, futures: list[Future[Any]]) -> None:
        """Each result is right, each job is there once and has one result, and none is blamed for anything."""
        assert [f.result(60) for f in futures] == list(range(len(futures)))
        rows = self.database.execute(
            "SELECT (input_data->'args'->>1)::int, output_data::text::int, status, n_failed_attempts"
            " FROM workerbee.work ORDER BY 1"
        )
        assert rows == [(n, n, "completed", 0) for n in range(len(futures))]

    def executions(self) -> int:
        return len(jobs.noted(self.record))


@contextmanager
def on(database: Database, dsn: str, tmp_path: Path, bees: str | None = None) -> Iterator[Line]:
    with ExitStack() as stack:
        yield Line(database, dsn, tmp_path / "record", stack, bees)


@pytest.fixture
def line(database: Database, proxy: FaultProxy, tmp_path: Path) -> Iterator[Line]:
    """Work by way of the proxy."""
    with on(database, proxy.dsn(database.dsn), tmp_path) as made:
        yield made


# The server


@pytest.mark.parametrize("how", ["immediate", "killed"])
def test_a_server_that_dies_and_comes_back(mortal: Server, tmp_path: Path, how: str) -> None:
    """An immediate stop, and SIGKILL of the postmaster: no result is lost, and no job is blamed."""
    database = mortal.new_database()
    with on(database, database.dsn, tmp_path) as line:
        futures = line.submit()
        eventually(lambda: line.executions() > 20)
        mortal.stop("immediate") if how == "immediate" else mortal.kill()
        mortal.start()
        line.is_right(futures)
    database.drop()


def test_a_bee_that_starts_in_an_outage_waits(mortal: Server, tmp_path: Path) -> None:
    """It arrives when the server is there, and says only once that it waits."""
    database = mortal.new_database()
    executor = WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn)
    future = executor.submit(jobs.double, 4)
    executor.flush()
    mortal.stop("immediate")
    with Bee(database.dsn, "work", "--busywait") as bee:
        bee.says("trying again")
        mortal.start()
        assert future.result(60) == 8
        assert bee.output.count("trying again") <= 2
    executor.shutdown()
    database.drop()


def test_constructors_and_readers_wait_as_well(mortal: Server) -> None:
    """For a server that restarts; what is streamed goes on after the last row given."""
    database = mortal.new_database()
    parts = extensions.parse_dsn(database.dsn)
    with WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn) as executor:
        line = Connection(database.dsn)
        store = BeeStore(line, executor._client.jobset, uuid4(), "here")
        [executor.submit(jobs.double, n) for n in range(1_200)]
        executor.flush()
        ends = [Outcome(n, 1, EndKind.COMPLETED, "json", b"%d" % n, None, 0.1) for n in range(1, 1_201)]
        store.complete(ends, [], hint=None)
        rows = executor.results(all=True)
        got = [next(rows) for _ in range(10)]
        with restarting(mortal):
            others = [WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn)]
        with restarting(mortal):
            jobset = JobSet("work", parts["host"], parts["port"], "postgres", dbname=database.name)
        with restarting(mortal):
            got += rows
        assert [row["job_id"] for row in got] == list(range(1, 1_201))
        with restarting(mortal):
            assert executor.progress().completed == 1_200
        for made in others:
            made.shutdown()
        jobset.close()
        line.close()
    database.drop()


def readers() -> list[threading.Thread]:
    """What reads ahead for somebody."""
    return [thread for thread in threading.enumerate() if thread.name == "workerbee reader"]


def test_who_leaves_results_in_an_outage_leaves(mortal: Server) -> None:
    """Nobody waits for the page that was to come, and nobody goes on asking for it."""
    database = mortal.new_database()
    with WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn) as executor:
        line = Connection(database.dsn)
        [executor.submit(jobs.double, n) for n in range(200)]
        executor.flush()
        ends = [Outcome(n, 1, EndKind.COMPLETED, "json", b"%d" % n, None, 0.1) for n in range(1, 201)]
        BeeStore(line, executor._client.jobset, uuid4(), "here").complete(ends, [], hint=None)
        line.close()
        rows = executor.results(all=True)
        assert next(rows)["job_id"] == 1
        eventually(lambda: not readers(), 10, "the second page")
        mortal.stop("immediate")
        try:
            assert [next(rows)["job_id"] for _ in range(149)] == list(range(2, 151))
            assert readers()
            left = time.monotonic()
            rows.close()
            assert time.monotonic() - left < 1
            eventually(lambda: not readers(), 10)
        finally:
            mortal.start()
    database.drop()


@contextmanager
def restarting(mortal: Server) -> Iterator[None]:
    """A server that is stopped before the block, and comes back a little later."""
    mortal.stop("immediate")
    starter = threading.Timer(0.5, mortal.start)
    starter.start()
    try:
        yield
    finally:
        starter.join()


def test_terminated_backends(server: Server, database: Database, tmp_path: Path) -> None:
    """A storm of pg_terminate_backend: everybody connects again, as often as it takes."""
    with on(database, database.dsn, tmp_path) as line:
        futures = line.submit()
        for n in range(1, 6):
            eventually(lambda n=n: line.executions() > 15 * n)
            terminate(database)
        line.is_right(futures)


def test_an_idle_bee_is_soon_back(database: Database) -> None:
    """It hears no hint without a connection, and it may be the one that others' work waits for."""
    session = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ 'workerbee bee'"
    )
    with WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn) as executor, Bee(database.dsn, "work", "--busywait"):
        executor.submit(pow, 2, 2).result(60)
        for _ in range(2):
            idle = f"{session} AND now() - query_start > interval '1 second'"
            found = eventually(lambda idle=idle: database.execute(idle), what="the bee rests")
            terminate(database)
            eventually(lambda found=found: database.execute(session) not in ([], found), 1, "the bee is back")


@contextmanager
def a_bee_here(database: Database, workers: int) -> Iterator[Supervisor]:
    """Run a bee as a thread of this process."""
    with closing(Connection(database.dsn)) as connection:
        schema.ensure(connection)
    orders = Orders(database.dsn, workers=workers, busywait=True)
    bee = Supervisor(orders, Crew(orders), logging.getLogger("a bee in a thread"))
    thread = threading.Thread(target=bee.run)
    thread.start()
    try:
        yield bee
    finally:
        bee.drain(now=True)
        thread.join()


def meet(database: Database, n: int) -> None:
    """Have a new jobset's jobs done, each once."""
    with WorkerbeeExecutor(0, dsn=database.dsn) as executor:
        futures = [executor.submit(pow, n, i) for i in range(5)]
        assert [future.result(60) for future in futures] == [n**i for i in range(5)]
        events = executor.status().events
        assert (events.completed, events.lost, events.late) == (5, 0, 0)


def test_a_bee_leaves_what_it_has_met_behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many jobsets it goes on with a new session of the server, between two jobs, and does every job once."""
    monkeypatch.setattr(service, "MOST_MET", 3)
    backends = set()
    with a_bee_here(database, 1) as bee:
        for n in range(8):
            meet(database, n)
            backends.add(bee._connection.backend)
    assert len(backends - {None}) in (2, 3)
    assert len(bee._service.holdings.served) < 4


def test_a_bee_keeps_its_session_while_it_holds_work(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Others take the end of a session for the end of a bee."""
    monkeypatch.setattr(service, "MOST_MET", 2)
    gate = tmp_path / "gate"
    with a_bee_here(database, 2) as bee, WorkerbeeExecutor(0, dsn=database.dsn) as executor:
        future = executor.submit(jobs.gated, str(tmp_path / "record"), 1, str(gate))
        eventually(future.running)
        before = bee._connection.backend
        for n in range(4):
            meet(database, n)
        after = bee._connection.backend
        gate.touch()
        future.result(60)
        eventually(lambda: bee._connection.backend not in (None, before))
    assert after == before


def terminate(database: Database) -> None:
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


# The way to it


def test_large_values_over_a_slow_link(database: Database, proxy: FaultProxy, tmp_path: Path) -> None:
    """Claims are as large as the link can carry: the bee stays alive in everybody's eyes, and nothing runs twice."""
    with on(database, database.dsn, tmp_path, bees=proxy.dsn(database.dsn)) as line:
        calls = line.executor.with_options(speculate=False)
        proxy.throughput(1e6)
        futures = [calls.submit(jobs.copied, str(line.record), key, "x" * 100_000) for key in range(30)]
        while not all(future.done() for future in futures):
            assert database.execute('SELECT bool_and(lease_until > now()) FROM workerbee."bee$"') == [(True,)]
            wait(futures, 0.2)
        assert [f.result()[0] for f in futures] == list(range(30))
        assert line.executions() == 30


def test_an_answer_may_take_its_time_as_long_as_it_comes(database: Database, proxy: FaultProxy) -> None:
    """No deadline ends what is making its way over a slow link; a link that carries nothing is given up."""
    with closing(Connection(proxy.dsn(database.dsn))) as connection:
        connection.run("SELECT 1")
        connection.patience = 0.5
        proxy.throughput(1e6)
        [(text,)] = connection.run("SELECT string_agg(md5(n::text), '') FROM generate_series(1, 65536) n")
        assert len(text) == 2**21
        proxy.stall()
        with pytest.raises(DatabaseUnavailableError):
            connection.run("SELECT 1")
        proxy.resume()


def stall(proxy: FaultProxy) -> None:
    proxy.stall()
    time.sleep(3)  # longer than a lease
    proxy.resume()


def refuse(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.cut()
    time.sleep(1)
    proxy.accept()


FAULTS: dict[str, Callable[[FaultProxy], Any]] = {
    "cut": FaultProxy.cut,
    "the server isn't told": lambda proxy: proxy.cut("client"),
    "in mid-statement": lambda proxy: proxy.cut_after(3000).wait(),
    "in mid-answer": lambda proxy: proxy.cut_after(3000, "server").wait(),
    "stalled": stall,
    "refused": refuse,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_connections_that_fail(proxy: FaultProxy, line: Line, fault: str) -> None:
    """However they fail, what was under way is done, once."""
    futures = line.submit()
    eventually(lambda: line.executions() > 20)
    FAULTS[fault](proxy)
    line.is_right(futures)


def test_half_open_connections_of_which_nobody_tells(
    database: Database, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the client isn't told either, its own deadline ends the wait."""
    monkeypatch.setattr("workerbee.store.connection.QUERY_SECONDS", 1.0)
    executor = WorkerbeeExecutor(0, jobset_id="work", dsn=proxy.dsn(database.dsn))
    for connection in (executor._client._flusher._connection, executor._client._watcher._connection):
        connection.patience = 1.0
    assert isinstance(executor.submit(jobs.double, 1), Future)
    executor.flush()
    proxy.cut("server")
    with Bee(database.dsn, "work", "--busywait"):
        assert executor.submit(jobs.double, 2).result(60) == 4
    executor.shutdown()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cut_around_the_commit_of_a_submit(proxy: FaultProxy, line: Line, when: Literal["before", "after"]) -> None:
    """Whether the answer or the question was lost, each call is one job and is run once."""
    trap = proxy.cut_on(b'INSERT INTO "workerbee"."job$1"', when=when)
    futures = line.submit(20)
    trap.wait()
    line.is_right(futures)
    assert line.executions() == 20


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cut_around_the_commit_of_results(proxy: FaultProxy, line: Line, when: Literal["before", "after"]) -> None:
    """The bee keeps them, and stores them again: no job is run twice, no result is doubled."""
    trap = proxy.cut_on(b'INSERT INTO "workerbee"."outcome$1"', when=when)
    futures = line.submit(20)
    trap.wait()
    line.is_right(futures)
    assert line.executions() == 20


def test_results_that_were_finished_in_an_outage_are_kept(proxy: FaultProxy, line: Line, tmp_path: Path) -> None:
    """A job that ends while the database is away isn't run again."""
    gate = tmp_path / "gate"
    future = line.executor.submit(jobs.gated, str(line.record), 0, str(gate))
    eventually(line.executions)
    proxy.refuse()
    proxy.cut()
    gate.touch()
    line.bee.says("trying again")
    proxy.accept()
    assert future.result(60) == 0
    assert line.executions() == 1


def test_a_claim_that_commits_after_its_connection_was_cut_is_given_back(
    database: Database, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The server may finish a statement when its bee has long connected again: nobody would run those jobs."""
    with on(database, proxy.dsn(database.dsn), tmp_path) as line, closing(database.connect()) as holder:
        holder.cursor().execute("SELECT pg_advisory_lock(1)")
        database.execute(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;"
            ' CREATE TRIGGER linger AFTER UPDATE OF claim ON workerbee."batch$" FOR EACH ROW'
            " WHEN (OLD.claim IS NULL) EXECUTE FUNCTION linger()"
        )
        future = line.submit(1)[0]
        [(claiming,)] = eventually(lambda: bees(database, "wait_event_type = 'Lock'"))
        proxy.cut()
        # The new connection prepares what it says again and again: by then it has looked for what it holds.
        eventually(lambda: bees(database, f"pid <> {claiming} AND state = 'idle' AND query LIKE 'EXECUTE%'"))
        holder.cursor().execute("SELECT pg_advisory_unlock(1)")
        assert future.result(60) == 0


def bees(database: Database, state: str = "true") -> list[tuple[Any, ...]]:
    """The server processes of bees."""
    return database.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'workerbee bee%' AND"
        f" datname = current_database() AND {state}"
    )


# Refusals


REFUSALS = {
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "25006": "read-only",
    "40P01": "deadlock",
    "40001": "serialization",
    "55P03": "lock timeout",
    "57014": "statement timeout",
    "58030": "I/O error",
}


@pytest.mark.parametrize("table", ["job", "outcome"])
def test_statements_that_the_server_refuses_for_now(database: Database, tmp_path: Path, table: str) -> None:
    """A full disk, a deadlock, a lock that isn't to be had …: tried again until it works, on either side."""
    with on(database, database.dsn, tmp_path) as line:
        line.executor.submit(jobs.double, 0).result(60)
        database.execute("CREATE SEQUENCE refusals MINVALUE 0")
        codes = ", ".join(f"'{code}'" for code in REFUSALS)
        database.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE code text := "
            f"(ARRAY[{codes}])[nextval('public.refusals') + 1]; BEGIN"
            " IF code IS NOT NULL THEN RAISE EXCEPTION USING ERRCODE = code; END IF; RETURN NULL; END $$"
        )
        database.execute(
            f'CREATE TRIGGER refuse AFTER INSERT ON workerbee."{table}$1" FOR EACH STATEMENT EXECUTE FUNCTION refuse()'
        )
        assert line.executor.submit(jobs.slowly, str(line.record), 1, 0.0).result(60) == 1
        [(refused,)] = database.execute("SELECT last_value FROM refusals")
        assert refused >= len(REFUSALS)
        assert database.execute("SELECT DISTINCT status, n_failed_attempts FROM workerbee.work") == [("completed", 0)]
        assert line.executions() == 1


def test_a_server_that_is_read_only_for_a_while(database: Database, tmp_path: Path) -> None:
    """As a standby after a failover: whoever is connected to it waits for one that can be written to."""
    with on(database, database.dsn, tmp_path) as line:
        database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
        terminate(database)
        futures = line.submit(5)
        line.bee.says("read-only transaction.*trying again")
        database.server.execute(f"ALTER DATABASE {database.name} RESET ALL")
        terminate(database)
        line.is_right(futures)


def test_a_role_with_too_many_connections(server: Server, database: Database, tmp_path: Path) -> None:
    """There is room again later."""
    role = f"limited_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {database.name} TO {role}")
    try:
        with on(database, database.dsn.replace("user=postgres", f"user={role}"), tmp_path) as line:
            database.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            terminate(database)
            line.bee.says("too many connections.*trying again")
            database.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            line.is_right(line.submit(5))
        eventually(lambda: not bees(database))
    finally:
        terminate(database)
        database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root can mount a file system")
def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    """A real one: what didn't fit is stored when there is room again."""
    with servers.server() as full:
        disk = full.directory / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=777", "tmpfs", disk], check=False).returncode:
            pytest.skip("this machine lets nobody mount a file system")
        try:
            shutil.chown(disk, *owner(full.directory / "data"))
            full.execute(f"CREATE TABLESPACE disk LOCATION '{disk}'")
            full.execute("CREATE DATABASE on_disk TABLESPACE disk")
            database = Database(full, "on_disk")
            with on(database, database.dsn, tmp_path) as line:
                line.is_right(line.submit(2))
                filler = disk / "filler"
                with suppress(OSError), filler.open("wb") as file:
                    while True:
                        file.write(b"\0" * 65536)
                        file.flush()
                future = line.executor.submit(len, "x" * 2_000_000)
                eventually(lambda: "No space left" in full.log)
                filler.unlink()
                assert future.result(60) == 2_000_000
            database.drop()
        finally:
            full.stop("immediate")
            subprocess.run(["umount", "-l", disk], check=True)
            full.start()


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


# How it is waited for


class Deaf:
    """Takes connections and ends them at once, as a server that can't start would; counts them."""

    def __enter__(self) -> Self:
        self.n = 0
        self._socket = socket.create_server(("127.0.0.1", servers.free_port()))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._socket.accept()[0].close()
                self.n += 1

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_a_bee_tries_about_once_a_second_and_then_gives_up() -> None:
    """No hot loop, no hot log; after --reconnect-timeout the exit status is 69."""
    with Deaf() as server:
        began = time.monotonic()
        with Bee(f"host=127.0.0.1 port={server.port} user=postgres", "work", "--reconnect-timeout", 5) as bee:
            assert bee.wait() == 69
            assert 5 <= server.n <= 8 + (time.monotonic() - began) / 0.5
            assert len(bee.output.splitlines()) < 6


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("minutes", [1, 15])
def test_a_long_outage(mortal: Server, tmp_path: Path, minutes: int) -> None:
    """Every connection tries once a second, nobody grows, and then what was finished is stored; nothing runs again."""
    database = mortal.new_database()
    gate = tmp_path / "gate"
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(FaultProxy("127.0.0.1", mortal.port)) for _ in range(2))
        dsn = theirs.dsn(database.dsn)
        line = stack.enter_context(on(database, ours.dsn(database.dsn), tmp_path, bees=dsn))
        bees = [line.bee, stack.enter_context(Bee(dsn, "work", "--busywait"))]
        calls = line.executor.with_options(speculate=False)
        futures = [calls.submit(jobs.gated, str(line.record), n, str(gate)) for n in range(len(bees))]
        eventually(lambda: len({bee for _, bee in jobs.noted(line.record)}) == len(bees))
        mortal.stop("immediate")
        gate.touch()
        futures += [calls.submit(jobs.slowly, str(line.record), n, 0.0) for n in range(len(bees), 100)]
        time.sleep(20)  # the first tries follow faster on each other
        began, before, sizes = time.monotonic(), [p.n_taken for p in (ours, theirs)], [size(b) for b in (None, *bees)]
        time.sleep(60 * minutes - 20)
        tries = [p.n_taken - n for p, n in zip((ours, theirs), before, strict=True)]
        elapsed = time.monotonic() - began
        growth = [size(b) - n for b, n in zip((None, *bees), sizes, strict=True)]
        print(f"{elapsed:.0f} s: {tries} tries by two connections each, client and bees grew by {growth} bytes")
        assert all(0 < n <= 2 * (elapsed + 1) for n in tries)
        assert max(growth) < 4_000_000
        assert all(len(bee.output.splitlines()) < 5 for bee in bees)
        assert line.executions() == len(bees)
        mortal.start()
        line.is_right(futures)
        assert line.executions() == len(futures)
    database.drop()


def size(bee: Bee | None) -> int:
    """Bytes in memory of a bee with its runners, or of this process."""
    processes = [psutil.Process()] if bee is None else [psutil.Process(bee.process.pid), *bee.runners()]
    return sum(process.memory_info().rss for process in processes)


def test_futures_of_a_database_that_never_comes_back_end(database: Database, proxy: FaultProxy) -> None:
    """After reconnect_timeout, with a named error, and the executor takes nothing more."""
    executor = WorkerbeeExecutor(0, jobset_id="work", dsn=proxy.dsn(database.dsn), reconnect_timeout=0.5)
    futures = [executor.submit(jobs.double, n) for n in range(3)]
    executor.flush()
    proxy.refuse()
    proxy.cut()
    for future in futures:
        assert isinstance(future.exception(30), DatabaseUnavailableError)


def test_what_wont_pass_isnt_waited_for(server: Server) -> None:
    """A bee for a database that isn't there ends at once, and says which one."""
    with Bee(server.dsn_of("nowhere"), "work") as bee:
        assert bee.wait() == 69
        assert 'database "nowhere" does not exist' in bee.output


# Through a pooler


def test_it_all_works_through_pgbouncer(server: Server, database: Database, tmp_path: Path) -> None:
    """In transaction mode: no LISTEN, no prepared statement, no session, and the same results."""
    with pgbouncer(server) as port:
        dsn = database.dsn.replace(f"port={server.port}", f"port={port}")
        with on(database, dsn, tmp_path) as line:
            line.is_right(line.submit(50))
            assert line.executions() == 50


def test_a_result_is_seen_soon_behind_a_pooler(server: Server, database: Database) -> None:
    """Whichever of many calls it is the result of, also where nothing had ended for a while."""
    with pgbouncer(server) as port:
        executor = WorkerbeeExecutor(
            0, jobset_id="work", dsn=database.dsn.replace(f"port={server.port}", f"port={port}")
        )
        futures = [executor.submit(jobs.double, n) for n in range(20_000)]
        executor.flush()
        assert executor._client._flusher._connection.is_direct is False
        line = Connection(database.dsn)
        store = BeeStore(line, executor._client.jobset, uuid4(), "here")
        late = []
        for future in random.Random(17).sample(futures, 15):
            time.sleep(random.uniform(0.0, 0.3))
            done = threading.Event()
            future.add_done_callback(lambda _, done=done: done.set())
            store.complete([Outcome(future.stored_job, 1, EndKind.COMPLETED, "json", b"1", None, 0.1)], [], hint=None)
            began = time.monotonic()
            assert done.wait(20)
            late.append(time.monotonic() - began)
        line.close()
        executor._client.detach_and_close()
        executor.shutdown()
    late.sort()
    print(f"median {late[7]:.3f} s, worst {late[-1]:.3f} s")
    assert late[7] < 0.2
    assert late[-1] < 1
