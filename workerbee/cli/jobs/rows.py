"""How a job is shown: in a cell, as a whole, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerbee.cli import terminal
from workerbee.cli.terminal import moment, shortened

if TYPE_CHECKING:
    from workerbee.reading import JobRow


def cell(codec: str, text: str | None) -> str:
    return shortened(whole(codec, text), 40)


def whole(codec: str, text: str | None) -> str:
    """A value's text; of a pickle there is none that could be had without unpickling it."""
    return f"({codec})" if text is None else terminal.printable(text)


def facts(row: JobRow) -> dict[str, Any]:
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
