"""Values to bytes and back, and what makes two calls the same call.

There are two lanes. A value goes as JSON, readable in the database, only if it comes back equal and of the
same type, and if no list or dict is in it twice; everything else goes as a pickle. A call's codec says how to
read it: ``json`` is one positional dict, ``json_call`` any other arguments in JSON, ``pickle`` the rest. Where client
and runner share memory, large values of both lanes go there (``memory``).
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from math import isfinite
from typing import Any, NamedTuple

from workerbee import memory as shared
from workerbee import pickling
from workerbee.errors import EncodingError, PayloadTooLargeError
from workerbee.memory import MEMORY, Lender
from workerbee.wire import bytecode, twins
from workerbee.wire.bounded import Aside, Bounded, loads
from workerbee.wire.job import TWINNED

JSON, JSON_CALL, PICKLE = "json", "json_call", "pickle"
#: Bytes of arguments or of a result that are worth a warning, and that are too much unless one says otherwise.
WARN_BYTES, MAX_BYTES = 10_000_000, 256_000_000
#: Levels of nesting in JSON; PostgreSQL's parser and Python's both stop somewhere beyond.
DEPTH = 200
#: Items of a list or dict, and characters of a text; lists and dicts in all: what has more is encoded piece by piece.
LONG, MANY = 10_000, 1_000
_FEW = 8  # items that are looked at one by one
_IS_LONG = -1  # among the ids of lists and dicts that were met
_UNFIT = re.compile("[\0\ud800-\udfff]")  # what PostgreSQL's json can't give back: NUL and lone surrogates


class Encoded(NamedTuple):
    """A value in one of the codecs."""

    codec: str
    data: bytes


class Call(NamedTuple):
    """Arguments in one of the codecs; ``identity`` None: such a call is never the same as another."""

    codec: str
    data: bytes
    identity: bytes | None


def too_much(what: str, name: str, size: int) -> str:
    """The sentence of a warning."""
    return f"{what} of {name} takes {size / 1e6:.0f} MB; store such data in a file once and pass its path"


# The JSON lane


def _encoder(*, sort_keys: bool) -> Callable[[object], str]:
    """Do as `json.JSONEncoder.encode`, which makes a C encoder for each call: that costs more than a small dict."""
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

    ``seen`` are the lists and dicts that were met before, and `_IS_LONG` if one of them, or a text, is.
    """
    # Submits wait for this: hence loops rather than generators, and C for what long lists are made of.
    kind = type(value)
    if kind is str:
        if len(value) > LONG and seen is not None:
            seen.add(_IS_LONG)
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
        seen.add(_IS_LONG)
    if kind is list:
        return _are_plain(value, depth - 1, seen)
    for key, item in value.items():
        check = _CHECKS.get(type(item))
        if type(key) is not str or not is_plain_text(key):
            return False
        if not (is_plain(item, depth - 1, seen) if check is None else check(item)):
            return False
    return True


def json_of(value: Any, what: str, most: int, seen: set[int]) -> bytes:
    """JSON of a plain value, whose parts `is_plain` has ``seen``. Raises PayloadTooLargeError, as soon as may be."""
    if _IS_LONG not in seen and len(seen) <= MANY:
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


def _are_plain(items: Sequence[Any], depth: int, seen: set[int]) -> bool:
    if len(items) > _FEW:
        kinds = set(map(type, items))
        if kinds == {float}:
            return all(map(isfinite, items))
        if kinds == {int}:
            return fits(min(items)) and fits(max(items))
    for item in items:
        check = _CHECKS.get(type(item))
        if not (is_plain(item, depth, seen) if check is None else check(item)):
            return False
    return True


def fits(number: int) -> bool:
    return -bytecode.LARGEST < number < bytecode.LARGEST


def is_plain_text(text: str) -> bool:
    if text.isascii():
        return "\0" not in text
    return _UNFIT.search(text) is None


#: What is looked at by itself: most of what calls are made of.
_CHECKS: dict[type, Callable[[Any], bool]] = {
    int: fits,
    float: isfinite,
    bool: lambda _: True,
    type(None): lambda _: True,
}
_PLAIN_KINDS = frozenset({type(None), bool, int, float, str})


# The pickle lane

_SCALARS = frozenset({type(None), bool, int, float, complex})
_TEXTS = frozenset({str, bytes, bytearray})
#: Bytes of a text or an array from which on pickling is watched.
_HEAVY = 1_000_000


