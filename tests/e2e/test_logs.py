"""``workerbee jobs logs`` and ``stack``, the output of futures and handles: what jobs print, and where they are."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest

import workerbee
from tests.faultproxy import FaultProxy
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.cli import main
from workerbee.client.futures import JobFuture

COMMAND = [sys.executable, "-m", "workerbee"]


@pytest.fixture(scope="module")
def executor(shared: Database) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(2, dsn=shared.dsn, jobset_id="talk") as made:
        made.submit(abs, 0).result(60)
        yield made


def say(database: Database, *arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*map(str, arguments), "--dsn", database.dsn])


def await_running(database: Database, job: JobFuture[Any]) -> None:
    eventually(lambda: job.job is not None, 30)
    eventually(lambda: "running" in say(database, "jobs", "show", "talk", job.job).stdout.partition(",")[0], 30)


def speak(out: str, err: str, *, fails: bool = False) -> None:
    print(out)
    print(err, file=sys.stderr)
    if fails:
        raise ValueError(out)


def speak_on(path: str) -> None:
    """Until the file is there."""
    n = 0
    while not Path(path).exists():
        n += 1
        print("line", n, flush=True)
        time.sleep(0.05)
    print("the end")


def be_stuck(path: str) -> None:
    """In C, which holds no GIL and hears of no Python."""
    while not Path(path).exists():
        ctypes.CDLL(None).sleep(1)


def test_a_futures_output(executor: WorkerbeeExecutor, shared: Database) -> None:
    """A text, and both streams apart; of a failed job too, and by a handle."""
    good = executor.submit(speak, "one", "two")
    bad = executor.submit(speak, "three", "four", fails=True)
    silent = executor.submit(abs, -1)
    assert (good.result(60), good.output(), good.output().stderr) == (None, "one\ntwo\n", "two\n")
    assert isinstance(bad.exception(60), ValueError)
    assert bad.output().stdout == "three\n"
    assert (silent.result(60), silent.output()) == (1, "")
    with workerbee.open("talk", dsn=shared.dsn) as handle:
        assert handle.output(good.stored_job) == executor.output(good.stored_job) == "one\ntwo\n"


def test_logs_prints_what_is_stored(executor: WorkerbeeExecutor, shared: Database) -> None:
    """The streams apart; and as JSON; also with the job's other facts."""
    job = executor.submit(speak, "hello", "careful")
    job.result(60)
    said = say(shared, "jobs", "logs", "talk", job.job)
    assert (said.exit_code, said.stdout, said.stderr) == (0, "hello\n", "careful\n")
    [row] = map(json.loads, say(shared, "jobs", "logs", "talk", job.job, "--json").stdout.splitlines())
    assert (row["run"], row["stdout"], row["stderr"], row["stdout_bytes"]) == (1, "hello\n", "careful\n", 6)
    assert "stdout:\nhello\nstderr:\ncareful\n" in say(shared, "jobs", "show", "talk", job.job).stdout
    [text] = json.loads(say(shared, "jobs", "show", "talk", job.job, "--json").stdout)["texts"]
    assert text == row


def test_a_silent_job(executor: WorkerbeeExecutor, shared: Database) -> None:
    job = executor.submit(abs, -2)
    job.result(60)
    said = say(shared, "jobs", "logs", "talk", job.job)
    assert (said.exit_code, said.stdout) == (0, "")
    assert "has printed nothing" in said.stderr
    said = say(shared, "jobs", "stack", "talk", job.job)
    assert (said.exit_code, said.stdout) == (1, "")
    assert "it doesn't run" in said.stderr


@pytest.mark.parametrize("command", ["logs", "stack"])
@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("tlak", "1"), 2, "talk"),
        (("talk", "1000000"), 2, "there is no job 1000000 in talk"),
        (("talk", "one"), 2, "'one' is no job's number"),
        (("talk",), 2, "'ID' is missing"),
    ],
)
def test_mistakes(
    executor: WorkerbeeExecutor,
    shared: Database,
    command: str,
    arguments: tuple[str, ...],
    status: int,
    complaint: str,
) -> None:
    """Named, with what to type."""
    said = say(shared, "jobs", command, *arguments)
    assert (said.exit_code, said.stdout) == (status, "")
    assert complaint in said.stderr


@pytest.mark.parametrize("command", ["logs", "stack"])
def test_without_a_database(command: str) -> None:
    said = click.testing.CliRunner().invoke(main, ["jobs", command, "talk", "1", "--dsn", "host=127.0.0.1 port=1"])
    assert (said.exit_code, said.stdout) == (69, "")


