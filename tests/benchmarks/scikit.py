"""What scikit-learn is to fit in the benchmarks, with whatever backend of joblib's is set: 100 MB at 100,000 rows."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

FEATURES = 125


def _data(n: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    x = np.random.default_rng(0).normal(size=(n, FEATURES))
    return x, x[:, 0] + x[:, 1] ** 2


def search(n: int) -> None:
    """A search through a grid of 6 points, each fitted 3 times."""
    x, y = _data(n)
    GridSearchCV(Ridge(), {"alpha": [0.01, 0.1, 1, 10, 100, 1000]}, cv=3, n_jobs=2).fit(x, y)


def forest(n: int) -> None:
    """A forest of 8 small trees."""
    x, y = _data(n)
    RandomForestClassifier(8, max_depth=3, max_features=4, n_jobs=2, random_state=0).fit(x, y > 0.5)
