"""How many threads numerical libraries (BLAS, OpenMP) have in a call, where threadpoolctl is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, wraps
from typing import Any

#: By these a user says himself how many there are.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def limited(most: int | None) -> Any:
    """Have at most so many threads in a block; None: as many as the libraries like."""
    found = None if most is None else _libraries(len(sys.modules))
    return nullcontext() if found is None else found.limit(limits=most)


@lru_cache(1)
def _libraries(_: int) -> Any:
    """Find the libraries with threads that are loaded, anew when modules have been imported: it takes milliseconds."""
    try:
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415 (comes with scikit-learn)
    except ImportError:
        return None
    return ThreadpoolController()


def single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have Dask's tasks compute in one thread each, as in Dask's own workers; any other function is what it is.

    Dask divides the work into as many tasks as there are cores, and more.
    """
    if getattr(function, "__module__", None) != "dask.local" or any(name in os.environ for name in VARIABLES):
        return function

    @wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with limited(1):
            return function(*args, **kwargs)

    return alone
