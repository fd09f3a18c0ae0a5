"""How a jobset goes, drawn: numbers in, the text of an SVG out, and a table that says the same.

A plot is at most 10 kB. It has no style and no script, so that it may stand in a page that allows neither inline: its
parts have classes, and colours by attribute, each a CSS variable (``--wb-completed`` …) with a value that can be seen
on white and on black. Text and axes take the colour of the text around them. States differ by word and place too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate, pairwise
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

from workerbee.timing import utc

#: Colours with a contrast of 3:1 and more, on white and on #111; a page that knows its theme may set better ones.
COLOURS = {
    "waiting": "#80868d",
    "retrying": "#a5772a",
    "running": "#3d7fd0",
    "completed": "#2b8a57",
    "failed": "#d1483f",
    "cancelled": "#8d6bb8",
    "lost": "#a5772a",
}
#: The order of states in a bar.
BAR = ("completed", "failed", "cancelled", "running", "retrying", "waiting")
#: Points of a curve and bars of a histogram, at the most.
MOST_POINTS, MOST_BARS = 96, 32
#: Counters are noted by the minute: after a longer gap, what has changed did so in its last minute.
MINUTE = 60.0
#: Units of an SVG: the width of text is guessed from its letters.
WIDTH, LETTER = 560, 6.6


class Plot(NamedTuple):
    """A picture as SVG, and its twin: an HTML table with the same numbers."""

    title: str
    svg: str
    table: str

    @property
    def html(self) -> str:
        """Both: the table can be unfolded."""
        twin = f"<details><summary>As a table</summary>{self.table}</details>"
        return f'<figure class="wb-plot">{self.svg}{twin}</figure>'


class Sample(NamedTuple):
    """The jobs that had ended by a moment (seconds since the epoch), counted from the beginning."""

    at: float
    done: float
    failed: float
    lost: float


def states(counts: Mapping[str, int], title: str = "Jobs by state") -> Plot:
    """Draw a bar of as many parts as there are states with jobs, each as long as its share, and words under it."""
    there = {state: n for state, n in counts.items() if n > 0}
    rows = [(state, f"{n:,}") for state, n in counts.items()]
    words, height = _legend(there)
    parts = "".join(
        f'<rect {_paint(state)} x="{x:.1f}" y="0" width="{width:.1f}" height="18"/>'
        for state, x, width in _shares(there)
    )
    empty = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="17" fill="none" stroke="currentColor" opacity="0.4"/>'
    said = ", ".join(f"{n:,} {state}" for state, n in there.items()) or "no jobs"
    return Plot(title, _svg(f"{title}: {said}", height, parts or empty, words), _table(title, ("state", "jobs"), rows))


def rate(samples: Sequence[Sample], *, since: float | None = None, until: float | None = None) -> Plot:
    """Draw how many jobs were done, failed and lost a second, each on a scale of its own, from counts by the minute."""
    title = "Ends a second"
    samples = [sample for sample in samples if isfinite(sample.at)]
    first = samples[0].at if samples else 0.0
    begin, end = (first if since is None else since), (samples[-1].at if samples else 0.0) if until is None else until
    edges = _edges(begin, end)
    if len(samples) < 2 or not edges:
        return _nothing(title, "nothing has ended yet")
    known = _without_gaps(samples)
    curves = {kind: _rates(known, edges, n) for n, kind in enumerate(("done", "failed", "lost"), 1)}
    drawn, y = "", 0
    for kind, height in (("done", 84), ("failed", 28), ("lost", 28)):
        drawn += _strip(kind, curves[kind], y, height)
        y += height + 22
    rows = [(_moment(at), *(_number(curve[n]) for curve in curves.values())) for n, at in enumerate(edges[:-1])]
    table = _table(f"{title} (times in UTC)", ("from", *curves), rows)
    said = ", ".join(f"{kind} {_peak(curve)}" for kind, curve in curves.items())
    return Plot(title, _svg(f"{title}: {said}", y + 14, drawn, _axis(begin, end, y + 8)), table)


def durations(seconds: Iterable[float], p95: float | None = None) -> Plot:
    """Draw a histogram of what jobs took, with a line at the 95th percentile; by powers where they differ much."""
    title = "What jobs took"
    values = sorted(max(0.0, s) for s in seconds if isfinite(s))
    if not values:
        return _nothing(title, "no job has completed yet")
    line = values[min(len(values) - 1, int(0.95 * len(values)))] if p95 is None else p95
    bounds, place = _bins(values[0], max(values[-1], line), len(values))
    counts = _counted(values, bounds)
    said = f"95 % took at most {duration(line)}"
    drawn = (
        _bars(counts)
        + _mark(WIDTH * place(line), said)
        + _text(0, 116, duration(bounds[0]))
        + _text(WIDTH, 116, duration(bounds[-1]), "end")
    )
    spans = zip(pairwise(map(duration, bounds)), counts, strict=True)
    table = _table(f"{title}: {said}", ("from", "to", "jobs"), [(low, high, f"{n:,}") for (low, high), n in spans])
    return Plot(title, _svg(f"{title}: {said}, of {len(values):,} jobs", 120, drawn), table)


def sparkline(values: Sequence[float], title: str = "Rate", *, width: int = 120, height: int = 24) -> Plot:
    """Draw a small curve for a row of a table."""
    points = _thinned(values)
    rows = [(str(n), _number(value)) for n, value in enumerate(points)]
    said = f"{title}: {_peak(points) if points else 'nothing yet'}"
    path = _curve(points, 0, height - 2, width) if len(points) > 1 else f"M0 {height - 1}H{width}"
    drawn = f'<path class="wb-line" d="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    return Plot(title, _svg(said, height, drawn, width=width), _table(title, ("step", "a second"), rows))


def _svg(label: str, height: float, *parts: str, width: int = WIDTH) -> str:
    said = escape(label)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="wb-svg" role="img" aria-label="{said}" '
        f'viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" fill="currentColor" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{said}</title>{"".join(parts)}</svg>'
    )


def _nothing(title: str, said: str) -> Plot:
    return Plot(title, _svg(f"{title}: {said}", 20, _text(0, 14, said)), _table(title, (), ()))


def _peak(values: Sequence[float]) -> str:
    return f"{_number(values[-1])} a second at last, {_number(max(values))} at most"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _paint(state: str, attribute: str = "fill") -> str:
    """Give the class of a state's parts, and their colour as a fill or a stroke."""
    known = state if state in COLOURS else "waiting"
    return f'class="wb-{known}" {attribute}="var(--wb-{known}, {COLOURS[known]})"'


