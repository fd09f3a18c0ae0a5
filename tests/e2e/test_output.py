"""What jobs print belongs to them: it is shown, kept with the attempt, and noted with the error."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobFailedError, WorkerbeeExecutor, timing
from workerbee.reading import JobsetReader, Reader, TextRow
from workerbee.store import Catalogue, Connection
from workerbee.wire.printed import HEAD_BYTES, SUCCESS_BYTES, TAIL_BYTES

SIZE = HEAD_BYTES + TAIL_BYTES


@pytest.fixture(scope="module")
def executor(shared: Database) -> Iterator[WorkerbeeExecutor]:
    """One runner, which all the jobs here have one after the other, many of them in one batch."""
    with WorkerbeeExecutor(1, dsn=shared.dsn, jobset_id="output") as made:
        made.submit(abs, 0).result(60)  # its processes are there before any test's
        yield made


def stored(database: Database, jobset_id: str, job: int | None) -> list[TextRow]:
    """What the executions of a job have printed, the last one first."""
    assert job is not None
    connection = Connection(database.dsn)
    try:
        jobset = Catalogue(connection).find_jobset(jobset_id)
        assert jobset is not None
        return JobsetReader(connection, jobset).texts(job)
    finally:
        connection.close()


@pytest.fixture(scope="module")
def reader(shared: Database, executor: WorkerbeeExecutor) -> Iterator[JobsetReader]:
    connection = Connection(shared.dsn)
    jobset = Catalogue(connection).find_jobset("output")
    assert jobset is not None
    yield JobsetReader(connection, jobset)
    connection.close()


def say(text: str) -> None:
    """In each way that there is, to both streams."""
    libc = ctypes.CDLL(None)
    print("print", text)
    print("stderr", text, file=sys.stderr)
    os.write(1, f"write {text}\n".encode())
    libc.puts(f"puts {text}".encode())
    libc.printf(f"half of C's {text}".encode())
    sys.stdout.write(f"half {text}")


SAID = "print {0}\nwrite {0}\nputs {0}\nhalf of C's {0}half {0}"


def in_a_thread(text: str) -> None:
    thread = threading.Thread(target=say, args=[text])
    thread.start()
    thread.join()


def in_a_process(text: str) -> None:
    subprocess.run(["sh", "-c", f"echo out {text}; echo err {text} >&2"], check=True)


def without_stdout(text: str) -> None:
    sys.stdout.close()
    os.write(1, f"closed {text}\n".encode())


def with_another_stdout(text: str) -> None:
    with open(os.devnull, "w") as sys.stdout:  # noqa: PTH123
        print("nowhere")
    os.write(1, f"replaced {text}\n".encode())


def binary(text: str) -> None:
    os.write(1, bytes(range(256)) + text.encode())


def fail(text: str) -> None:
    print("before", text)
    raise ValueError(text)


def crash(text: str) -> None:
    print("here", text)
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(text: str) -> None:
    os.write(1, f"leaving {text}".encode())
    os._exit(3)


def be_silent(text: str) -> None:
    pass


JOBS: list[tuple[Callable[[str], None], str, str]] = [
    (say, SAID, "stderr {0}\n"),
    (in_a_thread, SAID, "stderr {0}\n"),
    (in_a_process, "out {0}\n", "err {0}\n"),
    (without_stdout, "closed {0}\n", ""),
    (with_another_stdout, "replaced {0}\n", ""),
    (fail, "before {0}\n", ""),
]


def texts(reader: JobsetReader, job: int | None) -> list[TextRow]:
    assert job is not None
    return reader.texts(job)


def run(function: Callable[[str], None], text: str) -> None:
    """A batch of one function's jobs has jobs of all kinds."""
    function(text)


def test_each_line_is_with_its_job(executor: WorkerbeeExecutor, reader: JobsetReader) -> None:
    """However it was printed, in batches of tiny jobs; nothing is kept of those that print nothing."""
    list(executor.map(abs, range(100)))
    jobs = [(function, f"{n}.{k}", out, err) for n in range(15) for k, (function, out, err) in enumerate(JOBS)]
    futures = []
    for function, text, out, err in jobs:
        futures += [(executor.submit(run, function, text), out.format(text), err.format(text))]
        futures += [(executor.submit(run, be_silent, text), "", "")]
    for future, out, err in futures:
        with suppress(ValueError):
            future.result(60)
        rows = texts(reader, future.job)
        found = [(row.stdout.decode(), row.stderr.decode()) for row in rows]
        assert found == ([(out, err)] if out + err else [])


def test_a_text_is_cut(executor: WorkerbeeExecutor, reader: JobsetReader) -> None:
    """Of a failure its beginning and its end are kept, of a success the end; and it is known how much it was."""

    def print_much(fails: bool) -> None:
        print("first")
        for n in range(20_000):
            print("line", n)
        if fails:
            raise KeyError

    good, bad = executor.submit(print_much, False), executor.submit(print_much, True)
    assert isinstance(bad.exception(60), KeyError)
    good.result(60)
    [[kept], [all_there_is]] = texts(reader, good.job), texts(reader, bad.job)
    assert (len(kept.stdout), len(all_there_is.stdout)) == (SUCCESS_BYTES, SIZE)
    assert kept.stdout_size == all_there_is.stdout_size == 6 + sum(len(f"line {n}\n") for n in range(20_000))
    assert all_there_is.stdout.startswith(b"first\nline 0\n")
    assert all_there_is.stdout.endswith(b"line 19999\n")
    assert kept.stdout.endswith(b"line 19999\n")
    shown = all_there_is.printed.text(1)
    assert f"\n[{kept.stdout_size - SIZE:,} bytes are missing here]\n" in shown


