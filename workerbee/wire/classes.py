"""Classes that travel by value, so that they come back as the classes that they were.

A class that this process has already, because it sent it, got it before, or has the same code under the same name,
is that very class, and nothing that comes back changes it. In a runner the attributes that the client has changed
since are changed, and what jobs have made of the others stays. Stored pickles name the functions below: they are to
stay where they are.
"""

from __future__ import annotations

import copyreg
import enum
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from types import CodeType, FunctionType, ModuleType
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import uuid4

from cloudpickle.cloudpickle import (
    _BUILTIN_TYPE_NAMES,
    _DYNAMIC_CLASS_TRACKER_BY_ID,
    _class_getstate,
    _get_or_create_tracker_id,
    _lookup_class_or_track,
    _should_pickle_by_reference,
    dynamic_subimport,
)

from workerbee.wire.bytecode import ENUM_BOOKS, canonical, class_digest, functions_of, is_member
from workerbee.wire.imports import by_value, named, telling

#: Whether what is loaded comes from a client, to be run here, rather than back from a runner.
arriving: ContextVar[bool] = ContextVar("arriving", default=False)


class Ticket(NamedTuple):
    """Identifies a class where it was made, and anywhere else."""

    id: str
    module: str
    qualname: str
    code: bytes


Known = TypeVar("Known")


class OfClasses(Generic[Known]):
    """Notes on classes, kept as long as these live; none is asked for its hash or what it equals."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[type], Known]] = {}

    def get(self, cls: type) -> Known | None:
        found = self._known.get(id(cls))
        return None if found is None else found[1]

    def set(self, cls: type, known: Known) -> None:
        number = id(cls)
        self._known[number] = weakref.ref(cls, lambda _: self._known.pop(number, None)), known


#: Where a class's state has the abstract classes, of modules, that were told of it.
_TELLING = "_workerbee_abstract"
#: Classes that are complete here, with what was last brought of their attributes.
_complete: OfClasses[dict[str, Any]] = OfClasses()
_digests: OfClasses[tuple[list[CodeType], bytes]] = OfClasses()
#: Of those whose metaclass says what they equal, for which cloudpickle's own table is no use.
_ids: OfClasses[str] = OfClasses()
_BUILT_IN = frozenset(map(id, (*_BUILTIN_TYPE_NAMES, type(None), type(...), type(NotImplemented))))


def is_built_in(cls: type) -> bool:
    """Tell whether a class is in every Python, perhaps without a name."""
    return id(cls) in _BUILT_IN


def is_by_value(cls: type) -> bool:
    """Tell whether a class has to travel with its code."""
    if is_built_in(cls):
        return False
    return not _should_pickle_by_reference(cls) or by_value(cls.__module__)


def _is_only_itself(cls: type) -> bool:
    return type(cls).__eq__ is type.__eq__ and type(cls).__hash__ is type.__hash__


def _id_of(cls: type) -> str:
    """Give the class's name in all processes: that which cloudpickle gives it in its own pickles, if it can."""
    if _is_only_itself(cls):
        return str(_get_or_create_tracker_id(cls))
    return _ids.get(cls) or _track(uuid4().hex, cls)[0]


def _track(number: str, cls: type) -> tuple[str, type]:
    """From now on the class, or the one that was here before, goes under this name."""
    if _is_only_itself(cls):
        return number, _lookup_class_or_track(number, cls)
    cls = _DYNAMIC_CLASS_TRACKER_BY_ID.setdefault(number, cls)
    _ids.set(cls, number)
    return number, cls


# Dumping


def reduced(cls: type) -> tuple[Any, ...]:
    """Reduce a class for the pickler, so that it is made anew."""
    ticket = Ticket(_id_of(cls), str(cls.__module__), cls.__qualname__, _digest(cls))
    _is_complete(cls)
    if issubclass(cls, enum.Enum):
        return _reduced_enum(cls, ticket)
    attributes = _state(cls)
    for name in [name for name, value in attributes.items() if is_member(value)]:
        del attributes[name]
    bases, namespace = _bases(cls), _namespace(cls)
    if "__slots__" in attributes and NamedTuple not in bases:  # which makes its own
        slots = attributes.pop("__slots__")
        namespace["__slots__"] = slots if isinstance(slots, str) else tuple(slots)
    # The metaclasses of ctypes can't be imported; they are found by the bases.
    kind = type if type(cls).__module__ == "_ctypes" else type(cls)
    arguments = (tuple(ticket), kind, cls.__name__, bases, namespace)
    return make_class, arguments, (attributes, {}), None, None, complete


