"""Libraries that take a map, a pool or an executor, each in a real use with a known answer."""

from __future__ import annotations

import adaptive
import emcee
import numpy as np
import pytest
from scipy.optimize import differential_evolution, rosen

from workerbee import WorkerbeeExecutor


def test_scipy_differential_evolution(executor: WorkerbeeExecutor) -> None:
    """``workers=executor.map`` finds the minimum of Rosenbrock's function, on the same path as without."""
    settings = {"bounds": [(-2, 2)] * 2, "rng": 1, "updating": "deferred", "maxiter": 60, "popsize": 8}
    found = differential_evolution(rosen, workers=executor.map, **settings)
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-4)
    alone = differential_evolution(rosen, **settings)
    np.testing.assert_array_equal(found.x, alone.x)
    assert found.nfev == alone.nfev


def log_normal(x: np.ndarray, mean: float, width: float) -> float:
    """The logarithm of a normal density, but for a constant."""
    return float(-0.5 * np.sum(((x - mean) / width) ** 2))


def test_emcee(executor: WorkerbeeExecutor) -> None:
    """``pool=executor`` samples a normal distribution, and draws what it draws without."""

    def chain(pool: WorkerbeeExecutor | None) -> np.ndarray:
        sampler = emcee.EnsembleSampler(16, 2, log_normal, args=(3.0, 0.5), pool=pool)
        state = np.random.RandomState(1).get_state()
        start = emcee.State(np.random.default_rng(0).normal(3, 1, (16, 2)), random_state=state)
        sampler.run_mcmc(start, 60)
        return sampler.get_chain(discard=20, flat=True)

    on_bees = chain(executor)
    np.testing.assert_array_equal(on_bees, chain(None))
    assert on_bees.mean() == pytest.approx(3, abs=0.15)
    assert on_bees.std() == pytest.approx(0.5, abs=0.15)


def test_adaptive(executor: WorkerbeeExecutor) -> None:
    """An adaptive integration by a Runner on bees gives the integral (it asks unknown executors for ``ntasks``)."""
    learner = adaptive.IntegratorLearner(lambda x: x**4 - 2 * x, bounds=(0, 3), tol=1e-8)
    adaptive.BlockingRunner(learner, executor=executor, ntasks=2, goal=lambda learner: learner.done())
    assert learner.igral == pytest.approx(3**5 / 5 - 9)
