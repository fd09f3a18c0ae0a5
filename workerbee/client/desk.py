"""The desk of one of a client's threads: the connection that it alone uses, and what it needs beside it."""

from __future__ import annotations

import logging
from typing import NamedTuple
from uuid import UUID

from workerbee.store import Catalogue, ClientStore, Connection
from workerbee.wire.job import Jobset
from workerbee.wire.signing import Signer


class Desk(NamedTuple):
    """A connection, the queries over it, the signer, and the ``writer`` whose counters changes are added to."""

    connection: Connection
    catalogue: Catalogue
    store: ClientStore
    jobset: Jobset
    signer: Signer
    writer: UUID
    log: logging.Logger

    @classmethod
    def at(cls, connection: Connection, jobset: Jobset, signer: Signer, writer: UUID, log: logging.Logger) -> Desk:
        """Make a desk of a connection."""
        store = ClientStore(connection, jobset, writer)
        return cls(connection, Catalogue(connection), store, jobset, signer, writer, log)

    def another(self, name: str) -> Desk:
        """Make a desk for another thread, whose connection the server knows by this ``name``."""
        return Desk.at(self.connection.another(f"workerbee {name}"), self.jobset, self.signer, self.writer, self.log)
