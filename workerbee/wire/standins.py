"""Objects that stand in a pickle for what can't leave its process."""

from __future__ import annotations

from typing import Any

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
