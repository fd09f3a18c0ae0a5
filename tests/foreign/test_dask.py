"""Dask's own tests, as its wheel has them, with our executor as the default scheduler.

What passes with loky's ProcessPoolExecutor in that place has to pass with ours. (The standard library's
is no measure: without cloudpickle it fails dozens.) A normal run takes the first case of each
parametrised test; all of them, some 1,300, take the better part of an hour: ``pytest -m "foreign and soak"``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dask
import pytest

from tests.foreign.suite import run

ROOT = Path(__file__).parents[2]
SITE = Path(dask.__file__).parents[1]
SUITES = (
    "dask/tests/test_delayed.py",
    "dask/tests/test_base.py",
    "dask/bag/tests/test_bag.py",
    "dask/array/tests/test_reductions.py",
    "dask/dataframe/tests/test_arithmetics_reduction.py",
    "dask/dataframe/dask_expr/tests/test_reductions.py",
)
#: Left out of a normal run, and no other: thousands of tiny tasks each, where a shorter test of the kind is run.
LONG = (
    "dask/array/tests/test_reductions.py::test_reductions_2D",
    "dask/array/tests/test_reductions.py::test_reductions_2D_datetime",
    "dask/array/tests/test_reductions.py::test_reductions_2D_nans",
    "dask/array/tests/test_reductions.py::test_reductions_1D_datetime",
    "dask/array/tests/test_reductions.py::test_reductions_1D_nans",
    "dask/dataframe/tests/test_arithmetics_reduction.py::test_arithmetics_different_index",
    "dask/dataframe/tests/test_arithmetics_reduction.py::test_frame_series_arithmetic_methods",
    "dask/dataframe/tests/test_arithmetics_reduction.py::test_reductions",
    "dask/dataframe/tests/test_arithmetics_reduction.py::test_reductions_frame",
    "dask/dataframe/tests/test_arithmetics_reduction.py::test_reductions_frame_nan",
    # Gigabytes of tasks' arguments, which would all be stored.
    "dask/dataframe/dask_expr/tests/test_reductions.py::test_cat_value_counts_large_unknown_categories",
)

pytestmark = pytest.mark.foreign


def worse_than_loky(directory: Path, seconds: float, **chosen: Any) -> list[str]:
    """The chosen ones of Dask's tests that don't pass with our executor, in this time, though they do with loky's."""
    ours = outcomes(directory, "workerbee", seconds, **chosen)
    counted = Counter(test.partition("::")[0] for test in ours)
    assert all(counted[suite] > 10 for suite in SUITES), f"Dask's tests weren't run: {counted}"
    left = [test for test, outcome in ours.items() if outcome != "passed"]
    theirs = outcomes(directory, "loky", seconds, only=left) if left else {}
    return [test for test in left if theirs[test] == "passed"]


def outcomes(directory: Path, executor: str, seconds: float, **chosen: Any) -> dict[str, str]:
    """What becomes of Dask's tests with this executor; ``chosen`` is what the plugin reads."""
    written = directory / f"{executor}.json"
    settings = directory / "pytest.ini"
    settings.write_text("[pytest]\n")  # ours are not for Dask's tests
    options = ["-q", "-c", str(settings), f"--rootdir={SITE}", "-p", "no:cacheprovider", "--timeout=240", "--tb=short"]
    suites = [str(SITE / suite) for suite in SUITES]
    environment = {
        "PYTHONPATH": str(ROOT),
        "DASK_TESTS_EXECUTOR": executor,
        "DASK_TESTS_CHOSEN": json.dumps(chosen),
        "DASK_TESTS_OUTCOMES": str(written),
    }
    command = [sys.executable, "-m", "pytest", "-p", "tests.foreign.dask_plugin", *options, *suites]
    ended = run(command, seconds, environment, directory)
    assert ended.status in (0, 1), ended.output  # 1: some tests failed
    return json.loads(written.read_text())


@pytest.mark.timeout(1100)
def test_what_passes_with_loky_passes_with_ours(tmp_path: Path) -> None:
    """The first case of each of Dask's tests."""
    assert worse_than_loky(tmp_path, 500, first=True, without=LONG) == []


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_all_that_passes_with_loky_passes_with_ours(tmp_path: Path) -> None:
    """Every case of every test, the long ones too."""
    assert worse_than_loky(tmp_path, 5000) == []
