"""The named queries of the ``*.sql`` files beside this one.

Each file is a list of ``-- name: NAME`` headings, each followed by comments on why and one query. A
query names its jobset's own objects as ``{job}``, ``{outcome}`` …; `bind` puts the quoted identifiers in.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from psycopg2 import errors, sql

from workerbee.store.connection import Statement

SCHEMA = "workerbee"
FILES = ("catalogue.sql", "client.sql", "bee.sql", "jobset.sql")
LOCK_REFUSED = errors.LockNotAvailable
_TABLES = ("job", "function", "run", "outcome", "attempt", "part")
_INDEXES = ("job_digest", "job_key", "attempt_job")


@cache
def load(file: str) -> dict[str, str]:
    """The queries of one file by name, without their comments."""
    text = resources.files(__package__).joinpath(file).read_text("utf-8")
    named = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    return {
        name: re.sub(r"^\s*--.*\n", "", body, flags=re.MULTILINE).strip().rstrip(";")
        for name, body in zip(named[::2], named[1::2], strict=True)
    }


@cache
def catalogue() -> dict[str, Statement]:
    """The queries on what all jobsets share."""
    return {name: Statement(text) for name, text in load("catalogue.sql").items()}


def identifiers(number: int, jobset_id: str | None) -> dict[str, sql.Composable]:
    """The quoted names of the objects of jobset ``number``, and of the view that bears its id."""
    names: dict[str, sql.Composable] = {table: sql.Identifier(SCHEMA, f"{table}${number}") for table in _TABLES}
    names |= {index: sql.Identifier(f"{index}${number}") for index in _INDEXES}
    names["number"] = sql.Literal(number)
    names["view"] = sql.Identifier(SCHEMA, jobset_id if jobset_id is not None else f"view${number}")
    return names


def bind(file: str, number: int, jobset_id: str | None) -> dict[str, sql.Composed]:
    """The queries of one file for jobset ``number``."""
    names = identifiers(number, jobset_id)
    return {name: sql.SQL(text).format(**names) for name, text in load(file).items()}
