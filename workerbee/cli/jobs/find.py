"""``workerbee jobs find``: jobs by their input."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.jobs.rows import fields, print_table
from workerbee.cli.terminal import json_option

if TYPE_CHECKING:
    from workerbee.finding import Found


@click.command("find")
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("text", metavar="JSON")
@click.option("--before", type=click.IntRange(1), help="Only jobs with a smaller id: where a look has ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Jobs at the most.")
@click.option("--seconds", type=click.FloatRange(0), default=2.0, show_default=True, help="How long to look.")
@dsn_option
@json_option
def find(
    jobset_id: str, text: str, before: int | None, limit: int, seconds: float, dsn: str | None, *, as_json: bool
) -> None:
    """Find the jobs of JOBSET whose input is JSON, or else, the newest first, those whose input contains it.

    The whole input is found at once among any number of jobs; for a part of it jobs are looked at one by one, for some
    seconds. Exit status: 1 if none was found.

    For example: workerbee jobs find my_jobset '{"temperature": 42}'
    """
    from workerbee.finding import LAST, find  # noqa: PLC0415 (loads the driver)

    value = _parsed(text)
    with reading(dsn) as reader:
        row, jobset = found(reader, jobset_id)
        seen = find(jobset, value, n=limit, before=min(before or LAST, LAST), seconds=seconds)
        rows = jobset.jobs_of(seen.ids)[::-1]
    if as_json:
        terminal.lines(fields(job) for job in rows)
    elif rows:
        print_table(rows)
    for line in _said(seen, row.counts.added, whole=before is None):
        click.echo(line, err=True)
    raise SystemExit(not rows)


def _parsed(text: str) -> Any:
    from workerbee.finding import parsed  # noqa: PLC0415 (loads the driver)

    try:
        return parsed(text)
    except ValueError as error:
        raise click.UsageError(
            f"{text!r} is no JSON ({error}); put it into single quotes, and names and texts in it into double ones: "
            f"'{json.dumps(_meant(text), ensure_ascii=False)}'"
        ) from None


def _meant(text: str) -> Any:
    """Guess at what somebody wanted to type who has written ``seed=41`` or ``{seed: 41}``."""
    pairs = [re.fullmatch(r"[\s'\"]*(\w+)[\s'\"]*[=:]\s*(.+)", pair) for pair in text.strip(" {}").split(",")]
    return {pair[1]: _value(pair[2]) for pair in pairs if pair} if all(pairs) else {"input": text}


def _value(text: str) -> Any:
    from workerbee.finding import parsed  # noqa: PLC0415 (loads the driver)

    try:
        return parsed(text)
    except ValueError:
        return text.strip(" '\"")


def _said(seen: Found, n_jobs: int, *, whole: bool) -> list[str]:
    """Name what was left out."""
    if seen.is_same:
        return []
    said = []
    if not seen.ids:
        said.append("none of those that were looked at has it" if seen.before else "no job has that in its input")
    if seen.before is not None:
        which = "newest " if whole else ""
        said.append(f"looked at the {which}{seen.looked_at:,} of {n_jobs:,} jobs; older ones: --before {seen.before}")
    if seen.unread:
        said.append(f"{seen.unread:,} of them can't be searched: their input is a pickle, or large")
    return said
