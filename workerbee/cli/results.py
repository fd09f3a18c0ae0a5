"""``workerbee results``: what the jobs returned, as rows for other programs."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from workerbee.cli.database import dsn_option, found, reading

#: Rows by which a table's columns are found.
SAMPLE_ROWS = 1000

FlatRow = dict[str, Any]


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; else stdout.")
@click.option("--function", metavar="MODULE:NAME", help="The results of this function; else of the one used last.")
@click.option(
    "--all", "every", is_flag=True, help="The results of all versions, and without --function of all functions."
)
@click.option("--failed", is_flag=True, help="Also failed and cancelled jobs, with their error.")
@dsn_option
def results(
    jobset_id: str, form: str, output: Path | None, function: str | None, dsn: str | None, *, every: bool, failed: bool
) -> None:
    """Write what the jobs of JOBSET returned: a row a job, input and output side by side.

    What JSON can't hold is written as its text. Without the key that signed it, a pickled value is an error. A file is
    complete, or isn't there.
    """
    from workerbee.reading import Choice, Reading  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        row, _ = found(reader, jobset_id)
        stored = Reading(reader.connection, row.jobset, _signer(row.jobset.uuid))
        chosen = stored.choose(Choice(name=function, every=every))
        rows = map(_named, stored.results(chosen, with_failed=failed))
        with _opened(output) as file:
            (_write_csv if form == "csv" else _write_jsonl)(file, rows)


def _signer(uuid: Any) -> Any:
    """Make what verifies values; None without the key."""
    from workerbee.wire.signing import Key, Signer  # noqa: PLC0415 (loads the driver)

    key = Key.load()
    return None if key is None else Signer(key, uuid)


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    """Open what to write to: stdout, or a file that gets its name when it is complete."""
    if output is None:
        yield sys.stdout
        return
    draft = output.with_name(f".{output.name}.part")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            yield file
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


def _write_jsonl(file: IO[str], rows: Iterable[FlatRow]) -> None:
    for row in rows:
        file.write(json.dumps(row, default=_text) + "\n")


def _write_csv(file: IO[str], rows: Iterable[FlatRow]) -> None:
    """The columns are those of the first rows; what later ones have besides is left out, and said."""
    rows = iter(rows)
    first = list(itertools.islice(rows, SAMPLE_ROWS))
    columns = list(dict.fromkeys(name for row in first for name in row))
    writer = csv.writer(file)
    writer.writerow(columns)
    missed: set[str] = set()
    for row in itertools.chain(first, rows):
        missed |= row.keys() - set(columns)
        writer.writerow([_cell(row.get(column)) for column in columns])
    if missed:
        click.echo(f"left out, as the first {SAMPLE_ROWS:,} rows had none: {', '.join(sorted(missed))}", err=True)


def _cell(value: Any) -> Any:
    return json.dumps(value, default=_text) if isinstance(value, (dict, list)) else value


def _named(row: dict[Any, Any]) -> FlatRow:
    """A row whose keys are text, as JSON and tables have them."""
    return {str(name): value for name, value in row.items()}


def _text(value: Any) -> Any:
    """Write a value that JSON can't hold: NumPy's as plain numbers, errors by type and message."""
    from workerbee.errors import text_of  # noqa: PLC0415 (loads what --help does without)

    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {text_of(value)}"
    listed = getattr(value, "tolist", None)
    return listed() if callable(listed) else text_of(value)
