"""Rows as plain facts, for HTML and JSON alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workerbee.dashboard.sampler import Part, Sampler
from workerbee.dashboard.shown import moment
from workerbee.launched import parts_of
from workerbee.reading import BeeRow, CauseRow, Counts, DepartedRow, DoingRow, Event, JobRow, LaunchRow, TextRow

Facts = dict[str, Any]

#: Seconds that a silent bee counts as quiet, before it counts as gone.
QUIET_SECONDS = 60.0


def told(sampler: Sampler, part: Part[Any], **facts: Any) -> Facts:
    """The facts with when they were so, and since when nobody answers."""
    at = {"at": moment(float(int(part.at))), "away_since": moment(sampler.away_since), "is_cut": part.is_cut}
    return at | facts


def net(counts: Counts) -> dict[str, int]:
    """Jobs by their latest run, as the counters tell."""
    failed = max(0, counts.failed - (counts.reopened - counts.revived))
    cancelled = max(0, counts.cancelled - counts.revived)
    return {"open": counts.open, "completed": counts.completed, "failed": failed, "cancelled": cancelled}


def cause_facts(row: CauseRow) -> Facts:
    return {"group": row.digest and row.digest.hex()} | row.told(moment)


def job_facts(row: JobRow) -> Facts:
    """A job and its latest run."""
    facts = row._asdict()
    del facts["ended_at"]
    return facts | {"ended": moment(row.ended_at)}


def event_facts(event: Event) -> Facts:
    told = event.error
    error = {name: str(told.get(name) or "") for name in ("type", "message", "traceback", "notes")} if told else None
    return event.told(moment) | {"duration": event.duration, "error": error}


def text_facts(row: TextRow) -> Facts:
    """The text of an execution."""
    streams = {"stdout": row.printed.text(1), "stderr": row.printed.text(2)}
    return {"run": row.run, "bee": row.bee, "at": moment(row.at)} | streams


def bee_facts(row: BeeRow, doing: Sequence[DoingRow] = ()) -> Facts:
    """A bee, and what it does now."""
    facts = row._asdict()
    at = [one._asdict() for one in doing if one.bee == row.id]
    quiet = "quiet" if row.silent_for < QUIET_SECONDS else "gone"
    state = ("resting" if row.resting else "working" if at else "idle") if row.alive else quiet
    for name in ("started_at", "ends_at"):
        facts[name.removesuffix("_at")] = moment(facts.pop(name))
    return facts | {"state": state, "doing": at[:8], "n_doing": len(at)}


def departed_facts(row: DepartedRow) -> Facts:
    """A bee that has left, or vanished."""
    facts = row._asdict()
    for name in ("started_at", "left_at"):
        facts[name.removesuffix("_at")] = moment(facts.pop(name))
    return facts


def launch_facts(row: LaunchRow) -> Facts:
    """A launch, by the system's name and the system's name for it."""
    facts = row._asdict()
    system, name = parts_of(row.launch)
    for moments in ("started_at", "heard_at", "ends_first", "ends_last"):
        facts[moments] = moment(facts[moments])
    return facts | {"system": system, "id": name}
