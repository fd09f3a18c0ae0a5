"""The lists that a screen shows of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from workerbee.cli.terminal import local
from workerbee.cli.top.looking import Seen, percent
from workerbee.outlook import spelled


class List(NamedTuple):
    """Lines to choose from; ``opens`` is the jobset or job behind each, if there is one."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    opens: list[Any]
    empty: str = ""


def _jobsets(seen: Seen) -> List:
    rows = [(r.jobset.name, f"{percent(r)} %", f"{r.counts.open:,}", r.counts.failed, r.n_bees) for r in seen.jobsets]
    opens = [row.jobset.id for row in seen.jobsets]
    return List(("JOBSET", "DONE", "OPEN", "FAILED", "BEES"), rows, opens, "no jobsets here yet")


def _running(seen: Seen) -> List:
    rows = [(f"{r.job}", spelled(r.since), r.host or "", "copy" if r.copy else "", r.bee[:8]) for r in seen.begun]
    return List(("RUNNING", "FOR", "HOST", "", "BEE"), rows, [row.job for row in seen.begun], "no job is running")


def _failures(seen: Seen) -> List:
    rows = [(f"{r.n:,}", local(r.last_at), r.cause.frame, f"{r.cause.type}: {r.cause.message}") for r in seen.causes]
    headings = ("FAILED", "LAST", "WHERE", "ERROR")
    return List(headings, rows, [row.example for row in seen.causes], "nothing has failed that wasn't retried")


def _bees(seen: Seen) -> List:
    rows = [
        (r.id[:8], "alive" if r.alive else "silent", r.n_runners, r.n_started, f"{spelled(r.silent_for)} ago", r.host)
        for r in seen.bees
    ]
    empty = "no bee is there"
    return List(("BEE", "STATE", "RUNNERS", "HAS BEGUN", "HEARD OF", "HOST"), rows, [None] * len(rows), empty)


LISTS: dict[str, Callable[[Seen], List]] = {
    "jobsets": _jobsets,
    "jobset": _running,
    "failures": _failures,
    "bees": _bees,
}


def list_of(view: str, seen: Seen) -> List:
    """The lines of a view; none where it has no list."""
    made = LISTS.get(view)
    return List((), [], []) if made is None else made(seen)
