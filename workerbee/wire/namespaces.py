"""Namespaces: the globals that functions by value find, and when functions may share them.

Values that hold a common object go on to do so only if they arrive together: a model and its optimizer that came with
two functions would be those of two models.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from workerbee import script
from workerbee.wire.bytecode import canonical
from workerbee.wire.imports import Bound, own_things

#: So many objects are looked at to find out what a value holds.
MOST_OBJECTS = 50_000


class Origin(NamedTuple):
    """The globals of functions in their own process: those that name the module, and digests of the others.

    ``kin`` are the groups of names whose values hold a common object.
    """

    module: dict[str, Any]
    brought: dict[str, bytes]
    kin: tuple[tuple[str, ...], ...] = ()


class Namespace(NamedTuple):
    """Globals, and the digests of those that came with functions, each with a mark of what has come with it."""

    globals: dict[str, Any]
    brought: dict[str, bytes]
    arrivals: dict[str, object]
    main: script.Main | None  # the module that has them, if it stands as ``__main__``
    functions: WeakValueDictionary[Any, FunctionType]  # those of the module that are in use, by `Named` and code

    def agrees(self, origin: Origin) -> bool:
        """Tell whether functions of this origin would find their globals here, changed by jobs at the most."""
        return all(
            self.brought[name] == what if name in self.brought else name not in self.globals
            for name, what in origin.brought.items()
        ) and all(len({id(self.arrivals.get(name)) for name in group}) == 1 for group in origin.kin)

    def take(self, origin: Origin) -> None:
        """Note what functions of this origin bring."""
        arrival = object()
        for name in origin.brought:
            self.arrivals.setdefault(name, arrival)
        self.brought.update(origin.brought)


class Named(NamedTuple):
    """A function by value that its module has under its name; ``facts`` are its defaults and attributes, plain data.

    A pool's worker has one such function, which a job may compare, or look up in a dict.
    """

    qualname: str
    facts: bytes

    @classmethod
    def of(cls, fn: FunctionType) -> Named | None:
        """Name a function of this process; None if it has no such name, or is more than that."""
        if (known := came.get(fn)) is not None:
            return known
        if fn.__closure__ or _found(fn.__module__, fn.__qualname__) is not fn:
            return None
        if fn.__defaults__ is fn.__kwdefaults__ is None and not fn.__dict__:
            return cls(fn.__qualname__, b"")
        facts = canonical([list(fn.__defaults__ or ()), fn.__kwdefaults__, fn.__dict__])
        return None if facts is None else cls(fn.__qualname__, facts)

    def here(self, module: str, code: CodeType) -> FunctionType | None:
        """Find this process's own function of that name, if it is the same."""
        fn = _found(module, self.qualname)
        return fn if isinstance(fn, FunctionType) and fn.__code__ == code and Named.of(fn) == self else None


#: The names of functions that have come to this process.
came: WeakKeyDictionary[FunctionType, Named] = WeakKeyDictionary()


def _found(module: str | None, qualname: str) -> Any:
    """Find what a module has under a name, without having it look elsewhere."""
    first, *others = qualname.split(".")
    found: Any = getattr(sys.modules.get(module or ""), "__dict__", {}).get(first)
    for name in others:
        found = getattr(found, name, None)
    return found


def kin(values: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Group the names of values that hold a common object."""
    groups: list[tuple[set[str], set[int]]] = []
    own = own_things()
    for name, value in values.items():
        names, held, apart = {name}, _held(value, own), []
        for others, theirs in groups:
            if held.isdisjoint(theirs):
                apart.append((others, theirs))
            else:
                names |= others
                held |= theirs
        groups = [*apart, (names, held)]
    return tuple(tuple(sorted(names)) for names, _ in groups if len(names) > 1)


def _held(value: Any, own: Iterable[int]) -> set[int]:
    """Find the objects in a value that somebody could tell from equal ones, by their ids; no user code is run.

    Not those that each process has of its ``own``.
    """
    held: set[int] = set()
    seen = set(own)
    todo = [value]
    for _ in range(MOST_OBJECTS):
        if not todo:
            break
        thing = todo.pop()
        kind = type(thing)
        if kind in _ATOMS or issubclass(kind, _FOUND_BY_NAME) or id(thing) in seen:
            continue
        seen.add(id(thing))
        if type.__getattribute__(kind, "__hash__") in _HASHES and kind is not MethodType:
            held.add(id(thing))
        if kind not in _GATHERINGS or len(thing) < MOST_OBJECTS:
            todo += gc.get_referents(thing)
    return held


_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_FOUND_BY_NAME = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType, logging.Logger, Bound)
_GATHERINGS = frozenset({list, tuple, dict, set, frozenset})
#: Things with these are equal only to themselves, or may be changed.
_HASHES = (None, object.__hash__)
