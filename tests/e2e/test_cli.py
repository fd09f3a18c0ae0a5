"""The commands as their users meet them: what they say, and the status they end with."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click
import psutil
import psycopg2.extensions
import pytest

import workerbee
from tests.bees import PROJECT, Bee
from tests.servers import Database
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.cli.demo import GRID, N_FOLDS
from workerbee.client.local_bee import LocalBee
from workerbee.orders import Orders

NOWHERE = "host=127.0.0.1 port=1"


class Said(NamedTuple):
    status: int
    out: str
    err: str


def run(*arguments: str, program: str = "workerbee", **environment: str) -> Said:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
    )
    return Said(done.returncode, done.stdout, done.stderr)


def in_terminal(*arguments: str, **environment: str) -> Said:
    """Run a command in a terminal of 100 columns; what appeared there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "workerbee", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux reports the end of a terminal as an error
        while chunk := os.read(ours, 1 << 16):
            shown += chunk
    os.close(ours)
    return Said(process.wait(60), shown.decode(), "")


# The command itself


def test_help_names_the_commands() -> None:
    """Help lists what there is."""
    said = run("--help")
    assert said.status == 0
    assert re.search(r"(?m)^  bee  +Claim and run jobs", said.out)
    assert re.search(r"(?m)^  demo +Search for a classifier's", said.out)


def test_version() -> None:
    """It says the version of the package."""
    assert run("--version").out == f"workerbee, version {workerbee.__version__}\n"


def test_bee_is_the_bee() -> None:
    """``workerbee bee`` is ``python -m workerbee.bee``, with its options, help and status."""
    assert run("bee", "--help") == run("--help", program="workerbee.bee")
    assert run("bee", "--workers", "0").status == 2


def test_our_errors_are_sentences() -> None:
    """A server that isn't there is one line, and the status of a bee without a database."""
    said = run("demo", PGHOST="127.0.0.1", PGPORT="1")
    assert (said.status, said.err.count("\n")) == (69, 1)
    assert said.err.startswith("workerbee: can't connect to PostgreSQL at 127.0.0.1 port 1: ")


# The demo


@pytest.fixture(scope="module")
def demo_runs(run_directory: Path) -> Iterator[list[Said]]:
    """Three runs of the demo without a terminal; the first is interrupted when a quarter is done."""
    home = run_directory / "demo"
    home.mkdir(mode=0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKERBEE_HOME", str(home))
        command = [sys.executable, "-u", "-m", "workerbee", "demo"]
        first = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        assert first.stdout is not None
        said = ""
        while "30/120" not in said:
            line = first.stdout.readline()
            assert line, f"it ended too early: {said}"
            said += line
        first.send_signal(signal.SIGINT)
        said += first.communicate(timeout=60)[0]
        yield [Said(first.returncode, said, ""), run("demo"), run("demo"), in_terminal("demo", NO_COLOR="1")]


def test_interrupted_demo(demo_runs: list[Said]) -> None:
    """Ctrl-C ends it soon, and it says how to go on."""
    status, said, _ = demo_runs[0]
    assert status == 130
    assert said.endswith("Interrupted. What is finished is stored; run the same command again to go on.\n")
    assert "Traceback" not in said


def test_demo_goes_on(demo_runs: list[Said]) -> None:
    """The next run computes only what the interrupted one had not, and a third one nothing."""
    assert [run.status for run in demo_runs[1:3]] == [0, 0]
    counts = [re.search(r"(\d+) computed now and (\d+) found", run.out) for run in demo_runs[1:3]]
    assert all(counts)
    [(now, found), (now_again, found_again)] = [map(int, match.groups()) for match in counts if match]
    assert now + found == 120
    assert found >= 30
    assert (now_again, found_again) == (0, 120)


def test_demo_finds_what_grid_search_finds(demo_runs: list[Said]) -> None:
    """The best parameters are GridSearchCV's for the same grid and folds."""
    import joblib  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.model_selection import GridSearchCV  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    images, digits = load_digits(return_X_y=True)
    # The corner of the grid that has the best of all in it: the whole takes as long as the demo.
    corner = {"C": GRID["C"][2:4], "gamma": GRID["gamma"][-4:], "kernel": GRID["kernel"]}
    with joblib.parallel_config("threading", n_jobs=2):
        search = GridSearchCV(SVC(), corner, cv=N_FOLDS).fit(images / 16, digits)
    best = ", ".join(f"{name}={search.best_params_[name]}" for name in GRID)
    for said in demo_runs[1:3]:
        assert f"Best: {best}, with an accuracy of {search.best_score_:.4f}\n" in said.out


def test_demo_in_a_terminal_without_color(demo_runs: list[Said]) -> None:
    """On a terminal there is a live line, and NO_COLOR is heeded."""
    status, shown, _ = demo_runs[3]
    assert status == 0
    assert "120/120 best so far" in shown
    assert "30/120" not in shown.splitlines()
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)


