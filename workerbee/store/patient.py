"""A connection that waits outages out by itself, for who has no rounds of its own to begin anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg2
from psycopg2 import sql

from workerbee.errors import DatabaseUnavailableError
from workerbee.store.connection import Connection, Query, Row
from workerbee.store.patience import retrying
from workerbee.store.statement import Statement

T = TypeVar("T")


class PatientConnection(Connection):
    """A connection each of whose queries waits outages out, for ``patience`` seconds (None: for ever)."""

    def __init__(self, dsn: str, *, application: str, patience: float | None, log: logging.Logger) -> None:
        super().__init__(dsn, application=application)
        self._outage = patience
        self._log = log
        self._closed = False

    def run(self, query: Query, params: Mapping[str, Any] | None = None) -> list[Row]:
        """As `Connection.run`, tried again for as long as there is patience."""
        return self._patiently(lambda: super(PatientConnection, self).run(query, params))

    def carry(self, query: Statement, params: Mapping[str, Any]) -> list[Row]:
        return self._patiently(lambda: super(PatientConnection, self).carry(query, params))

    def statement(self, query: sql.Composable) -> Statement:
        return self._patiently(lambda: super(PatientConnection, self).statement(query))

    def close(self) -> None:
        """Close it for good, also while another thread waits for an answer, which then waits for no other one."""
        self._closed = True
        self.drop()

    def _patiently(self, action: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return action()
            except (psycopg2.Error, DatabaseUnavailableError) as error:
                if self._closed:
                    raise DatabaseUnavailableError("the connection was closed", hopeless=True) from error
                raise

        return retrying(attempt, patience=self._outage, log=self._log)
