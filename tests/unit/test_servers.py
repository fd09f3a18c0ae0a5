"""The harness itself: throw-away servers, the proxy that fails on command, and waiting."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from tests import servers
from tests.faultproxy import FaultProxy
from tests.servers import Database, Server, ServerError
from tests.waiting import eventually

Connection = psycopg2.extensions.connection
ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that these tests may stop and kill."""
    with servers.server() as running:
        yield running


@pytest.fixture
def proxy(database: Database) -> Iterator[FaultProxy]:
    """A proxy before the test's database."""
    with FaultProxy("127.0.0.1", database.server.port) as running:
        yield running


@pytest.fixture
def through(proxy: FaultProxy, database: Database) -> Iterator[Connection]:
    """A connection through the proxy, and the table t behind it."""
    database.execute("CREATE TABLE t (n integer)")
    with closing(psycopg2.connect(proxy.dsn(database.dsn))) as connection:
        connection.autocommit = True
        yield connection


def rows(database: Database) -> list[int]:
    return [n for (n,) in database.execute("SELECT n FROM t ORDER BY n")]


# Servers


def test_server_answers_over_tcp_and_socket(server: Server) -> None:
    """Both connection strings lead to the same server."""
    for dsn in (server.dsn, server.socket_dsn):
        with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('port')::integer, current_database()")
            assert cursor.fetchone() == (server.port, "test")


def test_server_is_the_one_that_was_asked_for(server: Server) -> None:
    """The programs are the wheel's, or those in the directory that the environment names."""
    program = Path(psutil.Process(server.pid).exe())
    assert program.name == "postgres"
    assert program.samefile(servers._programs() / "postgres") or servers._NAMED_BIN is None


def test_server_takes_settings() -> None:
    """Settings are PostgreSQL's own, values with spaces too; fsync is on when it is asked for."""
    with servers.server(fsync=True, wal_level="logical", application_name="a b") as running:
        assert running.execute("SHOW fsync") == [("on",)]
        assert running.execute("SHOW wal_level") == [("logical",)]
        assert running.execute("SELECT FROM pg_settings WHERE reset_val = 'a b'")
        directory = running.directory
    assert not directory.exists()


def test_a_start_that_fails_shows_the_log() -> None:
    """What PostgreSQL said is in the error, and nothing is left."""
    with pytest.raises(ServerError, match="wal_level"):
        Server(wal_level="impossible")


