"""Connections of those who only look, in threads of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from workerbee.errors import JobsetNotFoundError
from workerbee.server import Server
from workerbee.store import Connection, PatientConnection, is_dropped
from workerbee.wire.job import Jobset

_READER = "workerbee reader"


@contextmanager
def until_dropped(jobset_id: str) -> Iterator[None]:
    """Raises JobsetNotFoundError in place of what the database says of tables that are gone."""
    try:
        yield
    except Exception as error:
        if not is_dropped(error):
            raise
        raise JobsetNotFoundError(jobset_id, dropped=True) from None


@contextmanager
def reading(
    server: Server, jobset: Jobset, log: logging.Logger, *, outage: float | None, patience: float | None
) -> Iterator[Connection]:
    """Open a connection on which an outage is waited out for so many seconds (None: for ever).

    With ``patience``, each query has so many seconds instead. Raises JobsetNotFoundError if the jobset is dropped.
    """
    with server.reopened() as found:
        connection: Connection
        if patience is None:
            connection = PatientConnection(found.dsn, application=_READER, patience=outage, log=log)
        else:
            connection = Connection(found.dsn, application=_READER)
            connection.patience = patience
        try:
            with until_dropped(jobset.name):
                yield connection
        finally:
            connection.close()