def _state(cls: type) -> dict[str, Any]:
    attributes: dict[str, Any] = _class_getstate(cls)[0]
    if told := telling(cls):
        attributes[_TELLING] = told
    return attributes


def _bases(cls: type) -> tuple[Any, ...]:
    """Find the bases as the class's body had them; a TypedDict's metaclass refuses the dict that it makes of itself."""
    is_typed_dict = type(cls).__name__ == "_TypedDictMeta"
    bases: tuple[Any, ...] = cls.__dict__.get("__orig_bases__", () if is_typed_dict else cls.__bases__)
    return bases


def _namespace(cls: type) -> dict[str, Any]:
    """Pick the attributes that have to be there when the class is made."""
    found = {name: cls.__dict__[name] for name in ("__module__", "__dict__") if name in cls.__dict__}
    if not isinstance(found.get("__dict__"), property):
        found.pop("__dict__", None)
    return found


def _is_complete(cls: type) -> None:
    if _complete.get(cls) is None:
        _complete.set(cls, {})


def _reduced_enum(cls: type[enum.Enum], ticket: Ticket) -> tuple[Any, ...]:
    attributes = _state(cls)
    members = cls.__members__
    for name in (*members, *_MADE_ANEW):
        attributes.pop(name, None)
    options = {"boundary": cls.__dict__["_boundary_"]} if "_boundary_" in cls.__dict__ else {}
    values = {name: (_data_of(member), member.value) for name, member in members.items()}
    states = {
        name: {key: value for key, value in vars(member).items() if key not in _MADE_ANEW}
        for name, member in members.items()
        if member.name == name
    }
    arguments = (tuple(ticket), cls.__name__, cls.__bases__, values, options)
    return make_enum, arguments, (attributes, states), None, None, complete


def own_reducers() -> Iterator[tuple[type, FunctionType]]:
    """Find what the program has told `copyreg` of pickling types, where no import would tell it elsewhere."""
    for kind, reduce in list(copyreg.dispatch_table.items()):
        can_be_named = by_value(kind.__module__) or not is_by_value(kind)
        if can_be_named and isinstance(reduce, FunctionType) and by_value(reduce.__module__):
            yield kind, reduce


def take_reducers(reducers: Mapping[type, FunctionType]) -> None:
    """Pickle types here as the client does; on the client itself nothing changes."""
    if arriving.get():
        for kind, reduce in reducers.items():
            copyreg.pickle(kind, reduce)


def reduced_module(module: ModuleType) -> tuple[Any, ...]:
    """Reduce a module for the pickler that can't be imported elsewhere, so that it is made anew."""
    own = ("__builtins__", "__loader__", "__spec__", "__cached__")
    return dynamic_subimport, (module.__name__, {name: v for name, v in vars(module).items() if name not in own})


def _digest(cls: type) -> bytes:
    codes = [value.__code__ for value in vars(cls).values() if isinstance(value, FunctionType)]
    known = _digests.get(cls)
    if known is None or known[0] != codes:
        known = (codes, class_digest(cls))
        _digests.set(cls, known)
    return known[1]


def _data_of(member: enum.Enum) -> tuple[Any, ...]:
    """Find what the type that an enum is mixed with makes the member from."""
    for kind, plain in _DATA.items():
        if isinstance(member, kind):
            return (plain(member),)
    if getattr(type(member), "_member_type_", object).__new__ is object.__new__:
        return ()
    return member.value if isinstance(member.value, tuple) else (member.value,)


_DATA: dict[type, Any] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda member: bytes.__getitem__(member, slice(None)),
    tuple: lambda member: tuple.__getitem__(member, slice(None)),
}
#: Attributes of an enum's class and of its members that `make_enum` has made anew, so that they don't travel.
_MADE_ANEW = ENUM_BOOKS | {"_value_", "_name_", "_sort_order_", "__objclass__"}

# Loading


def make_class(
    ticket: tuple[Any, ...], kind: Any, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
) -> type:
    """Give the class of this ticket: the one that is here, or a new one without its attributes."""
    cls = _here(Ticket(*ticket))
    if cls is not None:
        return cls
    # Bodies of classes set it, and without it a class that is inside another one would be found nowhere.
    cls = _subclass(kind, name, bases, {"__qualname__": ticket[2], **namespace})
    return _track(ticket[0], cls)[1]


def _subclass(kind: Any, name: str, bases: tuple[Any, ...], namespace: dict[str, Any]) -> type:
    """Make a class without calling ``__init_subclass__`` of its bases, which was done where the class comes from."""

    def new(*bases: Any) -> type:
        return types.new_class(name, bases, {"metaclass": kind}, lambda space: space.update(namespace))

    resolved = types.resolve_bases(bases)
    if any("__init_subclass__" in vars(c) for b in resolved for c in b.__mro__ if _is_users(c)):
        with suppress(TypeError):  # what is laid out otherwise can't take the place of another base
            cls = new(_Quiet, *bases)
            cls.__bases__ = resolved
            return cls
    return new(*bases)


