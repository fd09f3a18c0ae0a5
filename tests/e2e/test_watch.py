"""`watch`: how a jobset goes, live in a notebook by a real kernel, and as text elsewhere; and what futures say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import as_completed, wait
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
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    v4 = nbformat.v4
    cells = [
        f"import workerbee\nexecutor = workerbee.WorkerbeeExecutor(1, jobset_id='watched', dsn={dsn!r})",
        "watch = executor.watch()\nassert len(list(executor.map(abs, range(20)))) == 20\nwatch.stop()\nwatch",
        "failed = executor.submit(divmod, 1, 0)\nexecutor.flush(); failed.exception()\nfailed",
        "executor.watch().stop()",
        "executor.shutdown()",
    ]
    made = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's machinery warns of its own affairs
        patch.setenv("PYTHONPATH", str(PROJECT))
        nbclient.NotebookClient(made, timeout=120, resources={"metadata": {"path": str(home)}}).execute()
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


def test_a_file_gets_lines(shared: Database, study: Hive) -> None:
    """The first view and the last; it says that no bee is there, and what helps."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", SCRIPT, shared.dsn]
    done = subprocess.run(
        command, env=environment, input="\n", stderr=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert "study: Nobody works on it: 50 % of 2 jobs have ended, 1 are open, and no bee is there." in done.stderr
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
