"""The benchmarks run: not how fast we are, only that the commands still say it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import poolers
from tests.benchmarks import costs, readme, results
from tests.benchmarks.stage import ROOT


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command stores of two rows, one of them in pairs."""
    file = tmp_path_factory.mktemp("benchmarks") / "record.json"
    command = [sys.executable, "-m", "tests.benchmarks", "sleeps", "full", "--quick", "--repetitions", "2"]
    subprocess.run([*command, "--json", str(file)], cwd=ROOT, check=True, timeout=200)
    return file


def test_the_record_has_all_that_a_figure_depends_on(record: Path) -> None:
    """Machine, versions and load; for each contender the samples, median and range; and the bars."""
    stored = json.loads(record.read_text("utf-8"))
    assert stored["machine"].keys() >= {"date", "processor", "cores", "memory_gb", "system", "load"}
    assert stored["versions"].keys() >= {"python", "postgresql", "commit"}
    sleeps, full = stored["rows"]["sleeps"], stored["rows"]["full"]
    assert sleeps["contenders"].keys() == {"workerbee", "processes"}
    assert full["contenders"].keys() == {"full", "empty"}
    for row in (sleeps, full):
        assert not row["missing"]
        for figures in row["contenders"].values():
            figure = figures[row["figure"]]
            assert len(figure["samples"]) == 2
            assert figure["range"][0] <= figure["median"] <= figure["range"][1]
    [bar] = full["bars"]
    assert bar["limit"] == 0.95
    low, high = bar["ratio"][1:]
    assert low <= bar["value"] <= high


def test_a_page_is_filled_between_its_marks(record: Path) -> None:
    """What stands around the section stays, and filling it again replaces it."""
    text = "before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nafter\n"
    for _ in range(2):
        text = readme.fill(text, "benchmarks", readme.section(json.loads(record.read_text("utf-8")), "chart.svg"))
    assert text.startswith("before\n<!-- benchmarks -->\n![")
    assert text.endswith("\n<!-- /benchmarks -->\nafter\n")
    assert "old" not in text
    assert text.count("| of ideal |") == 1


def test_the_pages_show_the_record() -> None:
    """The tables of docs/benchmarks.md and of the README are those of the record that is kept."""
    for page, text in readme.pages(json.loads(readme.RECORD.read_text("utf-8"))).items():
        assert page.read_text("utf-8") == text, f"python -m tests.benchmarks.readme writes {page.name} anew"


def test_a_bar_of_pairs_is_missed_only_by_the_whole_interval() -> None:
    """A median below the bar is no miss while the interval reaches it."""
    wide = results.interval([0.8, 0.93, 0.94, 0.99, 1.1])
    narrow = results.interval([0.90, 0.91, 0.91, 0.92])
    assert results.at_least("ratio", wide.median, 0.95, ratio=wide).met
    assert not results.at_least("ratio", narrow.median, 0.95, ratio=narrow).met


def test_costs_are_measured(tmp_path: Path) -> None:
    """Of few bees and jobs: each statement, what much takes, and the bars of that."""
    file = tmp_path / "costs.json"
    few = ["--bees=3", "--connections=1", "--seconds=0.05", "--jobs=250", "--jobsets=5", f"--json={file}"]
    said = CliRunner().invoke(costs.main, few, catch_exceptions=False).output
    bars = json.loads(file.read_text("utf-8"))["looks"]
    assert said.count("bar ") == len(bars)
    signs = "".join(bar["sign"] for bar in bars)
    n_growth = 3 + (poolers.program() is not None)
    assert signs.startswith("≥≤≤≤≤≤≥≥≤" + n_growth * "≤"), "what much takes"
    assert signs[9 + n_growth :] == 2 * 17 * "≤", "what the commands ask of two and of ten millions of jobs"
    assert all(0 < abs(bar["value"]) < 1e6 for bar in bars)
