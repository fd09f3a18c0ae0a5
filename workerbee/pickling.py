"""Values to pickles, and the globals that functions by value find in a runner.

With cloudpickle the functions of each pickle have globals of their own. In a runner the functions of one module must
share their globals, as they do in a pool's worker, so that they see what an initializer or another job has set. But two
versions of a function must not share them. So a pickle says what its functions' globals were, and functions share a
namespace only if they agree on the value of each name.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from cloudpickle.cloudpickle import _function_setstate, _make_function

from workerbee import script
from workerbee.wire import classes
from workerbee.wire.bounded import Bounded, Segment, taken_out
from workerbee.wire.bytecode import BY_REPR, MISSING, content, mentioned
from workerbee.wire.imports import found_in, importable, own_things
from workerbee.wire.namespaces import Named, Namespace, Origin, came, kin
from workerbee.wire.picklers import PlainPickler, digest, digest_if_pickled, goes_along
from workerbee.wire.remaking import _cached, _dispatcher, _fill_dispatcher, _viewed  # noqa: F401 (older pickles name them)
from workerbee.wire.sources import Excerpt, excerpt, keep
from workerbee.wire.standins import Absent, Own, Stub

__all__ = ["MOST_NAMESPACES", "Absent", "Namespaces", "PlainPickler", "Stem", "Stub", "dumps"]

#: Namespaces that are kept for one module; older ones live as long as their functions.
MOST_NAMESPACES = 8


#: Where the state of a pickle's first function has the program's own reducers.
_REDUCERS = "_workerbee_reducers"

# Dumping


def dumps(value: object, file: Bounded | None = None, *, stem: Stem | None = None, is_function: bool = False) -> bytes:
    """Make a pickle that `bounded.loads` takes in ``file``, which may keep large buffers out of it.

    Raises whatever the value's own methods and the file raise. ``stem`` is a part that the functions in it have in
    common with others, and that needn't be pickled again. A value has copies of what each process has of its own; what
    ``is_function``, and all that belongs to it, finds that where it is.
    """
    file = Bounded("it", sys.maxsize) if file is None else file
    pickler = _Pickler(file, file.aside, is_function=is_function)
    if stem is not None:
        pickler.resume(stem)
    pickler.dump(value)
    return pickler.bundled(b"".join(file.stream()), make=_load if stem is None else _load_grown)


def dumped(value: object, file: Bounded) -> list[Segment]:
    """Make such a pickle, in the parts in which ``file`` has it."""
    pickler = _Pickler(file, file.aside)
    pickler.dump(value)
    return [pickler.bundled(b"".join(file.stream()), make=_load)] if pickler.origins else file.stream()


class Stem:
    """The pickle of what functions with the same code have in common; their own pickles continue it.

    It can be used as long as nothing in it has changed.
    """

    def __init__(self, value: object, most: int) -> None:
        """Pickle ``value``, in at most ``most`` bytes. Raises whatever the value's own methods raise."""
        file = Bounded("what functions have in common", most)
        self.pickler = _Pickler(file, is_function=True)
        self.pickler.dump(value)
        self.body = file.getvalue()

    @property
    def whole(self) -> bool:
        """Tell whether the code of its functions names all that is in it."""
        return not self.pickler.mentions


class _Bundle(NamedTuple):
    make: Callable[..., Any]
    origins: list[Origin]
    body: bytes
    excerpts: list[Excerpt]

    def __reduce__(self) -> Any:
        source = [self.excerpts] if self.excerpts else []
        return self.make, (self.origins, self.body, *source)


