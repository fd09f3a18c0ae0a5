"""``workerbee bees``: who works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading, same_server
from workerbee.cli.terminal import json_option

if TYPE_CHECKING:
    from workerbee.reading import BeeRow


@click.command()
@click.argument("jobset_id", required=False, metavar="[JOBSET]")
@dsn_option
@json_option
def bees(jobset_id: str | None, dsn: str | None, *, as_json: bool) -> None:
    """List the bees that serve JOBSET, or all bees: where they run, and when they were last heard of."""
    with reading(dsn) as reader:
        jobset = found(reader, jobset_id)[0].jobset if jobset_id is not None else None
        rows = reader.bees(jobset)
    if as_json:
        terminal.lines(_bee(row) for row in rows)
        return
    if not rows:
        start = f"python -m workerbee.bee {jobset_id or ''}".rstrip() + same_server(dsn)
        click.echo(f"no bee is there; start one with: {start}", err=True)
        return
    now = time.time()
    from workerbee.outlook import spelled  # noqa: PLC0415 (loads the driver)

    terminal.table(
        ("BEE", "STATE", "HOST", "PID", "SERVES", "RUNNERS", "HAS BEGUN", "UP FOR", "HEARD OF", "PYTHON"),
        (
            (
                row.id[:8],
                _state(row),
                row.host,
                row.pid,
                "every jobset" if row.serves_all else row.jobset or "a temporary jobset",
                row.n_runners,
                row.n_started,
                spelled(max(0.0, now - row.started_at)),
                f"{spelled(max(0.0, row.silent_for))} ago",
                row.python,
            )
            for row in rows
        ),
        right=(3, 5, 6, 7, 8),
    )


def _state(row: BeeRow) -> str:
    if not row.alive:
        return "silent"
    return "resting" if row.resting else "alive"


def _bee(row: BeeRow) -> dict[str, Any]:
    return {
        "bee": row.id,
        "state": _state(row),
        "host": row.host,
        "pid": row.pid,
        "jobset": row.jobset,
        "serves_all": row.serves_all,
        "runners": row.n_runners,
        "begun": row.n_started,
        "started": terminal.moment(row.started_at),
        "silent_seconds": row.silent_for,
        "python": row.python,
        "version": row.version,
        "cpus": row.cpus,
        "launch": row.launch,
        "place": row.place,
        "ends": terminal.moment(row.ends_at),
        "refuses": row.refuses,
    }
