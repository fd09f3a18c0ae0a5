"""xarray and Dask on bees: a monthly climatology of twenty years of weather, chunk by chunk.

    python examples/dask_climate.py

Each job takes a few of Dask's tasks: chunksize makes fewer and longer jobs where tasks are short.
"""

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from workerbee import WorkerbeeExecutor


def weather():
    """Twenty years of daily temperatures at 200 places: seasons, and noise."""
    days = pd.date_range("2001-01-01", "2020-12-31")
    seasons = 10 - 8 * np.cos(2 * np.pi * (days.day_of_year.to_numpy() - 15) / 365.25)
    noise = da.random.default_rng(0).normal(0, 3, size=(len(days), 200), chunks=(2000, 200))
    return xr.DataArray(seasons[:, None] + noise, coords={"day": days}, dims=("day", "place"), name="temperature")


if __name__ == "__main__":
    climate = weather().groupby("day.month").mean(("day", "place"))
    with WorkerbeeExecutor() as executor, dask.config.set(scheduler=executor, chunksize=4):
        on_bees = climate.compute()
    print(on_bees.to_series().round(1).to_string())

    xr.testing.assert_allclose(on_bees, climate.compute(scheduler="threads"))
    print("Dask's threads find the same")
