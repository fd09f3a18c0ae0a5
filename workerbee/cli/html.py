"""How the report of a jobset is written in HTML. All of its text is escaped, and a policy in it allows no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from workerbee import __version__, plots
from workerbee.cli.terminal import printable
from workerbee.outlook import spelled
from workerbee.reading import BeeRow, BegunRow, CauseRow, DepartedRow, EndedBy, Event, JobsetRow
from workerbee.standing import Status
from workerbee.timing import utc

#: Of the jobs that completed last, so many took longest.
LONGEST = 20

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       background: Canvas; color: CanvasText; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } .course { font-size: 1.25rem; }
svg { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
table { border-collapse: collapse; } td, th { padding: 0.15rem 1rem 0.15rem 0; text-align: left; vertical-align: top; }
caption { text-align: left; font-style: italic; } th { font-weight: 600; } .scroll { overflow-x: auto; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; padding: 0.7rem; border: 1px solid color-mix(in srgb, CanvasText 25%, Canvas); }
small, .muted { opacity: 0.75; }
"""


class JobsetReport(NamedTuple):
    """All that the report says; ``took`` are jobs that completed last, with their seconds."""

    at: float
    row: JobsetRow
    status: Status
    ended: list[EndedBy]
    took: list[tuple[int, float]]
    causes: list[CauseRow]
    examples: dict[int, list[Event]]
    running: list[BegunRow]
    bees: list[BeeRow]
    departed: list[DepartedRow]


def written(report: JobsetReport) -> str:
    """The whole file."""
    name = _shown(report.row.jobset.name)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    parts = (_head(report), _figures(report), _plots(report), _failures(report), _longest(report), _bees(report))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _head(report: JobsetReport) -> str:
    row = report.row
    made, last = _moment(row.created_at), _moment(row.active_at)
    return (
        f"<h1>{_shown(row.jobset.name)}</h1>"
        f"<p class=muted>as of {_moment(report.at)}; made {made}, last active {last}; "
        f"written by workerbee {escape(__version__)}</p><p class=course>{_shown(report.status.sentence)}</p>"
    )


def _figures(report: JobsetReport) -> str:
    jobs, counts = report.status.jobs, report.row.counts
    rows = {
        "jobs": jobs.added,
        "completed": jobs.completed,
        "failed": jobs.failed,
        "cancelled": jobs.cancelled,
        "running": jobs.running,
        "waiting": jobs.waiting,
        "attempts tried again": counts.retried,
        "attempts lost with their bees": counts.lost,
        "extra copies of stragglers": counts.speculative,
        "late ends": counts.late,
        "runs started anew": counts.reopened,
    }
    table = _table(("", ""), [(name, f"{n:,}") for name, n in rows.items()], right=(1,))
    return f"<h2>Figures</h2>{table}"


def _plots(report: JobsetReport) -> str:
    samples = [plots.Sample(*ended) for ended in report.ended]
    shown = (
        plots.states({state: n for state, n in report.status.jobs._asdict().items() if n}),
        plots.rate(samples),
        plots.durations([took for _, took in report.took]),
    )
    return "<h2>Course</h2>" + "".join(f"<h3>{escape(plot.title)}</h3>{plot.html}" for plot in shown)


def _failures(report: JobsetReport) -> str:
    if not report.causes:
        return "<h2>Failures</h2><p>Nothing has failed that wasn't retried.</p>"
    cut = "" if report.causes[0].is_all else f"<p>Of the newest {sum(row.n for row in report.causes):,} failures.</p>"
    rows = (
        (
            f"{row.n:,}",
            f"{row.cause.type}: {row.cause.message}",
            row.cause.frame,
            ", ".join(row.functions),
            ", ".join(row.hosts),
            f"{_moment(row.first_at)} to {_moment(row.last_at)}",
            f"job {row.example}",
        )
        for row in report.causes
    )
    headings = ("jobs", "error", "where", "function", "hosts", "seen", "for example")
    traces = "".join(_trace(row.example, report.examples.get(row.example, [])) for row in report.causes)
    return f"<h2>Failures by cause</h2>{cut}{_table(headings, rows, right=(0,))}{traces}"


def _trace(job: int, events: Sequence[Event]) -> str:
    told = [str(trace) for event in events if (trace := event.error.get("traceback"))]
    if not told:
        return ""
    return f"<details><summary>The traceback of job {job}</summary><pre>{_shown(told[-1])}</pre></details>"


def _longest(report: JobsetReport) -> str:
    running = [(str(r.job), spelled(r.since), r.host or "", "running" + ", a copy" * r.copy) for r in report.running]
    slowest = sorted(report.took, key=lambda one: -one[1])[:LONGEST]
    rows = [*running, *((f"{job}", spelled(took), "", "completed") for job, took in slowest)]
    if not rows:
        return ""
    cut = f"<p class=muted>What runs, and the slowest of the {len(report.took):,} that completed last.</p>"
    return f"<h2>Longest jobs</h2>{cut}{_table(('job', 'took', 'host', ''), rows, right=(0, 1))}"


def _bees(report: JobsetReport) -> str:
    there = (
        (row.id[:8], row.host, f"{row.n_runners}", "alive" if row.alive else "silent", _moment(row.started_at), "")
        for row in report.bees
    )
    gone = (
        (
            row.id[:8],
            row.host,
            f"{row.n_runners}",
            f"left {_moment(row.left_at)}",
            _moment(row.started_at),
            row.last_words or "it vanished",
        )
        for row in report.departed
    )
    headings = ("bee", "host", "runners", "state", "started", "last words")
    rows = [*there, *gone]
    shown = _table(headings, rows, right=(2,)) if rows else "<p>No bee is there, or was in the last days.</p>"
    return f"<h2>Bees</h2>{shown}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    kinds = ["n" if n in right else "t" for n in range(len(headings))]
    head = "".join(f"<th class={kind}>{_shown(text)}</th>" for kind, text in zip(kinds, headings, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td class={kind}>{_shown(text)}</td>' for kind, text in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _moment(epoch: float | None) -> str:
    return "" if epoch is None else f"{utc(epoch):%Y-%m-%d %H:%M} UTC"


def _shown(text: str) -> str:
    return escape(printable(text))
