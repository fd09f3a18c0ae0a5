"""Plots say what their numbers say, in little room, and may stand in a page with a strict policy."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from workerbee import plots

RANDOM = random.Random(18)
#: Counts by the minute over ten hours, in which nothing was noted for one: 60 a minute are done, 6 fail.
SAMPLES = [plots.Sample(6e4 + 60.0 * n, 60.0 * n, 6.0 * n, n // 100) for n in range(240)]
LATER = [sample._replace(at=sample.at + 3600) for sample in SAMPLES]
PLOTS = {
    "states": plots.states({"waiting": 3_012_345, "running": 1, "completed": 5_000_000, "failed": 100_000}),
    "strange": plots.states({'"><script>alert(1)</script>': 1, "&amp;" * 30: 2}, '<b onload="x">'),
    "no states": plots.states({"waiting": 0}),
    "rate": plots.rate(SAMPLES),
    "rate of years": plots.rate([plots.Sample(6e7 * n, 10**9 * n, RANDOM.random() * 1e9, n) for n in range(1000)]),
    "rate since": plots.rate(SAMPLES, since=6e4 + 3600, until=6e4 + 7200),
    "no rate": plots.rate([]),
    "a sample before all times": plots.rate([plots.Sample(float("-inf"), 0, 0, 0), *SAMPLES]),
    "one sample": plots.rate(SAMPLES[:1]),
    "durations": plots.durations([RANDOM.lognormvariate(0, 2) for _ in range(100_000)]),
    "alike": plots.durations([2.0] * 7),
    "zeros": plots.durations([0.0, 0.0]),
    "odd": plots.durations([float("nan"), float("inf"), -1.0, 1e-9, 1e12], p95=3.0),
    "no durations": plots.durations([]),
    "sparkline": plots.sparkline([RANDOM.random() * 1e6 for _ in range(10_000)]),
    "one value": plots.sparkline([0.0]),
    "no values": plots.sparkline([]),
}


@pytest.mark.parametrize("name", list(PLOTS))
def test_plots_are_small_well_formed_and_without_inline_style_or_script(name: str) -> None:
    plot = PLOTS[name]
    assert len(plot.svg.encode()) <= 10_000
    root = ET.fromstring(plot.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == root[0].text
    assert root[0].tag.endswith("title")
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "rect", "path", "text"}
    attributes = {key for element in root.iter() for key in element.attrib}
    assert not [key for key in attributes if key in ("style", "id", "href") or key.startswith("on")]
    assert not re.search(r"\b(nan|inf)\b", "".join(e.get("d", "") + e.get("x", "") for e in root.iter()))
    table = ET.fromstring(plot.table)
    assert table.tag == "table"
    assert ET.fromstring(plot.html).tag == "figure"


def test_a_bar_has_a_part_and_a_word_for_each_state_with_jobs() -> None:
    root = ET.fromstring(PLOTS["states"].svg)
    parts = [rect for rect in root.findall(".//{*}rect") if rect.get("height") == "18"]
    assert [part.get("class") for part in parts] == ["wb-waiting", "wb-running", "wb-completed", "wb-failed"]
    widths = [float(part.get("width")) for part in parts]
    assert sum(widths) == pytest.approx(plots.WIDTH, abs=0.5)
    assert widths[1] >= 1.9, "a single job can be seen"
    for before, after in pairwise(parts):
        assert float(before.get("x")) + float(before.get("width")) == pytest.approx(float(after.get("x")), abs=0.2)
    assert [text.text for text in root.findall(".//{*}text")] == [
        "3,012,345 waiting",
        "1 running",
        "5,000,000 completed",
        "100,000 failed",
    ]
    assert cells(PLOTS["states"])[1] == ["running", "1"]


def test_a_rate_is_that_of_the_counters_and_nothing_happens_in_a_gap() -> None:
    steady = cells(PLOTS["rate"])
    assert {row[1] for row in steady} == {"1"}
    assert {row[2] for row in steady} == {"0.1"}
    assert len(cells(PLOTS["rate since"])) == 60
    gap = cells(plots.rate([*SAMPLES, *(s._replace(at=s.at + 14_400 + 3600, done=s.done + 14_340) for s in SAMPLES)]))
    rates = [float(row[1]) for row in gap]
    assert 0.0 in rates, "the hour in which nobody noted anything"
    seconds = 60.0 * (240 + 240 + 60) / len(rates)
    assert sum(rates) * seconds == pytest.approx(14_340 * 2, rel=0.02), "and no job is lost from sight"


def test_a_histogram_counts_each_job_once_and_marks_the_slowest_twentieth() -> None:
    plot = plots.durations([*range(1, 101)])
    counted = [int(row[2].replace(",", "")) for row in cells(plot)]
    assert sum(counted) == 100
    assert "95 % took at most 1.6 min" in plot.svg
    assert sum(int(row[2].replace(",", "")) for row in cells(PLOTS["durations"])) == 100_000
    assert ["1 s", "2 s", "7"] in cells(PLOTS["alike"])


def cells(plot: plots.Plot) -> list[list[str]]:
    body = ET.fromstring(plot.table).find("tbody")
    return [[cell.text for cell in row] for row in body]
