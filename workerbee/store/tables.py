"""The tables of one jobset: made with it, and brought to this version where a former one has made them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import psycopg2
from psycopg2 import sql

from workerbee.errors import DatabaseUnavailableError, JobsetIdError
from workerbee.store import queries
from workerbee.store.connection import Connection, Row
from workerbee.store.patience import jitter, one_line
from workerbee.store.trouble import is_passing
from workerbee.wire.causes import cause_of_record

#: The version of a jobset's own tables.
LAYOUT = 2
#: Failures in one statement of an upgrade.
PAGE_FAILURES = 1000


class _Place(NamedTuple):
    """A jobset whose tables a former version has made."""

    number: int
    id: str | None
    uuid: UUID


def make(connection: Connection, number: int, jobset_id: str | None, uuid: UUID) -> None:
    """Make the tables and the view of a new jobset, in the caller's transaction.

    Raises JobsetIdError if something else has the name of the view.
    """
    bound = queries.bind("jobset.sql", number, jobset_id, uuid)
    for (kind,) in connection.run(bound["name_taken"], {"name": jobset_id or f"view${number}"}):
        raise JobsetIdError(jobset_id, kind)
    connection.run(bound["make_tables"])
    connection.run("SET LOCAL lock_timeout = '1s'")
    connection.run(bound["drop_view"])
    _finish(connection, bound)


def _finish(connection: Connection, bound: Mapping[str, sql.Composed]) -> None:
    """Add what tables of either version lack."""
    connection.run(bound["add_tables"])
    connection.run(bound["make_view"])


def upgrade_all(connection: Connection) -> None:
    """Bring the tables of all jobsets that this user owns to this version, each jobset in transactions of its own.

    Whoever is killed leaves the rest to the next, and several may do it at once. What can't be upgraded is named and
    left as it is. Raises DatabaseUnavailableError where tables are in use: it can be tried again.
    """
    hopeless: set[int] = set()
    while places := [place for place in _outdated(connection) if place.number not in hopeless]:
        jitter.shuffle(places)
        n_waiting = 0
        for place in places:
            try:
                n_waiting += not _Upgrade(connection, place).run()
            except psycopg2.Error as error:
                if is_passing(error):
                    raise
                hopeless.add(place.number)
                name, reason = place.id or f"number {place.number}", one_line(error)
                logging.getLogger("workerbee").warning("the jobset %s can't be upgraded: %s", name, reason)
        if n_waiting == len(places):
            raise DatabaseUnavailableError(
                f"{n_waiting} jobsets are still to be upgraded, and their tables are in use by others, such as "
                f"{places[0].id or places[0].number}: end what reads them for long, or wait for it"
            )


def _outdated(connection: Connection) -> list[_Place]:
    rows = connection.run(queries.shared("catalogue.sql")["outdated_jobsets"], {"layout": LAYOUT})
    return [_Place(number, jobset_id, UUID(uuid)) for number, jobset_id, uuid in rows]


class _Upgrade:
    """Upgrades one jobset. Each of its steps may be done again."""

    def __init__(self, connection: Connection, place: _Place) -> None:
        self._connection = connection
        self._place = place
        self._bound = queries.bind("jobset.sql", *place)

    def run(self) -> bool:
        """Upgrade the jobset; False if its tables are in use, and nothing was done."""
        try:
            with self._connection.transaction():
                if not self._is_held():
                    return True
                self._run("add_columns")
                _finish(self._connection, self._bound)
                self._run("grant_text")
            self._find_causes()
            with self._connection.transaction():
                if self._is_held():
                    self._move_words()
                    self._run("count_revived")
                    self._shared("is_upgraded")
        except queries.LOCKED:
            return False
        return True

    def _run(self, name: str, **params: Any) -> list[Row]:
        return self._connection.run(self._bound[name], params or None)

    def _shared(self, name: str) -> list[Row]:
        params = {"number": self._place.number, "uuid": str(self._place.uuid), "layout": LAYOUT}
        return self._connection.run(queries.shared("catalogue.sql")[name], params)

    def _is_held(self) -> bool:
        """Take the upgrade on, so that nobody else does it; False if it is done already."""
        # Whoever waits for a lock has all others wait behind it, so that it is not to wait for long.
        self._connection.run("SET LOCAL lock_timeout = '500ms'")
        return bool(self._shared("hold_outdated"))

    def _find_causes(self) -> None:
        """Say of each failure what it has in common with others."""
        after = 0
        while rows := self._run("uncaused", after=after, n=PAGE_FAILURES):
            after = rows[-1][0]
            columns = {
                "jobs": queries.array(job for job, *_ in rows),
                "runs": queries.array(run for _, run, _ in rows),
                "causes": [cause_of_record(record).digest for *_, record in rows],
            }
            self._run("set_causes", **columns)

    def _move_words(self) -> None:
        """Keep what bees said where it is kept now."""
        said: dict[str, dict[str, Any]] = {}
        for run, bee, function, data in self._run("former_words"):
            words = said.setdefault(bee, {"host": "?", "refuses": {}, "doubts": []})
            text = bytes(data).decode(errors="replace").replace("\0", "")
            if run == 0:
                words["host"] = text
            elif run == 1:
                words["refuses"][function] = _reason(text)
            else:
                words["doubts"].append(function)
        for bee, words in said.items():
            refuses, doubts = json.dumps(words["refuses"]), queries.array(words["doubts"])
            self._run("keep_words", bee=bee, host=words["host"], refuses=refuses, doubts=doubts)


def _reason(text: str) -> str:
    """Tell why a bee of the former version refused a function."""
    try:
        reason = str(json.loads(text)["reason"])
    except (ValueError, KeyError, TypeError):
        reason = text
    return storable(reason)


def storable(text: str) -> str:
    """Change a text into one that PostgreSQL can hold, in text and in jsonb."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def drop(connection: Connection, number: int, jobset_id: str | None, uuid: UUID) -> None:
    """Drop the tables of a jobset, and its view, in the caller's transaction."""
    names = queries.identifiers(number, jobset_id, uuid)
    # CASCADE takes the view along, whatever name it has.
    tables = sql.SQL(", ").join(names[table] for table in queries.TABLES)
    connection.run(sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(tables))