def _shares(counts: Mapping[str, int]) -> list[tuple[str, float, float]]:
    """Place each part, and say how wide it is; what is rare is still to be seen."""
    n_all = sum(counts.values())
    widths = {state: max(2.0, WIDTH * n / n_all) for state, n in counts.items()}
    scale = WIDTH / sum(widths.values()) if widths else 1.0
    ends = accumulate(widths.values(), initial=0.0)
    return [(state, scale * x, scale * width) for (state, width), x in zip(widths.items(), ends, strict=False)]


def _legend(counts: Mapping[str, int]) -> tuple[str, float]:
    """Draw a square, a number and a word for each state, in as many lines as it takes; and where they end."""
    drawn, x, y = "", 0.0, 36.0
    for state, n in counts.items():
        word = f"{n:,} {state}"
        needed = 16 + LETTER * len(word) + 14
        if x and x + needed > WIDTH:
            x, y = 0.0, y + 18
        drawn += f'<rect {_paint(state)} x="{x:.1f}" y="{y - 10:g}" width="11" height="11"/>'
        drawn += _text(x + 16, y, word)
        x += needed
    return drawn, y + 6


def _edges(begin: float, end: float) -> list[float]:
    """Give the bounds of equal times of a minute or more, so many as can be drawn."""
    n = min(MOST_POINTS, ceil((end - begin) / MINUTE))
    return [begin + (end - begin) * i / n for i in range(n + 1)] if n > 0 else []


def _without_gaps(samples: Sequence[Sample]) -> list[Sample]:
    """Fill gaps: where no sample was noted for long, one says that nothing had changed until the last minute."""
    known = [samples[0]]
    for before, after in pairwise(samples):
        if after.at - before.at > 2 * MINUTE:
            known.append(before._replace(at=after.at - MINUTE))
        known.append(after)
    return known


def _rates(samples: Sequence[Sample], edges: Sequence[float], column: int) -> list[float]:
    """Compute how many a second there were between each two edges."""
    times = [sample.at for sample in samples]
    counts = [_at(times, [sample[column] for sample in samples], edge) for edge in edges]
    return [
        max(0.0, after - before) / (end - begin)
        for (before, after), (begin, end) in zip(pairwise(counts), pairwise(edges), strict=True)
    ]


def _at(times: Sequence[float], counts: Sequence[float], moment: float) -> float:
    """Estimate the count at a moment, as if it had grown evenly."""
    n = bisect_right(times, moment)
    if n == 0 or n == len(times):
        return counts[0] if n == 0 else counts[-1]
    share = (moment - times[n - 1]) / (times[n] - times[n - 1])
    return counts[n - 1] + share * (counts[n] - counts[n - 1])


