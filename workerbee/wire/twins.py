"""Twins: a result that is stored as a pickle also has a copy in JSON, only for people who read the database.

NumPy scalars and arrays become numbers and lists, tuples lists, and what isn't finite null. A large value has none,
nor has one that holds anything else.
"""

from __future__ import annotations

import sys
from math import isfinite
from typing import Any

#: Bytes of a pickle that may have a twin, and of the twin; and values within it.
LARGE_BYTES, MOST_VALUES = 200_000, 10_000
#: Levels of nesting.
DEPTH = 50


class _HasNone(Exception):  # noqa: N818 (it is no error)
    """A value that has no twin."""


def readable(value: object) -> Any:
    """Make a value that JSON can hold; `NO_TWIN` if it is too much, or anything else."""
    try:
        return _Reduction(sys.modules.get("numpy")).of(value, DEPTH)
    except _HasNone:
        return NO_TWIN


NO_TWIN = object()


class _Reduction:
    """Counts what it goes through, so that no value takes long."""

    def __init__(self, numpy: Any) -> None:
        self._numpy = numpy
        self._left = MOST_VALUES

    def of(self, value: Any, depth: int) -> Any:
        # Types are compared exactly, so that no user code runs here.
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is str:
            return value
        if kind is float:
            return value if isfinite(value) else None
        if depth == 0:
            raise _HasNone
        if kind is list or kind is tuple:
            self._take(len(value))
            return [self.of(item, depth - 1) for item in value]
        if kind is dict and all(type(key) is str for key in value):
            self._take(len(value))
            return {key: self.of(item, depth - 1) for key, item in value.items()}
        return self._of_numpy(value, depth)

    def _of_numpy(self, value: Any, depth: int) -> Any:
        numpy = self._numpy
        if numpy is None or not (type(value) is numpy.ndarray or issubclass(type(value), numpy.generic)):
            raise _HasNone
        if value.dtype.kind not in "biufU" or value.size > self._left:
            raise _HasNone
        return self.of(value.tolist(), depth - 1)

    def _take(self, n: int) -> None:
        self._left -= n
        if self._left < 0:
            raise _HasNone
