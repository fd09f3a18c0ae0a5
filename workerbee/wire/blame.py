"""Blame: finds the part of a callable that can't be pickled, by its name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from workerbee import pickling
from workerbee.wire.bytecode import MISSING, content, functions_of, global_names
from workerbee.wire.imports import importable, name_of


def culprit(thing: Any, seen: set[int] | None = None) -> str | None:
    """Find the innermost thing that has a name and can't be pickled; None if there is no such thing."""
    seen = set() if seen is None else seen
    for where, part in _parts_of(thing):
        if id(part) not in seen and not importable(part):
            seen.add(id(part))
            if not _can_be_pickled(part):
                return culprit(part, seen) or where
    return None


def _can_be_pickled(thing: Any) -> bool:
    try:
        pickling.dumps(thing)
    except Exception:  # noqa: BLE001 (that is the question)
        return False
    return True


def _parts_of(thing: Any) -> Iterator[tuple[str, Any]]:
    """List what a thing brings along in a pickle, each with a name."""
    if isinstance(thing, FunctionType):
        yield from _parts_of_function(thing)
    elif isinstance(thing, type):
        yield from _attributes(thing, name_of(thing))
    elif isinstance(thing, MethodType):
        yield from _parts_of(thing.__func__)
        yield from _parts_of(thing.__self__)
    elif isinstance(thing, partial):
        yield name_of(thing.func), thing.func
        yield from ((f"argument {n} of a partial of {name_of(thing)}", arg) for n, arg in enumerate(thing.args))
        yield from (
            (f"`{name}`, an argument of a partial of {name_of(thing)}", v) for name, v in thing.keywords.items()
        )
    elif isinstance(getattr(thing, "__dict__", None), dict):
        yield name_of(type(thing)), type(thing)
        yield from _attributes(thing, f"a {name_of(type(thing))}")


def _parts_of_function(fn: FunctionType) -> Iterator[tuple[str, Any]]:
    name, code = name_of(fn), fn.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = fn.__defaults__ or ()
    for default in (
        *zip(names[len(names) - len(defaults) :], defaults, strict=True),
        *(fn.__kwdefaults__ or {}).items(),
    ):
        yield f"`{default[0]}`, a default of {name}", default[1]
    for free, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
        yield f"`{free}`, which {name} names", content(cell, "", None)
    for used in global_names(code):
        value = fn.__globals__.get(used, MISSING)
        if value is not MISSING:
            yield f"`{used}`, which {name} names", value
    yield from _attributes(fn, name)


def _attributes(thing: Any, name: str) -> Iterator[tuple[str, Any]]:
    for attribute, value in list(vars(thing).items()):
        if not (attribute.startswith("__") and attribute.endswith("__")) or isinstance(value, FunctionType):
            for part in functions_of(value):
                yield f"`{attribute}`, an attribute of {name}", part
