"""The peers that the benchmarks run beside us, each in a module of its own that few machines can import.

A module has `SETTINGS` (how the peer is set up, in words, after its own documentation on throughput) and a
function for each row that it takes part in.
"""

_RATES = frozenset({"submit", "latency"})
_POOL = frozenset({"submit", "map", "latency", "sleeps", "results", "arguments"})

#: The rows that each peer takes part in.
PEERS = {
    "processes": _POOL,
    "loky": _POOL,
    "joblib": frozenset({"submit", "map"}),
    "dask": _RATES | {"sleeps"},
    "executorlib": _RATES | {"sleeps"},
    "parsl": _RATES | {"sleeps"},
    "ray": _RATES | {"sleeps"},
    "procrastinate": _RATES,
    "pgqueuer": _RATES,
    "oban": _RATES,
    "dbos": _RATES,
    "absurd": _RATES,
}
