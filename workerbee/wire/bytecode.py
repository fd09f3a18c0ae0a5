"""Digests of code that are the same in every process, and don't depend on docstrings and line numbers."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Container, Iterable, Iterator
from enum import Enum
from math import isfinite
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, cast

from workerbee.wire.imports import CachedFunction, importable

MISSING = object()
BY_REPR = frozenset({int, float, complex, str, bytes, bytearray, range, type(...), type(NotImplemented)})
#: Attributes of every class that are neither code nor the user's.
CLASS_NOISE = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__name__",
        "__qualname__",
        "__firstlineno__",
        "__static_attributes__",
        "__slotnames__",
        "__annotations__",
        "__annotations_cache__",
        "__annotate__",
        "__annotate_func__",
        "__type_params__",
        "__abstractmethods__",
        "_abc_impl",
    }
)

#: Attributes in which `enum` keeps what it has derived from a class's members.
ENUM_BOOKS = frozenset(
    {
        "_member_names_",
        "_member_map_",
        "_member_type_",
        "_value2member_map_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_hashable_values_",
        "_value_repr_",
    }
)
#: All attributes that `enum` adds to a class of its own accord, and that say nothing of the user's code.
ENUM_NOISE = ENUM_BOOKS | {"_new_member_", "_use_args_", "_generate_next_value_"}


def digest(*parts: bytes) -> bytes:
    """16 bytes that stand for these parts; no other list of parts reads the same."""
    whole = hashlib.blake2b(digest_size=16)
    pieces = [piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)]
    for piece in pieces if sum(map(len, parts)) > _LONG else (b"".join(pieces),):
        whole.update(piece)
    return whole.digest()


#: Longer parts aren't joined before they are digested.
_LONG = 100_000


def note(*texts: str) -> bytes:
    """Write texts as one part to digest."""
    return "\0".join(texts).encode("utf-8", "surrogatepass")


def canonical(value: Any) -> bytes | None:
    """JSON of a value that is exactly JSON, its dicts in their own order; None for any other."""
    return _to_json(value).encode() if _plain(value, 200) else None


_to_json = json.JSONEncoder(separators=(",", ":")).encode


def _plain(value: Any, depth: int) -> bool:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return True
    if kind is int:
        return bool(-LARGEST < value < LARGEST)
    if kind is float:
        return isfinite(value)
    if depth == 0:
        return False
    if kind is dict:
        return all(type(key) is str and _plain(item, depth - 1) for key, item in value.items())
    return kind is list and all(_plain(item, depth - 1) for item in value)


def is_data(value: Any, seen: set[int]) -> bool:
    """Tell whether a value is plain data, through and through."""
    if canonical(value) is not None or type(value) in BY_REPR or id(value) in seen:
        return True
    seen.add(id(value))
    if type(value) is dict:
        return all(is_data(k, seen) and is_data(v, seen) for k, v in value.items())
    return type(value) in _GATHERINGS and all(is_data(item, seen) for item in value)


_GATHERINGS = frozenset({list, tuple, set, frozenset})
#: Integers from here on have more digits than any Python is sure to print: its limit can be set, but not lower.
LARGEST: int = 10**640


# A code object is the same for all closures of a function, of which there may be thousands.


@functools.lru_cache(maxsize=2048)
def code_parts(code: CodeType) -> tuple[bytes, ...]:
    """List what a code object does, whatever its docstring and the lines it stands on."""
    from dis import hasconst  # noqa: PLC0415 (only who compares needs it)

    parts = [
        note("code", str((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0x2F))),
        note(*code.co_varnames, "", *code.co_cellvars, "", *code.co_freevars),
        note(getattr(code, "co_exceptiontable", b"").hex()),
    ]
    for step in _instructions(code):
        if step.opcode in hasconst:
            # Which one it is, `dis` doesn't say of the names of keywords (3.11, 3.12).
            parts += [note(step.opname), *_constant_parts(code.co_consts[step.arg])]
        else:
            # Of many operands `dis` gives no text: "in" and "not in" are one instruction with another number.
            parts.append(note(step.opname, step.argrepr or str(step.arg)))
    return tuple(parts)


def _constant_parts(value: Any) -> tuple[bytes, ...]:
    if isinstance(value, CodeType):
        return code_parts(value)
    if isinstance(value, frozenset):
        return _set_parts(value)
    return (note(type(value).__name__, repr(value)),)


def _set_parts(values: frozenset[Any]) -> tuple[bytes, ...]:
    """Digest a set's members in a fixed order: its own differs from process to process."""
    return (note("frozenset", str(len(values))), *sorted(digest(*_item_parts(value)) for value in values))


