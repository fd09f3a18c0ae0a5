"""scikit-learn on bees: a search over random forests, by joblib's backend "workerbee".

    python examples/joblib_forest.py

Nothing but the parallel_config is ours; the trees of each forest grow in threads of its runner.
"""

from joblib import parallel_config
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

import workerbee.joblib  # noqa: F401 (makes the backend known to joblib)

GRID = {"max_depth": [1, 2, 4, None], "min_samples_leaf": [1, 4, 16]}

if __name__ == "__main__":
    search = GridSearchCV(RandomForestClassifier(10, random_state=0), GRID, cv=5)
    with parallel_config("workerbee"):
        search.fit(*load_wine(return_X_y=True))
    print(f"best: {search.best_params_}, with an accuracy of {search.best_score_:.4f}")

    found = search.cv_results_["mean_test_score"]
    alone = search.fit(*load_wine(return_X_y=True)).cv_results_["mean_test_score"]
    assert (found == alone).all()
    print("one process finds the same")
