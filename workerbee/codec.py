"""Values to bytes and back, and what makes two calls the same call.

There are two lanes. A value goes as JSON, readable in the database, only if it comes back equal and of
the same type; everything else goes as a pickle. A call's codec says how to read it: ``json`` is one
positional dict, ``json_call`` any other arguments in JSON, ``pickle`` the rest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import re
import sys
import traceback
from collections.abc import Callable
from concurrent.futures.process import _RemoteTraceback
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from math import isfinite
from typing import Any, NamedTuple

import cloudpickle

from workerbee import pickling
from workerbee.errors import EncodingError, InputDataError, PayloadTooLargeError, RemoteError, rebuilt

JSON, JSON_CALL, PICKLE, ERROR = "json", "json_call", "pickle", "error"
#: Bytes of arguments or of a result that are worth a warning, and that are too much unless one says otherwise.
WARN_BYTES, MAX_BYTES = 10_000_000, 256_000_000
#: Levels of nesting in JSON; PostgreSQL's parser and Python's both stop somewhere beyond.
DEPTH = 200
TRACEBACK = 64_000
_DIGITS = 3900  # Python refuses to print much longer integers
_LARGEST: int = 10**_DIGITS
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
    """What `json.JSONEncoder.encode` does; that makes a C encoder for each call, which costs more than a small dict."""
    if c_make_encoder is None:
        return json.JSONEncoder(
            separators=(",", ":"), allow_nan=False, check_circular=False, sort_keys=sort_keys
        ).encode
    refuse = json.JSONEncoder().default
    encode = c_make_encoder(None, refuse, encode_basestring_ascii, None, ":", ",", sort_keys, False, False)  # noqa: FBT003
    return lambda value: "".join(encode(value, 0))


_encode_json, _encode_sorted = _encoder(sort_keys=False), _encoder(sort_keys=True)
_raw_decode = json.JSONDecoder().raw_decode


def _plain(value: Any, depth: int = DEPTH) -> bool:
    """Whether JSON gives the value back equal and of the same types."""
    # Submits wait for this: hence loops rather than generators, and C for what long lists are made of.
    kind = type(value)
    if kind is str:
        return _plain_text(value)
    if kind is int:
        return _fits(value)
    if kind is float:
        return isfinite(value)
    if value is None or kind is bool:
        return True
    if depth == 0:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not _plain_text(key) or not _plain(item, depth - 1):
                return False
        return True
    return bool(kind is list and _plain_items(value, depth - 1))


def _plain_items(items: list[Any], depth: int) -> bool:
    kinds = set(map(type, items))
    if kinds == {float}:
        return all(map(isfinite, items))
    if kinds == {int}:
        return _fits(min(items)) and _fits(max(items))
    for item in items:  # noqa: SIM110 (see above)
        if not _plain(item, depth):
            return False
    return True


def _fits(number: int) -> bool:
    return -_LARGEST < number < _LARGEST


def _plain_text(text: str) -> bool:
    if text.isascii():
        return "\0" not in text
    return _UNFIT.search(text) is None


# The pickle lane

_BY_COPY = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})


def _copies(value: object, depth: int = 8) -> bool:
    """Whether the plain pickler, much faster than cloudpickle, is surely enough."""
    kind = type(value)
    if kind in _BY_COPY:
        return True
    if depth == 0:
        return False
    if kind in (tuple, list, set, frozenset):
        return len(value) <= 10_000 and all(_copies(v, depth - 1) for v in value)  # type: ignore[arg-type, attr-defined]
    if kind is dict:
        return all(_copies(k, depth - 1) and _copies(v, depth - 1) for k, v in value.items())  # type: ignore[attr-defined]
    return kind.__module__ == "numpy" and getattr(getattr(value, "dtype", None), "hasobject", True) is False


def _pickle(value: object, what: str) -> bytes:
    try:
        if _copies(value):
            return pickle.dumps(value, protocol=5)
        return pickling.dumps(value)
    except RecursionError as error:
        raise EncodingError(what, RecursionError("it is nested too deeply")) from error
    except Exception as error:
        raise EncodingError(what, error) from error


def encode(value: object, what: str) -> Encoded:
    """A value in the lane that fits it. Raises EncodingError, naming ``what``."""
    if _plain(value):
        return Encoded(JSON, _encode_json(value).encode())
    return Encoded(PICKLE, _pickle(value, what))


def _parse(data: bytes) -> Any:
    """JSON that PostgreSQL has found to be whole: json.loads checks much that needs no check, at twice the time."""
    return _raw_decode(data.decode().lstrip())[0]


def decode(codec: str, data: bytes) -> object:
    """The value. Never call this with ``pickle`` data whose signature doesn't hold."""
    return pickle.loads(data) if codec == PICKLE else _parse(data)  # noqa: S301


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The arguments of a call. Raises EncodingError."""
    if len(args) == 1 and not kwargs and type(args[0]) is dict and _plain(args[0]):
        return Call(JSON, _encode_json(args[0]).encode(), b"json" + _encode_sorted(args[0]).encode())
    if all(map(_plain, args)) and all(map(_plain, kwargs.values())):
        whole = {"args": list(args), "kwargs": kwargs}
        return Call(JSON_CALL, _encode_json(whole).encode(), JSON_CALL.encode() + _encode_sorted(whole).encode())
    return Call(PICKLE, _pickle((args, kwargs), "the arguments"), _numpy_identity(args, kwargs))


def decode_call(codec: str, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments and keyword arguments. Never call this with ``pickle`` data whose signature doesn't hold."""
    if codec == PICKLE:
        args, kwargs = pickle.loads(data)  # noqa: S301 (the caller has verified it)
        return args, kwargs
    whole = _parse(data)
    return ((whole,), {}) if codec == JSON else (tuple(whole["args"]), whole["kwargs"])


