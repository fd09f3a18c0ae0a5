"""The same code is the same, other code is other: in the client, in its bee, in the next process."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import FunctionUnavailable


@pytest.fixture(scope="module")
def executor(one_database: Database) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(1, jobset_id="same_code", dsn=one_database.dsn) as running:
        running.submit(int).result()
        yield running


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


SCRIPT = """
import dataclasses, enum, os, sys
from workerbee import WorkerbeeExecutor

class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
class Planet(enum.Enum):
    EARTH = (5.9, 6.3)
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
class Counted:
    made = 0
    def __init__(self): type(self).made += 1
class Mistake(Exception):
    def __init__(self, n, *, why): super().__init__(n); self.why = why

def several(x):
    open(os.environ["RAN"], "a").write("x")
    return Color.CRIMSON, Planet.EARTH, Point(x), Counted()
def fails(x):
    raise Mistake(x, why=Color.RED)

if __name__ == "__main__":
    Counted(), Counted()
    with WorkerbeeExecutor(1, jobset_id="own_classes", dsn=sys.argv[1]) as executor:
        for results in (executor.submit(several, 3).result(), next(executor.map(several, [3]))):
            color, planet, point, counted = results
            assert color is Color.RED and planet is Planet.EARTH and planet.mass == 5.9
            assert point == Point(3) and type(point) is Point and type(counted) is Counted
            assert Counted.made == 2, Counted.made
        row, = (r for r in executor.results() if r["status"] == "completed")
        assert row["result"][0] is Color.RED
        try:
            executor.submit(fails, 1).result()
        except Mistake as error:
            assert error.why is Color.RED
"""


def test_results_are_of_the_script_s_own_classes(one_database: Database, tmp_path: Path) -> None:
    """In the process that submits, and in a second one that finds what the first has left."""
    script, ran = tmp_path / "script.py", tmp_path / "ran"
    script.write_text(SCRIPT)
    for _ in range(2):
        environment = os.environ | {"RAN": str(ran)}
        subprocess.run([sys.executable, str(script), one_database.dsn], env=environment, check=True, timeout=60)
    assert ran.read_text() == "x"


FUNCTIONS = """
import sys
from workerbee import WorkerbeeExecutor

class Kind:
    def rate(self): return 1
def greedy(n=1): return n
def thorough(n=1): return n
NAMES = {greedy: "greedy", Kind.rate: "rate"}
greedy.unit = "m"
def name(fn):
    import __main__
    return fn is greedy, fn is __main__.greedy, NAMES.get(fn)
def choose(n): return greedy, {"fn": thorough}, Kind.rate, Kind().rate
def count(fn):
    fn.calls = getattr(fn, "calls", 0) + 1
    return greedy.calls
versions = []
for n in (1, 2):
    def version(x=n): return x
    versions.append(version)

if __name__ == "__main__":
    with WorkerbeeExecutor(1, jobset_id=sys.argv[2], dsn=sys.argv[1]) as executor:
        names = [(True, True, "greedy"), (False, False, None), (False, False, "rate")]
        assert executor.submit(name, greedy).result() == names[0]
        assert list(executor.map(name, (greedy, thorough, Kind.rate), chunksize=3)) == names
        one, other, method, bound = executor.submit(choose, 3).result()
        assert one is greedy and other["fn"] is thorough and method is Kind.rate and bound.__func__ is method
        assert [executor.submit(count, greedy).result() for _ in range(2)] == [1, 2]
        assert vars(greedy) == {"unit": "m"}
        assert list(executor.map(lambda fn: fn(), versions)) == [1, 2]
        thorough.__defaults__ = (5,)
        assert executor.submit(lambda fn: fn(), thorough).result() == 5
"""


@pytest.mark.parametrize("jobset_id", ["own_functions", None])
def test_functions_of_a_script_are_its_own(one_database: Database, tmp_path: Path, jobset_id: str | None) -> None:
    """In a job an argument is the function that others name, and what comes back is the client's own."""
    (script := tmp_path / "script.py").write_text(FUNCTIONS.replace("sys.argv[2]", repr(jobset_id)))
    subprocess.run([sys.executable, str(script), one_database.dsn], check=True, timeout=60)


