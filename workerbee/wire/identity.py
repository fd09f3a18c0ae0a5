"""Identity: two functions are the same if their names and their code are, in whatever process.

Code is instructions, constants, defaults and closure, and for functions that go by value, transitively, what they
name: functions, classes, and the values of globals and attributes, as a pickle would be made from them. Docstrings
and line numbers don't count; imported modules count by name only. Pickles never count: they differ from process to
process for the same function. What can't be compared is named, so that calls of the function aren't remembered.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from workerbee.wire import refused
from workerbee.wire.bytecode import (
    BY_REPR,
    CLASS_NOISE,
    MISSING,
    canonical,
    code_parts,
    content,
    counts,
    digest,
    functions_of,
    global_names,
    is_compiled,
    is_data,
    is_dispatcher,
    looked_up,
    no_attributes,
    note,
    same_attributes,
    same_names,
    same_registry,
    without_known,
    without_noise,
    wrapped_by,
)
from workerbee.wire.imports import (
    Bound,
    CachedFunction,
    by_value,
    found_in,
    importable,
    is_shared,
    name_of,
    own_things,
    registered,
    same_registered,
)
from workerbee.wire.standins import Own

#: Something that an identity was made from: how to read it, from which object, under which name, and its value.
Noted = tuple[Callable[[Any, Any, Any], Any], Any, Any, Any]


class Identity:
    """Collects what makes a function what it is, in ``parts``.

    ``culprit`` says what can't be compared, or is None. ``watched`` was looked at: while these are the same objects, so
    is the identity. ``imported`` are callables that travel by name although their code counts: who runs them is to have
    it. ``data`` is plain and may change in place; if ``steady``, nothing else may but what is watched.
    """

    def __init__(self, *functions: Any, named: Identity | None = None) -> None:
        """``named``: the identity of the globals that one of the functions names, if that is known (`of_globals`)."""
        self.parts: list[bytes] = []
        self.culprit: str | None = None
        self.watched: list[Noted] = []
        self.imported: dict[str, Any] = {}
        self.data: list[Any] = []
        self.steady = True
        self._path: list[str] = []
        self._by_name = False  # while something that travels by name is added
        self.seen: dict[int, tuple[int, Any]] = {}  # keeps the objects, so that no other one gets the same id
        self._named = named
        self._own = own_things()
        for fn in functions:
            with self._at(name_of(fn), fn):
                self._add_callable(fn)

    @classmethod
    def of_globals(cls, fn: FunctionType) -> Identity:
        """Digest the globals that a function by value names. They are the same for each of its code and globals."""
        identity = cls()
        identity._is_new(fn)
        identity._add_globals(fn)
        return identity

    @property
    def memo(self) -> bool:
        return self.culprit is None

    @contextmanager
    def _at(self, name: str, thing: Any) -> Iterator[None]:
        """Have a failure in the block name this as the culprit, unless every process finds it in a module."""
        self._path.append(name)
        n_parts = len(self.parts)
        try:
            yield
        except Exception as error:  # noqa: BLE001 (it may be the user's)
            if named := found_in(thing):
                self.parts[n_parts:] = [note("own", *named)]
            else:
                self._blame(thing, error)
        finally:
            self._path.pop()

    def _blame(self, thing: Any, error: Exception) -> None:
        if self.culprit is None:
            where = " → ".join(dict.fromkeys([*self._path[:1], *self._path[-2:]]))
            self.culprit = f"{where} ({type(thing).__qualname__}: {str(error) or type(error).__name__:.200})"

    def _note(self, *texts: str) -> None:
        self.parts.append(note(*texts))

    def _watch(self, read: Callable[[Any, Any, Any], Any], owner: Any, name: Any) -> Any:
        value = read(owner, name, MISSING)
        self.watched.append((read, owner, name, value))
        return value

    def _is_new(self, thing: Any) -> bool:
        known = self.seen.get(id(thing))
        if known is not None:
            self._note("again", str(known[0]))
            return False
        self.seen[id(thing)] = len(self.seen), thing
        return True

    # Callables

    def _add_callable(self, fn: Any) -> None:
        """Add the code that a call of ``fn`` runs, imported code too, and what belongs to it."""
        if isinstance(fn, (FunctionType, CachedFunction, type)) and importable(fn):
            self.imported[name_of(fn)] = fn
        if is_dispatcher(fn):
            self._add_dispatcher(fn)
        elif isinstance(fn, FunctionType):
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
            if type(fn) is not partial:
                self._add_class(type(fn))
                self._add(without_noise(vars(fn)))
        elif isinstance(fn, type):
            self._add_class(fn, anywhere=True)
        else:
            self._add_object(fn)

    def _add_dispatcher(self, fn: Any) -> None:
        """Add a single-dispatch function: its functions, each with its type."""
        if not self._is_new(fn):
            return
        functions = tuple(fn.registry.items())
        self.watched.append((same_registry, fn, functions, functions))
        for kind, function in functions:
            self._note("for", name_of(kind))
            self._add_callable(function)

    def _add_object(self, fn: Any) -> None:
        """Add an object that is called: the code of its class, or of the function that it wraps, and its state."""
        if isinstance(call := type(fn).__call__, FunctionType):
            self._add_function(call)
        wrapped = wrapped_by(fn)
        if wrapped is not None:
            named = importable(fn)
            if named:
                self.imported[name_of(fn)] = fn
            with self._travelling(by_name=named):
                self._add_callable(wrapped)
        self._add(fn)

    def _add_function(self, fn: FunctionType) -> None:
        if not self._is_new(fn):
            return
        self._note("function", fn.__qualname__)
        self.parts += code_parts(self._watch(getattr, fn, "__code__"))
        self._add(self._watch(getattr, fn, "__defaults__"))
        self._add(self._watch(getattr, fn, "__kwdefaults__"))
        named = importable(fn)
        with self._travelling(by_name=named):
            for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
                self._add_cell(name, cell)
        if not named:
            if not self._knows_globals(fn):
                self._add_globals(fn)
            self._add_attributes(fn)

    def _add_globals(self, fn: FunctionType) -> None:
        for name in global_names(fn.__code__):
            value = self._watch(dict.get, fn.__globals__, name)
            if value is not MISSING:
                self._add_named(name, value)
        if names := looked_up(fn):
            self.watched.append((same_names, fn, names, names))
        for name in names:
            self._add_named(name, self._watch(dict.get, fn.__globals__, name))

    def _knows_globals(self, fn: FunctionType) -> bool:
        """Take over what is known of a function's globals; False if that is unknown, or would be different here."""
        named = self._named
        if named is None or self._by_name or len(self.seen) > 1:
            return False
        (_, like), *seen = named.seen.values()
        if like.__code__ is not fn.__code__ or like.__globals__ is not fn.__globals__:
            return False
        if any(getattr(thing, "__code__", None) is fn.__code__ for _, thing in seen):
            return False  # it names itself
        self.parts += named.parts
        self.watched += named.watched
        self.imported |= named.imported
        self.seen |= {id(thing): (n, thing) for n, thing in seen}
        return True

    @contextmanager
    def _travelling(self, *, by_name: bool) -> Iterator[None]:
        before = self._by_name
        self._by_name = before or by_name
        try:
            yield
        finally:
            self._by_name = before

    def _add_cell(self, name: str, cell: types.CellType) -> None:
        value = self._watch(content, cell, "")
        with self._at(name, value):
            self._add("an empty cell" if value is MISSING else value)

    def _add_attributes(self, fn: FunctionType) -> None:
        if attributes := without_known(self._watch_attributes(fn), self.seen):
            self._note("attributes")
        for name in sorted(attributes):
            self._add_named(name, attributes[name])

    def _watch_attributes(self, thing: Any) -> dict[str, Any]:
        """Give the attributes of an object, and watch each of them."""
        attributes: dict[str, Any] = vars(thing)
        was = tuple(attributes.items())
        self.watched.append((same_attributes if was else no_attributes, thing, was, was))
        return attributes

    # Anything else

    def _add_named(self, name: str, value: Any) -> None:
        """Add a global or an attribute; of something that travels by name only code and plain data count."""
        self._note("named", name)
        if not self._by_name or isinstance(value, _CODE) or is_data(value, set()):
            with self._at(name, value):
                self._add(value)

    def _add(self, thing: Any) -> None:
        """Add anything that belongs to a function."""
        own = Own.of(thing, self._own)
        plain = canonical(thing) if own is None else None
        if own is not None:
            self._note("own", own.module, *own.names)
        elif plain is not None:
            self.parts.append(b"json\0" + plain)
            self.data += [thing] if type(thing) is list or type(thing) is dict else []
        elif isinstance(thing, type):
            self._add_class(thing)
        elif isinstance(thing, ModuleType):
            self._add_module(thing)
        elif importable(thing):
            self._note("name", name_of(thing))
        elif issubclass(type(thing), Bound):
            self._note("bound", name_of(type(thing)))
            self.steady = False
        elif isinstance(thing, (FunctionType, MethodType, partial, CachedFunction)):
            self._add_callable(thing)
        elif type(thing) in _BYTES:
            self.parts.append(type(thing).__name__.encode() + b"\0" + thing)
            self.steady = self.steady and type(thing) is bytes
        elif type(thing) in BY_REPR:
            self._note(type(thing).__name__, repr(thing))
        elif self._is_new(thing):
            self._add_contents(thing)

    def _add_contents(self, thing: Any) -> None:
        self.steady = self.steady and type(thing) is tuple
        if type(thing) in _SEQUENCES:
            self._add_sequence(thing)
        elif type(thing) is set or type(thing) is frozenset:
            self._add_set(thing)
        elif is_compiled(thing):
            self._add_compiled(thing)
        else:
            self._add_instance(thing)

    def _add_sequence(self, thing: Any) -> None:
        self._note(type(thing).__name__, str(len(thing)))
        for item in thing.items() if isinstance(thing, dict) else thing:
            self._add(item)

    def _add_set(self, thing: Any) -> None:
        """Add a set in a fixed order: its own differs from process to process."""
        items = []
        for item in thing:
            inner = Identity()
            inner._path = self._path
            inner._add(item)
            items.append(digest(*inner.parts))
            self.culprit = self.culprit or inner.culprit
        self._note(type(thing).__name__, str(len(items)))
        self.parts += sorted(items)

    def _add_compiled(self, thing: Any) -> None:
        """Add a function of Numba's, whose pickle has a number in it that differs from process to process."""
        self._note("compiled", name_of(type(thing)))
        self._add_function(thing.py_func)
        self._add({name: value for name, value in thing.targetoptions.items() if canonical(value) is not None})

    def _add_instance(self, thing: Any) -> None:
        """Add the parts that an object's pickle would be made from."""
        made = refused.taken_apart(thing)
        if isinstance(made, str):
            self._note("name", name_of(type(thing)), made)
            return
        if len(self._path) > 1 and type(getattr(thing, "__dict__", None)) is dict:
            self._watch_attributes(thing)  # what the callable itself holds is looked at by its own cache
        self._note("object", str(len(made)))
        for n, part in enumerate(made[:3]):
            self._add(without_noise(part) if n == 2 else part)
        for items in made[3:5]:
            self._add(None if items is None else list(items))

    def _add_module(self, module: ModuleType) -> None:
        """Add the name of a module, and all that is in it if no other process gets it by that."""
        self._note("module", module.__name__)
        self.steady = self.steady and is_shared(module)
        travels = module.__name__ not in sys.modules or by_value(module.__name__)
        if travels and module.__name__ != "__main__" and self._is_new(module):
            for name in sorted(vars(module).keys() - _MODULE_NOISE):
                self._add_named(name, vars(module)[name])

    # Classes

    def _add_class(self, cls: type, *, anywhere: bool = False) -> None:
        self._note("class", name_of(cls))
        if (importable(cls) and not anywhere) or cls.__module__ == "builtins" or not self._is_new(cls):
            return
        self.steady = False  # an attribute that is added later isn't noticed
        for base in (*cls.__bases__, type(cls)):
            if base is not type(cls) or not importable(base):
                self._add_class(base, anywhere=anywhere)
        self.watched.append((same_registered, cls, known := registered(cls), known))
        if known:
            self._add(known)
        members = getattr(cls, "__members__", {}) if issubclass(cls, Enum) else {}
        for name, member in members.items():
            self._note("member", name)
            self._add(member.value)
        for name in sorted(cls.__dict__.keys() - _CLASS_NOISE - members.keys()):
            value = self._watch(MappingProxyType.get, cls.__dict__, name)
            if issubclass(type(value), tuple(_DESCRIPTORS)):
                self._note(type(value).__name__)
                if type(value) not in _DESCRIPTORS:
                    self._add_class(type(value))
            for part in functions_of(value):
                if anywhere and importable(cls) and isinstance(part, FunctionType):
                    self._note("named", name)
                    self._add_function(part)
                elif counts(cls, name, part):
                    self._add_named(name, part)
                else:
                    self._note("named", name)


_SEQUENCES = frozenset({list, tuple, dict})  # no tuple: `in` would ask a type's metaclass whether it equals
_CODE = (FunctionType, CachedFunction, type, ModuleType)
_BYTES = frozenset({bytes, bytearray})
_DESCRIPTORS = frozenset({staticmethod, classmethod, property, functools.cached_property})
_CLASS_NOISE = CLASS_NOISE - {"__annotations__"}
_MODULE_NOISE = frozenset(vars(ModuleType("")).keys() | {"__builtins__", "__cached__", "__file__", "__path__"})