def _item_parts(value: Any) -> tuple[bytes, ...]:
    plain = canonical(value)
    if plain is not None:
        return (b"json\0" + plain,)
    if isinstance(value, tuple):
        return (note("tuple", str(len(value))), *(part for item in value for part in _item_parts(item)))
    return _set_parts(value) if isinstance(value, frozenset) else (_atom(value),)


def _atom(value: Any) -> bytes:
    return b"bytes\0" + value if isinstance(value, bytes) else note(type(value).__name__, repr(value))


def _instructions(code: CodeType) -> list[Any]:
    """List a code's instructions, without those that set a class's docstring or line number."""
    from dis import get_instructions  # noqa: PLC0415 (only who compares needs it)

    steps = list(get_instructions(code))
    idle = {
        n
        for n, step in enumerate(steps)
        if step.opname == "STORE_NAME" and step.argval in ("__doc__", "__firstlineno__")
    }
    return [step for n, step in enumerate(steps) if n not in idle and n + 1 not in idle]


@functools.lru_cache(maxsize=2048)
def global_names(code: CodeType) -> tuple[str, ...]:
    """List the global names that a function's code, and the code inside it, may look up; sorted."""
    names = {step.argval for step in _instructions(code) if step.opname in _LOOKS_AT}
    return tuple(sorted(names.union(*(global_names(c) for c in code.co_consts if isinstance(c, CodeType)))))


# Callables and classes


def class_digest(cls: type) -> bytes:
    """Digest the code of a class: its methods', and its members if it is an enum; not the values of attributes."""
    parts = [note("class", *(f"{c.__module__}:{c.__qualname__}" for c in (cls, type(cls), *cls.__bases__)))]
    if issubclass(cls, Enum):
        parts += [note("member", name, repr(member.value)) for name, member in cls.__members__.items()]
    for name, code in _codes_of_class(cls):
        parts += [note("named", name), *code_parts(code)]
    return digest(*parts)


def _codes_of_class(cls: type) -> Iterator[tuple[str, CodeType]]:
    for name in sorted(cls.__dict__.keys() - CLASS_NOISE):
        for part in functions_of(cls.__dict__[name]):
            if isinstance(part, FunctionType):
                yield name, part.__code__


def code_digest(fn: Any) -> bytes:
    """Digest the code of a callable and of the functions in its closure; empty without any."""
    parts: list[bytes] = []
    todo, seen = [fn], set()
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, type) and (thing is fn or not importable(thing)):
            for name, code in _codes_of_class(thing):
                parts += [name.encode(), *code_parts(code)]
            if thing is fn:
                todo += thing.__bases__
        elif isinstance(thing, FunctionType):
            parts += code_parts(thing.__code__)
            todo += [content(cell, "", None) for cell in thing.__closure__ or ()]
        elif (wrapped := wrapped_by(thing)) is not None:
            todo.append(wrapped)
    return digest(*parts) if parts else b""


def wrapped_by(thing: Any) -> FunctionType | None:
    """Find the function behind a cache, a compiler or a decorator that is a class."""
    for name in ("__wrapped__", "py_func"):
        wrapped = getattr(thing, name, None)
        if isinstance(wrapped, FunctionType):
            return wrapped
    return None


def is_compiled(thing: Any) -> bool:
    """Tell whether it is a function of Numba's."""
    return type(thing).__module__.startswith("numba.") and isinstance(getattr(thing, "py_func", None), FunctionType)


def is_dispatcher(thing: Any) -> bool:
    """Tell whether it is what `functools.singledispatch` makes."""
    return isinstance(thing, FunctionType) and thing.__code__ is _DISPATCHER


_DISPATCHER = cast("FunctionType", functools.singledispatch(len)).__code__


def functions_of(value: Any) -> tuple[Any, ...]:
    """Find the functions behind a class attribute."""
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, functools.cached_property):
        return (value.func,)
    return (value.__func__ if isinstance(value, (staticmethod, classmethod)) else value,)


