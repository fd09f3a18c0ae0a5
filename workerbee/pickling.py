"""Values to pickles, and the globals that functions by value find in a runner.

cloudpickle gives the functions of one pickle a namespace to themselves. Those of one module are to share
one, as they do in a pool's worker, so that what an initializer or another job has set is seen. But versions
of a function must not meet: so a pickle tells what its functions' globals were, and they share a namespace
only with those that came with nothing else under the same names.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, cast

import cloudpickle
from cloudpickle.cloudpickle import _function_setstate

from workerbee import script
from workerbee.errors import PayloadTooLargeError, complete, rebuilt, taken_apart
from workerbee.wire import classes
from workerbee.wire.bounded import Aside, Bounded, Hashing, taken_out
from workerbee.wire.bytecode import is_dispatcher, mentioned
from workerbee.wire.imports import Bound, CachedFunction, by_value, importable, stands_for
from workerbee.wire.sources import Excerpt, excerpt, keep

#: Namespaces that are kept for one module; what is in older ones is let go with the functions in it.
MOST_NAMESPACES = 8


class Absent(str):
    """The text of something that can't be sent, in its place; what holds it may still close it."""

    __slots__ = ()

    def close(self) -> None:
        """Nothing is open here."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self!s} stayed where it was made, and has no {name} here")

    def __repr__(self) -> str:
        return str(self)

    def __reduce__(self) -> Any:
        return Absent, (str(self),)


class Stub:
    """Stands for a thing that is of use only in the process that made it; whoever uses it is told so."""

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
        """Nothing is entered."""

    def _refusal(self, what_not: str) -> str:
        return f"{self.what} stayed in the process that made it, and {what_not}: {self.advice}"

    def __repr__(self) -> str:
        return f"<stub of {self.what}>"

    def __reduce__(self) -> Any:
        return Stub, (self.what, self.advice)


# Dumping


def dumps(
    value: object, file: io.BytesIO | None = None, aside: Aside | None = None, *, stem: Stem | None = None
) -> bytes:
    """A pickle that `loads` takes, made in ``file``, with what ``aside`` leaves of its buffers.

    Raises whatever the value's own methods and the file do. ``stem``: what the functions in it have in common with
    others, which needn't be pickled again.
    """
    file = io.BytesIO() if file is None else file
    pickler = _Pickler(file, aside)
    if stem is not None:
        pickler.resume(stem)
    pickler.dump(value)
    return pickler.bundled(file.getvalue(), make=_load if stem is None else _load_grown)


class Stem:
    """The pickle of what functions with the same code have in common; pickles of theirs go on from there.

    It is of use as long as nothing in it has changed.
    """

    def __init__(self, value: object, most: int) -> None:
        """``value`` has it in it; at most so many bytes. Raises whatever the value's own methods do."""
        file = Bounded("what functions have in common", most)
        self.pickler = _Pickler(file)
        self.pickler.dump(value)
        self.body = file.getvalue()

    @property
    def whole(self) -> bool:
        """Tell whether all in it is named by the code of its functions."""
        return not self.pickler.mentions


class Origin(NamedTuple):
    """The globals of some functions where they come from: those that name the module, and digests of the others."""

    module: dict[str, Any]
    brought: dict[str, bytes]


class _Bundle(NamedTuple):
    make: Callable[..., Any]
    origins: list[Origin]
    body: bytes
    excerpts: list[Excerpt]

    def __reduce__(self) -> Any:
        source = [self.excerpts] if self.excerpts else []
        return self.make, (self.origins, self.body, *source)


class PlainPickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """cloudpickle, and what holds a lock of its own: functions behind a cache, and cached properties."""

    def __init__(self, file: io.BytesIO | Hashing, aside: Aside | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=aside)

    def reducer_override(self, obj: Any) -> Any:
        if issubclass(type(obj), Bound):
            return Stub, stands_for(obj)
        if type(obj) is MethodType and isinstance(obj.__self__, Bound):
            what, advice = stands_for(obj.__self__)
            return Stub, (f"{obj.__func__.__name__} of {what}", advice)
        if isinstance(obj, CachedFunction) and not importable(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, functools.cached_property):
            return functools.cached_property, (obj.func,), {"attrname": obj.attrname}
        if isinstance(obj, memoryview) and obj.format in _NATIVE:
            return _viewed, (obj.tobytes(), obj.format, obj.shape)
        if is_dispatcher(obj) and not importable(obj):
            return _dispatcher, (), (dict(obj.registry), _own_attributes(obj)), None, None, _fill_dispatcher
        if _wants_other_arguments(type(obj)):
            attributes, members, args = taken_apart(obj)
            return rebuilt, (type(obj), args, {}), (attributes, members), None, None, complete
        if isinstance(obj, CodeType):
            make, parts = self.dispatch_table[CodeType](obj)
            # cloudpickle leaves the file out; a traceback is to show where a job has failed.
            return make, tuple(obj.co_filename if part == "<dynamic-code>" else part for part in parts)
        if isinstance(obj, type) and classes.is_by_value(obj):
            return classes.reduced(obj)
        if isinstance(obj, FunctionType) and by_value(obj.__module__ or ""):
            return self._dynamic_function_reduce(obj)
        if isinstance(obj, ModuleType) and by_value(obj.__name__) and obj.__name__ != "__main__":
            return classes.reduced_module(obj)
        return super().reducer_override(obj)


