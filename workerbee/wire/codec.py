"""Values to bytes and back, and what makes two calls the same call.

There are two lanes. A value goes as JSON, readable in the database, only if it comes back equal and of the
same type, and if no list or dict is in it twice; everything else goes as a pickle, and so does what is too large only
as JSON, in which other letters than ASCII's take six bytes. A call's codec says how to read it: ``json`` is one
positional dict, ``json_call`` any other arguments in JSON, ``pickle`` the rest. Large values of both lanes may be put
elsewhere, and have a reference in their place (`wire.lending`): to memory that client and runner share (``memory``),
or to a file that all see (``blob``). Else a call's large arrays are taken out of its pickle (`wire.values`).
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterable
from itertools import dropwhile
from typing import Any, NamedTuple

from workerbee import pickling
from workerbee.errors import EncodingError, PayloadTooLargeError
from workerbee.wire import bytecode, lending, twins, values
from workerbee.wire.bounded import Bounded, Scattered, Segment, loads
from workerbee.wire.job import TWINNED
from workerbee.wire.lending import Lender
from workerbee.wire.plain import (
    CHECKS,
    DEPTH,
    IS_LONG,
    LONG,
    are_plain,
    is_flat,
    is_plain,
    is_plain_text,
    json_of,
    least_pickled,
    parsed,
    to_json,
    to_sorted_json,
)
from workerbee.wire.values import Value, Values

JSON, JSON_CALL, PICKLE = "json", "json_call", "pickle"
#: Of a value in these nothing is elsewhere.
_WHOLE = frozenset({JSON, JSON_CALL, PICKLE})
#: Arguments or results of more bytes are warned of; of more than ``MAX_BYTES`` they are refused, by default.
WARN_BYTES, MAX_BYTES = 10_000_000, 256_000_000


class Encoded(NamedTuple):
    """A value in one of the codecs."""

    codec: str
    data: bytes


class Call(NamedTuple):
    """Arguments in one of the codecs, without the arrays that were ``taken`` out of them.

    ``identity`` None: such a call is never the same as another.
    """

    codec: str
    data: bytes
    identity: bytes | None
    taken: tuple[Value, ...] = ()


def too_much(what: str, name: str, size: int) -> str:
    """Write the warning for a large value."""
    return f"{what} of {name} takes {size / 1e6:.0f} MB; store such data in a file once and pass its path"


# The pickle lane

_SCALARS = frozenset({type(None), bool, int, float, complex})
_TEXTS = frozenset({str, bytes, bytearray})
_GATHERINGS = frozenset({tuple, list, set, frozenset})
#: Pickling is limited as it goes on if a value has a text or an array of more bytes than this.
_HEAVY = 1_000_000


def is_simple(value: object, heaviest: int = sys.maxsize) -> bool:
    """Tell whether pickling and loading a value runs no code of a user's, and no array or text in it is heavier."""
    return _copies(value, set(), heaviest)


def _copies(value: Any, seen: set[int], heaviest: int, depth: int = 8) -> bool:
    """Tell whether the plain pickler, much faster than cloudpickle, can pickle this; ``seen`` was looked at before."""
    kind = type(value)
    if kind in _SCALARS or id(value) in seen:
        return True
    if kind in _TEXTS:
        return len(value) <= heaviest
    if depth == 0:
        return False
    if kind in _GATHERINGS:
        seen.add(id(value))
        if _SCALARS.issuperset(map(type, value)):
            return True
        return len(value) <= 10_000 and all(_copies(v, seen, heaviest, depth - 1) for v in value)
    if kind is dict:
        seen.add(id(value))
        both = (part for item in value.items() for part in item)
        return all(_copies(part, seen, heaviest, depth - 1) for part in both)
    if kind.__module__ != "numpy" or getattr(getattr(value, "dtype", None), "hasobject", True):
        return False
    # A read-only array would stay so (`wire.remaking`); a number always is.
    return bool(value.nbytes <= heaviest and (value.flags.writeable or kind.__name__ != "ndarray"))


def _encoded(
    value: object, what: str, most: int, lender: Lender | None, apart: Values | None
) -> tuple[Encoded, tuple[Value, ...]]:
    """Encode a value as a pickle, or put it elsewhere, or take what is large out of it."""
    if lender is not None:
        file = Scattered(what, most, lender.apart)
        stream = _pickle(value, what, file)
        size = sum(map(len, file.arrays)) + sum(map(len, stream))
        if size > most:
            raise PayloadTooLargeError(what, size, most)
        if size >= lender.least and (reference := lender.lend(PICKLE, [*file.arrays, *stream])) is not None:
            return Encoded(lender.codec, reference), ()
        if not file.arrays:
            return Encoded(PICKLE, b"".join(stream)), ()
    if apart is None:
        return Encoded(PICKLE, b"".join(_pickle(value, what, Bounded(what, most)))), ()
    file = Scattered(what, most, values.LEAST)
    stream = _pickle(value, what, file)
    taken = tuple(map(apart.of, file.arrays))
    return Encoded(values.without(PICKLE, taken) if taken else PICKLE, b"".join(stream)), taken


#: Kept here, as a job may replace it.
dumps = pickle.dumps


def _pickle(value: object, what: str, file: Bounded) -> list[Segment]:
    try:
        if not is_simple(value, _HEAVY):
            return pickling.dumped(value, file)
        data = dumps(value, protocol=5, buffer_callback=file.aside)
    except (PayloadTooLargeError, KeyboardInterrupt):
        raise
    except RecursionError as error:
        raise EncodingError(what, RecursionError("it is nested too deeply")) from error
    except BaseException as error:
        raise EncodingError(what, error) from error
    if len(data) > file.most:
        raise PayloadTooLargeError(what, len(data), file.most)
    return [data]


