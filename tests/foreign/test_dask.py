"""Dask's own tests, as its wheel has them, with our executor as the default scheduler.

What passes with loky's ProcessPoolExecutor in that place has to pass with ours. (The standard library's
is no measure: without cloudpickle it fails dozens.) A normal run takes the first case of each
parametrised test; all of them, some 1,300, take the better part of an hour: ``pytest -m "foreign and soak"``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(dask.__file__).parents[1]
SUITES = {
    "delayed": ["dask/tests/test_delayed.py"],
    "base": ["dask/tests/test_base.py"],
    "bag": ["dask/bag/tests/test_bag.py"],
    "array": ["dask/array/tests/test_reductions.py"],
    "dataframe": [
        "dask/dataframe/tests/test_arithmetics_reduction.py",
        "dask/dataframe/dask_expr/tests/test_reductions.py",
    ],
}
#: Left out of a normal run, and no other: thousands of tiny tasks each, where a shorter test of the kind is run.
LONG = {
    "dask/array/tests/test_reductions.py": (
        "test_reductions_2D",
        "test_reductions_2D_datetime",
        "test_reductions_2D_nans",
        "test_reductions_1D_datetime",
        "test_reductions_1D_nans",
    ),
    "dask/dataframe/tests/test_arithmetics_reduction.py": (
        "test_arithmetics_different_index",
        "test_frame_series_arithmetic_methods",
        "test_reductions",
        "test_reductions_frame",
        "test_reductions_frame_nan",
    ),
    # Gigabytes of tasks' arguments, which would all be stored.
    "dask/dataframe/dask_expr/tests/test_reductions.py": ("test_cat_value_counts_large_unknown_categories",),
}

pytestmark = pytest.mark.foreign

Outcomes = dict[str, str]


def compared(directory: Path, *, everything: bool) -> tuple[Outcomes, Outcomes]:
    """What becomes of Dask's tests with loky's executor, and with ours, side by side."""
    runs = [_started(kind, directory, everything=everything) for kind in ("loky", "workerbee")]
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode in (0, 1), output  # 1: some tests failed
    theirs, ours = (json.loads((directory / f"{kind}.json").read_text()) for kind in ("loky", "workerbee"))
    return theirs, ours


def _started(kind: str, directory: Path, *, everything: bool) -> subprocess.Popen[str]:
    settings = directory / "pytest.ini"
    settings.write_text("[pytest]\n")  # ours are not for Dask's tests
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DASK_TESTS_EXECUTOR": kind,
        "DASK_TESTS_OUTCOMES": str(directory / f"{kind}.json"),
    }
    if not everything:
        environment["DASK_TESTS_SAMPLE"] = json.dumps(
            [f"{file}::{test}" for file, tests in LONG.items() for test in tests]
        )
    options = ["-q", "-c", str(settings), f"--rootdir={SITE}", "-p", "no:cacheprovider", "--timeout=900", "--tb=short"]
    paths = [str(SITE / path) for paths in SUITES.values() for path in paths]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "tests.foreign.dask_plugin", *options, *paths],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def worse(theirs: Outcomes, ours: Outcomes, paths: list[str]) -> list[str]:
    """The tests of these files that pass with loky's executor and don't with ours."""
    passed = [test for test, outcome in theirs.items() if test.startswith(tuple(paths)) and outcome == "passed"]
    assert len(passed) > 25, "Dask's tests weren't run"
    return [test for test in passed if ours.get(test) != "passed"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcomes, Outcomes]:
    return compared(tmp_path_factory.mktemp("dask"), everything=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", SUITES)
def test_what_passes_with_loky_passes_with_ours(sample: tuple[Outcomes, Outcomes], suite: str) -> None:
    """Each of Dask's suites, the first case of each test."""
    assert worse(*sample, SUITES[suite]) == []


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_all_that_passes_with_loky_passes_with_ours(tmp_path: Path) -> None:
    """Every case of every test, the long ones too."""
    theirs, ours = compared(tmp_path, everything=True)
    assert [test for paths in SUITES.values() for test in worse(theirs, ours, paths)] == []
