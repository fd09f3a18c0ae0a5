"""``workerbee drop``: jobsets by their names, or those that nobody has used for long."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from workerbee.cli.asking import make_sure, yes_option
from workerbee.cli.database import dsn_option, found, reading

if TYPE_CHECKING:
    from workerbee.reading import JobsetRow, Reader

UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
PAGE_JOBSETS = 100


def _seconds(_: click.Context, __: click.Parameter, age: str | None) -> float | None:
    """A duration such as 30d in seconds; a number without a unit would be guessed at."""
    told = None if age is None else re.fullmatch(r"(\d+(?:\.\d+)?) ?(min|h|d|w)", age)
    if age is not None and told is None:
        raise click.BadParameter(f"{age!r} is no age; such are 90min, 12h, 30d and 4w")
    return None if told is None else float(told[1]) * UNITS[told[2]]


@click.command()
@click.argument("jobset_ids", nargs=-1, metavar="[JOBSET]…")
@click.option(
    "--older-than", callback=_seconds, metavar="AGE", help="Those in which nothing happened since: 30d, 12h …"
)
@click.option("--finished", is_flag=True, help="Of those, or of all, the ones without an open job.")
@yes_option
@dsn_option
def drop(jobset_ids: tuple[str, ...], older_than: float | None, dsn: str | None, *, finished: bool, yes: bool) -> None:
    """Delete jobsets with all their jobs and results: those named, or those that options say.

    There is no way back. With --older-than or --finished, jobsets that a bee serves now by name stay.
    """
    from workerbee import changing  # noqa: PLC0415 (loads the driver)

    by_age = older_than is not None or finished
    if bool(jobset_ids) == by_age:
        raise click.UsageError("say which jobsets: by their names, or by --older-than and --finished")
    with reading(dsn) as reader:
        named = [found(reader, jobset_id)[0] for jobset_id in jobset_ids]
        rows = list(_unused(reader, older_than or 0.0, finished=finished)) if by_age else named
        if not rows:
            click.echo("no jobset is like that", err=True)
            return
        jobs = ", ".join(f"{row.jobset.name} with {row.counts.added:,} jobs" for row in rows)
        make_sure(f"delete {jobs} and all their results", yes=yes)
        for row in rows:
            dropped = changing.drop(reader.connection, row.jobset)
            later = "" if dropped.is_gone else "; somebody is reading it, so its tables go a little later"
            click.echo(f"{row.jobset.name} is dropped{later}")
            for left in dropped.left:
                click.echo(left, err=True)


def _unused(reader: Reader, age: float, *, finished: bool) -> Iterator[JobsetRow]:
    """The jobsets in which nothing has happened for so many seconds."""
    served = {bee.jobset for bee in reader.bees() if bee.alive}
    rows = reader.jobsets(PAGE_JOBSETS)
    while rows:
        for row in rows:
            is_old = row.active_at <= time.time() - age
            if is_old and not (finished and row.counts.open) and row.jobset.id not in served:
                yield row
        rows = reader.jobsets(PAGE_JOBSETS, before=rows[-1].jobset.number)
