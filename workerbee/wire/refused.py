"""Things that pickle refuses although each process can make its own: from a format, or from the name of a C library.

Stored pickles name the functions below: they are to stay where they are.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any, NewType, TypeVar

from cloudpickle import CloudPickler

#: ctypes' flag of functions that keep errno.
_KEEPS_ERRNO = 8


def reduction(kind: type) -> Callable[[Any], Any] | None:
    """Find how things of a type are reduced, which may be None for some of them; None for all other types."""
    return _REDUCTIONS.get((kind.__module__, kind.__qualname__))


def taken_apart(thing: Any) -> Any:
    """Give what a pickle of an object would be made from, which is the same in every process."""
    kind = type(thing)
    reduce = _HINTS.get(kind) or reduction(kind) or CloudPickler.dispatch_table.get(kind)
    return thing.__reduce_ex__(4) if reduce is None else reduce(thing)


#: Things that cloudpickle gives a random number, or takes for found by name, and what they are.
_HINTS: dict[type, Callable[[Any], Any]] = {
    TypeVar: lambda hint: (TypeVar, (hint.__name__, hint.__bound__, *hint.__constraints__)),
    NewType: lambda hint: (NewType, (hint.__qualname__, hint.__supertype__)),
}


# Libraries in C, as ctypes shows them: an address of one process is nothing in another


def _library(library: Any) -> Any:
    settings = {name: _settings(fn) for name, fn in vars(library).items() if isinstance(fn, library._FuncPtr)}  # noqa: SLF001
    flags = library._FuncPtr._flags_  # noqa: SLF001
    opened = type(library), library._name, bool(flags & _KEEPS_ERRNO)  # noqa: SLF001
    return _opened, opened, settings, None, None, _set_all


def _function(fn: Any) -> Any:
    library = (fn._objects or {}).get("0")  # noqa: SLF001
    return None if library is None else (_found, (library, fn.__name__, _settings(fn)))


def _settings(fn: Any) -> tuple[Any, ...]:
    return fn.restype, fn.argtypes, getattr(fn, "errcheck", None)


def _opened(kind: Any, name: str | None, keeps_errno: bool) -> Any:  # noqa: FBT001 (in pickles)
    return kind(name, use_errno=keeps_errno)


def _found(library: Any, name: str, settings: tuple[Any, ...]) -> Any:
    fn = getattr(library, name)
    fn.restype, fn.argtypes, check = settings
    if check is not None:
        fn.errcheck = check
    return fn


def _set_all(library: Any, settings: dict[str, tuple[Any, ...]]) -> None:
    for name, values in settings.items():
        _found(library, name, values)


# Types of C that ctypes makes from others, once for each process


def _pointer(cls: Any) -> Any:
    return _if_it_makes(cls, _ctypes().POINTER, getattr(cls, "_type_", None))


def _array(cls: Any) -> Any:
    return _if_it_makes(cls, operator.mul, getattr(cls, "_type_", None), getattr(cls, "_length_", None))


def _prototype(cls: Any) -> Any:
    return _if_it_makes(cls, _ctypes().CFUNCTYPE, getattr(cls, "_restype_", None), *getattr(cls, "_argtypes_", ()))


def _if_it_makes(cls: Any, make: Callable[..., Any], *args: Any) -> Any:
    try:
        return (make, args) if make(*args) is cls else None
    except TypeError:  # it isn't complete
        return None


def _ctypes() -> Any:
    return sys.modules["ctypes"]  # as there are such things, it is there


_Key = tuple[str, str]
_REDUCTIONS: dict[_Key, Callable[[Any], Any]] = {
    ("_struct", "Struct"): lambda thing: (type(thing), (thing.format,)),
    ("random", "SystemRandom"): lambda thing: (type(thing), ()),
    ("weakref", "WeakValueDictionary"): lambda thing: (type(thing), (dict(thing),)),
    ("weakref", "WeakKeyDictionary"): lambda thing: (type(thing), (dict(thing),)),
    ("ctypes", "CDLL"): _library,
    ("ctypes", "PyDLL"): _library,
    ("ctypes", "CDLL.__init__.<locals>._FuncPtr"): _function,
    ("_ctypes", "PyCPointerType"): _pointer,
    ("_ctypes", "PyCArrayType"): _array,
    ("_ctypes", "PyCFuncPtrType"): _prototype,
}