def _numpy_identity(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | None:
    """NumPy scalars are told apart by their dtype; anything else has no identity."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None

    def tagged(value: object) -> object:
        if isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
            return {"\0numpy": str(value.dtype), "value": repr(value.item())}
        if _plain(value):
            return value
        kind = type(value)
        if kind is dict and all(type(k) is str for k in value):  # type: ignore[attr-defined]
            return {k: tagged(v) for k, v in value.items()}  # type: ignore[attr-defined]
        if kind is list:
            return [tagged(v) for v in value]  # type: ignore[attr-defined]
        raise TypeError

    try:
        whole = {"args": [tagged(a) for a in args], "kwargs": {k: tagged(v) for k, v in kwargs.items()}}
    except (TypeError, RecursionError):
        return None
    return b"numpy" + _encode_sorted(whole).encode()


# Identity


def canonical_text(text: str) -> bytes:
    """JSON text with its keys sorted: equal for equal data, and 1, 1.0 and true stay apart."""
    return _encode_sorted(json.loads(text)).encode()


def canonical(value: object) -> bytes | None:
    """Canonical bytes of a value that is exactly JSON; None for any other."""
    return _encode_sorted(value).encode() if _plain(value) else None


def digest(*parts: bytes) -> bytes:
    """16 bytes that stand for these parts; no other list of parts reads the same."""
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.digest()


# What add_job(s) takes and JobSet.run returns


def check_input(input_data: object) -> str:
    """JSON text of a job's dict, as ``json.dumps(allow_nan=False)`` makes it.

    Raises InputDataError with the path, or PayloadTooLargeError.
    """
    if not isinstance(input_data, dict):
        raise InputDataError("input_data", "input_data", f"is a {type(input_data).__name__}, and must be a dict")
    text = _checked(input_data, "input_data")
    if len(text) > MAX_BYTES:
        raise PayloadTooLargeError("input_data", len(text), MAX_BYTES)
    return text


def check_output(value: object) -> str:
    """JSON text of a job's result. Raises InputDataError with the path."""
    return _checked(value, "the result")


def id_identity(text: str) -> bytes | None:
    """Canonical bytes of ``input_data['id']``, or None without one."""
    data = json.loads(text)
    return _encode_sorted(data["id"]).encode() if "id" in data else None


def _checked(value: object, what: str) -> str:
    if not _plain(value):
        _find_fault(value, what, what, DEPTH)
    try:
        return _encode_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputDataError(what, what, f"can't be encoded: {error}") from error


def _find_fault(value: object, what: str, path: str, depth: int) -> None:
    """Raise for the first thing that JSON in PostgreSQL can't hold."""
    if isinstance(value, str):
        if not _plain_text(value):
            raise InputDataError(what, path, "has a NUL character or a lone surrogate")
    elif isinstance(value, float):
        if not isfinite(value):
            raise InputDataError(what, path, f"is {value!r}, which JSON has no word for; use None or a string")
    elif isinstance(value, int):
        if not _fits(value):
            raise InputDataError(what, path, f"is an integer of more than {_DIGITS} digits; use a string")
    elif isinstance(value, (dict, list, tuple)):
        if depth == 0:
            raise InputDataError(what, path[:100] + "…", f"is nested deeper than {DEPTH} levels")
        if isinstance(value, dict):
            _check_keys(value, what, path)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            _find_fault(item, what, f"{path}[{key!r}]", depth - 1)
    elif value is not None:
        raise InputDataError(
            what, path, f"is a {type(value).__module__}.{type(value).__qualname__}, which JSON can't hold"
        )


def _check_keys(value: dict[Any, Any], what: str, path: str) -> None:
    for key in value:
        if key is not None and not isinstance(key, (str, int, float)):
            raise InputDataError(what, path, f"has the key {key!r}; JSON's keys are strings")
        if isinstance(key, str) and not _plain_text(key):
            raise InputDataError(what, path, f"has the key {key!r} with a NUL character or a lone surrogate")
        if isinstance(key, float) and not isfinite(key):
            raise InputDataError(what, path, f"has the key {key!r}")
    if not all(isinstance(k, str) for k in value):
        texts = [next(iter(json.loads(_encode_json({k: 0})))) for k in value]
        if len(set(texts)) < len(texts):
            raise InputDataError(what, path, "has two keys that are the same string in JSON")


# Exceptions


def encode_error(error: BaseException, *, notes: list[str] | None = None, text_only: bool = False) -> bytes:
    """An error record: JSON with type, message, traceback, notes, and the pickled exception where it has one.

    SystemExit, KeyboardInterrupt and their like have no pickle: they must not end the client too.
    """
    kind = type(error)
    record = {
        "type": f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__,
        "message": _clean(_text(error)),
        "traceback": _clean(_bounded("".join(_trace(error)))),
        "notes": [_clean(n) for n in notes or ()],
        "pickle": None if text_only or not isinstance(error, Exception) else _pickled_error(error),
    }
    return json.dumps(record).encode()


def harmless(error: BaseException) -> Exception:
    """The error, or a RemoteError in place of one that would end who raises it, such as SystemExit."""
    if isinstance(error, Exception):
        return error
    return RemoteError(type(error).__qualname__, _text(error), "".join(_trace(error)))


def _trace(error: BaseException) -> list[str]:
    try:
        return traceback.format_exception(type(error), error, error.__traceback__)
    except Exception:  # noqa: BLE001 (a __str__ or __cause__ of the user's)
        return [f"{type(error).__qualname__}, whose traceback can't be shown\n"]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:TRACEBACK]
    except Exception as broken:  # noqa: BLE001 (the user's __str__)
        return f"<its __str__ raised {type(broken).__name__}>"


