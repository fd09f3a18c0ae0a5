"""Functions to records and back, and what makes two functions the same function.

An importable function is stored as its name; any other (of ``__main__``, closures, lambdas) by value. Its
*identity* is its name and its code: instructions, constants, defaults, closure, and for functions that go
by value, transitively, the by-value functions and classes that they name and the globals that are plain
data. Docstrings and line numbers don't count; imported modules count by name only; Python's minor version
does. Pickles never count: they differ from process to process for the same function.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import platform
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, NamedTuple, cast

from workerbee import codec, pickling, records
from workerbee.errors import EncodingError, FunctionUnavailable
from workerbee.pickling import CachedFunction, Namespaces, importable

IMPORT, PICKLE = "import", "pickle"
PYTHON = ".".join(platform.python_version_tuple()[:2])


class Function(NamedTuple):
    """A function ready to be stored; ``memo`` False: its state can't be compared, so no two calls are the same."""

    name: str
    identity: bytes
    memo: bool
    digest: bytes
    codec: str
    body: bytes
    python: str
    named: bool = False


# Describing


class Cache:
    """Describes functions for one executor, each once, and anew when something it depends on is another object."""

    def __init__(self, initializer: Callable[..., Any] | None = None, initargs: tuple[Any, ...] = ()) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._known: dict[tuple[Any, ...], tuple[list[Any], list[Watched], Function]] = {}

    def describe(self, fn: Callable[..., Any], version: str | None = None) -> Function:
        """The record of ``fn``. Raises EncodingError if it can't be pickled, TypeError if it can't be called."""
        held: list[Any] = []
        steady = _hold(fn, held)
        # Held objects can't be replaced by others at the same address, so their ids are good for a key.
        key = (version, *map(id, held))
        known = self._known.get(key) if steady else None
        if known is not None and _unchanged(known[1]):
            return known[2]
        function, watched = self._describe(fn, version)
        function = function._replace(named=_is_named(fn))
        if version is not None:
            function = recoded(function, records.labelled(function.codec, version))
        if steady:
            if len(self._known) >= 256:
                self._known.clear()
            self._known[key] = (held, watched, function)
        return function

    @functools.cached_property
    def _setup(self) -> bytes:
        """The initializer as it is at first, or it would run anew in each runner whenever its globals change here."""
        return (
            b"" if self._initializer is None else _dump((self._initializer, self._initargs), _name(self._initializer))
        )

    def _describe(self, fn: Callable[..., Any], version: str | None) -> tuple[Function, list[Watched]]:
        if not callable(fn):
            raise TypeError(f"{fn!r} is not callable")
        name = _name(fn)
        if self._initializer is None and importable(fn):
            kind, body = IMPORT, f"{fn.__module__}:{fn.__qualname__}".encode()
        else:
            kind, body = PICKLE, pickle.dumps((_dump(fn, name), self._setup), protocol=5)
        identity = Identity(fn)
        parts = identity.parts if version is None else [b"version", version.encode()]
        function = Function(
            name,
            codec.digest(name.encode(), PYTHON.encode(), *parts),
            identity.memo or version is not None,
            digest(name, kind, body, PYTHON),
            kind,
            body,
            PYTHON,
        )
        return function, identity.watched


#: What an identity was made from: how to read it, of what, under which name, and what it was.
Watched = tuple[Callable[[Any, str, Any], Any], Any, str, Any]


def _unchanged(watched: list[Watched]) -> bool:
    for read, owner, name, value in watched:  # noqa: SIM110 (a generator would double the time of a submit)
        if read(owner, name, _MISSING) is not value:
            return False
    return True


_MISSING = object()
_CONSTANT = frozenset({type(None), bool, int, float, complex, str, bytes, FunctionType, ModuleType, CodeType})


