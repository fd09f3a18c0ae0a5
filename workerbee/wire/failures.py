"""Exceptions to error records and back; whatever an exception is, it has a record, and one comes back.

An exception is user code: its ``__str__``, ``__getattr__`` or ``__setattr__`` may raise, exit or never end.
They are called here, where the job has run, and not in the client, which sets an exception's notes and cause without
them. So an exception that comes out of the pickle is tried here first, in the ways in which a client may use it.
"""

from __future__ import annotations

import base64
import json
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures.process import _RemoteTraceback
from types import FunctionType, TracebackType
from typing import Any, TypeVar

from workerbee import pickling, resources
from workerbee.errors import RemoteError, attributes_of, complete, rebuilt, taken_apart, text_of
from workerbee.pickling import Absent
from workerbee.wire.bounded import Bounded
from workerbee.wire.codec import WARN_BYTES, is_simple
from workerbee.wire.sources import with_cells

T = TypeVar("T")

#: The most characters of a message, and of a traceback.
TRACEBACK_CHARS = 64_000
#: The most characters of a text in the place of something that can't be pickled.
STAND_IN_CHARS = 1000


def encode_error(error: BaseException, *, notes: list[str] | None = None, text_only: bool = False) -> bytes:
    """Make an error record: JSON with type, message, traceback, notes, and the pickled exception where it has one.

    What would end or cancel whoever waits for the job (`LEAVING`) has no pickle.
    """
    record = {
        "type": _name(type(error)),
        "message": _clean(text_of(error)[:TRACEBACK_CHARS]),
        "traceback": _clean(_bounded(_trace(error))),
        "notes": [_clean(n) for n in notes or ()],
        "host": _clean(resources.host()),
        "pickle": None if text_only or _leaves(error) else _pickled(error),
    }
    return json.dumps(record).encode()


def noted(record: bytes, notes: list[str]) -> bytes:
    """Add notes to a record; anything that is no record is returned as it is."""
    told = _record(record)
    if not isinstance(told.get("notes"), list):
        return record
    return json.dumps(told | {"notes": [*told["notes"], *map(_clean, notes)]}).encode()


def decode_error(data: bytes, *, trusted: bool) -> BaseException:
    """Give the exception of an error record, with the remote traceback as its cause and the notes added.

    Only with ``trusted`` is its pickle loaded; else, if the type can't be had here or leaves, a RemoteError.
    """
    record = _record(data)
    error: BaseException | None = None
    if trusted and record.get("pickle"):
        try:
            error = tamed(lambda: pickle.loads(base64.b64decode(record["pickle"])))  # noqa: S301 (verified by the caller)
        except Exception:  # noqa: BLE001 (its class isn't here, or refuses)
            error = None
    text = with_cells(str(record.get("traceback") or ""))
    if error is None or not issubclass(type(error), BaseException) or _leaves(error):
        error = RemoteError(str(record.get("type") or "an error without a record"), str(record.get("message")), text)
    notes = [str(n) for n in record["notes"]] if isinstance(record.get("notes"), list) else []
    return _dressed(error, text, notes, record.get("host"))


def host_of(error: BaseException) -> str | None:
    """Give the host on which the job has raised it; None if its record doesn't say."""
    cause = BaseException.__dict__["__cause__"].__get__(error)
    host = getattr(cause, "host", None) if type(cause) is _RemoteTraceback else None
    return host if isinstance(host, str) else None


def tamed(action: Callable[[], T]) -> T:
    """Call user code. Raises an Exception even in the place of one that would end the caller, such as SystemExit.

    A KeyboardInterrupt is passed on as the user's own, unless the same call raises it again.
    """
    try:
        return action()
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _in_main_thread() and not _interrupts(action):
            raise
        raise RemoteError(_name(type(error)), text_of(error), _trace(error)) from None


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupts(action: Callable[[], object]) -> bool:
    try:
        action()
    except KeyboardInterrupt:
        return True
    except BaseException:  # noqa: BLE001 (the user's)
        return False
    return False


