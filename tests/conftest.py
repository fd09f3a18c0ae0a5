"""What every test gets: an environment of its own, a database if it wants one, and a check for leftovers."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import hypothesis
import psutil
import pytest

from tests import servers
from tests.servers import Database, Server
from tests.store.hive import LEASE
from tests.waiting import eventually
from workerbee.store import Connection, schema

#: In the environment of every process that a test starts, so that it is found also as an orphan.
MARKER = "WORKERBEE_TEST_RUN"
RUN = uuid4().hex
#: Seconds that a test's processes have after its end.
GRACE = 5.0
#: Servers of the standard library and of loky that, once needed, serve this process until it ends.
_COMPANIONS = ("resource_tracker", "multiprocessing.forkserver")

for _name in [n for n in os.environ if n.startswith(("PG", "WORKERBEE_")) or n in ("COLUMNS", "LINES")]:
    del os.environ[_name]
# Each of the processes that tests start would compile every module anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ[MARKER] = RUN

# Tests interrupt what they start. A script's ``pytest … &`` ignores SIGINT, and so would all its descendants.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine a single example may take long; and no directory of examples is left behind.
hypothesis.settings.register_profile("workerbee", deadline=None, database=None)
hypothesis.settings.register_profile("deep", deadline=None, database=None, max_examples=5000)
hypothesis.settings.register_profile("quick", deadline=None, database=None, max_examples=20)
hypothesis.settings.load_profile("workerbee")


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> Iterator[None]:
    """At the end nothing of this run is left: no process, and none of its directories."""
    yield
    processes = _end(_settled(_children(recursive=True) | _marked(), 2 * GRACE))
    places = {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")}
    directories = [path for place in places for path in place.glob(f"workerbee-test-{RUN[:8]}-*")]
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    assert not processes, f"processes left behind: {processes}"
    assert not directories, f"directories left behind: {directories}"


@pytest.fixture(scope="session", autouse=True)
def run_directory(no_leftovers: None) -> Iterator[Path]:
    """The run's own directory; others may pass through it, so that a server of root's can live in it."""
    directory = Path(tempfile.mkdtemp(prefix=f"workerbee-test-{RUN[:8]}-"))
    directory.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        _move_in(directory / "session", patch)
        yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def environment(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new home for each test: nothing of the user's is read or written. The value is the home."""
    home = run_directory / uuid4().hex[:8]
    _move_in(home, monkeypatch)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def unconfigured_logger() -> Iterator[None]:
    """Each test finds the logger as a program does that has configured nothing."""
    logger = logging.getLogger("workerbee")
    logger.handlers, logger.propagate, logger.disabled = [], True, False
    logger.setLevel(logging.NOTSET)
    yield
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def no_leftover_processes(environment: Path) -> Iterator[None]:
    """Each test ends the processes that it started, at the latest within GRACE of its end."""
    before = _children() | _marked()
    lasting = servers.RUNNING.copy()  # whoever made these closes them, also if a test has restarted them
    yield
    new = (_children() | _marked()) - before
    if new := {process for process in new if process.pid not in {server.pid for server in lasting}}:
        left = _end(_settled(new, GRACE))
        assert not left, f"this test left processes behind: {left}"


@pytest.fixture(scope="session")
def server(run_directory: Path) -> Iterator[Server]:
    """The session's PostgreSQL. Whoever stops or kills one starts a `tests.servers.server` for that."""
    with servers.server() as running:
        yield running


@pytest.fixture(scope="module")
def one_database(server: Server) -> Iterator[Database]:
    """One database for all tests of a file."""
    fresh = server.new_database()
    yield fresh
    fresh.drop()


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """An empty database for one test."""
    fresh = server.new_database()
    yield fresh
    fresh.drop()


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Database]:
    """A database for the tests of one file, with the schema in it."""
    database = server.new_database()
    connection = Connection(database.dsn)
    schema.ensure(connection)
    connection.close()
    # The server must have run for two leases before a bee may judge another one.
    eventually(lambda: database.execute("SELECT now() > pg_postmaster_start_time() + %s * interval '3s'", LEASE)[0][0])
    yield database
    database.drop()


@pytest.fixture
def connect(shared: Database) -> Iterator[Callable[[], Connection]]:
    """Makes connections to the shared database that end with the test."""
    made: list[Connection] = []

    def new() -> Connection:
        made.append(Connection(shared.dsn))
        return made[-1]

    yield new
    for connection in made:
        connection.close()


def _move_in(home: Path, patch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    home.chmod(0o711)
    patch.setenv("HOME", str(home))
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    patch.setenv("XDG_RUNTIME_DIR", str(runtime))
    patch.setenv("WORKERBEE_HOME", str(home / "workerbee"))
    patch.setenv("WORKERBEE_KEY_FILE", str(home / "key"))


def _children(*, recursive: bool = False) -> set[psutil.Process]:
    if recursive:
        return {p for p in psutil.Process().children(recursive=True) if _counts(p)}
    listed: list[str] = []
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
        with suppress(OSError), open(f"/proc/self/task/{thread}/children") as children:  # noqa: PTH123 (it may have ended)
            listed += children.read().split()
    return _processes(map(int, listed))


def _marked() -> set[psutil.Process]:
    """The processes of this run, whosever children they are by now. Asked twice a test, hence without psutil."""
    mark = f"{MARKER}={RUN}".encode()
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123
            if mark in environment.read():
                found.append(int(pid))
    return _processes(pid for pid in found if pid != os.getpid())


def _processes(pids: Iterable[int]) -> set[psutil.Process]:
    found = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.add(psutil.Process(pid))
    return {process for process in found if _counts(process)}


def _counts(process: psutil.Process) -> bool:
    try:
        dead = process.status() == psutil.STATUS_ZOMBIE
        return not dead and not any(name in part for part in process.cmdline() for name in _COMPANIONS)
    except psutil.Error:
        return False


def _settled(processes: set[psutil.Process], grace: float) -> set[psutil.Process]:
    """Those that are still there after at most ``grace`` seconds."""
    deadline = time.monotonic() + grace
    while (processes := {p for p in processes if p.is_running() and _counts(p)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return processes


def _end(processes: set[psutil.Process]) -> list[str]:
    """Kill these; what they were."""
    names = []
    for process in processes:
        with suppress(psutil.Error):
            names.append(f"{process.pid}: {' '.join(process.cmdline())[:300]}")
            process.kill()
    return names
