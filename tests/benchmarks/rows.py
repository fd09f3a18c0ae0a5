"""The rows of the table: what is measured of whom, and the bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.peers import PEERS
from tests.benchmarks.results import Bar, Results, at_least, at_most
from tests.benchmarks.stage import DISK, MEMORY, Contender

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
    repetitions: int = 5
    quick_n: int = 100

    @property
    def where(self) -> str:
        return MEMORY if self.in_pairs else DISK

    def with_peers(self, peers: tuple[str, ...]) -> dict[str, Contender]:
        """Our contenders, and those peers that take part in this row."""
        theirs = {p: Contender(f"tests.benchmarks.peers.{p}", self.name) for p in peers if self.name in PEERS[p]}
        return {**self.contenders, **theirs}


def _ours(module: str, function: str, **options: object) -> Contender:
    return Contender(f"tests.benchmarks.ours.{module}", function, options)


def _submit(results: Results) -> Iterator[Bar]:
    rates = {who: results.median(who, "jobs_per_s") for who in results.samples}
    ours = rates.pop(OURS)
    if PROCESSES in rates:
        yield at_least(f"÷ {PROCESSES}", ours / rates.pop(PROCESSES), 2.5, " x")
    if rates:
        fastest = max(rates, key=rates.__getitem__)
        yield at_least(f"÷ {fastest}, the fastest peer", ours / rates[fastest], 1.0, " x")


def _map(results: Results) -> Iterator[Bar]:
    yield at_least("items/s", results.median(OURS, "items_per_s"), 50_000)


def _latency(results: Results) -> Iterator[Bar]:
    yield at_most("p50 over two raw commits", results.median(OURS, "over_two_commits_ms"), 1.7, " ms")
    if "ray" in results.samples:
        yield at_most("p50 (÷ ray's)", results.median(OURS, "p50_ms") / results.median("ray", "p50_ms"), 1.0, " x")


def _sleeps(results: Results) -> Iterator[Bar]:
    yield at_least("of ideal", 100 * results.median(OURS, "share_of_ideal"), 97, " %")


def _arrays(results: Results) -> Iterator[Bar]:
    if PROCESSES in results.samples:
        ours, theirs = (results.median(who, "mb_per_s") for who in (OURS, PROCESSES))
        yield at_least(f"÷ {PROCESSES}", ours / theirs, 1.5, " x")


def _durable_arrays(results: Results) -> Iterator[Bar]:
    for who in results.others("COPY"):
        ratio = results.ratio(who, "COPY", "mb_per_s")
        yield at_least(f"{who} ÷ COPY", ratio.median, 0.6, ratio=ratio)


def _times(*limits: tuple[str, float]) -> Callable[[Results], Iterator[Bar]]:
    """Of theirs that our seconds may take at most, by whom."""

    def judge(results: Results) -> Iterator[Bar]:
        for who, limit in limits:
            if who in results.samples:
                times = results.median(OURS, "seconds") / results.median(who, "seconds")
                yield at_most(f"time ÷ {who}'s", times, limit, " x")

    return judge


def _reattach(results: Results) -> Iterator[Bar]:
    yield at_most("seconds", results.median(OURS, "seconds"), 3.0, " s")


def _memory(results: Results) -> Iterator[Bar]:
    yield at_most("client's growth", results.median(OURS, "client_growth"), 1.1, " x")
    yield at_most("bee's growth", results.median(OURS, "bee_growth"), 1.1, " x")


def _pair(of: str, to: str, limit: float) -> Callable[[Results], Iterator[Bar]]:
    def judge(results: Results) -> Iterator[Bar]:
        for who in results.others(to) if not of else [of]:
            ratio = results.ratio(who, to, "jobs_per_s")
            yield at_least(f"{who} ÷ {to}", ratio.median, limit, ratio=ratio)

    return judge


def _bees(results: Results) -> Iterator[Bar]:
    best = max(results.samples, key=lambda who: results.median(who, "jobs_per_s"))
    return _pair("64 bees", best, 0.8)(results)


def _idle(results: Results) -> Iterator[Bar]:
    yield at_most("queries/s each", results.median(OURS, "queries_per_s"), 0.5)
    yield at_most("writes but heartbeats", results.median(OURS, "other_writes"), 0)


def _stragglers(results: Results) -> Iterator[Bar]:
    everyone = [figures for samples in results.samples.values() for figures in samples]
    yield at_most("makespan ÷ ideal", median(f["over_ideal"] for f in everyone), 1.15, " x")
    yield at_most("extra runs", 100 * median(f["extra_runs"] for f in everyone), 5, " %")


def _wal(results: Results) -> Iterator[Bar]:
    for who, limit in (("temporary", 400), ("durable", 650)):
        yield at_most(f"{who}: WAL a job", results.median(who, "wal_bytes"), limit, " B")
        yield at_most(f"{who}: dead rows a job", results.median(who, "dead_rows"), 0.05)


def _rescue(results: Results) -> Iterator[Bar]:
    yield at_most("p50", results.median(OURS, "p50_s"), 1.0, " s")
    yield at_most("p99", results.median(OURS, "p99_s"), 3.0, " s")


def _start(results: Results) -> Iterator[Bar]:
    yield at_most("import workerbee", results.median(OURS, "import_s"), 0.1, " s")
    yield at_most("warm start to first result", results.median(OURS, "start_s"), 0.8, " s")


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
            "results",
            "results of 8 MB (NumPy), temporary jobset",
            48,
            "mb_per_s",
            _arrays,
            {OURS: _ours("executor", "results")},
            quick_n=4,
        ),
        Row(
            "arguments",
            "arguments of 8 MB (NumPy), temporary jobset",
            48,
            "mb_per_s",
            _arrays,
            {OURS: _ours("executor", "arguments")},
            quick_n=4,
        ),
        Row(
            "durable_arrays",
            "arrays of 8 MB (NumPy) in a durable jobset, in files of one, and copied by COPY in its binary format",
            24,
            "mb_per_s",
            _durable_arrays,
            {
                "results": _ours("executor", "durable_results"),
                "arguments": _ours("executor", "durable_arguments"),
                "results in files": _ours("executor", "durable_results", files=True),
                "arguments in files": _ours("executor", "durable_arguments", files=True),
                "COPY": _ours("storage", "copied"),
            },
            in_pairs=True,
            quick_n=4,
        ),
        Row(
            "dask_array",
            "Dask: (x @ x.T).mean() of so many columns, chunks of 2 MB",
            3000,
            "seconds",
            _times((PROCESSES, 1.0), ("dask", 1.0)),
            {OURS: _ours("executor", "dask", workload="array")},
            quick_n=1000,
        ),
        Row(
            "dask_frame",
            "Dask: set_index and groupby of so many rows, 16 partitions",
            1_000_000,
            "seconds",
            _times((PROCESSES, 1.0), ("dask", 1.0)),
            {OURS: _ours("executor", "dask", workload="dataframe")},
            quick_n=1000,
        ),
        Row(
            "dask_delayed",
            "Dask: tiny tasks, chunksize 1",
            2000,
            "seconds",
            _times(("loky", 1.0)),
            {OURS: _ours("executor", "dask", workload="delayed", chunksize=1)},
            quick_n=20,
        ),
        Row(
            "search",
            "scikit-learn: a search through a grid, of so many rows (1 kB each)",
            100_000,
            "seconds",
            _times(("joblib", 1 / 0.95)),
            {OURS: _ours("executor", "scikit", workload="search")},
            quick_n=1000,
        ),
        Row(
            "forest",
            "scikit-learn: a random forest, of so many rows (1 kB each)",
            100_000,
            "seconds",
            _times(("joblib", 1 / 0.95)),
            {OURS: _ours("executor", "scikit", workload="forest")},
            quick_n=1000,
        ),
        Row(
            "memory",
            "jobs from a generator, with a buffersize",
            1_000_000,
            "client_mb",
            _memory,
            {OURS: _ours("executor", "memory")},
            quick_n=1000,
        ),
        Row(
            "full",
            "no-op jobs into a jobset with 100 times as many finished ones, and into an empty one",
            10_000,
            "jobs_per_s",
            _pair("full", "empty", 0.95),
            {"full": _ours("storage", "into", jobset_id="full", warm=2), "empty": _ours("storage", "into", warm=2)},
            prepare=_ours("storage", "fill"),
            in_pairs=True,
        ),
        Row(
            "snapshot",
            "no-op jobs beside another session's old snapshot",
            20_000,
            "jobs_per_s",
            _pair("", "without", 0.9),
            {
                "read-only": _ours("storage", "beside_snapshot", begin="SELECT 1"),
                "without": _ours("storage", "beside_snapshot"),
                "with an xid": _ours("storage", "beside_snapshot", begin="SELECT txid_current()"),
            },
            in_pairs=True,
        ),
        Row(
            "watched",
            "no-op jobs into a jobset that the page shows, and into one that nobody looks at",
            20_000,
            "jobs_per_s",
            _pair("", "unwatched", 0.95),
            {
                "one tab": _ours("watched", "into", tabs=1),
                "unwatched": _ours("watched", "into", tabs=0),
                "20 tabs": _ours("watched", "into", tabs=20),
            },
            in_pairs=True,
        ),
        Row(
            "bees",
            "no-op jobs queued first, by the number of one-runner bees",
            200_000,
            "jobs_per_s",
            _bees,
            {f"{n} bees": _ours("bees", "drain", bees=n) for n in (1, 2, 4, 16, 64)},
            prepare=_ours("bees", "queue"),
            cloned=True,
            in_pairs=True,
            quick_n=4000,
        ),
        Row(
            "idle",
            "bees with nothing to do",
            64,
            "queries_per_s",
            _idle,
            {OURS: _ours("bees", "idle")},
            repetitions=2,
            quick_n=4,
        ),
        Row(
            "stragglers",
            "sleeps of 0.25 s on four bees, one 10 times slower, one frozen on the way",
            400,
            "over_ideal",
            _stragglers,
            {f"seed {seed}": _ours("bees", "stragglers", seed=seed) for seed in range(1, 11)},
            repetitions=1,
            quick_n=20,
        ),
        Row(
            "rescue",
            "kills of a bee, until its job runs elsewhere",
            100,
            "p50_s",
            _rescue,
            {OURS: _ours("bees", "rescue")},
            repetitions=1,
            quick_n=2,
        ),
        Row(
            "wal",
            "no-op jobs at saturation, full-page images off",
            50_000,
            "wal_bytes",
            _wal,
            {
                "temporary": _ours("storage", "wal", temporary=True),
                "durable": _ours("storage", "wal", temporary=False),
            },
            quick_n=1000,
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