def _hold(thing: Any, held: list[Any]) -> bool:
    """Append the objects that a callable consists of; False if one of them may change in place, unseen."""
    kind = type(thing)
    if kind is partial:
        held += (kind, len(thing.args), *thing.keywords)
        return all(_hold(part, held) for part in (thing.func, *thing.args, *thing.keywords.values()))
    if kind is MethodType:
        held.append(kind)
        return _hold(thing.__func__, held) and _hold(thing.__self__, held)
    held.append(thing)
    if kind in _CONSTANT or isinstance(thing, type):
        return True
    if kind in (tuple, frozenset):
        return all(_hold(part, held) for part in thing)
    if kind is BuiltinFunctionType:
        return thing.__self__ is None or isinstance(thing.__self__, ModuleType)
    if importable(thing):
        return True
    if not _is_its_attributes(thing, kind):
        return False
    held[-1] = reference = weakref.ref(thing)  # the same one as long as the object lives: its owner may let it go
    if any(part is reference for part in held[:-1]):
        return True
    held += vars(thing)
    return all(_hold(part, held) for part in vars(thing).values())


def _is_its_attributes(thing: Any, kind: Any) -> bool:
    """Whether an object's state is its ``__dict__`` and nothing else."""
    return (
        hasattr(thing, "__dict__")
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and getattr(kind, "__getstate__", None) is getattr(object, "__getstate__", None)
        and kind.__basicsize__ <= _Attributes.__basicsize__
    )


class _Attributes:
    pass


def digest(name: str, kind: str, body: bytes, python: str) -> bytes:
    """What the content of a record is known by."""
    return codec.digest(name.encode(), kind.encode(), python.encode(), body)


def recoded(function: Function, record_codec: str) -> Function:
    """The same function in a record that says something else beside its code (see `records`)."""
    whole = digest(function.name, record_codec, function.body, function.python)
    return function._replace(codec=record_codec, digest=whole)


def _is_named(fn: Any) -> bool:
    return isinstance(fn, (FunctionType, CachedFunction)) and "<" not in fn.__qualname__


def _name(fn: Any) -> str:
    if isinstance(fn, partial):
        return _name(fn.func)
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{getattr(named, '__module__', None) or '?'}:{named.__qualname__}"


def _dump(value: object, name: str) -> bytes:
    try:
        return pickling.dumps(value)
    except Exception as error:
        raise EncodingError(f"the function {name}", error) from error


# Loading


class Loader:
    """Loads the functions of one jobset in the process that runs them."""

    def __init__(self) -> None:
        self._namespaces: dict[bytes, Namespaces] = {}

    def load(self, kind: str, body: bytes, python: str) -> tuple[Callable[..., Any], Namespaces]:
        """The function of a record whose signature holds, and where what comes with its calls is to be loaded.

        An initializer runs before the first function that it belongs to. Raises FunctionUnavailable if the
        function can't be had here, or what its initializer raises.
        """
        if kind == IMPORT:
            return resolve(body.decode()), self._prepared(b"")
        if python != PYTHON:
            raise FunctionUnavailable(f"it was stored by Python {python} by value, and this is Python {PYTHON}")
        with _unavailable():
            function, setup = pickle.loads(body)  # noqa: S301 (verified by the caller)
        namespaces = self._prepared(setup)
        with _unavailable(), namespaces.used():
            return pickle.loads(function), namespaces  # noqa: S301 (as above)

    def _prepared(self, setup: bytes) -> Namespaces:
        if setup not in self._namespaces:
            self._namespaces[setup] = Namespaces(setup)
        return self._namespaces[setup]


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise FunctionUnavailable(f"it can't be loaded here: {type(error).__name__}: {error}") from error


def resolve(name: str) -> Callable[..., Any]:
    """Import the function ``module:qualname``. Never call this with a name from an unsigned row.

    Raises FunctionUnavailable.
    """
    module, _, qualname = name.partition(":")
    try:
        return cast("Callable[..., Any]", attrgetter(qualname)(importlib.import_module(module)))
    except Exception as error:
        raise FunctionUnavailable(f"{name} can't be imported here: {type(error).__name__}: {error}") from error


# Identity


