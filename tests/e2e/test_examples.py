"""Each example is run as its reader would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
#: What each example says at its end.
LAST_LINES = {
    "ask_and_tell": "it is near the minimum",
    "checkpoints": "each went on at its last checkpoint",
    "dask_climate": "Dask's threads find the same",
    "digits_grid": "GridSearchCV finds the same",
    "joblib_forest": "one process finds the same",
    "many_nodes": "17984 primes below 200000",
    "monte_carlo": "each of the 100 seeds was one job",
    "scraper": "all others were fetched",
    "thumbnails": "each has the colors of its photograph",
}


def start(script: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def test_none_is_forgotten() -> None:
    """Every example is here."""
    assert LAST_LINES.keys() == {path.stem for path in (PROJECT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", LAST_LINES)
def test_example(name: str) -> None:
    """It runs on the embedded server, warns of nothing, and gets the right answer."""
    n_nodes = 3 if name == "many_nodes" else 1
    for process in [start(PROJECT / "examples" / f"{name}.py") for _ in range(n_nodes)]:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out.splitlines()[-1].startswith(LAST_LINES[name])
