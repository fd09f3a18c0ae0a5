"""What tests of rows that can't be have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Database, Server


@pytest.fixture
def lax(server: Server) -> Iterator[Database]:
    """A database that refuses no row: in production none does."""
    database = server.new_database()
    database.execute("DROP EVENT TRIGGER refuse_impossible_rows")
    yield database
    database.drop()
