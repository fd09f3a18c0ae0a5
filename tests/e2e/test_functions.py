"""Whatever can be called here can be called by a bee: functions of every kind and from everywhere."""

from __future__ import annotations

import copyreg
import functools
import importlib.util
import numbers
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sized
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tests.servers import Database, Server
from workerbee import WorkerbeeExecutor

FACTOR = 3


@pytest.fixture(scope="module")
def executor(server: Server) -> Iterator[WorkerbeeExecutor]:
    database = server.new_database()
    with WorkerbeeExecutor(1, dsn=database.dsn) as running:
        running.submit(int).result()  # the bee has its runner
        yield running
    database.drop()


def closure(n: int) -> Callable[[int], int]:
    def add(m: int) -> int:
        return n + m

    return add


def recursive() -> Callable[[int], int]:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    return factorial


def mutual() -> Callable[[int], bool]:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    return even


def of_globals(n: int) -> int:
    return FACTOR * n


class Scale:
    """Its instances are called, and have a method of each kind."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, n: int) -> int:
        return self.factor * n

    def twice(self, n: int) -> int:
        return 2 * self(n)

    @classmethod
    def named(cls, n: int) -> str:
        return f"{cls.__name__} {n}"

    @staticmethod
    def plain(n: int) -> int:
        return -n


def local_class() -> Callable[[int], int]:
    class Base:
        def __call__(self, n: int) -> int:
            return n + 1

    class Derived(Base):
        def __call__(self, n: int) -> int:
            return super().__call__(n) * 2

    return Derived()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(lambda n: n + 1, 5, id="lambda"),
        pytest.param(closure(2), 6, id="closure"),
        pytest.param(recursive(), 24, id="recursive"),
        pytest.param(mutual(), True, id="mutually recursive"),
        pytest.param(of_globals, 12, id="global"),
        pytest.param(functools.partial(pow, 2), 16, id="partial"),
        pytest.param(functools.partial(closure(2)), 6, id="partial of a closure"),
        pytest.param(Scale(5), 20, id="callable object"),
        pytest.param(Scale(5).twice, 40, id="method"),
        pytest.param(Scale.named, "Scale 4", id="class method"),
        pytest.param(Scale.plain, -4, id="static method"),
        pytest.param(local_class(), 10, id="object of a local class"),
        pytest.param([1, 2, 3, 4, 4].count, 2, id="method of a builtin"),
        pytest.param(functools.lru_cache(of_globals), 12, id="cached function"),
        pytest.param(np.sqrt, 2.0, id="ufunc"),
    ],
)
def test_every_kind_of_function(executor: WorkerbeeExecutor, function: Callable[[int], Any], expected: object) -> None:
    """The result is what the function gives here, and of that type."""
    result = executor.submit(function, 4).result()
    assert result == expected == function(4)
    assert type(result) is type(function(4))


class Guarded:
    """Holds what can't be pickled."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.lock = threading.Lock()


LOCK, CURRENT = threading.Lock(), ContextVar("current", default="none")
HERE = f"from {__name__} import LOCK, CURRENT; import {__name__} as here"
#: Globals that pickle refuses, and a use of each.
REFUSED = {
    "a lock of a module": (HERE, "LOCK is here.LOCK and not LOCK.locked()", True),
    "a context variable of a module": (HERE, "[here.CURRENT.set(1), CURRENT.get()][1]", 1),
    "a format": ("import struct; k = struct.Struct('<H')", "k.unpack(b'ab')", (25185,)),
    "a format's method": ("import struct; k = struct.Struct('<H').unpack", "k(b'ab')", (25185,)),
    "the system's randomness": ("from secrets import choice", "choice('a')", "a"),
    "a cache of weak references": ("import weakref; k = weakref.WeakValueDictionary()", "len(k)", 0),
    "a library in C": ("import ctypes; k = ctypes.CDLL(None)", "k.abs(-3)", 3),
    "a function in C, whose types are set": (
        """import ctypes; lib = ctypes.CDLL('libm.so.6'); k = lib.cos
k.restype = ctypes.c_double; k.argtypes = [ctypes.c_double]""",
        "lib.cos(0), k(0)",
        (1.0, 1.0),
    ),
    "what is checked of a function in C": (
        "import ctypes; k = ctypes.CDLL(None).abs; k.errcheck = lambda got, *_: -got",
        "k(-3)",
        -3,
    ),
    "a pointer of C": (
        "import ctypes; k = ctypes.POINTER(ctypes.c_double)",
        "k is ctypes.POINTER(ctypes.c_double) and k(ctypes.c_double(2)).contents.value",
        2.0,
    ),
    "an array of C": ("import ctypes; k = ctypes.c_int * 3", "list(k(1, 2, 3))", [1, 2, 3]),
    "a callback of C": ("import ctypes; k = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)", "k(abs)(-3)", 3),
}


