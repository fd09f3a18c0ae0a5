"""Functions to records and back, and what makes two functions the same function.

An importable function is stored as its name; any other (of ``__main__``, closures, lambdas) by value. Its
*identity* is its name and its code: instructions, constants, defaults, closure, and for functions that go
by value, transitively, the by-value functions and classes that they name and the globals that are exactly
JSON. Docstrings and line numbers don't count; imported modules count by name only; Python's minor version
does. Pickles never count: they differ from process to process for the same function.
"""

from __future__ import annotations

import builtins
import importlib
import io
import pickle
import platform
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from types import CodeType, FunctionType
from typing import Any, NamedTuple, cast

import cloudpickle

from workerbee import codec
from workerbee.errors import EncodingError, FunctionUnavailable

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


class Loaded(NamedTuple):
    """A function in the process that runs it."""

    function: Callable[..., Any]
    initializer: Callable[..., Any] | None
    initargs: tuple[Any, ...]


class Cache:
    """Describes functions for one executor, each once, and anew when something it depends on is another object."""

    def __init__(self, initializer: Callable[..., Any] | None = None, initargs: tuple[Any, ...] = ()) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._known: dict[tuple[int, str | None], tuple[Any, tuple[Any, ...], Function]] = {}

    def describe(self, fn: Callable[..., Any], version: str | None = None) -> Function:
        """The record of ``fn``. Raises EncodingError if it can't be pickled, TypeError if it can't be called."""
        key = (id(fn), version)
        now = tuple(_depends(fn))
        known = self._known.get(key)
        # Held objects can't be replaced by others at the same address, so comparing identities is safe.
        if known is not None and known[0] is fn and len(now) == len(known[1]) and all(map(_is, now, known[1])):
            return known[2]
        function = describe(fn, self._initializer, self._initargs, version=version)
        if len(self._known) > 256:
            self._known.clear()
        self._known[key] = (fn, now, function)
        return function


def _is(a: object, b: object) -> bool:
    return a is b


def describe(
    fn: Callable[..., Any],
    initializer: Callable[..., Any] | None = None,
    initargs: tuple[Any, ...] = (),
    *,
    version: str | None = None,
) -> Function:
    """The record of a function, together with the initializer that is to run before it."""
    if not callable(fn):
        raise TypeError(f"{fn!r} is not callable")
    name = _name(fn)
    if initializer is None and importable(fn):
        kind, body = IMPORT, f"{fn.__module__}:{fn.__qualname__}".encode()
    else:
        kind, body = PICKLE, _dump((fn, initializer, initargs), name)
    identity = _Identity()
    if version is None:
        identity.add(fn)
    else:
        identity.note("version", version)
    return Function(
        name,
        codec.digest(name.encode(), PYTHON.encode(), *identity.parts),
        identity.memo,
        codec.digest(kind.encode(), PYTHON.encode(), body),
        kind,
        body,
        PYTHON,
    )


def _name(fn: Any) -> str:
    if isinstance(fn, partial):
        return _name(fn.func)
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{getattr(named, '__module__', None) or '?'}:{named.__qualname__}"


def importable(fn: Any) -> bool:
    """Whether another process gets this very object by importing its name."""
    module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module == "__main__" or _by_value(module):
        return False
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is fn


def _by_value(module: str) -> bool:
    """Whether the user has asked for this module, or a package it is in, to travel by value."""
    registered = cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(name + ".") for name in registered)


# By value


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """cloudpickle, with one namespace a module: what an initializer sets there, the tasks see."""

    def _function_getnewargs(self, func: FunctionType) -> tuple[Any, ...]:
        code, _, *rest = super()._function_getnewargs(func)
        return (code, _Namespace(func.__globals__.get("__name__", "__main__")), *rest)


class _Namespace:
    """Stands in a pickle for the globals of a module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace, (self._module,)


_namespaces: dict[str, dict[str, Any]] = {}
_initialized: dict[str, dict[str, Any]] = {}


def namespace(module: str) -> dict[str, Any]:
    """The globals that by-value functions of this module share in this process."""
    return _namespaces.setdefault(module, {"__name__": module, "__builtins__": builtins})


def _dump(value: object, name: str) -> bytes:
    file = io.BytesIO()
    try:
        _Pickler(file, protocol=5).dump(value)
    except Exception as error:
        raise EncodingError(f"the function {name}", error) from error
    return file.getvalue()


def load(kind: str, body: bytes, python: str) -> Loaded:
    """The function of a record whose signature holds. Raises FunctionUnavailable if it can't be had here."""
    if kind == PICKLE and python != PYTHON:
        raise FunctionUnavailable(f"it was stored by Python {python} by value, and this is Python {PYTHON}")
    if kind == IMPORT:
        return Loaded(resolve(body.decode()), None, ())
    try:
        loaded = Loaded(*pickle.loads(body))  # noqa: S301 (verified by the caller)
    except Exception as error:
        raise FunctionUnavailable(f"it can't be loaded here: {type(error).__name__}: {error}") from error
    for module, values in _initialized.items():
        namespace(module).update(values)
    return loaded


def initialize(loaded: Loaded) -> None:
    """Run the initializer; the globals it sets outlive what functions loaded later bring along."""
    if loaded.initializer is None:
        return
    before = {module: dict(values) for module, values in _namespaces.items()}
    loaded.initializer(*loaded.initargs)
    for module, values in _namespaces.items():
        old = before.get(module, {})
        changed = {k: v for k, v in values.items() if k not in old or old[k] is not v}
        _initialized.setdefault(module, {}).update(changed)


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


