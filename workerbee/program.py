"""The program whose jobs are run: what a runner takes over from it, and how processes of ours are started.

A runner gets it over a socket, as multiprocessing's workers do, and takes it over before it imports user code. It isn't
passed by PYTHONPATH, which a job's own subprocesses would inherit. The current directory doesn't come first in the
path, as there may be a ``select.py`` in it.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePath
from typing import Any, NamedTuple

from workerbee import script
from workerbee.script import Script

#: Packages that a child imports from where this process has them, whatever its own path leads to.
_OURS = ("workerbee", "cloudpickle", "psycopg2", "platformdirs", "xxhash")
#: Flags that change where modules are found.
_SEARCH_FLAGS = frozenset({"-I", "-E", "-s", "-S", "-P"})

_START = """
import sys
sys.path[:] = filter(None, sys.path)
import importlib, json
from importlib.machinery import PathFinder
homes, path = json.loads(sys.argv[2])
class Homes:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [homes[name]]) if name in homes else None
sys.meta_path.insert(0, Homes)
sys.path += [place for place in path if place not in sys.path]
sys.argv[:3] = sys.argv[1:2]
main = importlib.import_module(sys.argv[0]).main
sys.meta_path.remove(Homes)
main()
"""


# Starting processes


def command(module: str, *arguments: object, flags: Iterable[str]) -> list[str]:
    """Give the command that runs ``module.main()`` in another Python with these flags; its argv is MODULE ARGUMENT….

    The standard library and this environment come first in its path, and then what this process's path has besides.
    """
    homes: dict[str, str] = {}
    for name in _OURS:
        for place in getattr(sys.modules.get(name), "__path__", ()):
            homes.setdefault(name, os.path.dirname(place))  # noqa: PTH120
    path = [place for place in sys.path if isinstance(place, str) and place]
    return [sys.executable, *flags, "-c", _START, module, json.dumps((homes, path)), *map(str, arguments)]


def interpreter_flags() -> list[str]:
    """Give the flags that this interpreter was started with, those of its environment included."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        option = name if value is True else f"{name}={value}"
        if option not in flags:
            flags += ["-X", option]
    return flags


def search_flags() -> list[str]:
    """Give the flags that change where modules are found, for a process that runs no user code."""
    return [flag for flag in interpreter_flags() if flag in _SEARCH_FLAGS]


def hash_seed() -> str:
    """Choose PYTHONHASHSEED for all runners of this program."""
    return os.environ.get("PYTHONHASHSEED") or str(secrets.randbelow(1 << 32))


def occupy_standard_descriptors(*, inheritable: bool = False) -> None:
    """Open the null device for stdin, stdout and stderr if they are closed, or a socket would get their numbers."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), inheritable)


def reset_signals() -> None:
    """Undo what a process may have inherited: a terminal's or shell's ignored signals, and a thread's mask."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # otherwise a child's exit status is lost
    signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_freed_memory() -> None:
    """Have arrays made in memory that was freed: fresh pages of the kernel take ten times as long as writing to them.

    GNU's C library keeps twice the size of the largest array, up to 32 MB, that has been freed, unless the environment
    says otherwise (https://man7.org/linux/man-pages/man3/mallopt.3.html). So one of 16 MB is freed before any job frees
    its own. Thresholds that were set would hold for larger arrays too.
    """
    bytes(16 << 20)


# Being a worker of a program


class Program(NamedTuple):
    """The things that a worker takes over from its program. ``process`` is what multiprocessing passes on."""

    path: list[Any]
    argv: list[str]
    directory: str | None
    environment: dict[str, str]
    process: Process
    script: Script
    settings: Settings

    @classmethod
    def here(cls) -> Program:
        """Describe this process as it is now."""
        return cls(
            [place for place in sys.path if isinstance(place, (str, bytes, PurePath))],
            [str(argument) for argument in getattr(sys, "argv", ())],
            _directory(),
            dict(os.environ),
            Process.here(),
            Script.here(),
            Settings.here(),
        )

    @classmethod
    def loads(cls, data: bytes) -> Program:
        """Load what `dumps` has made in a process that we trust as much as ourselves."""
        return cls(*pickle.loads(data))  # noqa: S301 (it comes from who has started us)

    def dumps(self) -> bytes:
        return pickle.dumps(tuple(self), protocol=5)

    def adopt(self, before: Program | None, number: int) -> None:
        """Make this process the worker with that number; ``before`` is the program that it belonged to until now.

        Changes that a job or an initializer has made since stay, unless the program has changed the same thing.
        """
        self._adopt_environment({} if before is None else before.environment)
        if self.directory is not None and (before is None or self.directory != before.directory):
            with suppress(OSError):
                os.chdir(self.directory)
        known = sys.path if before is None else before.path
        sys.path[:] = [*(place for place in sys.path if place not in known), *self.path]
        importlib.invalidate_caches()
        sys.argv[:] = self.argv
        self.process.adopt(number, first=before is None)
        script.adopt(self.script)
        self.settings.adopt(None if before is None else before.settings)

    def _adopt_environment(self, before: dict[str, str]) -> None:
        old = before or dict(os.environ)
        zone = os.environ.get("TZ")
        for name in old.keys() - self.environment.keys():
            os.environ.pop(name, None)
        for name, value in self.environment.items():
            if old.get(name) != value:
                os.environ[name] = value
        if os.environ.get("TZ") != zone:
            time.tzset()