def is_simple(value: object, heaviest: int = sys.maxsize) -> bool:
    """Tell whether pickling and loading a value runs no code of a user's, and no array or text in it is heavier."""
    return _copies(value, set(), heaviest)


def _copies(value: Any, seen: set[int], heaviest: int, depth: int = 8) -> bool:
    """Tell whether the plain pickler, much faster than cloudpickle, is surely enough; ``seen`` is known to be."""
    kind = type(value)
    if kind in _SCALARS or id(value) in seen:
        return True
    if kind in _TEXTS:
        return len(value) <= heaviest
    if depth == 0:
        return False
    if kind in (tuple, list, set, frozenset):
        seen.add(id(value))
        return len(value) <= 10_000 and all(_copies(v, seen, heaviest, depth - 1) for v in value)
    if kind is dict:
        seen.add(id(value))
        both = (part for item in value.items() for part in item)
        return all(_copies(part, seen, heaviest, depth - 1) for part in both)
    if kind.__module__ != "numpy" or getattr(getattr(value, "dtype", None), "hasobject", True):
        return False
    return bool(value.nbytes <= heaviest)


def _encoded(value: object, what: str, most: int, lender: Lender | None) -> Encoded:
    """A value in the pickle lane, or in memory."""
    if lender is not None:
        arrays = shared.Arrays(what, most)
        data = _pickle(value, what, most, arrays)
        if arrays.size + len(data) < shared.LEAST:
            return Encoded(PICKLE, data)
        if arrays.size + len(data) > most:
            raise PayloadTooLargeError(what, arrays.size + len(data), most)
        if (reference := lender.lend(PICKLE, [*arrays.taken, data])) is not None:
            return Encoded(MEMORY, reference)
        if not arrays.taken:
            return Encoded(PICKLE, data)
    return Encoded(PICKLE, _pickle(value, what, most))


def _pickle(value: object, what: str, most: int, aside: Aside | None = None) -> bytes:
    try:
        if not is_simple(value, _HEAVY):
            return pickling.dumps(value, Bounded(what, most), aside)
        data = pickle.dumps(value, protocol=5, buffer_callback=aside)
    except (PayloadTooLargeError, KeyboardInterrupt):
        raise
    except RecursionError as error:
        raise EncodingError(what, RecursionError("it is nested too deeply")) from error
    except BaseException as error:
        raise EncodingError(what, error) from error
    if len(data) > most:
        raise PayloadTooLargeError(what, len(data), most)
    return data


def encode(value: object, what: str, most: int = MAX_BYTES, lender: Lender | None = None) -> Encoded:
    """A value in the lane that fits it. Raises EncodingError, naming ``what``; PayloadTooLargeError beyond ``most``."""
    check = _CHECKS.get(type(value))
    if check is not None and check(value):  # most results: a number, or None
        data = to_json(value).encode()
        if len(data) <= most:
            return Encoded(JSON, data)
    seen: set[int] = set()
    if not is_plain(value, seen=seen):
        return _encoded(value, what, most, lender)
    return _lent(JSON, json_of(value, what, most, seen), lender)


def _lent(codec: str, data: bytes, lender: Lender | None) -> Encoded:
    """JSON, or in its place a reference to where it is in memory."""
    if lender is not None and len(data) >= shared.LEAST and (reference := lender.lend(codec, [data])) is not None:
        return Encoded(MEMORY, reference)
    return Encoded(codec, data)


def size(encoded: Encoded | Call) -> int:
    """Bytes of a value, wherever they are."""
    return shared.Reference.parse(encoded.data).n_bytes if encoded.codec == MEMORY else len(encoded.data)


def twinned(encoded: Encoded, value: object) -> Encoded:
    """The same with a twin that can be read in the database, if it is a pickle and JSON can tell what it holds."""
    if encoded.codec != PICKLE or len(encoded.data) > twins.LARGE_BYTES:
        return encoded
    twin = twins.readable(value)
    if twin is twins.NO_TWIN or not is_plain(twin):
        return encoded
    return Encoded(TWINNED, to_json(twin).encode() + b"\0" + encoded.data)


