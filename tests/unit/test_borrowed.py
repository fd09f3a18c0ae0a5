"""Each piece of CPython, cloudpickle and psycopg2 that we use and nobody has promised, with what would break."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures._base import _Waiter
from pathlib import Path

import cloudpickle
import pytest

import workerbee

PACKAGE = Path(workerbee.__file__).parent
STATES = "a future goes through the superclass's states, so that wait and as_completed know them"
CLASSES = "classes by value travel as cloudpickle has them, and come back as what they were"
#: What modules have, by what would break without it.
BORROWED = {
    **{f"concurrent.futures._base.{state}": STATES for state in ("CANCELLED", "FINISHED", "PENDING", "RUNNING")},
    "concurrent.futures._base.CANCELLED_AND_NOTIFIED": STATES,
    "concurrent.futures.process._RemoteTraceback": "an error's cause is what a process pool's error has",
    "threading._register_atexit": "executors end before the interpreter joins its threads",
    "subprocess._args_from_interpreter_flags": "runners are started with the flags of the program",
    "sys._xoptions": "runners are started with the -X options of the program",
    "multiprocessing.process._inheriting": "a worker that imports its script is known as one",
    "cloudpickle.cloudpickle._function_setstate": "a function by value gets its globals in a runner",
    "cloudpickle.cloudpickle._BUILTIN_TYPE_NAMES": CLASSES,
    "cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID": CLASSES,
    "cloudpickle.cloudpickle._class_getnewargs": CLASSES,
    "cloudpickle.cloudpickle._class_getstate": CLASSES,
    "cloudpickle.cloudpickle._class_setstate": CLASSES,
    "cloudpickle.cloudpickle._get_or_create_tracker_id": CLASSES,
    "cloudpickle.cloudpickle._lookup_class_or_track": CLASSES,
    "cloudpickle.cloudpickle._should_pickle_by_reference": CLASSES,
    "psycopg2._psycopg": "libpq's own functions are found in the library that psycopg2 has loaded",
}
#: What isn't there before something else is done: here while a child starts.
LATER = {"multiprocessing.process._inheriting"}
#: What the platform promises, or the package itself.
PROMISED = {"os._exit", "enum._member_type_"}


@pytest.mark.parametrize("name", sorted(BORROWED.keys() - LATER))
def test_what_is_borrowed_is_there(name: str) -> None:
    """On this Python, and with these libraries."""
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute), f"{name} is gone: {BORROWED[name]}"


def test_a_process_knows_that_it_inherits() -> None:
    """Multiprocessing says so of a child while that imports the script."""
    spawn = inspect.getsource(importlib.import_module("multiprocessing.spawn"))
    assert "current_process()._inheriting = True" in spawn, BORROWED["multiprocessing.process._inheriting"]


def test_a_future_is_made_of_what_we_make() -> None:
    """Ours sets what the superclass's __init__ does, most of it at the first look."""
    names = {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
    assert vars(Future()).keys() == names, "JobFuture has other attributes than a future of this Python"


def test_a_waiter_is_told_as_we_tell_it() -> None:
    """By wait and as_completed."""
    assert {"add_result", "add_exception", "add_cancelled"} <= vars(_Waiter).keys(), "wait() would hear of no end"


def test_a_function_by_value_is_reduced_where_we_step_in() -> None:
    """What it gives begins with how the function is made, from what, and its state."""
    reduced = cloudpickle.CloudPickler._dynamic_function_reduce(_pickler(), lambda: PACKAGE)
    make, arguments, state, *_ = reduced
    assert callable(make), "cloudpickle reduces functions by other means"
    assert inspect.iscode(arguments[0])
    assert [type(part) for part in state] == [dict, dict]


def _pickler() -> cloudpickle.CloudPickler:
    from io import BytesIO  # noqa: PLC0415

    return cloudpickle.CloudPickler(BytesIO())


def borrowed(tree: ast.Module) -> Iterator[str]:
    """The private names of others that a module imports, or takes from what it imports."""
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            imported.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    yield from (name for name in imported.values() if is_private(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_private(imported.get(ast.unparse(node.value), "_")):
            name = f"{imported[ast.unparse(node.value)]}.{node.attr}"
            yield from [name] if is_private(name) else []
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "getattr"
            and isinstance(node.args[1], ast.Constant)
        ):
            of, name = ast.unparse(node.args[0]), str(node.args[1].value)
            yield from (
                [f"{imported.get(of, of)}.{name}"] if is_private(name) and not name.startswith("_workerbee") else []
            )


def is_private(name: str) -> bool:
    parts = name.split(".")
    return parts[0] != "workerbee" and any(part.startswith("_") and not part.startswith("__") for part in parts)


def test_all_that_is_borrowed_is_named() -> None:
    """So that a new version of Python or of cloudpickle that lacks it says what to mend."""
    found = {name for path in PACKAGE.rglob("*.py") for name in borrowed(ast.parse(path.read_text("utf-8")))}
    called = {"process.current_process()._inheriting": "multiprocessing.process._inheriting"}
    called |= {
        "me._inheriting": "multiprocessing.process._inheriting",
        "type(member)._member_type_": "enum._member_type_",
    }
    assert {called.get(name, name) for name in found} - PROMISED == BORROWED.keys()
