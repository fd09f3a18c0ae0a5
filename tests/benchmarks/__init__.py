"""The benchmarks: ours and our peers' in turn, in one run, on one throw-away server. See `__main__`."""