class _Pickler(PlainPickler):
    """Notes what the functions find in their globals."""

    def __init__(self, file: io.BytesIO, aside: Aside | None = None) -> None:
        super().__init__(file, aside)
        self._file = file
        self._bound = file if isinstance(file, Bounded) else None
        self.origins: dict[int, tuple[_Globals, Origin]] = {}
        self.excerpts: dict[int, Excerpt | None] = {}  # by the ids of code, which the memo holds
        self.mentions = False

    def resume(self, stem: Stem) -> None:
        """Go on where this one has ended: what is in it is known."""
        self._file.write(stem.body)
        self.memo: Any = stem.pickler.memo
        self.excerpts |= stem.pickler.excerpts
        for key, (space, origin) in stem.pickler.origins.items():
            self.origins[key] = space, Origin(origin.module, dict(origin.brought))

    def bundled(self, body: bytes, make: Callable[..., Any]) -> bytes:
        """The pickle with what its functions need; ``make`` loads it."""
        if not self.origins:
            return body
        origins = [origin for _, origin in self.origins.values()]
        return pickle.dumps(_Bundle(make, origins, body, list(filter(None, self.excerpts.values()))), protocol=5)

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        make, (code, module, *rest), state, *_ = super()._dynamic_function_reduce(func)
        space, origin = self.origins.setdefault(id(func.__globals__), (_Globals(len(self.origins)), Origin(module, {})))
        self._bring_mentioned(func, state[1]["__globals__"])
        for name, value in state[1]["__globals__"].items():
            if name not in origin.brought:
                origin.brought[name] = _digest(value, func.__globals__, self._bound)
        if id(func.__code__) not in self.excerpts:
            self.excerpts[id(func.__code__)] = excerpt(func)
        return make, (code, space, *rest), state, None, None, _set_state

    def _bring_mentioned(self, func: FunctionType, found: dict[str, Any]) -> None:
        """Add what cloudpickle leaves behind, though the function may look it up: `mentioned`."""
        for name in mentioned(func):
            if name in func.__globals__ and name not in found and _goes_along(func.__globals__[name], self._bound):
                found[name] = func.__globals__[name]
                self.mentions = True


class _DigestPickler(PlainPickler):
    """Leaves out what functions find in the given globals: each of those has a digest of its own."""

    def __init__(self, file: Hashing, known: dict[str, Any]) -> None:
        super().__init__(file)
        self._known = known

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(func)
        if func.__globals__ is self._known:
            reduced[2][1]["__globals__"] = {}
        return reduced


class _Globals:
    """Stands for the globals of functions in the pickle of them."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __reduce__(self) -> Any:
        return _opened_here, (self.n,)


def _digest(value: object, known: dict[str, Any], bound: Bounded | None = None) -> bytes:
    """Digest a value of the globals ``known``; what can't be told is like nothing else."""
    file = Hashing(bound)
    try:
        _DigestPickler(file, known).dump(value)
    except PayloadTooLargeError:
        raise
    except Exception:  # noqa: BLE001 (pickling runs user code)
        return os.urandom(16)
    return file.digest()


def _goes_along(value: object, bound: Bounded | None) -> bool:
    """Tell whether a value that a function may do without can be pickled."""
    try:
        PlainPickler(Hashing(bound)).dump(value)
    except Exception:  # noqa: BLE001 (pickling runs user code)
        return False
    return True


def _wants_other_arguments(kind: type) -> bool:
    """Tell whether an exception's class may not take what it keeps as ``args``, and has no say in how it is pickled."""
    return (
        issubclass(kind, BaseException)
        and isinstance(kind.__init__, FunctionType)
        and not any(isinstance(how, FunctionType) for how in (kind.__reduce__, kind.__reduce_ex__, kind.__setstate__))
    )


#: Formats of the items of a memoryview that another one can be cast to.
_NATIVE = frozenset("cbB?hHiIlLqQnNfd")


