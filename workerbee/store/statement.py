"""Queries with parameters like ``%(n)s``, and how values are written into them.

The values are written by us: psycopg2's adapters belong to the whole process, and its user may register others.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import psycopg2
from psycopg2 import sql

_PARAMETER = re.compile(r"%\((\w+)\)s((?:::(?:double precision|\w+)(?:\[\])?)?)")


class Statement:
    """A query, and the same as a statement to be prepared.

    Planning one of our queries takes longer than running it for one job.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        casts: dict[str, str] = {}
        for name, cast in _PARAMETER.findall(text):
            casts[name] = casts.get(name) or cast
        self.name = f"workerbee_{hashlib.blake2s(text.encode(), digest_size=8).hexdigest()}"
        identifier = sql.SQL(self.name)
        arguments = sql.SQL(", ").join(sql.Placeholder(name) + sql.SQL(cast) for name, cast in casts.items())
        self.prepare = sql.SQL("PREPARE {} AS {}").format(identifier, sql.SQL(_numbered(text, list(casts))))
        self.execute = sql.SQL("EXECUTE {} ({})" if casts else "EXECUTE {}").format(identifier, arguments)

    @cached_property
    def silent(self) -> Statement | None:
        """The same without its notifications; None if it has none."""
        text = self.text.replace("pg_notify(", "pg_catalog.textcat(")
        return Statement(text) if text != self.text else None


def _numbered(text: str, names: list[str]) -> str:
    """Number the query's parameters ($1, $2 …), as PREPARE has them."""
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}{found[2]}", text).replace("%%", "%")


def filled(text: str, params: Mapping[str, Any]) -> str:
    """Write the values into the query. Raises psycopg2.DataError for text that PostgreSQL can't hold."""
    return text % {name: literal(value) for name, value in params.items()}


def with_bytes(text: str, params: Mapping[str, Any]) -> tuple[str, list[bytes]]:
    """Do the same with $1, $2 … for what is bytes, and give the bytes. Raises as `filled`."""
    carried = {name: bytes(v) for name, v in params.items() if isinstance(v, (bytes, bytearray, memoryview))}
    places = {name: f"${n}" for n, name in enumerate(carried, 1)}
    return text % ({name: literal(v) for name, v in params.items() if name not in carried} | places), [
        *carried.values()
    ]


def literal(value: object) -> str:
    """Write a value as SQL, in the form that every setting of the server reads the same way."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _number(repr(int(value)))
    if isinstance(value, float):
        return _number(repr(float(value))) if math.isfinite(value) else f"'{float(value)!r}'::float8"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"E'\\\\x{value.hex()}'::bytea"
    if isinstance(value, (list, tuple)):
        return _text("{" + ",".join(map(_element, value)) + "}")
    raise TypeError(f"no parameter can be a {type(value).__qualname__}")


def _number(text: str) -> str:
    """Keep a minus with its number: a cast binds closer, and -2147483648 without its minus is no integer."""
    return f"({text})" if text.startswith("-") else text


def _text(value: str) -> str:
    if "\0" in value:
        raise psycopg2.DataError("PostgreSQL's text can't hold the character NUL")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise psycopg2.DataError(f"PostgreSQL's text can't hold a lone surrogate: {error}") from None
    value = value.replace("'", "''")
    return f"'{value}'" if "\\" not in value else " E'" + value.replace("\\", "\\\\") + "'"


def _element(value: object) -> str:
    """Write one element of an array's text."""
    if value is None:
        return "NULL"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f'"\\\\x{value.hex()}"'
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