def without_noise(state: Any) -> Any:
    """Give the state of an object, without what `functools.update_wrapper` copies from the function that it wraps."""
    if type(state) is dict and isinstance(state.get("__wrapped__"), FunctionType):
        return {name: value for name, value in state.items() if name not in CLASS_NOISE}
    return state


def without_known(attributes: dict[str, Any], seen: Container[int]) -> dict[str, Any]:
    """Give the attributes of a function, without the one that it wraps if that counts already: if it was ``seen``."""
    wrapped = attributes.get("__wrapped__")
    if isinstance(wrapped, FunctionType) and id(wrapped) not in seen and not importable(wrapped):
        return attributes
    return {name: value for name, value in attributes.items() if name != "__wrapped__"}


def is_member(value: Any) -> bool:
    """Tell whether a class attribute is made with the class, from its slots or from the fields of a C structure."""
    return isinstance(value, MemberDescriptorType) or type(value).__module__ == "_ctypes"


def counts(cls: type, name: str, value: Any) -> bool:
    """Tell whether a class attribute is the user's, and none that Python or its libraries have set."""
    if isinstance(value, _CODE):
        return True
    if isinstance(value, _MADE) or is_member(value) or importable(cls):
        return False
    if name.endswith(_OF_FIELDS):
        return bool(value)  # asking a class for its annotations makes empty ones
    if name in ENUM_NOISE or (name.startswith("__") and name.endswith("__")):
        return is_data(value, set())
    return True


#: Ends of the names of attributes that describe fields, such as a dataclass's: libraries read them.
_OF_FIELDS = ("annotations__", "fields__")
_MADE = (GetSetDescriptorType, WrapperDescriptorType, BuiltinFunctionType)


def content(cell: CellType, _: str, missing: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return missing


def no_attributes(thing: Any, was: tuple[()], missing: Any) -> Any:
    return missing if thing.__dict__ else was


def same_attributes(thing: Any, was: tuple[tuple[str, Any], ...], missing: Any) -> Any:
    """Give the attributes as they were, if they are still the same objects."""
    attributes = vars(thing)
    for name, value in was:
        if attributes.get(name, missing) is not value:
            return missing
    return was if len(attributes) == len(was) else missing


def same_names(fn: FunctionType, was: list[str], missing: Any) -> Any:
    return was if looked_up(fn) == was else missing


def same_registry(dispatcher: Any, was: tuple[Any, ...], missing: Any) -> Any:
    return was if tuple(dispatcher.registry.items()) == was else missing


def mentioned(func: FunctionType) -> set[str]:
    """Globals that a function may look up: by name, in class bodies inside it too; `looked_up`; in its annotations."""
    texts = [text for text in func.__annotations__.values() if isinstance(text, str)]
    return _words(texts).union(looked_up(func), global_names(func.__code__))


def looked_up(func: FunctionType) -> list[str]:
    """Globals that a function may find by ``globals``, ``eval`` and the like, in its module or as subclasses; sorted.

    Nobody can tell which: they are those that its texts name, and all of its module that is code, a module or, in
    capitals, a plain number or text; not what is private, nor variables, which differ from run to run.
    """
    names, words = _said(func.__code__)
    sought = names & {func.__module__, "modules", "__subclasses__"}
    if not sought and _LOOKS_UP.isdisjoint(global_names(func.__code__)):
        return []
    return sorted(
        name
        for name, value in func.__globals__.items()
        if not name.startswith("__") and (name in words or _may_be_sought(name, value))
    )


def _may_be_sought(name: str, value: Any) -> bool:
    return not name.startswith("_") and (isinstance(value, _CODE) or (name.isupper() and isinstance(value, _CONSTANTS)))


_LOOKS_AT = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_LOOKS_UP = frozenset({"globals", "eval", "exec"})
_CODE, _CONSTANTS = (FunctionType, CachedFunction, type, ModuleType), (int, float, str)


@functools.lru_cache(maxsize=2048)
def _said(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Give the names and texts in a function's code, and the words in them."""
    names: set[str] = set()
    codes = [code]
    for part in codes:
        names.update(part.co_names)
        names.update(constant for constant in part.co_consts if isinstance(constant, str))
        codes += [constant for constant in part.co_consts if isinstance(constant, CodeType)]
    return frozenset(names), frozenset(_words(names))


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[^\W\d]\w*", text)}
