"""Queries whose bytes travel as they are, both ways: in libpq's binary format, which psycopg2 doesn't speak.

In SQL's text bytes take twice the room, and are parsed by both sides. Here psycopg2's connection lends its libpq, as
its documentation has it; every wait stays ours. A build of psycopg2 that hides its libpq does without (`IS_THERE`).
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from ctypes import POINTER, c_char_p, c_int, c_void_p
from typing import Any

import psycopg2
from psycopg2 import errors

from workerbee.errors import DatabaseUnavailableError

_COMMAND_OK, _TUPLES_OK = 1, 2
_SQLSTATE = ord("C")
_BINARY = 1
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "PQsendQueryParams": (
        *(c_int, c_void_p, c_char_p, c_int),
        *(c_void_p, POINTER(c_char_p), POINTER(c_int), POINTER(c_int), c_int),
    ),
    "PQflush": (c_int, c_void_p),
    "PQconsumeInput": (c_int, c_void_p),
    "PQisBusy": (c_int, c_void_p),
    "PQgetResult": (c_void_p, c_void_p),
    "PQerrorMessage": (c_char_p, c_void_p),
    "PQresultStatus": (c_int, c_void_p),
    "PQresultErrorField": (c_char_p, c_void_p, c_int),
    "PQresultErrorMessage": (c_char_p, c_void_p),
    "PQntuples": (c_int, c_void_p),
    "PQnfields": (c_int, c_void_p),
    "PQgetlength": (c_int, c_void_p, c_int, c_int),
    "PQgetvalue": (c_void_p, c_void_p, c_int, c_int),
    "PQclear": (None, c_void_p),
}


def _find() -> dict[str, Any]:
    """Find libpq's functions, in the very libpq that psycopg2 uses."""
    try:
        library = ctypes.CDLL(psycopg2._psycopg.__file__)  # noqa: SLF001 (libpq is found by it)
        found = {name: getattr(library, name) for name in _FUNCTIONS}
    except (OSError, AttributeError):
        return {}
    for name, (result, *arguments) in _FUNCTIONS.items():
        found[name].restype, found[name].argtypes = result, arguments
    return found


_pq = _find()
IS_THERE = bool(_pq)


class Exchange:
    """One query over an idle connection, and its answer.

    ``lock`` is held around each call of libpq, none of which waits: another thread may close the connection in between.
    """

    def __init__(self, pg: Any, lock: threading.Lock, wait: Callable[[int, bool, float], bool]) -> None:
        self._pg = pg
        self._lock = lock
        self._wait = wait

    def run(self, text: str, values: Sequence[bytes], deadline: float) -> list[tuple[bytes, ...]]:
        """Run a query with bytes for its $1, $2 …, and move the deadline as long as anything moves. Returns the rows.

        Raises psycopg2.Error as the server gives it, and DatabaseUnavailableError when there is no answer in time.
        """
        n = len(values)
        sizes, formats = (c_int * n)(*map(len, values)), (c_int * n)(*[_BINARY] * n)
        self._send(text.encode(), n, None, (c_char_p * n)(*values), sizes, formats, _BINARY)
        patience = deadline - time.monotonic()
        while self._call("PQflush") > 0:
            self._wait_for(patience, writing=True)
            self._consume()
        with closing(_Result(self._next_result(patience))) as answer:
            while (more := self._next_result(patience)) is not None:  # until there is none, libpq takes no other query
                _Result(more).close()
            return answer.rows()

    def _send(self, *arguments: Any) -> None:
        if not self._call("PQsendQueryParams", *arguments):
            raise self._lost()

    def _next_result(self, patience: float) -> int | None:
        while self._call("PQisBusy"):
            self._wait_for(patience, writing=False)
            self._consume()
        result: int | None = self._call("PQgetResult")
        return result

    def _consume(self) -> None:
        if not self._call("PQconsumeInput"):
            raise self._lost()

    def _call(self, name: str, *arguments: Any) -> Any:
        with self._lock:
            if (connection := self._pg.pgconn_ptr) is None or self._pg.closed:
                raise psycopg2.InterfaceError("connection already closed")
            return _pq[name](connection, *arguments)

    def _wait_for(self, seconds: float, *, writing: bool) -> None:
        if seconds <= 0 or not self._wait(self._pg.fileno(), writing, seconds):
            raise DatabaseUnavailableError("PostgreSQL gave no answer in time; the connection was dropped")

    def _lost(self) -> psycopg2.Error:
        return psycopg2.OperationalError(self._call("PQerrorMessage").decode(errors="replace"))


class _Result:
    """The answer to a query, to be closed."""

    def __init__(self, result: int | None) -> None:
        self._result = c_void_p(result)

    def close(self) -> None:
        _pq["PQclear"](self._result)

    def rows(self) -> list[tuple[bytes, ...]]:
        """Raises psycopg2.Error if it is an error."""
        if _pq["PQresultStatus"](self._result) not in (_COMMAND_OK, _TUPLES_OK):
            raise self._error()
        columns = range(_pq["PQnfields"](self._result))
        return [tuple(self._value(row, c) for c in columns) for row in range(_pq["PQntuples"](self._result))]

    def _value(self, row: int, column: int) -> bytes:
        size = _pq["PQgetlength"](self._result, row, column)
        return ctypes.string_at(_pq["PQgetvalue"](self._result, row, column), size)

    def _error(self) -> psycopg2.Error:
        """Make the error that psycopg2 would make of it."""
        text = (_pq["PQresultErrorMessage"](self._result) or b"").decode(errors="replace")
        sqlstate = (_pq["PQresultErrorField"](self._result, _SQLSTATE) or b"").decode()
        if not sqlstate:
            return psycopg2.OperationalError(text)
        try:
            error = errors.lookup(sqlstate)(text)
        except KeyError:
            error = psycopg2.DatabaseError(text)
        error.__setstate__({"pgcode": sqlstate, "pgerror": text})  # type: ignore[no-untyped-call]
        return error