def _parse(data: bytes) -> Any:
    """JSON that PostgreSQL has found to be whole: json.loads checks much that needs no check, at twice the time."""
    text = data.decode().lstrip()
    try:
        return _scan(text, 0)[0]
    except StopIteration:
        raise json.JSONDecodeError("there is no value", text, 0) from None


def decode(codec: str, data: bytes) -> object:
    """The value. Never call this with data that holds a pickle or a reference and whose signature doesn't hold."""
    if codec == MEMORY:
        codec, arrays, data = shared.recall(data)
        if codec == PICKLE:
            return loads(data, arrays)
    if codec == TWINNED:
        codec, data = PICKLE, data[data.index(b"\0") + 1 :]
    return pickle.loads(data) if codec == PICKLE else _parse(data)  # noqa: S301


def encode_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], most: int = MAX_BYTES, lender: Lender | None = None
) -> Call:
    """The arguments of a call. Raises EncodingError, and PayloadTooLargeError beyond ``most`` bytes."""
    what = "the arguments"
    if len(args) == 1 and not kwargs and type(args[0]) is dict:
        value, seen = args[0], set[int]()
        if is_plain(value, seen=seen):
            return _call(JSON, value, what, most, seen, lender, in_order=len(value) < 2 and len(seen) == 1)
    seen = {_IS_LONG} if len(args) > LONG else set()
    whole = {"args": args, "kwargs": kwargs}
    if _are_plain(args, DEPTH - 2, seen) and (not kwargs or is_plain(kwargs, DEPTH - 1, seen)):
        in_order = not seen or (len(kwargs) == 1 and len(seen) == 1)
        return _call(JSON_CALL, whole, what, most, seen, lender, in_order=in_order)
    encoded = _encoded((args, kwargs), what, most, lender)
    return Call(*encoded, _identity({"args": list(args), "kwargs": kwargs}))


def _call(
    codec: str, value: Any, what: str, most: int, seen: set[int], lender: Lender | None, *, in_order: bool
) -> Call:
    """A call in JSON. Its identity is the same with sorted keys; ``in_order``: they are sorted as they are."""
    data = json_of(value, what, most, seen)
    identity = codec.encode() + (data if in_order else to_sorted_json(value).encode())
    return Call(*_lent(codec, data, lender), identity)


def decode_call(codec: str, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments and keyword arguments. Never call this with ``pickle`` data whose signature doesn't hold."""
    arrays: list[memoryview] = []
    if codec == MEMORY:
        codec, arrays, data = shared.recall(data)
    if codec == PICKLE:
        args, kwargs = loads(data, arrays)  # the caller has verified it
        return args, kwargs
    whole = _parse(data)
    return ((whole,), {}) if codec == JSON else (tuple(whole["args"]), whole["kwargs"])


def _identity(whole: dict[str, Any]) -> bytes | None:
    """Identify a call that isn't exactly JSON, as far as it can be told: NumPy's numbers, and what is in two places.

    NumPy scalars are told apart by their dtype; a list or dict that was met before is named by its number.
    Anything else has no identity.
    """
    numpy = sys.modules.get("numpy")
    scalar = () if numpy is None else numpy.generic
    met: dict[int, int] = {}

    def tagged(value: Any) -> object:
        kind = type(value)
        if issubclass(kind, scalar) and value.dtype.kind in "biuf":
            return {"\0numpy": str(value.dtype), "value": repr(value.item())}
        if kind is not dict and kind is not list:
            if is_plain(value):
                return value
            raise TypeError
        if id(value) in met:
            return {"\0met": met[id(value)]}
        met[id(value)] = len(met)
        if kind is list:
            return value if _is_flat(value) else [tagged(item) for item in value]
        if all(type(key) is str and is_plain_text(key) for key in value):
            return {key: tagged(value[key]) for key in sorted(value)}
        raise TypeError

    try:
        return b"numpy" + to_sorted_json(tagged(whole)).encode()
    except (TypeError, RecursionError):
        return None


def _is_flat(items: list[Any]) -> bool:
    return _PLAIN_KINDS.issuperset(map(type, items)) and is_plain(items)


# Identity


def canonical_text(text: str) -> bytes:
    """JSON text with its keys sorted: equal for equal data, and 1, 1.0 and true stay apart."""
    return to_sorted_json(json.loads(text)).encode()


#: 16 bytes that stand for these parts; no other list of parts reads the same.
digest = bytecode.digest
