"""Samples of a row's contenders, what they say, and whether a bar is met."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from tests.benchmarks.timing import Figures


class Ratio(NamedTuple):
    """The median of the ratios of pairs, with its 90 % interval."""

    median: float
    low: float
    high: float


class Bar(NamedTuple):
    """One demand: ``value`` is to be at least (``sign`` ≥) or at most (≤) ``limit``."""

    what: str
    value: float
    sign: str
    limit: float
    unit: str = ""
    ratio: Ratio | None = None

    @property
    def met(self) -> bool:
        # What was measured in pairs misses a bar only if its whole interval does.
        value = self.value if self.ratio is None else self.ratio.high
        return value >= self.limit if self.sign == "≥" else value <= self.limit


def at_least(what: str, value: float, limit: float, unit: str = "", ratio: Ratio | None = None) -> Bar:
    return Bar(what, value, "≥", limit, unit, ratio)


def at_most(what: str, value: float, limit: float, unit: str = "") -> Bar:
    return Bar(what, value, "≤", limit, unit)


@dataclass
class Results:
    """What a row's contenders gave, in the order of the repetitions; or why one gave nothing."""

    samples: dict[str, list[Figures]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def all(self, who: str, figure: str) -> list[float]:
        return [figures[figure] for figures in self.samples[who]]

    def median(self, who: str, figure: str) -> float:
        return median(self.all(who, figure))

    def others(self, *without: str) -> list[str]:
        return [who for who in self.samples if who not in without]

    def ratio(self, who: str, to: str, figure: str) -> Ratio:
        """Of the runs side by side."""
        pairs = zip(self.all(who, figure), self.all(to, figure), strict=False)
        return interval(a / b for a, b in pairs)


def interval(ratios: Iterable[float]) -> Ratio:
    """The median, and where it lies with 90 % confidence: by the bootstrap, from a fixed seed."""
    given = list(ratios)
    draw = random.Random(0)
    medians = sorted(median(draw.choices(given, k=len(given))) for _ in range(2000))
    return Ratio(median(given), medians[100], medians[-101])