def _record(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        record = None
    return record if isinstance(record, dict) else {}  # unsigned, it may be anything


# Texts


def _name(kind: type) -> str:
    try:
        return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__
    except BaseException:  # noqa: BLE001 (its metaclass is the user's)
        return text_of(kind)


def _trace(error: BaseException) -> str:
    trace: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:  # noqa: BLE001 (a __str__ or __cause__ of the user's)
        frames = "".join(traceback.format_tb(trace))
        return f"Traceback (most recent call last):\n{frames}{_name(type(error))}: {text_of(error)}\n"


def _bounded(text: str) -> str:
    if len(text) <= TRACEBACK_CHARS:
        return text
    half = TRACEBACK_CHARS // 2
    return f"{text[:half]}\n… {len(text) - TRACEBACK_CHARS} characters left out …\n{text[-half:]}"


def _clean(text: str) -> str:
    """Remove characters that PostgreSQL's json can't give back."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


# Pickles


#: What ends a program or a generator.
LEAVING = (SystemExit, KeyboardInterrupt, GeneratorExit)


def _leaves(error: object) -> bool:
    """Tell whether it would end or cancel whoever waits for the job: to asyncio it is what the task itself was told."""
    cancelled = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", ())  # who made one has imported it
    return issubclass(type(error), LEAVING) or issubclass(type(error), cancelled)


def _pickled(error: BaseException) -> str | None:
    """Pickle an exception by its own ``__reduce__``, or by its parts, or by their texts; None if nothing works."""
    for dumps in (_dump, _dump_parts, _dump_texts):
        try:
            data = dumps(error)
            if _bears_use(pickle.loads(data), error):  # noqa: S301 (made just above)
                return base64.b64encode(data).decode()
        except BaseException:  # noqa: BLE001, S112 (the next way may do)
            continue
    return None


def _bears_use(unpickled: Any, error: BaseException) -> bool:
    """Tell whether the unpickled exception can be used as the original can, with what `decode_error` adds."""
    if type(unpickled) is not type(error):
        return False
    _dressed(unpickled, "", ["note"])
    return all(_passes(use, unpickled) or not _passes(use, error) for use in _USES)


_USES: tuple[Callable[[Any], Any], ...] = (
    str,
    repr,
    lambda error: hasattr(error, "no_such_attribute"),
    lambda error: isinstance(error, int),
    lambda error: traceback.format_exception(type(error), error, None),
)


def _passes(use: Callable[[Any], Any], error: BaseException) -> bool:
    """Tell whether a use of an exception works. Raises what would end its user."""
    try:
        use(error)
    except Exception:  # noqa: BLE001 (the user's own)
        return False
    return True


def _dump(error: BaseException) -> bytes:
    return pickling.dumps(error, _file())


def _dump_parts(error: BaseException) -> bytes:
    return _dumped(_PartsPickler, error)


def _dump_texts(error: BaseException) -> bytes:
    return _dumped(_TextsPickler, error)


def _dumped(pickler: type[_PartsPickler], error: BaseException) -> bytes:
    file = _file()
    pickler(file).dump(error)
    return file.getvalue()


def _file() -> Bounded:
    return Bounded("the exception", WARN_BYTES)


class _PartsPickler(pickling.PlainPickler):
    """Pickles exceptions without their ``__reduce__`` and ``__init__``; parts that can't be pickled become text."""

    def reducer_override(self, obj: Any) -> Any:
        if issubclass(type(obj), BaseException):
            attributes, members, args = taken_apart(obj)
            state = self._kept_all(attributes), self._kept_all(members)
            return rebuilt, (type(obj), tuple(map(self._kept, args)), {}), state, None, None, complete
        try:
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and not issubclass(type(obj), (type, FunctionType)):
                reduce = self.dispatch_table.get(type(obj))
                reduced = obj.__reduce_ex__(5) if reduce is None else reduce(obj)
        except BaseException:  # noqa: BLE001 (it can't be pickled, for whatever reason)
            return Absent, (text_of(obj)[:STAND_IN_CHARS],)
        return reduced

    def _kept_all(self, named: dict[str, Any]) -> dict[str, Any]:
        return {name: self._kept(value) for name, value in named.items()}

    def _kept(self, value: Any) -> Any:
        """Choose what stands for an argument or attribute of an exception."""
        return value


class _TextsPickler(_PartsPickler):
    """Pickles short plain data and other exceptions; all other parts of an exception become text."""

    def _kept(self, value: Any) -> Any:
        if issubclass(type(value), BaseException):
            return value
        if (type(value) is list or type(value) is tuple) and len(value) <= STAND_IN_CHARS:
            return type(value)(map(self._kept, value))
        if is_simple(value) and len(pickle.dumps(value)) <= TRACEBACK_CHARS:
            return value
        text = text_of(value)
        return Absent(text if len(text) <= STAND_IN_CHARS else f"{text[:STAND_IN_CHARS]}…")


def _dressed(error: BaseException, text: str, notes: list[str], host: object = None) -> BaseException:
    """Set the cause, which has the host, and the notes of an error, without calling its own methods."""
    if hasattr(BaseException, "add_note"):
        attributes = attributes_of(error)
        own = attributes.get("__notes__")
        attributes["__notes__"] = [*own, *notes] if type(own) is list else notes
    else:
        text += "".join(f"{note}\n" for note in notes)
    cause = _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]  # the standard library's own way to show it
    cause.host = host  # type: ignore[attr-defined]
    BaseException.__dict__["__cause__"].__set__(error, cause)
    return error
