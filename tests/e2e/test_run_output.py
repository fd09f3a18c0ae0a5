"""What a program prints while `JobSet.run` runs jobs in it belongs to them, and is shown as ever."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.bees import PROJECT
from tests.e2e.test_jobset import NewJobSet, at, new
from tests.e2e.test_output import JOBS, SAID, stored
from tests.e2e.test_watch import run_cells, text_of
from tests.servers import Database
from tests.waiting import eventually

__all__ = ["new"]

#: C's buffer is emptied at the end of a job, as at any program's.
LATE = {SAID: "print {0}\nwrite {0}\nhalf {0}puts {0}\nhalf of C's {0}"}
SCRIPT = """
import logging, os, signal, sys, threading
from workerbee import JobFailedError, JobSet
from tests.e2e import test_output
jobset = JobSet("work", **{at!r})
{body}
"""
#: Each way of printing, and nothing, in turns; a stream that a job has closed or replaced is the program's to mend.
ALL = """
streams = sys.stdout, sys.stderr
def function(job):
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1, closefd=True) for n in (1, 2))
    try:
        job["kind"] is None or test_output.JOBS[job["kind"]][0](job["text"])
    except ValueError as error:
        raise JobFailedError("as told") from error
    finally:
        sys.stdout, sys.stderr = streams
print("before", flush=True)
jobset.run(function, max_n_retry_attempts=1)
print("after", flush=True)
os.system("echo after by another; echo after by another >&2")
"""


@pytest.fixture
def jobset(new: NewJobSet) -> Any:
    return new()


def start(database: Database, body: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT.format(at=at(database), body=body)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": ""}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace", **options
    )


def texts(database: Database, job: int) -> list[tuple[str, str]]:
    return [(row.stdout.decode(), row.stderr.decode()) for row in stored(database, "work", job)]


def test_each_line_is_with_its_job(jobset: Any, database: Database) -> None:
    """However it was printed; nothing is kept of those that print nothing, or of what isn't a job's."""
    kinds = [kind for n in range(3) for k in range(len(JOBS)) for kind in (k, None)]
    jobset.add_jobs({"kind": kind, "text": f"{n}"} for n, kind in enumerate(kinds))
    out, err = start(database, ALL).communicate(timeout=60)
    wanted = [
        [] if kind is None else [tuple(LATE.get(text, text).format(n) for text in JOBS[kind][1:])]
        for n, kind in enumerate(kinds)
    ]
    assert [texts(database, n + 1) for n in range(len(kinds))] == wanted
    shown = re.sub(r"\(\d\d:\d\d:\d\d\) .*\n", "", out)  # the log's lines
    assert out != shown, "the log is shown"
    printed = [said for job in wanted for said in job]
    assert shown == "before\n" + "".join(text for text, _ in printed) + "after\nafter by another\n"
    assert err == "".join(text for _, text in printed) + "after by another\n"


def test_a_question_is_seen_before_it_is_answered(jobset: Any, database: Database) -> None:
    """Half a line comes at once: a job may be looked at with a debugger."""
    jobset.add_job({"x": 1})
    asking = start(database, "jobset.run(lambda job: {'answer': input('how much? ')})", stdin=subprocess.PIPE)
    assert asking.stdin is not None
    assert asking.stdout is not None
    said = ""
    while not said.endswith("how much? "):
        said += (more := asking.stdout.read(1))
        assert more, said
    asking.stdin.write("42\n")
    asking.stdin.flush()
    asking.communicate(timeout=30)
    assert database.execute("SELECT output_data FROM workerbee.work") == [({"answer": "42"},)]


def test_the_death_of_its_bee_holds_no_print_up(jobset: Any, database: Database) -> None:
    """What hasn't been read is shown, and what comes afterwards, however much it is."""
    jobset.add_job({"x": 1})
    body = (
        "def function(job):\n"
        "    import psutil\n"
        "    print('begun')\n"
        "    [bee] = psutil.Process().children()\n"
        "    bee.kill()\n"
        "    for n in range(30_000):\n"
        "        print('line', n)\n"
        "jobset.run(function)\n"
    )
    out, err = start(database, body).communicate(timeout=60)
    assert [line for line in out.splitlines() if line.startswith("line")] == [f"line {n}" for n in range(30_000)]
    assert "BrokenWorkerbeeError" in err


def test_a_killed_program_leaves_what_it_had_printed(jobset: Any, database: Database, tmp_path: Path) -> None:
    """With the attempt that was lost."""
    jobset.add_job({"path": str(tmp_path / "printed")})
    body = "jobset.run(lambda job: (print('as far as this', flush=True), open(job['path'], 'w'), signal.pause()))"
    victim = start(database, body)
    eventually((tmp_path / "printed").exists)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert eventually(lambda: texts(database, 1)) == [("as far as this\n", "")]


def test_a_stream_of_the_programs_own_gets_the_text_too(jobset: Any, database: Database) -> None:
    """As in a test that captures, or with `redirect_stdout`; afterwards it is there again."""
    jobset.add_job({"x": 1})
    kept = []
    with redirect_stdout(io.StringIO()) as out:
        stream = sys.stdout
        jobset.run(lambda _: (print("by Python"), os.system("echo by another"), kept.append(sys.stdout))[-1])
        assert sys.stdout is stream
    print("by a logger that a job has made", file=kept.pop())
    eventually(lambda: "by a logger" in out.getvalue())
    lines = out.getvalue().splitlines()
    assert [line for line in lines if not line.startswith("(")] == [
        "by Python",
        "by another",
        "by a logger that a job has made",
    ]
    assert texts(database, 1) == [("by Python\nby another\n", "")]


def test_two_runs_at_once_dont_disturb_each_other(new: NewJobSet, database: Database) -> None:
    """The first one's jobs have what both print, as the descriptors are the process's; both ends leave them whole."""
    first, second = new("first"), new("second")
    first.add_job({"x": 1})
    second.add_job({"x": 2})
    both = threading.Barrier(2)
    target = os.fstat(1)
    runs = [
        threading.Thread(target=jobset.run, args=[lambda job: (both.wait(30), print("job", job["x"]), None)[-1]])
        for jobset in (first, second)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [row.status for jobset in (first, second) for row in jobset.jobs()] == ["completed"] * 2
    assert (os.fstat(1).st_dev, os.fstat(1).st_ino) == (target.st_dev, target.st_ino)
    print("here again")


@pytest.mark.parametrize("watches", [True, False])
def test_prints_are_under_the_cell(jobset: Any, database: Database, environment: Path, watches: bool) -> None:
    """Whether or not a kernel watches its descriptors; the two streams stay apart, and the jobs have theirs."""
    jobset.add_jobs({"x": n} for n in range(2))
    made = f"import os, sys, workerbee\njobset = workerbee.JobSet('work', **{at(database)!r}, logger_name='mine')"
    function = "def say(job):\n    print('out', job['x'])\n    os.system(f\"echo err {job['x']} >&2\")\n"
    outputs = run_cells(
        [made, f"{function}jobset.run(say)\nprint('after')"],
        environment,
        f"--IPKernelApp.capture_fd_output={watches}",
    )
    assert (text_of(outputs[1], "stdout"), text_of(outputs[1], "stderr")) == (
        "out 0\nout 1\nafter\n",
        "err 0\nerr 1\n",
    )
    assert [texts(database, n) for n in (1, 2)] == [[("out 0\n", "err 0\n")], [("out 1\n", "err 1\n")]]
