"""The counters in the text format of Prometheus. Nothing is counted for it: bees and clients have added them up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from workerbee.reading import JobsetRow

#: Name, type, meaning, and what it is of a jobset.
SERIES: list[tuple[str, str, str, Callable[[JobsetRow], float]]] = [
    ("jobs_added_total", "counter", "Jobs added.", lambda row: row.counts.added),
    (
        "runs_reopened_total",
        "counter",
        "Runs begun anew of jobs that had ended badly.",
        lambda row: row.counts.reopened,
    ),
    ("runs_completed_total", "counter", "Runs that completed.", lambda row: row.counts.completed),
    ("runs_failed_total", "counter", "Runs that failed for good.", lambda row: row.counts.failed),
    ("runs_cancelled_total", "counter", "Runs that were cancelled.", lambda row: row.counts.cancelled),
    (
        "attempts_retried_total",
        "counter",
        "Failed attempts after which another one was due.",
        lambda row: row.counts.retried,
    ),
    ("attempts_lost_total", "counter", "Attempts whose bee vanished.", lambda row: row.counts.lost),
    ("copies_total", "counter", "Copies of stragglers.", lambda row: row.counts.speculative),
    ("ends_late_total", "counter", "Ends that came after another end of the same run.", lambda row: row.counts.late),
    ("jobs_open", "gauge", "Jobs that wait or run.", lambda row: row.counts.open),
    ("bees", "gauge", "Bees that serve the jobset.", lambda row: row.n_bees),
    ("runners", "gauge", "Runners of these bees.", lambda row: row.n_runners),
    ("paused", "gauge", "1 if it is paused.", lambda row: row.paused_at is not None),
    ("active_timestamp_seconds", "gauge", "When something last happened.", lambda row: row.active_at),
]


def exposition(rows: Sequence[JobsetRow], *, is_up: bool) -> str:
    """All series of these jobsets."""
    lines = list(_series("workerbee_database_up", "gauge", "1 if the database answers.", [("", float(is_up))]))
    for name, kind, meaning, of in SERIES:
        values = [(f'{{jobset="{row.jobset.name}"}}', float(of(row))) for row in rows]
        lines += _series(f"workerbee_{name}", kind, meaning, values)
    return "\n".join(lines) + "\n"


def _series(name: str, kind: str, meaning: str, values: Iterable[tuple[str, float]]) -> Iterable[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{labels} {value:.17g}" for labels, value in values)