class _Pickler(PlainPickler):
    """A pickler that notes what functions find in their globals."""

    def __init__(
        self,
        file: io.BytesIO,
        aside: Callable[[pickle.PickleBuffer], bool] | None = None,
        *,
        is_function: bool = False,
    ) -> None:
        super().__init__(file, aside)
        self._own = own_things()
        if is_function:
            self.by_name = self._own
        self._file = file
        self._bound = file if isinstance(file, Bounded) else None
        self.origins: dict[int, tuple[_Globals, Origin]] = {}
        self.excerpts: dict[int, Excerpt | None] = {}  # by the ids of code objects, which the memo keeps alive
        self.mentions = False
        self.found: dict[int, dict[str, Any]] = {}  # the globals of functions, by their ids
        self.imported: dict[int, Own] = {}  # stand for globals, by the ids of these
        self.kin: dict[int, tuple[int, tuple[tuple[str, ...], ...]]] = {}
        self._names: dict[int, dict[int, str]] = {}  # of the globals of functions: their names by the ids of values

    def resume(self, stem: Stem) -> None:
        """Continue a stem."""
        self._file.write(stem.body)
        self.memo: Any = stem.pickler.memo
        self.excerpts |= stem.pickler.excerpts
        self.found |= stem.pickler.found
        self.imported |= stem.pickler.imported
        self.kin = stem.pickler.kin
        for key, (space, origin) in stem.pickler.origins.items():
            self.origins[key] = space, Origin(origin.module, dict(origin.brought))

    def bundled(self, body: bytes, make: Callable[..., Any]) -> bytes:
        """Give the pickle with what its functions need; ``make`` loads it."""
        if not self.origins:
            return body
        origins = [origin._replace(kin=self._kin_of(key, origin.brought)) for key, (_, origin) in self.origins.items()]
        return pickle.dumps(_Bundle(make, origins, body, list(filter(None, self.excerpts.values()))), protocol=5)

    def _kin_of(self, key: int, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
        """Find which of the globals hold a common object; once for all functions that go on from one stem."""
        known = self.kin.get(key)
        if known is None or known[0] != len(names):
            known = self.kin[key] = len(names), kin({name: self.found[key].get(name) for name in sorted(names)})
        return known[1]

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        make, (code, module, *rest), state, *_ = super()._dynamic_function_reduce(func)
        space, origin = self.origins.setdefault(id(func.__globals__), (_Globals(len(self.origins)), Origin(module, {})))
        self.found[id(func.__globals__)] = func.__globals__
        self._bring_mentioned(func, state[1]["__globals__"])
        for name, value in (found := state[1]["__globals__"]).items():
            found[name] = self._brought(name, value, origin, func.__globals__)
        self._share_held(func, state[1])
        # The first function brings them for all.
        if not self.excerpts and (own := {k: r for k, r in classes.own_reducers() if goes_along((k, r), self._bound)}):
            state[1][_REDUCERS] = own
        if id(func.__code__) not in self.excerpts:
            self.excerpts[id(func.__code__)] = excerpt(func)
        if (named := Named.of(func)) is not None:
            return _named_here, (space.n, tuple(named), code, space, *rest), state, None, None, _set_state
        return make, (code, space, *rest), state, None, None, _set_state

    def _brought(self, name: str, value: Any, origin: Origin, found: dict[str, Any]) -> Any:
        """Note a global; what can't be pickled, but is imported from a module, is found there by its name."""
        value = Own.of(value, self._own) or self.imported.get(id(value), value)
        if name not in origin.brought:
            what = digest_if_pickled(value, found, self._bound, self.by_name)
            if what is None and (named := found_in(value)) is not None:
                value = self.imported[id(value)] = Own(named[0], named[1:])
            origin.brought[name] = what or digest(value, found, self._bound, self.by_name)
        return value

    def _share_held(self, func: FunctionType, slots: dict[str, Any]) -> None:
        """Have globals that a function's defaults and closure hold too be the very objects that its globals are."""
        if defaults := func.__defaults__:
            slots["__defaults__"] = tuple(self._shared(value, func.__globals__) for value in defaults)
        if named := func.__kwdefaults__:
            slots["__kwdefaults__"] = {name: self._shared(v, func.__globals__) for name, v in named.items()}
        if cells := func.__closure__:
            slots["__closure__"] = tuple(self._cell_shared(cell, func.__globals__) for cell in cells)

    def _cell_shared(self, cell: CellType, found: dict[str, Any]) -> CellType:
        value = content(cell, "", MISSING)
        shared = self._shared(value, found)
        return cell if shared is value else CellType(shared)

    def _class_reduced(self, cls: type) -> Any:
        make, arguments, (attributes, members), *rest = classes.reduced(cls)
        found = getattr(sys.modules.get(cls.__module__), "__dict__", {})
        if id(found) in self.origins:
            attributes = {name: self._shared(value, found) for name, value in attributes.items()}
        return make, arguments, (attributes, members), *rest

    def _shared(self, value: Any, found: dict[str, Any]) -> Any:
        """Stand for a value that is one of a function's globals; anything else is what it is."""
        if type(value) in _NO_OBJECTS or isinstance(value, (type, ModuleType)):
            return value
        if id(found) not in self._names:
            self._names[id(found)] = {id(v): name for name, v in found.items() if not name.startswith("__")}
        name = self._names[id(found)].get(id(value))
        if name is None or importable(value):
            return value
        space, origin = self.origins[id(found)]
        if name not in origin.brought:
            origin.brought[name] = digest(value, found, self._bound, self.by_name)
        return _Shared(space.n, name, value)

    def _bring_mentioned(self, func: FunctionType, found: dict[str, Any]) -> None:
        """Add globals that cloudpickle leaves out although the function may look them up: `mentioned`."""
        for name in mentioned(func):
            if name in func.__globals__ and name not in found and goes_along(func.__globals__[name], self._bound):
                found[name] = func.__globals__[name]
                self.mentions = True


class _Globals(NamedTuple):
    """Stands for the globals of functions in the pickle of them."""

    n: int

    def __reduce__(self) -> Any:
        return _opened_here, (self.n,)


class _Shared(NamedTuple):
    """Stands for a global in what holds it too."""

    space: int
    name: str
    value: object

    def __reduce__(self) -> Any:
        return _shared_here, tuple(self)


#: Types whose equal values nobody tells apart.
_NO_OBJECTS = BY_REPR | {type(None), bool}


# Loading


class Namespaces:
    """The globals of functions by value, for functions with the same initializer."""

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
                {name: (value, digest(value, space.globals)) for name, value in space.globals.items()},
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
        """Have functions that are unpickled in the block find their globals here."""
        token, arriving = _used.set(self), classes.arriving.set(True)
        try:
            yield
        finally:
            _used.reset(token)
            classes.arriving.reset(arriving)

    def find(self, origin: Origin) -> Namespace:
        """Give the namespace for functions of this origin."""
        module = origin.module.get("__name__", "")
        spaces = self._spaces.setdefault(module, deque(maxlen=MOST_NAMESPACES))
        # Arguments belong to the function that is called, whose ``__main__`` is there.
        called = [space for space in spaces if space.main is sys.modules.get("__main__")]
        space = next((space for space in reversed([*spaces, *called]) if space.agrees(origin)), None)
        if space is None:
            found = {**origin.module, **self._prepared.get(module, {})}
            main = script.main(found) if module == "__main__" else None
            space = Namespace(found if main is None else vars(main), {}, {}, main, WeakValueDictionary())
            spaces.append(space)
        if space.main is not None:
            script.use(space.main)
        space.take(origin)
        return space


_used: ContextVar[Namespaces | None] = ContextVar("_used", default=None)
_opened: ContextVar[list[Namespace]] = ContextVar("_opened")


def _is_as_before(before: tuple[Any, bytes] | None, value: object, known: dict[str, Any]) -> bool:
    return before is not None and before[0] is value and before[1] == digest(value, known)


def _load(origins: list[Origin], body: bytes, excerpts: Iterable[Excerpt] = ()) -> Any:
    with _found(origins, excerpts):
        return pickle.loads(body, buffers=taken_out.get())  # noqa: S301 (part of a pickle that was found to be trusted)


def _load_grown(origins: list[Origin], body: bytes, excerpts: Iterable[Excerpt] = ()) -> Any:
    """Load what follows a stem."""
    with _found(origins, excerpts):
        unpickler = pickle.Unpickler(io.BytesIO(body), buffers=taken_out.get())  # noqa: S301 (as above)
        unpickler.load()
        return unpickler.load()


@contextmanager
def _found(origins: list[Origin], excerpts: Iterable[Excerpt]) -> Iterator[None]:
    """Have functions that are unpickled in the block find globals of these origins."""
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
    return _opened.get()[n].globals


def _shared_here(n: int, name: str, value: object) -> object:
    """Give the global of that name, unless a job has made it something else; if there is none, the value becomes it."""
    found = _opened.get()[n].globals.setdefault(name, value)
    return found if type(found) is type(value) else value


def _named_here(n: int, name: tuple[str, bytes], code: CodeType, *rest: Any) -> FunctionType:
    """Give the function of that name: this process's own, or the one that came before; else a new one."""
    space, named = _opened.get()[n], Named(*name)
    own = None if classes.arriving.get() else named.here(space.globals.get("__name__", ""), code)
    if own is not None:
        _whole.add(own)
        return own
    fn = space.functions.get((named, code))
    if fn is None:
        fn = space.functions[named, code] = _make_function(code, *rest)
        came[fn] = named
    return fn


#: Functions that have all that belongs to them.
_whole: WeakSet[FunctionType] = WeakSet()


def _set_state(fn: FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Complete a function, without changing what its globals have already; of one that is here, only these."""
    attributes, slots = state
    classes.take_reducers(slots.pop(_REDUCERS, {}))
    new = {name: value for name, value in slots["__globals__"].items() if name not in fn.__globals__}
    if fn not in _whole:
        _function_setstate(fn, (attributes, slots | {"__globals__": new}))
        _whole.add(fn)
    elif classes.arriving.get():
        fn.__globals__.update(new)
