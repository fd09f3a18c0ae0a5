"""How a job is shown: in a cell, as a whole, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from workerbee.cli import terminal
from workerbee.cli.terminal import local, moment, shortened

if TYPE_CHECKING:
    from workerbee.reading import JobRow, TextRow


def cell(codec: str, text: str | None) -> str:
    return shortened(whole(codec, text), 40)


def whole(codec: str, text: str | None) -> str:
    """A value's text; of a pickle there is none that could be had without unpickling it."""
    return f"({codec})" if text is None else terminal.printable(text)


def fields(row: JobRow) -> dict[str, Any]:
    return {
        "job": row.id,
        "status": row.status,
        "run": row.run,
        "function": row.function or None,
        "input": row.input,
        "output": row.output,
        "duration_seconds": row.duration,
        "ended": moment(row.ended_at),
        "bee": row.bee,
        "host": row.host,
    }


def text(row: TextRow) -> dict[str, Any]:
    """Give what an execution has printed, as JSON."""
    return {
        "run": row.run,
        "at": moment(row.at),
        "bee": row.bee,
        "stdout": row.printed.text(1),
        "stderr": row.printed.text(2),
        "stdout_bytes": row.stdout_size,
        "stderr_bytes": row.stderr_size,
    }


def print_table(rows: Iterable[JobRow]) -> None:
    """A line a job."""
    terminal.table(
        ("JOB", "STATUS", "RUN", "FUNCTION", "HOST", "TOOK", "ENDED", "INPUT", "OUTPUT"),
        (
            (
                row.id,
                row.status,
                row.run,
                row.function,
                row.host or "",
                "" if row.duration is None else f"{row.duration:.3g} s",
                local(row.ended_at),
                cell(row.input_codec, row.input),
                "" if row.output_codec is None else cell(row.output_codec, row.output),
            )
            for row in rows
        ),
        right=(0, 2, 5),
        one_line=True,
    )