def edit(module: ModuleType, source: str) -> None:
    Path(str(module.__file__)).write_text(source)
    importlib.reload(module)


def test_a_reloaded_module_runs_anew(
    executor: WorkerbeeExecutor, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that has imported what was there before gives way to one that imports what is there now."""
    monkeypatch.syspath_prepend(str(directory))
    (directory / "reloaded_model.py").write_text("def f(x): return x * 2\n")
    module = importlib.import_module("reloaded_model")
    with WorkerbeeExecutor(1, dsn=executor._client._server.dsn) as own:  # its runner has this directory
        assert list(own.map(module.f, range(3))) == [0, 2, 4]
        edit(module, "def f(x): return x * 300\n")
        assert list(own.map(module.f, range(3), chunksize=2)) == [0, 300, 600]
        edit(module, "def f(x): return x * 4 + 0\n")
        assert own.submit(functools.partial(module.f, 2)).result() == 8
        edit(module, "def f(x, y=5): return x * y\n")
        assert own.submit(module.f, 2).result() == 10


def test_a_file_that_can_not_be_imported_goes_by_value(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """With its helpers and classes, and its results are of its classes."""
    path = tmp_path / "only_from_its_file.py"
    path.write_text(
        "K = 7\nclass Q:\n  def __init__(s, v): s.v = v\ndef h(x): return K * x\ndef g(x): return Q(h(x))\n"
    )
    spec = importlib.util.spec_from_file_location("only_from_its_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["only_from_its_file"] = module
    try:
        spec.loader.exec_module(module)
        result = executor.submit(module.g, 3).result()
        assert type(result) is module.Q
        assert result.v == 21
    finally:
        del sys.modules["only_from_its_file"]


@pytest.mark.parametrize("jobset_id", ["ghosts", None])
def test_a_function_that_no_bee_can_import_fails_its_own_calls(one_database: Database, jobset_id: str | None) -> None:
    """With the reason; other functions go on, before it and after it."""
    ghost: Any = ModuleType("a_module_of_no_file")
    exec("def f(x): return x", ghost.__dict__)
    sys.modules[ghost.__name__] = ghost
    try:
        with WorkerbeeExecutor(1, dsn=one_database.dsn, jobset_id=jobset_id) as executor:
            lost = [executor.submit(ghost.f, n) for n in range(5)]
            assert executor.submit(abs, -1).result(30) == 1
            for future in lost:
                with pytest.raises(FunctionUnavailable, match="a_module_of_no_file:f can't be imported here"):
                    future.result(30)
            with pytest.raises(FunctionUnavailable):
                executor.submit(ghost.f, 99).result(30)
            assert executor.submit(abs, -2).result(30) == 2
    finally:
        del sys.modules[ghost.__name__]


class Leaving:
    """Leaves where it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, ("leaving",)


def leaves_where_it_is_loaded() -> Any:
    leaving = Leaving()
    return lambda x: (leaving, x)


@pytest.mark.parametrize("jobset_id", ["leaving", None])
def test_a_function_that_leaves_where_it_is_loaded_fails_its_own_calls(
    one_database: Database, jobset_id: str | None, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whose module does: that is no initializer that has failed, and others' calls go on."""
    monkeypatch.syspath_prepend(str(directory))
    source = "import os, sys\nif 'RUNS_HERE' not in os.environ: sys.exit('for its script alone')\ndef f(x): return x\n"
    (directory / f"leaves_{jobset_id}.py").write_text(source)
    with WorkerbeeExecutor(1, dsn=one_database.dsn, jobset_id=jobset_id) as executor:
        executor.submit(int).result(60)
        monkeypatch.setenv("RUNS_HERE", "")
        module = importlib.import_module(f"leaves_{jobset_id}")
        monkeypatch.delenv("RUNS_HERE")
        for fn in (module.f, leaves_where_it_is_loaded()):
            with pytest.raises(FunctionUnavailable, match=r"SystemExit: (for its script alone|leaving)"):
                executor.submit(fn, 1).result(60)
            assert executor.submit(abs, -1).result(60) == 1


def test_a_bee_with_old_code_gives_no_results(
    one_database: Database, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts a new runner for the code that is there now; if that isn't the client's, it says so and leaves it."""
    monkeypatch.syspath_prepend(str(directory))
    path = directory / "code_of_a_bee.py"
    path.write_text("def f(x): return x + 1\n")
    module = importlib.import_module("code_of_a_bee")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "workerbee.bee", "old_code", "--dsn", one_database.dsn, "--busywait"]
    with (
        WorkerbeeExecutor(0, jobset_id="old_code", dsn=one_database.dsn) as executor,
        (directory / "log").open("w") as log,
    ):
        bee = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=directory)
        try:
            assert executor.submit(module.f, 1).result(60) == 2
            edit(module, "def f(x): return x + 10\n")
            assert executor.submit(module.f, 1).result(60) == 11
            edit(module, "def f(x): return x + 100\n")
            path.write_text("def f(x): return x + 1\n")  # what the bee's machine has
            waiting = executor.submit(module.f, 1)
            executor.flush()
            eventually(lambda: "leaves some jobs of old_code to others: the code of" in (directory / "log").read_text())
            assert not waiting.done()
            assert executor.submit(abs, -3).result(60) == 3
        finally:
            bee.send_signal(signal.SIGTERM)
            bee.wait()
            executor.cancel_running()


NOTEBOOK = """
def f(x): return x
def recursive(n): return n * recursive(n - 1) if n else 1
def make(k): return lambda x: x + k
class Scale:
    def __init__(self, k): self.k = k
    def m(self, x): return self.k * x
"""


def test_partials_closures_and_methods_are_no_versions_of_each_other(
    executor: WorkerbeeExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing has changed when another one of them is submitted; a recursive function is remembered."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(NOTEBOOK), space)
    with caplog.at_level(logging.INFO):
        for n in (1, 2):
            several = (functools.partial(space["f"], n), space["make"](n), space["Scale"](n).m)
            for fn in several:
                executor.submit(fn, *([] if isinstance(fn, functools.partial) else [3])).result()
        assert executor.submit(space["recursive"], 5).result() == 120
        first = executor.submit(space["recursive"], 5)
        assert first.result() == 120
        assert not first.inserted, "it is the job that was there"
        executor.submit(space["f"], 1).result()
        exec("def f(x): return -x", space)
        executor.submit(space["f"], 1).result()
    lines = [r.getMessage() for r in caplog.records if "has changed" in r.getMessage()]
    assert len(lines) == 1
    assert "1 stored results are left aside" in lines[0]


def test_what_can_not_be_compared_is_said_once(executor: WorkerbeeExecutor, caplog: pytest.LogCaptureFixture) -> None:
    """Such calls are run, each as a job of its own."""
    space: dict[str, Any] = {"__name__": "__main__"}
    source = """
        class Odd:
            def __init__(self): self.n = 0
            def __reduce_ex__(self, protocol):
                if protocol == 4: raise TypeError("no two of these are the same")
                return Odd, ()
        odd = Odd()
        def f(x): return odd.n + x
    """
    exec(textwrap.dedent(source), space)
    with caplog.at_level(logging.INFO):
        assert [executor.submit(space["f"], 1).result() for _ in range(2)] == [1, 1]
    [line] = [r.getMessage() for r in caplog.records if "can't be compared" in r.getMessage()]
    assert "__main__:f → odd (Odd: no two of these are the same)" in line


def test_thousands_of_functions(executor: WorkerbeeExecutor) -> None:
    """Closures and partials are stored many at once, each once."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(NOTEBOOK), space)
    futures = [executor.submit(space["make"](n), 1) for n in range(300)]
    again = [executor.submit(space["make"](n), 1) for n in range(300)]
    assert [f.result() for f in futures] == [f.result() for f in again] == list(range(1, 301))
    assert len({f.stored_job for f in (*futures, *again)}) == 300
