"""What closures and partials of the same code have in common, pickled once for thousands of them."""

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

#: Codes that are known, and bytes of what is kept for one of them.
MOST, MOST_BYTES = 64, 1_000_000


class Stems:
    """The stems of the functions that were met last.

    A code that is met for the second time gets one, if nothing in it can change unseen.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int], _Known] = OrderedDict()

    def of(self, fn: Any) -> Grown | None:
        """Find what is known already of the code that a callable runs; None if nothing is."""
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
    """Some code with its globals, which both are held: their ids don't come again."""

    def __init__(self, function: FunctionType) -> None:
        self._code = function.__code__
        self._globals = function.__globals__
        self.looked = False
        self.grown: Grown | None = None

    def look(self) -> None:
        """Make a stem of it if that may be."""
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
    """A stem, and what the globals in it are, which must stay as they are."""

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
    """Tell whether all that was looked at is the same object still."""
    for read, owner, name, value in watched:  # noqa: SIM110 (a generator would double the time of a submit)
        if read(owner, name, MISSING) is not value:
            return False
    return True


def _image(data: Any) -> bytes:
    """Plain data with its order, and which of it is one."""
    return pickle.dumps(data, protocol=5)


def _innermost(fn: Any) -> FunctionType | None:
    """The function by value that is called in the end."""
    while type(fn) in (partial, MethodType):
        fn = fn.func if type(fn) is partial else fn.__func__
    return fn if type(fn) is FunctionType and not importable(fn) else None


def _bare(code: CodeType, found: dict[str, Any]) -> FunctionType:
    """A function that has of its own nothing but the code."""
    return FunctionType(code, found, closure=tuple(CellType() for _ in code.co_freevars))
