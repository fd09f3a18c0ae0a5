"""One executor for all tests of a library that don't end it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Server
from workerbee import WorkerbeeExecutor


@pytest.fixture(scope="module")
def executor(server: Server) -> Iterator[WorkerbeeExecutor]:
    """A temporary jobset with two runners; whoever kills one starts an executor of their own."""
    database = server.new_database()
    with WorkerbeeExecutor(2, dsn=database.dsn) as running:
        running.submit(int).result()  # the bee has its runners
        yield running
    database.drop()
