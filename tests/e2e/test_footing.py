"""What jobs leave behind in their runner, and what scripts inherit from whoever started them."""

from __future__ import annotations

import builtins
import colorsys
import decimal
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.bees import Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import FunctionUnavailable, RunnerDiedError

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def executor(shared: Database) -> Iterator[WorkerbeeExecutor]:
    """One runner, which all the jobs here have one after the other."""
    with WorkerbeeExecutor(1, dsn=shared.dsn) as made:
        made.submit(look).result(60)  # its processes are there before any test's
        yield made


# What a job leaves behind


class Unhelpful:
    """Whatever is asked of it, it raises; but it can be printed to."""

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        raise SystemExit

    @property
    def closed(self) -> bool:
        raise KeyError


def remove_directory() -> None:
    os.chdir(place := tempfile.mkdtemp())
    shutil.rmtree(place)


def lead_to_nobody() -> None:
    mine, others = os.pipe()
    for fd in (1, 2):
        os.dup2(others, fd)
    os.close(others)
    os.close(mine)


def ring_later() -> None:
    def ring(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)


def ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def refuse(*_: Any) -> None:
    raise LookupError


def allow_few_files(most: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


SPOILING: dict[str, Callable[[], Any]] = {
    "stdout is None": lambda: setattr(sys, "stdout", None),
    "stdout is closed": lambda: sys.stdout.close() or None,
    "stdout is gone": lambda: delattr(sys, "stdout"),
    "stdout has lost its buffer": lambda: sys.stdout.detach() and None,
    "stdout can't be flushed": lambda: setattr(sys, "stdout", Unhelpful()),
    "stderr is closed": lambda: sys.stderr.close() or None,
    "descriptor 1 is closed": lambda: os.close(1),
    "descriptors lead to nobody": lead_to_nobody,
    "descriptors are closed": lambda: os.closerange(0, 256),
    "few files may be open": lambda: allow_few_files(3),
    "no file may be open": lambda: allow_few_files(0),
    "the directory is gone": remove_directory,
    "an alarm is set": lambda: signal.alarm(1) or None,
    "an alarm that raises is set": ring_later,
    "signals are ignored": ignore_signals,
    "no depth is left": lambda: sys.setrecursionlimit(60),
    "calls are traced": lambda: sys.settrace(refuse),
    "threads are traced": lambda: threading.settrace(refuse),
    "threads are profiled": lambda: threading.setprofile(refuse),
    "__main__ is gone": lambda: sys.modules.pop("__main__") and None,
}


def look() -> list[Any]:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"to 1\n")
    time.sleep(0.3)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(1))
    thread.start()
    thread.join()
    return [
        os.getpid(),
        len(seen),
        Path.cwd().exists(),
        subprocess.run(["false"], check=False).returncode,
        signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "__main__" in sys.modules,
        sys.getrecursionlimit() > 500,
    ]


@pytest.mark.parametrize("spoil", SPOILING.values(), ids=SPOILING)
def test_what_a_job_leaves_behind_harms_no_other(executor: WorkerbeeExecutor, spoil: Callable[[], Any]) -> None:
    """It has succeeded, and the next job in the same runner finds what it needs."""
    before = executor.submit(look).result(60)
    assert executor.submit(spoil).result(60) is None
    assert executor.submit(look).result(60) == before == [before[0], 1, True, 1, True, True, True, True]


def leave_a_thread_and_no_language() -> None:
    threading.Thread(target=time.sleep, args=(1000,)).start()
    builtins.isinstance = None  # type: ignore[assignment]


def test_a_thread_that_a_job_leaves_keeps_no_spoilt_runner_alive(shared: Database) -> None:
    """A runner that can't go on is replaced at once, and the job that has spoilt it is blamed."""
    with WorkerbeeExecutor(1, dsn=shared.dsn) as executor:
        with pytest.raises(RunnerDiedError):
            executor.submit(leave_a_thread_and_no_language).result(60)
        assert executor.submit(abs, -3).result(60) == 3


def count_forked(n: int, path: str) -> int:
    """Fork a child that returns too, and later; each writes who it is."""
    child = os.fork()
    if child == 0:
        time.sleep(0.2)
    elif n == 0:
        os.waitpid(child, 0)
    with open(path, "a") as file:  # noqa: PTH123
        file.write(f"{n}\n" if child else "")
    return n if child else -1


