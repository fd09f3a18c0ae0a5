"""What the tests of the store start from: jobsets of their own in the file's database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Database
from tests.store.hive import Hive
from workerbee.store import Connection


@pytest.fixture(scope="module")
def line(shared: Database) -> Iterator[Connection]:
    """The connection that most tests of a file share."""
    connection = Connection(shared.dsn)
    connection.patience = 15.0  # a statement that waits where it shouldn't soon fails its test
    yield connection
    connection.close()


@pytest.fixture
def hive(line: Connection) -> Hive:
    """A new durable jobset."""
    return Hive(line)