def encode(value: object, what: str, most: int = MAX_BYTES, lender: Lender | None = None) -> Encoded:
    """Encode a value in the lane that fits it. Raises EncodingError, naming ``what``; PayloadTooLargeError."""
    check = CHECKS.get(type(value))
    if check is not None and check(value):  # most results are a number or None
        data = to_json(value).encode()
        if len(data) <= most:
            return Encoded(JSON, data)
    seen: set[int] = set()
    if is_plain(value, seen=seen):
        try:
            return lent(JSON, json_of(value, what, most, seen), lender)
        except PayloadTooLargeError:
            if least_pickled(value) > most:
                raise
    return _encoded(value, what, most, lender, None)[0]


def lent(codec: str, data: bytes, lender: Lender | None) -> Encoded:
    """Encode JSON, or in its place a reference to where it was put."""
    if lender is not None and len(data) >= lender.least and (reference := lender.lend(codec, [data])) is not None:
        return Encoded(lender.codec, reference)
    return Encoded(codec, data)


def size(encoded: Encoded | Call) -> int:
    """Give the bytes of a value, wherever they are."""
    if encoded.codec in _WHOLE:
        return len(encoded.data)
    return lending.length(encoded.codec, encoded.data) + sum(it.size for it in values.taken(encoded.codec))


def twinned(encoded: Encoded, value: object) -> Encoded:
    """Add a twin in JSON that people can read in the database, if it is a pickle and has such a twin."""
    if encoded.codec != PICKLE or len(encoded.data) > twins.LARGE_BYTES:
        return encoded
    twin = twins.readable(value)
    if twin is twins.NO_TWIN or not is_plain(twin):
        return encoded
    return Encoded(TWINNED, to_json(twin).encode() + b"\0" + encoded.data)


def decode(codec: str, data: bytes) -> object:
    """Decode a value. Never call this with data that holds a pickle or a reference and whose signature doesn't hold."""
    if codec in lending.CODECS:
        return _recalled(codec, data)[1]
    if codec == TWINNED:
        codec, data = PICKLE, data[data.index(b"\0") + 1 :]
    return pickle.loads(data) if codec == PICKLE else parsed(data)  # noqa: S301


def _recalled(where: str, reference: bytes) -> tuple[str, Any]:
    """Fetch a value that was lent, and its codec."""
    codec, parts = lending.recall(where, reference)
    if codec != PICKLE:
        return codec, parsed(b"".join(parts))
    stream = list(dropwhile(lambda part: isinstance(part, memoryview), parts))
    return codec, loads(stream, parts[: len(parts) - len(stream)])


def encode_call(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    most: int = MAX_BYTES,
    lender: Lender | None = None,
    apart: Values | None = None,
) -> Call:
    """Encode the arguments of a call, large arrays of them ``apart``.

    Raises EncodingError, and PayloadTooLargeError beyond ``most`` bytes.
    """
    what = "the arguments"
    if len(args) == 1 and not kwargs and type(args[0]) is dict:
        value, seen = args[0], set[int]()
        if is_plain(value, seen=seen):
            try:
                return _call(JSON, value, what, most, seen, lender, in_order=len(value) < 2 and len(seen) == 1)
            except PayloadTooLargeError:
                if least_pickled(value) > most:
                    raise
    seen = {IS_LONG} if len(args) > LONG else set()
    whole = {"args": args, "kwargs": kwargs}
    if are_plain(args, DEPTH - 2, seen) and (not kwargs or is_plain(kwargs, DEPTH - 1, seen)):
        in_order = not seen or (len(kwargs) == 1 and len(seen) == 1)
        try:
            return _call(JSON_CALL, whole, what, most, seen, lender, in_order=in_order)
        except PayloadTooLargeError:
            if least_pickled(whole) > most:
                raise
    encoded, taken = _encoded((args, kwargs), what, most, lender, apart)
    return Call(*encoded, _identity({"args": list(args), "kwargs": kwargs}), taken)


def _call(
    codec: str, value: Any, what: str, most: int, seen: set[int], lender: Lender | None, *, in_order: bool
) -> Call:
    """Encode a call in JSON. Its identity is that of the text with sorted keys; ``in_order``: they are sorted."""
    data = json_of(value, what, most, seen)
    identity = codec.encode() + (data if in_order else to_sorted_json(value).encode())
    return Call(*lent(codec, data, lender), identity)


def decode_call(codec: str, data: bytes, arrays: Iterable[memoryview] = ()) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Decode arguments and keyword arguments; ``arrays`` were taken out of them.

    Never call this with ``pickle`` data whose signature doesn't hold.
    """
    if codec in lending.CODECS:
        codec, whole = _recalled(codec, data)
    else:
        codec = values.kind(codec)
        whole = loads([data], arrays) if codec == PICKLE else parsed(data)
    if codec == PICKLE:
        args, kwargs = whole
        return args, kwargs
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
            return value if is_flat(value) else [tagged(item) for item in value]
        if all(type(key) is str and is_plain_text(key) for key in value):
            return {key: tagged(value[key]) for key in sorted(value)}
        raise TypeError

    try:
        return b"numpy" + to_sorted_json(tagged(whole)).encode()
    except (TypeError, RecursionError):
        return None


# Identity


def canonical_text(text: str) -> bytes:
    """JSON text with its keys sorted: equal for equal data, and 1, 1.0 and true stay apart."""
    return to_sorted_json(json.loads(text)).encode()


#: 16 bytes that stand for these parts; no other list of parts reads the same.
digest = bytecode.digest
