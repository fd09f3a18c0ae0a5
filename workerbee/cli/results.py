"""``workerbee results``: what the jobs returned, as rows for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from workerbee.cli import formats
from workerbee.cli.database import dsn_option, found, reading, stored


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; else stdout.")
@click.option("--function", metavar="MODULE:NAME", help="The results of this function; else of the one used last.")
@click.option(
    "--all", "every", is_flag=True, help="The results of all versions, and without --function of all functions."
)
@click.option("--failed", is_flag=True, help="Also failed and cancelled jobs, with their error.")
@dsn_option
@click.option("--json", "form", flag_value="jsonl", help="The same as --format jsonl.")
def results(
    jobset_id: str, form: str, output: Path | None, function: str | None, dsn: str | None, *, every: bool, failed: bool
) -> None:
    """Write what the jobs of JOBSET returned: a row a job, input and output side by side.

    What JSON can't hold is written as its text. Without the key that signed it, a pickled value is an error. A file is
    complete, or isn't there. Parquet needs pyarrow and a file.
    """
    if form == "parquet":
        formats.require_parquet(output)
    from workerbee.reading import Choice  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        row, _ = found(reader, jobset_id)
        values = stored(reader, row)
        chosen = values.choose(Choice(name=function, every=every))
        rows = map(formats.named, values.results(chosen, with_failed=failed))
        with opened(output) as file:
            formats.WRITERS[form](file, rows)


@contextmanager
def opened(output: Path | None) -> Iterator[IO[Any]]:
    """Open what to write to: stdout, or a file that gets its name when it is complete."""
    if output is None:
        yield sys.stdout
        return
    draft = output.with_name(f".{output.name}.part")
    try:
        with draft.open("w+", encoding="utf-8", newline="") as file:
            yield file
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