@pytest.mark.parametrize(("source", "use", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_pickle_refuses_but_each_process_has(
    executor: WorkerbeeExecutor, source: str, use: str, expected: object
) -> None:
    """The runner makes its own, or finds it in the module that it is imported from, as a pool's worker does."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(f"{source}\ndef f(): return {use}", space)
    assert executor.submit(space["f"]).result() == expected


def test_an_abstract_class_of_a_module_is_told_of_a_script_s_class(executor: WorkerbeeExecutor) -> None:
    """In a job it counts as a subclass, by itself and in arguments, and what is told later counts too."""

    class Told:
        pass

    def counts(kind: type, thing: object = None) -> bool:
        return isinstance(Told() if thing is None else thing, kind)

    assert not executor.submit(counts, numbers.Number).result()
    numbers.Number.register(Told)
    assert executor.submit(counts, numbers.Number).result()
    Sized.register(Told)
    assert executor.submit(isinstance, Told(), Sized).result()


def test_pickling_as_the_program_has_told_it(executor: WorkerbeeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that the program itself has given to `copyreg` pickle results too; what can't travel is left out."""
    space = {"__name__": "__main__", "Guarded": Guarded, "lock": threading.Lock()}
    exec("def of_guarded(guarded): return Guarded, (guarded.n,)\ndef of_complex(_): return lock.acquire, ()", space)
    monkeypatch.setitem(copyreg.dispatch_table, Guarded, space["of_guarded"])
    monkeypatch.setitem(copyreg.dispatch_table, complex, space["of_complex"])
    assert executor.submit(lambda: [Guarded(2)]).result()[0].n == 2


def test_results_are_of_the_types_they_were(executor: WorkerbeeExecutor) -> None:
    """What JSON would change comes back as a process pool would return it."""
    values = [(1, 2), {1: 2}, {3, 4}, b"5", 1 + 2j, float("inf"), "a\0b", np.float32(1.5), np.arange(3), [(1,)], None]
    results = list(executor.map(functools.partial(max, key=id), zip(values, strict=True)))
    assert repr(results) == repr(values)
    assert list(map(type, results)) == list(map(type, values))


@pytest.fixture
def unknown_module(tmp_path: Path) -> Iterator[ModuleType]:
    """A module that this process has and no bee could import."""
    path = tmp_path / "only_here.py"
    path.write_text("FACTOR = 7\n\ndef helped(n):\n    return FACTOR * n\n\ndef times(n):\n    return helped(n)\n")
    spec = importlib.util.spec_from_file_location("only_here", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["only_here"] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules["only_here"]


def test_a_module_that_only_the_client_has(executor: WorkerbeeExecutor, unknown_module: ModuleType) -> None:
    """Registered with cloudpickle it travels by value, with the helpers and globals that a function names."""
    assert executor.submit(unknown_module.times, 3).result() == 21
    unknown_module.FACTOR = 8
    assert executor.submit(unknown_module.times, 3).result() == 24


SCRIPT = """
    import functools, os, sys
    from workerbee import WorkerbeeExecutor

    scale, state, n_calls = 10, {}, 0

    def prepare(value):
        state["prepared"] = value

    def count():
        global n_calls
        n_calls += 1

    def counted():
        return n_calls

    class Point:
        def __init__(self, x):
            self.x = x
        def __eq__(self, other):
            return type(other) is Point and other.x == self.x

    def helper(n):
        return scale * n

    def deep(n):
        return 0 if n == 0 else 1 + deep(n - 1)

    def work(n):
        return helper(n) + state["prepared"]

    def move(point):
        return Point(point.x + 1)
"""

USE = """
    with WorkerbeeExecutor(1, dsn=sys.argv[1], initializer=prepare, initargs=(5,)) as executor:
        assert list(executor.map(work, range(3))) == [5, 15, 25]
        assert list(executor.map(work, range(3), chunksize=2)) == [5, 15, 25]
        for _ in range(3):
            executor.submit(count).result()
        assert executor.submit(counted).result() == 3
        scale = 100
        assert executor.submit(work, 1).result() == 105
        assert executor.submit(deep, 50).result() == 50
        assert executor.submit(move, Point(1)).result() == Point(2)
        assert executor.submit(lambda: functools.reduce(int.__mul__, range(1, 6)) * scale).result() == 12000
        print("it works")
"""


def test_a_script(database: Database, tmp_path: Path) -> None:
    """Functions, classes, globals and the initializer of ``__main__`` are seen by the jobs, without a main guard."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(USE))
    command = [sys.executable, str(script), database.dsn]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("it works\n", "")


def test_a_notebook(database: Database) -> None:
    """A notebook's functions run in bees; a cell that is run again with a change is computed anew."""
    cells = [
        textwrap.dedent(SCRIPT),
        f"import sys; sys.argv = ['', {database.dsn!r}]",
        textwrap.dedent(USE),
        f"executor = WorkerbeeExecutor(1, dsn={database.dsn!r}, jobset_id='notebook')",
        "scale = 2\ndef again(n): return helper(n)\nfirst = list(executor.map(again, [1, 2]))",
        "def helper(n): return scale * n + 1\nsecond = list(executor.map(again, [1, 2]))",
        "executor.shutdown()\nprint(first, second)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (output,) = notebook.cells[-1].outputs
    assert output.text == "[2, 4] [3, 5]\n"
