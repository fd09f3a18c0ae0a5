"""The peers that the benchmarks run beside us, each in a module of its own that few machines can import.

A module has `SETTINGS` (how the peer is set up, in words, after its own documentation on throughput) and a
function for each row that it takes part in.
"""

#: The rows that each peer takes part in.
PEERS: dict[str, frozenset[str]] = {
    "processes": frozenset({"submit", "map", "latency", "sleeps"}),
}