class _Identity:
    """Collects what makes a function what it is; ``memo`` turns False at what can't be compared."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.memo = True
        self._seen: set[int] = set()

    def note(self, *texts: str) -> None:
        self.parts.append("\0".join(texts).encode("utf-8", "surrogatepass"))

    def add(self, thing: Any) -> None:
        """Anything a function may depend on."""
        if id(thing) in self._seen:
            self.note("again", getattr(thing, "__qualname__", type(thing).__qualname__))
            return
        plain = codec.canonical(thing)
        if plain is not None:
            self.parts.append(plain)
            return
        self._seen.add(id(thing))
        self._add_object(thing)

    def _add_object(self, thing: Any) -> None:
        if isinstance(thing, FunctionType):
            self._add_function(thing)
        elif isinstance(thing, types.MethodType):
            self.note("method")
            self.add(thing.__func__)
            self.add(thing.__self__)
        elif isinstance(thing, partial):
            self.note("partial")
            for part in (thing.func, list(thing.args), thing.keywords):
                self.add(part)
        elif isinstance(thing, (list, tuple, dict)):
            self.note(type(thing).__qualname__)
            for item in thing.items() if isinstance(thing, dict) else thing:
                self.add(item)
        elif isinstance(thing, types.ModuleType):
            self.note("module", thing.__name__)
        elif isinstance(thing, type):
            self._add_class(thing)
        elif importable(thing) or isinstance(thing, types.BuiltinFunctionType):
            self.note("name", _name(thing))
        else:
            self._add_instance(thing)

    def _add_function(self, fn: FunctionType) -> None:
        self.note("function", fn.__qualname__)
        self._add_code(fn.__code__)
        self.add(list(fn.__defaults__ or ()))
        self.add(dict(sorted((fn.__kwdefaults__ or {}).items())))
        for cell in fn.__closure__ or ():
            self.add(_content(cell))
        if not importable(fn):
            for name in sorted(_names(fn.__code__)):
                if name in fn.__globals__:
                    self._add_global(name, fn.__globals__[name])

    def _add_global(self, name: str, value: Any) -> None:
        """Of globals only those that can be compared count; the others travel along, uncompared."""
        self.note("global", name)
        if isinstance(value, (FunctionType, type, types.ModuleType)) or codec.canonical(value) is not None:
            if isinstance(value, (FunctionType, type)) and importable(value):
                self.note("name", _name(value))
            else:
                self.add(value)

    def _add_class(self, cls: type) -> None:
        self.note("class", _name(cls))
        if importable(cls):
            return
        for base in cls.__bases__:
            self.add(base)
        for name, value in sorted(vars(cls).items()):
            if name not in _CLASS_NOISE:
                self.note(name)
                inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
                self._add_property(value) if isinstance(value, property) else self._add_global(name, inner)

    def _add_property(self, value: property) -> None:
        for part in (value.fget, value.fset, value.fdel):
            self.add(part)

    def _add_instance(self, thing: Any) -> None:
        self.add(type(thing))
        state = getattr(thing, "__dict__", None)
        if state is None or type(thing).__module__ in ("builtins", "numpy"):
            self.memo = False  # an object whose state isn't ours to look into
            return
        for name, value in sorted(state.items()):
            self.note(name)
            self.add(value)

    def _add_code(self, code: CodeType) -> None:
        from dis import get_instructions  # noqa: PLC0415 (only clients need it)

        self.note(
            "code",
            str((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0x2F)),
        )
        self.note(*code.co_varnames, "", *code.co_cellvars, "", *code.co_freevars)
        for step in get_instructions(code):
            self.note(step.opname, "" if step.opname.endswith("LOAD_CONST") else str(step.argrepr))
            if step.opname.endswith(("LOAD_CONST", "KW_NAMES")):
                self._add_constant(step.argval)

    def _add_constant(self, value: object) -> None:
        if isinstance(value, CodeType):
            self._add_code(value)
        elif isinstance(value, frozenset):  # its order differs from process to process
            self.note("frozenset", *sorted(map(repr, value)))
        else:
            self.note(type(value).__name__, repr(value))


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
        "__annotate__",
        "__annotate_func__",
        "__abstractmethods__",
        "_abc_impl",
    }
)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "an empty cell"


def _names(code: CodeType) -> set[str]:
    """The global names that a function's code, and the code inside it, may look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


_names_of: dict[CodeType, tuple[str, ...]] = {}


def _depends(fn: Any, depth: int = 4) -> Iterator[Any]:
    """The objects that a function's record was made from: if any is another one, it is made anew."""
    if isinstance(fn, FunctionType):
        code = fn.__code__
        yield code
        yield fn.__defaults__
        yield fn.__kwdefaults__
        for cell in fn.__closure__ or ():
            yield _content(cell)
        if fn.__module__ == "__main__" or "<locals>" in fn.__qualname__ or _by_value(fn.__module__ or ""):
            names = _names_of.get(code)
            if names is None:
                names = _names_of.setdefault(code, tuple(sorted(_names(code))))
            for name in names:
                value = fn.__globals__.get(name)
                yield value
                if depth and isinstance(value, FunctionType) and value is not fn:
                    yield from _depends(value, depth - 1)
    elif isinstance(fn, types.MethodType):
        yield from _depends(fn.__func__, depth)
        yield object()  # the state of an instance may have changed: look again
    elif isinstance(fn, partial):
        yield from _depends(fn.func, depth)
    elif not isinstance(fn, (type, types.BuiltinFunctionType)):
        yield from getattr(fn, "__dict__", {}).values()
