"""`watch`: how a jobset goes, live in a notebook by a real kernel, and as text elsewhere; and what futures say."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import as_completed, wait
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pexpect
import pytest
import tqdm

from tests.bees import PROJECT
from tests.faultproxy import FaultProxy
from tests.servers import Database
from tests.store.hive import Hive
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee import open as opened
from workerbee.store import Connection

SCRIPT = """
import sys, workerbee
with workerbee.open("study", dsn=sys.argv[1]) as study:
    watch = study.watch()
    input()
"""


@pytest.fixture
def study(shared: Database) -> Iterator[Hive]:
    """The jobset ``study`` with a job that is done and one that waits."""
    connection = Connection(shared.dsn)
    hive = Hive(connection, "study")
    bee = hive.bee()
    hive.add(2)
    bee.succeed(bee.take(1))
    hive.catalogue.leave(bee.incarnation)
    yield hive
    hive.catalogue.drop_jobset(hive.jobset)
    connection.close()


def notebook(dsn: str, home: Path) -> list[list[Any]]:
    """The outputs of a notebook's cells, after a kernel has run them."""
    cells = [
        f"import workerbee\nexecutor = workerbee.WorkerbeeExecutor(1, jobset_id='watched', dsn={dsn!r})",
        "watch = executor.watch()\nassert len(list(executor.map(abs, range(20)))) == 20\nwatch.stop()\nwatch",
        "failed = executor.submit(divmod, 1, 0)\nexecutor.flush(); failed.exception()\nfailed",
        "executor.watch().stop()",
        "executor.shutdown()",
    ]
    return run_cells(cells, home)


def run_cells(cells: list[str], home: Path, *options: str) -> list[list[Any]]:
    """The outputs of each cell, after a kernel with these options has run them all."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's machinery warns of its own affairs
        patch.setenv("PYTHONPATH", str(PROJECT))
        resources = {"metadata": {"path": str(home)}}
        nbclient.NotebookClient(made, timeout=120, resources=resources, extra_arguments=list(options)).execute()
    return [cell.outputs for cell in made.cells]


def test_a_notebook_keeps_the_last_numbers(shared: Database, environment: Path) -> None:
    """One display a cell, in HTML and text; run again, it starts at the true count. A failed future says what it is."""
    _, watched, failed, again, _ = notebook(shared.dsn, environment)
    [display] = [output for output in watched if output.output_type == "display_data"]
    assert [output.output_type for output in watched] == ["display_data"], "the watch itself shows nothing more"
    assert "Done: 20 completed." in display.data["text/html"]
    assert "width:100%" in display.data["text/html"]
    assert re.search(r"watched: Done: 20 completed\. \(as of [-\d]+ [:\d]+ \w+\)", display.data["text/plain"])
    [display] = again
    assert "Done: 20 completed, 1 failed." in display.data["text/plain"]
    assert "workerbee failures watched" in display.data["text/html"]
    said = failed[-1].data["text/plain"]
    host = re.escape(os.uname().nodename)
    pattern = rf"<JobFuture .* raised ZeroDivisionError: .*, job 21 on {host}>"
    assert re.fullmatch(pattern, said), said


PRINTING = """
import os, sys

def say(n):
    print(f"out {n}")
    os.system(f"echo err {n} >&2")
    sys.stdout.write(f"half of {n}")
