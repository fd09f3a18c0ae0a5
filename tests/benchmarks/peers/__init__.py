"""The peers that the benchmarks run beside us, each in a module of its own that few machines can import.

A module has `SETTINGS` (how the peer is set up, in words, after its own documentation on throughput) and a
function for each row that it takes part in.
"""

_RATES = frozenset({"submit", "latency"})
_ARRAYS = frozenset({"results", "arguments"})
_DASK = frozenset({"dask_array", "dask_frame", "dask_delayed"})
_POOL = _RATES | _ARRAYS | {"map", "sleeps"}

#: The rows that each peer takes part in.
PEERS = {
    "processes": _POOL | _DASK,
    "loky": _POOL | _DASK,
    "joblib": _ARRAYS | {"submit", "map", "search", "forest"},
    "dask": _RATES | _ARRAYS | _DASK | {"sleeps"},
    "executorlib": _RATES | {"sleeps"},
    "parsl": _RATES | {"sleeps"},
    "ray": _RATES | _ARRAYS | {"sleeps"},
    "procrastinate": _RATES,
    "pgqueuer": _RATES,
    "oban": _RATES,
    "dbos": _RATES,
    "absurd": _RATES,
}
