"""The named queries of the ``*.sql`` files beside this one.

Each file is a list of ``-- name: NAME`` headings, each followed by comments on why and one query. A
query names its jobset's own objects as ``{job}``, ``{outcome}`` …; `bind` puts the quoted identifiers in. In any
query ``{durably}`` is the expression that has the transaction commit synchronously; ``{lease}``, ``{silence}`` … are
the intervals of `timing`. ``{header}`` is the list of the columns of that name; ``{h.header}`` is those of the table
``h``, and ``{header: max(#)}`` has each in the place of ``#``. ``total(column)`` is a column's sum as far as a bigint
holds it, though anybody's rows may add up to more. ``{here}`` is true, or ends the query as if the tables were gone:
after a restore or in a new schema a number may come again, a UUID doesn't. ``{batches: id, jobs}`` is
these columns of all headers of the jobset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any
from uuid import UUID

from psycopg2 import errors, sql

from workerbee import timing
from workerbee.store.connection import Connection, Row
from workerbee.store.statement import Statement, literal
from workerbee.wire.job import Jobset

SCHEMA = "workerbee"
FILES = ("catalogue.sql", "overview.sql", "client.sql", "bee.sql", "reader.sql", "jobset.sql")
LOCKED = (errors.LockNotAvailable, errors.DeadlockDetected)
#: The tables of a jobset.
TABLES = ("job", "function", "run", "outcome", "attempt", "part", "text")
_INDEXES = ("job_digest", "job_key", "attempt_job", "attempt_cause", "outcome_badly", "outcome_cause")
# What a jobset's history keeps of the counters' sums.
_HISTORY = ("added", "reopened", "completed", "failed", "cancelled", "retried", "lost", "speculative", "late")
_COLUMNS = {
    # What a batch hands on to those that are made of its jobs.
    "header": ("jobset", "function", "run", "priority", "timeout", "max_attempts", "speculate"),
    "history": _HISTORY,
    "counters": (*_HISTORY, "revived"),
}
_LISTED = re.compile(rf"\{{(\w\.)?({'|'.join(_COLUMNS)})(?:: ([^{{}}]*))?\}}")
_TOTAL = re.compile(r"\btotal\((\w+)\)")
_CLAMPED = r"LEAST(GREATEST(COALESCE(sum(\1), 0), -9223372036854775808), 9223372036854775807)::bigint"
# What promises something commits synchronously also where the server's default is another.
_DURABLY = (
    "CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END"
)
# Each of the three indexes is asked for this jobset's headers: other jobsets may have millions.
_BATCHES = re.compile(r"\{batches: ([\w, ]+)\}")
_BY_INDEX = r"""(
SELECT \1 FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL
 UNION ALL
SELECT \1 FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND due_at IS NOT NULL
 UNION ALL
SELECT \1 FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL)"""
#: Queries are run as they are (with these parts), or in another way.
_PARTS = {
    "or_nothing": "ON CONFLICT DO NOTHING",
    "from_place": "",
    "since": "",
    "headers": "ARRAY(SELECT id FROM near)",
}
_WAYS: dict[str, dict[str, str]] = {
    "": {},
    "hopeful": {"or_nothing": ""},
    "in known headers": {"or_nothing": "", "headers": "%(headers)s::bigint[]"},
    "from the front": {
        "from_place": "AND priority = %(priority)s::integer AND place >= %(place)s::bigint",
        "since": "AND due_at >= to_timestamp(%(since)s)",
    },
}
# A statement on a jobset that is gone, or marked to be dropped, meets a table that isn't there.
_HERE = """(
SELECT count(*) = 1 OR ('workerbee."jobset ' || {number} || ' as it was ' || count(*) || '"')::regclass IS NULL
  FROM workerbee."jobset$" WHERE number = {number} AND uuid = {uuid} {marked})"""


@cache
def load(file: str) -> dict[str, str]:
    """Give the queries of one file by name, without their comments."""
    text = _expanded(resources.files(__package__).joinpath(file).read_text("utf-8"))
    named = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    return {
        name: re.sub(r"^\s*--.*\n", "", body, flags=re.MULTILINE).strip().rstrip(";")
        for name, body in zip(named[::2], named[1::2], strict=True)
    }


def _expanded(written: str) -> str:
    """Put into a file's text what stands for the same in every query."""
    expanded = _BATCHES.sub(_BY_INDEX, written.replace("{durably}", _DURABLY))
    for name, seconds in timing.INTERVALS.items():
        expanded = expanded.replace(f"{{{name}}}", f"interval '{seconds:g} seconds'")
    return _TOTAL.sub(_CLAMPED, _LISTED.sub(_listed, expanded))