class Process(NamedTuple):
    """The facts that multiprocessing knows of a process, and hands to its children."""

    pid: int
    name: str
    identity: tuple[int, ...]
    authkey: bytes
    directory: str | None
    start_method: str | None

    @classmethod
    def here(cls) -> Process:
        import multiprocessing  # noqa: PLC0415 (importing us is to be quick)
        from multiprocessing import process  # noqa: PLC0415

        me: Any = process.current_process()
        return cls(
            os.getpid(),
            me.name,
            me._identity,
            bytes(me.authkey),
            process.ORIGINAL_DIR,  # type: ignore[attr-defined]
            multiprocessing.get_start_method(allow_none=True),
        )

    def adopt(self, number: int, *, first: bool) -> None:
        """Make this process look like the child with that number."""
        import multiprocessing  # noqa: PLC0415
        from multiprocessing import process  # noqa: PLC0415

        me: Any = process.current_process()
        me.authkey = self.authkey
        if not first:
            return
        me.name = f"WorkerbeeProcess-{':'.join(map(str, (*self.identity, number)))}"
        me._identity = (*self.identity, number)
        module: Any = process
        module.ORIGINAL_DIR = self.directory
        alive, _ = os.pipe()  # it never becomes readable, as this process doesn't outlive its parent
        module._parent_process = module._ParentProcess(self.name, self.pid, alive)
        if self.start_method is not None:
            multiprocessing.set_start_method(self.start_method, force=True)


class Settings(NamedTuple):
    """The things that a program says at its top of how it computes, and that a pool's workers have too.

    ``decimal`` and ``numpy`` are None where nothing was said: their modules needn't be imported then.
    """

    depth: int
    digits: int | None
    warnings: list[tuple[Any, ...]]
    decimal: tuple[Any, ...] | None
    numpy: dict[str, Any] | None

    @classmethod
    def here(cls) -> Settings:
        """Give the main thread's, as they were when it was last looked at: others begin with the defaults."""
        global _settings  # noqa: PLW0603 (a process has one main thread)
        if _settings is None or threading.current_thread() is threading.main_thread():
            digits = getattr(sys, "get_int_max_str_digits", lambda: None)()
            _settings = cls(sys.getrecursionlimit(), digits, _filters(), _exactness(), _numpy_errors())
        return _settings

    def adopt(self, before: Settings | None) -> None:
        """Set here what differs from ``before``, or from what this process has begun with."""
        was = before or Settings.here()
        if self.depth != was.depth:
            sys.setrecursionlimit(self.depth)
        if self.digits is not None and self.digits != was.digits:
            sys.set_int_max_str_digits(self.digits)
        if self.warnings != was.warnings:
            warnings.resetwarnings()
            warnings.filters.extend(self.warnings)  # type: ignore[attr-defined]
        if self.decimal != was.decimal:
            _be_exact(self.decimal)
        if self.numpy != was.numpy:
            with suppress(ImportError):
                import numpy as np  # noqa: PLC0415 (jobs of such a program use it)

                np.seterr(**(self.numpy or _NUMPY_ERRORS))


_settings: Settings | None = None
_NUMPY_ERRORS: dict[str, Any] = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def _filters() -> list[tuple[Any, ...]]:
    """List the warning filters; those of a library's own warnings stay away, or each process would import it."""
    return [it for it in warnings.filters if _is_builtin(*it)]


def _is_builtin(action: Any, message: Any, category: Any, module: Any, line: Any, *_: Any) -> bool:
    plain = all(type(part) in _PLAIN for part in (action, message, module, line))
    return plain and isinstance(category, type) and category.__module__ == "builtins"


_PLAIN = (str, int, type(None), re.Pattern)


def _numpy_errors() -> dict[str, Any] | None:
    ask = getattr(sys.modules.get("numpy"), "geterr", None)  # it may be half imported
    errors: dict[str, Any] | None = None if ask is None else ask()
    return None if errors == _NUMPY_ERRORS else errors


def _exactness() -> tuple[Any, ...] | None:
    decimal = sys.modules.get("decimal")
    if decimal is None or not hasattr(decimal, "getcontext"):
        return None
    here, default = (
        (
            *(getattr(context, name) for name in _DECIMAL),
            tuple(it.__name__ for it, is_on in context.traps.items() if is_on),
        )
        for context in (decimal.getcontext(), decimal.DefaultContext)
    )
    return None if here == default else here


def _be_exact(exactness: tuple[Any, ...] | None) -> None:
    import decimal  # noqa: PLC0415 (seldom needed)

    context = decimal.DefaultContext.copy()
    if exactness is not None:
        *values, traps = exactness
        for name, value in zip(_DECIMAL, values, strict=True):
            setattr(context, name, value)
        context.traps = {signal: signal.__name__ in traps for signal in context.traps}
    decimal.setcontext(context)


_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def is_importing() -> bool:
    """Tell whether this process is a worker that just imports the script whose worker it is."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and getattr(process.current_process(), "_inheriting", False)


def _directory() -> str | None:
    with suppress(OSError):
        return os.getcwd()  # noqa: PTH109
    return None
