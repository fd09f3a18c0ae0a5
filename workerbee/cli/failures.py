"""``workerbee failures``: why jobs fail, by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.terminal import json_option, local, moment, shortened

if TYPE_CHECKING:
    from workerbee.reading import CauseRow

#: Hexadecimal digits by which a group of failures is called.
GROUP_NAME = 8


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@dsn_option
@json_option
def failures(jobset_id: str, dsn: str | None, *, as_json: bool) -> None:
    """Say why jobs of JOBSET fail: one row a cause, the most frequent first.

    Messages of one cause may differ in numbers, which are shown as #. Failures that were retried don't count.
    """
    with reading(dsn) as reader:
        _, jobset = found(reader, jobset_id)
        rows = jobset.causes()
    if as_json:
        terminal.lines(_group(n, row) for n, row in enumerate(rows, 1))
        return
    if not rows:
        click.echo(f"nothing in {jobset_id} has failed that wasn't retried", err=True)
        return
    terminal.table(
        ("GROUP", "JOBS", "ERROR", "WHERE", "FUNCTION", "LAST SEEN", "FOR EXAMPLE"),
        (
            (
                _named(row.digest),
                f"{row.n:,}",
                shortened(f"{row.cause.type}: {row.cause.message}", 100),
                row.cause.frame,
                ", ".join(row.functions),
                local(row.last_at),
                f"job {row.example}",
            )
            for row in rows
        ),
        right=[1],
    )
    if not rows[0].is_all:
        click.echo(f"only the newest {sum(row.n for row in rows):,} failures were looked at", err=True)


def _named(digest: bytes | None) -> str:
    """Name a group of failures: by enough of its cause's digest to tell it from others."""
    return "" if digest is None else digest.hex()[:GROUP_NAME]


def _group(n: int, row: CauseRow) -> dict[str, Any]:
    return {"group": n, "cause": row.digest and row.digest.hex()} | row.told(moment)
