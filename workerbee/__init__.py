"""Workerbee: many independent jobs on whatever machines are at hand, with nothing but PostgreSQL in between."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workerbee._version import __version__

if TYPE_CHECKING:
    from workerbee.errors import JobFailedError, UniqueInputDataConstraintError
    from workerbee.executor import WorkerbeeExecutor
    from workerbee.handle import open  # noqa: A004 (as dbm and shelve have it)
    from workerbee.jobset import JobSet
    from workerbee.perform import catch_all_exceptions

__all__ = [
    "JobFailedError",
    "JobSet",
    "UniqueInputDataConstraintError",
    "WorkerbeeExecutor",
    "__version__",
    "catch_all_exceptions",
    "open",
]

# Loaded when first named: a runner needs neither the driver nor the executor, and starts sooner.
_HOME = {
    "JobFailedError": "errors",
    "JobSet": "jobset",
    "UniqueInputDataConstraintError": "errors",
    "WorkerbeeExecutor": "executor",
    "catch_all_exceptions": "perform",
    "open": "handle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workerbee' has no attribute {name!r}")
    value = getattr(import_module(f"workerbee.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
