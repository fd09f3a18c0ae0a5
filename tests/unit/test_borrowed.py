"""Each piece of CPython, cloudpickle and psycopg2 that we use and nobody has promised, with what would break."""

from __future__ import annotations

import ast
import ctypes
import importlib
import inspect
import json
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures._base import _Waiter
from enum import IntEnum
from pathlib import Path

import cloudpickle
import pytest
from joblib.parallel import AutoBatchingMixin

import workerbee

PACKAGE = Path(workerbee.__file__).parent
STATES = "a future goes through the superclass's states, so that wait and as_completed know them"
CLASSES = "classes by value travel as cloudpickle has them, and come back as what they were"
RUNNERS = "a runner looks to multiprocessing as a child of its program does, and has children of its own"
LIBRARIES = "what ctypes has opened or made is opened or made anew in a runner"
#: What modules have, by what would break without it.
BORROWED = {
    **{f"concurrent.futures._base.{state}": STATES for state in ("CANCELLED", "FINISHED", "PENDING", "RUNNING")},
    "concurrent.futures._base.CANCELLED_AND_NOTIFIED": STATES,
    "concurrent.futures.process._RemoteTraceback": "an error's cause is what a process pool's error has",
    **dict.fromkeys(("threading._shutdown", "atexit._run_exitfuncs"), "what jobs leave to the exit is done in runners"),
    "threading._register_atexit": "executors end before the interpreter joins its threads",
    "subprocess._args_from_interpreter_flags": "runners are started with the flags of the program",
    "sys._xoptions": "runners are started with the -X options of the program",
    "multiprocessing.process._inheriting": "a worker that imports its script is known as one",
    "multiprocessing.process._ParentProcess": RUNNERS,
    "multiprocessing.process._parent_process": RUNNERS,
    "multiprocessing.process.ORIGINAL_DIR": RUNNERS,
    "json.encoder.c_make_encoder": "small values are encoded without an encoder being made for each",
    "cloudpickle.cloudpickle._function_setstate": "a function by value gets its globals in a runner",
    "cloudpickle.cloudpickle._make_function": "a function by value is made in a runner",
    "cloudpickle.cloudpickle._BUILTIN_TYPE_NAMES": CLASSES,
    "cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID": CLASSES,
    "cloudpickle.cloudpickle._class_getstate": CLASSES,
    "cloudpickle.cloudpickle._get_or_create_tracker_id": CLASSES,
    "cloudpickle.cloudpickle._lookup_class_or_track": CLASSES,
    "cloudpickle.cloudpickle._should_pickle_by_reference": CLASSES,
    "copyreg._slotnames": "what a class with slots has comes along with it",
    "abc._get_dump": "a class that is registered with an abstract one is noticed",
    "psycopg2._psycopg": "libpq's own functions are found in the library that psycopg2 has loaded",
}
#: What objects have, by the object and what would break without it.
MEMBERS: dict[str, tuple[object, str]] = {
    "_identity": (multiprocessing.current_process(), RUNNERS),
    "_at_fork_reinit": (threading.RLock(), "a forked child looks at futures that a thread of its parent just ended"),
    "_member_type_": (IntEnum, CLASSES),
    "_effective_batch_size": (AutoBatchingMixin(), "a Parallel of joblib's goes on when another one has ended"),
    "scan_once": (json.JSONDecoder(), "JSON that PostgreSQL has checked is parsed without a second check"),
}
_LIBRARY, _ARRAY, _CALLBACK = ctypes.CDLL(None), ctypes.c_int * 1, ctypes.CFUNCTYPE(ctypes.c_int)
MEMBERS |= dict.fromkeys(("_FuncPtr", "_name"), (_LIBRARY, LIBRARIES)) | {"_objects": (_LIBRARY.abs, LIBRARIES)}
MEMBERS |= dict.fromkeys(("_type_", "_length_"), (_ARRAY, LIBRARIES))
MEMBERS |= dict.fromkeys(("_flags_", "_restype_", "_argtypes_"), (_CALLBACK, LIBRARIES))
#: Of all these, what isn't seen in the code: it has no underscore, though no documentation speaks of it, is reached
#: through a variable that holds the module or the process, or something of ours has the same name.
UNSEEN = {"multiprocessing.process.ORIGINAL_DIR", "json.encoder.c_make_encoder", "scan_once", "_identity"}
UNSEEN |= {f"multiprocessing.process.{name}" for name in ("_inheriting", "_ParentProcess", "_parent_process")}
UNSEEN |= {"_name", "_type_", "_length_", "_restype_", "_argtypes_"}
#: What isn't there before something else is done: here while a child starts.
LATER = {"multiprocessing.process._inheriting"}
#: What the platform promises, or the package itself.
PROMISED = {"_thread", "_exit", "_value_", "_asdict", "_make", "_replace", "_fields", "_workerbee_told"}


@pytest.mark.parametrize("name", sorted(BORROWED.keys() - LATER))
def test_what_is_borrowed_is_there(name: str) -> None:
    """On this Python, and with these libraries."""
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute), f"{name} is gone: {BORROWED[name]}"


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_what_is_borrowed_of_objects_is_there(name: str) -> None:
    """The same of what belongs to no module."""
    thing, breaks = MEMBERS[name]
    assert hasattr(thing, name), f"{name} of {type(thing).__name__} is gone: {breaks}"


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


def of_objects(trees: list[ast.Module]) -> set[str]:
    """The private attributes that objects have, and that no class of the package gives to its own."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and is_private(node.attr)]
    bodies = [line for node in nodes if isinstance(node, ast.ClassDef) for line in node.body]
    given = {line.name for line in bodies if isinstance(line, (ast.FunctionDef, ast.ClassDef))}
    given |= {ast.unparse(line.target) for line in bodies if isinstance(line, ast.AnnAssign)}
    given |= {ast.unparse(target) for line in bodies if isinstance(line, ast.Assign) for target in line.targets}
    ours = [node for node in attributes if ast.unparse(node.value) in ("self", "cls", "new")]
    given |= {node.attr for node in ours if isinstance(node.ctx, ast.Store)}
    return {node.attr for node in attributes} - given


def test_all_that_is_borrowed_is_named() -> None:
    """So that a new version of Python or of cloudpickle that lacks it says what to mend."""
    trees = [ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")]
    names = {name for tree in trees for name in borrowed(tree)}
    last = {name: name.rpartition(".")[2] for name in names | BORROWED.keys()}
    elsewhere = PROMISED | MEMBERS.keys() | {last.get(name) for name in UNSEEN}
    assert {name for name in names if last[name] not in elsewhere} == BORROWED.keys() - UNSEEN
    of_modules = {last[name] for name in BORROWED}
    assert of_objects(trees) - of_modules - PROMISED == MEMBERS.keys() - UNSEEN
