"""An optimisation by ask and tell: candidates are asked for while others are still being measured.

    python examples/ask_and_tell.py

The optimiser is a small evolution strategy, in the place of optuna's, nevergrad's or scikit-optimize's, which have the
same two methods. Each candidate is a dict, so a measurement that was made is never made again: interrupt it and run it
again, and it goes through what it has in no time.
"""

import random
from concurrent.futures import FIRST_COMPLETED, wait

from workerbee import WorkerbeeExecutor

N_MEASUREMENTS = 200
AT_ONCE = 8


class Optimiser:
    """Asks for a candidate near the best so far, in steps that shrink while that doesn't help."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.best, self.candidate, self.step = float("inf"), {"x": 0.0, "y": 0.0}, 2.0

    def ask(self):
        return {name: round(value + self.random.gauss(0, self.step), 3) for name, value in self.candidate.items()}

    def tell(self, candidate, loss):
        self.step *= 1.2 if loss < self.best else 0.97
        if loss < self.best:
            self.best, self.candidate = loss, candidate


def measure(candidate):
    """Yours trains a model, or runs a beam line."""
    return (candidate["x"] - 3.0) ** 2 + (candidate["y"] + 1.0) ** 2 + 0.5


if __name__ == "__main__":
    optimiser = Optimiser(seed=1)
    asked = {}
    with WorkerbeeExecutor(jobset_id="ask_and_tell") as executor:
        for n in range(N_MEASUREMENTS):
            candidate = optimiser.ask()
            asked[executor.submit(measure, candidate)] = candidate
            if len(asked) < AT_ONCE and n < N_MEASUREMENTS - 1:
                continue
            done, _ = wait(asked, return_when=FIRST_COMPLETED)
            for future in done:
                optimiser.tell(asked.pop(future), future.result())
        for future, candidate in asked.items():
            optimiser.tell(candidate, future.result())

    print(f"the best of {N_MEASUREMENTS}: {optimiser.candidate}, with a loss of {optimiser.best:.3f}")
    assert optimiser.best < 0.6
    print("it is near the minimum")
