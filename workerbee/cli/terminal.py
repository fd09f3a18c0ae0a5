"""How the commands print: tables for people, JSON documents for programs, data on stdout and the rest on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

import click

from workerbee.timing import utc

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """``--json``, which every reading command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON: for lists, one object a line.")(command)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = (), one_line: bool = False
) -> None:
    """Print rows under their headings; the columns numbered in ``right`` hold numbers.

    In a terminal a cell is broken where it is too long, or cut so that each row has ``one_line``.
    """
    from rich.console import Console  # noqa: PLC0415 (slow to load, and JSON does without)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    made = Table(box=None, pad_edge=False, header_style="bold")
    numbers = set(right)
    for n, heading in enumerate(headings):
        no_wrap = one_line or n in numbers or not console.is_terminal
        made.add_column(heading, justify="right" if n in numbers else "left", no_wrap=no_wrap)
    for row in rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    if not console.is_terminal:
        console.width = 10_000  # whoever reads it by a program gets whole cells
    with console.capture() as captured:  # as rich ends the program where a pipe is closed
        console.print(made)
    click.echo(captured.get(), nl=False)


def printable(text: str) -> str:
    """Text out of a row, without what could steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def sentence(text: str) -> None:
    """Print text out of rows, between whose words a terminal's lines end; a program gets one line."""
    shown = printable(text)
    if sys.stdout.isatty():
        shown = textwrap.fill(shown, shutil.get_terminal_size().columns, break_on_hyphens=False)
    click.echo(shown)


def document(command: str, **fields: Any) -> None:
    """Print one JSON document of this command."""
    whole = {"schema": f"workerbee.{command}/1", "at": moment(datetime.now(timezone.utc).timestamp())} | fields
    click.echo(json.dumps(whole))


def lines(rows: Iterable[dict[str, Any]]) -> None:
    """Print one JSON object a line."""
    for row in rows:
        click.echo(json.dumps(row))


def moment(epoch: float | None) -> str | None:
    """A time in UTC as ISO 8601 has it."""
    return None if epoch is None else utc(epoch).isoformat(timespec="seconds")


def local(epoch: float | None) -> str:
    """A time as the clock on the wall has it; in a terminal, where there is little room, without today's date."""
    if epoch is None:
        return ""
    at = utc(epoch).astimezone()
    is_today = at.date() == datetime.now(timezone.utc).astimezone().date()
    return f"{at:%H:%M:%S}" if is_today and sys.stdout.isatty() else f"{at:%Y-%m-%d %H:%M:%S}"


def shortened(text: str | None, width: int = 60) -> str:
    """One line of a text, with a mark where something is missing."""
    line = " ".join((text or "").split())
    return line if len(line) <= width else line[: width - 1] + "…"