"""


@pytest.mark.parametrize("watches", [True, False])
def test_prints_of_local_jobs_are_under_the_cell(shared: Database, environment: Path, watches: bool) -> None:
    """Of the cell that waits, whether or not a kernel watches its descriptors; the two streams stay apart."""
    made = f"import workerbee\nexecutor = workerbee.WorkerbeeExecutor(1, dsn={shared.dsn!r}, prefix_output=True)"
    cells = [
        PRINTING + made,
        # What comes after a cell's end is shown under it by a notebook, but isn't recorded by who runs the cells here.
        "import time\nexecutor.submit(say, 1).result()\ntime.sleep(1)",
        "executor.submit(say, 2).result()\nexecutor.shutdown()",
    ]
    outputs = run_cells(cells, environment, f"--IPKernelApp.capture_fd_output={watches}")
    first, *others = [{n: text_of(cell, n) for n in ("stdout", "stderr")} for cell in outputs]
    assert first == {"stdout": "", "stderr": ""}, "not under the cell that has made the executor"
    lines = [f"[job {n}] {said} {n}\n" for n in (1, 2) for said in ("out", "half of")]
    assert "".join(cell["stdout"] for cell in others) == "".join(lines)
    assert "".join(cell["stderr"] for cell in others) == "[job 1] err 1\n[job 2] err 2\n"


def text_of(outputs: list[Any], stream: str) -> str:
    return "".join(output.text for output in outputs if output.get("name") == stream)


def test_prints_go_where_the_program_has_put_its_stdout(shared: Database) -> None:
    """What isn't a file gets them as the program's own; a stream that breaks holds nobody up."""

    class Broken(io.TextIOBase):
        def write(self, _: str) -> int:
            raise RuntimeError

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(Broken()), WorkerbeeExecutor(1, dsn=shared.dsn) as made:
        made.submit(os.system, "echo caf\u00e9; printf half; head -c 300000 /dev/zero >&2").result(60)
    assert out.getvalue().splitlines() == ["caf\u00e9", "half"]


def test_a_file_gets_lines(shared: Database, study: Hive) -> None:
    """The first view and the last; it says that no bee is there, and what helps."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", SCRIPT, shared.dsn]
    done = subprocess.run(
        command, env=environment, input="\n", stderr=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert "study: Nobody works on it: 50 % of 2 jobs have ended, 1 is open, and no bee is there." in done.stderr
    assert "Next: python -m workerbee.bee study" in done.stderr
    assert done.stderr.count("\n") <= 3


def test_a_terminal_has_one_line_and_an_outage_is_said(shared: Database, study: Hive) -> None:
    """It is written over, no longer than the terminal is wide, and goes on when the server is back."""
    with FaultProxy("127.0.0.1", shared.server.port) as proxy:
        arguments = ["-c", SCRIPT, proxy.dsn(shared.dsn)]
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        child = pexpect.spawn(
            sys.executable, arguments, env=environment, dimensions=(24, 200), encoding="utf-8", timeout=60
        )
        child.expect_exact("Nobody works on it: 50 %")
        proxy.refuse()
        proxy.cut()
        child.expect_exact("The database hasn't answered since")
        proxy.accept()
        study.client.cancel_waiting([(2, 1)])
        child.expect_exact("\r\x1b[2Kstudy: Done: 1 completed, 1 cancelled.")
        child.sendline("")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_has_the_advice(shared: Database, study: Hive, columns: int) -> None:
    """In one line where it fits beside the beginning, and whole when the watch ends."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    arguments = ["-c", SCRIPT, shared.dsn]
    child = pexpect.spawn(
        sys.executable, arguments, env=environment, dimensions=(24, columns), encoding="utf-8", timeout=60
    )
    if columns >= 80:
        child.expect(r"study: Nobody works on it[^\r\n]*… Next: python -m workerbee.bee study \(\d\d:\d\d:\d\d\)")
    else:
        child.expect(r"study: Nobody works on it[^\r\n]*… \(\d\d:\d\d:\d\d\)")
    child.sendline("")
    child.expect(r"no bee is there\.\s+Next: python -m workerbee.bee study \(as of .*\)\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_watch_ends_with_what_it_belongs_to(shared: Database, capfd: pytest.CaptureFixture[str]) -> None:
    """With the executor, the handle, the next watch, or the jobset; nothing keeps the thread."""
    with WorkerbeeExecutor(0, jobset_id="brief", dsn=shared.dsn) as executor:
        first = executor.watch()
        second = executor.watch()
        assert (first.is_watching, second.is_watching) == (False, True)
    eventually(lambda: not second.is_watching, what="it ends with its executor")
    with opened("brief", dsn=shared.dsn) as handle:
        watch = handle.watch()
        assert "brief has no jobs yet." in repr(watch)
        assert handle.drop()
        eventually(lambda: not watch.is_watching, what="it ends with its jobset")
    assert "The jobset is gone." in capfd.readouterr().err


def test_futures_go_with_progress_bars(shared: Database, capfd: pytest.CaptureFixture[str]) -> None:
    """``tqdm(as_completed(futures))`` counts them all; a failed one says type, message, job and host."""
    with WorkerbeeExecutor(1, dsn=shared.dsn) as executor:
        futures = [executor.submit(abs, n) for n in range(5)]
        assert sorted(f.result() for f in tqdm.tqdm(as_completed(futures), total=len(futures))) == [0, 1, 2, 3, 4]
        failed = executor.submit(int, "seven\n" + "7" * 500)
        wait([failed])
        said = repr(failed)
        assert "raised ValueError: invalid literal for int() with base 10: 'seven\\n777" in said
        assert said.endswith(f"…, job {failed.job} on {os.uname().nodename}>")
    assert "5/5" in capfd.readouterr().err