def _viewed(data: bytes, item: str, shape: tuple[int, ...]) -> memoryview:
    view: memoryview = memoryview(data).cast(item, shape)  # type: ignore[call-overload]
    return view


def _own_attributes(dispatcher: Any) -> dict[str, Any]:
    made = vars(functools.singledispatch(_undispatched))
    return {name: value for name, value in vars(dispatcher).items() if name not in made}


def _undispatched(*_: object) -> None:
    """Stands in a dispatcher until it has its functions."""


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


# Loading


class Namespaces:
    """Keeps the globals of functions by value, for those with the same initializer."""

    def __init__(self, setup: bytes = b"") -> None:
        """Run the initializer in ``setup``, a pickle of it and its arguments. Raises what it raises."""
        self._spaces: dict[str, deque[Namespace]] = {}
        self._prepared: dict[str, dict[str, Any]] = {}
        if setup:
            self._initialize(setup)

    def _initialize(self, setup: bytes) -> None:
        with self.used():
            initializer, initargs = pickle.loads(setup)  # noqa: S301 (part of a verified record)
        before = [
            (
                module,
                space.globals,
                {name: (value, _digest(value, space.globals)) for name, value in space.globals.items()},
            )
            for module, spaces in self._spaces.items()
            for space in spaces
        ]
        initializer(*initargs)
        for module, found, was in before:
            self._prepared.setdefault(module, {}).update(
                (name, value) for name, value in found.items() if not _is_as_before(was.get(name), value, found)
            )
        for module, found, _ in before:
            for name, value in self._prepared[module].items():
                found.setdefault(name, value)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Whatever is unpickled meanwhile finds its globals here."""
        token, arriving = _used.set(self), classes.arriving.set(True)
        try:
            yield
        finally:
            _used.reset(token)
            classes.arriving.reset(arriving)

    def find(self, origin: Origin) -> dict[str, Any]:
        """The globals for functions that come from there."""
        module = origin.module.get("__name__", "")
        spaces = self._spaces.setdefault(module, deque(maxlen=MOST_NAMESPACES))
        space = next((space for space in reversed(spaces) if space.agrees(origin)), None)
        if space is None:
            found = {**origin.module, **self._prepared.get(module, {})}
            main = script.main(found) if module == "__main__" else None
            space = Namespace(found if main is None else vars(main), {}, main)
            spaces.append(space)
        if space.main is not None:
            script.use(space.main)
        space.brought.update(origin.brought)
        return space.globals


class Namespace(NamedTuple):
    """Globals, and digests of those that functions have brought."""

    globals: dict[str, Any]
    brought: dict[str, bytes]
    main: script.Main | None  # the module that has them, if it stands as ``__main__``

    def agrees(self, origin: Origin) -> bool:
        """Tell whether functions from there would find what they have left there, or what has become of it since."""
        return all(
            self.brought[name] == what if name in self.brought else name not in self.globals
            for name, what in origin.brought.items()
        )


_used: ContextVar[Namespaces | None] = ContextVar("_used", default=None)
_opened: ContextVar[list[dict[str, Any]]] = ContextVar("_opened")


def _is_as_before(before: tuple[Any, bytes] | None, value: object, known: dict[str, Any]) -> bool:
    return before is not None and before[0] is value and before[1] == _digest(value, known)


def _load(origins: list[Origin], body: bytes, excerpts: Iterable[Excerpt] = ()) -> Any:
    with _found(origins, excerpts):
        return pickle.loads(body, buffers=taken_out.get())  # noqa: S301 (part of a pickle that was found to be trusted)


def _load_grown(origins: list[Origin], body: bytes, excerpts: Iterable[Excerpt] = ()) -> Any:
    """Load what follows a stem."""
    with _found(origins, excerpts):
        unpickler = pickle.Unpickler(io.BytesIO(body))  # noqa: S301 (as above)
        unpickler.load()
        return unpickler.load()


@contextmanager
def _found(origins: list[Origin], excerpts: Iterable[Excerpt]) -> Iterator[None]:
    """Functions that are unpickled meanwhile find the globals from there."""
    namespaces = _used.get()
    if namespaces is None:
        namespaces = Namespaces()
    else:
        keep(excerpts)
    token = _opened.set([namespaces.find(origin) for origin in origins])
    try:
        yield
    finally:
        _opened.reset(token)


def _opened_here(n: int) -> dict[str, Any]:
    return _opened.get()[n]


def _set_state(fn: FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Complete a function; what is in its globals already stays as it is."""
    attributes, slots = state
    new = {name: value for name, value in slots["__globals__"].items() if name not in fn.__globals__}
    _function_setstate(fn, (attributes, slots | {"__globals__": new}))
