"""What an error of the database means: whether it passes, and if it doesn't, whose end it is.

Each SQLSTATE is sorted into one kind (``tests/store/test_trouble.py`` lists them all). The server's messages are in
whatever language it speaks, so nothing is read out of them where there is a SQLSTATE.
"""

from __future__ import annotations

from enum import Enum

import psycopg2

from workerbee.errors import DatabaseUnavailableError


class Trouble(Enum):
    """The kinds of errors, by what to do about them."""

    PASSING = "wait and try again: the server, the way to it, or others are in the way"
    UNSTORABLE = "do without these values: another try changes nothing, but others may be stored"
    DROPPED = "end this jobset's work: its tables are gone"
    HOPELESS = "say so and end: no such database or user, a wrong password"
    UNKNOWN = "try for some minutes, then say so: nobody foresaw it"


# The longest beginning that fits decides.
_KINDS = {
    Trouble.PASSING: (
        "08",  # the connection
        "0A000",  # a plan that was prepared before somebody altered a table
        "25006",  # read-only: a standby that is about to be promoted
        "25P02",  # left over from a statement that failed
        "25P03",  # the server ended a transaction or a session that had lasted too long
        "25P04",
        "26",  # a pooler has deallocated what was prepared
        "40",  # serialization, deadlocks
        "42P05",  # a pooler has mixed up what was prepared
        "53",  # resources
        "55006",  # in use
        "55P03",  # locked
        "57",  # shutdown, restart, cancelled
        "58",  # the system below
        "72",  # the snapshot is too old
    ),
    Trouble.UNSTORABLE: ("22", "23", "54"),
    Trouble.DROPPED: ("3F000", "42P01", "42704"),
    Trouble.HOPELESS: ("28", "3D", "57P04"),
}
_KIND_OF = {start: kind for kind, starts in _KINDS.items() for start in starts}


def kind_of(sqlstate: str) -> Trouble:
    """Give the kind of a SQLSTATE."""
    for length in (5, 2):
        kind = _KIND_OF.get(sqlstate[:length])
        if kind is not None:
            return kind
    return Trouble.UNKNOWN


def sort(error: BaseException) -> Trouble | None:
    """Give the kind of an error of the database; None of any other."""
    if isinstance(error, DatabaseUnavailableError):
        return Trouble.HOPELESS if error.hopeless else Trouble.PASSING
    if not isinstance(error, psycopg2.Error):
        return None
    if error.pgcode is not None:
        return kind_of(error.pgcode)
    if isinstance(error, psycopg2.DataError):
        return Trouble.UNSTORABLE
    # Without a SQLSTATE it comes from the connection, unless the driver was used wrongly.
    return Trouble.UNKNOWN if isinstance(error, psycopg2.ProgrammingError) else Trouble.PASSING


def is_passing(error: BaseException) -> bool:
    """Tell whether to try again: the server or the way to it is in trouble, and the query is not at fault."""
    return sort(error) is Trouble.PASSING


def is_dropped(error: BaseException) -> bool:
    """Tell whether the query met tables that are no longer there: the jobset was dropped."""
    return sort(error) is Trouble.DROPPED


def is_unstorable(error: BaseException) -> bool:
    """Tell whether the values were refused: another try changes nothing, but others may be stored without them."""
    return sort(error) is Trouble.UNSTORABLE


def is_forbidden(error: BaseException) -> bool:
    """Tell whether this user lacks a right."""
    return isinstance(error, psycopg2.Error) and error.pgcode == "42501"


def is_standby(error: BaseException) -> bool:
    """Tell whether the server takes no changes now."""
    return isinstance(error, psycopg2.Error) and error.pgcode == "25006"


def is_too_slow(error: BaseException) -> bool:
    """Tell whether the server ended a query that took longer than it may."""
    return isinstance(error, psycopg2.Error) and error.pgcode == "57014"