class Identity:
    """What makes a function what it is, in ``parts``.

    ``memo`` is False if something can't be compared. ``watched`` are the code, defaults, cells and globals
    that were looked at: while they are the same objects, so is the identity.
    """

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self.parts: list[bytes] = []
        self.memo = True
        self.watched: list[Watched] = []
        self._seen: dict[int, tuple[int, Any]] = {}  # holds what it has seen, or an id might come again
        try:
            for fn in functions:
                self._add_callable(fn)
        except RecursionError:
            self.memo = False

    def _note(self, *texts: str) -> None:
        self.parts.append("\0".join(texts).encode("utf-8", "surrogatepass"))

    def _watch(self, read: Callable[[Any, str, Any], Any], owner: Any, name: str) -> Any:
        value = read(owner, name, _MISSING)
        self.watched.append((read, owner, name, value))
        return value

    def _is_new(self, thing: Any) -> bool:
        number, _ = self._seen.setdefault(id(thing), (len(self._seen), thing))
        new = number == len(self._seen) - 1
        if not new:
            self._note("again", str(number))
        return new

    def _add_callable(self, fn: Any) -> None:
        """The code that a call of ``fn`` runs, also where it is imported, and what belongs to it."""
        if isinstance(fn, FunctionType):
            self._add_function(fn)
        elif isinstance(fn, CachedFunction):
            self._add_callable(fn.__wrapped__)
        elif isinstance(fn, MethodType):
            self._note("method")
            self._add_callable(fn.__func__)
            self._add(fn.__self__)
        elif isinstance(fn, partial):
            self._note("partial")
            self._add_callable(fn.func)
            self._add(list(fn.args))
            self._add(fn.keywords)
        else:
            if isinstance(call := type(fn).__call__, FunctionType):
                self._add_function(call)
            self._add(fn)

    def _add(self, thing: Any) -> None:
        """Anything that belongs to a function."""
        plain = codec.canonical(thing)
        if plain is not None:
            self.parts.append(b"json\0" + plain)
        elif isinstance(thing, type):
            self._add_class(thing)
        elif isinstance(thing, ModuleType):
            self._note("module", thing.__name__)
        elif importable(thing):
            self._note("name", _name(thing))
        elif isinstance(thing, (FunctionType, MethodType, partial, CachedFunction)):
            self._add_callable(thing)
        elif isinstance(thing, (bytes, bytearray)):
            self.parts.append(type(thing).__name__.encode() + b"\0" + thing)
        elif type(thing) in _BY_REPR:
            self._note(type(thing).__name__, repr(thing))
        elif self._is_new(thing):
            self._add_contents(thing)

    def _add_contents(self, thing: Any) -> None:
        if type(thing) in (list, tuple, dict):
            self._add_sequence(thing)
        elif type(thing) in (set, frozenset):
            self._add_set(thing)
        else:
            self._add_instance(thing)

    def _add_sequence(self, thing: Any) -> None:
        self._note(type(thing).__name__, str(len(thing)))
        for item in thing.items() if isinstance(thing, dict) else thing:
            self._add(item)

    def _add_set(self, thing: Any) -> None:
        """Its order differs from process to process."""
        items = []
        for item in thing:
            inner = Identity()
            inner._add(item)
            items.append(codec.digest(*inner.parts))
            self.memo &= inner.memo
        self._note(type(thing).__name__, str(len(items)))
        self.parts += sorted(items)

    def _add_function(self, fn: FunctionType) -> None:
        if not self._is_new(fn):
            return
        self._note("function", fn.__qualname__)
        self._add_code(self._watch(getattr, fn, "__code__"))
        self._add(self._watch(getattr, fn, "__defaults__"))
        self._add(self._watch(getattr, fn, "__kwdefaults__"))
        for cell in fn.__closure__ or ():
            content = self._watch(_content, cell, "")
            self._add("an empty cell" if content is _MISSING else content)
        if not importable(fn):
            for name in sorted(_global_names(fn.__code__)):
                value = self._watch(dict.get, fn.__globals__, name)
                if value is not _MISSING:
                    self._add_named(name, value)

    def _add_named(self, name: str, value: Any) -> None:
        """Of globals and class attributes only code and plain data count; other objects travel along, uncompared."""
        self._note("named", name)
        if isinstance(value, (FunctionType, CachedFunction, type, ModuleType)) or _is_data(value, set()):
            self._add(value)

    def _add_class(self, cls: type) -> None:
        self._note("class", _name(cls))
        if importable(cls) or not self._is_new(cls):
            return
        for base in cls.__bases__:
            self._add(base)
        for name in sorted(cls.__dict__.keys() - _CLASS_NOISE):
            value = self._watch(MappingProxyType.get, cls.__dict__, name)
            if isinstance(value, _DESCRIPTORS):
                self._note(type(value).__name__)
            for part in _functions_of(value):
                self._add_named(name, part)

    def _add_instance(self, thing: Any) -> None:
        """What a pickle would be made from."""
        try:
            made = thing.__reduce_ex__(4)
        except Exception:  # noqa: BLE001 (it may be the user's)
            self.memo = False
            return
        if isinstance(made, str):
            self._note("name", _name(type(thing)), made)
            return
        self._note("object", str(len(made)))
        for part in made[:3]:
            self._add(part)
        for items in made[3:5]:
            self._add(None if items is None else list(items))

    def _add_code(self, code: CodeType) -> None:
        from dis import hasconst  # noqa: PLC0415 (only clients need it)

        self._note(
            "code", str((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0x2F))
        )
        self._note(*code.co_varnames, "", *code.co_cellvars, "", *code.co_freevars)
        self._note(getattr(code, "co_exceptiontable", b"").hex())
        for step in _instructions(code):
            constant = step.opcode in hasconst
            self._note(step.opname, "" if constant else str(step.argrepr))
            if constant:
                self._add_constant(step.argval)

    def _add_constant(self, value: object) -> None:
        if isinstance(value, CodeType):
            self._add_code(value)
        elif isinstance(value, frozenset):
            self._add_set(value)
        else:
            self._note(type(value).__name__, repr(value))