def _listed(found: re.Match[str]) -> str:
    """Give the columns of a list, each as the query wants it."""
    table, columns, each = found.groups()
    return ", ".join((each or (table or "") + "#").replace("#", column) for column in _COLUMNS[columns])


@cache
def shared(file: str) -> dict[str, Statement]:
    """Give the queries of one file that is about what all jobsets share."""
    return {name: Statement(text) for name, text in load(file).items()}


def array(values: Iterable[object]) -> str:
    """Give an array literal of numbers, truth values, UUIDs and None, which need no quotes."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


class Queries:
    """The queries of one jobset, each composed when it is first run."""

    def __init__(self, connection: Connection, jobset: Jobset, *files: str) -> None:
        self._connection = connection
        self._jobset = jobset
        self._texts = {name: text for file in files for name, text in load(file).items()}
        self._statements: dict[tuple[str, str], Statement] = {}

    def run(self, name: str, params: Mapping[str, Any], way: str = "") -> list[Row]:
        """Give the rows of the query; raises as `Connection.run` does."""
        return self._connection.run(self._statement(name, way), params)

    def carry(self, name: str, params: Mapping[str, Any]) -> list[Row]:
        """Do the same for a query that moves bytes alone, as `Connection.carry` does."""
        return self._connection.carry(self._statement(name, ""), params)

    def insert(self, name: str, params: Mapping[str, Any]) -> list[Row]:
        """Run an insert, at first in the hope that none of the rows is there.

        ON CONFLICT has every row confirmed in the WAL, which is a sixth of what a job costs there.
        """
        try:
            return self.run(name, params, "hopeful")
        except errors.UniqueViolation:
            return self.run(name, params)

    def _statement(self, name: str, way: str) -> Statement:
        statement = self._statements.get((name, way))
        if statement is None:
            names = identifiers(self._jobset.number, self._jobset.id, self._jobset.uuid)
            names |= {part: sql.SQL(text) for part, text in _WAYS[way].items()}
            statement = self._connection.statement(sql.SQL(self._texts[name]).format(**names))
            self._statements[name, way] = statement
        return statement


def identifiers(number: int, jobset_id: str | None, uuid: UUID) -> dict[str, sql.Composable]:
    """Give the quoted names of the objects of jobset ``number``, and of the view that bears its id."""
    names: dict[str, sql.Composable] = {table: sql.Identifier(SCHEMA, f"{table}${number}") for table in TABLES}
    names |= {index: sql.Identifier(f"{index}${number}") for index in _INDEXES}
    names |= {part: sql.SQL(text) for part, text in _PARTS.items()}
    names["number"] = sql.SQL(str(int(number)))
    is_it = {"number": names["number"], "uuid": sql.SQL(literal(str(uuid)))}
    names["here"] = sql.SQL(_HERE).format(**is_it, marked=sql.SQL("AND dropped_at IS NULL"))
    names["here_or_dropped"] = sql.SQL(_HERE).format(**is_it, marked=sql.SQL(""))
    names["view"] = sql.Identifier(SCHEMA, jobset_id if jobset_id is not None else f"view${number}")
    return names


def bind(file: str, number: int, jobset_id: str | None, uuid: UUID) -> dict[str, sql.Composed]:
    """Give the queries of one file for jobset ``number``."""
    names = identifiers(number, jobset_id, uuid)
    return {name: sql.SQL(text).format(**names) for name, text in load(file).items()}
