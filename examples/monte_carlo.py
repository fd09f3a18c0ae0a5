"""Pi by throwing points at a square, in jobs that can be repeated: each has its own seed.

    python examples/monte_carlo.py

An experiment is a dict, so its result can be read in SQL, and asking for more seeds computes only those.
"""

import math

import numpy as np

from workerbee import WorkerbeeExecutor

N_POINTS = 500_000


def throw(experiment):
    points = np.random.default_rng(experiment["seed"]).random((experiment["n_points"], 2))
    return {"inside": int((np.hypot(*points.T) < 1).sum())}


if __name__ == "__main__":
    with WorkerbeeExecutor(jobset_id="monte_carlo") as executor:
        for n_seeds in (50, 100):  # the second time half of it is there already
            experiments = [{"seed": seed, "n_points": N_POINTS} for seed in range(n_seeds)]
            inside = sum(result["inside"] for result in executor.map(throw, experiments))
            n_points = n_seeds * N_POINTS
            pi = 4 * inside / n_points
            error = 4 * math.sqrt(math.pi / 4 * (1 - math.pi / 4) / n_points)
            print(f"{n_seeds} seeds: pi = {pi:.5f} ± {error:.5f}")
            assert abs(pi - math.pi) < 4 * error

        assert executor.progress().added == 100
        print("each of the 100 seeds was one job")
