"""Which server a connection leads to, and whether another has taken its place, which may lack the last commits.

A direct connection ends with its server. But behind a pooler the next transaction may be another server's, and a
standby keeps its connections when it is promoted. There each transaction begins with a guard, which fails unless the
server is as it was when it was asked for its history.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import psycopg2

from workerbee.errors import DatabaseUnavailableError

# When the server was started, in microseconds, and whether it is a standby. These are asked for before a safe
# search_path is set, so that the operator is qualified.
_STARTED = (
    "(pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000)"
    "::pg_catalog.int8"
)
_STATE = f"SELECT {_STARTED}, pg_catalog.pg_is_in_recovery()"
# The cluster, and how often a standby or a backup of it has been promoted. Some services keep that to themselves.
_HISTORY = (
    "SELECT pg_catalog.concat((pg_catalog.pg_control_system()).system_identifier, ' ',"
    " pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))"
)
# The logarithm of zero has an SQLSTATE of its own (2201E), which no other query of ours raises.
_GUARD = (
    "SELECT pg_catalog.ln(({started} OPERATOR(pg_catalog.=) {then}"
    " AND pg_catalog.pg_is_in_recovery() OPERATOR(pg_catalog.=) {standby})::pg_catalog.int4::pg_catalog.float8); "
)


class Lineage:
    """The servers that one connection has led to, one after the other."""

    def __init__(self) -> None:
        self._history: str | None = None  # of the server that was reached last, and told it
        self.successions = 0  # how often another server has taken its place
        self.succeeded_at = -math.inf  # when it did so last
        self.guard = ""  # what each transaction begins with

    def read(self, ask: Callable[[str], list[tuple[Any, ...]]], *, is_direct: bool) -> str | None:
        """Ask a server that was just reached for its history; None: it doesn't tell. Raises what ``ask`` does."""
        [(started, is_standby)] = ask(_STATE)
        self.guard = (
            "" if is_direct and not is_standby else _GUARD.format(started=_STARTED, then=started, standby=is_standby)
        )
        try:
            [(history,)] = ask(_HISTORY)
        except psycopg2.Error as error:
            if error.pgcode is None:
                raise
            return None
        return str(history)

    def compare(self, history: str | None) -> None:
        """Raise DatabaseUnavailableError, once, if a server is reached that may lack what the one before has had.

        What was to be sent was made for that one: whoever meant to send it looks first at what is there.
        """
        former, self._history = self._history, history or self._history
        if former not in (None, self._history):
            self.successions += 1
            self.succeeded_at = time.monotonic()
            raise DatabaseUnavailableError(
                "another server has taken the place of PostgreSQL as it was (a failover, a restore); its last commits "
                "may be lost"
            )
