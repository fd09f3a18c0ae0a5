"""Classes that travel by value, so that they come back as the classes that they were.

A class that this process has already, because it sent it, got it before, or has the same code under the same name,
is that very class, and nothing that comes back changes it. In a runner the attributes that the client has changed
since are changed, and what jobs have made of the others stays. Stored pickles name the functions below: they are to
stay where they are.
"""

from __future__ import annotations

import enum
import types
import weakref
from contextlib import suppress
from contextvars import ContextVar
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from cloudpickle.cloudpickle import (
    _BUILTIN_TYPE_NAMES,
    _DYNAMIC_CLASS_TRACKER_BY_ID,
    _class_getnewargs,
    _class_getstate,
    _class_setstate,
    _get_or_create_tracker_id,
    _lookup_class_or_track,
    _should_pickle_by_reference,
    dynamic_subimport,
)

from workerbee.wire.bytecode import canonical, class_digest, functions_of
from workerbee.wire.imports import by_value, named

#: Whether what is loaded comes from a client, to be run here, rather than back from a runner.
arriving: ContextVar[bool] = ContextVar("arriving", default=False)


class Ticket(NamedTuple):
    """Identifies a class where it was made, and anywhere else."""

    id: str
    module: str
    qualname: str
    code: bytes


#: Classes that are complete here, with what was last brought of their attributes.
_complete: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()
_digests: weakref.WeakKeyDictionary[type, tuple[list[CodeType], bytes]] = weakref.WeakKeyDictionary()


def is_by_value(cls: type) -> bool:
    """Tell whether a class has to travel with its code."""
    if cls in _BUILTIN_TYPE_NAMES or cls in (type(None), type(...), type(NotImplemented)):
        return False
    return not _should_pickle_by_reference(cls) or by_value(cls.__module__)


# Dumping


def reduced(cls: type) -> tuple[Any, ...]:
    """Reduce a class for the pickler, so that it is made anew."""
    ticket = Ticket(_get_or_create_tracker_id(cls), str(cls.__module__), cls.__qualname__, _digest(cls))
    _complete.setdefault(cls, {})
    if issubclass(cls, enum.Enum):
        return _reduced_enum(cls, ticket)
    attributes, _ = _class_getstate(cls)
    for name in [name for name, value in attributes.items() if isinstance(value, types.MemberDescriptorType)]:
        del attributes[name]
    kind, name, bases, namespace, *_ = _class_getnewargs(cls)
    if "__slots__" in attributes and NamedTuple not in bases:  # which makes its own
        slots = attributes.pop("__slots__")
        namespace["__slots__"] = slots if isinstance(slots, str) else tuple(slots)
    return make_class, (tuple(ticket), kind, name, bases, namespace), (attributes, {}), None, None, complete


def _reduced_enum(cls: type[enum.Enum], ticket: Ticket) -> tuple[Any, ...]:
    attributes, _ = _class_getstate(cls)
    members = cls.__members__
    for name in (*members, *_MADE_BY_ENUM):
        attributes.pop(name, None)
    options = {"boundary": cls.__dict__["_boundary_"]} if "_boundary_" in cls.__dict__ else {}
    values = {name: (_data_of(member), member.value) for name, member in members.items()}
    states = {
        name: {key: value for key, value in vars(member).items() if key not in _MADE_BY_ENUM}
        for name, member in members.items()
        if member.name == name
    }
    arguments = (tuple(ticket), cls.__name__, cls.__bases__, values, options)
    return make_enum, arguments, (attributes, states), None, None, complete


def reduced_module(module: ModuleType) -> tuple[Any, ...]:
    """Reduce a module for the pickler that can't be imported elsewhere, so that it is made anew."""
    own = ("__builtins__", "__loader__", "__spec__", "__cached__")
    return dynamic_subimport, (module.__name__, {name: v for name, v in vars(module).items() if name not in own})


def _digest(cls: type) -> bytes:
    codes = [value.__code__ for value in vars(cls).values() if isinstance(value, FunctionType)]
    known = _digests.get(cls)
    if known is None or known[0] != codes:
        known = _digests[cls] = (codes, class_digest(cls))
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
_MADE_BY_ENUM = frozenset(
    {
        "_member_names_",
        "_member_map_",
        "_member_type_",
        "_value2member_map_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_hashable_values_",
        "_value_repr_",
        "_value_",
        "_name_",
        "_sort_order_",
        "__objclass__",
    }
)

# Loading


def make_class(
    ticket: tuple[Any, ...], kind: Any, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
) -> type:
    """The class of this ticket: the one that is here, or a new one without its attributes."""
    cls = _here(Ticket(*ticket))
    if cls is not None:
        return cls
    cls = _subclass(kind, name, bases, namespace)
    return _lookup_class_or_track(ticket[0], cls)  # type: ignore[no-any-return]


def _subclass(kind: Any, name: str, bases: tuple[Any, ...], namespace: dict[str, Any]) -> type:
    """A new class of which its bases don't hear: what they do with subclasses was done where it was made."""

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
    """The enum of this ticket: the one that is here, or a new one with its members, without its attributes."""
    cls = _here(Ticket(*ticket))
    if cls is not None:
        return cls
    kind: Any = type(bases[-1])
    space = kind.__prepare__(name, bases)
    space |= {"__module__": ticket[1], "__qualname__": ticket[2], "__new__": _new_member, "__init__": _no_init}
    for member, value in values.items():
        space[member] = _Wrapped(_Carried(*value))
    return _lookup_class_or_track(ticket[0], kind.__new__(kind, name, bases, space, **options))  # type: ignore[no-any-return]


def _new_member(cls: Any, wrapped: Any) -> Any:
    carried = (wrapped[0] if isinstance(wrapped, tuple) else wrapped).carried
    member = cls._member_type_.__new__(cls, *carried.data)
    member._value_ = carried.value
    return member


def _no_init(self: Any, *_: Any) -> None:
    pass


def _here(ticket: Ticket) -> type | None:
    """The class, if it is in this process already."""
    known: type | None = _DYNAMIC_CLASS_TRACKER_BY_ID.get(ticket.id)
    if known is None and not arriving.get():
        found = named(ticket.module, ticket.qualname)
        if isinstance(found, type) and _digest(found) == ticket.code:
            _complete.setdefault(found, {})
            known = _DYNAMIC_CLASS_TRACKER_BY_ID[ticket.id] = found
    return known


def complete(cls: type, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> type:
    """Give a new class its attributes; one that is here already is changed in a runner only."""
    attributes, members = state
    now = {name: _comparable(value) for name, value in attributes.items()}
    before = _complete.get(cls)
    if before is None:
        for name in ("__new_member__", "__init__"):
            if vars(cls).get(name) in (_new_member, _no_init):
                delattr(cls, name)
        _class_setstate(cls, (attributes, {}))
        for name, values in members.items():
            cls[name].__dict__.update(values)  # type: ignore[index]
    elif arriving.get():
        for name, value in now.items():
            if value is not None and name in before and value != before[name]:
                setattr(cls, name, attributes[name])
    if before is None or arriving.get():
        _complete[cls] = now
    return cls


def _comparable(value: Any) -> Any:
    """Make what tells whether an attribute has changed; None for what can't be told."""
    codes = [part.__code__ for part in functions_of(value) if isinstance(part, FunctionType)]
    return codes or canonical(value)
