"""What the cases have done; a module, so that the processes of every executor can import it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from multiprocessing import get_context, util
from pathlib import Path
from typing import Any
from uuid import uuid4

from workerbee import JobFailedError, WorkerbeeExecutor

state = "untouched"


def mul(x: int, y: int) -> int:
    return x * y


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def refusal(thing: Any, attribute: str) -> str:
    """What is raised by the use of a thing's attribute."""
    try:
        getattr(thing, attribute)()
    except (AttributeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def call(function: Any, *args: Any) -> Any:
    return function(*args)


def reciprocal(x: int) -> float:
    return 1 / x


def hold(gate: str, value: Any = None) -> Any:
    """Say that it has begun, wait for the gate to open, and give the value back."""
    Path(f"{gate}.{uuid4().hex}").touch()
    while not Path(gate).exists():
        time.sleep(0.005)
    return value


def note(path: str, line: Any) -> Any:
    """Leave a line in a file: what ran, in which order."""
    with Path(path).open("a") as file:
        file.write(f"{line}\n")
    return line


def noted(path: Path) -> list[str]:
    """The lines that are there by now."""
    return path.read_text().split() if path.exists() else []


def note_and_fail(path: str, n_times: int) -> int:
    """Fail for good so many times, and then return how often it has run."""
    note(path, "ran")
    n = len(noted(Path(path)))
    if n <= n_times:
        raise RuntimeError(f"run {n}")
    return n


def note_and_ask_again(path: str, n_times: int) -> int:
    """Ask for another attempt so many times."""
    try:
        return note_and_fail(path, n_times)
    except RuntimeError as error:
        raise JobFailedError(str(error)) from None


class GivenUp(BaseException):
    """What isn't an Exception, so that no `except Exception` of a library stops it."""


def throw(error: BaseException) -> None:
    raise error


def leave_by(kind: str) -> None:
    if kind == "exit":
        sys.exit(3)
    raise KeyboardInterrupt


def die(path: str, n_times: int) -> int:
    """Kill the process that runs this, so many times."""
    note(path, os.getpid())
    n = len(noted(Path(path)))
    if n <= n_times:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def set_state(value: str) -> None:
    global state  # noqa: PLW0603 (what initializers are for)
    state = value


def get_state() -> str:
    return state


def fail_to_start(message: str) -> None:
    raise LookupError(message)


def nest(dsn: str, jobset_id: str) -> tuple[int, int]:
    """The runners of an executor that wants none, and the priority of its calls."""
    with WorkerbeeExecutor(0, dsn=dsn, jobset_id=jobset_id) as inner:
        return inner._client.n_local, inner._options.priority


def nested(dsn: str, jobset_id: str, n: int, max_workers: int) -> int:
    """A job that has others do its work, in its own jobset."""
    with WorkerbeeExecutor(max_workers, dsn=dsn, jobset_id=jobset_id) as inner:
        return sum(inner.map(mul, [n] * 3, range(3)))


class Plain:
    """An object like any other."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def method(self) -> Any:
        return self.value


def plain(value: Any) -> Plain:
    return Plain(value)


class PickyError(Exception):
    """Wants two arguments, and so doesn't unpickle by itself."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code = code


def fail_picky() -> None:
    raise PickyError(7, "home")


class Unpicklable:
    """Can't be stored."""

    def __reduce__(self) -> Any:
        raise TypeError("this object stays here")


class Poison:
    """Can be stored, and raises when it is loaded."""

    def __init__(self, kind: type[BaseException] = LookupError) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return poisoned, (self.kind,)


def poisoned(kind: type[BaseException]) -> None:
    raise kind("poison")


def make_unpicklable() -> Unpicklable:
    return Unpicklable()


def make_poison(kind: type[BaseException] = LookupError) -> Poison:
    return Poison(kind)


def plain_value(value: Any) -> Any:
    return value


def measure(facts: dict[str, Any]) -> dict[str, Any]:
    return {"size": 1 / facts["size"]}


def note_slowly(path: str, line: Any) -> None:
    note(path, line)
    time.sleep(0.1)


_held: list[Any] = []


def leave_for_the_exit(folder: str) -> None:
    """Leave things to be done at the worker's end, and a pool with semaphores that have names."""
    atexit.register(Path(folder, "interpreter").touch)
    util.Finalize(None, Path(folder, "multiprocessing").touch, exitpriority=1)
    lock = get_context("spawn").Lock()
    _held.append(lock)
    Path(folder, "pool").write_text(lock._semlock.name.lstrip("/"))


def leave_a_thread(gate: str) -> int:
    """Leave a thread that the interpreter waits for at its exit."""
    threading.Thread(target=hold, args=[gate, 0]).start()
    return os.getpid()