def _is_users(cls: type) -> bool:
    return cls.__module__ not in ("typing", "typing_extensions", "builtins", "abc")


class _Quiet:
    def __init_subclass__(cls, **_: Any) -> None:
        pass


class _Carried(NamedTuple):
    """Carries what is to become a member of an enum."""

    data: tuple[Any, ...]
    value: Any


class _Wrapped:
    """Hides a tuple, which an enum would take for arguments."""

    def __init__(self, carried: _Carried) -> None:
        self.carried = carried


def make_enum(
    ticket: tuple[Any, ...],
    name: str,
    bases: tuple[type, ...],
    values: dict[str, tuple[Any, Any]],
    options: dict[str, Any],
) -> type:
    """Give the enum of this ticket: the one that is here, or a new one with its members, without its attributes."""
    cls = _here(Ticket(*ticket))
    if cls is not None:
        return cls
    kind: Any = type(bases[-1])
    space = kind.__prepare__(name, bases)
    space |= {"__module__": ticket[1], "__qualname__": ticket[2], "__new__": _new_member, "__init__": _no_init}
    for member, value in values.items():
        space[member] = _Wrapped(_Carried(*value))
    return _track(ticket[0], kind.__new__(kind, name, bases, space, **options))[1]


def _new_member(cls: Any, wrapped: Any) -> Any:
    carried = (wrapped[0] if isinstance(wrapped, tuple) else wrapped).carried
    member = cls._member_type_.__new__(cls, *carried.data)
    member._value_ = carried.value
    return member


def _no_init(self: Any, *_: Any) -> None:
    pass


def _here(ticket: Ticket) -> type | None:
    """Find the class, if it is in this process already."""
    known: type | None = _DYNAMIC_CLASS_TRACKER_BY_ID.get(ticket.id)
    if known is None and not arriving.get():
        found = named(ticket.module, ticket.qualname)
        if isinstance(found, type) and _digest(found) == ticket.code:
            _is_complete(found)
            known = _DYNAMIC_CLASS_TRACKER_BY_ID[ticket.id] = found
    return known


def complete(cls: type, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> type:
    """Give a new class its attributes; one that is here already is changed in a runner only."""
    attributes, members = state
    told, attributes = attributes.get(_TELLING, ()), {name: v for name, v in attributes.items() if name != _TELLING}
    now = {name: _comparable(value) for name, value in attributes.items()}
    before = _complete.get(cls)
    if before is None:
        for name in ("__new_member__", "__init__"):
            if vars(cls).get(name) in (_new_member, _no_init):
                delattr(cls, name)
        _set_attributes(cls, attributes)
        for name, values in members.items():
            cls[name].__dict__.update(values)  # type: ignore[index]
    elif arriving.get():
        for name, value in now.items():
            is_new = name not in before and name not in vars(cls)
            if is_new or (value is not None and name in before and value != before[name]):
                _setter(cls)(cls, name, attributes[name])
        for name in before.keys() - now.keys() & vars(cls).keys():
            with suppress(AttributeError, TypeError):  # it is one that can't go
                type.__delattr__(cls, name)
    if before is None or arriving.get():
        _complete.set(cls, now)
        for abstract in told:
            abstract.register(cls)
    return cls


def _set_attributes(cls: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes that the class's body had set, and tell an abstract class who counts as a subclass."""
    set_ = _setter(cls)
    for name, value in attributes.items():
        if name != "_abc_impl":
            set_(cls, name, value)
    if "__firstlineno__" in attributes:  # which goes when others are set
        set_(cls, "__firstlineno__", attributes["__firstlineno__"])
    for subclass in attributes.get("_abc_impl", ()):
        cls.register(subclass)


def _setter(cls: type) -> Callable[[type, str, Any], None]:
    """Find the method that sets a class's attributes, past a metaclass of the user's: a body doesn't ask it either."""
    setters = [kind.__dict__["__setattr__"] for kind in type.mro(type(cls)) if "__setattr__" in kind.__dict__]
    return next(found for found in setters if not isinstance(found, FunctionType))  # type: ignore[no-any-return]


def _comparable(value: Any) -> Any:
    """Make what tells whether an attribute has changed; None for what can't be told."""
    codes = [part.__code__ for part in functions_of(value) if isinstance(part, FunctionType)]
    return codes or canonical(value)
