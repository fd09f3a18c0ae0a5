"""Things that pickle can't make again by itself: caches, dispatchers, views of memory, errors with odd signatures.

Stored pickles name the functions below, some of them as `workerbee.pickling`'s: they are to stay where they are.
"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import pickle
import sys
import typing
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NewType, ParamSpec, cast

from workerbee.errors import complete, rebuilt, taken_apart
from workerbee.wire import refused
from workerbee.wire.bytecode import is_dispatcher
from workerbee.wire.imports import Bound, CachedFunction, importable, stands_for
from workerbee.wire.standins import Stub


def is_ordinary(kind: type) -> bool:
    """Tell whether pickle itself can do all that can be done with things of this type: no function or class is one."""
    is_special = issubclass(kind, _SPECIAL) or kind in _MARKS or _is_array(kind)
    return not is_special and refused.reduction(kind) is None


def reduced(thing: Any) -> Any:
    """Reduce a thing of these kinds for the pickler; None for all others."""
    kind = type(thing)
    if (reduce := refused.reduction(kind)) is not None and (made := reduce(thing)) is not None:
        return made
    if kind in _MARKS:
        return _MARKS[kind]
    if _is_array(kind):
        return None if thing.flags.writeable else _reduced_array(thing)
    if issubclass(kind, Bound):
        return Stub, stands_for(thing)
    if kind is MethodType and isinstance(thing.__self__, Bound):
        what, advice = stands_for(thing.__self__)
        return Stub, (f"{thing.__func__.__name__} of {what}", advice)
    if isinstance(thing, CachedFunction) and not importable(thing):
        return _cached, (thing.__wrapped__, thing.cache_parameters())
    if kind is functools.cached_property:
        return functools.cached_property, (thing.func,), {"attrname": thing.attrname}
    if issubclass(kind, _DESCRIPTORS) and kind not in _DESCRIPTORS:
        return _described, (kind, _described_by(thing)), (None, _attributes(thing))
    if (parts := _HINTS.get(kind)) is not None and not importable(thing):
        return _hint, (kind, *parts(thing), thing.__module__)
    if isinstance(thing, memoryview) and thing.format in _NATIVE:
        return _viewed, (thing.tobytes(), thing.format, thing.shape)
    if is_dispatcher(thing) and not importable(thing):
        return _dispatcher, (), (dict(thing.registry), _own_attributes(thing)), None, None, _fill_dispatcher
    if kind is functools.singledispatchmethod:
        return _dispatched, (thing.func, thing.dispatcher)
    if _wants_other_arguments(kind):
        attributes, members, args = taken_apart(thing)
        return rebuilt, (kind, args, {}), (attributes, members), None, None, complete
    return None


#: Objects of which there is one in a process, by their types, and the names that they have in their module.
_MARKS: dict[type, str] = {
    type(mark): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
    if (mark := getattr(dataclasses, name, None)) is not None
}


def _wants_other_arguments(kind: type) -> bool:
    """Tell whether an exception's ``__init__`` may refuse its ``args``, and its class doesn't say how to pickle it."""
    return (
        issubclass(kind, BaseException)
        and isinstance(kind.__init__, FunctionType)
        and not any(isinstance(how, FunctionType) for how in (kind.__reduce__, kind.__reduce_ex__, kind.__setstate__))
    )


#: What stands in annotations, and that pickle only finds by its name; how each is made.
_HINTS: dict[type, Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    NewType: lambda hint: ((hint.__qualname__, hint.__supertype__), {}),
    ParamSpec: lambda hint: ((hint.__name__,), {"bound": hint.__bound__}),
}
if sys.version_info >= (3, 11):
    _HINTS[typing.TypeVarTuple] = lambda hint: ((hint.__name__,), {})
if sys.version_info >= (3, 12):
    _HINTS[typing.TypeAliasType] = lambda hint: (
        (hint.__name__, hint.__value__),
        {"type_params": hint.__type_params__},
    )


def _hint(kind: Any, args: tuple[Any, ...], options: dict[str, Any], module: str) -> Any:
    made = kind(*args, **options)
    with suppress(AttributeError):  # an alias has the module of its maker for ever
        made.__module__ = module
    return made


#: Item formats to which a memoryview of bytes can be cast.
_NATIVE = frozenset("cbB?hHiIlLqQnNfd")


#: Descriptors whose subclasses pickle can't make again.
_DESCRIPTORS = (staticmethod, classmethod, property, functools.cached_property)
#: Types of the things that are looked at here, or by the picklers: of arrays and marks only the very type.
_SPECIAL: tuple[type, ...] = (type, FunctionType, MethodType, CodeType, ModuleType, memoryview, BaseException, Bound)
_SPECIAL += (CachedFunction, functools.singledispatchmethod, *_DESCRIPTORS, *_HINTS)


def _is_array(kind: type) -> bool:
    return kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def _reduced_array(array: Any) -> Any:
    """Reduce a read-only array: who gets it can write to it, as with a pool, whose older pickles have no such flag."""
    make, (buffer, *rest), *state = array.__reduce_ex__(5)
    if not isinstance(buffer, pickle.PickleBuffer):  # it isn't in one piece, and is copied
        return make, (buffer, *rest), *state
    import numpy as np  # noqa: PLC0415 (it is there, as an array is)

    whole: Any = np.asarray(_Bytes(array))
    return make, (pickle.PickleBuffer(whole), *rest)


class _Bytes:
    """The bytes of a read-only array, to be copied by who may take only what can be written to."""

    def __init__(self, array: Any) -> None:
        self._array = array
        where = (array.__array_interface__["data"][0], False)
        self.__array_interface__ = {"data": where, "shape": (array.nbytes,), "typestr": "|u1", "version": 3}


def _described_by(thing: Any) -> tuple[Any, ...]:
    if isinstance(thing, property):
        return thing.fget, thing.fset, thing.fdel, thing.__doc__
    return (thing.func if isinstance(thing, functools.cached_property) else thing.__func__,)


def _attributes(thing: Any) -> dict[str, Any]:
    """Give what a user's class has set in a descriptor, in slots too."""
    slots = copyreg._slotnames(type(thing))  # type: ignore[attr-defined]  # noqa: SLF001 (as pickle finds them)
    found = {name: getattr(thing, name) for name in slots if hasattr(thing, name)} | getattr(thing, "__dict__", {})
    return {name: value for name, value in found.items() if name not in ("lock", "__doc__")}


