"""The embedded server and local bees in surroundings that are about other things."""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from tests.conftest import MARKER
from tests.jobs import double
from tests.servers import Database, Server
from tests.users import identity, interpreter_for
from workerbee import JobSet, WorkerbeeExecutor, resources
from workerbee.errors import EncodingError
from workerbee.server import embedded

PROJECT = Path(embedded.__file__).parents[2]
PACKAGES = Path(psycopg2.__file__).parents[1]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes who and where it is")

#: What a shell may say to libpq about other servers.
ABOUT_OTHER_SERVERS = {
    "PGAPPNAME": "x",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "soon",
    "PGDATABASE": "nowhere",
    "PGDATESTYLE": "German",
    "PGGEQO": "off",
    "PGGSSDELEGATION": "1",
    "PGGSSENCMODE": "require",
    "PGGSSLIB": "nonsense",
    "PGKRBSRVNAME": "x",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGMAXPROTOCOLVERSION": "nonsense",
    "PGMINPROTOCOLVERSION": "nonsense",
    "PGOPTIONS": "-c default_transaction_read_only=on -c statement_timeout=1",
    "PGPASSFILE": "/nowhere",
    "PGPASSWORD": "x",
    "PGPORT": "1",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "somebody",
    "PGREQUIRESSL": "1",
    "PGSERVICEFILE": "/nowhere",
    "PGSSLCERT": "/nowhere",
    "PGSSLCERTMODE": "require",
    "PGSSLCRL": "/nowhere",
    "PGSSLCRLDIR": "/nowhere",
    "PGSSLKEY": "/nowhere",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1",
    "PGSSLMINPROTOCOLVERSION": "nonsense",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "system",
    "PGSSLSNI": "nonsense",
    "PGSYSCONFDIR": "/nowhere",
    "PGTARGETSESSIONATTRS": "standby",
    "PGTZ": "Asia/Kathmandu",
    "PGUSER": "nobody",
}
#: The same, when a program says it after it has begun with the embedded server.
TOO_LATE = {"PGHOST": "nowhere.invalid", "PGHOSTADDR": "192.0.2.1"}


def test_no_word_about_other_servers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server's connection string says all that it needs, whatever single variable says else."""
    with closing(embedded.start()) as server:
        for name, value in (ABOUT_OTHER_SERVERS | TOO_LATE).items():
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                with closing(psycopg2.connect(server.dsn)) as connection, connection.cursor() as cursor:
                    cursor.execute("SHOW default_transaction_read_only")
                    assert cursor.fetchone() == ("off",), name


