"""Each example, and each snippet of the README, is run as its reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
#: What each example says at its end.
LAST_LINES = {
    "dask_climate": "Dask's threads find the same",
    "digits_grid": "GridSearchCV finds the same",
    "joblib_forest": "one process finds the same",
    "many_nodes": "17984 primes below 200000",
    "monte_carlo": "each of the 100 seeds was one job",
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


README = re.findall(r"(?ms)^```python\n(.*?)^```", (PROJECT / "README.md").read_text())


@pytest.mark.parametrize("snippet", README, ids=lambda snippet: snippet.splitlines()[0])
def test_readme(snippet: str, tmp_path: Path) -> None:
    """Each snippet of the README runs, and runs again, and prints what it says it prints."""
    (tmp_path / "snippet.py").write_text(snippet)
    for _ in range(2):
        out, err = (process := start(tmp_path / "snippet.py")).communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert all(line in out for line in re.findall(r"# (\{.*\})$", snippet, re.MULTILINE))