def test_a_forked_child_that_returns_serves_nobody(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """It ends where the job's own process would say how the job has ended, whichever of the two comes first."""
    path = tmp_path / "jobs"
    jobs = executor.map(count_forked, range(20), [str(path)] * 20)
    assert list(jobs) == list(range(20))
    assert path.read_text().split() == [str(n) for n in range(20)]


def fork_and_leave(leave: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        return leave()  # type: ignore[no-any-return]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_ends_as_it_would_elsewhere(executor: WorkerbeeExecutor) -> None:
    """The job that waits for it sees its status."""
    leaving: list[Callable[[], Any]] = [int, lambda: sys.exit(3), sys.exit, lambda: sys.exit("why"), lambda: 1 / 0]
    assert [executor.submit(fork_and_leave, leave).result(60) for leave in leaving] == [0, 3, 0, 1, 1]


def test_what_is_loaded_later_finds_a_process_that_is_not_spoilt(shared: Database) -> None:
    """Where a job has left nothing to import with, others' functions get a new process; one that is nowhere fails."""
    ghost: Any = types.ModuleType("a_module_of_nowhere")
    exec("def f(x): return x", ghost.__dict__)
    sys.modules[ghost.__name__] = ghost
    try:
        with WorkerbeeExecutor(1, dsn=shared.dsn) as executor:
            assert executor.submit(lambda: sys.meta_path.clear() or sys.path_hooks.clear()).result(60) is None
            functions = (ghost.f, partial(colorsys.rgb_to_hsv, 0, 0), abs)
            futures = [executor.submit(fn, n) for n in range(5) for fn in functions]
            errors = [type(future.exception(60)) for future in futures]
    finally:
        del sys.modules[ghost.__name__]
    assert errors == [FunctionUnavailable, type(None), type(None)] * 5
    assert futures[1].result() == colorsys.rgb_to_hsv(0, 0, 0)


def test_a_job_that_forgets_all_modules_breaks_nothing(shared: Database) -> None:
    """Other functions get a new process: no initializer has failed where there is none."""

    def forget() -> None:
        for name in [name for name in sys.modules if name not in ("sys", "builtins")]:
            del sys.modules[name]

    with WorkerbeeExecutor(1, dsn=shared.dsn) as executor:
        assert executor.submit(forget).result(60) is None
        assert executor.submit(lambda n: n + 1, 1).result(60) == 2
        assert executor.submit(abs, -3).result(60) == 3


def change_modules() -> int:
    """As a job that freezes time, or leaves a patch behind."""
    warnings.simplefilter("error")
    os.getpid = lambda: 1
    signal.alarm, pickle.dumps = refuse, refuse
    for name in ("time", "monotonic", "perf_counter"):
        setattr(time, name, refuse if name == "monotonic" else int)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(640)
    return 10**700


def test_what_a_job_does_to_modules_harms_no_result(shared: Database) -> None:
    """Clocks that stand still, warnings that are errors, a process without its number: its end is told all the same."""
    with WorkerbeeExecutor(1, dsn=shared.dsn) as executor:
        pid = executor.submit(os.getpid).result(60)
        assert executor.submit(change_modules).result(60) == 10**700
        assert len(executor.submit(bytes, 11_000_000).result(60)) == 11_000_000
        assert executor.submit(os.path.realpath, "/proc/self").result(60) == f"/proc/{pid}"


def keep(path: str) -> None:
    sys.stdout = Path(path).open("w", buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(Path(path).parent)


def kept() -> list[Any]:
    print("kept")
    return [signal.getsignal(signal.SIGINT) is signal.SIG_IGN, str(Path.cwd())]


def test_what_an_initializer_sets_stays(shared: Database, tmp_path: Path) -> None:
    """Its stdout, directory and handlers are those of all jobs."""
    log = tmp_path / "log"
    with WorkerbeeExecutor(1, dsn=shared.dsn, initializer=keep, initargs=(str(log),)) as executor:
        assert [executor.submit(kept).result(60) for _ in range(2)] == [[True, str(tmp_path)]] * 2
    assert log.read_text() == "kept\nkept\n"


# What changes in the program


def where(module: str, name: str) -> list[Any]:
    return [__import__(module).WHOSE, os.environ.get(name), str(Path.cwd())]


def test_what_changes_later_reaches_new_functions(
    executor: WorkerbeeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory added to the path, a variable, another directory: the runner that is there goes along."""
    (tmp_path / "later.py").write_text("WHOSE = 'later'\ndef f(): return WHOSE")
    executor.submit(look).result(60)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SET_LATER", "yes")
    monkeypatch.chdir(tmp_path)
    import later  # noqa: PLC0415

    assert executor.submit(later.f).result(60) == "later"
    assert executor.submit(where, "later", "SET_LATER").result(60) == ["later", "yes", str(tmp_path)]
    monkeypatch.delenv("SET_LATER")
    assert executor.submit(lambda: where("later", "SET_LATER")).result(60)[1] is None


def exact() -> str:
    return str(decimal.Decimal(1) / 3)


def divide() -> Any:
    return np.divide(1.0, 0.0)


def go_deep(n: int) -> int:
    return n and go_deep(n - 1)


def complain() -> None:
    warnings.warn("see", stacklevel=1)


def test_what_a_program_says_of_computing_holds_in_jobs(shared: Database) -> None:
    """The depth of recursion, decimal digits, NumPy's errors and filters of warnings: as with a pool, and later too."""
    depth = sys.getrecursionlimit()
    with WorkerbeeExecutor(1, dsn=shared.dsn) as executor, warnings.catch_warnings():
        assert executor.submit(exact).result(60) == f"0.{'3' * 28}"
        try:
            sys.setrecursionlimit(4 * depth)
            decimal.getcontext().prec = 50
            np.seterr(divide="raise")
            warnings.simplefilter("error")
            warnings.filters.append(("ignore", lambda: 1, UserWarning, None, 0))  # it can't be pickled
            assert executor.submit(go_deep, 2 * depth).result(60) == 0
            assert executor.submit(lambda: f"{exact()}").result(60) == f"0.{'3' * 50}"
            with pytest.raises(FloatingPointError):
                executor.submit(divide).result(60)
            with pytest.raises(UserWarning, match="see"):
                executor.submit(complain).result(60)
        finally:
            sys.setrecursionlimit(depth)
            decimal.setcontext(decimal.DefaultContext.copy())
            np.seterr(divide="warn")
        assert executor.submit(lambda: (exact(), np.geterr()["divide"])).result(60) == (f"0.{'3' * 28}", "warn")


def who(seconds: float) -> tuple[Any, ...]:
    time.sleep(seconds)
    parent = multiprocessing.parent_process()
    me = multiprocessing.current_process()
    return me.name, me._identity, hash("a text"), parent and parent.pid


def test_runners_are_numbered_and_hash_alike(shared: Database) -> None:
    """Each has a number, which its successor takes over, and all the same seed."""
    with WorkerbeeExecutor(2, dsn=shared.dsn, max_tasks_per_child=1) as executor:
        found = {future.result(60) for future in [executor.submit(who, 0.5) for _ in range(4)]}
    assert {(name, number) for name, number, _, _ in found} == {(f"WorkerbeeProcess-{n}", (n,)) for n in (1, 2)}
    assert len({seed for _, _, seed, _ in found}) == 1
    assert {parent for *_, parent in found} == {os.getpid()}


# What the program was given

USES = """
import os, sys, signal, subprocess
def job():
    print("to stdout"); print("to stderr", file=sys.stderr)
    return subprocess.run(["false"]).returncode, len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), sys.stdin.read()
from workerbee import WorkerbeeExecutor
if __name__ == "__main__":
    import socket; socket.setdefaulttimeout(0.3)
    with WorkerbeeExecutor(1, dsn=os.environ["DSN"]) as executor:
        found = executor.submit(job).result(60)
        open(sys.argv[1], "w").write(repr(found))
"""


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_script_with_little(shared: Database, tmp_path: Path, closed: str) -> None:
    """Closed streams, an ignored SIGCHLD, blocked signals, impatient sockets: jobs run, and find none of that."""
    script, said = tmp_path / "script.py", tmp_path / "said"
    script.write_text(USES)

    def handicap() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1))

    command = f'exec "{sys.executable}" "{script}" "{said}" {closed}'
    environment = os.environ | {"DSN": shared.dsn, "PYTHONPATH": str(PROJECT)}
    with suppress(FileNotFoundError):
        said.unlink()
    options: dict[str, Any] = {"env": environment, "capture_output": True, "text": True, "preexec_fn": handicap}
    done = subprocess.run(command, shell=True, check=False, timeout=90, **options)
    assert said.exists(), done.stderr
    assert said.read_text() == "(1, 0, '')"
    assert done.stdout.split("\n")[:-1] == ([] if ">&-" in closed.split() else ["to stdout"])
    assert ("to stderr" in done.stderr) == ("2>&-" not in closed)


SPAWNS = """
import multiprocessing, os
from workerbee import WorkerbeeExecutor
def add(x): return x + 1
def unmentioned(x): return x + 2
def job():
    import __main__
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(add, [1]) + pool.map(getattr(__main__, "un" + "mentioned"), [1])
if __name__ == "__main__":
    with WorkerbeeExecutor(1, dsn=os.environ["DSN"]) as executor:
        print(executor.submit(job).result(60))
"""
NESTS = """
import multiprocessing, os
from workerbee import WorkerbeeExecutor
def add(x): return x + 1
def start():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(add, (1,)).get(20)
executor = WorkerbeeExecutor(1, dsn=os.environ["DSN"])
if multiprocessing.current_process().name == "MainProcess":
    try:
        print(executor.submit(start).result(60))
    except BaseException as error:
        print(type(error).__name__)
    executor.shutdown()
"""


def script(tmp_path: Path, text: str, dsn: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "script.py").write_text(text)
    environment = os.environ | {"DSN": dsn, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, str(tmp_path / "script.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)


HALVES = """
import os, time
from workerbee import WorkerbeeExecutor
def half(_):
    print(os.getpid(), end=" ")
    time.sleep(0.3)
if __name__ == "__main__":
    with WorkerbeeExecutor(2, dsn=os.environ["DSN"]) as executor:
        list(executor.map(half, range(6)))
"""


def test_half_lines_of_two_runners_never_meet(shared: Database, tmp_path: Path) -> None:
    """Jobs that print without ending the line share it with jobs of the same runner alone."""
    done = script(tmp_path, HALVES, shared.dsn)
    lines = [set(line.split()) for line in done.stdout.splitlines()]
    assert len(lines) > 1, done
    assert [len(line) for line in lines] == [1] * len(lines)
    assert len(set.union(*lines)) == 2


def test_a_job_spawns_what_imports_the_script(shared: Database, tmp_path: Path) -> None:
    """A spawned pool in a job finds the script's functions, those too that no job has brought."""
    assert script(tmp_path, SPAWNS, shared.dsn).stdout == "[2, 3]\n"


def test_an_unguarded_executor_is_refused_where_the_script_is_only_imported(shared: Database, tmp_path: Path) -> None:
    """As a pool would be, with what to do, and without a tower of executors."""
    done = script(tmp_path, NESTS, shared.dsn)
    assert "if __name__ == '__main__'" in done.stderr


# What a killed bee leaves behind


def start_something(path: str) -> None:
    child = subprocess.Popen(["sleep", "300"])
    Path(path).write_text(str(child.pid))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_killed_bees_jobs_have_started_ends(shared: Database, tmp_path: Path, frozen: bool) -> None:
    """The runner can't see to it: it is killed too, and may be frozen."""
    path = tmp_path / "pid"
    jobset = f"orphans_{'frozen' if frozen else 'running'}"
    with WorkerbeeExecutor(0, dsn=shared.dsn, jobset_id=jobset) as executor:
        executor.submit(start_something, str(path))
        executor.flush()
        with Bee(shared.dsn, jobset, environment={"PYTHONPATH": str(PROJECT)}) as bee:
            eventually(lambda: path.exists() and path.read_text(), 30)
            [runner] = bee.runners()
            child = psutil.Process(int(path.read_text()))
            if frozen:
                runner.suspend()
            os.kill(bee.process.pid, signal.SIGKILL)
            eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)
        executor.cancel()