def _strip(kind: str, values: Sequence[float], y: int, height: int) -> str:
    """Draw one curve over its own base line, with its name and its peak above."""
    state = "completed" if kind == "done" else kind
    base = y + 16 + height
    line = _curve(values, y + 16, height, WIDTH)
    return (
        _text(0, y + 12, f"{kind}: {_peak(values)}")
        + f'<path {_paint(state)} d="{line}V{base}H0z" fill-opacity="0.35"/>'
        + f'<path {_paint(state, "stroke")} d="{line}" fill="none" stroke-width="1.5"/>'
        + f'<path d="M0 {base + 0.5}H{WIDTH}" stroke="currentColor" opacity="0.4"/>'
    )


def _curve(values: Sequence[float], top: float, height: float, width: float) -> str:
    """Draw a path through the values, from the left to the right, as high as the largest."""
    most, step = max(values) or 1.0, width / max(1, len(values) - 1)
    level = values if len(values) > 1 else [*values, *values]
    step = step if len(values) > 1 else width
    heights = (top + height - height * value / most for value in level)
    return "M" + "L".join(f"{n * step:.1f} {y:.1f}" for n, y in enumerate(heights))


def _axis(begin: float, end: float, y: float) -> str:
    return _text(0, y, f"{_moment(begin)} UTC") + _text(WIDTH, y, f"{_moment(end)} UTC", "end")


def _bins(low: float, high: float, n_values: int) -> tuple[list[float], _Place]:
    """Give the bars' bounds and a value's place on the axis (0 to 1): evenly, or by powers if values differ much."""
    n = max(1, min(MOST_BARS, ceil(2 * n_values ** (1 / 3))))
    if low > 0 and high / low > 50:
        first, last = floor(3 * log10(low)), max(floor(3 * log10(low)) + 1, ceil(3 * log10(high)))
        return [10 ** (power / 3) for power in range(first, last + 1)], _Place(first, last, is_log=True)
    if high <= low:
        low, high = 0.0, (high * 2 or 1.0)
    return [low + (high - low) * i / n for i in range(n + 1)], _Place(low, high, is_log=False)


class _Place(NamedTuple):
    """Places a value on an axis."""

    first: float
    last: float
    is_log: bool

    def __call__(self, value: float) -> float:
        at = 3 * log10(value) if self.is_log else value
        return min(1.0, max(0.0, (at - self.first) / (self.last - self.first)))


def _bars(counts: Sequence[int]) -> str:
    """Draw the bars side by side on a base line, the highest 82 units high."""
    step, most = WIDTH / len(counts), max(counts)
    bars = "".join(f"M{n * step + 0.5:.1f} 100v{-82 * i / most:.1f}h{step - 1:.1f}V100z" for n, i in enumerate(counts))
    return f'<path {_paint("completed")} d="{bars}"/><path d="M0 100.5H{WIDTH}" stroke="currentColor" opacity="0.4"/>'


def _mark(x: float, said: str) -> str:
    """Draw a dashed line over the bars, with its meaning on the side where there is room."""
    line = f'<path class="wb-p95" d="M{x:.1f} 2V100" stroke="currentColor" stroke-dasharray="4 3"/>'
    return line + (_text(x - 5, 10, said, "end") if x > WIDTH / 2 else _text(x + 5, 10, said))


def _counted(values: Sequence[float], bounds: Sequence[float]) -> list[int]:
    """Count the sorted values in each bar; the last one has its upper bound too."""
    places = [0, *(bisect_right(values, bound) for bound in bounds[1:-1]), len(values)]
    return [after - before for before, after in pairwise(places)]


def _thinned(values: Sequence[float]) -> list[float]:
    """Means of as many neighbours as it takes for so few points."""
    size = ceil(len(values) / MOST_POINTS) or 1
    parts = [values[n : n + size] for n in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def _number(value: float) -> str:
    """Write a number with three digits that say something."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write a duration with three digits that say something."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms" if seconds else "0 s"


def _moment(epoch: float) -> str:
    return f"{utc(epoch):%Y-%m-%d %H:%M}"


def bar(counts: Mapping[str, int], title: str) -> str:
    """Only the bar of `states`, as wide as its place, what has ended first: what stands beside it says the numbers."""
    there = {state: counts[state] for state in sorted(counts, key=_order) if counts[state] > 0}
    said = escape(f"{title}: {', '.join(f'{n:,} {state}' for state, n in there.items()) or 'none'}")
    parts = "".join(
        f'<rect {_paint(state)} x="{x:.2f}" width="{width:.2f}" height="10"/>' for state, x, width in _shares(there)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="wb-bar" role="img" aria-label="{said}" '
        f'viewBox="0 0 {WIDTH} 10" preserveAspectRatio="none">{parts}</svg>'
    )


def _order(state: str) -> int:
    return BAR.index(state) if state in BAR else len(BAR)