def test_executor_beside_words_about_other_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients and local bees use it too, with all of that in their environment."""
    for name, value in ABOUT_OTHER_SERVERS.items():
        monkeypatch.setenv(name, value)
    with WorkerbeeExecutor(1, jobset_id="surrounded") as executor:
        assert executor.submit(double, 3).result(60) == 6
        assert [row["result"] for row in executor.results()] == [6]


class EndedBee(NamedTuple):
    """How a bee that served the jobset ``few`` to its end ended, and what it said."""

    status: int
    said: str


def bee(database: Database, *, python: str = sys.executable, **options: Any) -> EndedBee:
    """Run a bee of sixteen runners with nothing in its environment but what it needs, and ``env``."""
    command = [python, "-m", "workerbee.bee", "few", "--workers", "16", "--dsn", database.dsn]
    environment = {MARKER: os.environ[MARKER], "PYTHONPATH": f"{PROJECT}:{PACKAGES}"} | options.pop("env", {})
    done = subprocess.run(
        [*command, "--function", "builtins:dict"],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        cwd="/",
        env=environment,
        **options,
    )
    return EndedBee(done.returncode, done.stdout)


@pytest.fixture
def few(database: Database) -> Database:
    """A database with a jobset ``few``."""
    jobset = JobSet("few", **{k: v for k, v in parse_dsn(database.dsn).items() if k != "dbname"}, dbname=database.name)
    jobset.setup_jobset()
    jobset.add_jobs([{"n": k} for k in range(40)])
    return database


def n_completed(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM workerbee.few WHERE status = 'completed'")[0][0])


def limited(which: int, soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (soft, hard))


def test_few_open_files(few: Database) -> None:
    """A bee has as many runners as its limit allows, and says so."""
    done = bee(few, preexec_fn=limited(resource.RLIMIT_NOFILE, 64, 64))
    assert re.search(r"\d runners instead of 16, as only 64 files may be open here", done.said), done.said
    assert (done.status, n_completed(few)) == (0, 40)


def test_limit_that_may_be_raised(few: Database) -> None:
    """It raises its soft limit as far as it needs to."""
    done = bee(few, preexec_fn=limited(resource.RLIMIT_NOFILE, 64, 4096))
    assert "instead of" not in done.said
    assert (done.status, n_completed(few)) == (0, 40)


@only_root
@pytest.mark.parametrize(("n_processes", "status"), [(2, 70), (5, 0)])
def test_few_processes(few: Database, n_processes: int, status: int) -> None:
    """Where no more can be started, a bee makes do with the runners that it has; it ends if it has none."""
    user = identity(54321, 54321)  # who has no other process
    limit = limited(resource.RLIMIT_NPROC, n_processes, n_processes)
    done = bee(few, python=interpreter_for(user), preexec_fn=limit, **user)
    assert done.status == status, done.said
    assert re.search("no runner can be started: .*temporarily" if status else r"\d runners instead of 16", done.said)
    assert n_completed(few) == (0 if status else 40)


@only_root
def test_bee_of_a_user_without_entry_and_home(few: Database) -> None:
    """It runs the jobs that need no key, and leaves nothing behind."""
    user = identity(54322, 54322)
    for home in ({}, {"HOME": "/"}):
        assert bee(few, python=interpreter_for(user), env=home, **user).status == 0
        assert n_completed(few) == 40
    assert not Path("/var/tmp/workerbee-54322").exists()


@only_root
def test_embedded_server_without_a_home() -> None:
    """Its data are in a private directory then, which is said once; without an entry in /etc/passwd it says why not."""
    nobody = pwd.getpwnam("nobody")
    makeshift = Path(f"/var/tmp/workerbee-{nobody.pw_uid}")
    if makeshift.exists():
        pytest.skip(f"{makeshift} exists, and isn't ours to change")
    try:
        for uid, status, said in (
            (nobody.pw_uid, 0, str(makeshift)),
            (nobody.pw_uid, 0, ""),
            (54322, 1, "/etc/passwd"),
        ):
            done = said_to(identity(uid, nobody.pw_gid))
            assert (done.returncode, done.stdout) == (status, "" if status else "3\n"), done.stderr
            assert said in done.stderr
            assert bool(said) == bool(done.stderr)
        assert makeshift.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(makeshift, ignore_errors=True)


def said_to(user: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What a first program says that this user starts in a home that can't be written to."""
    script = "import workerbee as w\nwith w.WorkerbeeExecutor(1) as e: print(e.submit(abs, -3).result())"
    return subprocess.run(
        [interpreter_for(user), "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={MARKER: os.environ[MARKER], "PYTHONPATH": f"{PROJECT}:{PACKAGES}", "HOME": "/"},
        **user,
    )


def _named_in_bytes() -> None:
    """A host name that isn't UTF-8, for this process and its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x04000000) or libc.sethostname(b"bee\xff", 4):  # CLONE_NEWUTS
        raise OSError(ctypes.get_errno(), "sethostname")


@only_root
def test_host_name_in_bytes(few: Database) -> None:
    """It is shown with what stands for the bytes that no text has."""
    try:
        done = bee(few, preexec_fn=_named_in_bytes)
    except subprocess.SubprocessError:
        pytest.skip("no host name of our own to be had here")
    assert (done.status, n_completed(few)) == (0, 40), done.said
    show = [sys.executable, "-c", "from workerbee import resources; print(resources.host())"]
    assert subprocess.check_output(show, preexec_fn=_named_in_bytes, text=True, cwd=PROJECT) == "bee\\xff\n"


def test_cores_of_a_process() -> None:
    """They are those that it may run on, not those of the machine."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert resources.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_quota_of_a_container(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    """Both versions of control groups are understood."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert resources._quota_of(tmp_path) == quota


def test_what_the_server_refuses_fails_its_own_call(database: Database) -> None:
    """A sentence says that it was the server, and why; functions that are known go on."""
    with WorkerbeeExecutor(1, dsn=database.dsn, jobset_id="full") as executor:
        assert executor.submit(abs, -1).result(60) == 1
        [(numbers,)] = database.execute("SELECT pg_get_serial_sequence('workerbee.\"function$1\"', 'number')")
        database.execute("SELECT setval(%s, seqmax) FROM pg_sequence WHERE seqrelid = %s::regclass", numbers, numbers)
        refused = executor.submit(len, "")
        with pytest.raises(EncodingError, match=r"can't be stored: the server refuses it \(SequenceGenerator"):
            refused.result(60)
        assert executor.submit(abs, -2).result(60) == 2


def test_a_name_that_the_database_cannot_hold_fails_its_own_call(server: Server) -> None:
    """In a database of another encoding; what it can hold is stored, and comes back as it was."""
    name = f"latin_{uuid4().hex[:8]}"
    server.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def größe(x): return x\ndef 大きさ(x): return x", space)
    with WorkerbeeExecutor(1, dsn=server.dsn_of(name)) as executor:
        futures = [executor.submit(space[each], "é") for each in ("größe", "大きさ", "größe")]
        with pytest.raises(EncodingError, match=r"the encoding of this database lacks a character.* ENCODING 'UTF8'"):
            futures[1].result(60)
        assert [futures[n].result(60) for n in (0, 2)] == ["é", "é"]
        assert executor.submit(len, "大きさ").result(60) == 3
    Database(server, name).drop()


def pages() -> int:
    """Count the pages that the kernel has given for arrays of 24 MB that are made and dropped, ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for n in range(10):
        _ = [bytes([n]) * 8_000_000 for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="GNU's C library is told how to allocate")
@pytest.mark.parametrize("said", [None, "131072"])
def test_freed_memory_is_used_again_unless_the_environment_says_otherwise(
    database: Database, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    """Fresh pages take a runner longer than what it writes to them."""
    if said is not None:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", said)
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor:
        n = executor.submit(pages).result()
    once = 24_000_000 // resource.getpagesize()
    assert (n < 3 * once) is (said is None), n
