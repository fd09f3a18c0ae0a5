"""``workerbee top``: one screen that says how a jobset goes, and keys that steer it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from workerbee.cli.database import dsn_option, reading, same_server
from workerbee.cli.terminal import local

if TYPE_CHECKING:
    from workerbee.cli.top.looking import Look

#: Seconds between looks: at a terminal, and without one.
LIVE_SECONDS, LINE_SECONDS = 1.0, 60.0
#: Seconds that a look may take before the database counts as away, as keys wait for it.
PATIENCE_SECONDS = 2.0


@click.command()
@click.argument("jobset_id", required=False, metavar="[JOBSET]")
@click.option("--interval", type=click.FloatRange(0.05), metavar="SECONDS", help="Between two looks [1; or 60].")
@dsn_option
def top(jobset_id: str | None, interval: float | None, dsn: str | None) -> None:
    """Show live how JOBSET goes; without one, all jobsets to choose from.

    Keys: q back, ? help, arrows and enter choose, f failures, b bees, p freeze, r retry a group. Without a terminal it
    prints a line a minute, until nothing of JOBSET is open.
    """
    from workerbee.cli.top.looking import Look  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        look = Look(reader, jobset_id, same_server(dsn))
        if sys.stdout.isatty() and sys.stdin.isatty():
            reader.connection.patience = PATIENCE_SECONDS
            _live(look, interval or LIVE_SECONDS)
        else:
            _lines(look, interval or LINE_SECONDS)


def _lines(look: Look, interval: float) -> None:
    """A line for each look, for a log; an outage is a line too."""
    while True:
        seen = look.refreshed()
        click.echo(f"{local(time.time())}  {seen.line}")
        sys.stdout.flush()
        if seen.is_over:
            return
        time.sleep(interval)


def _live(look: Look, interval: float) -> None:
    from rich.console import Console  # noqa: PLC0415 (slow to load)

    from workerbee.cli.top.drawing import drawn  # noqa: PLC0415
    from workerbee.cli.top.keys import keyboard  # noqa: PLC0415
    from workerbee.cli.top.screen import Screen  # noqa: PLC0415

    console = Console(highlight=False)
    screen = Screen(look)
    with keyboard() as keys, console.screen(hide_cursor=True) as shown:
        due = 0.0
        while not screen.is_over:
            if time.monotonic() >= due:
                if not screen.is_frozen:
                    screen.seen = look.refreshed()
                due = time.monotonic() + interval
            shown.update(drawn(screen, *console.size))
            for key in keys(due - time.monotonic()):
                screen.press(key)