def _described(kind: Any, parts: tuple[Any, ...]) -> Any:
    """Make a descriptor of a user's class without calling its ``__init__``, which may take other arguments."""
    base = next(base for base in _DESCRIPTORS if issubclass(kind, base))
    made = base.__new__(kind)
    base.__init__(made, *parts)
    return made


def _dispatched(func: Any, dispatcher: Any) -> Any:
    """Make a dispatching method without its cache, which since Python 3.13 holds weak references."""
    made: functools.singledispatchmethod[Any] = functools.singledispatchmethod(func)
    made.dispatcher = dispatcher
    return made


def _viewed(data: bytes, item: str, shape: tuple[int, ...]) -> memoryview:
    view: memoryview = memoryview(data).cast(item, shape)  # type: ignore[call-overload]
    return view


def _own_attributes(dispatcher: Any) -> dict[str, Any]:
    made = vars(functools.singledispatch(_undispatched))
    return {name: value for name, value in vars(dispatcher).items() if name not in made}


def _undispatched(*_: object) -> None:
    """Is the only function of a dispatcher that has not got its functions yet."""


def _dispatcher() -> Any:
    return functools.singledispatch(_undispatched)


def _fill_dispatcher(made: Any, state: tuple[dict[type, Any], dict[str, Any]]) -> None:
    functions, attributes = state
    for kind, function in functions.items():
        made.register(kind, function)
    functools.update_wrapper(made, functions[object])
    vars(made).update(attributes)


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    return cast("Callable[..., Any]", functools.lru_cache(**parameters)(function))
