"""Objects whose methods raise, exit, recurse, wait and start threads; a module, so that every process can import it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

#: Seconds that a slow method takes.
SLOW = 0.3


def fail() -> None:
    raise ValueError("hostile")


def leave() -> None:
    sys.exit("hostile")


def interrupt() -> None:
    raise KeyboardInterrupt


def end() -> None:
    raise GeneratorExit


def recurse() -> None:
    recurse()


def wait() -> None:
    time.sleep(SLOW)


def start_threads() -> None:
    for thread in [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(3)]:
        thread.start()


ACTS = (fail, leave, interrupt, end, recurse, wait, start_threads)
ARMED = (
    "__eq__",
    "__hash__",
    "__bool__",
    "__len__",
    "__del__",
    "__reduce__",
    "__setstate__",
    "__str__",
    "__repr__",
    "__getattr__",
    "__setattr__",
    "__class__",
)


def _armed(name: str, act: Callable[[], None]) -> Any:
    """The method of this name that acts, and then does what is usual."""

    def method(self: Any, *args: Any) -> Any:
        act()
        return _USUAL[name](self, *args)

    return property(method) if name == "__class__" else method


def _missing(_: Any, name: str) -> Any:
    raise AttributeError(name)


def _set_state(self: Any, state: Any) -> None:
    vars(self).update(state or {})


_USUAL: dict[str, Callable[..., Any]] = {
    "__eq__": lambda self, other: self is other,
    "__hash__": id,
    "__bool__": lambda _: True,
    "__len__": lambda _: 0,
    "__del__": lambda _: None,
    "__reduce__": lambda self: (type(self), ()),
    "__setstate__": _set_state,
    "__str__": lambda _: "hostile",
    "__repr__": lambda _: "hostile",
    "__getattr__": _missing,
    "__setattr__": lambda self, name, value: vars(self).__setitem__(name, value),
    "__class__": type,
}


def _made(name: str, act: Callable[[], None], base: type) -> type:
    kind = "Error" if issubclass(base, Exception) else "Value"
    names = {name: _armed(name, act), "__module__": __name__}
    if name in ("__eq__", "__hash__"):
        names.setdefault("__hash__", object.__hash__)
    return type(f"{name.strip('_').title()}{act.__name__.title().replace('_', '')}{kind}", (base,), names)


class _Plain:
    def __init__(self, *args: Any) -> None:
        vars(self)["args"] = args


VALUES = [_made(name, act, _Plain) for name in ARMED for act in ACTS]
ERRORS = [_made(name, act, Exception) for name in ARMED for act in ACTS]
LEAVING: list[type[BaseException]] = [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration]
globals().update({cls.__name__: cls for cls in VALUES + ERRORS})

KEYS = {
    act.__name__: type(
        f"{act.__name__.title().replace('_', '')}Key",
        (str,),
        {"__eq__": _armed("__eq__", act), "__hash__": str.__hash__, "__module__": __name__},
    )
    for act in ACTS
}
globals().update({cls.__name__: cls for cls in KEYS.values()})


def keyed(act: str) -> dict[Any, int]:
    """A dict that is quiet until its key is compared with one of the same hash."""
    return {KEYS[act]("job_id"): 1, "b": 2}


_FORMS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda value: value,
    "a member": lambda value: {"a": [value, (value,)], "b": [[0]] * 2},
}


def give(name: str, form: str = "itself") -> Any:
    """A hostile value, or something that holds it."""
    return _FORMS[form](globals()[name]("x"))


def throw(name: str) -> None:
    """Raise a hostile exception, or one that means to end its process."""
    cls = globals().get(name)
    raise cls("x") if cls is not None else next(c for c in LEAVING if c.__name__ == name)("x")


def hold(value: Any) -> int:
    """Take a hostile argument."""
    del value
    return 1


def act(what: tuple[str, str]) -> Any:
    """Give, throw or, for a neighbour, return a plain value."""
    how, name = what
    return {"give": give, "throw": throw, "plain": len, "member": partial(give, form="a member")}[how](name)
