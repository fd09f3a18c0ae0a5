"""Runs that nobody will ever end: somebody has deleted their rows, or the server has lost its last commits."""

from __future__ import annotations

from collections.abc import Sequence

from workerbee.store.answers import Run
from workerbee.store.queries import Queries, array
from workerbee.store.writer import Writer
from workerbee.wire.job import Outcome


class Losses:
    """The lost runs of one jobset."""

    def __init__(self, queries: Queries, writer: Writer) -> None:
        self._queries = queries
        self._writer = writer

    def lost(self, runs: Sequence[Run]) -> list[Run]:
        """Find those of these (job, run) that have not ended and never will."""
        jobs = [job for job, _ in runs]
        params = {"jobs": array(jobs), "runs": array(run for _, run in runs), "first": min(jobs), "last": max(jobs)}
        return [(job, run) for job, run in self._queries.run("lost", params)]

    def give_up(self, failures: Sequence[Outcome], cause: bytes) -> int:
        """Let these runs, that were found to be lost, end as failed. Returns for how many that was so."""
        jobs = [failure.job for failure in failures]
        params = {
            "jobs": "\n".join(map(str, jobs)),
            "runs": "\n".join(str(failure.run) for failure in failures),
            "records": "\n".join(failure.data.decode() for failure in failures),
            "macs": "\n".join((failure.mac or b"").hex() for failure in failures),
            "first": min(jobs),
            "last": max(jobs),
        }
        [(n, _)] = self._queries.run("give_up", params | {"cause": cause, "writer": self._writer.name()})
        return int(n)