def test_a_death_leaves_its_text(shared: Database) -> None:
    """With each attempt of its own job; those around it have theirs."""
    with WorkerbeeExecutor(2, dsn=shared.dsn, jobset_id="deaths") as executor:
        futures = [executor.submit(run, function, function.__name__) for function in (say, crash, leave, say)]
        errors = [future.exception(60) for future in futures]
    said, crashed, left, _ = [stored(shared, "deaths", future.job) for future in futures]
    assert [row.stdout.decode() for row in said] == [SAID.format("say")]
    assert [row.stdout.decode() for row in crashed] == 3 * ["here crash\n"]
    assert all(b"Segmentation fault" in row.stderr for row in crashed)
    assert [row.stdout.decode() for row in left] == 3 * ["leaving leave"]
    if sys.version_info >= (3, 11):
        assert "leaving leave" in errors[2].__notes__[-1]


def test_a_flood_blocks_nobody(executor: WorkerbeeExecutor, reader: JobsetReader) -> None:
    """While a gigabyte is printed its bee keeps its heartbeat and its memory; of the text the end is kept."""
    bee = psutil.Process(executor._client._bee.process.pid)
    size = bee.memory_info().rss
    future = executor.submit(subprocess.run, ["head", "-c", "1000000000", "/dev/zero"], check=True)
    silences, sizes = [], [size]
    while not future.done():
        silences += [row.silent_for for row in Reader(reader.connection).bees(reader.jobset)]
        sizes.append(bee.memory_info().rss)
        time.sleep(0.1)
    # It beats seldom when idle: what counts is after its first heartbeat here.
    beaten = next(n for n, (one, other) in enumerate(pairwise(silences), 1) if other < one)
    assert max(silences[beaten:]) < timing.LEASE_SECONDS
    assert max(sizes) < size + 100_000_000
    [row] = reader.texts(future.stored_job)
    assert (row.stdout_size, row.stdout) == (1_000_000_000, bytes(SUCCESS_BYTES))


def test_silent_jobs_write_no_text_and_a_cancelled_one_leaves_its_own(shared: Database, tmp_path: Path) -> None:
    """Not a byte where nothing was printed; as far as a job came, what it said may be the reason for cancelling it."""

    def hang(path: Path) -> None:
        print("stuck here")
        path.touch()
        time.sleep(60)

    with WorkerbeeExecutor(1, dsn=shared.dsn, jobset_id="stuck") as executor:
        list(executor.map(abs, range(100)))
        assert text_bytes(shared, "stuck") == 0
        future = executor.submit(hang, tmp_path / "began")
        eventually((tmp_path / "began").exists, what="the job has begun")
        assert executor.cancel() == 1
        [row] = eventually(lambda: stored(shared, "stuck", future.job), what="its text is stored")
        assert text_bytes(shared, "stuck") > 0
    assert row.stdout == b"stuck here\n"


def text_bytes(database: Database, jobset_id: str) -> int:
    """The size of the table of a jobset's texts, which never shrinks."""
    size = (
        "SELECT pg_relation_size(format('workerbee.%%I', 'text$' || number)) FROM workerbee.\"jobset$\" WHERE id = %s"
    )
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(size, [jobset_id])
        [(size_now,)] = cursor.fetchall()
    return int(size_now)


SMALL = """
import sys
from workerbee.store import BeeStore
BeeStore.keep_texts.__defaults__ = (0,)
from workerbee.bee.__main__ import main
sys.exit(main())
"""


def test_a_full_jobset_keeps_the_text_of_failures_and_it_is_said_once(shared: Database) -> None:
    """A bee that has another limit than 1 GB, as that takes long to print."""
    with WorkerbeeExecutor(0, dsn=shared.dsn, jobset_id="full") as executor:
        good = [executor.submit(print, n) for n in range(5)]
        bad = executor.submit(run, fail, "too much")
        executor.flush()
        command = [sys.executable, "-c", SMALL, "full", "--dsn", shared.dsn, "--workers", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout + done.stderr).count("from now on that of failed ones alone is kept") == 1
    assert not any(stored(shared, "full", future.job) for future in good)
    assert [row.stdout for row in stored(shared, "full", bad.job)] == [b"before too much\n"]


def test_notes_carry_the_last_lines(executor: WorkerbeeExecutor) -> None:
    """Of a raised error, in the order in which they were printed."""

    def fail_after_lines() -> None:
        for n in range(30):
            print("line", n)
        raise JobFailedError

    error = executor.with_options(max_n_retry_attempts=1).submit(fail_after_lines).exception(60)
    if sys.version_info >= (3, 11):
        assert error.__notes__[-1].splitlines()[1:] == [f"line {n}" for n in range(10, 30)]