def test_a_taken_port_is_not_insisted_on(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Two runs that choose the same port both get a server."""
    ports = iter([server.port, server.port, servers.free_port()])
    monkeypatch.setattr(servers, "free_port", lambda: next(ports))
    with servers.server() as second:
        assert second.port != server.port
        assert second.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopped_server_keeps_data_and_port(own_server: Server, mode: str) -> None:
    """After stop and start everything is where it was."""
    database = own_server.new_database()
    database.execute("CREATE TABLE t AS SELECT 7 AS n")
    port = own_server.port
    own_server.stop(mode)  # type: ignore[arg-type]
    assert own_server.pid is None
    with pytest.raises(psycopg2.OperationalError):
        own_server.connect()
    own_server.start()
    assert own_server.port == port
    assert rows(database) == [7]
    recovered = "automatic recovery in progress" in own_server.log
    assert recovered == (mode == "immediate")


def test_killed_server_is_gone_at_once_and_keeps_data(own_server: Server) -> None:
    """No process of a killed server is left, busy ones included, and what was committed is there again."""
    database = own_server.new_database()
    database.execute("CREATE TABLE t AS SELECT 7 AS n")
    with closing(database.connect()) as busy:
        sleeping = threading.Thread(target=_fail, args=(busy, "SELECT pg_sleep(60)"))
        sleeping.start()
        eventually(lambda: own_server.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
        processes = [psutil.Process(own_server.pid), *psutil.Process(own_server.pid).children()]
        own_server.kill()
        assert not any(map(servers._alive, processes))
        sleeping.join(10)
        assert not sleeping.is_alive()
    own_server.start()
    assert rows(database) == [7]


def test_server_may_be_started_from_a_thread_that_ends(own_server: Server) -> None:
    """Its life hangs on the process's, not on the starting thread's."""
    own_server.stop()
    thread = threading.Thread(target=own_server.start)
    thread.start()
    thread.join()
    time.sleep(0.2)  # the time that a death signal would take
    assert own_server.execute("SELECT 1") == [(1,)]


def test_new_databases_are_separate_and_may_be_copies(server: Server) -> None:
    """A database starts empty or as its template, and can be dropped while somebody is connected."""
    first = server.new_database()
    first.execute("CREATE TABLE t AS SELECT 7 AS n")
    copy, empty = server.new_database(template=first), server.new_database()
    assert rows(copy) == [7]
    assert empty.execute("SELECT to_regclass('t')") == [(None,)]
    with closing(first.connect()):
        for database in (first, copy, empty):
            database.drop()
    assert not server.execute("SELECT FROM pg_database WHERE datname = %s", first.name)


def test_server_dies_with_its_process(tmp_path: Path) -> None:
    """A test run that is killed leaves no server behind."""
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from tests.servers import Server\n"
        "server = Server(); print(server.pid, server.directory, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(ROOT)], stdout=subprocess.PIPE, text=True)
    with child:
        pid, directory = child.stdout.readline().split()
        postmaster = psutil.Process(int(pid))
        processes = [postmaster, *postmaster.children()]
        child.send_signal(signal.SIGKILL)
        child.wait()
    eventually(lambda: not any(map(servers._alive, processes)), timeout=10, what="the server's end")
    shutil.rmtree(directory)


@as_root
def test_root_needs_no_open_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs that the server's user can't reach are copied, and the closed directory stays closed."""
    if servers._NAMED_BIN:
        pytest.skip("a system's PostgreSQL can't be copied")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = servers._programs().parents[1]
    for directory in package.parent.glob(f"{package.name}*"):
        shutil.copytree(directory, closed / directory.name, symlinks=True)
    monkeypatch.setattr(servers, "_programs", lambda: closed / package.name / "pginstall" / "bin")
    with servers.server() as running:
        assert running.execute("SELECT 1") == [(1,)]
        assert Path(psutil.Process(running.pid).exe()).is_relative_to(running.directory)
    assert closed.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(closed)


@as_root
def test_an_ordinary_user_can_start_one() -> None:
    """Who isn't root needs no other user; the server is the user's own."""
    program = """if True:
        import os, psutil, sys, tempfile
        sys.path.insert(0, sys.argv[1])
        from tests import servers
        import encodings.idna, psycopg2.extensions
        os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))
        # The interpreter of a closed home isn't there for others; any other can launch a server.
        if not os.access(sys.executable, os.X_OK):
            sys.executable = "/usr/bin/python3"
        if not os.path.exists(sys.executable) or not os.access(servers._programs() / "initdb", os.X_OK):
            sys.exit(77)
        with servers.server() as running:
            assert psutil.Process(running.pid).uids().real == os.getuid() != 0
            assert running.execute("SELECT 1") == [(1,)]
            running.kill(); running.start()
    """
    nobody = pwd.getpwnam("nobody")
    command = [sys.executable, "-c", program, str(ROOT), str(nobody.pw_uid), str(nobody.pw_gid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("the user nobody can reach no interpreter or no PostgreSQL here")
    assert done.returncode == 0, done.stderr


# The proxy


def test_proxy_forwards_and_counts(proxy: FaultProxy, through: Connection) -> None:
    """Left alone it only forwards, large values too, and knows its connections."""
    with through.cursor() as cursor:
        cursor.execute("SELECT %s", ("x" * 5_000_000,))
        assert cursor.fetchone() == ("x" * 5_000_000,)
    assert proxy.connections == 1
    through.close()
    eventually(lambda: proxy.connections == 0)


def test_proxy_forwards_half_closes() -> None:
    """Who ends his half of the conversation still hears the answer."""
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        FaultProxy(*target.getsockname()) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as client,
    ):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        served, _ = target.accept()
        with served, served.makefile("rb") as said:
            assert said.read() == b"question"
            served.sendall(b"answer")
        with client.makefile("rb") as said:
            assert said.read() == b"answer"


def test_throughput_is_limited(proxy: FaultProxy, through: Connection) -> None:
    """A megabyte takes as long as the link needs for it."""
    proxy.throughput(4e6)
    assert 0.2 <= _seconds(through, "SELECT repeat('x', 1000000)") < 2
    proxy.throughput(float("inf"))


def test_latency_is_for_each_direction(proxy: FaultProxy, through: Connection) -> None:
    """A round trip takes twice the latency, until it is taken back."""
    proxy.latency(0.1)
    assert 0.2 <= _seconds(through, "SELECT 1") < 2
    proxy.latency(0)
    assert _seconds(through, "SELECT 1") < 0.1


def test_stall_holds_back_until_resume(proxy: FaultProxy, database: Database, through: Connection) -> None:
    """Nothing passes, nothing is lost, and new connections wait as well."""
    proxy.stall()
    thread = threading.Thread(target=_run, args=(through, "INSERT INTO t VALUES (1)"))
    thread.start()
    with pytest.raises(psycopg2.OperationalError, match="timeout expired"):
        psycopg2.connect(proxy.dsn(database.dsn), connect_timeout=2)
    assert thread.is_alive()
    assert rows(database) == []
    proxy.resume()
    thread.join(10)
    assert rows(database) == [1]


def test_cut_resets_and_the_next_connection_works(proxy: FaultProxy, database: Database, through: Connection) -> None:
    """All connections die at once; the proxy goes on."""
    proxy.cut()
    assert proxy.connections == 0
    _fail(through, "SELECT 1")
    with closing(psycopg2.connect(proxy.dsn(database.dsn))):
        assert proxy.connections == 1


def test_cut_of_one_side_leaves_the_other_believing(proxy: FaultProxy, database: Database, through: Connection) -> None:
    """A client's connection is reset while the server keeps its session and locks, until the next cut."""
    _run(through, "BEGIN; LOCK TABLE t")
    proxy.cut(side="client")
    assert proxy.connections == 0
    _fail(through, "SELECT 1")
    held = "SELECT FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock'"
    time.sleep(0.2)  # the time in which a server that was told would have let go
    assert database.execute(held)
    proxy.cut()
    eventually(lambda: not database.execute(held))


def test_refused_connections_are_taken_again(proxy: FaultProxy, database: Database, through: Connection) -> None:
    """Refusing touches new connections only."""
    proxy.refuse()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        psycopg2.connect(proxy.dsn(database.dsn))
    _run(through, "INSERT INTO t VALUES (1)")
    proxy.accept()
    psycopg2.connect(proxy.dsn(database.dsn)).close()


@pytest.mark.parametrize(
    ("direction", "when", "stored"),
    [("client", "before", []), ("client", "after", [1]), ("server", "before", [1]), ("server", "after", [1])],
)
def test_cut_around_a_commit(
    proxy: FaultProxy,
    database: Database,
    through: Connection,
    direction: str,
    when: str,
    stored: list[int],
) -> None:
    """Nothing is stored before the server has the COMMIT; later it is, whether the client hears or not."""
    _run(through, "BEGIN; INSERT INTO t VALUES (1)")
    trap = proxy.cut_on(b"COMMIT\0", direction, when)  # type: ignore[arg-type]
    if (direction, when) == ("server", "after"):
        _run(through, "COMMIT")
    else:
        _fail(through, "COMMIT")
    trap.wait()
    _fail(through, "SELECT 1")
    eventually(lambda: not database.execute("SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"))
    assert rows(database) == stored
    with closing(psycopg2.connect(proxy.dsn(database.dsn))) as again:  # the trap springs once
        _run(again, "INSERT INTO t VALUES (2); COMMIT")


def test_cut_on_a_pattern_that_comes_in_pieces() -> None:
    """It is found across reads, and not found again in what has passed."""
    with socket.create_server(("127.0.0.1", 0)) as target, FaultProxy(*target.getsockname()) as proxy:
        trap = proxy.cut_on(b"abcd", times=2)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                served, _ = target.accept()
                with served:
                    client.sendall(b"..ab")
                    assert served.recv(10) == b"..ab"
                    client.sendall(b"cdefgh")
                    with pytest.raises(ConnectionResetError):
                        served.recv(10)
                    with pytest.raises(ConnectionResetError):
                        client.recv(10)
        trap.wait()
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            served, _ = target.accept()
            with served:
                client.sendall(b"abcd")
                assert served.recv(10) == b"abcd"


def test_cut_after_so_many_bytes() -> None:
    """Exactly so many get through, in one read or in several, and then the connection is reset."""
    with socket.create_server(("127.0.0.1", 0)) as target, FaultProxy(*target.getsockname()) as proxy:
        for parts in ([b"0123456789"], [b"012", b"3456", b"789"]):
            proxy.cut_after(5)
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                served, _ = target.accept()
                with served:
                    got = b""
                    with pytest.raises(ConnectionError):
                        for part in parts:
                            client.sendall(part)
                            while data := served.recv(10):
                                got += data
                                if len(got) % 5 != 0:
                                    break
                    assert got == b"01234"


def test_proxy_leaves_neither_thread_nor_socket() -> None:
    """After the block everything is as before, also with connections open, stalled and half cut."""
    process, before = psutil.Process(), threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as target:
        descriptors = process.num_fds()
        with FaultProxy(*target.getsockname()) as proxy:
            clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(2)]
            eventually(lambda: proxy.connections == 2)
            proxy.cut(side="server")
            clients.append(socket.create_connection(("127.0.0.1", proxy.port)))
            proxy.stall()
            clients[-1].sendall(b"held back")
        for client in clients:
            client.close()
        assert process.num_fds() == descriptors
    assert threading.active_count() == before


def test_proxy_is_for_loopback_only(proxy: FaultProxy) -> None:
    """It listens on 127.0.0.1 and nowhere else."""
    listening = [c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
    assert [a.ip for a in listening if a.port == proxy.port] == ["127.0.0.1"]


# What every test gets


def run_pytest(tmp_path: Path, tests: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What pytest says of these tests with our conftest as a plugin; leftovers get little time."""
    head = "import os, subprocess, tempfile\nfrom tests import conftest\nconftest.GRACE = 0.3\n"
    (tmp_path / "test_inner.py").write_text(head + tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PGHOST": "not.ours", "WORKERBEE_DSN": "not.ours"}
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, **options
    )


def test_a_test_that_leaves_an_orphan_fails_and_the_next_one_does_not(tmp_path: Path) -> None:
    """A process that nobody waits for any more is found, named and killed."""
    done = run_pytest(
        tmp_path,
        "def test_one(): subprocess.run(['sh', '-c', 'sleep 54321 >&- 2>&- &'], check=True)\ndef test_two(): pass\n",
    )
    assert "2 passed, 1 error" in done.stdout
    assert "sleep 54321" in done.stdout
    assert not [p for p in psutil.process_iter() if "54321" in _command_line(p)]


def test_a_run_that_leaves_processes_or_directories_fails(tmp_path: Path) -> None:
    """What outlives its test by right, a module's fixture or a server, must be gone at the end."""
    done = run_pytest(
        tmp_path,
        "import pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def sleeper(): return subprocess.Popen(['sleep', '54322'])\n"
        "def test_one(sleeper): tempfile.mkdtemp(prefix=f'workerbee-test-{conftest.RUN[:8]}-')\n",
    )
    assert "1 passed, 1 error" in done.stdout
    assert "sleep 54322" in done.stdout
    assert not [p for p in psutil.process_iter() if "54322" in _command_line(p)]
    done = run_pytest(tmp_path, "def test_one(): tempfile.mkdtemp(prefix=f'workerbee-test-{conftest.RUN[:8]}-')\n")
    assert "directories left behind" in done.stdout
    left = done.stdout.split("left behind: [PosixPath('")[1].split("'")[0]
    assert not Path(left).exists()


def test_what_tests_start_can_be_interrupted(tmp_path: Path) -> None:
    """Also where SIGINT was ignored when the tests began, as in a script's ``pytest … &``."""
    done = run_pytest(
        tmp_path,
        "import signal, sys\n"
        "def test_one():\n"
        "    sleeper = subprocess.Popen(['sleep', '60'])\n"
        "    sleeper.send_signal(signal.SIGINT)\n"
        "    assert sleeper.wait(10) == -signal.SIGINT\n",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert "1 passed" in done.stdout


def test_a_test_has_a_home_and_an_environment_of_its_own(tmp_path: Path) -> None:
    """Nothing of the user's comes through, and what a test writes to its home doesn't stay."""
    done = run_pytest(
        tmp_path,
        "homes = []\n"
        "def look():\n"
        "    assert not {'PGHOST', 'WORKERBEE_DSN'} & os.environ.keys()\n"
        "    homes.append(os.path.expanduser('~'))\n"
        "    for name in ('XDG_CONFIG_HOME', 'XDG_RUNTIME_DIR', 'WORKERBEE_HOME', 'WORKERBEE_KEY_FILE'):\n"
        "        assert os.environ[name].startswith(homes[-1])\n"
        "def test_one(): look()\n"
        "def test_two(): look(); assert homes[0] != homes[1] and not os.path.exists(homes[0])\n",
    )
    assert done.returncode == 0, done.stdout


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


# Waiting


def test_eventually_returns_what_it_waited_for_or_names_it() -> None:
    """The truthy value comes back; at the end of patience the error says what was missing."""
    values = iter([0, None, 3])
    assert eventually(lambda: next(values)) == 3
    with pytest.raises(AssertionError, match=r"a miracle .*was 0"):
        eventually(lambda: 0, timeout=0.05, what="a miracle")


def _run(connection: Connection, query: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(query)


def _fail(connection: Connection, query: str) -> None:
    with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
        _run(connection, query)


def _seconds(connection: Connection, query: str) -> float:
    start = time.monotonic()
    _run(connection, query)
    return time.monotonic() - start
