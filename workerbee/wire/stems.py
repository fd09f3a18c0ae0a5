"""Stems: the common part of thousands of closures or partials of the same code is pickled once."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import cloudpickle

from workerbee.pickling import Stem
from workerbee.wire.bytecode import MISSING
from workerbee.wire.identity import Identity, Noted
from workerbee.wire.imports import importable

#: Code objects that are remembered, and the most bytes of a stem.
MOST, MOST_BYTES = 64, 1_000_000


class Stems:
    """The stems of the functions that were met last.

    A code that is met for the second time gets a stem, unless something in it may change unnoticed.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int], _Known] = OrderedDict()

    def of(self, fn: Any) -> Grown | None:
        """Find the stem for a callable's code; None if there is none."""
        function = _innermost(fn)
        if function is None:
            return None
        key = id(function.__code__), id(function.__globals__)
        known = self._known.pop(key, None)
        if known is None or (known.grown is not None and not known.grown.holds()):
            known = _Known(function)
        elif not known.looked:
            known.look()
        self._known[key] = known
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return known.grown


class _Known:
    """A code object and its globals. Both are kept, so that no other objects get their ids."""

    def __init__(self, function: FunctionType) -> None:
        self._code = function.__code__
        self._globals = function.__globals__
        self.looked = False
        self.grown: Grown | None = None

    def look(self) -> None:
        """Make its stem, if it can have one."""
        self.looked = True
        bare = _bare(self._code, self._globals)
        named = Identity.of_globals(bare)
        if named.steady and named.memo:
            try:
                grown = Grown(bare, named)
            except Exception:  # noqa: BLE001 (pickling runs user code; the whole function says what is wrong)
                return
            self.grown = grown if grown.stem.whole else None


class Grown:
    """A stem, and the values of the globals in it, which must not have changed."""

    def __init__(self, bare: FunctionType, named: Identity) -> None:
        self.stem = Stem(bare, MOST_BYTES)
        self.named = named
        self._data = [(thing, _image(thing)) for thing in {id(thing): thing for thing in named.data}.values()]
        self._by_value = cloudpickle.list_registry_pickle_by_value()

    def holds(self) -> bool:
        return (
            unchanged(self.named.watched)
            and all(_image(thing) == was for thing, was in self._data)
            and cloudpickle.list_registry_pickle_by_value() == self._by_value
        )


def unchanged(watched: list[Noted]) -> bool:
    """Tell whether everything that was looked at is still the same object."""
    for read, owner, name, value in watched:  # noqa: SIM110 (a generator would double the time of a submit)
        if read(owner, name, MISSING) is not value:
            return False
    return True


def _image(data: Any) -> bytes:
    """Write plain data with its order, and with which parts of it are the same object."""
    return pickle.dumps(data, protocol=5)


def _innermost(fn: Any) -> FunctionType | None:
    """Give the function by value that is called in the end."""
    while (kind := type(fn)) is partial or kind is MethodType:
        fn = fn.func if kind is partial else fn.__func__
    return fn if type(fn) is FunctionType and not importable(fn) else None


def _bare(code: CodeType, found: dict[str, Any]) -> FunctionType:
    """Make a function that has nothing of its own but the code."""
    return FunctionType(code, found, closure=tuple(CellType() for _ in code.co_freevars))
