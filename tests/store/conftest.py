"""One database with the schema for all tests of the store; each has jobsets of its own in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers import Database, Server
from tests.store.hive import Hive
from workerbee.store import Connection, schema


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Database]:
    """A database for the tests of one file, with the schema in it."""
    database = server.new_database()
    connection = Connection(database.dsn)
    schema.ensure(connection)
    connection.close()
    yield database
    database.drop()


@pytest.fixture
def connect(shared: Database) -> Iterator[Callable[[], Connection]]:
    """Makes connections to the shared database that end with the test."""
    made: list[Connection] = []

    def new() -> Connection:
        made.append(Connection(shared.dsn))
        return made[-1]

    yield new
    for connection in made:
        connection.close()


@pytest.fixture(scope="module")
def line(shared: Database) -> Iterator[Connection]:
    """The connection that most tests of a file share."""
    connection = Connection(shared.dsn)
    yield connection
    connection.close()


@pytest.fixture
def hive(line: Connection) -> Hive:
    """A new durable jobset."""
    return Hive(line)
