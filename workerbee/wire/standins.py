"""Objects that stand in a pickle for what can't leave its process."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from operator import attrgetter
from types import BuiltinMethodType, MethodType
from typing import Any, NamedTuple

#: The module by which stored pickles name these classes: it has them too, and must have them for ever.
NAMED_IN_PICKLES = "workerbee.pickling"


class Absent(str):
    """The text of something that can't be sent, in its place; what holds it may still close it."""

    __module__ = NAMED_IN_PICKLES
    __slots__ = ()

    def close(self) -> None:
        """Do nothing: nothing is open here."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self!s} stayed where it was made, and has no {name} here")

    def __repr__(self) -> str:
        return str(self)

    def __reduce__(self) -> Any:
        return Absent, (str(self),)


class Own(NamedTuple):
    """Stands for a thing of which each process has its own, or for a method of it."""

    module: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, thing: Any, names: Mapping[int, tuple[str, str]]) -> Own | None:
        """Stand for a thing, if it or what it is a method of has a name; else None."""
        if known := names.get(id(thing)):
            return cls(known[0], known[1:])
        if type(thing) in _METHODS and (known := names.get(id(thing.__self__))):
            return cls(known[0], (known[1], thing.__name__))
        return None

    def __reduce__(self) -> Any:
        return _own_here, tuple(self)


_METHODS = frozenset({MethodType, BuiltinMethodType})


def _own_here(module: str, names: tuple[str, ...]) -> Any:
    return attrgetter(".".join(names))(importlib.import_module(module))


class Stub:
    """Stands for a thing that is of use only in the process that made it; whoever uses it is told so."""

    __module__ = NAMED_IN_PICKLES

    def __init__(self, what: str, advice: str) -> None:
        self.what = what
        self.advice = advice

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(self._refusal(f"has no {name} here"))

    def __call__(self, *_: object, **__: object) -> Any:
        raise TypeError(self._refusal("can't be called here"))

    def __enter__(self) -> Any:
        raise TypeError(self._refusal("can't be entered here"))

    def __exit__(self, *_: object) -> None:
        """Do nothing: nothing is entered."""

    def _refusal(self, what_not: str) -> str:
        return f"{self.what} stayed in the process that made it, and {what_not}: {self.advice}"

    def __repr__(self) -> str:
        return f"<stub of {self.what}>"

    def __reduce__(self) -> Any:
        return Stub, (self.what, self.advice)
