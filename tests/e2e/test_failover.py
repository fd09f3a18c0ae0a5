"""A standby that lacks the last commits is promoted: what they said is forgotten, and nobody gets what is another's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import jobs, servers
from tests.bees import Bee
from tests.faultproxy import FaultProxy
from tests.poolers import pgbouncer
from tests.servers import Database, Server
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import JobLostError


class Pair:
    """A server and its standby, which a proxy hides; ``database`` is that of the server, ``behind`` the standby's."""

    def __init__(self, server: Server, standby: Server, proxy: FaultProxy) -> None:
        self._server, self._standby, self.proxy = server, standby, proxy
        self.database = Database(server, "test")
        self.behind = Database(standby, "test")
        self.proxied = proxy.dsn(self.database.dsn)

    def part(self) -> None:
        """Have the standby get all that was committed, and nothing more."""
        [(position,)] = self._server.execute("SELECT pg_current_wal_insert_lsn()::text")
        eventually(lambda: self._standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", position)[0][0])
        self._standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self._standby.execute("SELECT pg_reload_conf()")
        eventually(lambda: not self._standby.execute("SELECT FROM pg_stat_wal_receiver"))

    def end(self) -> None:
        """End the server; whoever comes through the proxy meets nobody so far."""
        self.proxy.refuse()
        self.proxy.cut()
        self._server.stop("immediate")

    def promote(self) -> None:
        """Promote the standby."""
        self._standby.execute("SELECT pg_promote()")

    def reopen(self) -> None:
        """Whoever comes through the proxy meets the standby."""
        self.proxy.target = "127.0.0.1", self._standby.port
        self.proxy.accept()


@pytest.fixture(params=["direct", "pooled"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Clients and bees come through the proxy, or through PgBouncer and the proxy."""
    with ExitStack() as stack:
        server = stack.enter_context(servers.server())
        if server.version < 130000:
            pytest.skip("a standby would have to be started anew to follow nobody")
        standby = stack.enter_context(servers.server(standby_of=server))
        proxy = stack.enter_context(FaultProxy("127.0.0.1", server.port))
        pair = Pair(server, standby, proxy)
        if request.param == "pooled":
            port = stack.enter_context(pgbouncer(server, behind=proxy.port))
            pair.proxied = pair.proxied.replace(f"port={proxy.port}", f"port={port}")
        yield pair


@contextmanager
def client(dsn: str) -> Iterator[WorkerbeeExecutor]:
    """One that doesn't wait for its jobs where the test has failed."""
    executor = WorkerbeeExecutor(0, jobset_id="work", dsn=dsn)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False)


def test_a_failover_that_loses_commits(pair: Pair, tmp_path: Path) -> None:
    """Lost jobs are lost, also if another has their number now; lost ends of jobs are made again."""
    gates = [tmp_path / name for name in ("first", "second", "lost")]
    record = str(tmp_path / "record")
    (tmp_path / "open").touch()
    with (
        client(pair.proxied) as one,
        Bee(pair.proxied, "work", "--busywait", workers=2) as bee,
    ):
        quick = [one.submit(jobs.gated, record, n, str(tmp_path / "open")) for n in range(40)]
        assert [future.result(60) for future in quick] == list(range(40))
        pair.proxy.stall()
        before = one.submit(jobs.gated, record, "before", str(tmp_path / "open"))
        eventually(lambda: not before.queued)  # type: ignore[attr-defined]
        first, second = (one.submit(jobs.gated, record, gate.name, str(gate)) for gate in gates[:2])
        pair.proxy.resume()
        claimed = 'SELECT FROM workerbee."batch$" WHERE cardinality(jobs) = 2 AND claim IS NOT NULL'
        eventually(lambda: pair.database.execute(claimed), what="both jobs in one claim")
        pair.part()
        gates[0].touch()
        assert first.result(60) == "first"  # of which the standby hears nothing
        alone = one.with_options(unique=False)
        rest = 64 - 43  # of the ids that this client has reserved so far
        assert [f.result(60) for f in [alone.submit(pow, n, 1) for n in range(rest)]] == list(range(rest))
        lost = [alone.submit(jobs.gated, record, "lost", str(gates[2])) for _ in range(3)]
        eventually(lambda: "lost" in [key for key, _ in jobs.noted(Path(record))], 20, "the job that will be lost")
        one.flush()
        pair.end()
        pair.promote()
        with client(pair.behind.dsn) as other:
            calls = [other.with_options(unique=False).submit(pow, n, 2) for n in range(10, 13)]
            other.flush()
            assert {future.job for future in calls} == {future.job for future in lost}
            pair.reopen()
            for future in lost:
                with pytest.raises(JobLostError):
                    future.result(60)
            gates[2].touch()
            assert [future.result(60) for future in calls] == [100, 121, 144]
            gates[1].touch()
            assert second.result(60) == "second"
            done = "SELECT count(*) FROM workerbee.work WHERE status = 'completed'"
            eventually(lambda: pair.behind.execute(done) == [(46,)], what="the first one's end, again")
        assert "Traceback" not in bee.output


def test_what_was_retried_and_what_is_lost(pair: Pair, tmp_path: Path) -> None:
    """A future of `retry` is resolved after a failover, and a lost call has not printed what another one has."""
    with client(pair.proxied) as one:
        taken_back = one.submit(pow, 3, 2)
        rest = [one.submit(pow, n, 1) for n in range(63)]  # of the ids that this client reserves first
        one.flush()
        assert taken_back.cancel()
        [retried] = one.retry(all=True)
        pair.part()
        lost = one.with_options(unique=False).submit(pow, 2, 2)
        one.flush()
        pair.end()
        pair.promote()
        with client(pair.behind.dsn) as other:
            call = other.with_options(unique=False).submit(print, "another's")
            other.flush()
            assert call.job == lost.job
            pair.reopen()
            with pytest.raises(JobLostError):
                lost.result(60)
            with Bee(pair.behind.dsn, "work", "--busywait"):
                assert retried.result(60) == 9
                assert [future.result(60) for future in rest] == list(range(63))
                assert call.result(60) is None
            assert call.output() == "another's\n"
            assert lost.output() == ""


@pytest.mark.parametrize("pair", ["pooled"], indirect=True)
def test_a_standby_is_read_before_it_is_promoted(pair: Pair) -> None:
    """What it lacks so far isn't lost; but what it gives to others later isn't ours, though it wasn't started anew."""
    with client(pair.proxied) as one:
        for n in range(64):  # all ids that this client reserves first
            one.submit(pow, n, 1)
        one.flush()
        pair.part()
        lost = one.with_options(unique=False).submit(pow, 2, 2)
        one.flush()
        pair.end()
        pair.reopen()
        looks = "SELECT query_start FROM pg_stat_activity WHERE datname = 'test' AND pid <> pg_backend_pid()"
        seen: set[object] = set()
        eventually(lambda: seen.update(pair.behind.execute(looks)) or len(seen) > 10, what="the standby is asked")
        assert not lost.done()
        pair.promote()
        with client(pair.behind.dsn) as other:
            call = other.with_options(unique=False).submit(pow, 3, 3)
            other.flush()
            assert call.job == lost.job
            with Bee(pair.behind.dsn, "work", "--busywait"):
                assert call.result(60) == 27
                with pytest.raises(JobLostError):
                    lost.result(60)
