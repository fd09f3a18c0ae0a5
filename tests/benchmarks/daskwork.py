"""What Dask is to compute in the benchmarks, with whatever scheduler is set."""

from __future__ import annotations

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd


def array(n: int) -> float:
    """A product of square matrices, in chunks of 2 MB."""
    x = da.random.default_rng(0).random((n, n), chunks=(500, 500))
    return float((x @ x.T).mean().compute())


def dataframe(n: int) -> float:
    """A shuffle and a grouping of ``n`` rows in 16 partitions."""
    random = np.random.default_rng(0)
    columns = {"key": random.integers(0, 1000, n), "value": random.random(n), "time": random.permutation(n)}
    frame = dd.from_pandas(pd.DataFrame(columns), npartitions=16)
    return float(frame.set_index("time").groupby("key").value.mean().compute().sum())


def delayed(n: int) -> int:
    """Tasks that do nearly nothing."""
    return sum(dask.compute(*[dask.delayed(abs, pure=False)(i) for i in range(n)]))
