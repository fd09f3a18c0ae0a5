"""The JSON lane: which values JSON gives back as they are, and their texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from math import isfinite
from typing import Any

from workerbee.errors import PayloadTooLargeError
from workerbee.wire import bytecode

#: Levels of nesting in JSON; PostgreSQL's parser and Python's both stop somewhere beyond.
DEPTH = 200
#: A value with a longer list, dict or text, or with more lists and dicts in all, is encoded piece by piece.
LONG, MANY = 10_000, 1_000
#: Stands among the ids of lists and dicts that were met if one of them, or a text, is long.
IS_LONG = -1
_FEW = 8  # items that are looked at one by one
_UNFIT = re.compile("[\0\ud800-\udfff]")  # what PostgreSQL's json can't give back: NUL and lone surrogates


def _encoder(*, sort_keys: bool) -> Callable[[object], str]:
    """Make one C encoder; `json.JSONEncoder.encode` makes one for each call, which costs more than a small dict."""
    if c_make_encoder is None:
        return json.JSONEncoder(
            separators=(",", ":"), allow_nan=False, check_circular=False, sort_keys=sort_keys
        ).encode
    refuse = json.JSONEncoder().default
    encode = c_make_encoder(None, refuse, encode_basestring_ascii, None, ":", ",", sort_keys, False, False)  # noqa: FBT003
    return lambda value: "".join(encode(value, 0))


to_json, to_sorted_json = _encoder(sort_keys=False), _encoder(sort_keys=True)
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def is_plain(value: Any, depth: int = DEPTH, seen: set[int] | None = None) -> bool:
    """Tell whether JSON gives the value back equal and of the same types, and two that are one as one.

    ``seen`` are the lists and dicts that were met before, and `IS_LONG` if one of them, or a text, is.
    """
    # Submits wait for this: hence loops and no generators, and functions in C for long lists.
    kind = type(value)
    if kind is str:
        if len(value) > LONG and seen is not None:
            seen.add(IS_LONG)
        return is_plain_text(value)
    if kind is int:
        return fits(value)
    if kind is float:
        return isfinite(value)
    if value is None or kind is bool:
        return True
    if depth == 0 or (kind is not dict and kind is not list):
        return False
    if seen is None:
        seen = {id(value)}
    elif id(value) in seen:
        return False
    else:
        seen.add(id(value))
    if len(value) > LONG:
        seen.add(IS_LONG)
    if kind is list:
        return are_plain(value, depth - 1, seen)
    for key, item in value.items():
        check = CHECKS.get(type(item))
        if type(key) is not str or not is_plain_text(key):
            return False
        if not (is_plain(item, depth - 1, seen) if check is None else check(item)):
            return False
    return True


def json_of(value: Any, what: str, most: int, seen: set[int]) -> bytes:
    """JSON of a plain value, whose parts `is_plain` has ``seen``. Raises PayloadTooLargeError, as soon as may be."""
    if IS_LONG not in seen and len(seen) <= MANY:
        data = to_json(value).encode()
        if len(data) > most:
            raise PayloadTooLargeError(what, len(data), most)
        return data
    whole = bytearray()
    for piece in _pieces(value):
        whole += piece.encode()
        if len(whole) > most:
            raise PayloadTooLargeError(what, None, most)
    return bytes(whole)


def _pieces(value: Any) -> Iterator[str]:
    kind = type(value)
    if kind is dict:
        before = "{"
        for key, item in value.items():
            yield f"{before}{to_json(key)}:"
            yield from _pieces(item)
            before = ","
        yield "}" if value else "{}"
    elif kind in (list, tuple) and value and type(value[0]) in (list, dict, str):
        for n, item in enumerate(value):
            yield "," if n else "["
            yield from _pieces(item)
        yield "]"
    elif kind in (list, tuple, str) and len(value) > LONG:
        quote, end = '""' if kind is str else "[]"
        for start in range(0, len(value), LONG):
            yield (quote if start == 0 else "," * (kind is not str)) + to_json(value[start : start + LONG])[1:-1]
        yield end
    else:
        yield to_json(value)


def least_pickled(value: Any) -> int:
    """Give about as many bytes as the pickle of a plain value has at least."""
    if type(value) is str:
        return len(value)
    if type(value) is dict:
        return sum(map(len, value)) + sum(map(least_pickled, value.values()))
    if type(value) is list or type(value) is tuple:
        return 2 * len(value) if _NUMBERS.issuperset(map(type, value)) else sum(map(least_pickled, value))
    return 2


def are_plain(items: Sequence[Any], depth: int, seen: set[int]) -> bool:
    if len(items) > _FEW:
        kinds = set(map(type, items))
        if kinds == {float}:
            return all(map(isfinite, items))
        if kinds == {int}:
            return fits(min(items)) and fits(max(items))
    for item in items:
        check = CHECKS.get(type(item))
        if not (is_plain(item, depth, seen) if check is None else check(item)):
            return False
    return True


def is_flat(items: list[Any]) -> bool:
    """Tell whether JSON gives a list back that has no others in it."""
    return _PLAIN_KINDS.issuperset(map(type, items)) and is_plain(items)


def fits(number: int) -> bool:
    return -bytecode.LARGEST < number < bytecode.LARGEST


def is_plain_text(text: str) -> bool:
    if text.isascii():
        return "\0" not in text
    return _UNFIT.search(text) is None


#: Quick checks for the types that most values are of.
CHECKS: dict[type, Callable[[Any], bool]] = {
    int: fits,
    float: isfinite,
    bool: lambda _: True,
    type(None): lambda _: True,
}
_NUMBERS = frozenset({type(None), bool, int, float})
_PLAIN_KINDS = _NUMBERS | {str}


def parsed(data: bytes) -> Any:
    """Parse JSON that PostgreSQL has checked. This takes half the time of `json.loads`, which checks it again."""
    text = data.decode().lstrip()
    try:
        return _scan(text, 0)[0]
    except StopIteration:
        raise json.JSONDecodeError("there is no value", text, 0) from None