_BY_REPR = frozenset({int, float, complex, str, bytes, bytearray, range, type(...), type(NotImplemented)})
_DESCRIPTORS = (staticmethod, classmethod, property, functools.cached_property)
_CLASS_NOISE = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__qualname__",
        "__firstlineno__",
        "__static_attributes__",
        "__annotations__",
        "__annotations_cache__",
        "__annotate__",
        "__annotate_func__",
        "__abstractmethods__",
        "_abc_impl",
    }
)


def _is_data(value: Any, seen: set[int]) -> bool:
    """Whether a value is plain data, through and through."""
    if codec.canonical(value) is not None or type(value) in _BY_REPR or id(value) in seen:
        return True
    seen.add(id(value))
    if type(value) is dict:
        return all(_is_data(k, seen) and _is_data(v, seen) for k, v in value.items())
    return type(value) in (list, tuple, set, frozenset) and all(_is_data(item, seen) for item in value)


def _functions_of(value: Any) -> tuple[Any, ...]:
    """What is behind a class attribute."""
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, functools.cached_property):
        return (value.func,)
    return (value.__func__ if isinstance(value, (staticmethod, classmethod)) else value,)


def _content(cell: types.CellType, _: str, missing: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return missing


def _instructions(code: CodeType) -> list[Any]:
    """A code's instructions, without those that set a class's docstring or line number."""
    from dis import get_instructions  # noqa: PLC0415 (only clients need it)

    steps = list(get_instructions(code))
    idle = {
        n
        for n, step in enumerate(steps)
        if step.opname == "STORE_NAME" and step.argval in ("__doc__", "__firstlineno__")
    }
    return [step for n, step in enumerate(steps) if n not in idle and n + 1 not in idle]


def _global_names(code: CodeType) -> set[str]:
    """The global names that a function's code, and the code inside it, may look up."""
    names = {step.argval for step in _instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(c) for c in code.co_consts if isinstance(c, CodeType)))