def _bounded(text: str) -> str:
    if len(text) <= TRACEBACK:
        return text
    return f"{text[: TRACEBACK // 2]}\n… {len(text) - TRACEBACK} characters left out …\n{text[-TRACEBACK // 2 :]}"


def _clean(text: str) -> str:
    """Without what PostgreSQL's json refuses to give out again."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _pickled_error(error: Exception) -> str | None:
    state = {k: v for k, v in error.__dict__.items() if k != "__notes__"}
    attempts: list[Callable[[], bytes]] = [
        lambda: cloudpickle.dumps(error, protocol=5),
        lambda: cloudpickle.dumps(_Recipe(type(error), error.args, state), protocol=5),
        lambda: cloudpickle.dumps(_Recipe(type(error), tuple(map(str, error.args)), {}), protocol=5),
    ]
    for attempt in attempts:
        try:
            data = attempt()
            again = pickle.loads(data)  # noqa: S301 (made just above)
            if type(again) is type(error) and len(data) <= WARN_BYTES:
                return base64.b64encode(data).decode()
        except Exception:  # noqa: BLE001, S112 (the next way may do)
            continue
    return None


class _Recipe:
    """Pickles as a call of `rebuilt`."""

    def __init__(self, kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> None:
        self._parts = (kind, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, self._parts


def decode_error(data: bytes, *, trusted: bool) -> BaseException:
    """The exception of an error record, with the remote traceback as its cause and the notes added.

    Only with ``trusted`` is its pickle loaded; else, or if the type can't be had here, a RemoteError.
    """
    record = json.loads(data)
    record = record if isinstance(record, dict) else {}  # unsigned, it may be anything
    error: BaseException | None = None
    if trusted and record.get("pickle"):
        try:
            error = pickle.loads(base64.b64decode(record["pickle"]))  # noqa: S301 (verified by the caller)
        except Exception:  # noqa: BLE001 (its class isn't here, or refuses)
            error = None
    text = str(record.get("traceback") or "")
    if not isinstance(error, Exception):
        error = RemoteError(str(record.get("type")), str(record.get("message")), text)
    notes = [str(n) for n in record["notes"]] if isinstance(record.get("notes"), list) else []
    if hasattr(error, "add_note"):
        for note in notes:
            error.add_note(note)
    else:
        text += "".join(f"{note}\n" for note in notes)
    error.__cause__ = _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]  # the standard library's own way to show it
    return error
