"""Connection strings, as libpq has them."""

from __future__ import annotations

import psycopg2
from psycopg2 import extensions

from workerbee.errors import ConnectionStringError


def make_dsn(dsn: str | None = None, **parts: object) -> str:
    """Make a connection string of ``dsn`` and the parts that are given; '' leaves all to libpq's environment.

    Raises ConnectionStringError.
    """
    given = {name: str(value) for name, value in parts.items() if value is not None}
    try:
        return str(extensions.make_dsn(dsn or "", **given))
    except psycopg2.ProgrammingError:
        raise ConnectionStringError from None  # libpq quotes what it can't read, and that may be a password


def dsn_parts(dsn: str) -> dict[str, str]:
    """Parse a connection string, by libpq's names, and leave its password out."""
    parts = extensions.parse_dsn(dsn)
    parts.pop("password", None)
    return {str(k): str(v) for k, v in parts.items()}


def has_password(dsn: str) -> bool:
    """Tell whether a connection string holds a password."""
    try:
        return not {"password", "sslpassword"}.isdisjoint(extensions.parse_dsn(dsn))
    except psycopg2.ProgrammingError:
        return False
