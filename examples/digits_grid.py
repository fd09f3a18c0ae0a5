"""A grid search by executor.map: what `workerbee demo` does, on a quarter of the digits.

    python examples/digits_grid.py

Interrupt it and run it again: only what is missing is computed.
"""

from itertools import product

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC

from workerbee import WorkerbeeExecutor

GRID = {
    "C": [0.1, 0.3, 1, 3, 10, 30],
    "gamma": [0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5],
    "kernel": ["poly", "rbf"],
}


def data():
    images, digits = load_digits(return_X_y=True)
    return images[::4] / 16, digits[::4]


def evaluate(parameters):
    images, digits = data()
    return float(cross_val_score(SVC(**parameters), images, digits, cv=3).mean())


if __name__ == "__main__":
    candidates = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    with WorkerbeeExecutor(jobset_id="digits_grid") as executor:
        scores = list(executor.map(evaluate, candidates))
    best = candidates[scores.index(max(scores))]
    print(f"best of {len(candidates)}: {best}, with an accuracy of {max(scores):.4f}")

    assert best == GridSearchCV(SVC(), GRID, cv=3).fit(*data()).best_params_
    print("GridSearchCV finds the same")
