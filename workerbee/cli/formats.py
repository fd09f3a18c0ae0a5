"""Rows of results as other programs read them: JSON lines, CSV, Parquet."""

from __future__ import annotations

import csv
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import click

#: Rows by which the columns of CSV are found, and of Parquet in one piece.
SAMPLE_ROWS, PIECE_ROWS = 1000, 10_000
#: Beyond these a number of Parquet's isn't the same any more.
LONGEST = 2**63

FlatRow = dict[str, Any]


def write_jsonl(file: IO[str], rows: Iterable[FlatRow]) -> None:
    for row in rows:
        file.write(json.dumps(row, default=_text) + "\n")


def write_csv(file: IO[str], rows: Iterable[FlatRow]) -> None:
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


def named(row: dict[Any, Any]) -> FlatRow:
    """A row whose keys are text, as JSON and tables have them."""
    return {str(name): value for name, value in row.items()}


def _text(value: Any) -> Any:
    """Write a value that JSON can't hold: NumPy's as plain numbers, errors by type and message."""
    from workerbee.errors import text_of  # noqa: PLC0415 (loads what --help does without)

    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {text_of(value)}"
    listed = getattr(value, "tolist", None)
    return listed() if callable(listed) else text_of(value)


def require_parquet(output: Path | None) -> None:
    """Say what is missing."""
    if find_spec("pyarrow") is None:
        raise click.ClickException(
            "Parquet needs pyarrow, which isn't installed: pip install pyarrow, or take --format csv"
        )
    if output is None:
        raise click.UsageError("Parquet can't be streamed to a terminal or a pipe; name a file by -o FILE")


def write_parquet(file: IO[str], rows: Iterable[FlatRow]) -> None:
    """Each column has the type that fits all its values; what are several, or lists and dicts, becomes text.

    The rows are kept in a file meanwhile, as the types are known at the end.
    """
    import pyarrow as pa  # noqa: PLC0415 (optional, and slow to load)
    from pyarrow import parquet  # noqa: PLC0415

    kinds: dict[str, str] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=Path(file.name).parent) as kept:
        for row in rows:
            kept.write(json.dumps(row, default=_text) + "\n")
        kept.seek(0)
        for row in map(json.loads, kept):
            for name, value in row.items():
                kinds[name] = _joined(kinds.get(name, "null"), _kind(value))
        kept.seek(0)
        types = {"null": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}
        schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
        with parquet.ParquetWriter(file.buffer, schema) as writer:  # type: ignore[attr-defined]
            for piece in _pieces(map(json.loads, kept)):
                shown = [{name: _fitting(kind, row.get(name)) for name, kind in kinds.items()} for row in piece]
                writer.write_table(pa.Table.from_pylist(shown, schema=schema))


def _pieces(rows: Iterator[FlatRow]) -> Iterator[list[FlatRow]]:
    while piece := list(itertools.islice(rows, PIECE_ROWS)):
        yield piece


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -LONGEST <= value < LONGEST else "text"
    return "float" if isinstance(value, float) else "text"


def _joined(one: str, other: str) -> str:
    """The kind that holds values of both."""
    if other in (one, "null"):
        return one
    if one == "null":
        return other
    return "float" if {one, other} == {"int", "float"} else "text"


def _fitting(kind: str, value: Any) -> Any:
    """A value as its column has it."""
    if value is None or kind not in ("text", "float"):
        return value
    if kind == "float":
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


WRITERS: dict[str, Callable[[IO[Any], Iterable[FlatRow]], None]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}
