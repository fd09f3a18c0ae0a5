"""A connection that says what its statements touch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workerbee.store import Connection
from workerbee.store.connection import Query, Row
from workerbee.store.statement import Statement


class Explaining(Connection):
    """A connection that notes the plans of the statements it runs, with the counts of their execution."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.plans: list[dict[str, Any]] = []
        self._named: set[str] = set()

    def run(self, query: Query, params: Mapping[str, Any] | None = None) -> list[Row]:
        if isinstance(query, Statement) and params is not None:
            self._explain(query, params)
            return super().run(query.text, params)
        return super().run(query, params)

    def _explain(self, query: Statement, params: Mapping[str, Any]) -> None:
        if query.name not in self._named:
            self._named.add(query.name)
            super().run(query.prepare)
        super().run("BEGIN")
        execute = query.execute.as_string(self._pg)
        try:
            [(explained,)] = super().run("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + execute, params)
        finally:
            super().run("ROLLBACK")
        self.plans.append(explained[0]["Plan"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def blocks(plan: dict[str, Any]) -> int:
    """How many pages the statement looked at, one as often as it did."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
