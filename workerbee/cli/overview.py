"""All jobsets in a table, or how large they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import stored

if TYPE_CHECKING:
    from workerbee.reading import JobsetRow, Reader


def show_sizes(reader: Reader, rows: list[JobsetRow], *, as_json: bool) -> None:
    """The largest first; what jobs have printed is part of the whole, and large values in files are apart."""
    sizes = [(*reader.of(row.jobset).size(), stored(reader, row).file_bytes(), row) for row in rows]
    sizes.sort(key=lambda size: size[:2], reverse=True)
    if as_json:
        names = "bytes", "text_bytes", "file_bytes"
        terminal.lines(numbers(row) | dict(zip(names, size, strict=True)) for *size, row in sizes)
        return
    shown = ((row.jobset.name, *map(_megabytes, size), f"{row.counts.added:,}") for *size, row in sizes)
    terminal.table(("JOBSET", "SIZE", "PRINTED", "FILES", "JOBS"), shown, right=range(1, 5))


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:,.1f} MB"


def show_all(rows: list[JobsetRow], *, as_json: bool) -> None:
    """A line each."""
    if as_json:
        terminal.lines(numbers(row) for row in rows)
        return
    if not rows:
        click.echo("no jobsets here yet; an executor with a jobset_id makes one", err=True)
        return
    from workerbee.outlook import percent_of  # noqa: PLC0415 (loads the driver)

    terminal.table(
        ("JOBSET", "DONE", "JOBS", "OPEN", "FAILED", "BEES", "RUNNERS", "LAST ACTIVE"),
        (
            (
                row.jobset.name,
                f"{percent_of(row.counts.added, row.counts.open)} %",
                f"{row.counts.added:,}",
                f"{row.counts.open:,}",
                f"{row.counts.failed:,}",
                row.n_bees,
                row.n_runners,
                terminal.local(row.active_at),
            )
            for row in rows
        ),
        right=range(1, 7),
    )


def numbers(row: JobsetRow) -> dict[str, Any]:
    """Give what a row says, as JSON."""
    from workerbee.outlook import percent_of  # noqa: PLC0415 (loads the driver)

    counts = row.counts._asdict() | {"open": row.counts.open}
    return {
        "jobset": row.jobset.id,
        "made": terminal.moment(row.created_at),
        "active": terminal.moment(row.active_at),
        "paused": terminal.moment(row.paused_at),
        "paused_by": row.paused_by,
        "paused_why": row.paused_why,
        "percent": percent_of(row.counts.added, row.counts.open),
        "bees": row.n_bees,
        "runners": row.n_runners,
        "events": counts,
    }
