"""Pickling by cloudpickle, with what it can't do; and digests of pickles."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any

import cloudpickle

from workerbee.errors import PayloadTooLargeError
from workerbee.wire import classes, remaking
from workerbee.wire.bounded import Bounded, Hashing
from workerbee.wire.imports import by_value, importable
from workerbee.wire.standins import Own

Names = Mapping[int, tuple[str, str]]
#: Whether pickle itself knows what to do with things of a type.
_ordinary: classes.OfClasses[bool] = classes.OfClasses()


class PlainPickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """A cloudpickle pickler that can do more, such as functions behind a cache, and cached properties."""

    #: What is found by its name, and not copied: `own_things`.
    by_name: Names = MappingProxyType({})

    def __init__(self, file: io.BytesIO | Hashing, aside: Callable[[pickle.PickleBuffer], bool] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=aside)

    def reducer_override(self, obj: Any) -> Any:
        if self.by_name and (own := Own.of(obj, self.by_name)):
            return own.__reduce__()
        kind = type(obj)
        if (kind is type or kind is FunctionType) and importable(obj):  # as most are
            return NotImplemented
        if (is_ordinary := _ordinary.get(kind)) is None:
            _ordinary.set(kind, is_ordinary := remaking.is_ordinary(kind))
        if is_ordinary and obj.__class__ is kind:  # a proxy may say that it is a function
            return NotImplemented
        if (remade := remaking.reduced(obj)) is not None:
            return remade
        if isinstance(obj, CodeType):
            make, parts = self.dispatch_table[CodeType](obj)
            # cloudpickle leaves the file's name out, but tracebacks need it.
            return make, tuple(obj.co_filename if part == "<dynamic-code>" else part for part in parts)
        if isinstance(obj, type) and not classes.is_built_in(obj):
            return self._class_reduced(obj) if classes.is_by_value(obj) else NotImplemented
        if isinstance(obj, FunctionType) and by_value(obj.__module__ or ""):
            return self._dynamic_function_reduce(obj)
        if isinstance(obj, ModuleType) and by_value(obj.__name__) and obj.__name__ != "__main__":
            return classes.reduced_module(obj)
        return super().reducer_override(obj)

    def _class_reduced(self, cls: type) -> Any:
        return classes.reduced(cls)


class _DigestPickler(PlainPickler):
    """A pickler that leaves out the contents of the given globals, as each of these has a digest of its own."""

    def __init__(self, file: Hashing, known: dict[str, Any], by_name: Names) -> None:
        super().__init__(file)
        self._known = known
        self.by_name = by_name

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(func)
        if func.__globals__ is self._known:
            reduced[2][1]["__globals__"] = {}
        return reduced


def digest(
    value: object, known: dict[str, Any], bound: Bounded | None = None, by_name: Names = PlainPickler.by_name
) -> bytes:
    """Digest a value of the globals ``known``; one that can't be pickled gets a random digest."""
    return digest_if_pickled(value, known, bound, by_name) or os.urandom(16)


def digest_if_pickled(value: object, known: dict[str, Any], bound: Bounded | None, by_name: Names) -> bytes | None:
    """Digest a value of the globals ``known``; None if it can't be pickled."""
    file = Hashing(bound)
    try:
        _DigestPickler(file, known, by_name).dump(value)
    except PayloadTooLargeError:
        raise
    except Exception:  # noqa: BLE001 (pickling runs user code)
        return None
    return file.digest()


def goes_along(value: object, bound: Bounded | None) -> bool:
    """Tell whether a value that a function may do without can be pickled."""
    try:
        PlainPickler(Hashing(bound)).dump(value)
    except Exception:  # noqa: BLE001 (pickling runs user code)
        return False
    return True