def test_demo_without_scikit_learn(tmp_path: Path) -> None:
    """It says what to install."""
    for package in (workerbee, click):
        (tmp_path / package.__name__).symlink_to(Path(package.__file__ or "").parent)
    command = [sys.executable, "-S", "-m", "workerbee", "demo"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the demo needs scikit-learn, which isn't installed: pip install scikit-learn\n",
    )


# The bee


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "0"], "'--workers': 0 is not in the range"),
        (["--function", "nope"], "'nope' is not of the form MODULE:NAME"),
        (["--wait", "-1"], "'--wait': -1.0 is not in the range"),
        (["--wait", "soon"], "'soon' is not a valid float"),
        (["--nonsense"], "No such option '--nonsense'"),
        (["one", "two"], "unexpected extra argument (two)"),
        (["--dsn", "password=sec ret"], "the connection string can't be read"),
    ],
)
def test_bad_usage(arguments: list[str], complaint: str) -> None:
    """What is wrong on the command line is said, without a traceback, with status 2."""
    said = run(*arguments, program="workerbee.bee")
    assert said.status == 2
    assert complaint in said.err
    assert "Traceback" not in said.err
    assert "ret'" not in said.err


def test_unreachable_server() -> None:
    """A bee says once that it can't reach its server, and gives up in time."""
    with Bee(NOWHERE, "--reconnect-timeout", "1") as bee:
        assert bee.wait() == 69
        lines = [line.partition("workerbee: ")[2] for line in bee.output.splitlines()]
        assert lines[0] == "using PostgreSQL at host=127.0.0.1 port=1"
        assert lines[1].startswith("can't connect to PostgreSQL at 127.0.0.1 port 1: ")
        assert lines[1].endswith("; trying again for 1 s")
        assert lines[2].startswith("PostgreSQL hasn't come back: ")
        assert len(lines) == 4
        assert lines[3].endswith("ends: done 0, failed 0, busy 0 s")


def test_a_password_on_the_command_line_is_warned_of() -> None:
    """``ps`` shows it to everybody; the warning doesn't."""
    for arguments in (("bee", "--reconnect-timeout", "0"), ("status",)):
        said = run(*arguments, "--dsn", f"{NOWHERE} password=hunter2 connect_timeout=2")
        assert said.status == 69
        assert "~/.pgpass" in said.out + said.err
        assert "hunter2" not in said.out + said.err


def test_stopped_while_it_waits_for_a_server() -> None:
    """A bee with nothing in hand ends at the first SIGTERM, though there is no server."""
    with Bee(NOWHERE) as bee:
        bee.says("trying again for 3600 s")
        bee.terminate()
        assert bee.wait() == 69


def test_client_that_dies_without_having_listened() -> None:
    """A local bee ends with its client, also when it has told the client things that were never read."""
    bee = LocalBee()
    bee.begin(Orders(NOWHERE, number=1))
    assert select.select([bee._socket], [], [], 30)[0]  # that it can't connect
    bee._socket.close()
    try:
        assert bee.process.wait(20) == 69
    finally:
        bee.process.kill()


def test_schema_that_is_not_for_this_user(database: Database) -> None:
    """A user who may not create the schema, or use it, is told so."""
    role = f"guest_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        guest = database.dsn.replace("user=postgres", f"user={role}")
        with Bee(guest) as bee:
            assert bee.wait() == 2
            assert "this user may not create it" in bee.output
        WorkerbeeExecutor(0, dsn=database.dsn).shutdown()
        with Bee(guest) as bee:
            assert bee.wait() == 2
            assert "this user may not use the schema" in bee.output
            assert "it lacks" in bee.output
            assert "Traceback" not in bee.output
    finally:
        database.execute(f"DROP ROLE {role}")


def test_passwords_are_told_to_nobody(database: Database, capfd: pytest.CaptureFixture[str]) -> None:
    """A password is in no log, no repr, and no argument or variable of a bee's environment."""
    secret = "hunter2hunter2"
    with WorkerbeeExecutor(1, dsn=f"{database.dsn} password={secret}") as executor:
        assert executor.submit(abs, -1).result(30) == 1
        assert secret not in repr(executor)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        assert executor._client._bee.process.pid in [process.pid for process in processes]
        for process in processes:
            with suppress(psutil.Error):
                assert not any(secret in part for part in (*process.cmdline(), *process.environ().values()))
    parts = psycopg2.extensions.parse_dsn(database.dsn)
    jobset = JobSet(
        "secretive", host=parts["host"], port=parts["port"], user="postgres", password=secret, dbname=parts["dbname"]
    )
    assert secret not in repr(jobset)
    jobset.close()
    said = "".join(capfd.readouterr())
    assert f"using PostgreSQL at user=postgres dbname={database.name} host=127.0.0.1" in said
    assert secret not in said
