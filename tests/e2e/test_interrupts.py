"""Ctrl-C: what goes on is said in one line, the block is left at once, and whoever wants to stops the rest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor

#: How a script waits for 200 jobs of 20 s, each of which says that it runs.
WAITS = {
    "map": "list(executor.map(nap, [path] * 200, range(200)))",
    "result": "[f.result() for f in [executor.submit(nap, path, n) for n in range(200)]]",
}
SCRIPT = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it was started with SIGINT ignored
    from pathlib import Path
    from workerbee import WorkerbeeExecutor

    def nap(path, n):
        Path(f"{{path}}.{{n}}").touch()
        time.sleep(20)

    if __name__ == "__main__":
        path, dsn, jobset_id = sys.argv[1:]
        executor = WorkerbeeExecutor(1, dsn=dsn, jobset_id=jobset_id or None)
        {block}
"""
INSIDE = """
        try:
            with {executor}:
                {wait}
        except KeyboardInterrupt:
            print("left", time.time(), flush=True)
        {then}
"""


class Program:
    """A script of a user's, which waits for its jobs."""

    def __init__(self, place: Path, database: Database, jobset_id: str, block: str) -> None:
        self.naps = place / "nap"
        script = place / "script.py"
        script.write_text(dedent(SCRIPT.format(block=block)))
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.naps), database.dsn, jobset_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: self.n_naps() == 1, what="the first nap")

    def n_naps(self) -> int:
        return len([*self.naps.parent.glob("nap.*")])

    def interrupt(self) -> float:
        """When it was interrupted."""
        os.kill(self.process.pid, signal.SIGINT)
        return time.time()

    def end(self, timeout: float) -> tuple[str, str]:
        """What it has printed and logged."""
        return self.process.communicate(timeout=timeout)


@pytest.fixture
def start(tmp_path: Path, database: Database) -> Iterator[Callable[[str, str], Program]]:
    made: list[Program] = []

    def started(jobset_id: str, block: str) -> Program:
        made.append(Program(tmp_path, database, jobset_id, block))
        return made[-1]

    yield started
    for program in made:
        program.process.kill()
        program.process.wait()


@pytest.mark.parametrize(
    ("wait", "executor"), [("map", "executor"), ("result", "executor"), ("map", "executor.with_options(priority=1)")]
)
def test_a_block_is_left_at_once_and_the_jobset_can_be_cancelled(
    start: Callable[[str, str], Program], database: Database, wait: str, executor: str
) -> None:
    """From any process, waiting and running jobs; the program that was interrupted then has nothing to wait for."""
    program = start("naps", INSIDE.format(executor=executor, wait=WAITS[wait], then="pass"))
    began = program.interrupt()
    assert program.process.stdout is not None
    left = float(program.process.stdout.readline().split()[1])
    assert left - began < 2
    with WorkerbeeExecutor(0, dsn=database.dsn, jobset_id="naps") as other:
        assert other.cancel() == 200
        assert other.progress() == (0, 0, 0, 0, 200)
    _, logged = program.end(10)
    assert re.search(r"interrupted: of naps 199 jobs wait and 1 run; .*executor\.cancel\(\)", logged)
    assert logged.count("interrupted") == 1
    assert program.n_naps() == 1


def test_an_interrupt_outside_a_block_says_so_too(start: Callable[[str, str], Program], database: Database) -> None:
    """Once, whatever waited; the second one ends at once and says that."""
    program = start("naps", WAITS["result"])
    program.interrupt()
    assert program.process.stderr is not None
    logged = ""
    while "interrupted: of naps" not in logged:
        logged += program.process.stderr.readline()
    began = program.interrupt()
    _, rest = program.end(5)
    assert time.time() - began < 2
    assert "interrupted again" in rest
    assert (logged + rest).count("interrupted:") == 1
    assert program.process.returncode != 0
    with WorkerbeeExecutor(0, dsn=database.dsn, jobset_id="naps") as executor:
        eventually(lambda: executor.progress() == (200, 0, 0, 0, 0), what="what ran being given back")


#: A cell for each way to wait, interrupted in it, in a session that goes on.
CELLS = """
        import concurrent.futures, os, threading
        sys.ps1 = ">>> "  # as a shell or a kernel has it

        def is_waiting():
            frame = sys._current_frames()[threading.main_thread().ident]
            while frame.f_code.co_name == "wait" and "threading" in frame.f_code.co_filename:
                frame = frame.f_back
            return frame.f_code.co_name in ("exception", "wait", "as_completed")

        def interrupt():
            while not [*Path(path).parent.glob("nap.*")] or not is_waiting():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        futures = [executor.submit(nap, path, n) for n in range(200)]
        for cell in (
            lambda: futures[-1].result(),
            lambda: futures[-1].exception(timeout=60),
            lambda: concurrent.futures.wait([concurrent.futures.Future(), *futures], 60),
            lambda: list(concurrent.futures.as_completed(futures)),
            lambda: list(executor.map(nap, [path] * 200, range(200))),
        ):
            try:
                threading.Thread(target=interrupt).start()
                cell()
            except KeyboardInterrupt:
                print("caught", flush=True)
        executor.cancel()
        executor.shutdown()
"""


def test_each_interrupt_of_a_session_says_what_goes_on(start: Callable[[str, str], Program]) -> None:
    """Whatever waited outside a block; the executor is still there to be told to stop."""
    said, logged = start("naps", CELLS).end(90)
    assert said == "caught\n" * 5
    assert len(re.findall(r"interrupted: of naps \d+ jobs wait and 1 run; .*executor\.cancel\(\)", logged)) == 5, logged


@pytest.mark.parametrize(
    "block", [INSIDE.format(executor="executor", wait=WAITS["map"], then="pass"), WAITS["map"]], ids=["in", "out"]
)
def test_a_temporary_jobset_ends_with_its_interrupt(start: Callable[[str, str], Program], block: str) -> None:
    """Nobody else could have its results: what waits is cancelled, and what runs is stopped."""
    program = start("", block)
    began = program.interrupt()
    _, logged = program.end(8)
    assert time.time() - began < 4
    assert "interrupted: what waits is cancelled" in logged
    assert program.n_naps() == 1


def test_a_second_interrupt_in_a_block_ends_at_once(start: Callable[[str, str], Program]) -> None:
    """Also where the first one has left it already, and the local bee finishes what it runs."""
    program = start("naps", INSIDE.format(executor="executor", wait=WAITS["map"], then="time.sleep(60)"))
    program.interrupt()
    assert program.process.stdout is not None
    program.process.stdout.readline()
    began = program.interrupt()
    _, logged = program.end(5)
    assert time.time() - began < 3
    assert "interrupted" in logged


def test_the_first_interrupt_at_the_interpreter_s_exit_ends_at_once(start: Callable[[str, str], Program]) -> None:
    """There is nobody left to wait for the jobs, and the line says that it was the first. Nothing stays in memory."""
    submit = "[executor.submit(nap, path, n) for n in range(3)]"
    program = start("", f"print(executor._client._memory.path, flush=True); {submit}")
    program.interrupt()
    said, logged = program.end(8)
    assert Path(said.strip()).parent.is_dir()
    assert not Path(said.strip()).exists()
    assert re.search("interrupted: temporary jobset .* ends at once", logged), logged
    assert "interrupted again" not in logged
