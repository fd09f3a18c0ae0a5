"""The rows of the table: what is measured of whom, and the bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.benchmarks.peers import PEERS
from tests.benchmarks.results import Bar, Results, at_least, at_most
from tests.benchmarks.stage import DISK, Contender

OURS = "workerbee"
PROCESSES = "processes"


@dataclass(frozen=True)
class Row:
    """One row; ``figure`` is the one that the contenders are compared by.

    ``prepare`` fills one database, which the contenders then share, or have ``cloned`` copies of; without
    it each run has an empty one.
    A row ``in_pairs`` compares us with ourselves: in more repetitions, in memory.
    """

    name: str
    title: str
    n: int
    figure: str
    judge: Callable[[Results], Iterator[Bar]]
    contenders: Mapping[str, Contender]
    prepare: Contender | None = None
    cloned: bool = False
    in_pairs: bool = False
    where: str = DISK
    quick_n: int = 100

    def with_peers(self, peers: tuple[str, ...]) -> dict[str, Contender]:
        """Our contenders, and those peers that take part in this row."""
        theirs = {p: Contender(f"tests.benchmarks.peers.{p}", self.name) for p in peers if self.name in PEERS[p]}
        return {**self.contenders, **theirs}


def _ours(module: str, function: str, **options: object) -> Contender:
    return Contender(f"tests.benchmarks.ours.{module}", function, options)


def _submit(results: Results) -> Iterator[Bar]:
    ours = results.median(OURS, "jobs_per_s")
    for who in results.others(OURS):
        limit = 2.5 if who == PROCESSES else 1.0
        yield at_least(f"÷ {who}", ours / results.median(who, "jobs_per_s"), limit, " x")


def _map(results: Results) -> Iterator[Bar]:
    yield at_least("items/s", results.median(OURS, "items_per_s"), 50_000)


def _latency(results: Results) -> Iterator[Bar]:
    yield at_most("p50 over two raw commits", results.median(OURS, "over_two_commits_ms"), 1.7, "ms")
    if "ray" in results.samples:
        yield at_most("p50 (÷ ray's)", results.median(OURS, "p50_ms") / results.median("ray", "p50_ms"), 1.0, " x")


def _sleeps(results: Results) -> Iterator[Bar]:
    yield at_least("of ideal", 100 * results.median(OURS, "share_of_ideal"), 97, "%")


def _reattach(results: Results) -> Iterator[Bar]:
    yield at_most("seconds", results.median(OURS, "seconds"), 3.0, "s")


def _start(results: Results) -> Iterator[Bar]:
    yield at_most("import", results.median(OURS, "import_s"), 0.1, "s")
    yield at_most("warm start to first result", results.median(OURS, "start_s"), 0.8, "s")


ROWS = {
    row.name: row
    for row in (
        Row(
            "submit",
            "no-op dict jobs by submit, fresh durable jobset",
            10_000,
            "jobs_per_s",
            _submit,
            {OURS: _ours("executor", "submit")},
        ),
        Row(
            "map",
            "map(chunksize=100), temporary jobset",
            200_000,
            "items_per_s",
            _map,
            {OURS: _ours("executor", "map")},
            quick_n=2000,
        ),
        Row(
            "latency",
            "idle round trips",
            200,
            "p50_ms",
            _latency,
            {OURS: _ours("executor", "latency")},
            quick_n=10,
        ),
        Row(
            "reattach",
            "finished jobs, attached to again",
            100_000,
            "seconds",
            _reattach,
            {OURS: _ours("executor", "reattach")},
            prepare=_ours("executor", "finish"),
        ),
        Row(
            "sleeps",
            "jobs of 50 ms on two runners",
            200,
            "share_of_ideal",
            _sleeps,
            {OURS: _ours("executor", "sleeps")},
            quick_n=10,
        ),
        Row(
            "start",
            "import, and warm start to first result",
            1,
            "start_s",
            _start,
            {OURS: _ours("start", "start")},
            quick_n=1,
        ),
    )
}