def test_a_running_job_is_followed(executor: WorkerbeeExecutor, shared: Database, tmp_path: Path) -> None:
    """From its first line on, as it prints, until it has ended; each line once."""
    end = tmp_path / "end"
    job = executor.submit(speak_on, str(end))
    await_running(shared, job)
    arguments = ["jobs", "logs", "talk", str(job.job), "-f", "--dsn", shared.dsn]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(25)]
        assert not job.done(), "it is seen while the job runs"
        end.touch()
        lines += process.stdout.readlines()
        assert process.wait(30) == 0
    job.result(30)
    assert lines == [*(f"line {n}\n" for n in range(1, len(lines))), "the end\n"]
    row: Any = json.loads(say(shared, "jobs", "logs", "talk", job.job, "-f", "--json").stdout.splitlines()[-1])
    assert row["text"].endswith("the end\n")


def test_an_outage_is_said_and_what_follows_is_given(
    executor: WorkerbeeExecutor, shared: Database, tmp_path: Path
) -> None:
    """Nothing twice, and nothing left out."""
    job = executor.submit(speak_on, str(tmp_path / "enough"))
    await_running(shared, job)
    log = tmp_path / "stderr"
    with FaultProxy("127.0.0.1", shared.server.port) as proxy, log.open("wb") as stderr:
        command = [*COMMAND, "jobs", "logs", "talk", str(job.job), "-f", "--dsn", proxy.dsn(shared.dsn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as follower:
            assert follower.stdout is not None
            first = follower.stdout.readline()
            proxy.refuse()
            proxy.cut()
            eventually(lambda: "trying again" in log.read_text(), 30)
            proxy.accept()
            (tmp_path / "enough").touch()
            lines = [first, *follower.stdout]
    assert follower.returncode == 0, log.read_text()
    assert lines == [*(f"line {n + 1}\n" for n in range(len(lines) - 1)), "the end\n"]


def test_whoever_follows_may_go(executor: WorkerbeeExecutor, shared: Database, tmp_path: Path) -> None:
    """A closed pipe is no error; and nothing is shown any more when nobody has asked for a while."""
    end = tmp_path / "end"
    job = executor.submit(speak_on, str(end))
    await_running(shared, job)
    command = [*COMMAND, "jobs", "logs", "talk", str(job.job), "-f", "--dsn", shared.dsn]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line 1\n"
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (0, "")
    shared.execute('UPDATE workerbee."tail$" SET asked_until = now()')
    [(before,)] = shared.execute('SELECT max(pushed_at) FROM workerbee."tail$"')
    time.sleep(2.5)
    assert shared.execute('SELECT max(pushed_at) FROM workerbee."tail$"') == [(before,)]
    end.touch()
    job.result(30)


def test_where_a_job_is(executor: WorkerbeeExecutor, shared: Database, tmp_path: Path) -> None:
    """Though it is stuck in C; without what has called it, and twice."""
    end = tmp_path / "end"
    job = executor.submit(be_stuck, str(end))
    await_running(shared, job)
    for _ in range(2):
        said = say(shared, "jobs", "stack", "talk", job.job)
        assert said.exit_code == 0, said.output
        assert "test_logs.py" in said.stdout
        assert "in be_stuck" in said.stdout
        assert "perform" not in said.stdout
    document = json.loads(say(shared, "jobs", "stack", "talk", job.job, "--json").stdout)
    assert (document["schema"], document["job"]) == ("workerbee.stack/1", job.job)
    assert "in be_stuck" in document["stack"]
    end.touch()
    job.result(30)


PRINTING = """
import os, sys
from workerbee import WorkerbeeExecutor

def speak(n):
    print("out", n)
    print("err", n, file=sys.stderr)
    os.write(1, b"half")

if __name__ == "__main__":
    with WorkerbeeExecutor(1, dsn=sys.argv[1], prefix_output=True) as executor:
        list(executor.map(speak, range(2)))
"""


def test_lines_may_begin_with_their_job(shared: Database, tmp_path: Path) -> None:
    """In a terminal they appear as they are printed, the streams apart."""
    script = tmp_path / "printing.py"
    script.write_text(PRINTING)
    said = subprocess.run([sys.executable, script, shared.dsn], capture_output=True, text=True, check=True)
    lines = said.stdout.splitlines()
    jobs = [line.partition("]")[0] for line in said.stderr.splitlines() if "err" in line]
    assert lines == [f"{jobs[0]}] out 0", f"{jobs[0]}] half", f"{jobs[1]}] out 1", f"{jobs[1]}] half"]
    assert jobs[0].startswith("[job ")
